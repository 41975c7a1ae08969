//! Fault injection: the kinds of faults, their scope and their number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A fault of a connection or of the messages on it.
///
/// Counting: a connection fault counts connections; a message fault counts the messages, subscriptions or twin requests
/// it affects. See [`Injection`] for the number of times. In JSON the name is in kebab case under `kind`, durations are
/// in milliseconds: `{"kind":"delay-connack","delay_ms":1500}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// Closes the TCP connection after the TLS ClientHello, before the server responds.
    CloseBeforeTls,
    /// Answers the TLS ClientHello with an HTML page, as a captive portal does.
    HtmlInsteadOfTls,
    /// Answers CONNECT with an HTML page and closes.
    HtmlInsteadOfConnack,
    /// Answers CONNECT with bytes that are not an MQTT packet and closes.
    GarbageInsteadOfConnack,
    /// Refuses CONNECT with this return code and closes. Codes above 5 are sent as they are.
    RefuseConnect {
        /// The CONNACK return code.
        code: u8,
    },
    /// Closes on CONNECT without an answer.
    CloseOnConnect,
    /// Never answers CONNECT; the socket stays open.
    SilentConnect,
    /// Answers CONNECT late.
    DelayConnack {
        /// How late, in JSON `delay_ms`.
        #[serde(rename = "delay_ms", with = "millis")]
        delay: Duration,
    },
    /// Accepts CONNECT and closes immediately, as a hub does after its daily quota is used up.
    CloseAfterConnack,
    /// Reports this `session_present` in CONNACK, regardless of the session.
    SessionPresent {
        /// The flag to report.
        present: bool,
    },
    /// Closes on a telemetry message: not stored, not acknowledged.
    DropBeforeStore,
    /// Closes on a telemetry message: stored, not acknowledged.
    DropAfterStoreBeforePuback,
    /// Closes on a telemetry message: stored and acknowledged.
    DropAfterPuback,
    /// Stores telemetry and holds its PUBACK until the fault is cleared.
    WithholdPubacks,
    /// Stores telemetry and acknowledges it late.
    DelayPubacks {
        /// How late, in JSON `delay_ms`.
        #[serde(rename = "delay_ms", with = "millis")]
        delay: Duration,
    },
    /// Acknowledges a telemetry message twice.
    RepeatPubacks,
    /// Acknowledges a packet id never used, before the right one.
    StrayPubacks,
    /// Stops reading from the socket until the fault is cleared: the client's TCP window fills up.
    StopReading,
    /// Keeps the socket open and reads, but sends and stores nothing until the connection ends.
    HalfOpen,
    /// Closes after this many MQTT bytes from the client. On a new connection, all bytes count; on a live connection,
    /// the count begins at the injection.
    CloseAfterReceived {
        /// Number of bytes that are still accepted.
        bytes: u64,
    },
    /// Closes after this many MQTT bytes to the client, counted as in [`Fault::CloseAfterReceived`].
    CloseAfterSent {
        /// Number of bytes that are still sent.
        bytes: u64,
    },
    /// Answers every filter of a SUBSCRIBE with 0x80.
    RefuseSubscribe,
    /// Answers a twin request with this status and an empty body.
    TwinStatus {
        /// The status, such as 429.
        status: u16,
    },
    /// Answers a twin request with 429 and a `retry-after` in the topic.
    TwinThrottled {
        /// Seconds in `retry-after`; none leaves it out.
        retry_after: Option<u32>,
    },
    /// Drops the notification of a desired property change: the device sees a gap in the versions.
    LoseDesired,
    /// Does not respond to a twin request.
    TwinSilent,
    /// Answers a request to start a file upload, or its notification, with this HTTP status.
    UploadStatus {
        /// The status, such as 403, 429, 500 or 503.
        status: u16,
    },
    /// Answers a request to the storage with this HTTP status; 403 is the status for an expired token.
    StorageStatus {
        /// The status, such as 403, 500 or 503.
        status: u16,
    },
    /// Resets the connection to the storage after this many bytes of a body. Shorter bodies are not affected.
    StorageDrop {
        /// Number of bytes that are still accepted.
        bytes: u64,
    },
    /// Does not answer PINGREQ.
    SilentPing,
}

