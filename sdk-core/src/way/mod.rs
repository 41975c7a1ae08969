//! What stands before MQTT on the way to a service, and around it: an HTTP proxy, and WebSockets.
//!
//! As all of the core these are rules without I/O. A frontend writes what they compose, hands in what comes back, and
//! tells the link the failure they name.

mod frames;
mod sha1;
mod tunnel;
mod upgrade;

pub use frames::{CONTROL_FRAME, FrameError, Frames, Taken};
pub use tunnel::{ANSWER_MAX, Tunnel};
pub use upgrade::{Opening, PORT, SUBPROTOCOL, Upgrade};
