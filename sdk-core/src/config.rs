//! The configuration of a link: service, credential, timeouts and limits.

mod check;
mod settings;

use core::fmt;
use core::time::Duration;

use crate::link::{Reprovisioning, SessionConfig};

pub use self::check::ConfigError;
pub use self::settings::{Settings, WithPolicy};

/// The service of a device.
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
        /// The service's host name; [`crate::dps::topics::GLOBAL_HOST`] unless it is a private or sovereign one.
        host: T,
        /// The id scope, such as `0ne00ABCDEF`.
        id_scope: T,
        /// The registration id.
        registration_id: T,
    },
    /// A plain MQTT 3.1.1 broker: messages go to [`crate::Destination::Topic`]s.
    Broker {
        /// The broker's host name.
        host: T,
        /// The client id.
        client_id: T,
    },
}

/// The device's credential.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential<T> {
    /// A symmetric key, held by the frontend, which signs on request ([`crate::Action::Sign`]) or supplies a ready-made
    /// token ([`crate::Input::Token`]).
    SharedKey,
    /// A client certificate, held by the frontend, which presents it in the TLS handshake.
    Certificate,
    /// A ready-made shared access signature, such as from a connection string. The link cannot renew it: once it has
    /// expired, the hub refuses the device.
    Token(T),
    /// A user name and a password for a broker.
    Password {
        /// The user name.
        user_name: T,
        /// The password; never printed.
        password: T,
    },
    /// None, for a broker that requires none.
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
    /// Responses to twin requests.
    pub const TWIN_RESPONSES: Self = Self(1 << 2);
    /// Changes of desired properties.
    pub const TWIN_DESIRED: Self = Self(1 << 3);
    /// Messages routed to a module's inputs.
    pub const INPUTS: Self = Self(1 << 4);
    /// All that a device can have.
    pub const ALL: Self = Self(0b1111);
    /// All that a module can have.
    pub const MODULE: Self = Self(0b1_1110);

    pub(crate) const COUNT: u8 = 5;

    /// Desired properties: [`TWIN_RESPONSES`](Self::TWIN_RESPONSES) and [`TWIN_DESIRED`](Self::TWIN_DESIRED).
    pub const TWIN: Self = Self(0b1100);

    /// Returns these and `other` together, as `|` does.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
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

impl core::ops::BitOr for Subscriptions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl core::ops::BitOrAssign for Subscriptions {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

/// The configuration of a link. Texts are of a type of the frontend's choice: `&'static str` in a constant on a
/// microcontroller, an owned string elsewhere.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Config<T> {
    /// The device's service.
    pub service: Service<T>,
    /// The device's credential.
    pub credential: Credential<T>,
    /// TCP port of the services, but for registrations over HTTPS. Default 8883.
    pub port: u16,
    /// The host to connect to instead of the hub, such as an IoT Edge gateway; the user name and the token keep the
    /// hub's name.
    pub gateway: Option<T>,
    /// The module's id, for a module identity.
    pub module_id: Option<T>,
    /// The Plug and Play model id (DTMI), given to the hub and to the Device Provisioning Service.
    pub model_id: Option<T>,
    /// The product information sent to the service. Default `steadfast/` and the version.
    pub product_info: Option<T>,
    /// A JSON object for a custom allocation webhook, sent with each registration.
    pub provisioning_payload: Option<T>,
    /// Whether the frontend registers with the Device Provisioning Service over HTTPS ([`crate::Action::Register`]) on port
    /// 443 instead of MQTT. Default false. It needs a frontend with [`Settings::HTTPS`]: `steadfast` can, `steadfast-esp32`
    /// cannot.
    pub https_registration: bool,
    /// Domain of accepted hubs, such as `example.com`, or the only accepted host name. Default: the domains of Azure
    /// ([`crate::azure::names::check_assigned_hub`]) if the Device Provisioning Service is Azure's, else any name
    /// except `localhost`, names of one label and the service itself.
    pub hub_suffix: Option<T>,
    /// The subscriptions that the link keeps while it is up. Default none.
    pub subscriptions: Subscriptions,
    /// Lifetime of the link's tokens, 5 min to 24 h. Default 1 h.
    pub token_lifetime: Duration,
    /// Whether telemetry without a creation time gets the time of its acceptance (`$.ctime`), if the wall clock is set
    /// by then. Default false.
    pub stamp_creation_time: bool,
    /// Settings common to all services: timeouts, limits, back-off.
    pub session: SessionConfig,
    /// When to register with the Device Provisioning Service again.
    pub reprovisioning: Reprovisioning,
}

impl<T> Config<T> {
    /// Makes a device's configuration from its service and credential, with defaults for everything else.
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
            https_registration: false,
            hub_suffix: None,
            subscriptions: Subscriptions::NONE,
            token_lifetime: Duration::from_secs(3600),
            stamp_creation_time: false,
            session: SessionConfig::DEFAULT,
            reprovisioning: Reprovisioning::DEFAULT,
        }
    }
}

/// Registered port of MQTT over TLS, the only one IoT Hub and DPS listen on for it.
pub const DEFAULT_PORT: u16 = 8883;
