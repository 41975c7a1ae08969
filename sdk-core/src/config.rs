//! What a link is told once: who the device is, where it belongs, and how patient it is.

use core::fmt;
use core::time::Duration;

use crate::azure::dps::{self, AnswerError};
use crate::azure::names::{self, NameError};
use crate::retry::{Occasion, Policy, RetryPolicy};
use crate::time::millis;

/// Where a device belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Service<T> {
    /// One IoT hub, named once and for all: no re-provisioning.
    Hub {
        /// The hub's host name, such as `contoso.azure-devices.net`.
        host: T,
        /// The device's id in the hub.
        device_id: T,
    },
    /// The hub the Device Provisioning Service assigns, now and whenever the device moves; IoT Central likewise.
    Provisioned {
        /// The service's host name; [`crate::azure::dps::GLOBAL_HOST`] unless it is a private or sovereign one.
        host: T,
        /// The id scope, such as `0ne00ABCDEF`.
        id_scope: T,
        /// The registration id.
        registration_id: T,
    },
    /// A broker that speaks plain MQTT 3.1.1: messages go to [`crate::Address::Topic`]s.
    Broker {
        /// The broker's host name.
        host: T,
        /// The client id.
        client_id: T,
    },
}

/// How the device proves who it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential<T> {
    /// A symmetric key, held by the frontend, which signs when asked ([`crate::Action::Sign`]) or has somebody else make
    /// the whole token ([`crate::Input::Token`]).
    SharedKey,
    /// A client certificate, held by the frontend, which shows it in the TLS handshake.
    Certificate,
    /// A shared access signature made elsewhere, as a connection string can carry one. The link cannot renew it: once it
    /// has expired the hub refuses the device.
    Token(T),
    /// A user name and a password for a broker.
    Password {
        /// The user name.
        user_name: T,
        /// The password; never shown.
        password: T,
    },
    /// Nothing, for a broker that asks for nothing.
    Anonymous,
}

impl<T> fmt::Debug for Credential<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedKey => "SharedKey",
            Self::Certificate => "Certificate",
            Self::Token(_) => "Token(..)",
            Self::Password { .. } => "Password(..)",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// How long the link waits for each answer; `docs/timeouts.md` relates them to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the name to be resolved and a TCP connection to come about, all addresses together. Default 20 s.
    pub connect: Duration,
    /// For TLS to be completed after that. Default 10 s.
    pub tls: Duration,
    /// For the answer to CONNECT. Default 60 s, doubled after each silence up to `connack_longest`.
    pub connack: Duration,
    /// Longest wait for the answer to CONNECT. Default 240 s.
    pub connack_longest: Duration,
    /// For the acknowledgement of all subscriptions. Default 30 s.
    pub suback: Duration,
    /// For the acknowledgement of the oldest publish in flight, before the connection counts as lost. Default 120 s.
    pub puback: Duration,
    /// For the acknowledgement of what is in flight before a planned disconnect. Default 10 s.
    pub drain: Duration,
    /// For the key holder to sign. Default 30 s.
    pub sign: Duration,
    /// For an answer to a provisioning request. Default 30 s.
    pub provisioning_answer: Duration,
    /// For an assignment, from the first request on. Default 600 s.
    pub provisioning: Duration,
}

impl Timeouts {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(20),
        tls: Duration::from_secs(10),
        connack: Duration::from_secs(60),
        connack_longest: Duration::from_secs(240),
        suback: Duration::from_secs(30),
        puback: Duration::from_secs(120),
        drain: Duration::from_secs(10),
        sign: Duration::from_secs(30),
        provisioning_answer: Duration::from_secs(30),
        provisioning: Duration::from_secs(600),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// When the link asks the Device Provisioning Service again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reprovisioning {
    /// How long the hub must be out of reach, drawn from 2/3 to 4/3 of this. Default 30 min.
    pub after_unreachable: Duration,
    /// Refusals in a row, with a fresh credential each, after which the device may live elsewhere. Default 2.
    pub after_refusals: u8,
    /// Width of the delay between the last of those refusals and the registration. Default 30 s.
    pub spread: Duration,
    /// Least time between two registrations, drawn from 1/2 to 3/2 of this and doubled each time the service names the
    /// same hub, up to `spacing_longest`. Default 20 min. Registrations are billed.
    pub spacing: Duration,
    /// Longest spacing. Default 8 h.
    pub spacing_longest: Duration,
}

