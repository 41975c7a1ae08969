//! A profile that is chosen when the program runs.

use core::time::Duration;

use crate::broker::Broker;
use crate::config::{Config, ConfigError, Service, Settings, Subscriptions};
use crate::dps::Provisioned;
use crate::io::Endpoint;
use crate::iothub::{HubProfile, IotHub, Residence};
use crate::link::{
    Answer, AnswerHead, Filters, Message, Places, Profile, PublishError, Reprovisioning, SessionConfig, Visit,
};
use crate::mqtt::{Compose, Login, QoS};
use crate::outbox::{Destination, Entry};
use crate::retry::RetryContext;
use crate::text::Text;

/// The profile that [`Config::service`] names, for programs that choose when they run: one engine for all of them.
///
/// Firmware whose service is known at build time should use that profile, and links no other.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is one for each service")]
#[expect(clippy::large_enum_variant, reason = "a program has one, and there is no allocator")]
pub enum AnyProfile<S, B = [u8; 256]> {
    /// An IoT hub at a fixed host.
    IotHub(IotHub<S>),
    /// An IoT hub that the Device Provisioning Service assigns.
    Provisioned(Provisioned<S>),
    /// A plain broker.
    Broker(Broker<S, B>),
}

/// Forwards to the chosen profile.
macro_rules! which {
    ($any:expr, $profile:ident => $call:expr) => {
        match $any {
            AnyProfile::IotHub($profile) => $call,
            AnyProfile::Provisioned($profile) => $call,
            AnyProfile::Broker($profile) => $call,
        }
    };
}

impl<S: Settings, B> AnyProfile<S, B> {
    /// Makes the profile, with memory for a broker's filters.
    pub fn new(settings: S, memory: B) -> Self {
        match settings.config().service {
            Service::Hub { .. } => Self::IotHub(IotHub::new(settings)),
            Service::Provisioned { .. } => Self::Provisioned(Provisioned::new(settings)),
            Service::Broker { .. } => Self::Broker(Broker::new(settings, memory)),
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config<S::Text> {
        which!(self, profile => profile.config())
    }

    /// Returns the settings.
    pub const fn settings(&self) -> &S {
        which!(self, profile => profile.settings())
    }
}

impl<T: AsRef<str>> Config<T> {
    /// Checks everything that is known before the first packet, but for what the frontend can do ([`Settings::HTTPS`]),
    /// which [`crate::Link::new`] checks.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        AnyProfile::new(OnAnyFrontend(self), [0; 0]).check()
    }
}

/// A configuration on a frontend that can do everything.
struct OnAnyFrontend<'c, T>(&'c Config<T>);

impl<T: AsRef<str>> Settings for OnAnyFrontend<'_, T> {
    type Text = T;

    const HTTPS: bool = true;

    fn config(&self) -> &Config<T> {
        self.0
    }
}

impl<S: Settings, B> Login for AnyProfile<S, B> {
    fn client_id(&self) -> Text<'_> {
        which!(self, profile => profile.client_id())
    }

    fn user_name(&self) -> Option<Text<'_>> {
        which!(self, profile => profile.user_name())
    }

    fn password(&self) -> Option<Text<'_>> {
        which!(self, profile => profile.password())
    }
}

impl<S, B> crate::link::Sealed for AnyProfile<S, B> {}

impl<S: Settings, B: AsRef<[u8]> + AsMut<[u8]>> Profile for AnyProfile<S, B> {
    type Error = ConfigError;

    const VISITS: bool = true;
    const HTTPS: bool = S::HTTPS;
    const SUBSCRIBES: bool = true;
    const FRAME: usize = IotHub::<S>::FRAME;

    fn check(&self) -> Result<(), ConfigError> {
        which!(self, profile => profile.check())
    }

    fn session(&self) -> &SessionConfig {
        which!(self, profile => profile.session())
    }

