//! MQTT 3.1.1.

mod decode;
mod encode;
mod error;
mod packet;

pub use decode::{Decoded, Incoming, Received, decode};
pub use error::{DecodeError, EncodeError};
pub use packet::{Compose, Connect, Login, Packet, Publish, PublishText, Subscribe, Unsubscribe, Will};
