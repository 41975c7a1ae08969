//! The table of failures: back-off curve and disposition of each. `link/next_step.rs` derives the next service from
//! both.

use core::time::Duration;

use super::{Disposition, Failure, FailureClass, LocalFailure, ProvisioningFailure, TlsFailure};

impl Failure {
    /// Returns the failure's back-off curve and disposition.
    pub(crate) const fn judge(self) -> (FailureClass, Disposition) {
        use Disposition::{RefreshCredential, Reprovision, Retry, RetryRarely};
        use FailureClass::{Local, Overload, Protocol, Refused, Unreachable};
        match self {
            Self::Unresolved | Self::ConnectionRefused | Self::ConnectTimeout | Self::Network | Self::TlsTimeout => {
                (Unreachable, Retry)
            }
            Self::Tls(TlsFailure::ClientCertificateRefused) => (Refused, RefreshCredential),
            // A middlebox or a clock breaks a handshake as easily as the service does.
            Self::Tls(_) => (Unreachable, Retry),
            Self::ConnackTimeout
            | Self::Lost
            | Self::Reset
            | Self::KeepAliveTimeout
            | Self::PubackTimeout
            | Self::TwinUnanswered
            | Self::SubackTimeout => (Overload, Retry),
            // MQTT 3.1.1, table 3.1: unacceptable protocol version.
            Self::ConnectRefused(1) => (Refused, RetryRarely),
            // Identifier rejected, bad user name or password, not authorized.
            Self::ConnectRefused(2 | 4 | 5) => (Refused, RefreshCredential),
            // 3 is "server unavailable"; codes above 5 are reserved.
            Self::ConnectRefused(_) => (Overload, Retry),
            // RFC 9110, section 15; any other status is no WebSocket service.
            Self::UpgradeRefused { status: 401 | 403, .. } => (Refused, RefreshCredential),
            Self::UpgradeRefused { retry_after_secs: Some(secs), .. } => (Overload, after(secs)),
            Self::UpgradeRefused { status: 429 | 500..=599, .. } => (Overload, Retry),
            Self::UpgradeRefused { .. }
            | Self::BadFrame
            | Self::SubscribeRefused
            | Self::Malformed(_)
            | Self::UnexpectedPacket
            | Self::UnexpectedSession => (Protocol, Retry),
            // 429 and 5xx repeat after the service's retry-after; any other status ends the request, which is retried
            // with the delays of a refusal (azure-docs `iot-dps/how-to-troubleshoot-dps.md`; every official SDK alike).
            // Each registration is billed, even if its answer cannot be parsed.
            Self::Provisioning(failure) => match failure {
                ProvisioningFailure::Unavailable { retry_after_secs: Some(secs), .. } => (Overload, after(secs)),
                ProvisioningFailure::Unavailable { retry_after_secs: None, .. }
                | ProvisioningFailure::NoAnswer
                | ProvisioningFailure::TooSlow => (Overload, Retry),
                ProvisioningFailure::Refused { .. } => (Refused, RefreshCredential),
                ProvisioningFailure::Failed { .. }
                | ProvisioningFailure::Disabled
                | ProvisioningFailure::UnsupportedProfile
                | ProvisioningFailure::BadHubName
                | ProvisioningFailure::BadDeviceId
                | ProvisioningFailure::BadAnswer => (Refused, Retry),
            },
            Self::Local(failure) => match failure {
                LocalFailure::Credential => (Local, RefreshCredential),
                LocalFailure::NoKey => (Local, Reprovision),
                LocalFailure::ClockUnset
                | LocalFailure::Signing
                | LocalFailure::SigningTimeout
                | LocalFailure::Resources
                | LocalFailure::Buffer
                | LocalFailure::ProxyUnreachable
                | LocalFailure::ProxySilent
                | LocalFailure::ProxyAuthentication
                | LocalFailure::ProxyRefused(_)
                | LocalFailure::WorkloadUnreachable
                | LocalFailure::WorkloadRefused(_) => (Local, Retry),
            },
        }
    }
}

