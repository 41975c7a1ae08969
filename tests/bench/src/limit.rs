//! The limits: what a socket allows when nothing is left to do but move bytes.

use crate::frames;
use crate::meter::Meter;
use crate::order::{Answer, Order, TOPIC};
use crate::pipe::Pipe;
use crate::trust;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::{ClientConnection, Connection};
use std::net::TcpStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How the free window is filled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refill {
    /// In one write.
    Batched,
    /// One message after the other.
    OneByOne,
}

/// Publishes packets encoded beforehand, as fast as the window allows.
///
/// # Errors
/// When the connection fails.
pub(crate) fn throughput(order: &Order, refill: Refill) -> Result<Answer, String> {
    let mut pipe = connect(order)?;
    let mut ring = Ring::new(order);
    let mut free = ring.window;
    let (mut acked, mut received) = (0, Vec::new());
    let mut meter = Meter::new(order);
    loop {
        let run = ring.take(free);
        match refill {
            Refill::Batched => pipe.send(run).map_err(text)?,
            Refill::OneByOne => run.chunks(run.len() / free).try_for_each(|one| pipe.send(one)).map_err(text)?,
        }
        free = 0;
        while free == 0 {
            if !pipe.receive(&mut received).map_err(text)? {
                return Err("the sink closed the connection".into());
            }
            let taken = frames::each_frame(&received, |first, _| free += usize::from(first == 0x40))?;
            received.drain(..taken);
        }
        acked += free as u64;
        if let Some(answer) = meter.tick(acked) {
            return Ok(answer);
        }
    }
}

/// The same in one task of tokio's single-threaded runtime: what is left to a client that runs on it. Batched, plain.
///
/// # Errors
/// When the connection fails.
pub(crate) fn throughput_on_tokio(order: &Order) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    runtime.block_on(async {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", order.port)).await.map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        let mut connect = Vec::new();
        frames::put_connect("limit", &mut connect);
        socket.write_all(&connect).await.map_err(text)?;
        let mut buffer = vec![0; 16 * 1024];
        socket.read_exact(&mut buffer[..4]).await.map_err(text)?;
        let mut ring = Ring::new(order);
        let mut free = ring.window;
        let (mut acked, mut received) = (0, Vec::new());
        let mut meter = Meter::new(order);
        loop {
            if free > 0 {
                socket.write_all(ring.take(free)).await.map_err(text)?;
            }
            let count = socket.read(&mut buffer).await.map_err(text)?;
            if count == 0 {
                return Err("the sink closed the connection".into());
            }
            received.extend_from_slice(&buffer[..count]);
            free = 0;
            let taken = frames::each_frame(&received, |first, _| free += usize::from(first == 0x40))?;
            received.drain(..taken);
            acked += free as u64;
            if let Some(answer) = meter.tick(acked) {
                return Ok(answer);
            }
        }
    })
}

/// The packets of a window, encoded beforehand.
struct Ring {
    /// Twice the window, so that every run of free places lies in one piece.
    packets: Vec<u8>,
    window: usize,
    next: usize,
}

impl Ring {
    fn new(order: &Order) -> Self {
        let mut packets = Vec::new();
        for id in (1..=order.window).chain(1..=order.window) {
            frames::put_publish(TOPIC, id, &order.payload(), &mut packets);
        }
        Self { packets, window: usize::from(order.window), next: 0 }
    }

    /// Returns the next `count` packets, at most a window.
    fn take(&mut self, count: usize) -> &[u8] {
        let packet = self.packets.len() / (2 * self.window);
        let start = self.next * packet;
        self.next = (self.next + count) % self.window;
        &self.packets[start..start + count * packet]
    }
}

fn connect(order: &Order) -> Result<Pipe, String> {
    let socket = TcpStream::connect(("127.0.0.1", order.port)).map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    let mut pipe = match &order.ca {
        Some(ca) => {
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
            let connection =
                ClientConnection::new(trust::client_config(ca)?, name).map_err(|error| error.to_string())?;
            Pipe::tls(Connection::Client(connection), socket).map_err(text)?
        }
        None => Pipe::plain(socket),
    };
    let mut connect = Vec::new();
    frames::put_connect("limit", &mut connect);
    pipe.send(&connect).map_err(text)?;
    let mut received = Vec::new();
    while received.len() < 4 {
        if !pipe.receive(&mut received).map_err(text)? {
            return Err("the sink closed the connection".into());
        }
    }
    if received == [0x20, 2, 0, 0] { Ok(pipe) } else { Err(format!("the sink answered {received:02x?}")) }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}
