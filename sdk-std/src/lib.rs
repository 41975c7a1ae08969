//! An Azure IoT device SDK for Linux that always reconnects to its hub and never loses an accepted message.
//!
//! [`Device::builder`] returns a [`Builder`], which makes a [`Device`], the handle to send and receive with, and a
//! [`Driver`], the future that does the work on tokio and rustls. The state machine in [`steadfast_core`] makes all
//! decisions; [`RetryPolicy`] describes the back-off.
//!
//! ```no_run
//! use std::time::Duration;
//! use steadfast::{Device, Dps, Telemetry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (device, driver) = Device::builder()
//!     .provision_with(Dps::new("0ne00AB12CD", "pump-7"))
//!     .group_key(&std::env::var("GROUP_KEY")?)
//!     .assignment_file("/var/lib/pump/assignment")
//!     .build()?;
//! tokio::spawn(driver);
//!
//! // Waits for room in the outbox, whatever the network does.
//! let receipt = device.send(Telemetry::json(r#"{"celsius":21.5}"#)).await?;
//! // Waits for the hub's acknowledgement, after however many reconnections.
//! receipt.delivered().await?;
//!
//! println!("{}", device.status());
//! device.stop(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! * A message that [`Device::send`] has accepted is sent until the service acknowledges it, in the order of
//!   acceptance, across reconnections and moves to other hubs, unless it expires or is evicted under the outbox policy
//!   that the application chose. [`Device::ledger`] accounts for every message. The outbox is in memory and ends with
//!   the process.
//! * Certificates are verified, always. The application's choice of a process-wide cryptography provider is neither
//!   needed nor changed.
//! * Futures of this crate can be dropped at any time without losing a message or a place in the queue of others.
//! * Logs, errors and `Debug` texts hold no key, password or token.
#![forbid(unsafe_code)]

mod assignment_file;
mod atomic_file;
#[cfg(feature = "backoff")]
mod backoff;
mod backoff_file;
mod build_error;
mod builder;
mod clock;
mod component;
mod connect;
mod connection;
mod connector;
mod context;
mod device;
mod direct_methods;
#[cfg(feature = "tpm")]
mod dps_https;
mod driver;
#[cfg(feature = "edge")]
mod edge;
mod engine;
mod events;
#[cfg(feature = "_https")]
mod http;
mod keeper;
mod log;
mod memory_outbox;
mod message;
mod messages;
mod methods;
mod names;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod proxy;
mod receipt;
#[cfg(feature = "rumqttc")]
mod rumqttc;
mod send;
mod services;
mod shared;
mod signer;
mod status;
mod threads;
mod tls;
mod tokens;
#[cfg(feature = "tpm")]
mod tpm;
#[cfg(feature = "tpm2")]
mod tpm2;
mod twin;
#[cfg(feature = "upload")]
mod upload;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(feature = "backoff")]
pub use crate::backoff::LinkBackoff;
pub use build_error::BuildError;
pub use builder::{Builder, Dps, Transport};
#[cfg(feature = "_virtual-time")]
#[doc(hidden)]
pub use clock::follow_tokio_clock;
pub use component::Component;
pub use device::{Device, Queued};
pub use direct_methods::{DirectMethods, MethodCall};
pub use driver::Driver;
#[cfg(feature = "edge")]
pub use edge::{InvokeError, ModuleCall, ModuleCallAnswer};
pub use events::{Events, StatusChanges};
pub use message::Telemetry;
pub use messages::{Inbound, Messages};
pub use methods::{MethodAnswer, Methods};
#[cfg(feature = "pkcs11")]
pub use pkcs11::{Pkcs11, Pkcs11Error, Pkcs11Signer};
pub use proxy::{Proxy, ProxyError};
pub use receipt::{DeliveryError, Receipt};
pub use send::{OutboundMessage, SendError, Sending, SendingRef, TopicMessage};
pub use signer::{KeyPair, SharedKey, SignError, Signer, Signing};
pub use status::Status;
pub use tls::{ClientCertificate, Tls, TlsError};
pub use tokens::{Obtaining, TokenRequest, TokenSource};
#[cfg(feature = "tpm")]
pub use tpm::{Tpm, TpmKeys, TpmWork};
#[cfg(feature = "tpm2")]
pub use tpm2::{Tpm2, Tpm2Error, Tpm2Handles};
pub use twin::{Desired, DesiredProperties, Report, Twin, TwinDocument, TwinError};
#[cfg(feature = "upload")]
pub use upload::{Upload, UploadError, UploadProgress, UploadReport, UploadSource, UploadStep};

pub use steadfast_core::azure::connection_string::ConnectionStringError;
pub use steadfast_core::azure::sas::KeyError;
#[cfg(feature = "edge")]
pub use steadfast_core::edge::methods::CallError;
#[cfg(feature = "edge")]
pub use steadfast_core::edge::{Environment, EnvironmentError, Variable};
pub use steadfast_core::iothub::Event;
pub use steadfast_core::iothub::operator_commands::{LogLevel, OperatorCommand, OperatorCommands};
pub use steadfast_core::iothub::pnp;
pub use steadfast_core::iothub::property_bag::BagError;
pub use steadfast_core::mqtt::QoS;
pub use steadfast_core::{
    Advice, Assignment, Attempt, ConfigError, Destination, Disposition, DropReason, Dropped, Event as LinkEvent,
    Failure, FailureClass, Instant, Ledger, LocalFailure, Message, MessageId, Overflow, Priority, ProvisioningFailure,
    PublishError, ReportError, Reprovisioning, RespondError, RetryPolicy, Seed, ServiceKind, SignRequest, State,
    SubscribeError, SubscriptionId, Subscriptions, Timeouts, TlsFailure, Usage,
};

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Compiles the examples of the pages.
#[cfg(doctest)]
#[doc = include_str!("../../docs/getting-started.md")]
#[doc = include_str!("../../docs/observability.md")]
struct Pages;
