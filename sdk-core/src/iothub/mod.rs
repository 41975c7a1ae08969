//! IoT Hub: the profile of a hub, its topics and properties, and its services over a [`Link`](crate::Link): twin, direct
//! methods, cloud-to-device messages, inputs of modules.

pub(crate) mod access;
mod c2d_dedup;
mod events;
mod hub_link;
mod message;
mod methods;
pub mod operator_commands;
pub mod pnp;
mod profile;
pub mod property_bag;
mod reported_limits;
mod reports;
pub mod service_topics;
pub mod topics;
mod twin;

pub(crate) use self::access::KEEP_ALIVE_MAX;
pub(crate) use self::profile::{check_device, check_names, first_error};

pub use self::events::{Event, Received};
pub use self::hub_link::HubLink;
pub use self::methods::{CALLS_MAX, CallId, CallSlot, PAYLOAD_MAX, RespondError};
pub use self::profile::{HubProfile, IotHub, Residence};
pub use self::reported_limits::{
    DEPTH_MAX, INTEGER_HIGHEST, INTEGER_LOWEST, KEY_MAX, REPORTED_MAX, ReportError, STRING_MAX,
};
pub use self::reports::ReportId;
pub use self::twin::TwinDocument;
