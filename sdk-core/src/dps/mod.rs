//! The Device Provisioning Service: the profile of an IoT hub that it assigns, its topics and its HTTPS interface.

mod answer;
pub mod https;
mod profile;
pub mod topics;

pub use self::answer::{SPREAD_MEMBER, spread_hint};
pub use self::profile::Provisioned;