    fn identity(&self) -> &str {
        which!(self, profile => profile.identity())
    }

    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        which!(self, profile => profile.retry_delay(context, word))
    }

    fn endpoint(&self) -> Endpoint<'_> {
        which!(self, profile => profile.endpoint())
    }

    fn token_lifetime(&self) -> Option<Duration> {
        which!(self, profile => profile.token_lifetime())
    }

    fn begin_token(&mut self, expiry_unix_secs: u64) {
        which!(self, profile => profile.begin_token(expiry_unix_secs));
    }

    fn string_to_sign(&self) -> Text<'_> {
        which!(self, profile => profile.string_to_sign())
    }

    fn take_signature(&mut self, signature: &[u8; 32]) {
        which!(self, profile => profile.take_signature(signature));
    }

    fn take_token(&mut self, token: &str, now_unix_secs: u64) -> Option<u64> {
        which!(self, profile => profile.take_token(token, now_unix_secs))
    }

    fn wanted(&self) -> Places {
        which!(self, profile => profile.wanted())
    }

    fn filter(&self, place: u8) -> (Text<'_>, QoS) {
        which!(self, profile => profile.filter(place))
    }

    fn filters(&mut self) -> Option<&mut dyn Filters> {
        which!(self, profile => profile.filters())
    }

    fn check_message(&self, message: &Message<'_>, stamped: bool) -> Result<(), PublishError> {
        which!(self, profile => profile.check_message(message, stamped))
    }

    fn stamps(&self, destination: Destination<'_>) -> bool {
        which!(self, profile => profile.stamps(destination))
    }

    fn prepare(&mut self, created_unix_ms: Option<u64>) {
        which!(self, profile => profile.prepare(created_unix_ms));
    }

    fn topic<'a>(&'a self, entry: &Entry<'a>) -> Text<'a> {
        match self {
            Self::IotHub(profile) => profile.topic(entry),
            Self::Provisioned(profile) => Profile::topic(profile, entry),
            Self::Broker(profile) => profile.topic(entry),
        }
    }

    fn visit(&self) -> Option<&Visit> {
        which!(self, profile => profile.visit())
    }

    fn visit_mut(&mut self) -> Option<&mut Visit> {
        which!(self, profile => profile.visit_mut())
    }

    fn reprovisioning(&self) -> &Reprovisioning {
        which!(self, profile => profile.reprovisioning())
    }

    fn begin_registration(&mut self) {
        which!(self, profile => profile.begin_registration());
    }

    fn operation_id(&self) -> &str {
        which!(self, profile => profile.operation_id())
    }

    fn request(&self) -> Option<&dyn Compose> {
        which!(self, profile => profile.request())
    }

    fn answer_head(&self, topic: &str) -> Option<AnswerHead> {
        which!(self, profile => profile.answer_head(topic))
    }

    fn take_answer<'b>(&mut self, head: &AnswerHead, body: &'b [u8]) -> Option<Answer<'b>> {
        which!(self, profile => profile.take_answer(head, body))
    }
}

impl<S: Settings, B: AsRef<[u8]> + AsMut<[u8]>> HubProfile for AnyProfile<S, B> {
    fn residence(&self) -> Residence<'_> {
        match self {
            Self::IotHub(profile) => profile.residence(),
            Self::Provisioned(profile) => profile.residence(),
            Self::Broker(_) => Residence::NoHub,
        }
    }

    fn device_id(&self) -> &str {
        match self {
            Self::IotHub(profile) => profile.device_id(),
            Self::Provisioned(profile) => profile.device_id(),
            Self::Broker(profile) => profile.identity(),
        }
    }

    fn module_id(&self) -> Option<&str> {
        match self {
            Self::IotHub(profile) => profile.module_id(),
            Self::Provisioned(profile) => profile.module_id(),
            Self::Broker(_) => None,
        }
    }

    fn subscriptions(&self) -> Subscriptions {
        match self {
            Self::IotHub(profile) => profile.subscriptions(),
            Self::Provisioned(profile) => profile.subscriptions(),
            Self::Broker(_) => Subscriptions::NONE,
        }
    }

    fn subscribe(&mut self, more: Subscriptions) -> bool {
        match self {
            Self::IotHub(profile) => HubProfile::subscribe(profile, more),
            Self::Provisioned(profile) => HubProfile::subscribe(profile, more),
            Self::Broker(_) => false,
        }
    }
}
