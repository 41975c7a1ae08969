//! Whole sessions, byte by byte, in the dialects of device SDKs that cannot be run here, from their public sources.
//!
//! Each dialect names its source files as `repository: path`; long paths begin at the folder of the device client. The
//! session is the same for all: a device connects, subscribes, sends telemetry, reads and reports its twin, responds to
//! a method, receives a message and a desired property change, and disconnects.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

#[path = "dialects/hub.rs"]
mod hub;
#[path = "dialects/packets.rs"]
mod packets;
#[path = "dialects/provisioning.rs"]
mod provisioning;
mod support;
#[path = "dialects/uploads.rs"]
mod uploads;
