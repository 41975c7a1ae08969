//! Every cause of failure of a link, and the next step for each.

mod judgement;

use core::fmt;
use core::time::Duration;

use crate::mqtt::DecodeError;

/// Why an attempt or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The host name was not resolved: no such name, no answer, or an empty answer.
    Unresolved,
    /// The host refused the TCP connection.
    ConnectionRefused,
    /// No TCP connection came about in time.
    ConnectTimeout,
    /// The network reported another error, such as no route, before or after TLS was up.
    Network,
    /// TLS was not completed in time.
    TlsTimeout,
    /// TLS failed.
    Tls(TlsFailure),
    /// The service did not answer CONNECT in time: a loaded IoT Hub holds CONNECT in its throttle queue.
    ConnackTimeout,
    /// The service refused the upgrade to WebSockets, which precedes CONNECT if they are used (RFC 6455, section
    /// 4.2.2).
    UpgradeRefused {
        /// HTTP status of its answer; 0 if that was not HTTP, 101 if it violated the upgrade's requirements.
        status: u16,
        /// The answer's retry-after in seconds.
        retry_after_secs: Option<u32>,
    },
    /// The connection was closed without an MQTT reason, after TLS was up.
    Lost,
    /// The connection was reset after TLS was up: by the service, or by something in between such as a firewall.
    Reset,
    /// The service broke the rules of WebSockets (RFC 6455).
    BadFrame,
    /// Nothing was received within 1.5 times the keep-alive interval.
    KeepAliveTimeout,
    /// The service answers pings but has not acknowledged a publish for the acknowledgement time.
    PubackTimeout,
    /// The service answers pings but has answered none of the latest twin requests.
    TwinUnanswered,
    /// The service did not acknowledge a subscription in time.
    SubackTimeout,
    /// The service refused CONNECT with this return code (MQTT 3.1.1, section 3.2.2.3).
    ConnectRefused(u8),
    /// The service refused a subscription (MQTT 3.1.1, section 3.9.3: return code 0x80).
    SubscribeRefused,
    /// The service sent bytes that are not MQTT 3.1.1.
    Malformed(DecodeError),
    /// The service sent a packet that the protocol does not allow at this point.
    UnexpectedPacket,
    /// The service kept a session although a clean one was requested (MQTT 3.1.1 \[MQTT-3.2.2-1\]).
    UnexpectedSession,
    /// The Device Provisioning Service did not assign a hub.
    Provisioning(ProvisioningFailure),
    /// A failure on the device itself.
    Local(LocalFailure),
}

/// Why TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The certificate has expired, or the device's clock is ahead.
    Expired,
    /// The certificate is not valid yet, or the device's clock is behind.
    NotYetValid,
    /// The certificate is for another name.
    WrongName,
    /// No trusted root issued the certificate; an intermediate may be missing.
    UnknownIssuer,
    /// The certificate is revoked.
    Revoked,
    /// The certificate is not valid for this purpose, or its signature algorithm is not supported.
    BadCertificate,
    /// A signature of the certificate, or one made with its key, is not valid: the key is weak, such as RSA below 2,048
    /// bits, or a trusted root has the issuer's name and another key.
    BadSignature,
    /// The service refused the device's certificate.
    ClientCertificateRefused,
    /// The two sides share no protocol version, suite or group.
    Incompatible,
    /// The handshake broke off.
    Handshake,
    /// The service ended TLS with this alert (RFC 8446, section 6), in the handshake or after it.
    Alert(u8),
    /// The data is not TLS, or was modified in transit.
    Garbled,
}

/// Why the Device Provisioning Service did not assign a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProvisioningFailure {
    /// Throttled (429) or failing (5xx), with the service's retry-after in seconds.
    Unavailable {
        /// HTTP-like status of the answer.
        status: u16,
        /// The service's retry-after in seconds.
        retry_after_secs: Option<u32>,
    },
    /// The service refused the request: HTTP-like status and error code, such as 401 and 401002.
    Refused {
        /// HTTP-like status of the answer.
        status: u16,
        /// The service's error code, 0 if there was none.
        code: u32,
    },
    /// The registration failed with this error code, such as 400207.
    Failed {
        /// The service's error code, 0 if there was none.
        code: u32,
    },
    /// The enrollment is disabled.
    Disabled,
    /// The assignment names a connection profile that this version does not support.
    UnsupportedProfile,
    /// The assigned hub's name is not an acceptable host name, or not within the allowed suffixes.
    BadHubName,
    /// The assigned device id cannot be used in a topic or is too long.
    BadDeviceId,
    /// The answer cannot be parsed.
    BadAnswer,
    /// No answer to a request in time.
    NoAnswer,
    /// The assignment exceeded the registration's time limit.
    TooSlow,
}

