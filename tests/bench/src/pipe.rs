//! A blocking connection, plain or TLS.

use rustls::Connection;
use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

/// What one read of the socket can bring.
const READ_BYTES: usize = 256 * 1024;

/// Plain text that goes into one write to a TLS connection: what one record holds.
const RECORD_BYTES: usize = 16 * 1024;

/// One end of a connection.
pub(crate) enum Pipe {
    /// TCP.
    Plain(TcpStream, Box<[u8]>),
    /// TLS over TCP.
    Tls(Box<Connection>, BufReader<TcpStream>),
}

impl Pipe {
    /// Speaks plain TCP.
    pub(crate) fn plain(socket: TcpStream) -> Self {
        Self::Plain(socket, vec![0; READ_BYTES].into())
    }

    /// Speaks TLS and finishes the handshake.
    ///
    /// # Errors
    /// When the handshake fails.
    pub(crate) fn tls(connection: Connection, socket: TcpStream) -> io::Result<Self> {
        let mut connection = Box::new(connection);
        let mut socket = BufReader::with_capacity(READ_BYTES, socket);
        while connection.is_handshaking() {
            flush(&mut connection, &mut socket)?;
            if connection.is_handshaking() && !fill(&mut connection, &mut socket)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        flush(&mut connection, &mut socket)?;
        Ok(Self::Tls(connection, socket))
    }

    /// Appends what one read of the socket brings to `to`, waiting for it; false at the end.
    ///
    /// # Errors
    /// From the socket or the TLS connection.
    pub(crate) fn receive(&mut self, to: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Plain(socket, buffer) => {
                let count = socket.read(buffer)?;
                to.extend_from_slice(&buffer[..count]);
                Ok(count > 0)
            }
            Self::Tls(connection, socket) => {
                let before = to.len();
                loop {
                    let open = drain(connection, to)?;
                    let enough = to.len() > before && socket.buffer().is_empty();
                    if enough || !open {
                        return Ok(to.len() > before);
                    }
                    if !fill(connection, socket)? {
                        return Ok(to.len() > before);
                    }
                    flush(connection, socket)?;
                }
            }
        }
    }

    /// Sends all of `bytes`: in one write when the connection is plain, record by record otherwise.
    ///
    /// # Errors
    /// From the socket or the TLS connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket, _) => socket.write_all(bytes),
            Self::Tls(connection, socket) => {
                for record in bytes.chunks(RECORD_BYTES) {
                    connection.writer().write_all(record)?;
                }
                flush(connection, socket)
            }
        }
    }
}

/// Reads what the socket has and decrypts it; false at the end.
fn fill(connection: &mut Connection, socket: &mut BufReader<TcpStream>) -> io::Result<bool> {
    if connection.read_tls(socket)? == 0 {
        return Ok(false);
    }
    connection.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(true)
}

/// Moves decrypted bytes to `to`; false when the peer has closed the connection.
fn drain(connection: &mut Connection, to: &mut Vec<u8>) -> io::Result<bool> {
    match connection.reader().read_to_end(to) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn flush(connection: &mut Connection, socket: &mut BufReader<TcpStream>) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(socket.get_mut())?;
    }
    Ok(())
}
