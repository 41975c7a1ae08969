//! The profile of a plain broker.

use core::fmt;
use core::time::Duration;

use super::filters::Table;
use crate::config::{Config, ConfigError, Credential, Service, Settings, Subscriptions};
use crate::io::{Endpoint, ServiceKind};
use crate::link::{Filters, Message, Places, Profile, PublishError, SessionConfig};
use crate::mqtt::{Login, QoS};
use crate::outbox::{Destination, Entry};
use crate::retry::RetryContext;
use crate::text::Text;

/// Longest keep-alive interval: a number of 16 bits (MQTT 3.1.1, section 3.1.2.10).
pub(crate) const KEEP_ALIVE_MAX: Duration = Duration::from_secs(0xffff);

/// The profile of a plain MQTT 3.1.1 broker: [`Service::Broker`].
///
/// Messages go to [`Destination::Topic`]s, and the application [subscribes](crate::Link::subscribe) to up to 16 filters. `B`
/// is memory of the frontend's choice for their texts, all together.
#[derive(Clone)]
pub struct Broker<S, B = [u8; 256]> {
    settings: S,
    filters: Table<B>,
}

impl<S: Settings, B> Broker<S, B> {
    /// Makes the profile with memory for the filters. [`crate::Link::new`] checks the settings.
    pub const fn new(settings: S, memory: B) -> Self {
        Self { settings, filters: Table::new(memory) }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config<S::Text> {
        self.settings.config()
    }

    /// Returns the settings.
    pub const fn settings(&self) -> &S {
        &self.settings
    }

    fn names(&self) -> [&str; 2] {
        match &self.config().service {
            Service::Broker { host, client_id } => [host.as_ref(), client_id.as_ref()],
            Service::Hub { .. } | Service::Provisioned { .. } => [""; 2],
        }
    }
}

impl<S, B> fmt::Debug for Broker<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl<S: Settings, B> Login for Broker<S, B> {
    fn client_id(&self) -> Text<'_> {
        let [_, client_id] = self.names();
        Text::from(client_id)
    }

    fn user_name(&self) -> Option<Text<'_>> {
        match &self.config().credential {
            Credential::Password { user_name, .. } => Some(Text::from(user_name.as_ref())),
            Credential::SharedKey | Credential::Certificate | Credential::Token(_) | Credential::Anonymous => None,
        }
    }

    fn password(&self) -> Option<Text<'_>> {
        match &self.config().credential {
            Credential::Password { password, .. } => Some(Text::from(password.as_ref())),
            Credential::SharedKey | Credential::Certificate | Credential::Token(_) | Credential::Anonymous => None,
        }
    }
}

impl<S, B> crate::link::Sealed for Broker<S, B> {}

impl<S: Settings, B: AsRef<[u8]> + AsMut<[u8]>> Profile for Broker<S, B> {
    type Error = ConfigError;

    const VISITS: bool = false;
    const HTTPS: bool = false;
    const SUBSCRIBES: bool = true;
    /// Fixed header, length of the topic and packet id, with some to spare.
    const FRAME: usize = 16;

    fn check(&self) -> Result<(), ConfigError> {
        let config = self.config();
        let Service::Broker { client_id, .. } = &config.service else { return Err(ConfigError::ServiceNotForProfile) };
        if S::CHECKED {
            return Ok(());
        }
        if client_id.as_ref().is_empty() && !config.session.clean_session {
            return Err(ConfigError::NoClientId);
        }
        match config.credential {
            Credential::Certificate | Credential::Password { .. } | Credential::Anonymous => {}
            Credential::SharedKey | Credential::Token(_) => return Err(ConfigError::CredentialNotForService),
        }
        if config.subscriptions != Subscriptions::NONE {
            return Err(ConfigError::SubscriptionsOfAHub);
        }
        config.session.check(KEEP_ALIVE_MAX)?;
        Ok(())
    }

    fn session(&self) -> &SessionConfig {
        &self.config().session
    }

    fn identity(&self) -> &str {
        let [_, client_id] = self.names();
        client_id
    }

    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        self.settings.retry_delay(context, word)
    }

    fn endpoint(&self) -> Endpoint<'_> {
        let config = self.config();
        let [host, _] = self.names();
        let host = config.gateway.as_ref().map_or(host, AsRef::as_ref);
        let client_certificate = matches!(config.credential, Credential::Certificate);
        Endpoint { host, port: config.port, role: ServiceKind::Hub, client_certificate, https: false }
    }

    fn wanted(&self) -> Places {
        self.filters.wanted()
    }

    fn filter(&self, place: u8) -> (Text<'_>, QoS) {
        let (filter, qos) = self.filters.get(place);
        (Text::from(filter), qos)
    }

    fn filters(&mut self) -> Option<&mut dyn Filters> {
        Some(&mut self.filters)
    }

    fn check_message(&self, message: &Message<'_>, _: bool) -> Result<(), PublishError> {
        if !message.properties.is_empty() {
            return Err(PublishError::NoProperties);
        }
        match message.destination {
            Destination::Telemetry(_) => Err(PublishError::NoTelemetryEndpoint),
            Destination::Topic(_) => Ok(()),
        }
    }

    fn topic<'a>(&'a self, entry: &Entry<'a>) -> Text<'a> {
        Text::from(entry.destination.text())
    }
}
