//! The heart of Steadfast: a device's tie to its Azure IoT hub as a state machine without I/O.
//!
//! [`Link`] owns what must not be lost and what must not be done badly: the QoS 1 outbox, the reconnection with its
//! back-off, the dialogue with the Device Provisioning Service, and the bytes of MQTT. It never touches a clock, a
//! socket, a random number generator, a thread or an allocator. A frontend does what the link asks for
//! ([`Output::Action`]) and tells it what happened ([`Input`]); the whole loop looks like this:
//!
//! ```
//! use core::time::Duration;
//! use steadfast_core::{Action, Config, Credential, Instant, Link, Message, Output, RamOutbox, Seed, Service};
//!
//! static CONFIG: Config<&str> = Config::new(
//!     Service::Broker { host: "broker.example", client_id: "pump-7" },
//!     Credential::Anonymous,
//! );
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let mut link = Link::new(&CONFIG, RamOutbox::<8, 2048>::new(), Seed::from_number(7), Instant::ORIGIN)?;
//! link.start(Instant::ORIGIN);
//! let id = link.publish(Message::to_topic("pumps/7", b"21.5"), Instant::ORIGIN)?;
//!
//! // The first attempt waits for its share of the first spread.
//! let Output::Wait(Some(deadline)) = link.poll_output() else { unreachable!() };
//! assert!(deadline.at <= Instant::from_millis(3_000));
//!
//! link.handle_timeout(deadline.at);
//! let Output::Action(Action::Connect { attempt, endpoint }) = link.poll_output() else { unreachable!() };
//! assert_eq!((attempt.get(), endpoint.host, endpoint.port), (1, "broker.example", 8883));
//! assert_eq!(link.ledger().queued, 1);
//! # let _ = id;
//! # Ok(())
//! # }
//! ```
//!
//! # The driving contract
//!
//! * After each command, input or timeout call [`Link::poll_output`] until it returns [`Output::Wait`]; then sleep until
//!   its deadline or the next input. Calls in any order are right; a late one only makes the link late.
//! * `now` is monotonic: milliseconds since an origin of the frontend's choice, the time asleep included.
//! * Everything is bounded. A full outbox is [`PublishError::Full`]; nothing is dropped without an [`Event::Dropped`];
//!   [`Link::ledger`] balances at every instant.
//! * The link holds no secret: it asks for signatures ([`Action::Sign`]) and keeps the 32 bytes of the latest one.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::float_arithmetic,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
    )
)]

#[cfg(test)]
extern crate std;

pub mod azure;
mod config;
pub mod edge;
mod failure;
pub mod files;
pub mod hub;
mod io;
mod ledger;
mod link;
mod memory;
pub mod mqtt;
mod outbox;
mod queue;
pub mod retry;
mod rng;
mod status;
pub mod text;
mod time;
mod timer;
pub mod way;

pub use config::{
    Config, ConfigError, Credential, DEFAULT_PORT, Overflow, Paced, Reprovisioning, Service, Setting, Settings,
    Subscriptions, Timeouts,
};
pub use failure::{Class, Disposition, Failure, LocalFailure, ProvisioningFailure, TlsFailure};
pub use hub::{CallId, HubLink, ReportError, ReportId, RespondError, TwinDocument};
pub use io::{Action, Assignment, Attempt, DropReason, Endpoint, Event, Input, Output, Received, Role, Taken};
pub use ledger::Ledger;
pub use link::{Direct, Home, Link, Message, Provisioned, PublishError};
pub use memory::Memory;
pub use outbox::{Address, Entry, Lane, MessageId, Outbox, OutboxError, RamOutbox, Usage};
pub use retry::{Cause, Occasion, Policy, RetryPolicy};
pub use rng::Seed;
pub use status::{Advice, State, Status};
pub use time::Instant;
pub use timer::{Deadline, TimerReason};
