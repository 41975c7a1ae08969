//! The limits: what a socket allows when nothing is left to do but move bytes.

use crate::frames;
use crate::meter::Meter;
use crate::order::{Answer, Order, TOPIC};
use crate::pipe::Pipe;
use crate::trust;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::{ClientConnection, Connection};
use std::net::TcpStream;

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
    let window = usize::from(order.window);
    let mut ring = Vec::new();
    // Twice the window, so that every run of free places lies in one piece.
    for id in (1..=order.window).chain(1..=order.window) {
        frames::put_publish(TOPIC, id, &order.payload(), &mut ring);
    }
    let packet = ring.len() / (2 * window);
    let (mut next, mut free, mut acked) = (0, window, 0);
    let mut received = Vec::new();
    let mut meter = Meter::new(order);
    loop {
        let run = &ring[next * packet..(next + free) * packet];
        match refill {
            Refill::Batched => pipe.send(run).map_err(text)?,
            Refill::OneByOne => run.chunks(packet).try_for_each(|one| pipe.send(one)).map_err(text)?,
        }
        next = (next + free) % window;
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
