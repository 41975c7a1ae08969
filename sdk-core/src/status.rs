//! The status of a link: state, cause and advice.

use core::fmt;
use core::time::Duration;

use crate::failure::{Failure, FailureClass, LocalFailure, ProvisioningFailure, TlsFailure};
use crate::io::{Attempt, ServiceKind};
use crate::outbox::Usage;
use crate::time::Instant;

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It was not started.
    Idle,
    /// It registers with the Device Provisioning Service.
    Provisioning,
    /// It connects to the hub.
    Connecting,
    /// Messages flow.
    Up,
    /// It disconnects from the hub, to renew its token, to move or to stop.
    Draining,
    /// It waits before the next attempt.
    BackingOff,
    /// The application stopped it.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Provisioning => "provisioning",
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::BackingOff => "backing off",
            Self::Stopped => "stopped",
        })
    }
}

/// The remedy for a link's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Nothing: the link is up, or recovers by itself.
    Nothing,
    /// Look after the network: cable, Wi-Fi, DNS, firewall for port 8883.
    CheckNetwork,
    /// Set the device's clock.
    SetClock,
    /// Look after the trusted roots, and whether the service sends its intermediates.
    CheckCertificates,
    /// Check the clock; if it is right, renew the service's certificate.
    CheckValidity,
    /// Check the configured host name, and the server at its address.
    CheckHostName,
    /// Replace the service's certificate: the device rejects one that is revoked, not for servers, or weak.
    ReplaceCertificate,
    /// Check the service's TLS: the device supports 1.2 and 1.3 with forward secrecy.
    CheckTls,
    /// Check the device's key or certificate, and that the device is enabled in the hub.
    CheckCredential,
    /// Check the enrollment: it exists, is enabled, and has a linked hub.
    CheckEnrollment,
    /// Wait: the service is overloaded; more units would help.
    Wait,
    /// Check the server at the service's address: it violates the protocol.
    CheckService,
    /// Check the kind of service, DPS, IoT Hub or broker: it refuses MQTT 3.1.1, so it may need another profile.
    CheckProtocol,
    /// Look for another device with the same identity.
    DuplicateIdentity,
    /// Check the hub's daily message quota: once it is used up, the hub accepts no device until 00:00 UTC.
    CheckQuota,
    /// Check this device: descriptors, memory, key holder.
    CheckDevice,
    /// Check the HTTP proxy: its address, user and password, and its access rules.
    CheckProxy,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to do",
            Self::CheckNetwork => {
                "check the network: cable or Wi-Fi, DNS, and a firewall that lets the service's port out"
            }
            Self::SetClock => "set the device's clock",
            Self::CheckCertificates => "check the trusted roots, and that the service sends its whole chain",
            Self::CheckValidity => "set the device's clock; if it is right, renew the service's certificate",
            Self::CheckHostName => "check the host name given to the device, and what answers at its address",
            Self::ReplaceCertificate => {
                "replace the service's certificate: not revoked, for servers, ECDSA or RSA of 2048 bits; or check the roots"
            }
            Self::CheckTls => "have the service speak TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20",
            Self::CheckCredential => "check the device's key or certificate, its ids and its clock, and that the hub or the enrollment has it enabled",
            Self::CheckEnrollment => "check the enrollment: it exists, is enabled, and has a hub linked",
            Self::Wait => "wait; if it lasts, the service needs more units",
            Self::CheckService => "check what answers at the service's address, such as a captive portal or a proxy",
            Self::CheckProtocol => {
                "check which service answers, DPS, IoT Hub or broker: it refuses MQTT 3.1.1 and may be of another profile"
            }
            Self::DuplicateIdentity => {
                "look for another device with the same identity: each drops the other's connection"
            }
            Self::CheckQuota => {
                "check the hub's daily quota: used up, it closes every connection until 00:00 UTC; else look for another \
                 device with the same identity"
            }
            Self::CheckDevice => "check this device: descriptors, memory and the holder of its key",
            Self::CheckProxy => {
                "check the proxy: its address, the user and the password, and that it lets the device out"
            }
        })
    }
}

/// A snapshot of a link: state, cause, next attempt and advice. Its `Display` is a text for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Its state.
    pub state: State,
    /// Start of the state, on the frontend's clock; [`lasted`](Self::lasted) is its duration.
    pub since: Instant,
    /// Time of the snapshot, on the frontend's clock: the link's latest time, or that given to [`at`](Self::at).
    pub now: Instant,
    /// The latest attempt.
    pub attempt: Attempt,
    /// It reconnects with a new token; not a fault.
    pub renewing: bool,
    /// The failure that started the current outage.
    pub first_failure: Option<Failure>,
    /// The failure of the latest attempt.
    pub last_failure: Option<Failure>,
    /// Failures since it was up.
    pub failures: u32,
    /// The service accepted this device three times in a row and soon closed the connection. Another device may use the
    /// same identity; a service that restarts repeatedly looks the same.
    pub duplicate_identity: bool,
    /// Each of these connections ended within seconds and without an acknowledgement. The hub's daily quota may be used
    /// up (IoT Hub error 403002); after 00:00 UTC the device is back within an hour.
    pub quota_suspected: bool,
    /// Time of the next attempt, on the frontend's clock, and its service; [`next_attempt_in`](Self::next_attempt_in)
    /// is the time until then.
    pub next_attempt: Option<(Instant, ServiceKind)>,
    /// Registrations with the Device Provisioning Service since the link was made.
    pub registrations: u32,
    /// Service's time minus the device's, in seconds, if they are known to differ too much.
    pub clock_skew_secs: Option<i64>,
    /// Contents of the outbox.
    pub queued: Usage,
    /// Publishes sent and not acknowledged.
    pub in_flight: u16,
}

