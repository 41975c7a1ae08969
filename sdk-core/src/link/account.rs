//! Who the device is at the service the link turns to.

use core::fmt;

use zeroize::Zeroizing;

use super::home::Home;
use super::provision::Registration;
use crate::azure::{dps, hub, sas, services};
use crate::config::{Config, Credential, Service, Settings};
use crate::io::{Endpoint, Role};
use crate::mqtt::{Compose, Login, QoS};
use crate::outbox::{Address, Entry};
use crate::text::Text;
use crate::time::Instant;

/// Product information unless the configuration names another.
const PRODUCT: &str = concat!("steadfast/", env!("CARGO_PKG_VERSION"));

/// Configuration, assignment and token: all that a CONNECT and a topic are made of.
#[derive(Clone)]
pub(super) struct Account<S, H> {
    pub(super) settings: S,
    pub(super) role: Role,
    pub(super) home: H,
    pub(super) signature: Zeroizing<[u8; 32]>,
    pub(super) expiry_unix_secs: u64,
    /// From when the signature was asked for.
    pub(super) lifetime_secs: u64,
    /// The token was made elsewhere, and is kept by the settings.
    pub(super) finished_token: bool,
    /// When the signature was asked for.
    pub(super) signed: Instant,
    /// When the message that is sent was accepted, where that is stamped.
    pub(super) created: [u8; 24],
    /// The registration with the Device Provisioning Service.
    pub(super) registration: Registration,
}

impl<S, H: fmt::Debug> fmt::Debug for Account<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("role", &self.role).field("home", &self.home).finish_non_exhaustive()
    }
}

impl<S: Settings, H: Home> Account<S, H> {
    pub(super) fn new(settings: S) -> Self {
        Self {
            settings,
            role: Role::Hub,
            home: H::default(),
            signature: Zeroizing::new([0; 32]),
            expiry_unix_secs: 0,
            lifetime_secs: 0,
            finished_token: false,
            signed: Instant::ORIGIN,
            created: *b"1970-01-01T00:00:00.000Z",
            registration: Registration::new(),
        }
    }

    pub(super) fn config(&self) -> &Config<S::Text> {
        self.settings.config()
    }

    /// The service of this attempt. Where it is known at compile time that no device is provisioned, so is this, and
    /// the dialogue with the Device Provisioning Service is not linked.
    pub(super) fn role(&self) -> Role {
        if self.is_provisioned() { self.role } else { Role::Hub }
    }

    pub(super) fn is_provisioned(&self) -> bool {
        H::ROOM && matches!(self.config().service, Service::Provisioned { .. })
    }

    /// Whether the link asks for signatures.
    pub(super) fn has_shared_key(&self) -> bool {
        matches!(self.config().credential, Credential::SharedKey)
    }

    pub(super) fn is_broker(&self) -> bool {
        matches!(self.config().service, Service::Broker { .. })
    }

    /// The hub's or broker's host name, empty before an assignment.
    pub(super) fn hub(&self) -> &str {
        match (&self.config().service, self.home.assignment()) {
            (Service::Hub { host, .. } | Service::Broker { host, .. }, _) => host.as_ref(),
            (Service::Provisioned { .. }, Some(assignment)) => assignment.hub(),
            (Service::Provisioned { .. }, None) => "",
        }
    }

