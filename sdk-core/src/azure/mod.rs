//! Azure IoT: names, credentials, topics and documents of IoT Hub and the Device Provisioning Service over MQTT 3.1.1.
//!
//! Everything here is a mapping between values and text. Nothing connects, waits or remembers.

pub mod connection_string;
pub mod dps;
pub mod dps_https;
pub mod hub;
pub mod json;
pub mod key_choice;
pub mod names;
pub mod property_bag;
pub mod sas;
mod scan;
pub(crate) use scan::{decimal, split_once};
pub mod services;
pub mod timestamp;
