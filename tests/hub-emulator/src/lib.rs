//! A local IoT Hub and Device Provisioning Service over TLS, for tests and for development without a cloud.
//!
//! [`Emulator::start`] serves DPS and any number of hubs on loopback ports, with certificates of its own CA. Devices
//! provision, connect, send, read their twin, answer methods: with this project's SDK, with the official ones, or with
//! any MQTT 3.1.1 client. A test injects faults while the emulator runs, and reads in the [`Ledger`] which messages
//! arrived.
//!
//! ```
//! use hub_emulator::{Config, Emulator, Enrollment, Fault, Key};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let emulator = Emulator::start(
//!     Config::new().hub("hub-a").hub("hub-b").enroll(Enrollment::group("line-1", Key::from_seed("line 1"))),
//! )
//! .await?;
//! let device_key = Key::from_seed("line 1").derive("pump-7");
//! // A device takes: emulator.tls_addr(), emulator.ca_pem(), emulator.dps().id_scope(), device_key.
//! emulator.hub("hub-a").inject(Fault::DropAfterStoreBeforePuback);
//! assert_eq!(emulator.ledger().total().distinct, 0);
//! emulator.stop().await;
//! # Ok::<(), hub_emulator::Error>(())
//! # }).unwrap();
//! ```

mod admission;
mod clock;
mod cloud;
mod config;
mod connect;
mod connections;
mod control;
mod device;
mod device_handle;
mod device_routes;
mod dps;
mod dps_handle;
mod dps_session;
mod dps_web;
mod emulator;
mod enrollment;
mod error;
mod fault;
mod files;
mod frames;
mod http;
mod http_message;
mod inbox;
mod ledger;
mod limits;
mod methods;
mod module_calls;
mod operations;
mod pki;
mod quota;
mod ranges;
mod report;
mod routes;
mod run;
mod sas;
mod serve;
mod session;
mod soft_tpm;
mod storage;
mod strict;
mod telemetry;
mod topic;
mod tpm_wrap;
mod twin;
mod web;
mod wire;
#[cfg(unix)]
mod workload;
mod world;

pub use admission::Rate;
pub use clock::Clock;
pub use cloud::{Ack, MessageToDevice};
pub use config::{Config, DeviceAuth, DpsConfig, DpsRefusal, HubConfig, LedgerMode, Reprovision, Undocumented};
pub use connections::{Carrier, CloseReason, ConnectionRecord, Outcome, Refusal};
pub use control::{Control, Hub, MethodAnswer};
pub use device_handle::DeviceHandle;
pub use dps::Registration;
pub use dps_handle::DpsHandle;
pub use emulator::Emulator;
pub use enrollment::{Attestation, Enrollment};
pub use error::Error;
pub use fault::{DpsFault, Fault, FaultId, Injection};
pub use http::serve_control;
pub use ledger::{Ledger, Receipt};
pub use limits::ConnectionLimits;
pub use operations::{Notification, Operation, OperationRecord};
pub use pki::{Authority, DeviceCertificate, Flaw};
pub use report::{Counts, DeliveryReport, SequenceReport};
pub use routes::{ROUTES as CONTROL_ROUTES, help as control_help};
pub use sas::{Key, KeyError, percent_decode, percent_encode};
pub use soft_tpm::SoftTpm;
pub use tpm_wrap::wrap_for_tpm;
#[cfg(unix)]
pub use workload::WorkloadApi;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Longest span that an order may name: a year.
pub(crate) const SPAN_MAX: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);
