//! What can be wrong with a configuration.

use core::fmt;

use crate::azure::names::NameError;
use crate::json::ObjectError;
use crate::link::SessionConfigError;

/// What is wrong with a [`crate::Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A name is not acceptable.
    Name(NameError),
    /// The provisioning payload is not a JSON object.
    ProvisioningPayload(ObjectError),
    /// The provisioning payload is larger than the service, or the frontend's buffer, takes.
    LongPayload {
        /// Its length in bytes.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A setting of the session is not acceptable.
    Session(SessionConfigError),
    /// The credential is of a kind the service does not take.
    CredentialNotForService,
    /// The profile is one of another service than the configuration names.
    ServiceNotForProfile,
    /// Modules have no cloud-to-device messages, and devices have no inputs.
    SubscriptionNotForIdentity,
    /// A broker has none of an IoT hub's subscriptions.
    SubscriptionsOfAHub,
    /// A broker needs a client id to keep a session.
    NoClientId,
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
                "a hub takes a shared key, a certificate or a token, DPS a shared key or a certificate, a broker a certificate, a password or nothing",
            ),
            Self::ServiceNotForProfile => f.write_str(
                "the configuration names another service than the link's profile is for; make them agree, or take AnyProfile",
            ),
            Self::SubscriptionNotForIdentity => {
                f.write_str("modules have no cloud-to-device messages and devices no inputs: take Subscriptions::MODULE or ALL, or part of it")
            }
            Self::SubscriptionsOfAHub => f.write_str(
                "a broker has none of an IoT hub's subscriptions: leave them out, and subscribe to topic filters",
            ),
            Self::NoClientId => {
                f.write_str("a broker keeps no session for an empty client id; name one or ask for a clean session")
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
