//! IoT Hub: the profile of a hub at a fixed host, and what every way to a hub shares.

pub(crate) mod access;
mod message;
mod profile;

pub(crate) use self::profile::check_device;
pub use self::profile::{HubProfile, IotHub, Residence};
