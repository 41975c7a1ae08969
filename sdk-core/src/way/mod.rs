//! What stands before MQTT on the way to a service: an HTTP proxy, and the opening of WebSockets.
//!
//! As all of the core these are rules without I/O. A frontend writes what they compose, hands in what comes back, and
//! tells the link the failure they name.

mod tunnel;
mod upgrade;

pub use tunnel::{ANSWER_MAX, Tunnel};
pub use upgrade::{Opening, PORT, SUBPROTOCOL};
