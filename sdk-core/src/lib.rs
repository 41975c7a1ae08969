//! The heart of Steadfast: a device's tie to its Azure IoT hub as a state machine without I/O.
//!
//! [`Link`] contains everything that is easy to get wrong: the QoS 1 outbox, reconnection with back-off, the DPS
//! dialogue, and the bytes of MQTT. It never touches a clock, a socket, a random number generator, a thread or an
//! allocator. A frontend carries out its actions ([`Output::Action`]) and reports their results ([`Input`]). This is a
//! complete frontend, for one device on one thread; over a network it must add TLS:
//!
//! ```
//! use std::io::{ErrorKind, Read, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//! use steadfast_core::azure::sas::SymmetricKey;
//! use steadfast_core::{
//!     Action, Attempt, Broker, Config, Event, Failure, Input, Instant, Link, LocalFailure, Output, RamOutbox,
//! };
//!
//! type Pump<'c> = Link<RamOutbox<8, 2048>, Broker<&'c Config<&'static str>>>;
//!
//! /// Drives the link until it has stopped.
//! fn drive(link: &mut Pump<'_>, key: &SymmetricKey, mut tell: impl FnMut(&mut Pump<'_>, Event, Instant)) {
//!     let began = std::time::Instant::now();
//!     let now = || Instant::ORIGIN.after(began.elapsed());
//!     let mut line: Option<(Attempt, TcpStream)> = None;
//!     let (mut inbound, mut held, mut more) = ([0; 2048], 0, false);
//!     link.set_wall_clock(unix_secs(), now());
//!     link.start(now());
//!     loop {
//! // First carry out all outputs ...
//!         let deadline = loop {
//!             match link.poll_output() {
//!                 Output::Wait(deadline) => break deadline,
//!                 Output::Event(Event::Stopped) => return,
//!                 Output::Event(event) => tell(link, event, now()),
//!                 Output::Action(Action::Sign { attempt, request }) => {
//!                     let signature = key.sign(&request.text);
//!                     link.handle_input(Input::Signed(&signature), attempt, now());
//!                 }
//!                 Output::Action(Action::Connect { attempt, endpoint }) => {
//!                     // Here TLS begins, for `endpoint.host`.
//!                     line = TcpStream::connect((endpoint.host, endpoint.port)).ok().map(|stream| (attempt, stream));
//!                     (held, more) = (0, false);
//!                     let input = if line.is_some() { Input::Ready } else { Input::Failed(Failure::Network) };
//!                     link.handle_input(input, attempt, now());
//!                 }
//!                 Output::Action(Action::Send { attempt, packet }) => {
//!                     let mut outbound = [0; 2048];
//!                     let failure = match (packet.encode_to_slice(&mut outbound), &mut line) {
//!                         (Ok(len), Some((_, stream))) => stream.write_all(&outbound[..len]).err().map(|_| Failure::Lost),
//!                         (Ok(_), None) => Some(Failure::Lost),
//!                         (Err(_), _) => Some(Failure::Local(LocalFailure::Buffer)),
//!                     };
//!                     if let Some(failure) = failure {
//!                         line = None;
//!                         link.handle_input(Input::Failed(failure), attempt, now());
//!                     }
//!                 }
//!                 Output::Action(Action::Close { attempt, .. }) => drop(line.take_if(|(which, _)| *which == attempt)),
//!                 Output::Action(Action::SaveAssignment(assignment)) => keep(assignment.hub(), assignment.device_id()),
//!                 Output::Action(Action::SaveBackoff(memory)) => keep_backoff(&memory.to_bytes()),
//!                 _ => {}
//!             }
//!         };
//! // ... then wait for bytes, at most until the deadline.
//!         let wait = deadline.map_or(Duration::from_secs(60), |deadline| deadline.at.since(now()));
//!         let wait = wait.max(Duration::from_millis(1));
//!         if let Some((attempt, stream)) = &mut line {
//!             let attempt = *attempt;
//!             let _ = stream.set_read_timeout(Some(wait));
//!             let lost = !more
//!                 && match stream.read(&mut inbound[held..]) {
//!                     Ok(0) => true,
//!                     Ok(len) => {
//!                         held += len;
//!                         false
//!                     }
//!                     Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
//!                 };
//!             if lost {
//!                 line = None;
//!                 link.handle_input(Input::Failed(Failure::Lost), attempt, now());
//!             } else {
//! // Bytes that were not consumed are passed in again, followed by new ones.
//!                 let taken = link.handle_input(Input::Bytes(&inbound[..held]), attempt, now()).bytes;
//!                 inbound.copy_within(taken..held, 0);
//!                 held -= taken;
//!                 more = taken > 0 && held > 0;
//!             }
//!         } else {
//!             std::thread::sleep(wait);
//!         }
//!         if deadline.is_some_and(|deadline| deadline.at <= now()) {
//!             link.set_wall_clock(unix_secs(), now());
//!             link.handle_timeout(now());
//!         }
//!     }
//! }
//! #
//! # fn unix_secs() -> u64 {
//! #     std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
//! # }
//! # fn keep(_: &str, _: &str) {}
//! # fn keep_backoff(_: &[u8]) {}
//! #
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     use steadfast_core::{Credential, Message, RetryPolicy, Seed, Service};
//! #     let listener = std::net::TcpListener::bind("localhost:0")?;
//! #     let mut config = Config::new(Service::Broker { host: "localhost", client_id: "pump-7" }, Credential::Anonymous);
//! #     config.port = listener.local_addr()?.port();
//! #     config.session.retry = RetryPolicy::DEFAULT.divided_by(100);
//! #     let broker = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
//! #         let (mut stream, _) = listener.accept()?;
//! #         let mut packet = |answer: &[u8]| {
//! #             let mut head = [0; 2];
//! #             stream.read_exact(&mut head)?;
//! #             let mut rest = vec![0; head[1].into()];
//! #             stream.read_exact(&mut rest)?;
//! #             stream.write_all(answer)?;
//! #             Ok::<_, std::io::Error>((head[0], rest))
//! #         };
//! #         packet(&[0x20, 2, 0, 0])?;
//! #         let (_, publish) = packet(&[])?;
//! #         let topic = usize::from(publish[1]);
//! #         stream.write_all(&[0x40, 2, publish[2 + topic], publish[3 + topic]])?;
//! #         let mut rest = Vec::new();
//! #         stream.read_to_end(&mut rest)?;
//! #         Ok(rest)
//! #     });
//! #     let key = SymmetricKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
//! #     let mut link = Link::new(Broker::new(&config, [0; 256]), RamOutbox::new(), Seed::from_number(7), Instant::ORIGIN)?;
//! #     link.publish(Message::to_topic("pumps/7", b"21.5"), Instant::ORIGIN)?;
//! #     drive(&mut link, &key, |link, event, now| {
//! #         if matches!(event, Event::Delivered(_)) {
//! #             link.stop(Duration::from_secs(1), now);
//! #         }
//! #     });
//! #     assert_eq!(link.ledger().delivered, 1);
//! #     assert_eq!(broker.join().expect("the broker ends")?, [0xe0, 0]);
//! #     Ok(())
//! # }
//! ```
//!
//! # The driving contract
//!
//! * After each command, input or timeout call [`Link::poll_output`] until it returns [`Output::Wait`]; then sleep
//!   until its deadline or the next input. Calls may be made in any order; a late one only delays the link.
//! * `now` is monotonic: milliseconds since an origin of the frontend's choice, the time asleep included.
//! * Everything is bounded. A full outbox is [`PublishError::Full`]; every dropped message has an [`Event::Dropped`];
//!   [`Link::ledger`] adds up at every instant.
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