/// A fault in the responses of DPS, counted by requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum DpsFault {
    /// Answers a request with 429.
    Throttled {
        /// Seconds in `retry-after`; none leaves it out.
        retry_after: Option<u32>,
    },
    /// Answers a request with this status and an error body, such as 401, 404, 500 or 503.
    Status {
        /// The HTTP-like status.
        status: u16,
    },
    /// Acknowledges a request but sends no response.
    Silent,
    /// Answers a request late.
    Slow {
        /// How late, in JSON `delay_ms`.
        #[serde(rename = "delay_ms", with = "millis")]
        delay: Duration,
    },
    /// Answers a request with a body that is not JSON.
    GarbageBody,
    /// Answers with the regular status and this body.
    Body {
        /// The body.
        text: String,
    },
    /// Answers a request under another request id.
    WrongRequestId,
    /// Answers a poll with `assigning`.
    KeepAssigning,
    /// Ends a registration with `failed` inside a 200.
    Failed {
        /// The `errorCode`.
        code: u32,
    },
    /// Ends a registration with `disabled` inside a 200.
    Disabled,
    /// Ends a registration with `unassigned` inside a 200.
    Unassigned,
    /// Ends a registration with `assigned`, without an `assignedHub`.
    NoAssignedHub,
    /// Ends a registration with this text as `assignedHub`.
    AssignedHub {
        /// The text, as it is.
        name: String,
    },
    /// Ends a registration with this text as `deviceId`.
    DeviceId {
        /// The text, as it is.
        id: String,
    },
}

/// A fault with the number of times it strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Injection<F> {
    pub(crate) fault: F,
    pub(crate) times: Option<u32>,
    pub(crate) after: u32,
}

impl<F> Injection<F> {
    /// A fault that strikes the next time it can.
    pub fn once(fault: F) -> Self {
        Self { fault, times: Some(1), after: 0 }
    }

    /// A fault that strikes the next `times` times.
    pub fn times(fault: F, times: u32) -> Self {
        Self { fault, times: Some(times), after: 0 }
    }

    /// A fault that strikes every time until it is cleared.
    pub fn until_cleared(fault: F) -> Self {
        Self { fault, times: None, after: 0 }
    }

    /// Skips the first `skipped` occurrences.
    pub fn after(mut self, skipped: u32) -> Self {
        self.after = skipped;
        self
    }
}

impl From<Fault> for Injection<Fault> {
    fn from(fault: Fault) -> Self {
        Self::once(fault)
    }
}

impl From<DpsFault> for Injection<DpsFault> {
    fn from(fault: DpsFault) -> Self {
        Self::once(fault)
    }
}

/// Names an injected fault until it is used up or cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FaultId(pub(crate) u64);

/// The scope of a fault: an absent part matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Scope {
    /// Host name of a hub or of DPS.
    pub(crate) service: Option<String>,
    /// Device, module or registration id.
    pub(crate) device: Option<String>,
}

impl Scope {
    pub(crate) fn matches(&self, service: &str, device: &str) -> bool {
        self.service.as_deref().is_none_or(|wanted| wanted == service)
            && self.device.as_deref().is_none_or(|wanted| wanted == device)
    }
}

/// An active fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Planned<F> {
    pub(crate) id: FaultId,
    pub(crate) scope: Scope,
    pub(crate) fault: F,
    /// Remaining strikes; none means unlimited.
    pub(crate) left: Option<u32>,
    pub(crate) skip: u32,
}

/// All active faults, in the order of injection.
#[derive(Debug)]
pub(crate) struct Plan<F> {
    planned: Vec<Planned<F>>,
}

impl<F> Default for Plan<F> {
    fn default() -> Self {
        Self { planned: Vec::new() }
    }
}