const fn after(secs: u32) -> Disposition {
    Disposition::RetryAfter(Duration::from_secs(secs as u64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::failure::*;

    #[test]
    fn each_failure_has_the_disposition_and_curve_its_source_asks_for() {
        use Disposition as D;
        use FailureClass as C;
        let unavailable = |status, retry_after_secs| {
            Failure::Provisioning(ProvisioningFailure::Unavailable { status, retry_after_secs })
        };
        let upgrade = |status, retry_after_secs| Failure::UpgradeRefused { status, retry_after_secs };
        let table = [
            // azure-docs iot/concepts-manage-device-reconnections.md: network errors retry the same hub.
            (Failure::Unresolved, D::Retry, C::Unreachable),
            (Failure::ConnectionRefused, D::Retry, C::Unreachable),
            (Failure::ConnectTimeout, D::Retry, C::Unreachable),
            (Failure::TlsTimeout, D::Retry, C::Unreachable),
            (Failure::Tls(TlsFailure::NotYetValid), D::Retry, C::Unreachable),
            // A refused certificate looks like a network error from below, and is an identity refusal.
            (Failure::Tls(TlsFailure::ClientCertificateRefused), D::RefreshCredential, C::Refused),
            // azure-iot-sdk-csharp#2043: a burst of connections waits in the hub's throttle queue.
            (Failure::ConnackTimeout, D::Retry, C::Overload),
            // azure-iot-sdk-c#1766: a throttled hub closes without a packet.
            (Failure::Lost, D::Retry, C::Overload),
            (Failure::Reset, D::Retry, C::Overload),
            (Failure::BadFrame, D::Retry, C::Protocol),
            (Failure::Tls(TlsFailure::Alert(80)), D::Retry, C::Unreachable),
            // azure-iot-sdk-c doc/connection_and_messaging_reliability.md: every refusal is code 5.
            (Failure::ConnectRefused(1), D::RetryRarely, C::Refused),
            (Failure::ConnectRefused(2), D::RefreshCredential, C::Refused),
            (Failure::ConnectRefused(3), D::Retry, C::Overload),
            (Failure::ConnectRefused(4), D::RefreshCredential, C::Refused),
            (Failure::ConnectRefused(5), D::RefreshCredential, C::Refused),
            (Failure::ConnectRefused(77), D::Retry, C::Overload),
            // azure-docs iot-dps/how-to-troubleshoot-dps.md: honour retry-after on 429.
            (unavailable(429, Some(7)), D::RetryAfter(Duration::from_secs(7)), C::Overload),
            (unavailable(500, None), D::Retry, C::Overload),
            (
                Failure::Provisioning(ProvisioningFailure::Refused { status: 401, code: 401_002 }),
                D::RefreshCredential,
                C::Refused,
            ),
            (Failure::Provisioning(ProvisioningFailure::Disabled), D::Retry, C::Refused),
            // An operator can assign another hub: the device must recover by itself.
            (Failure::Provisioning(ProvisioningFailure::UnsupportedProfile), D::Retry, C::Refused),
            (Failure::Provisioning(ProvisioningFailure::BadAnswer), D::Retry, C::Refused),
            (Failure::Local(LocalFailure::ClockUnset), D::Retry, C::Local),
            // A failure of a proxy or gateway is no information about the hub. A TPM has no key for the hub but the one
            // from a registration (azure-docs iot-dps/concepts-tpm-attestation.md).
            (Failure::Local(LocalFailure::NoKey), D::Reprovision, C::Local),
            (Failure::Local(LocalFailure::ProxyAuthentication), D::Retry, C::Local),
            (Failure::Local(LocalFailure::ProxyRefused(403)), D::Retry, C::Local),
            // An Edge device starts its parts in any order, and repairs a module's identity by itself.
            (Failure::Local(LocalFailure::WorkloadUnreachable), D::Retry, C::Local),
            (Failure::Local(LocalFailure::WorkloadRefused(403)), D::Retry, C::Local),
            // RFC 9110, sections 15.5.2, 15.5.4, 15.5.5 and 15.6.4; RFC 6585, section 4.
            (upgrade(401, None), D::RefreshCredential, C::Refused),
            (upgrade(403, Some(7)), D::RefreshCredential, C::Refused),
            (upgrade(404, None), D::Retry, C::Protocol),
            (upgrade(429, Some(7)), D::RetryAfter(Duration::from_secs(7)), C::Overload),
            (upgrade(503, None), D::Retry, C::Overload),
            (upgrade(0, None), D::Retry, C::Protocol),
        ];
        for (failure, disposition, class) in table {
            assert_eq!(failure.disposition(), disposition, "{failure}");
            assert_eq!(failure.class(), class, "{failure}");
        }
    }
}
