//! Access to a hub: names, token and topics of a device.

use zeroize::Zeroizing;

use super::{property_bag, service_topics, topics};
use crate::azure::{sas, timestamp};
use crate::config::{Config, Credential, Settings, Subscriptions};
use crate::io::{Endpoint, ServiceKind};
use crate::link::{Message, PublishError};
use crate::mqtt::{MAX_FIELD_LEN, QoS};
use crate::outbox::{Destination, Entry};
use crate::text::Text;

/// The longest the frame around a message can be: a module's topic with both ids at their limit, a message id and a
/// creation time.
pub(crate) const FRAME: usize = 384;

/// Longest useful keep-alive interval: the hub waits 1.5 times as long, and never longer than 29.45 min.
pub(crate) const KEEP_ALIVE_MAX: core::time::Duration =
    core::time::Duration::from_secs(topics::KEEP_ALIVE_MAX_SECS as u64);

/// Product information unless the configuration names another.
const PRODUCT: &str = concat!("steadfast/", env!("CARGO_PKG_VERSION"));

/// A hub, and the device's id there.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) hub: &'a str,
    pub(crate) device_id: &'a str,
}

/// Settings and token: the parts of CONNECT and topics besides the [`Place`].
#[derive(Clone)]
pub(crate) struct Access<S> {
    pub(crate) settings: S,
    signature: Zeroizing<[u8; 32]>,
    expiry_unix_secs: u64,
    /// The token is ready-made, and stored by the settings.
    finished_token: bool,
    /// Time of acceptance of the current message, if it is stamped.
    created: [u8; 24],
}

impl<S: Settings> Access<S> {
    pub(crate) fn new(settings: S) -> Self {
        Self {
            settings,
            signature: Zeroizing::new([0; 32]),
            expiry_unix_secs: 0,
            finished_token: false,
            created: *b"1970-01-01T00:00:00.000Z",
        }
    }

    pub(crate) fn config(&self) -> &Config<S::Text> {
        self.settings.config()
    }

    pub(crate) fn module_id(&self) -> Option<&str> {
        self.config().module_id.as_ref().map(AsRef::as_ref)
    }

    pub(crate) fn product_info(&self) -> &str {
        self.config().product_info.as_ref().map_or(PRODUCT, AsRef::as_ref)
    }

    pub(crate) fn model_id(&self) -> Option<&str> {
        self.config().model_id.as_ref().map(AsRef::as_ref)
    }

    pub(crate) fn endpoint<'a>(&'a self, hub: &'a str) -> Endpoint<'a> {
        let config = self.config();
        let host = config.gateway.as_ref().map_or(hub, AsRef::as_ref);
        let client_certificate = matches!(config.credential, Credential::Certificate);
        Endpoint { host, port: config.port, role: ServiceKind::Hub, client_certificate, https: false }
    }

    pub(crate) fn user_name<'a>(&'a self, place: Place<'a>) -> Text<'a> {
        let user_name = topics::UserName {
            hub: place.hub,
            device_id: place.device_id,
            module_id: self.module_id(),
            product_info: self.product_info(),
            model_id: self.model_id(),
        };
        user_name.text()
    }

    /// The resource of a token for a hub.
    pub(crate) fn resource<'a>(&'a self, place: Place<'a>) -> sas::Resource<'a> {
        sas::Resource::Device { hub: place.hub, device_id: place.device_id, module_id: self.module_id() }
    }

    pub(crate) fn token_lifetime(&self) -> Option<core::time::Duration> {
        let config = self.config();
        matches!(config.credential, Credential::SharedKey).then_some(config.token_lifetime)
    }

    pub(crate) const fn begin_token(&mut self, expiry_unix_secs: u64) {
        self.expiry_unix_secs = expiry_unix_secs;
        self.finished_token = false;
    }

    pub(crate) fn string_to_sign<'a>(&'a self, resource: sas::Resource<'a>) -> Text<'a> {
        resource.string_to_sign(self.expiry_unix_secs)
    }

    pub(crate) fn take_signature(&mut self, signature: &[u8; 32]) {
        *self.signature = *signature;
    }

