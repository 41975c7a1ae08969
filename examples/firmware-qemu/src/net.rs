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

use crate::machine::{self, Card, Sender, Slot};

/// The host, as QEMU's user network shows it.
const HOST: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const OWN: IpAddress = IpAddress::v4(10, 0, 2, 15);

/// Bytes that TCP keeps each way.
const TCP: usize = 2048;

/// Interface, card and the one socket.
pub struct Stack {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    next_port: u16,
}

/// The stack, for those who use it by turns.
pub type Shared = RefCell<Stack>;

static STORAGE: Slot<[SocketStorage<'static>; 1]> = Slot::new([SocketStorage::EMPTY]);
static TCP_RX: Slot<[u8; TCP]> = Slot::new([0; TCP]);
static TCP_TX: Slot<[u8; TCP]> = Slot::new([0; TCP]);

impl Stack {
    /// Makes the stack; to be called once.
    pub fn new(mut card: Card, seed: u64) -> Option<Self> {
        let mut config = Config::new(EthernetAddress(card.mac()).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut card, now());
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(OWN, 24));
        });
        let (rx, tx) = (TCP_RX.take()?, TCP_TX.take()?);
        let mut sockets = SocketSet::new(STORAGE.take()?.as_mut_slice());
        let socket = tcp::Socket::new(tcp::SocketBuffer::new(&mut rx[..]), tcp::SocketBuffer::new(&mut tx[..]));
        let socket = sockets.add(socket);
        Some(Self { card, interface, sockets, socket, next_port: 49_152 + (seed % 10_000) as u16 })
    }

    /// Moves frames.
    #[inline(never)]
    pub fn poll(&mut self) {
        self.interface.poll(now(), &mut self.card, &mut self.sockets);
    }

    /// Whether a whole TLS record has come, or as much of it as there is room for, or the stream has ended.
    #[cfg(feature = "tls")]
    pub fn has_record(&mut self) -> bool {
        let socket = self.socket();
        let (mut header, queued) = ([0; 5], socket.recv_queue());
        let wanted = match socket.peek_slice(&mut header) {
            Ok(5) => 5 + usize::from(u16::from_be_bytes([header[3], header[4]])),
            _ => header.len(),
        };
        queued >= wanted.min(socket.recv_capacity()) || !socket.may_recv()
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }
}

fn now() -> Instant {
    Instant::from_millis(machine::millis() as i64)
}

/// Returns the uptime in milliseconds at which `limit` has passed.
pub fn deadline(limit: Duration) -> u64 {
    machine::millis().saturating_add(limit.as_millis().try_into().unwrap_or(u64::MAX))
}

impl Device for Card {
    type RxToken<'t> = Frame<'t>;
    type TxToken<'t> = Sender<'t>;

    fn receive(&mut self, _: Instant) -> Option<(Frame<'_>, Sender<'_>)> {
        let (frame, sender) = Self::receive(self)?;
        Some((Frame(frame), sender))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(self.sender())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame that came, where the card put it.
pub struct Frame<'t>(&'t [u8]);

impl RxToken for Frame<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.send(len, fill)
    }
}

/// Dials the emulator on the host, whichever service is wanted: it tells them apart by the login.
pub struct Dialler {
    pub stack: &'static Shared,
    pub port: u16,
}

impl Connect for Dialler {
    type Stream = Socket;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Socket, Failure> {
        self.open(dial.limit)
    }
}

impl Dialler {
    /// Opens the connection, within `limit`.
    pub fn open(&mut self, limit: Duration) -> Result<Socket, Failure> {
        let until = deadline(limit);
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
pub struct Socket {
    stack: &'static Shared,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut stack = self.stack.borrow_mut();
        stack.socket().close();
        stack.poll();
    }
}

impl ErrorType for Socket {
    type Error = ErrorKind;
}

impl Read for Socket {
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

impl Write for Socket {
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

impl Stream for Socket {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        let until = deadline(limit);
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
