//! MQTT in binary WebSocket frames, as a stream of bytes regardless of frame boundaries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::strict::MAX_PACKET;
use crate::wire::Transport;

/// The bytes inside the frames of a WebSocket.
pub(crate) struct Frames<S> {
    socket: WebSocketStream<S>,
    unread: Bytes,
    /// Largest frame to the client, in bytes.
    largest: usize,
}

impl<S: Transport> Frames<S> {
    /// Wraps a stream after its handshake; `part` holds the bytes read beyond it.
    pub(crate) async fn new(stream: S, part: Vec<u8>, largest: usize) -> Self {
        let config =
            WebSocketConfig::default().max_message_size(Some(2 * MAX_PACKET)).max_frame_size(Some(2 * MAX_PACKET));
        let socket = WebSocketStream::from_partially_read(stream, part, Role::Server, Some(config)).await;
        Self { socket, unread: Bytes::new(), largest: largest.max(1) }
    }
}

impl<S: Transport> Transport for Frames<S> {
    fn socket(&mut self) -> &mut TcpStream {
        self.socket.get_mut().socket()
    }
}

impl<S: Transport> AsyncRead for Frames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "MQTT in a text frame")));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(to_io(error)),
            }
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..count]);
        self.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: Transport> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).or_else(to_io)?;
        let count = bytes.len().min(self.largest);
        let frame = Message::Binary(Bytes::copy_from_slice(&bytes[..count]));
        Pin::new(&mut self.socket).start_send(frame).or_else(to_io)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map(|flushed| flushed.or_else(to_io))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context).map(|closed| closed.or_else(to_io))
    }
}

fn to_io(error: Error) -> io::Result<()> {
    if matches!(error, Error::ConnectionClosed | Error::AlreadyClosed) {
        return Ok(());
    }
    Err(if let Error::Io(error) = error { error } else { io::Error::other(error) })
}
