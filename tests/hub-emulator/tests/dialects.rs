//! The device SDKs that cannot be run here, as their public sources say they speak: whole sessions, byte by byte.
//!
//! Each dialect names the files it was read from, as `repository: path`; where the SDK's own name is long, from the
//! folder of its device client on. The stories are the same for all: a device connects, subscribes, sends, reads and
//! reports its twin, answers a method, takes a message and a change of its twin, and goes.

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
