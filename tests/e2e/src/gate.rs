//! A way to a server that can be closed.

use std::net::SocketAddr;
use std::pin::pin;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards bytes of any number of connections, while it is open.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Held,
    Closed,
}

impl Gate {
    /// Opens a way to `target`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (state, watched) = watch::channel(State::Open);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *watched.borrow() != State::Closed {
                    tokio::spawn(forward(near, target, watched.clone()));
                }
            }
        });
        Self { address, state, task }
    }

    /// Returns the address on this side.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections and closes new ones.
    pub fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    /// Keeps connections and lets no byte pass, in either direction.
    pub fn hold(&self) {
        self.state.send_replace(State::Held);
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut near: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        // Only latency suffers without it.
        let _ = stream.set_nodelay(true);
    }
    let mut copying = pin!(tokio::io::copy_bidirectional(&mut near, &mut far));
    loop {
        let now = *state.borrow_and_update();
        let changed = match now {
            State::Closed => return,
            State::Held => state.changed().await,
            State::Open => tokio::select! {
                _ = &mut copying => return,
                changed = state.changed() => changed,
            },
        };
        if changed.is_err() {
            return;
        }
    }
}