mod any_profile;
pub mod azure;
pub mod broker;
mod checked;
mod config;
pub mod dps;
pub mod edge;
mod failure;
mod io;
pub mod iothub;
pub mod json;
mod ledger;
mod link;
pub mod mqtt;
/// The interface between the link and a service's profile: [`Profile`].
pub mod profile {
    pub use crate::link::{Answer, AnswerHead, Change, FILTERS_MAX, Filters, Places, Verdict, Visit};
}
mod outbox;
mod queue;
pub mod retry;
mod rng;
mod scan;
mod status;
pub mod text;
mod time;
mod timer;
pub mod transport;
pub mod upload;

pub use any_profile::AnyProfile;
pub use broker::Broker;
pub use checked::Checked;
pub use config::{Config, ConfigError, Credential, DEFAULT_PORT, Service, Settings, Subscriptions, WithPolicy};
pub use dps::Provisioned;
pub use failure::{Disposition, Failure, FailureClass, LocalFailure, ProvisioningFailure, TlsFailure};
pub use io::{
    Action, Assignment, Attempt, Endpoint, Input, Output, RegistrationRequest, ServiceKind, SignRequest,
    SubscriptionId, Taken,
};
pub use iothub::{CallId, HubLink, HubProfile, IotHub, ReportError, ReportId, Residence, RespondError, TwinDocument};
pub use ledger::Ledger;
pub use link::{
    Dropped, Event, Link, Message, Overflow, Profile, PublishError, Received, Reprovisioning, SessionConfig,
    SessionConfigError, Setting, SubscribeError, Timeouts,
};
pub use outbox::{Destination, DropReason, Entry, MessageId, Outbox, OutboxError, Outcome, Priority, RamOutbox, Usage};
pub use retry::{BackoffSnapshot, Policy, RetryCause, RetryContext, RetryPolicy};
pub use rng::Seed;
pub use status::{Advice, State, Status};
pub use time::Instant;
pub use timer::{Deadline, TimerReason};
