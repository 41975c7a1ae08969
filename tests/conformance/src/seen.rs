//! What a device shows its application, in the words of the scenarios.

use std::time::Duration;

use serde_json::Value;
use steadfast_core::iothub::Event;
use steadfast_core::{DropReason, Event as LinkEvent};

/// Something a device showed its application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "subjects make all of it")]
pub enum Seen {
    /// The link is up.
    Up {
        /// The service had kept the session.
        session_present: bool,
    },
    /// The link was up and is no longer.
    Down,
    /// The next attempt begins after the delay.
    Retrying(Duration),
    /// The link reconnects with a new token.
    Renewing,
    /// The provisioning service named a hub.
    Provisioned {
        /// It is another one than before.
        migrated: bool,
    },
    /// The service has the message with this id.
    Delivered(u64),
    /// The message with this id left the outbox undelivered.
    Dropped(u64, DropReason),
    /// The service has reported properties.
    Reported,
    /// A twin request was throttled.
    TwinThrottled,
    /// The twin.
    Twin {
        /// The desired properties, without `$version`.
        desired: Value,
        /// Their version.
        version: u64,
    },
    /// A change of desired properties.
    Desired {
        /// The change, without `$version`.
        patch: Value,
        /// Their version after it.
        version: u64,
    },
    /// A method call.
    Call {
        /// What [`crate::Subject::respond`] takes.
        handle: u64,
        /// The method's name.
        name: String,
        /// The payload.
        payload: String,
    },
    /// A cloud-to-device message.
    Message {
        /// What [`crate::Subject::acknowledge`] takes.
        handle: u64,
        /// The payload.
        payload: String,
        /// The application has acknowledged it before.
        duplicate: bool,
    },
    /// The link has stopped.
    Stopped,
    /// Something that no scenario asks for.
    Other,
}

impl Seen {
    /// Makes a twin of JSON texts.
    #[must_use]
    pub fn twin(desired: &str, version: u64) -> Self {
        Self::Twin { desired: without_version(desired), version }
    }

    /// Makes a change of JSON texts.
    #[must_use]
    pub fn desired(patch: &str, version: u64) -> Self {
        Self::Desired { patch: without_version(patch), version }
    }
}

fn without_version(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).expect("a twin is JSON");
    value.as_object_mut().map(|members| members.remove("$version"));
    value
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no scenario asks for the rest")]
impl From<&Event> for Seen {
    fn from(event: &Event) -> Self {
        let event = match event {
            Event::Link(event) => event,
            Event::Reported { .. } => return Self::Reported,
            Event::TwinThrottled { .. } => return Self::TwinThrottled,
            _ => return Self::Other,
        };
        match *event {
            LinkEvent::Up { session_present } => Self::Up { session_present },
            LinkEvent::Down(_) => Self::Down,
            LinkEvent::Retrying { delay, .. } => Self::Retrying(delay),
            LinkEvent::Renewing => Self::Renewing,
            LinkEvent::Provisioned { migrated } => Self::Provisioned { migrated },
            LinkEvent::Delivered(id) => Self::Delivered(id.get()),
            LinkEvent::Dropped(dropped) if dropped.count == 1 => Self::Dropped(dropped.first.get(), dropped.reason),
            LinkEvent::Stopped => Self::Stopped,
            _ => Self::Other,
        }
    }
}