impl Status {
    /// Returns the status with its durations up to `now`, for a link that has not been driven for a while.
    #[must_use]
    pub fn at(self, now: Instant) -> Self {
        Self { now: self.now.max(now), ..self }
    }

    /// Returns how long the link has been in this state.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.now.since(self.since)
    }

    /// Returns the time until the next attempt, if one is planned.
    #[must_use]
    pub fn next_attempt_in(&self) -> Option<Duration> {
        self.next_attempt.map(|(at, _)| at.since(self.now))
    }

    /// Returns the remedy.
    #[must_use]
    pub fn advice(&self) -> Advice {
        if self.clock_skew_secs.is_some() {
            return Advice::SetClock;
        }
        if self.quota_suspected {
            return Advice::CheckQuota;
        }
        if self.duplicate_identity {
            return Advice::DuplicateIdentity;
        }
        let Some(failure) = self.last_failure else { return Advice::Nothing };
        let by_class = match failure.class() {
            FailureClass::Unreachable => Advice::CheckNetwork,
            FailureClass::Overload => Advice::Wait,
            FailureClass::Refused => Advice::CheckCredential,
            FailureClass::Protocol => Advice::CheckService,
            FailureClass::Local => Advice::CheckDevice,
        };
        if let Failure::Tls(failure) = failure {
            return match failure {
                TlsFailure::Expired | TlsFailure::NotYetValid => Advice::CheckValidity,
                TlsFailure::ClientCertificateRefused => Advice::CheckCredential,
                TlsFailure::WrongName => Advice::CheckHostName,
                TlsFailure::UnknownIssuer => Advice::CheckCertificates,
                TlsFailure::Revoked | TlsFailure::BadCertificate | TlsFailure::BadSignature => {
                    Advice::ReplaceCertificate
                }
                TlsFailure::Incompatible => Advice::CheckTls,
                TlsFailure::Handshake | TlsFailure::Alert(_) | TlsFailure::Garbled => Advice::CheckService,
            };
        }
        match (failure, by_class) {
            (Failure::Reset, _) => Advice::CheckNetwork,
            (Failure::Local(LocalFailure::ClockUnset), _) => Advice::SetClock,
            (Failure::Local(LocalFailure::Credential), _) => Advice::CheckCredential,
            (
                Failure::Local(
                    LocalFailure::ProxyUnreachable
                    | LocalFailure::ProxySilent
                    | LocalFailure::ProxyAuthentication
                    | LocalFailure::ProxyRefused(_),
                ),
                _,
            ) => Advice::CheckProxy,
            (Failure::ConnectRefused(1), _) => Advice::CheckProtocol,
            (Failure::Provisioning(ProvisioningFailure::BadAnswer), _) => Advice::CheckService,
            (Failure::Provisioning(_), Advice::CheckCredential) => Advice::CheckEnrollment,
            (_, advice) => advice,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.state, Span(self.lasted()))?;
        if self.renewing {
            f.write_str(" to renew the token")?;
        }
        match (self.first_failure, self.last_failure) {
            (Some(first), Some(last)) if first != last => {
                write!(f, "; first because {first}, at last because {last} ({} failures)", self.failures)?;
            }
            (_, Some(last)) => write!(f, "; because {last} ({} failures)", self.failures)?,
            (_, None) => {}
        }
        if let Some((at, role)) = self.next_attempt {
            let service = match role {
                ServiceKind::Provisioning => "the provisioning service",
                ServiceKind::Hub => "the hub",
            };
            write!(f, "; attempt {} at {service} in {}", self.attempt.next(), Span(at.since(self.now)))?;
        }
        if let Some(seconds) = self.clock_skew_secs {
            let (by, way) = (seconds.unsigned_abs(), if seconds < 0 { "ahead of" } else { "behind" });
            write!(f, "; the clock is {by} s {way} the service's")?;
        }
        write!(
            f,
            "; {} messages ({} bytes) queued, {} in flight",
            self.queued.messages, self.queued.bytes, self.in_flight
        )?;
        let advice = self.advice();
        if advice == Advice::Nothing { Ok(()) } else { write!(f, "; {advice}") }
    }
}

/// A duration as people say it: its two largest units at most.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let (mins, hours) = (secs / 60, secs / 3_600);
        match secs {
            0 => write!(f, "{} ms", self.0.subsec_millis()),
            1..=119 => write!(f, "{secs} s"),
            120..=7_199 => write!(f, "{mins} min {} s", secs % 60),
            7_200..=172_799 => write!(f, "{hours} h {} min", mins % 60),
            _ => write!(f, "{} days {} h", hours / 24, hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Span;
    use core::time::Duration;
    use std::string::ToString as _;

    #[test]
    fn durations_read_as_people_say_them() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_345, "12 s"),
            (119_999, "119 s"),
            (125_000, "2 min 5 s"),
            (7_199_000, "119 min 59 s"),
            (7_200_000, "2 h 0 min"),
            (172_800_000, "2 days 0 h"),
        ] {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
