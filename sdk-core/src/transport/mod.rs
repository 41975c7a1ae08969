//! Transports below MQTT: an HTTP proxy's tunnel, and WebSockets.
//!
//! As all of the core these are rules without I/O. A frontend writes what they compose, hands in what comes back, and
//! tells the link the failure they name.

mod http_proxy;
mod websocket;

pub use http_proxy::{ANSWER_MAX, Tunnel};
pub use websocket::{CONTROL_FRAME, FrameError, Frames, Opening, PORT, SUBPROTOCOL, Taken, Upgrade};
