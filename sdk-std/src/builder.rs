//! From settings to a device, with every mistake reported before the first packet.

mod build;
mod dps;
mod network;
mod proof;

use std::fmt;
use std::path::PathBuf;
#[cfg(feature = "tpm")]
use std::sync::Arc;
use std::time::Duration;

use steadfast_core::azure::connection_string::{self, ConnectionString};
use steadfast_core::iothub::operator_commands::OperatorCommands;
use steadfast_core::{
    Config, Credential, Overflow, Reprovisioning, RetryPolicy, Seed, Service, Subscriptions, Timeouts, Usage,
};

use crate::build_error::BuildError;
use crate::connect::Overrides;
use crate::context::Context;
use crate::proxy::Proxy;
use crate::tls::Tls;

pub use self::dps::Dps;
pub use self::network::Transport;
use self::proof::Proof;

/// Default limit of messages in the outbox.
const OUTBOX_MESSAGES: usize = 1000;

/// Default limit of bytes in the outbox.
const OUTBOX_BYTES: usize = 1 << 20;

/// Default limits in bytes of queued reported properties, and of queued method responses.
const SERVICE_BYTES: usize = 128 * 1024;

/// Default and maximum of method calls that are open at a time.
const METHOD_CALLS: usize = 64;
const MOST_METHOD_CALLS: usize = 1024;

/// Default limit of publishes in flight.
const WINDOW: u16 = 100;

