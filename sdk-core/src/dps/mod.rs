//! The Device Provisioning Service: the profile of an IoT hub that it assigns.

mod answer;
mod profile;

pub use self::answer::{SPREAD_MEMBER, spread_hint};
pub use self::profile::Provisioned;
