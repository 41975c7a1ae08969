//! Inputs and outputs of a link.

use core::fmt;

use heapless::String;

use crate::failure::Failure;
use crate::mqtt::{Compose, Incoming, Login, Packet};
use crate::retry::BackoffSnapshot;
use crate::text::Text;
use crate::timer::Deadline;

/// The number of a connection attempt. Every input carries it; an input of an older attempt has no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u32);

impl Attempt {
    /// Returns the number: 1 for the first attempt.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A frontend's report on an attempt.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Input<'b> {
    /// The signature for [`Action::Sign`].
    Signed(&'b [u8; 32]),
    /// A ready-made token instead of the signature for [`Action::Sign`], for frontends whose settings store one
    /// ([`crate::Settings::keep_token`]). It is sent unchanged, and renewed before it expires. An expired or invalid
    /// one counts as [`crate::LocalFailure::Signing`].
    Token(&'b str),
    /// TCP is connected; TLS starts. Optional if the frontend cannot distinguish the two.
    Connected,
    /// Bytes can flow: TLS is up and the certificate is verified, or the connection is plain by configuration.
    Ready,
    /// Bytes from the service, starting with the first that the link has not consumed.
    Bytes(&'b [u8]),
    /// A packet from the service, for frontends over another MQTT implementation.
    Packet(Incoming<'b>),
    /// The transport accepted bytes and this many are still pending: while they progress, the connection does not count
    /// as dead.
    Wrote {
        /// Bytes that still wait.
        pending: usize,
    },
    /// The Device Provisioning Service's answer over HTTPS, for [`Action::Register`]. One that no request waits for
    /// changes nothing.
    Registered {
        /// Status of the answer (RFC 9110, section 15).
        status: u16,
        /// Seconds of Retry-After, if it has any.
        retry_after_secs: Option<u32>,
        /// Its body.
        body: &'b [u8],
    },
    /// The attempt or the connection failed; the transport is closed.
    Failed(Failure),
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(_) => f.write_str("Signed(..)"),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Connected => f.write_str("Connected"),
            Self::Ready => f.write_str("Ready"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Packet(packet) => write!(f, "Packet({packet:?})"),
            Self::Wrote { pending } => write!(f, "Wrote {{ pending: {pending} }}"),
            Self::Registered { status, .. } => write!(f, "Registered {{ status: {status}, .. }}"),
            Self::Failed(failure) => write!(f, "Failed({failure:?})"),
        }
    }
}

/// The result of an [`Input`]. `R` is the type of received values: [`crate::Received`] or [`crate::iothub::Received`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken<R> {
    /// How many bytes were consumed. The frontend drains the outputs and then passes the rest in again, followed by new
    /// bytes.
    pub bytes: usize,
    /// Total length of the next packet, if it is known to be incomplete.
    pub needed: Option<usize>,
    /// Something for the application.
    pub received: Option<R>,
}

impl<R> Taken<R> {
    /// This many bytes without anything for the application.
    pub(crate) const fn nothing_in(bytes: usize) -> Self {
        Self { bytes, needed: None, received: None }
    }

    /// Replaces the received value.
    pub(crate) fn with<T>(self, received: Option<T>) -> Taken<T> {
        Taken { bytes: self.bytes, needed: self.needed, received }
    }
}

/// An output of a link. `E` is its type of events: [`crate::Event`] or [`crate::iothub::Event`].
#[derive(Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "an output lives for one call, and there is no allocator")]
pub enum Output<'a, E> {
    /// Something to do.
    Action(Action<'a>),
    /// Something to know.
    Event(E),
    /// Nothing more until an input, a command or this deadline.
    Wait(Option<Deadline>),
}

/// A text to sign with HMAC-SHA256, and the service whose key to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignRequest<'a> {
    /// The service: the enrollment's key for the Device Provisioning Service, the device's for a hub. They are the same
    /// for an individual enrollment and for a key derived from a group's.
    pub role: ServiceKind,
    /// How often in a row that service has refused the device: a holder of two keys then uses the other one, as
    /// [`KeyPair`](crate::azure::key_choice::KeyPair) does.
    pub refusals: u8,
    /// The text; not a secret.
    pub text: Text<'a>,
}

impl<'a> SignRequest<'a> {
    /// Makes a request.
    #[must_use]
    pub const fn new(role: ServiceKind, refusals: u8, text: Text<'a>) -> Self {
        Self { role, refusals, text }
    }
}

/// A command to the frontend.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Sign this text with HMAC-SHA256 and the device's key, and answer [`Input::Signed`], [`Input::Token`] or
    /// [`Input::Failed`].
    Sign {
        /// The attempt of the answer.
        attempt: Attempt,
        /// The text to sign, and the key.
        request: SignRequest<'a>,
    },
    /// Resolve the name again, connect, and answer [`Input::Connected`], [`Input::Ready`] or [`Input::Failed`].
    Connect {
        /// The attempt all that follows belongs to.
        attempt: Attempt,
        /// The target.
        endpoint: Endpoint<'a>,
    },
    /// Send this packet on the attempt's connection.
    Send {
        /// The attempt.
        attempt: Attempt,
        /// The packet.
        packet: Packet<'a>,
    },
    /// Ask the Device Provisioning Service over the attempt's connection, which HTTPS is spoken on, and answer
    /// [`Input::Registered`] or [`Input::Failed`]. It comes where [`Endpoint::https`] says so, after [`Input::Ready`]; there
    /// is one request at a time, and no packet is sent. A connection that the service has closed in between is replaced by
    /// the frontend.
    Register {
        /// The attempt.
        attempt: Attempt,
        /// The request.
        request: RegistrationRequest<'a>,
    },
    /// Close the attempt's connection, if there is one.
    Close {
        /// The attempt.
        attempt: Attempt,
        /// Whether to wait briefly for sent bytes.
        flush: bool,
    },
    /// Store the assignment, so that the device connects directly to its hub after a reboot.
    SaveAssignment(&'a Assignment),
    /// Store this beside the assignment, so that a power failure during an outage does not reset the back-off.
    /// Optional; at most 20 times in the first hour of an outage and 45 times in a week.
    SaveBackoff(BackoffSnapshot),
}

/// A request to the Device Provisioning Service over HTTPS, whose path [`crate::dps::https`] makes.
#[derive(Clone, Copy)]
pub struct RegistrationRequest<'a> {
    pub(crate) operation_id: &'a str,
    /// Body and token are composed when they are asked for, since an action is moved about.
    pub(crate) message: &'a dyn Compose,
    pub(crate) login: &'a dyn Login,
}