/// Describes a device. Made by [`Device::builder`](crate::Device::builder).
///
/// It needs a service ([`connection_string`](Self::connection_string), [`hub`](Self::hub),
/// [`provision_with`](Self::provision_with) or [`broker`](Self::broker)) and, unless a connection string contains it, a
/// credential. An IoT Edge module gets both from its environment (feature `edge`). The last call of a kind counts. All
/// other settings have a default.
#[must_use]
pub struct Builder {
    pub(crate) config: Config<Box<str>>,
    placed: bool,
    proven: bool,
    proof: Proof,
    tls: Option<Tls>,
    plaintext: bool,
    overrides: Overrides,
    #[cfg(feature = "_https")]
    https_overrides: Overrides,
    #[cfg(feature = "tpm")]
    pub(crate) tpm: Option<Arc<dyn crate::tpm::Tpm>>,
    proxy: Option<Proxy>,
    transport: Transport,
    port: Option<u16>,
    outbox: Usage,
    /// Limits of queued reported properties and of queued method responses.
    reports: usize,
    answers: usize,
    method_calls: usize,
    orders: OperatorCommands,
    assignment: Option<PathBuf>,
    memory: Option<PathBuf>,
    seed: Option<Seed>,
    #[cfg(feature = "rumqttc")]
    over_rumqttc: bool,
    pub(crate) context: &'static Context,
    error: Option<BuildError>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let nowhere = Service::Broker { host: Box::default(), client_id: Box::default() };
        let mut config = Config::new(nowhere, Credential::Anonymous);
        config.session.window = WINDOW;
        Self {
            config,
            placed: false,
            proven: false,
            proof: Proof::Nothing,
            tls: None,
            plaintext: false,
            overrides: Overrides::new(),
            #[cfg(feature = "_https")]
            https_overrides: Overrides::new(),
            #[cfg(feature = "tpm")]
            tpm: None,
            proxy: None,
            transport: Transport::Tcp,
            port: None,
            outbox: Usage { messages: OUTBOX_MESSAGES, bytes: OUTBOX_BYTES },
            reports: SERVICE_BYTES,
            answers: SERVICE_BYTES,
            method_calls: METHOD_CALLS,
            orders: OperatorCommands::NONE,
            assignment: None,
            memory: None,
            seed: None,
            #[cfg(feature = "rumqttc")]
            over_rumqttc: false,
            context: Context::shared(),
            error: None,
        }
    }

    /// Takes hub, device, gateway and key from a device's or module's connection string, as shown in the Azure portal.
    ///
    /// With `x509=true` it also needs [`client_certificate`](Self::client_certificate). With a ready-made
    /// `SharedAccessSignature` it is valid until that expires ([`token`](Self::token)).
    #[expect(clippy::wildcard_enum_match_arm, reason = "credentials of a later version are given apart")]
    pub fn connection_string(mut self, text: &str) -> Self {
        let parsed = match ConnectionString::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => return self.fail(BuildError::ConnectionString(error)),
        };
        self = self.hub(parsed.host_name, parsed.device_id);
        self.config.module_id = parsed.module_id.map(Into::into);
        self.config.gateway = parsed.gateway_host_name.map(Into::into);
        match parsed.credential {
            connection_string::Credential::SharedAccessKey(key) => self.shared_key(key),
            connection_string::Credential::SharedAccessSignature(token) => self.token(token),
            _ => self,
        }
    }

    /// Places the device in one hub, once and for all.
    pub fn hub(mut self, host: &str, device_id: &str) -> Self {
        self.config.service = Service::Hub { host: host.into(), device_id: device_id.into() };
        self.placed = true;
        self
    }

    /// Connects to the hub that the Device Provisioning Service assigns, and follows the device when it is moved.
    pub fn provision_with(mut self, dps: Dps) -> Self {
        let Dps { host, id_scope, registration_id, payload, hub_suffix } = dps;
        self.config.service = Service::Provisioned { host, id_scope, registration_id };
        self.config.provisioning_payload = payload;
        self.config.hub_suffix = hub_suffix;
        self.placed = true;
        self
    }

    /// Connects to a plain MQTT 3.1.1 broker. Its messages name their topic.
    pub fn broker(mut self, host: &str, client_id: &str) -> Self {
        self.config.service = Service::Broker { host: host.into(), client_id: client_id.into() };
        self.placed = true;
        self
    }

    /// Makes the identity a module of the device.
    pub fn module_id(mut self, module_id: &str) -> Self {
        self.config.module_id = Some(module_id.into());
        self
    }

    /// Sets the Plug and Play model id (DTMI).
    pub fn model_id(mut self, model_id: &str) -> Self {
        self.config.model_id = Some(model_id.into());
        self
    }

    /// Sets the product information sent to the service, at most 128 bytes. Default `steadfast/` and the version.
    pub fn product_info(mut self, text: &str) -> Self {
        self.config.product_info = Some(text.into());
        self
    }

    /// Sets the limits in bytes of queued reported properties, and of queued method responses. Default 131,072 each:
    /// the largest response, and the largest properties twice, which merging needs. Without the
    /// [subscription](Self::subscriptions) nothing is reserved.
    pub const fn service_room(mut self, reports: usize, answers: usize) -> Self {
        self.reports = reports;
        self.answers = answers;
        self
    }

    /// Sets the maximum of method calls open at a time, 1 to 1,024: further calls are answered with 503. Default 64.
    /// Each takes some 100 bytes if methods are [subscribed](Self::subscriptions) to.
    ///
    /// A call is open from its arrival until it is answered, for at most 300 s. [`Methods`](crate::Methods) runs the
    /// handlers of all open calls concurrently.
    pub const fn method_calls(mut self, most: usize) -> Self {
        self.method_calls = most;
        self
    }

    /// Allows operator commands by desired property and direct method: register again, set the jitter window, log more.
    /// Default none; see [`steadfast_core::iothub::operator_commands`] for their format and
    /// [`Device::next_operator_command`](crate::Device::next_operator_command).
    pub const fn allow_operator_commands(mut self, orders: OperatorCommands) -> Self {
        self.orders = orders;
        self
    }

    /// Sets the subscriptions to hold from the first connection on. Default none: [`Device::twin`](crate::Device::twin),
    /// [`direct_methods`](crate::Device::direct_methods) and [`messages`](crate::Device::messages) add theirs when they are
    /// used. This is for an application that uses them later, and wants nothing missed until then.
    pub const fn subscriptions(mut self, subscriptions: Subscriptions) -> Self {
        self.config.subscriptions = subscriptions;
        self
    }

    /// Sets whether the service is to forget its side of the session at each connection. Default false.
    pub const fn clean_session(mut self, clean: bool) -> Self {
        self.config.session.clean_session = clean;
        self
    }

    /// Limits the outbox. Default 1,000 messages and 1 MiB of topics, properties and payloads.
    pub const fn outbox(mut self, messages: usize, bytes: usize) -> Self {
        self.outbox = Usage { messages, bytes };
        self
    }

    /// Sets what happens when the outbox is full. Default: the new message waits, or is refused.
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.config.session.overflow = overflow;
        self
    }

    /// Sets the expiry of messages that have none of their own. Default: messages do not expire.
    pub const fn expiry(mut self, span: Duration) -> Self {
        self.config.session.expiry = Some(span);
        self
    }

    /// Sets whether telemetry without a creation time gets the time of its acceptance (`$.ctime`), so that a message
    /// keeps its time through an outage. Default false.
    ///
    /// The clock is the system's as it was when the latest attempt began, in whole seconds: a stamp may be up to a second
    /// early.
    pub const fn stamp_creation_time(mut self, stamp: bool) -> Self {
        self.config.stamp_creation_time = stamp;
        self
    }

    /// Sets after how many connections in a row that ended with one message alone in flight it is dead-lettered.
    /// Default: never.
    pub const fn poison_threshold(mut self, connections: u8) -> Self {
        self.config.session.poison_threshold = Some(connections);
        self
    }

    /// Sets how many publishes go without acknowledgement at most, 1 to 32,767. Default 100.
    pub const fn window(mut self, messages: u16) -> Self {
        self.config.session.window = messages;
        self
    }

    /// Sets the keep-alive interval, 1 s to 1,177 s. Default 240 s.
    pub const fn keep_alive(mut self, interval: Duration) -> Self {
        self.config.session.keep_alive = interval;
        self
    }

    /// Sets the lifetime of tokens, 5 min to 24 h. Default 1 h.
    pub const fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.token_lifetime = lifetime;
        self
    }

    /// Sets the link's timeouts.
    pub const fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.config.session.timeouts = timeouts;
        self
    }

    /// Sets the back-off.
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.config.session.retry = policy;
        self
    }

    /// Sets when the Device Provisioning Service is asked again.
    pub const fn reprovisioning(mut self, rules: Reprovisioning) -> Self {
        self.config.reprovisioning = rules;
        self
    }

    /// Stores the assignment in this file, readable by its owner alone, so that the device connects directly to its hub
    /// after a restart.
    ///
    /// The file is replaced atomically. A damaged file, or one of another device, is ignored. Default: not stored. The
    /// [back-off file](Self::backoff_file) is stored beside it, with the suffix `.back-off`, unless that has its own
    /// path.
    pub fn assignment_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.assignment = Some(path.into());
        self
    }

    /// Stores the back-off state in this file, so that a restart during an outage does not reset the back-off.
    ///
    /// It is written a few times per outage, and replaced atomically. A damaged file, or one of another device, is
    /// ignored. Default: beside the [assignment](Self::assignment_file) if that is stored, else not stored.
    pub fn backoff_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.memory = Some(path.into());
        self
    }

    /// Sets the seed of the jitter, for tests that repeat themselves. Default: the operating system's randomness.
    ///
    /// Devices with the same seed reconnect in step, unless their names differ.
    pub const fn seed(mut self, seed: Seed) -> Self {
        self.seed = Some(seed);
        self
    }

    pub(crate) fn fail(mut self, error: BuildError) -> Self {
        self.error.get_or_insert(error);
        self
    }
}

/// Shows the service, and neither key nor password.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("service", &self.config.service)
            .field("credential", &self.config.credential)
            .finish_non_exhaustive()
    }
}
