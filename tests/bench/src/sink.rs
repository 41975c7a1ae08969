//! A server that acknowledges everything and keeps nothing: the clients' own ceiling shows against it.

use crate::frames;
use crate::pipe::Pipe;
use rustls::{Connection, ServerConfig, ServerConnection};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// Enough for a TLS handshake; a thousand idle clients each have a thread here.
const STACK_BYTES: usize = 256 * 1024;

/// A running server on the loopback interface.
///
/// Every PUBACK that one read asks for goes out in one write. Dropping the sink closes the listener and every connection.
pub(crate) struct Sink {
    address: SocketAddr,
    opened: Instant,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    first_ack: OnceLock<Instant>,
    open: Mutex<Vec<TcpStream>>,
}

impl Sink {
    /// Listens at `port` of 127.0.0.1, with TLS when `tls` is given.
    ///
    /// # Errors
    /// When the port is taken or no thread starts.
    pub(crate) fn start(port: u16, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let opened = Instant::now();
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let for_acceptor = Arc::clone(&shared);
        let acceptor = Builder::new().spawn(move || accept(&listener, &for_acceptor, tls.as_ref()))?;
        Ok(Self { address, opened, shared, acceptor: Some(acceptor) })
    }

    /// Listens at any free port outside of the range from which the system takes the ports of outgoing connections.
    ///
    /// A client that tries a closed port of that range again and again is one day given that very port and connects to
    /// itself.
    ///
    /// # Errors
    /// When no port is free.
    pub(crate) fn start_anywhere(tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let first = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap_or(0);
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in first..first + 1_000 {
            match Self::start(port, tls.clone()) {
                Ok(sink) => return Ok(sink),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the seconds from the opening of the port to the first PUBACK, once there was one.
    pub(crate) fn first_ack_seconds(&self) -> Option<f64> {
        self.shared.first_ack.get().map(|at| (*at - self.opened).as_secs_f64())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor; when that fails, it is awake already.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for socket in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<ServerConfig>>) {
    for socket in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let Ok(copy) = socket.try_clone() else { continue };
        shared.open.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
        let (for_connection, tls) = (Arc::clone(shared), tls.cloned());
        let serve = move || {
            // Clients come and go as they like; the end of a connection is no event here.
            let _ = serve(socket, &for_connection, tls);
        };
        let started = Builder::new().stack_size(STACK_BYTES).spawn(serve);
        if started.is_err() {
            return;
        }
    }
}

fn serve(socket: TcpStream, shared: &Shared, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut pipe = match tls {
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            Pipe::tls(Connection::Server(connection), socket)?
        }
        None => Pipe::plain(socket),
    };
    let (mut received, mut answers) = (Vec::new(), Vec::new());
    while pipe.receive(&mut received)? {
        let mut acked = false;
        let taken = frames::each_frame(&received, |first, body| acked |= frames::put_answer(first, body, &mut answers));
        received.drain(..taken.map_err(io::Error::other)?);
        if !answers.is_empty() {
            pipe.send(&answers)?;
            answers.clear();
        }
        if acked && shared.first_ack.get().is_none() {
            let _ = shared.first_ack.set(Instant::now());
        }
    }
    Ok(())
}