impl Reprovisioning {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        after_unreachable: Duration::from_secs(30 * 60),
        after_refusals: 2,
        spread: Duration::from_secs(30),
        spacing: Duration::from_secs(20 * 60),
        spacing_longest: Duration::from_secs(8 * 3600),
    };

    /// Returns these rules with every time divided by `divisor`, for demonstrations and tests against a local hub.
    ///
    /// A divisor of 0 counts as 1.
    #[must_use]
    pub fn divided_by(self, divisor: u32) -> Self {
        let part = |time: Duration| time.checked_div(divisor).unwrap_or(time);
        Self {
            after_unreachable: part(self.after_unreachable),
            after_refusals: self.after_refusals,
            spread: part(self.spread),
            spacing: part(self.spacing),
            spacing_longest: part(self.spacing_longest),
        }
    }
}

impl Default for Reprovisioning {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens to a message when the outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The new message is refused: [`crate::PublishError::Full`].
    #[default]
    RejectNewest,
    /// The oldest messages that are not in flight make room, each reported as [`crate::Event::Dropped`]: normal ones
    /// first, urgent ones only for an urgent one.
    DropOldest,
    /// A new normal message is refused; for an urgent one the oldest normal messages that are not in flight make room.
    DropForUrgent,
}

/// The subscriptions of an IoT hub device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions(u8);

impl Subscriptions {
    /// None: telemetry only.
    pub const NONE: Self = Self(0);
    /// Cloud-to-device messages.
    pub const CLOUD_TO_DEVICE: Self = Self(1);
    /// Direct methods.
    pub const METHODS: Self = Self(1 << 1);
    /// Answers to twin requests.
    pub const TWIN_ANSWERS: Self = Self(1 << 2);
    /// Changes of desired properties.
    pub const TWIN_DESIRED: Self = Self(1 << 3);
    /// Messages routed to a module's inputs.
    pub const INPUTS: Self = Self(1 << 4);
    /// All that a device can have.
    pub const ALL: Self = Self(0b1111);
    /// All that a module can have.
    pub const MODULE: Self = Self(0b1_1110);

    pub(crate) const COUNT: u8 = 5;

    /// Returns these and `other` together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }
}

/// The configuration of a link. Texts are of a type of the frontend's choice: `&'static str` in a constant on a
/// microcontroller, an owned string elsewhere.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Config<T> {
    /// Where the device belongs.
    pub service: Service<T>,
    /// How it proves who it is.
    pub credential: Credential<T>,
    /// TCP port of the services. Default 8883.
    pub port: u16,
    /// The host to connect to instead of the hub, such as an IoT Edge gateway; the user name and the token keep the
    /// hub's name.
    pub gateway: Option<T>,
    /// The module's id, for a module identity.
    pub module_id: Option<T>,
    /// The Plug and Play model id (DTMI), given to the hub and to the Device Provisioning Service.
    pub model_id: Option<T>,
    /// The product information shown to the service. Default `steadfast/` and the version.
    pub product_info: Option<T>,
    /// A JSON object for a custom allocation webhook, sent with each registration.
    pub provisioning_payload: Option<T>,
    /// Domain that assigned hubs must be in, such as `azure-devices.net`. Default: any.
    pub hub_suffix: Option<T>,
    /// The subscriptions to hold whenever the link is up. Default none.
    pub subscriptions: Subscriptions,
    /// Whether the service is to forget its side of the session. Default false, so that messages to the device wait.
    pub clean_session: bool,
    /// The keep-alive interval, 1 s to 1,177 s (IoT Hub, `iot-mqtt-connect-to-iot-hub.md`: it waits 1.5 times as long,
    /// and never longer than 29.45 min). Default 240 s.
    pub keep_alive: Duration,
    /// Lifetime of the tokens the link asks signatures for, 5 min to 24 h. Default 1 h.
    pub token_lifetime: Duration,
    /// Most publishes without an acknowledgement, 1 to 32,767. Default 16.
    pub window: u16,
    /// What happens when the outbox is full. Default [`Overflow::RejectNewest`].
    pub overflow: Overflow,
    /// Whether telemetry that brings no creation time gets that of its acceptance (`$.ctime`), when the wall clock is set
    /// by then. Default false.
    pub stamp_creation_time: bool,
    /// How long a message is of use that does not say so itself. Default: for ever.
    pub expiry: Option<Duration>,
    /// After how many connections in a row that ended with this message, and only this one, in flight it is set aside.
    /// Default `None`: never, since a hub that is broken for a while would otherwise cost messages.
    pub reject_after: Option<u8>,
    /// Largest packet accepted from the service, in bytes. Default 131,072: a direct method's payload and its topic.
    pub max_inbound: usize,
    /// Largest packet the frontend can send, in bytes. Default 266,240: the largest telemetry message and its topic.
    pub max_outbound: usize,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Back-off.
    pub retry: RetryPolicy,
    /// When to ask the Device Provisioning Service again.
    pub reprovisioning: Reprovisioning,
}

