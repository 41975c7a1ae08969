//! What a link is told once: who the device is, where it belongs, and how patient it is.

mod check;
mod patience;
mod settings;

use core::fmt;
use core::time::Duration;

use crate::retry::RetryPolicy;

pub use self::check::{ConfigError, Setting};
pub use self::patience::{Reprovisioning, Timeouts};
pub use self::settings::{Paced, Settings};

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
    /// Domain that assigned hubs must be in, such as `example.com`, or the one host name there is. Default: the domains of
    /// Azure ([`crate::azure::names::HUB_SUFFIXES`]) where the Device Provisioning Service is Azure's, else any, but not
    /// `localhost`, a name of one label or the service itself.
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
    /// Largest packet accepted from the service, in bytes. Default 307,200: the largest message to a module's input, with
    /// properties of any length. One that is larger ends the connection.
    pub max_inbound: usize,
    /// Largest packet the frontend can send, in bytes. Default 307,200: the largest telemetry message, with properties of
    /// any length.
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
            max_inbound: 300 * 1024,
            max_outbound: 300 * 1024,
            timeouts: Timeouts::DEFAULT,
            retry: RetryPolicy::DEFAULT,
            reprovisioning: Reprovisioning::DEFAULT,
        }
    }
}

/// Registered port of MQTT over TLS, the only one IoT Hub and DPS listen on for it.
pub const DEFAULT_PORT: u16 = 8883;
