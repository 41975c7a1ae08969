//! The floor of memory: a tokio task with a connection and 64 bytes to read into.

use crate::order::{Answer, Order};
use crate::{frames, meter, trust};
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

/// Connects the ordered number of clients and lets them idle.
///
/// # Errors
/// When a connection fails.
pub(crate) fn idle(order: &Order) -> Result<Answer, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let connector = match &order.ca {
        Some(ca) => Some(TlsConnector::from(trust::client_config(ca)?)),
        None => None,
    };
    runtime.block_on(async {
        let mut before = 0.0;
        for number in 0..=order.clients {
            if number == 1 {
                // What the first client brought in belongs to the process.
                before = meter::resident_bytes()?;
            }
            let (told, connected) = oneshot::channel();
            let (port, connector) = (order.port, connector.clone());
            // A task each for plain and TLS, so that the small one does not have the size of the large one. The sender goes
            // with the task, so a failure is seen.
            match connector {
                Some(connector) => _ = tokio::spawn(tls(port, connector, told)),
                None => _ = tokio::spawn(plain(port, told)),
            }
            connected.await.map_err(|_| "a client did not connect")?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let grown = meter::resident_bytes()? - before;
        Ok(Answer { bytes_per_client: grown / order.clients as f64, ..Answer::default() })
    })
}

async fn plain(port: u16, told: oneshot::Sender<()>) -> std::io::Result<()> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    serve(socket, told).await
}

async fn tls(port: u16, connector: TlsConnector, told: oneshot::Sender<()>) -> std::io::Result<()> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
    // The state of the handshake is large; it must not stay in the task that idles.
    let stream = Box::pin(connector.connect(name, socket)).await?;
    serve(stream, told).await
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, told: oneshot::Sender<()>) -> std::io::Result<()> {
    let mut connect = Vec::new();
    frames::put_connect("idle", &mut connect);
    stream.write_all(&connect).await?;
    drop(connect);
    let mut buffer = [0; 64];
    stream.read_exact(&mut buffer[..4]).await?;
    let _ = told.send(());
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