/// Failures on the device itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalFailure {
    /// The wall clock is not set, so no token can be given an expiry.
    ClockUnset,
    /// The key holder did not sign.
    Signing,
    /// The key holder did not answer in time.
    SigningTimeout,
    /// The key holder has no key of this device for the hub, such as a TPM that was cleared or lost its stored keys. A
    /// registration supplies a new one.
    NoKey,
    /// The credential cannot be read, such as a missing or unreadable certificate file.
    Credential,
    /// No local port, descriptor, thread or memory for a connection.
    Resources,
    /// A packet did not fit the frontend's buffer.
    Buffer,
    /// The HTTP proxy was not reached.
    ProxyUnreachable,
    /// The HTTP proxy did not answer, or closed the connection.
    ProxySilent,
    /// The HTTP proxy requires a user and a password, or others (407).
    ProxyAuthentication,
    /// The HTTP proxy refused the tunnel: HTTP status of its answer, 0 if that was not HTTP.
    ProxyRefused(u16),
    /// IoT Edge's workload API, which signs for a module and names the roots to trust, was not reached: it is not up yet,
    /// or it cut every request off.
    WorkloadUnreachable,
    /// IoT Edge's workload API refused: HTTP status of its answer, 0 if that could not be parsed. 403 means that the
    /// socket belongs to another module.
    WorkloadRefused(u16),
}

/// The next step after a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// Try the same service again, later each time.
    Retry,
    /// Try the same service again, not before this time and never unjittered.
    RetryAfter(Duration),
    /// Check the clock and use a new token or certificate; after a second refusal, [`Disposition::Reprovision`].
    RefreshCredential,
    /// Ask the Device Provisioning Service for the hub.
    Reprovision,
    /// Try the same service again with the longest delay, and ask the Device Provisioning Service: retries cannot
    /// succeed until the service or the application changes.
    RetryRarely,
}

/// Which back-off curve a [`Failure`] belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureClass {
    /// The service was not reached.
    Unreachable,
    /// The service was reached but is overloaded.
    Overload,
    /// The service was reached and refused the device.
    Refused,
    /// The service was reached but violated the protocol.
    Protocol,
    /// The device could not try.
    Local,
}

impl Failure {
    /// Returns the next step after the failure.
    ///
    /// IoT Hub answers every CONNECT it refuses with return code 5: a bad key, an expired token, an unknown or disabled
    /// device and a device of another hub look the same. Hence the order of steps: a new token first, then the Device
    /// Provisioning Service (azure-iot-sdk-c `doc/connection_and_messaging_reliability.md`; azure-docs
    /// `iot/concepts-manage-device-reconnections.md`).
    #[must_use]
    pub const fn disposition(self) -> Disposition {
        self.judge().1
    }

    /// Returns the back-off curve of the failure.
    #[must_use]
    pub const fn class(self) -> FailureClass {
        self.judge().0
    }

    /// Whether a wrong clock of the device can cause it: a token or a certificate out of its time.
    pub(crate) fn may_be_the_clock(self) -> bool {
        let told = matches!(
            self,
            Self::Local(LocalFailure::ClockUnset) | Self::Tls(TlsFailure::Expired | TlsFailure::NotYetValid)
        );
        told || self.disposition() == Disposition::RefreshCredential
    }

