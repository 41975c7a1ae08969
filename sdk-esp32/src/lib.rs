//! Steadfast for microcontrollers: a device's tie to its Azure IoT hub over `embedded-io` streams, without a heap.
//!
//! The rules live in [`steadfast_core`]: reconnection, provisioning, the QoS 1 outbox, MQTT. This crate is the byte pipe
//! around them. An application gives it a [`Board`] (clock, key, storage), a connector ([`Connect`] or
//! [`asynch::Connect`]) that dials with whatever the platform has (ESP-IDF's `EspTls`, embassy-net, smoltcp), and two
//! buffers. Then one loop does everything:
//!
//! ```no_run
//! use core::time::Duration;
//! use steadfast_core::{Config, Credential, Event, Message, RamOutbox, Seed, Service};
//! use steadfast_esp32::{Board, Buffers, Connect, Device, Poll};
//!
//! const CONFIG: Config<&str> = {
//!     let service = Service::Provisioned {
//!         host: steadfast_core::azure::dps::GLOBAL_HOST,
//!         id_scope: "0ne00ABCDEF",
//!         registration_id: "pump-7",
//!     };
//!     let mut config = Config::new(service, Credential::SharedKey);
//!     config.max_inbound = 2048;
//!     config.max_outbound = 2048;
//!     config
//! };
//!
//! fn run(board: impl Board, connector: impl Connect, seed: Seed) -> Result<(), steadfast_esp32::SetupError> {
//!     let (mut rx, mut tx) = ([0; 2048], [0; 2048]);
//!     let buffers = Buffers { rx: &mut rx, tx: &mut tx };
//!     let mut device = Device::new(board, connector, &CONFIG, RamOutbox::<8, 2048>::new(), seed, buffers)?;
//!     device.start();
//!     loop {
//!         match device.poll(Duration::from_secs(5)) {
//!             Poll::Event(Event::Up { .. }) => { /* green light */ }
//!             Poll::Event(Event::Down(why)) => { /* red light; `why` says what to look after */ drop(why) }
//!             Poll::Event(_) => {}
//!             Poll::Message(message) => {
//!                 let ack = message.ack;
//!                 device.acknowledge(ack);
//!             }
//!             Poll::ProvisioningPayload(_) => {}
//!             // Nothing to do for five seconds: measure. A full outbox is back-pressure, not an error to hide.
//!             Poll::Idle => drop(device.send(Message::telemetry("", b"{\"temperature\":21.5}"))),
//!             _ => {}
//!         }
//!     }
//! }
//! ```
//!
//! The asynchronous form, for embassy and the like, is [`asynch::Device`].
//!
//! RAM is what [`Device::ram`] says, at compile time: the device, its outbox and the two buffers. What the stream below
//! takes (TLS) comes on top.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod asynch;
mod board;
#[cfg(feature = "embedded-svc")]
pub mod client;
mod commands;
mod device;
mod engine;
#[cfg(feature = "flash")]
pub mod flash;
#[cfg(feature = "embedded-svc")]
pub mod storage;
#[cfg(feature = "embedded-svc")]
pub mod wifi;

pub use board::{Board, Connect, Dial, Stream};
pub use device::Device;
pub use engine::{Ack, Buffers, Message, Poll, SetupError};
