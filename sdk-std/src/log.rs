//! Log output. Levels: error, an operator must act; warn, the link recovers by itself; info, state changes; debug and
//! trace, for troubleshooting.
//!
//! Packets are logged by name and length. Payloads, topics, passwords and keys are not.

use std::time::Duration;

use steadfast_core::iothub::Event as HubEvent;
use steadfast_core::{Advice, Attempt, DropReason, Dropped, Event, Failure, FailureClass, LocalFailure, TlsFailure};

#[expect(clippy::wildcard_enum_match_arm, reason = "the cause of a retry is logged with its advice")]
pub(crate) fn event(device: &str, event: &HubEvent) {
    let Some(event) = event.link() else { return };
    match event {
        Event::Up { session_present } => tracing::info!(device, session_present, "up"),
        Event::Down(failure) => tracing::warn!(device, %failure, "down"),
        Event::Renewing => tracing::info!(device, "reconnecting with a new token"),
        Event::Provisioned { migrated } => tracing::info!(device, migrated, "assigned to a hub"),
        Event::Delivered(id) => tracing::trace!(target: "steadfast::packets", device, %id, "delivered"),
        Event::Dropped(Dropped { reason: DropReason::Expired, count, first, .. }) => {
            tracing::debug!(device, count, %first, "messages expired");
        }
        Event::Dropped(Dropped { reason, count, first, .. }) => {
            tracing::warn!(device, count, %first, %reason, "messages were dropped");
        }
        Event::InboundOverflow => {
            tracing::warn!(device, "the application does not acknowledge messages; further ones are not accepted")
        }
        Event::ClockSkew { seconds } => {
            tracing::error!(
                device,
                seconds,
                "set the clock: it differs from the service's; tokens follow the service's"
            );
        }
        Event::Stopped => tracing::info!(device, "stopped"),
        _ => {}
    }
}

pub(crate) fn retrying(device: &str, host: &str, failure: Failure, delay: Duration, advice: Advice) {
    if needs_operator(failure) {
        tracing::error!(device, host, %failure, ?delay, %advice, "not connected; trying again");
    } else {
        tracing::warn!(device, host, %failure, ?delay, %advice, "not connected; trying again");
    }
}

pub(crate) fn broken(device: &str, host: &str, error: &str) {
    tracing::warn!(device, host, error, "the connection broke");
}

pub(crate) fn sent(device: &str, attempt: Attempt, packet: &str, len: usize) {
    tracing::trace!(target: "steadfast::packets", device, %attempt, packet, len, "sent");
}

pub(crate) fn inbox_full(device: &str) {
    tracing::warn!(device, "a QoS 0 message was dropped: the application does not receive messages");
}

/// Whether time alone is unlikely to help.
fn needs_operator(failure: Failure) -> bool {
    let local = [LocalFailure::SigningTimeout, LocalFailure::WorkloadUnreachable].map(Failure::Local);
    let lasts =
        matches!(failure, Failure::Tls(_)) || matches!(failure.class(), FailureClass::Refused | FailureClass::Local);
    let passing = matches!(failure, Failure::Tls(TlsFailure::Handshake | TlsFailure::Alert(_) | TlsFailure::Garbled));
    lasts && !passing && !local.contains(&failure)
}