impl<F: Clone> Plan<F> {
    pub(crate) fn add(&mut self, id: FaultId, scope: Scope, injection: Injection<F>) {
        let Injection { fault, times, after } = injection;
        if times != Some(0) {
            self.planned.push(Planned { id, scope, fault, left: times, skip: after });
        }
    }

    pub(crate) fn list(&self) -> &[Planned<F>] {
        &self.planned
    }

    /// Removes the faults that `scope` covers: all of them when it is empty.
    pub(crate) fn clear(&mut self, scope: &Scope) {
        self.planned.retain(|planned| {
            let service = scope.service.is_none() || planned.scope.service == scope.service;
            let device = scope.device.is_none() || planned.scope.device == scope.device;
            !(service && device)
        });
    }

    pub(crate) fn remove(&mut self, id: FaultId) -> bool {
        let before = self.planned.len();
        self.planned.retain(|planned| planned.id != id);
        self.planned.len() != before
    }

    /// Uses the first fault that matches this event, and returns the result of `pick`.
    pub(crate) fn strike<T>(&mut self, service: &str, device: &str, pick: impl Fn(&F) -> Option<T>) -> Option<T> {
        let mut found_at = None;
        for (at, planned) in self.planned.iter_mut().enumerate() {
            if !planned.scope.matches(service, device) {
                continue;
            }
            let Some(found) = pick(&planned.fault) else { continue };
            if planned.skip > 0 {
                planned.skip -= 1;
                continue;
            }
            found_at = Some((at, found));
            break;
        }
        let (at, found) = found_at?;
        if let Some(left) = &mut self.planned[at].left {
            *left -= 1;
            if *left == 0 {
                self.planned.remove(at);
            }
        }
        Some(found)
    }

    /// Returns whether an active fault matches this event, without using it up.
    pub(crate) fn stands(&self, service: &str, device: &str, pick: impl Fn(&F) -> bool) -> bool {
        self.planned.iter().any(|planned| planned.scope.matches(service, device) && pick(&planned.fault))
    }

    /// Returns whether an active fault without a limit matches this event.
    pub(crate) fn stands_until_cleared(&self, service: &str, device: &str, pick: impl Fn(&F) -> bool) -> bool {
        let concerns = |planned: &Planned<F>| planned.scope.matches(service, device) && pick(&planned.fault);
        self.planned.iter().any(|planned| planned.left.is_none() && concerns(planned))
    }
}

mod millis {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::SPAN_MAX;

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let span = u64::deserialize(deserializer).map(Duration::from_millis)?;
        if span <= SPAN_MAX { Ok(span) } else { Err(D::Error::custom("a delay has a year at most")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop_before(fault: &Fault) -> Option<()> {
        (*fault == Fault::DropBeforeStore).then_some(())
    }

    #[test]
    fn a_fault_strikes_as_often_as_asked_and_skips_what_was_asked() {
        let mut plan = Plan::default();
        plan.add(FaultId(1), Scope::default(), Injection::times(Fault::DropBeforeStore, 2).after(1));
        let strikes: Vec<bool> = (0..4).map(|_| plan.strike("h", "d", drop_before).is_some()).collect();
        assert_eq!(strikes, [false, true, true, false]);
        assert!(plan.list().is_empty());
    }

    #[test]
    fn a_fault_strikes_only_in_its_scope() {
        let mut plan = Plan::default();
        let scope = Scope { service: Some("h".to_owned()), device: Some("d".to_owned()) };
        plan.add(FaultId(1), scope, Fault::DropBeforeStore.into());
        assert_eq!(plan.strike("h", "e", drop_before), None);
        assert_eq!(plan.strike("i", "d", drop_before), None);
        assert_eq!(plan.strike("h", "d", drop_before), Some(()));
    }

    #[test]
    fn faults_are_written_and_read_as_json() {
        let fault = Fault::DelayConnack { delay: Duration::from_millis(1500) };
        let text = serde_json::to_string(&fault).unwrap();
        assert_eq!(text, r#"{"kind":"delay-connack","delay_ms":1500}"#);
        assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), fault);
    }
}
