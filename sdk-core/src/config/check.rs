//! Errors in a configuration.

use core::fmt;

use crate::azure::names::{Name, NameError};
use crate::json::ObjectError;
use crate::link::{SessionConfigError, Setting};

/// An error in a [`crate::Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A name is not acceptable.
    Name(NameError),
    /// The provisioning payload is not a JSON object.
    ProvisioningPayload(ObjectError),
    /// The provisioning payload is larger than the limit of the service or the frontend's buffer.
    LongPayload {
        /// Its length in bytes.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A setting of the session is not acceptable.
    Session(SessionConfigError),
    /// The service does not support this kind of credential.
    CredentialNotForService,
    /// The profile is one of another service than the configuration names.
    ServiceNotForProfile,
    /// The frontend does not register over HTTPS: [`crate::Settings::HTTPS`].
    HttpsRegistration,
    /// Modules have no cloud-to-device messages, and devices have no inputs.
    SubscriptionNotForIdentity,
    /// A broker does not have an IoT hub's subscriptions.
    SubscriptionsOfAHub,
    /// A broker needs a client id to keep a session.
    NoClientId,
}

impl ConfigError {
    /// Constant error texts, for the compiler's message.
    pub(crate) const fn summary(self) -> &'static str {
        match self {
            Self::Name(error) => match error.name {
                Name::Hub => "the host name of the hub or of DPS is not acceptable: see azure::names::check_hub_name",
                Name::Gateway => "the host name of the gateway is not acceptable: see azure::names::check_gateway_name",
                Name::Device => "the device id is not acceptable: see azure::names::check_device_id",
                Name::Module => "the module id is not acceptable: see azure::names::check_module_id",
                Name::Registration => {
                    "the registration id is not acceptable: 1 to 128 letters, digits and - . _ :, the last one a letter, a digit or a hyphen"
                }
                Name::IdScope => "the id scope is not acceptable: 1 to 32 letters and digits, such as 0ne00ABCDEF",
                Name::Model => "the model id is not acceptable: dtmi:segment:segment;version",
                Name::Operation | Name::Product => "the product information is longer than 128 bytes",
            },
            Self::Session(SessionConfigError::OutOfRange { setting, .. }) => match setting {
                Setting::KeepAlive => {
                    "the keep-alive interval is out of its range: at least 1 s, 1177 s at most for a hub"
                }
                Setting::TokenLifetime => "the token lifetime is out of its range: 5 min to 24 h",
                Setting::Timeout => "a timeout is out of its range: 1 ms to 24 h",
            },
            Self::Session(SessionConfigError::Window(_)) => "the window must be 1 to 32767 messages",
            Self::Session(SessionConfigError::NoJitter) => {
                "first jitter, least delay and overload jitter of the back-off must be above zero"
            }
            Self::ProvisioningPayload(_) | Self::LongPayload { .. } => "the provisioning payload is not acceptable",
            Self::CredentialNotForService => "the service does not support this kind of credential",
            Self::ServiceNotForProfile => "the configuration's service does not match the profile",
            Self::HttpsRegistration => "this device registers over MQTT only: leave Config::https_registration false",
            Self::SubscriptionNotForIdentity => "modules have no cloud-to-device messages and devices no inputs",
            Self::SubscriptionsOfAHub => "a broker does not have an IoT hub's subscriptions",
            Self::NoClientId => "a broker keeps no session for an empty client id",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::ProvisioningPayload(error) => write!(f, "provisioning payload: {error}"),
            Self::LongPayload { size, limit } => {
                write!(f, "provisioning payload is {size} bytes; the limit is {limit}")
            }
            Self::Session(error) => error.fmt(f),
            Self::CredentialNotForService => f.write_str(
                "a hub supports a shared key, a certificate or a token, DPS a shared key or a certificate, a broker a certificate, a password or nothing",
            ),
            Self::ServiceNotForProfile => f.write_str(
                "the configuration's service does not match the link's profile; make them agree, or use AnyProfile",
            ),
            Self::HttpsRegistration => f.write_str(self.summary()),
            Self::SubscriptionNotForIdentity => {
                f.write_str("modules have no cloud-to-device messages and devices no inputs: use Subscriptions::MODULE or ALL, or part of it")
            }
            Self::SubscriptionsOfAHub => f.write_str(
                "a broker does not have an IoT hub's subscriptions: leave them out, and subscribe to topic filters",
            ),
            Self::NoClientId => {
                f.write_str("a broker keeps no session for an empty client id; set one or request a clean session")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl From<NameError> for ConfigError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<SessionConfigError> for ConfigError {
    fn from(error: SessionConfigError) -> Self {
        Self::Session(error)
    }
}