    /// Returns whether the connection was closed or reset without a reason. That is all that a hub does when it is
    /// overloaded, restarts, or another device uses the same identity.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Lost | Self::Reset)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => f.write_str("the host name was not resolved"),
            Self::ConnectionRefused => f.write_str("the host refused the connection"),
            Self::ConnectTimeout => f.write_str("the host did not answer the connection attempt in time"),
            Self::Network => f.write_str("the network reported an error, such as no route"),
            Self::TlsTimeout => f.write_str("TLS was not completed in time"),
            Self::Tls(failure) => write!(f, "TLS failed: {failure}"),
            Self::UpgradeRefused { status: 0, .. } => f.write_str("the service does not speak HTTP, so no WebSockets"),
            Self::UpgradeRefused { status, retry_after_secs: Some(secs) } => {
                write!(f, "the service answered the upgrade to WebSockets with {status} and retry-after {secs} s")
            }
            Self::UpgradeRefused { status, retry_after_secs: None } => {
                write!(f, "the service answered the upgrade to WebSockets with {status}")
            }
            Self::ConnackTimeout => f.write_str("the service was silent after CONNECT"),
            Self::Lost => f.write_str("the connection ended without a reason"),
            Self::Reset => f.write_str("the connection was reset"),
            Self::BadFrame => f.write_str("the service violated the WebSocket protocol"),
            Self::KeepAliveTimeout => f.write_str("nothing was received within 1.5 times the keep-alive interval"),
            Self::PubackTimeout => f.write_str("the service answers pings but acknowledges no publish"),
            Self::TwinUnanswered => f.write_str("the service answers pings but no twin requests"),
            Self::SubackTimeout => f.write_str("the service did not acknowledge a subscription"),
            Self::ConnectRefused(code) => {
                let meaning = match code {
                    1 => "unacceptable protocol version",
                    2 => "identifier rejected",
                    3 => "server unavailable",
                    4 => "bad user name or password",
                    5 => "not authorized",
                    _ => "reserved code",
                };
                write!(f, "the service refused CONNECT with code {code} ({meaning})")
            }
            Self::SubscribeRefused => f.write_str("the service refused a subscription"),
            Self::Malformed(error) => write!(f, "the service sent bytes that are not MQTT: {error}"),
            Self::UnexpectedPacket => f.write_str("the service sent an unexpected packet"),
            Self::UnexpectedSession => f.write_str("the service kept a session although a clean one was requested"),
            Self::Provisioning(failure) => write!(f, "provisioning: {failure}"),
            Self::Local(failure) => write!(f, "on this device: {failure}"),
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the certificate has expired, or the device's clock is ahead",
            Self::NotYetValid => "the certificate is not valid yet, or the device's clock is behind",
            Self::WrongName => "the certificate is for another name",
            Self::UnknownIssuer => "no trusted root issued the certificate, or an intermediate is missing",
            Self::Revoked => "the certificate is revoked",
            Self::BadCertificate => "the certificate is not fit for a server",
            Self::BadSignature => "a signature is not valid: a weak key, or a root of that name with another key",
            Self::ClientCertificateRefused => "the service refused the device's certificate",
            Self::Incompatible => "no protocol version, suite or group in common",
            Self::Handshake => "the handshake broke off",
            Self::Alert(alert) => return write!(f, "the service sent alert {alert}"),
            Self::Garbled => "the data is not TLS, or was modified in transit",
        })
    }
}

impl fmt::Display for ProvisioningFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { status, retry_after_secs: Some(secs) } => {
                write!(f, "the service answered {status} with retry-after {secs} s")
            }
            Self::Unavailable { status, retry_after_secs: None } => write!(f, "the service answered {status}"),
            Self::Refused { status, code } => write!(f, "the service refused with {status}, error code {code}"),
            Self::Failed { code } => write!(f, "the assignment failed with error code {code}"),
            Self::Disabled => f.write_str("the enrollment is disabled"),
            Self::UnsupportedProfile => f.write_str("the assigned connection profile is not supported"),
            Self::BadHubName => f.write_str("the assigned hub name is not acceptable"),
            Self::BadDeviceId => f.write_str("the assigned device id is not acceptable"),
            Self::BadAnswer => f.write_str("the answer cannot be parsed"),
            Self::NoAnswer => f.write_str("the service did not answer"),
            Self::TooSlow => f.write_str("the assignment took too long"),
        }
    }
}

impl fmt::Display for LocalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProxyRefused(0) => "the proxy does not speak HTTP",
            Self::ProxyRefused(status) => return write!(f, "the proxy answered {status}"),
            Self::WorkloadRefused(0) => "IoT Edge's workload API gave an unusable answer",
            Self::WorkloadRefused(403) => "IoT Edge's workload API answered 403: the socket is another module's",
            Self::WorkloadRefused(status) => return write!(f, "IoT Edge's workload API answered {status}"),
            Self::WorkloadUnreachable => "IoT Edge's workload API was not reached",
            Self::ProxyUnreachable => "the proxy was not reached",
            Self::ProxySilent => "the proxy did not answer",
            Self::ProxyAuthentication => "the proxy requires another user or password (407)",
            Self::ClockUnset => "the wall clock is not set",
            Self::Signing => "the key holder did not sign",
            Self::SigningTimeout => "the key holder did not answer",
            Self::NoKey => "the key holder has no key for the hub",
            Self::Credential => "the credential cannot be read",
            Self::Resources => "no port, descriptor, thread or memory for a connection",
            Self::Buffer => "a packet does not fit the buffer",
        })
    }
}

impl core::error::Error for Failure {}
