//! Steadfast for microcontrollers: a device's tie to its Azure IoT hub over `embedded-io` streams, without a heap.
//!
//! [`steadfast_core`] has the rules: reconnection, provisioning, the QoS 1 outbox, MQTT. This crate does the I/O. An
//! application supplies a [`Board`] (clock, key, storage), a connector ([`Connect`] or [`nonblocking::Connect`]) over
//! the platform's network (ESP-IDF's `EspTls`, embassy-net, smoltcp), and two buffers. Then one loop does everything:
//!
//! ```no_run
//! use core::time::Duration;
//! use static_cell::ConstStaticCell;
//! use steadfast_core::{Checked, Config, Credential, Event, Message, Provisioned, RamOutbox, Seed, Service, iothub};
//! use steadfast_esp32::{Board, Buffers, Connect, Device, Poll};
//!
//! static CONFIG: Checked = {
//!     let service = Service::Provisioned {
//!         host: steadfast_core::dps::topics::GLOBAL_HOST,
//!         id_scope: "0ne00ABCDEF",
//!         registration_id: "pump-7",
//!     };
//!     let mut config = Config::new(service, Credential::SharedKey);
//!     config.session.max_inbound = 2048;
//!     config.session.max_outbound = 2048;
//!     config.checked()
//! };
//!
//! // Large objects are static, so that they are not moved over the stack.
//! static OUTBOX: ConstStaticCell<RamOutbox<8, 2048>> = ConstStaticCell::new(RamOutbox::new());
//! static RX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
//! static TX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
//!
//! fn run(board: impl Board, connector: impl Connect, seed: Seed) -> Result<(), steadfast_esp32::SetupError> {
//!     let buffers = Buffers { rx: RX.take(), tx: TX.take() };
//!     let mut device = Device::new(board, connector, Provisioned::new(&CONFIG), OUTBOX.take(), seed, buffers)?;
//!     device.start();
//!     let mut due = device.board().now();
//!     loop {
//!         let now = device.board().now();
//!         if now >= due {
//! // Its own deadline, which events do not postpone. A full outbox is back-pressure, not an error to hide.
//!             due = now.after(Duration::from_secs(5));
//!             drop(device.send(Message::telemetry("", b"{\"temperature\":21.5}")));
//!         }
//!         match device.poll(due.since(now)) {
//!             Poll::Event(iothub::Event::Link(Event::Up { .. })) => { /* green light */ }
//!             Poll::Event(iothub::Event::Link(Event::Down(why))) => { /* red light; `why` says what to look after */ drop(why) }
//!             Poll::Event(_) => {}
//!             Poll::Message(message) => {
//!                 let ack = message.ack;
//!                 device.acknowledge(ack);
//!             }
//!             Poll::ProvisioningPayload(_) => {}
//!             _ => {}
//!         }
//!     }
//! }
//! ```
//!
//! # Twin, methods and messages
//!
//! [`Device::with_services`] adds the services of a hub, with two more buffers. Without it the firmware contains none
//! of their code. A loop with a method and a writable property:
//!
//! ```no_run
//! use core::time::Duration;
//! use steadfast_core::iothub::pnp::{self, Acknowledgement};
//! use static_cell::ConstStaticCell;
//! use steadfast_core::{Checked, Config, Credential, Provisioned, RamOutbox, Seed, Service, Subscriptions};
//! use steadfast_esp32::{Board, Buffers, Connect, Device, Poll, ServiceBuffers};
//!
//! static CONFIG: Checked = {
//!     let service = Service::Hub { host: "my-hub.azure-devices.net", device_id: "pump-7" };
//!     let mut config = Config::new(service, Credential::SharedKey);
//!     // The twin has to fit.
//!     config.session.max_inbound = 4096;
//!     config.session.max_outbound = 2048;
//!     config.subscriptions = Subscriptions::ALL;
//!     config.checked()
//! };
//!
//! static OUTBOX: ConstStaticCell<RamOutbox<8, 2048>> = ConstStaticCell::new(RamOutbox::new());
//! static RX: ConstStaticCell<[u8; 4096]> = ConstStaticCell::new([0; 4096]);
//! static TX: ConstStaticCell<[u8; 4096]> = ConstStaticCell::new([0; 4096]);
//! static REPORTS: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
//! static ANSWERS: ConstStaticCell<[u8; 512]> = ConstStaticCell::new([0; 512]);
//!
//! fn run(board: impl Board, connector: impl Connect, seed: Seed) -> Result<(), steadfast_esp32::SetupError> {
//!     let buffers = Buffers { rx: RX.take(), tx: TX.take() };
//!     let device = Device::new(board, connector, Provisioned::new(&CONFIG), OUTBOX.take(), seed, buffers)?;
//!     let mut device = device.with_services(ServiceBuffers { reports: REPORTS.take(), answers: ANSWERS.take() });
//!     device.start();
//!     loop {
//! // The current desired target in degrees and its version, if any.
//!         let applied = match device.poll(Duration::from_secs(5)) {
//!             Poll::Call { call, name, .. } => {
//!                 let status = if name == "reboot" { 202 } else { 404 };
//! // The connection may have ended: the caller has got an error then.
//!                 drop(device.respond(call, status, b""));
//!                 None
//!             }
//!             Poll::Twin(twin) => target(twin.desired).map(|target| (twin.desired_version, target)),
//!             Poll::Desired { version, patch } => target(patch).map(|target| (version, target)),
//!             Poll::CloudToDevice(message) => {
//!                 let (ack, known) = (message.ack, message.duplicate);
//!                 if !known { /* do what it says */ }
//!                 device.acknowledge(ack);
//!                 None
//!             }
//!             _ => None,
//!         };
//!         if let Some((version, target)) = applied {
//!             let mut digits = [0; 20];
//!             let value = number(target, &mut digits);
//!             let (status, description) = (pnp::APPLIED, "");
//!             let word = Acknowledgement { component: None, name: "target", value, status, version, description };
//!             let mut patch = [0; 128];
//!             if let Some(patch) = word.write(&mut patch) {
//!                 // Full only when reports wait that cannot be merged: the whole state can be reported later.
//!                 drop(device.report(patch));
//!             }
//!         }
//!     }
//! }
//!
//! fn target(desired: &str) -> Option<u64> {
//!     pnp::properties(desired).find(|property| property.name == "target")?.value.as_u64()
//! }
//! # fn number(mut number: u64, digits: &mut [u8; 20]) -> &str {
//! #     let mut at = digits.len();
//! #     loop {
//! #         at -= 1;
//! #         digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
//! #         number /= 10;
//! #         if number == 0 {
//! #             return core::str::from_utf8(&digits[at..]).unwrap_or("0");
//! #         }
//! #     }
//! # }
//! ```
//!
//! [`AnyLink`] is the bound of functions that take a device with or without services.
//!
//! The asynchronous form, for embassy and the like, is [`nonblocking::Device`]. Its `poll` can be one arm of a `select`.
//!
//! [`proxy`] connects through an HTTP proxy, [`websocket`] over port 443. [`upload`] uploads files to the hub's
//! storage, block by block, independently of the device.
//!
//! [`Device::ram`] is the RAM at compile time: the device, its outbox and the two buffers. Buffers for services and the
//! stream's own memory (TLS) are not included.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod board;
mod commands;
mod device;
mod engine;
#[cfg(test)]
mod fake_service;
#[cfg(feature = "flash")]
pub mod flash;
#[cfg(feature = "embedded-svc")]
pub mod mqtt_client;
pub mod nonblocking;
pub mod proxy;
mod services;
#[cfg(feature = "embedded-svc")]
pub mod storage;
pub mod upload;
pub mod websocket;
#[cfg(feature = "embedded-svc")]
pub mod wifi;

pub use board::{Board, Connect, Dial, OwnedDial, Stream};
pub use device::Device;
pub use engine::{Ack, Buffers, CloudToDevice, Message, ModuleInput, Poll, ServiceBuffers, SetupError};
pub use services::{AnyLink, WithServices};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