impl<T> Config<T> {
    /// Makes the configuration of a device that belongs to `service` and proves itself with `credential`, with every
    /// default.
    pub const fn new(service: Service<T>, credential: Credential<T>) -> Self {
        Self {
            service,
            credential,
            port: DEFAULT_PORT,
            gateway: None,
            module_id: None,
            model_id: None,
            product_info: None,
            provisioning_payload: None,
            hub_suffix: None,
            subscriptions: Subscriptions::NONE,
            clean_session: false,
            keep_alive: Duration::from_secs(240),
            token_lifetime: Duration::from_secs(3600),
            window: 16,
            overflow: Overflow::RejectNewest,
            stamp_creation_time: false,
            expiry: None,
            reject_after: None,
            max_inbound: 128 * 1024,
            max_outbound: 260 * 1024,
            timeouts: Timeouts::DEFAULT,
            retry: RetryPolicy::DEFAULT,
            reprovisioning: Reprovisioning::DEFAULT,
        }
    }
}

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

/// Registered port of MQTT over TLS, the only one IoT Hub and DPS listen on for it.
pub const DEFAULT_PORT: u16 = 8883;

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

/// Gives a link its configuration: by reference from a constant, by value, or shared.
pub trait Settings {
    /// The type of its texts.
    type Text: AsRef<str>;

    /// Returns the configuration, the same each time.
    fn config(&self) -> &Config<Self::Text>;

    /// Returns the delay before an attempt; by default what [`Config::retry`] says. [`Paced`] puts another policy here.
    fn retry_delay(&self, occasion: &Occasion, word: u32) -> Duration {
        self.config().retry.delay(occasion, word)
    }

    /// Keeps a finished token ([`crate::Input::Token`]) and returns whether it could. By default there is no room for
    /// one.
    fn keep_token(&mut self, token: &str) -> bool {
        let _ = token;
        false
    }

    /// Returns the token kept last.
    fn token(&self) -> Option<&str> {
        None
    }
}

/// Settings with a policy of their own: what `policy` returns counts instead of [`Config::retry`].
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "applications write it down")]
pub struct Paced<S, P> {
    /// All else.
    pub settings: S,
    /// The policy.
    pub policy: P,
}

impl<S: Settings, P: Policy> Settings for Paced<S, P> {
    type Text = S::Text;

    fn config(&self) -> &Config<S::Text> {
        self.settings.config()
    }

    fn retry_delay(&self, occasion: &Occasion, word: u32) -> Duration {
        self.policy.delay(occasion, word)
    }

    fn keep_token(&mut self, token: &str) -> bool {
        self.settings.keep_token(token)
    }

    fn token(&self) -> Option<&str> {
        self.settings.token()
    }
}

impl<T: AsRef<str>> Settings for Config<T> {
    type Text = T;

    fn config(&self) -> &Self {
        self
    }
}

impl<T: AsRef<str>> Settings for &Config<T> {
    type Text = T;

    fn config(&self) -> &Config<T> {
        self
    }
}
