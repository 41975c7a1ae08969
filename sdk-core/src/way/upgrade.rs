//! The opening of WebSockets.

use crate::failure::Failure;
use crate::io::Role;

/// Port of HTTPS, which WebSockets over TLS use (RFC 6455, section 11.1.2).
pub const PORT: u16 = 443;

/// The subprotocol to ask for, and the one the service must answer with (MQTT 3.1.1, section 6, \[MQTT-6.0.0-3\]).
pub const SUBPROTOCOL: &str = "mqtt";

/// Path of IoT Hub and of the Device Provisioning Service (azure-docs `iot/iot-mqtt-connect-to-iot-hub.md` and
/// `iot/iot-mqtt-connect-to-iot-dps.md`).
const PATH: &str = "/$iothub/websocket";

/// The hub's path for devices without a certificate (azure-sdk-for-c, `az_iot_hub_client.h`): it then does not ask for
/// one by renegotiating TLS, which TLS 1.3 has no way to do.
const PATH_WITHOUT_CERTIFICATE: &str = "/$iothub/websocket?iothub-no-client-cert=true";

/// What brokers commonly listen on.
const BROKER_PATH: &str = "/mqtt";

/// What the opening of WebSockets asks for, and what an answer means. Frames are the business of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "frontends fill it in")]
pub struct Opening {
    /// The service.
    pub role: Role,
    /// The service is a broker of the user's.
    pub broker: bool,
    /// The device showed a certificate.
    pub certificate: bool,
}

impl Opening {
    /// Returns path and query of the request.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match (self.role, self.broker, self.certificate) {
            (Role::Hub, true, _) => BROKER_PATH,
            (Role::Hub, false, false) => PATH_WITHOUT_CERTIFICATE,
            (Role::Hub, false, true) | (Role::Provisioning, _, _) => PATH,
        }
    }

    /// Says what an answer other than the upgrade is: its HTTP status, 0 for one that is not HTTP and 101 for one that
    /// does not keep to the terms of the upgrade, and the value of its `Retry-After`, of which a date counts as none
    /// (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn refused(status: u16, retry_after: Option<&str>) -> Failure {
        let seconds = retry_after.and_then(|value| crate::azure::decimal(value.trim()));
        let retry_after_secs = seconds.and_then(|seconds| u32::try_from(seconds).ok());
        Failure::UpgradeRefused { status, retry_after_secs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_hub_whether_to_ask_for_a_certificate() {
        let path = |role, broker, certificate| Opening { role, broker, certificate }.path();
        assert_eq!(path(Role::Hub, false, false), "/$iothub/websocket?iothub-no-client-cert=true");
        assert_eq!(path(Role::Hub, false, true), "/$iothub/websocket");
        assert_eq!(path(Role::Provisioning, false, false), "/$iothub/websocket");
        assert_eq!(path(Role::Hub, true, false), "/mqtt");
    }

    #[test]
    fn only_seconds_count_as_a_time_to_wait() {
        let refused = |value| Opening::refused(503, value);
        let with = |retry_after_secs| Failure::UpgradeRefused { status: 503, retry_after_secs };
        assert_eq!(refused(None), with(None));
        assert_eq!(refused(Some(" 120 ")), with(Some(120)));
        assert_eq!(refused(Some("Sun, 06 Nov 1994 08:49:37 GMT")), with(None));
        assert_eq!(refused(Some("99999999999")), with(None));
    }
}
