//! The profile of an IoT hub at a fixed host.

use core::fmt;
use core::time::Duration;

use super::access::{self, Access, Place};
use crate::azure::names::{self, NameError};
use crate::config::{Config, ConfigError, Credential, Service, Settings, Subscriptions};
use crate::io::Endpoint;
use crate::link::{Message, Places, Profile, PublishError, SessionConfig};
use crate::mqtt::{Login, QoS};
use crate::outbox::{Destination, Entry};
use crate::retry::RetryContext;
use crate::text::Text;

/// The profile of an IoT hub at a fixed host: [`Service::Hub`].
///
/// Firmware that uses it links neither the Device Provisioning Service nor a broker's subscriptions.
#[derive(Clone)]
pub struct IotHub<S>(Access<S>);

/// A device's hub and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Residence<'a> {
    /// At this hub, under this id.
    Hub {
        /// The hub's host name.
        hub: &'a str,
        /// The device's id there.
        device_id: &'a str,
    },
    /// Nowhere yet: the Device Provisioning Service has not assigned it.
    Unassigned,
    /// At no hub: its service is a broker.
    NoHub,
}

/// A profile that can be one of an IoT hub, so that the services of a hub can run over it: [`crate::HubLink`].
pub trait HubProfile: Profile {
    /// Returns the device's hub and id.
    fn residence(&self) -> Residence<'_>;

    /// Returns the device's id at the hub.
    fn device_id(&self) -> &str;

    /// Returns the module's id, for a module.
    fn module_id(&self) -> Option<&str>;

    /// Returns the configured subscriptions; none for a broker.
    fn subscriptions(&self) -> Subscriptions;

    /// Adds to the subscriptions, and returns whether the settings could: [`Settings::subscribe`].
    fn subscribe(&mut self, more: Subscriptions) -> bool;
}

impl<S: Settings> IotHub<S> {
    /// Makes the profile. [`crate::Link::new`] checks the settings.
    pub fn new(settings: S) -> Self {
        Self(Access::new(settings))
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config<S::Text> {
        self.0.config()
    }

    /// Returns the settings.
    pub const fn settings(&self) -> &S {
        &self.0.settings
    }

    fn place(&self) -> Place<'_> {
        match &self.config().service {
            Service::Hub { host, device_id } => Place { hub: host.as_ref(), device_id: device_id.as_ref() },
            Service::Provisioned { .. } | Service::Broker { .. } => Place { hub: "", device_id: "" },
        }
    }
}

impl<S> fmt::Debug for IotHub<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IotHub").finish_non_exhaustive()
    }
}

impl<S: Settings> Login for IotHub<S> {
    fn client_id(&self) -> Text<'_> {
        crate::iothub::topics::client_id(self.place().device_id, self.0.module_id())
    }

    fn user_name(&self) -> Option<Text<'_>> {
        Some(self.0.user_name(self.place()))
    }

    fn password(&self) -> Option<Text<'_>> {
        self.0.password(self.0.resource(self.place()))
    }
}

impl<S> crate::link::Sealed for IotHub<S> {}

impl<S: Settings> Profile for IotHub<S> {
    type Error = ConfigError;

    const VISITS: bool = false;
    const HTTPS: bool = false;
    const SUBSCRIBES: bool = false;
    const FRAME: usize = access::FRAME;

    fn check(&self) -> Result<(), ConfigError> {
        let config = self.config();
        let Service::Hub { host, device_id } = &config.service else { return Err(ConfigError::ServiceNotForProfile) };
        if S::CHECKED {
            return Ok(());
        }
        names::check_hub_name(host.as_ref())?;
        names::check_device_id(device_id.as_ref())?;
        match config.credential {
            Credential::SharedKey | Credential::Certificate | Credential::Token(_) => {}
            Credential::Password { .. } | Credential::Anonymous => return Err(ConfigError::CredentialNotForService),
        }
        check_device(config)
    }

    fn session(&self) -> &SessionConfig {
        &self.config().session
    }

