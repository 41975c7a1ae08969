//! The check of a constant configuration when the program is compiled.

use crate::azure::names;
use crate::broker;
use crate::config::{Config, ConfigError, Credential, Service, Settings};
use crate::iothub::{self, check_names, first_error};

/// A constant configuration that was checked when the program was compiled: [`Config::checked`].
#[derive(Clone, Copy, Debug)]
pub struct Checked(Config<&'static str>);

impl Config<&'static str> {
    /// Checks the configuration in a constant, so that a wrong id scope fails the build, and the firmware is free of the
    /// code that would check it. Only the JSON of a provisioning payload is still checked by [`crate::Link::new`].
    ///
    /// ```
    /// use steadfast_core::{Checked, Config, Credential, Service};
    ///
    /// static CONFIG: Checked = Config::new(
    ///     Service::Provisioned {
    ///         host: steadfast_core::dps::topics::GLOBAL_HOST,
    ///         id_scope: "0ne00ABCDEF",
    ///         registration_id: "pump-7",
    ///     },
    ///     Credential::SharedKey,
    /// )
    /// .checked();
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use steadfast_core::{Checked, Config, Credential, Service};
    /// static CONFIG: Checked = Config::new(
    ///     Service::Provisioned { host: "dps.example", id_scope: "0ne00-ABCDEF", registration_id: "pump-7" },
    ///     Credential::SharedKey,
    /// )
    /// .checked();
    /// ```
    ///
    /// # Panics
    /// If the configuration is invalid, with the error as text: in a `const` or a `static` that is a compile error. At
    /// run time use only [`crate::Link::new`], which returns an error.
    #[must_use]
    #[expect(clippy::panic, reason = "it fails the build")]
    pub const fn checked(self) -> Checked {
        if let Err(error) = self.check_constant() {
            panic!("{}", error.summary());
        }
        Checked(self)
    }

    const fn check_constant(&self) -> Result<(), ConfigError> {
        let named = match self.service {
            Service::Hub { host, device_id } => pair(names::check_hub_name(host), names::check_device_id(device_id)),
            Service::Provisioned { host, id_scope, registration_id } => pair(
                first_error(names::check_hub_name(host), names::check_id_scope(id_scope)),
                names::check_registration_id(registration_id),
            ),
            Service::Broker { client_id, .. } => {
                if client_id.is_empty() && !self.session.clean_session {
                    return Err(ConfigError::NoClientId);
                }
                if self.subscriptions.bits() != 0 {
                    return Err(ConfigError::SubscriptionsOfAHub);
                }
                Ok(())
            }
        };
        if let Err(error) = named {
            return Err(error);
        }
        let fits = match self.credential {
            Credential::Certificate => true,
            Credential::SharedKey => !matches!(self.service, Service::Broker { .. }),
            Credential::Token(_) => matches!(self.service, Service::Hub { .. }),
            Credential::Password { .. } | Credential::Anonymous => matches!(self.service, Service::Broker { .. }),
        };
        if !fits {
            return Err(ConfigError::CredentialNotForService);
        }
        if self.https_registration && matches!(self.service, Service::Provisioned { .. }) {
            return Err(ConfigError::HttpsRegistration);
        }
        let keep_alive_max = match self.service {
            Service::Broker { .. } => broker::KEEP_ALIVE_MAX,
            Service::Hub { .. } | Service::Provisioned { .. } => {
                let checked = check_names(self, [self.gateway, self.module_id, self.model_id, self.product_info]);
                if let Err(error) = checked {
                    return Err(error);
                }
                iothub::KEEP_ALIVE_MAX
            }
        };
        match self.session.check(keep_alive_max) {
            Ok(()) => Ok(()),
            Err(error) => Err(ConfigError::Session(error)),
        }
    }
}

const fn pair(one: Result<(), names::NameError>, other: Result<(), names::NameError>) -> Result<(), ConfigError> {
    match first_error(one, other) {
        Ok(()) => Ok(()),
        Err(error) => Err(ConfigError::Name(error)),
    }
}

impl Settings for Checked {
    type Text = &'static str;

    const CHECKED: bool = true;

    fn config(&self) -> &Config<&'static str> {
        &self.0
    }
}

impl Settings for &Checked {
    type Text = &'static str;

    const CHECKED: bool = true;

    fn config(&self) -> &Config<&'static str> {
        &self.0
    }
}
