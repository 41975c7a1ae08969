//! The profile of an IoT hub that the Device Provisioning Service assigns.

use core::fmt;
use core::time::Duration;

use heapless::String;

use super::answer;
use crate::azure::names::{self, OPERATION_ID_MAX};
use crate::azure::sas;
use crate::config::{Config, ConfigError, Credential, Service, Settings, Subscriptions};
use crate::dps::topics as dps;
use crate::io::{Endpoint, ServiceKind};
use crate::iothub::access::{self, Access, Place};
use crate::iothub::topics as hub;
use crate::iothub::{HubProfile, Residence, check_device};
use crate::json;
use crate::link::{Answer, AnswerHead, Message, Places, Profile, PublishError, Reprovisioning, SessionConfig, Visit};
use crate::mqtt::{Compose, Login, QoS};
use crate::outbox::{Destination, Entry};
use crate::retry::RetryContext;
use crate::text::Text;

/// The profile of an IoT hub that the Device Provisioning Service assigns, now and whenever the device moves:
/// [`Service::Provisioned`].
#[derive(Clone)]
pub struct Provisioned<S> {
    access: Access<S>,
    visit: Visit,
    /// The operation id, empty before the service has accepted the registration.
    operation_id: String<OPERATION_ID_MAX, u8>,
}

impl<S: Settings> Provisioned<S> {
    /// Makes the profile. [`crate::Link::new`] checks the settings.
    pub fn new(settings: S) -> Self {
        Self { access: Access::new(settings), visit: Visit::new(), operation_id: String::new() }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config<S::Text> {
        self.access.config()
    }

    /// Returns the settings.
    pub const fn settings(&self) -> &S {
        &self.access.settings
    }

    /// Host name of the service, id scope and registration id.
    fn enrollment(&self) -> [&str; 3] {
        match &self.config().service {
            Service::Provisioned { host, id_scope, registration_id } => {
                [host.as_ref(), id_scope.as_ref(), registration_id.as_ref()]
            }
            Service::Hub { .. } | Service::Broker { .. } => [""; 3],
        }
    }

    /// The hub, empty before an assignment, and the device's id there.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn place(&self) -> Place<'_> {
        match self.visit.assignment() {
            Some(assignment) => Place { hub: assignment.hub(), device_id: assignment.device_id() },
            None => {
                let [_, _, registration_id] = self.enrollment();
                Place { hub: "", device_id: registration_id }
            }
        }
    }

    /// The resource of a token.
    fn resource(&self) -> sas::Resource<'_> {
        if self.visit.is_under_way() {
            let [_, id_scope, registration_id] = self.enrollment();
            sas::Resource::Registration { id_scope, registration_id }
        } else {
            self.access.resource(self.place())
        }
    }
}

impl<S> fmt::Debug for Provisioned<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisioned").field("visit", &self.visit).finish_non_exhaustive()
    }
}

impl<S: Settings> Login for Provisioned<S> {
    fn client_id(&self) -> Text<'_> {
        if self.visit.is_under_way() {
            let [_, _, registration_id] = self.enrollment();
            Text::from(registration_id)
        } else {
            hub::client_id(self.place().device_id, self.access.module_id())
        }
    }

    fn user_name(&self) -> Option<Text<'_>> {
        Some(if self.visit.is_under_way() {
            let [_, id_scope, registration_id] = self.enrollment();
            dps::user_name(id_scope, registration_id, self.access.product_info())
        } else {
            self.access.user_name(self.place())
        })
    }

    fn password(&self) -> Option<Text<'_>> {
        self.access.password(self.resource())
    }
}

/// The due request: the registration, or a poll once the service has accepted it.
impl<S: Settings> Compose for Provisioned<S> {
    fn topic(&self) -> Text<'_> {
        let request = self.visit.request();
        if self.operation_id.is_empty() {
            dps::register_topic(request)
        } else {
            dps::poll_topic(request, &self.operation_id)
        }
    }

    fn payload(&self) -> Text<'_> {
        if !self.operation_id.is_empty() {
            // Official clients send a blank with a poll.
            return Text::from(" ");
        }
        let [_, _, registration_id] = self.enrollment();
        let payload = self.config().provisioning_payload.as_ref().map(AsRef::as_ref);
        dps::register_body(registration_id, payload, self.access.model_id())
    }
}

impl<S> crate::link::Sealed for Provisioned<S> {}

impl<S: Settings> Profile for Provisioned<S> {
    type Error = ConfigError;

    const VISITS: bool = true;
    const HTTPS: bool = S::HTTPS;
    const SUBSCRIBES: bool = false;
    const FRAME: usize = access::FRAME;