    /// The device's id at the hub, or the client id at a broker.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(super) fn device_id(&self) -> &str {
        match (&self.config().service, self.home.assignment()) {
            (Service::Hub { device_id, .. }, _) => device_id.as_ref(),
            (Service::Broker { client_id, .. }, _) => client_id.as_ref(),
            (Service::Provisioned { .. }, Some(assignment)) => assignment.device_id(),
            (Service::Provisioned { registration_id, .. }, None) => registration_id.as_ref(),
        }
    }

    pub(super) fn module_id(&self) -> Option<&str> {
        self.config().module_id.as_ref().map(AsRef::as_ref)
    }

    pub(super) fn endpoint(&self) -> Endpoint<'_> {
        let config = self.config();
        let host = match (self.role(), &config.service, &config.gateway) {
            (Role::Provisioning, Service::Provisioned { host, .. }, _) => host.as_ref(),
            (Role::Hub, _, Some(gateway)) => gateway.as_ref(),
            (Role::Hub | Role::Provisioning, _, _) => self.hub(),
        };
        let client_certificate = matches!(config.credential, Credential::Certificate);
        Endpoint { host, port: config.port, role: self.role(), client_certificate }
    }

    /// What a token is for.
    fn resource(&self) -> sas::Resource<'_> {
        match (self.role(), &self.config().service) {
            (Role::Provisioning, Service::Provisioned { id_scope, registration_id, .. }) => {
                sas::Resource::Registration { id_scope: id_scope.as_ref(), registration_id: registration_id.as_ref() }
            }
            (Role::Hub | Role::Provisioning, _) => {
                sas::Resource::Device { hub: self.hub(), device_id: self.device_id(), module_id: self.module_id() }
            }
        }
    }

    pub(super) fn string_to_sign(&self) -> Text<'_> {
        self.resource().string_to_sign(self.expiry_unix_secs)
    }

    /// The topic of a message, with the time of acceptance where it is stamped.
    pub(super) fn message_topic<'a>(&'a self, entry: &Entry<'a>) -> Text<'a> {
        match entry.address {
            Address::Telemetry(bag) => {
                let id = (!hub::has_message_id(bag)).then_some(entry.id.get());
                let created = core::str::from_utf8(&self.created).ok().filter(|_| self.stamps(entry));
                hub::telemetry_topic(self.device_id(), self.module_id(), bag, id, created)
            }
            Address::Topic(topic) => Text::from(topic),
        }
    }

    pub(super) fn stamps(&self, entry: &Entry<'_>) -> bool {
        self.config().stamp_creation_time && entry.created_unix_ms.is_some()
    }

    /// The filter of a subscription, by its place among [`crate::Subscriptions`].
    pub(super) fn filter(&self, place: u8) -> Text<'_> {
        match (self.role(), place) {
            (Role::Provisioning, _) => Text::from(dps::RESPONSE_FILTER),
            (Role::Hub, 0) => hub::c2d_filter(self.device_id()),
            (Role::Hub, 1) => Text::from(hub::METHODS_FILTER),
            (Role::Hub, 2) => Text::from(hub::TWIN_RESPONSE_FILTER),
            (Role::Hub, 3) => Text::from(hub::DESIRED_FILTER),
            (Role::Hub, _) => services::inputs_filter(self.device_id(), self.module_id().unwrap_or_default()),
        }
    }

    /// The level of delivery of a subscription. What a twin or a method brings is of use to its connection only, and
    /// would take the places of messages that wait for the application.
    pub(super) fn qos(&self, place: u8) -> QoS {
        if self.role() == Role::Hub && matches!(place, 1..=3) { QoS::AtMostOnce } else { QoS::AtLeastOnce }
    }

    fn product_info(&self) -> &str {
        self.config().product_info.as_ref().map_or(PRODUCT, AsRef::as_ref)
    }
}

impl<S: Settings, H: Home> Login for Account<S, H> {
    fn client_id(&self) -> Text<'_> {
        match (self.role(), &self.config().service) {
            (Role::Provisioning, Service::Provisioned { registration_id, .. }) => Text::from(registration_id.as_ref()),
            (Role::Hub, Service::Broker { client_id, .. }) => Text::from(client_id.as_ref()),
            (Role::Hub | Role::Provisioning, _) => hub::client_id(self.device_id(), self.module_id()),
        }
    }

    fn user_name(&self) -> Option<Text<'_>> {
        let config = self.config();
        match (self.role(), &config.service, &config.credential) {
            (_, Service::Broker { .. }, Credential::Password { user_name, .. }) => Some(Text::from(user_name.as_ref())),
            (_, Service::Broker { .. }, _) => None,
            (Role::Provisioning, Service::Provisioned { id_scope, registration_id, .. }, _) => {
                Some(dps::user_name(id_scope.as_ref(), registration_id.as_ref(), self.product_info()))
            }
            (Role::Hub | Role::Provisioning, _, _) => {
                let model_id = config.model_id.as_ref().map(AsRef::as_ref);
                let user_name = hub::UserName {
                    hub: self.hub(),
                    device_id: self.device_id(),
                    module_id: self.module_id(),
                    product_info: self.product_info(),
                    model_id,
                };
                Some(user_name.text())
            }
        }
    }

    fn password(&self) -> Option<Text<'_>> {
        match &self.config().credential {
            Credential::SharedKey if self.finished_token => self.settings.token().map(Text::from),
            Credential::SharedKey => Some(self.resource().token(&self.signature, self.expiry_unix_secs)),
            Credential::Token(token) => Some(Text::from(token.as_ref())),
            Credential::Password { password, .. } => Some(Text::from(password.as_ref())),
            Credential::Certificate | Credential::Anonymous => None,
        }
    }
}

/// The provisioning request: the registration, or a poll once the service has taken it.
impl<S: Settings, H: Home> Compose for Account<S, H> {
    fn topic(&self) -> Text<'_> {
        let request = self.registration.request;
        let operation_id = self.home.operation_id();
        if operation_id.is_empty() { dps::register_topic(request) } else { dps::poll_topic(request, operation_id) }
    }

    fn payload(&self) -> Text<'_> {
        let config = self.config();
        match &config.service {
            Service::Provisioned { registration_id, .. } if self.home.operation_id().is_empty() => {
                let payload = config.provisioning_payload.as_ref().map(AsRef::as_ref);
                let model_id = config.model_id.as_ref().map(AsRef::as_ref);
                dps::register_body(registration_id.as_ref(), payload, model_id)
            }
            // A blank is what official clients send with a poll.
            Service::Provisioned { .. } | Service::Hub { .. } | Service::Broker { .. } => Text::from(" "),
        }
    }
}
