//! Azure IoT: names, connection strings, keys and tokens.
//!
//! Everything here is a mapping between values and text. Nothing connects, waits or remembers.

pub mod connection_string;
pub mod key_choice;
pub mod names;
pub mod sas;
pub mod timestamp;