impl<'a> RegistrationRequest<'a> {
    /// Returns the operation whose state is asked for: `GET` from [`crate::dps::https::operation_path`]. `None` to register:
    /// `PUT` to [`crate::dps::https::register_path`].
    #[must_use]
    pub const fn operation_id(&self) -> Option<&'a str> {
        if self.operation_id.is_empty() { None } else { Some(self.operation_id) }
    }

    /// Returns the body of a registration, a JSON object; empty for a question for its state.
    #[must_use]
    pub fn body(&self) -> Text<'a> {
        if self.operation_id.is_empty() { self.message.payload() } else { Text::from("") }
    }

    /// Returns the token for the `Authorization` header, a secret; `None` where a certificate authenticates the device.
    #[must_use]
    pub fn token(&self) -> Option<Text<'a>> {
        self.login.password()
    }
}

/// Prints neither body nor token.
impl fmt::Debug for RegistrationRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationRequest").field("operation_id", &self.operation_id()).finish_non_exhaustive()
    }
}

/// One of the link's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceKind {
    /// The Device Provisioning Service.
    Provisioning,
    /// The hub, or the broker.
    Hub,
}

/// The target of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint<'a> {
    /// Host name, also for SNI and for the verification of the certificate.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// Which service it is.
    pub role: ServiceKind,
    /// Whether to present the device's certificate in the TLS handshake.
    pub client_certificate: bool,
    /// Whether HTTPS is spoken there in place of MQTT: each request comes as [`Action::Register`]. Only of the Device
    /// Provisioning Service, with [`crate::Config::https_registration`].
    pub https: bool,
}

/// Longest host name of a service, in bytes.
pub(crate) const HOST_MAX: usize = 128;

/// Longest name of a device at its service, in bytes.
pub(crate) const DEVICE_ID_MAX: usize = 128;

/// The hub a device was assigned to, and its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub(crate) hub: String<HOST_MAX, u8>,
    pub(crate) device_id: String<DEVICE_ID_MAX, u8>,
}

impl Assignment {
    /// Returns the hub's host name.
    #[must_use]
    pub fn hub(&self) -> &str {
        &self.hub
    }

    /// Returns the device's id in the hub.
    #[must_use]
    pub fn device_id(&self) -> &str {
        &self.device_id
    }
}

/// The id of an application's subscription, valid until [`crate::Event::Unsubscribed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(pub(crate) u8);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
