//! What can be known of a configuration before the first packet.

use core::fmt;
use core::time::Duration;

use super::{Config, Credential, Service, Subscriptions};
use crate::azure::dps::{self, AnswerError};
use crate::azure::names::{self, NameError};
use crate::time::millis;

impl<T: AsRef<str>> Config<T> {
    /// Checks all that can be known before the first packet.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        match &self.service {
            Service::Hub { host, device_id } => {
                names::check_hub_name(host.as_ref())?;
                names::check_device_id(device_id.as_ref())?;
            }
            Service::Provisioned { host, id_scope, registration_id } => {
                names::check_hub_name(host.as_ref())?;
                names::check_id_scope(id_scope.as_ref())?;
                names::check_registration_id(registration_id.as_ref())?;
            }
            Service::Broker { client_id, .. } if client_id.as_ref().is_empty() && !self.clean_session => {
                return Err(ConfigError::NoClientId);
            }
            Service::Broker { .. } => {}
        }
        if let Some(gateway) = &self.gateway {
            names::check_gateway_name(gateway.as_ref())?;
        }
        let fits = match (&self.service, &self.credential) {
            (Service::Hub { .. }, Credential::SharedKey | Credential::Certificate | Credential::Token(_))
            | (Service::Provisioned { .. }, Credential::SharedKey | Credential::Certificate)
            | (Service::Broker { .. }, Credential::Certificate | Credential::Password { .. } | Credential::Anonymous) => true,
            (Service::Hub { .. }, Credential::Password { .. } | Credential::Anonymous)
            // A token is for one hub; an assignment may name any.
            | (Service::Provisioned { .. }, Credential::Token(_) | Credential::Password { .. } | Credential::Anonymous)
            | (Service::Broker { .. }, Credential::SharedKey | Credential::Token(_)) => false,
        };
        if !fits {
            return Err(ConfigError::CredentialNotForService);
        }
        let foreign = match &self.module_id {
            Some(module_id) => {
                names::check_module_id(module_id.as_ref())?;
                Subscriptions::CLOUD_TO_DEVICE
            }
            None => Subscriptions::INPUTS,
        };
        if self.subscriptions.contains(foreign) {
            return Err(ConfigError::SubscriptionNotForIdentity);
        }
        if let Some(model_id) = &self.model_id {
            names::check_model_id(model_id.as_ref())?;
        }
        if let Some(product_info) = &self.product_info {
            names::check_product(product_info.as_ref())?;
        }
        if let Some(payload) = &self.provisioning_payload {
            let payload = payload.as_ref();
            let limit = dps::REQUEST_MAX.min(self.max_outbound).saturating_sub(dps::REQUEST_FRAME);
            if payload.len() > limit {
                return Err(ConfigError::LongPayload { size: payload.len(), limit });
            }
            dps::check_payload(payload).map_err(ConfigError::ProvisioningPayload)?;
        }
        let within = |setting, time: Duration, least: u64, most: u64| {
            if (least..=most).contains(&millis(time)) {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange { setting, value_ms: millis(time), least_ms: least, most_ms: most })
            }
        };
        within(Setting::KeepAlive, self.keep_alive, 1_000, 1_177_000)?;
        within(Setting::TokenLifetime, self.token_lifetime, 300_000, 86_400_000)?;
        let times = &self.timeouts;
        for timeout in [
            times.connect,
            times.tls,
            times.connack,
            times.connack_longest,
            times.suback,
            times.puback,
            times.drain,
            times.sign,
            times.provisioning_answer,
            times.provisioning,
        ] {
            within(Setting::Timeout, timeout, 1, 86_400_000)?;
        }
        if self.retry.first_spread.is_zero() || self.retry.floor.is_zero() || self.retry.overload_spread.is_zero() {
            return Err(ConfigError::NoJitter);
        }
        if !(1..=0x7fff).contains(&self.window) {
            return Err(ConfigError::Window(self.window));
        }
        Ok(())
    }
}

/// A time that can be out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// The keep-alive interval.
    KeepAlive,
    /// The token lifetime.
    TokenLifetime,
    /// One of the timeouts.
    Timeout,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepAlive => "keep-alive interval",
            Self::TokenLifetime => "token lifetime",
            Self::Timeout => "timeout",
        })
    }
}

/// What is wrong with a [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A name is not acceptable.
    Name(NameError),
    /// The provisioning payload is not a JSON object.
    ProvisioningPayload(AnswerError),
    /// The provisioning payload is larger than the service, or the frontend's buffer, takes.
    LongPayload {
        /// Its length in bytes.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A time is out of its range.
    OutOfRange {
        /// Which.
        setting: Setting,
        /// Its value in milliseconds.
        value_ms: u64,
        /// Least value in milliseconds.
        least_ms: u64,
        /// Greatest value in milliseconds.
        most_ms: u64,
    },
    /// The window is not within 1 to 32,767.
    Window(u16),
    /// The credential is of a kind the service does not take.
    CredentialNotForService,
    /// A link without room for an assignment cannot be provisioned.
    NeedsProvisioning,
    /// Modules have no cloud-to-device messages, and devices have no inputs.
    SubscriptionNotForIdentity,
    /// A broker needs a client id to keep a session.
    NoClientId,
    /// A spread of the back-off is zero, which would bring a fleet back in step.
    NoJitter,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::ProvisioningPayload(error) => write!(f, "provisioning payload: {error}"),
            Self::LongPayload { size, limit } => {
                write!(f, "provisioning payload is {size} bytes; the limit is {limit}")
            }
            Self::OutOfRange { setting, value_ms, least_ms, most_ms } => {
                write!(f, "{setting} is {value_ms} ms; it must be {least_ms} to {most_ms} ms")
            }
            Self::Window(window) => write!(f, "window is {window}; it must be 1 to 32767 messages"),
            Self::CredentialNotForService => f.write_str(
                "a hub takes a shared key, a certificate or a token, DPS a shared key or a certificate, a broker a certificate, a password or nothing",
            ),
            Self::NeedsProvisioning => {
                f.write_str("a direct link has no room for an assignment; make one that can be provisioned")
            }
            Self::SubscriptionNotForIdentity => {
                f.write_str("modules have no cloud-to-device messages and devices no inputs: take Subscriptions::MODULE or ALL, or part of it")
            }
            Self::NoClientId => {
                f.write_str("a broker keeps no session for an empty client id; name one or ask for a clean session")
            }
            Self::NoJitter => f.write_str("first spread, floor and overload spread of the back-off must be above zero"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl From<NameError> for ConfigError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}
