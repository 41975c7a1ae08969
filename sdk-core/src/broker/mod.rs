//! A plain broker of MQTT 3.1.1: its profile, and the filters the application subscribes to.

mod filters;
mod profile;

pub(crate) use self::profile::KEEP_ALIVE_MAX;

pub use self::profile::Broker;