    fn check(&self) -> Result<(), ConfigError> {
        let config = self.config();
        let Service::Provisioned { host, id_scope, registration_id } = &config.service else {
            return Err(ConfigError::ServiceNotForProfile);
        };
        if !S::HTTPS && config.https_registration {
            return Err(ConfigError::HttpsRegistration);
        }
        if S::CHECKED && config.provisioning_payload.is_none() {
            return Ok(());
        }
        names::check_hub_name(host.as_ref())?;
        names::check_id_scope(id_scope.as_ref())?;
        names::check_registration_id(registration_id.as_ref())?;
        match config.credential {
            Credential::SharedKey | Credential::Certificate => {}
            // A token is for one hub; an assignment may name any.
            Credential::Token(_) | Credential::Password { .. } | Credential::Anonymous => {
                return Err(ConfigError::CredentialNotForService);
            }
        }
        if let Some(payload) = &config.provisioning_payload {
            let payload = payload.as_ref();
            let limit = dps::REQUEST_MAX.min(config.session.max_outbound).saturating_sub(dps::REQUEST_FRAME);
            if payload.len() > limit {
                return Err(ConfigError::LongPayload { size: payload.len(), limit });
            }
            json::check_object(payload.as_bytes()).map_err(ConfigError::ProvisioningPayload)?;
        }
        check_device(config)
    }

    fn session(&self) -> &SessionConfig {
        &self.config().session
    }

    fn identity(&self) -> &str {
        let [_, _, registration_id] = self.enrollment();
        registration_id
    }

    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        self.access.settings.retry_delay(context, word)
    }

    fn endpoint(&self) -> Endpoint<'_> {
        let endpoint = self.access.endpoint(self.place().hub);
        if self.visit.is_under_way() {
            let [host, ..] = self.enrollment();
            let https = S::HTTPS && self.config().https_registration;
            let port = if https { super::https::PORT } else { endpoint.port };
            Endpoint { host, port, role: ServiceKind::Provisioning, https, ..endpoint }
        } else {
            endpoint
        }
    }

    fn token_lifetime(&self) -> Option<Duration> {
        self.access.token_lifetime()
    }

    fn begin_token(&mut self, expiry_unix_secs: u64) {
        self.access.begin_token(expiry_unix_secs);
    }

    fn string_to_sign(&self) -> Text<'_> {
        self.access.string_to_sign(self.resource())
    }

    fn take_signature(&mut self, signature: &[u8; 32]) {
        self.access.take_signature(signature);
    }

    fn take_token(&mut self, token: &str, now_unix_secs: u64) -> Option<u64> {
        self.access.take_token(token, now_unix_secs)
    }

    fn wanted(&self) -> Places {
        if self.visit.is_under_way() { 1 } else { self.access.wanted() }
    }

    fn filter(&self, place: u8) -> (Text<'_>, QoS) {
        if self.visit.is_under_way() {
            (Text::from(dps::RESPONSE_FILTER), QoS::AtLeastOnce)
        } else {
            self.access.filter(self.place().device_id, place)
        }
    }

    fn check_message(&self, message: &Message<'_>, stamped: bool) -> Result<(), PublishError> {
        access::check_message(message, stamped)
    }

    fn stamps(&self, destination: Destination<'_>) -> bool {
        self.access.stamps(destination)
    }

    fn prepare(&mut self, created_unix_ms: Option<u64>) {
        self.access.prepare(created_unix_ms);
    }

    fn topic<'a>(&'a self, entry: &Entry<'a>) -> Text<'a> {
        self.access.topic(self.place().device_id, entry)
    }

    fn visit(&self) -> Option<&Visit> {
        Some(&self.visit)
    }

    fn visit_mut(&mut self) -> Option<&mut Visit> {
        Some(&mut self.visit)
    }

    fn reprovisioning(&self) -> &Reprovisioning {
        &self.config().reprovisioning
    }

    fn begin_registration(&mut self) {
        self.operation_id.clear();
    }

    fn operation_id(&self) -> &str {
        &self.operation_id
    }

    fn request(&self) -> Option<&dyn Compose> {
        Some(self)
    }

    fn answer_head(&self, topic: &str) -> Option<AnswerHead> {
        let response = dps::Response::parse(topic).ok()?;
        let dps::Response { status, request_id, retry_after_secs } = response;
        Some(AnswerHead { status, request: request_id, retry_after_secs })
    }

    fn take_answer<'b>(&mut self, head: &AnswerHead, body: &'b [u8]) -> Option<Answer<'b>> {
        let config = self.access.config();
        let Service::Provisioned { host, .. } = &config.service else { return None };
        let suffix = config.hub_suffix.as_ref().map(AsRef::as_ref);
        Some(answer::judge(head, body, host.as_ref(), suffix, &mut self.operation_id, &mut self.visit))
    }
}

impl<S: Settings> HubProfile for Provisioned<S> {
    fn residence(&self) -> Residence<'_> {
        match self.visit.assignment() {
            Some(assignment) => Residence::Hub { hub: assignment.hub(), device_id: assignment.device_id() },
            None => Residence::Unassigned,
        }
    }

    fn device_id(&self) -> &str {
        self.place().device_id
    }

    fn module_id(&self) -> Option<&str> {
        self.access.module_id()
    }

    fn subscriptions(&self) -> Subscriptions {
        self.access.settings.subscriptions()
    }

    fn subscribe(&mut self, more: Subscriptions) -> bool {
        self.access.settings.subscribe(more)
    }
}
