//! MQTT over WebSockets (RFC 6455).

mod frames;
mod handshake;
mod sha1;

pub use frames::{CONTROL_FRAME, FrameError, Frames, Taken};
pub use handshake::{Opening, PORT, SUBPROTOCOL, Upgrade};
