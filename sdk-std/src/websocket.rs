//! MQTT over WebSockets: packets travel in binary frames, without regard to where one ends (MQTT 3.1.1, section 6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream as _};
use steadfast_core::way::{Opening, PORT, SUBPROTOCOL};
use steadfast_core::{Failure, Role};
use tokio::io::ReadBuf;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::{Request, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::pipe::Stream;
use crate::proxy::authority;
use crate::tls;

/// Most bytes in a frame to the service.
const FRAME: usize = 64 * 1024;

/// Longest message from the service, in one frame or several.
const LONGEST: usize = 1 << 20;

/// The read buffer that each connection keeps.
const BUFFER: usize = 4 * 1024;

/// Bytes in frames.
#[derive(Debug)]
pub(crate) struct WebSocket {
    frames: WebSocketStream<Stream>,
    /// What has come and was not read.
    incoming: Bytes,
}

impl WebSocket {
    /// Upgrades `stream`. `shown`: the device showed a certificate.
    pub(crate) async fn upgrade(
        stream: Stream,
        host: &str,
        port: u16,
        role: Role,
        broker: bool,
        shown: bool,
    ) -> Result<Self, Failure> {
        let path = Opening { role, broker, certificate: shown }.path();
        let address = authority(host, port);
        let name = if port == PORT { address.trim_end_matches(":443") } else { &address };
        let request = Request::builder()
            .uri(format!("wss://{name}{path}"))
            .header(header::HOST, name)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
            .body(());
        let Ok(request) = request else {
            return Err(Failure::Unresolved);
        };
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = BUFFER;
        config.write_buffer_size = 0;
        config.max_message_size = Some(LONGEST);
        config.max_frame_size = Some(LONGEST);
        match client_async_with_config(request, stream, Some(config)).await {
            // None was offered (RFC 6455, section 4.1); the library looks after the other terms.
            Ok((_, answer))
                if answer.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().any(|it| !it.is_empty()) =>
            {
                tracing::warn!(host, "the service named an extension of WebSockets that was not offered");
                Err(Opening::refused(101, None))
            }
            Ok((frames, _)) => Ok(Self { frames, incoming: Bytes::new() }),
            Err(error) => {
                tracing::warn!(host, error = %shorten(&error), "no upgrade to WebSockets");
                Err(failure(&error, shown))
            }
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.incoming.is_empty() {
            match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.incoming = bytes,
                // Pings are answered below.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    tracing::debug!(code, "the service closes the WebSocket");
                    // No data follows (RFC 6455, section 5.5.1), and a service that then keeps TCP open would hold up
                    // the link.
                    return Poll::Ready(Ok(()));
                }
                // MQTT 3.1.1 [MQTT-6.0.0-1]: data comes in binary frames.
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text frame")));
                }
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let len = self.incoming.len().min(buffer.remaining());
        buffer.put_slice(&self.incoming[..len]);
        self.incoming.advance(len);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(io_error)?;
        let frame = &bytes[..bytes.len().min(FRAME)];
        let message = Message::Binary(Bytes::copy_from_slice(frame));
        Pin::new(&mut self.frames).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(frame.len()))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(cx).map_err(io_error)
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_close(cx).map_err(io_error)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others are faults of the protocol")]
fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// Says what became of the upgrade.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are answers that are not a WebSocket's")]
fn failure(error: &Error, shown: bool) -> Failure {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        Error::Http(answer) => {
            let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            Opening::refused(answer.status().as_u16(), retry_after)
        }
        Error::Io(error) => tls::failure(error, shown).map_or(Failure::Lost, Failure::Tls),
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            Failure::Lost
        }
        Error::Protocol(ProtocolError::HttparseError(_)) | Error::HttpFormat(_) | Error::AttackAttempt => {
            Opening::refused(0, None)
        }
        _ => Opening::refused(101, None),
    }
}

/// The error without the answer's body, which may be long and says what an operator's proxy likes.
fn shorten(error: &Error) -> String {
    if let Error::Http(answer) = error { format!("HTTP status {}", answer.status()) } else { error.to_string() }
}