    fn identity(&self) -> &str {
        self.place().device_id
    }

    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        self.0.settings.retry_delay(context, word)
    }

    fn endpoint(&self) -> Endpoint<'_> {
        self.0.endpoint(self.place().hub)
    }

    fn token_lifetime(&self) -> Option<Duration> {
        self.0.token_lifetime()
    }

    fn begin_token(&mut self, expiry_unix_secs: u64) {
        self.0.begin_token(expiry_unix_secs);
    }

    fn string_to_sign(&self) -> Text<'_> {
        self.0.string_to_sign(self.0.resource(self.place()))
    }

    fn take_signature(&mut self, signature: &[u8; 32]) {
        self.0.take_signature(signature);
    }

    fn take_token(&mut self, token: &str, now_unix_secs: u64) -> Option<u64> {
        self.0.take_token(token, now_unix_secs)
    }

    fn wanted(&self) -> Places {
        self.0.wanted()
    }

    fn filter(&self, place: u8) -> (Text<'_>, QoS) {
        self.0.filter(self.place().device_id, place)
    }

    fn check_message(&self, message: &Message<'_>, stamped: bool) -> Result<(), PublishError> {
        access::check_message(message, stamped)
    }

    fn stamps(&self, destination: Destination<'_>) -> bool {
        self.0.stamps(destination)
    }

    fn prepare(&mut self, created_unix_ms: Option<u64>) {
        self.0.prepare(created_unix_ms);
    }

    fn topic<'a>(&'a self, entry: &Entry<'a>) -> Text<'a> {
        self.0.topic(self.place().device_id, entry)
    }
}

impl<S: Settings> HubProfile for IotHub<S> {
    fn residence(&self) -> Residence<'_> {
        let Place { hub, device_id } = self.place();
        Residence::Hub { hub, device_id }
    }

    fn device_id(&self) -> &str {
        self.place().device_id
    }

    fn module_id(&self) -> Option<&str> {
        self.0.module_id()
    }

    fn subscriptions(&self) -> Subscriptions {
        self.0.settings.subscriptions()
    }

    fn subscribe(&mut self, more: Subscriptions) -> bool {
        self.0.settings.subscribe(more)
    }
}

/// Checks the settings that do not depend on how the hub is found.
pub(crate) fn check_device<T: AsRef<str>>(config: &Config<T>) -> Result<(), ConfigError> {
    let texts = [&config.gateway, &config.module_id, &config.model_id, &config.product_info];
    check_names(config, texts.map(|text| text.as_ref().map(AsRef::as_ref)))?;
    config.session.check(access::KEEP_ALIVE_MAX)?;
    Ok(())
}

/// Checks the settings of every hub identity except the session: `texts` are gateway, module id, model id and product
/// information.
pub(crate) const fn check_names<T>(config: &Config<T>, texts: [Option<&str>; 4]) -> Result<(), ConfigError> {
    let [gateway, module_id, model_id, product_info] = texts;
    let mut checked = Ok(());
    if let Some(gateway) = gateway {
        checked = names::check_gateway_name(gateway);
    }
    let foreign = if module_id.is_some() { Subscriptions::CLOUD_TO_DEVICE } else { Subscriptions::INPUTS };
    if let Some(module_id) = module_id {
        checked = first_error(checked, names::check_module_id(module_id));
    }
    if let Some(model_id) = model_id {
        checked = first_error(checked, names::check_model_id(model_id));
    }
    if let Some(product_info) = product_info {
        checked = first_error(checked, names::check_product(product_info));
    }
    if let Err(error) = checked {
        return Err(ConfigError::Name(error));
    }
    if config.subscriptions.contains(foreign) {
        return Err(ConfigError::SubscriptionNotForIdentity);
    }
    match crate::link::within(crate::link::Setting::TokenLifetime, config.token_lifetime, 300_000, 86_400_000) {
        Ok(()) => Ok(()),
        Err(error) => Err(ConfigError::Session(error)),
    }
}

/// The first error of the two.
pub(crate) const fn first_error(one: Result<(), NameError>, other: Result<(), NameError>) -> Result<(), NameError> {
    match one {
        Ok(()) => other,
        Err(error) => Err(error),
    }
}
