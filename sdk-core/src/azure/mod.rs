//! Azure IoT: names, connection strings, keys and tokens.
//!
//! Everything here converts between values and text, without I/O or state.

pub mod connection_string;
pub mod key_choice;
pub mod names;
pub mod sas;
pub mod timestamp;
