//! A world in virtual time for tests of the link: simulated hubs, a simulated provisioning service, a network that
//! fails on request, and an oracle that checks the link's promises after every step.
//!
//! Every byte a link sends is read by the packet codec of rumqttc, and every answer is written by it, so that an
//! independent implementation judges both directions. Nothing sleeps: a year passes in the time its events take.
//!
//! ```
//! use std::time::Duration;
//! use steadfast_sim::World;
//!
//! let mut world = World::builder().seed(7).build();
//! world.start();
//! world.run_until_up();
//! world.publish("21.5");
//! world.hub_down(0);
//! world.run_for(Duration::from_secs(3600));
//! world.hub_up(0);
//! world.run_until_delivered();
//! ```
//!
//! The services ([`service`]) are models without time and network of their own, the [`World`] drives them; a fleet
//! simulator can use them alone. [`outbox_contract`] is what every [`steadfast_core::Outbox`] has to keep.

mod builder;
mod connect;
mod contract;
mod device;
mod drive;
mod heap_outbox;
mod https;
mod look;
mod network;
mod oracle;
mod recorded;
mod rng;
mod serve;
pub mod service;
mod transport;
pub mod uploads;
mod world;

pub use builder::Builder;
pub use contract::outbox_contract;
pub use device::{AttemptRecord, DeviceLink, Feed, Inbound, Shared, Signing, Told};
pub use heap_outbox::HeapOutbox;
pub use https::Chip;
pub use network::{Network, Reach};
pub use recorded::Recorded;
pub use rng::Rng;
pub use transport::{Proxy, ProxyMood, UpgradeMood};
pub use world::{DefaultOutbox, World};

/// Wall-clock time of the services when a world begins: 2026-05-28, in seconds since 1970.
pub const EPOCH_SECS: u64 = 1_780_000_000;