    pub(crate) fn take_token(&mut self, token: &str, now_unix_secs: u64) -> Option<u64> {
        let expiry = sas::token_expiry(token).filter(|expiry| *expiry > now_unix_secs)?;
        self.finished_token = self.settings.keep_token(token);
        self.finished_token.then_some(expiry)
    }

    pub(crate) fn password<'a>(&'a self, resource: sas::Resource<'a>) -> Option<Text<'a>> {
        match &self.config().credential {
            Credential::SharedKey if self.finished_token => self.settings.token().map(Text::from),
            Credential::SharedKey => Some(resource.token(&self.signature, self.expiry_unix_secs)),
            Credential::Token(token) => Some(Text::from(token.as_ref())),
            Credential::Password { .. } | Credential::Certificate | Credential::Anonymous => None,
        }
    }

    pub(crate) fn wanted(&self) -> u16 {
        u16::from(self.settings.subscriptions().bits())
    }

    /// The filter of a subscription, by its index among [`Subscriptions`].
    ///
    /// Twin responses and method calls are valid only on their connection, and would take the room of messages for the
    /// application.
    pub(crate) fn filter<'a>(&'a self, device_id: &'a str, place: u8) -> (Text<'a>, QoS) {
        match place {
            0 => (topics::c2d_filter(device_id), QoS::AtLeastOnce),
            1 => (Text::from(topics::METHODS_FILTER), QoS::AtMostOnce),
            2 => (Text::from(topics::TWIN_RESPONSE_FILTER), QoS::AtMostOnce),
            3 => (Text::from(topics::DESIRED_FILTER), QoS::AtMostOnce),
            _ => (service_topics::inputs_filter(device_id, self.module_id().unwrap_or_default()), QoS::AtLeastOnce),
        }
    }

    pub(crate) fn stamps(&self, destination: Destination<'_>) -> bool {
        match destination {
            Destination::Telemetry(bag) => self.config().stamp_creation_time && !topics::has_creation_time(bag),
            Destination::Topic(_) => false,
        }
    }

    pub(crate) fn prepare(&mut self, created_unix_ms: Option<u64>) {
        if let Some(unix_ms) = created_unix_ms.filter(|_| self.config().stamp_creation_time) {
            self.created = timestamp::utc(unix_ms);
        }
    }

    /// The topic of a message, with the time of acceptance if it is stamped.
    pub(crate) fn topic<'a>(&'a self, device_id: &'a str, entry: &Entry<'a>) -> Text<'a> {
        match entry.destination {
            Destination::Telemetry(bag) => {
                let id = (!topics::has_message_id(bag)).then_some(entry.id.get());
                let stamped = self.config().stamp_creation_time && entry.created_unix_ms.is_some();
                let created = core::str::from_utf8(&self.created).ok().filter(|_| stamped);
                topics::telemetry_topic(device_id, self.module_id(), bag, id, created)
            }
            Destination::Topic(topic) => Text::from(topic),
        }
    }
}

/// Checks a message as a hub does.
pub(crate) fn check_message(message: &Message<'_>, stamped: bool) -> Result<(), PublishError> {
    const BAG_MAX: usize = MAX_FIELD_LEN - FRAME;
    if !message.properties.is_empty() {
        return Err(PublishError::NoProperties);
    }
    if message.retain {
        return Err(PublishError::NotRetained);
    }
    let Destination::Telemetry(bag) = message.destination else { return Ok(()) };
    if bag.len() > BAG_MAX {
        return Err(PublishError::LongProperties { size: bag.len(), limit: BAG_MAX });
    }
    if let Some((at, byte)) = property_bag::unencoded(bag) {
        return Err(PublishError::BadProperties { at, byte });
    }
    let own_id = if topics::has_message_id(bag) { 0 } else { topics::MESSAGE_ID_SIZE };
    let stamp = if stamped { topics::CREATION_TIME_SIZE } else { 0 };
    let size = topics::telemetry_size(bag, message.payload).saturating_add(own_id).saturating_add(stamp);
    if size > topics::TELEMETRY_MAX {
        return Err(PublishError::TooLarge { size, limit: topics::TELEMETRY_MAX });
    }
    Ok(())
}

const _: () = assert!(Subscriptions::COUNT <= crate::link::FILTERS_MAX, "each subscription has an index");
