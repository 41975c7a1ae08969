//! Transports below MQTT: an HTTP proxy's tunnel, and WebSockets.
//!
//! Like the whole core, these are rules without I/O. A frontend writes their bytes, passes in the received ones, and
//! reports their failures to the link.

mod http_proxy;
mod websocket;

pub use http_proxy::{ANSWER_MAX, Tunnel};
pub use websocket::{CONTROL_FRAME, FrameError, Frames, Opening, PORT, SUBPROTOCOL, Taken, Upgrade};
