//! TCP by smoltcp over the machine's network card, as a stream for the device.

use core::cell::RefCell;
use core::time::Duration;

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};
use steadfast_core::Failure;
use steadfast_esp32::{Connect, Dial, Stream};

use crate::machine::{self, Card, FRAME};

/// The host, as QEMU's user network shows it.
const HOST: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const OWN: IpAddress = IpAddress::v4(10, 0, 2, 15);

/// Interface, card and the one socket.
pub struct Stack<'a> {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'a>,
    socket: SocketHandle,
    next_port: u16,
}

impl<'a> Stack<'a> {
    /// Makes the stack in the memory given.
    pub fn new(
        mut card: Card,
        storage: &'a mut [SocketStorage<'a>],
        rx: &'a mut [u8],
        tx: &'a mut [u8],
        seed: u64,
    ) -> Self {
        let mut config = Config::new(EthernetAddress(card.mac()).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut card, now());
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(OWN, 24));
        });
        let mut sockets = SocketSet::new(storage);
        let socket = sockets.add(tcp::Socket::new(tcp::SocketBuffer::new(rx), tcp::SocketBuffer::new(tx)));
        Self { card, interface, sockets, socket, next_port: 49_152 + (seed % 10_000) as u16 }
    }

    /// Moves frames.
    pub fn poll(&mut self) {
        self.interface.poll(now(), &mut self.card, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut tcp::Socket<'a> {
        self.sockets.get_mut(self.socket)
    }
}

fn now() -> Instant {
    Instant::from_millis(machine::millis() as i64)
}

impl Device for Card {
    type RxToken<'t> = Frame;
    type TxToken<'t> = Sender<'t>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Sender<'_>)> {
        let mut frame = Frame { bytes: [0; FRAME], len: 0 };
        let came = Self::receive(self, |bytes| {
            frame.len = bytes.len().min(FRAME);
            frame.bytes[..frame.len].copy_from_slice(&bytes[..frame.len]);
        });
        came.then_some((frame, Sender(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame that came.
pub struct Frame {
    bytes: [u8; FRAME],
    len: usize,
}

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.bytes[..self.len])
    }
}

/// A frame that can go.
pub struct Sender<'t>(&'t mut Card);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.0.send(len, fill)
    }
}

/// Dials the emulator on the host, whichever service is wanted: it tells them apart by the login.
pub struct Dialler<'s, 'a> {
    pub stack: &'s RefCell<Stack<'a>>,
    pub port: u16,
}

impl<'s, 'a> Connect for Dialler<'s, 'a> {
    type Stream = Socket<'s, 'a>;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Socket<'s, 'a>, Failure> {
        let until = machine::millis().saturating_add(dial.limit.as_millis().try_into().unwrap_or(u64::MAX));
        let stack = &mut *self.stack.borrow_mut();
        stack.next_port = stack.next_port.checked_add(1).unwrap_or(49_152);
        stack.sockets.get_mut::<tcp::Socket<'_>>(stack.socket).abort();
        stack.poll();
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(stack.socket);
        socket.set_nagle_enabled(false);
        socket.connect(stack.interface.context(), (HOST, self.port), stack.next_port).map_err(|_| Failure::Network)?;
        loop {
            stack.poll();
            match stack.socket().state() {
                tcp::State::Established => return Ok(Socket { stack: self.stack }),
                tcp::State::Closed => return Err(Failure::ConnectionRefused),
                _ if machine::millis() >= until => return Err(Failure::ConnectTimeout),
                _ => {}
            }
        }
    }
}

/// The open connection.
pub struct Socket<'s, 'a> {
    stack: &'s RefCell<Stack<'a>>,
}

impl Drop for Socket<'_, '_> {
    fn drop(&mut self) {
        let mut stack = self.stack.borrow_mut();
        stack.socket().close();
        stack.poll();
    }
}

impl ErrorType for Socket<'_, '_> {
    type Error = ErrorKind;
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let mut stack = self.stack.borrow_mut();
        stack.poll();
        match stack.socket().recv_slice(buffer) {
            Ok(0) => Err(ErrorKind::TimedOut),
            Ok(len) => Ok(len),
            Err(tcp::RecvError::Finished) => Ok(0),
            Err(tcp::RecvError::InvalidState) => Err(ErrorKind::ConnectionReset),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let mut stack = self.stack.borrow_mut();
        let written = stack.socket().send_slice(bytes);
        stack.poll();
        match written {
            Ok(0) => Err(ErrorKind::TimedOut),
            Ok(len) => Ok(len),
            Err(_) => Err(ErrorKind::ConnectionReset),
        }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.stack.borrow_mut().poll();
        Ok(())
    }
}

impl Stream for Socket<'_, '_> {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        let until = machine::millis().saturating_add(limit.as_millis().try_into().unwrap_or(u64::MAX));
        loop {
            let mut stack = self.stack.borrow_mut();
            stack.poll();
            let socket = stack.socket();
            if socket.can_recv() || !socket.may_recv() {
                return Ok(true);
            }
            if machine::millis() >= until {
                return Ok(false);
            }
        }
    }
}
