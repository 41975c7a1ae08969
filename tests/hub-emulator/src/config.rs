//! The settings of an emulator.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::Clock;
use crate::admission::Rate;
use crate::enrollment::Enrollment;
use crate::limits::ConnectionLimits;
use crate::pki::{Authority, Flaw};
use crate::sas::Key;

/// The suffix of a hub given by its short name.
const HUB_SUFFIX: &str = ".azure-devices.net";

/// The settings of an emulator. Create them with [`Config::new`] and the setters below.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    pub(crate) bind: IpAddr,
    pub(crate) tls_port: u16,
    pub(crate) plain_port: Option<u16>,
    pub(crate) https_port: Option<u16>,
    pub(crate) largest_frame: usize,
    pub(crate) storage_host: String,
    pub(crate) names: Vec<String>,
    pub(crate) hubs: Vec<HubConfig>,
    pub(crate) dps: DpsConfig,
    pub(crate) enrollments: Vec<Enrollment>,
    pub(crate) ledger: LedgerMode,
    pub(crate) connection_log: usize,
    pub(crate) connection_limits: ConnectionLimits,
    pub(crate) clock: Clock,
    pub(crate) authority: Option<Authority>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) revocation_list: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// An emulator without hubs, with DPS, on a free TLS port of 127.0.0.1.
    pub fn new() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tls_port: 0,
            plain_port: None,
            https_port: None,
            largest_frame: usize::MAX,
            storage_host: "emulator.blob.core.windows.net".to_owned(),
            names: Vec::new(),
            hubs: Vec::new(),
            dps: DpsConfig::new(),
            enrollments: Vec::new(),
            ledger: LedgerMode::Full,
            connection_log: 100_000,
            connection_limits: ConnectionLimits::default(),
            clock: Clock::default(),
            authority: None,
            ca_file: None,
            revocation_list: None,
        }
    }

    /// Adds a hub with default settings. A name without a dot gets `.azure-devices.net`.
    pub fn hub(self, name: &str) -> Self {
        self.hub_with(HubConfig::new(name))
    }

    /// Adds a hub.
    pub fn hub_with(mut self, hub: HubConfig) -> Self {
        self.hubs.push(hub);
        self
    }

    /// Sets up DPS.
    pub fn dps(mut self, dps: DpsConfig) -> Self {
        self.dps = dps;
        self
    }

    /// Adds an enrollment of DPS.
    pub fn enroll(mut self, enrollment: Enrollment) -> Self {
        self.enrollments.push(enrollment);
        self
    }

    /// Sets the shared TLS port; 0 (the default) picks a free port.
    pub fn tls_port(mut self, port: u16) -> Self {
        self.tls_port = port;
        self
    }

    /// Also opens a port without TLS for all services; 0 picks a free port. Off by default.
    pub fn plain_port(mut self, port: u16) -> Self {
        self.plain_port = Some(port);
        self
    }

    /// Also opens a port for HTTPS (file uploads and their storage) and MQTT over WebSockets, for all services; 0 picks
    /// a free port. Off by default; the real services use 443.
    pub fn https_port(mut self, port: u16) -> Self {
        self.https_port = Some(port);
        self
    }

    /// Limits WebSocket frames to clients to this many bytes; no limit by default. Packets are split and joined across
    /// frames either way.
    pub fn websocket_frame(mut self, bytes: usize) -> Self {
        self.largest_frame = bytes;
        self
    }

    /// Sets the host name of the storage account for file uploads; `emulator.blob.core.windows.net` by default. The
    /// upload URI also contains the port, unless it is 443. `localhost` needs no hosts file.
    pub fn storage_host(mut self, host: &str) -> Self {
        self.storage_host = host.to_ascii_lowercase();
        self
    }

    /// Sets the address of all listeners; the default is 127.0.0.1.
    pub fn bind(mut self, address: IpAddr) -> Self {
        self.bind = address;
        self
    }

    /// Adds a gateway name: certificates are valid for it, and clients reach every hub through it. `localhost` and
    /// 127.0.0.1 are always gateway names.
    pub fn gateway_name(mut self, name: &str) -> Self {
        self.names.push(name.to_ascii_lowercase());
        self
    }

    /// Sets which records the ledger keeps; all by default.
    pub fn ledger(mut self, mode: LedgerMode) -> Self {
        self.ledger = mode;
        self
    }

    /// Sets how many connections the connection log keeps; the oldest are dropped first; the default is 100,000.
    pub fn connection_log(mut self, limit: usize) -> Self {
        self.connection_log = limit;
        self
    }

    /// Limits connections whose CONNECT has not been accepted.
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.connection_limits = limits;
        self
    }

    /// Sets the wall clock for checking tokens.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Uses this certification authority instead of a new one.
    pub fn authority(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Writes the CA certificate to this file at start.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Adds a revocation list address to every service certificate: an `http` address of `/ca.crl` at the control port.
    /// The C# SDK checks the list when it provisions. No address by default.
    pub fn revocation_list(mut self, address: &str) -> Self {
        self.revocation_list = Some(address.to_owned());
        self
    }
}

/// How much telemetry the ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerMode {
    /// Every receipt.
    Full,
    /// The last receipts of each device, up to this number; counts and message ids of all messages.
    Last(usize),
    /// Only counts, and the received values of the application property `seq`: memory stays bounded.
    Counts,
}

/// How a hub treats undocumented topics and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undocumented {
    /// The connection is closed.
    Close,
    /// A subscription is answered with 0x80; a publish is acknowledged and dropped.
    Refuse,
}

/// The settings of one hub.
#[derive(Clone, Debug)]
#[must_use]
pub struct HubConfig {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) plain: bool,
    pub(crate) admission: Option<Rate>,
    pub(crate) telemetry: Option<Rate>,
    pub(crate) twin: Option<Rate>,
    pub(crate) daily_quota: Option<u64>,
    pub(crate) sas_grace: Duration,
    pub(crate) sas_tolerance: Duration,
    pub(crate) keep_sessions: bool,
    pub(crate) clean_session_drops_c2d: bool,
    pub(crate) upload_life: Duration,
    pub(crate) undocumented: Undocumented,
    pub(crate) max_filters: usize,
    pub(crate) max_message: usize,
    pub(crate) policies: Vec<(String, Key)>,
    pub(crate) devices: Vec<(String, DeviceAuth)>,
    pub(crate) flaw: Option<Flaw>,
}

impl HubConfig {
    /// A hub with the defaults of the setters below. A name without a dot gets `.azure-devices.net`.
    pub fn new(name: &str) -> Self {
        Self {
            host: hub_host(name),
            port: None,
            plain: false,
            admission: None,
            telemetry: None,
            twin: None,
            daily_quota: None,
            sas_grace: Duration::from_secs(600),
            sas_tolerance: Duration::from_secs(300),
            keep_sessions: true,
            clean_session_drops_c2d: false,
            upload_life: Duration::from_secs(3600),
            undocumented: Undocumented::Close,
            max_filters: 5,
            max_message: 262_144,
            policies: Vec::new(),
            devices: Vec::new(),
            flaw: None,
        }
    }

    /// Gives the hub a TLS port of its own, besides the shared one; 0 picks a free port.
    pub fn port(self, port: u16) -> Self {
        Self { port: Some(port), plain: false, ..self }
    }

    /// Gives the hub a port of its own without TLS, which closes while the hub is down; 0 picks a free port.
    pub fn plain_port(self, port: u16) -> Self {
        Self { port: Some(port), plain: true, ..self }
    }

    /// Admits new connections at this rate: beyond the burst CONNECT waits in the queue, beyond that the socket is closed.
    pub fn admission(mut self, rate: Rate) -> Self {
        self.admission = Some(rate);
        self
    }

    /// Accepts telemetry at this rate: beyond the burst a message waits, beyond the queue the socket is closed.
    pub fn telemetry(mut self, rate: Rate) -> Self {
        self.telemetry = Some(rate);
        self
    }

    /// Answers twin requests at this rate: beyond burst and queue the answer is 429.
    pub fn twin(mut self, rate: Rate) -> Self {
        self.twin = Some(rate);
        self
    }

    /// Sets the daily message quota; a message counts once per started 4 KiB. Once the quota is used up, the hub closes
    /// all connections and closes new ones right after accepting them, until midnight UTC by the emulator's clock. No
    /// limit by default.
    pub fn daily_quota(mut self, messages: u64) -> Self {
        self.daily_quota = Some(messages);
        self
    }

    /// Sets how long a connection outlives its token; 600 s by default.
    pub fn sas_grace(mut self, grace: Duration) -> Self {
        self.sas_grace = grace;
        self
    }

    /// Sets how long after its expiry a token is still accepted at CONNECT, because clocks differ; 300 s by default.
    pub fn sas_tolerance(mut self, tolerance: Duration) -> Self {
        self.sas_tolerance = tolerance;
        self
    }

    /// Sets whether subscriptions survive a disconnect with CleanSession 0; they do by default.
    pub fn keep_sessions(mut self, keep: bool) -> Self {
        self.keep_sessions = keep;
        self
    }

    /// Sets whether CleanSession 1 empties the queue of cloud-to-device messages; it does not by default.
    pub fn clean_session_drops_c2d(mut self, drops: bool) -> Self {
        self.clean_session_drops_c2d = drops;
        self
    }

    /// Sets the reaction to undocumented topics and to a sixth filter; by default, the hub closes the connection.
    pub fn undocumented(mut self, how: Undocumented) -> Self {
        self.undocumented = how;
        self
    }

    /// Sets the lifetime of an upload and its storage token; 3600 s by default.
    pub fn upload_life(mut self, life: Duration) -> Self {
        self.upload_life = life;
        self
    }

    /// Sets how many filters one identity may subscribe to; 5 by default.
    pub fn max_filters(mut self, count: usize) -> Self {
        self.max_filters = count;
        self
    }

    /// Sets the largest message in bytes (body and properties); 262,144 by default.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Adds a shared access policy of the hub, such as `iothubowner`: its tokens are valid for every identity.
    pub fn policy(mut self, name: &str, key: Key) -> Self {
        self.policies.push((name.to_owned(), key));
        self
    }

    /// Registers a device (`pump-7`) or module (`pump-7/filter`).
    pub fn device(mut self, id: &str, auth: impl Into<DeviceAuth>) -> Self {
        self.devices.push((id.to_owned(), auth.into()));
        self
    }

    /// Gives the hub a certificate that clients must reject.
    pub fn certificate_flaw(mut self, flaw: Flaw) -> Self {
        self.flaw = Some(flaw);
        self
    }
}

/// The credentials of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceAuth {
    /// A token signed with either key.
    Keys {
        /// The first key.
        primary: Key,
        /// The second key, for rotation.
        secondary: Option<Key>,
    },
    /// A client certificate with one of these SHA-256 thumbprints, in hexadecimal of any case.
    Thumbprint {
        /// The first thumbprint.
        primary: String,
        /// The second thumbprint, for rotation.
        secondary: Option<String>,
    },
    /// A client certificate signed by this CA.
    CertificateAuthority {
        /// The CA certificate as PEM.
        pem: String,
        /// The required common name; the device id by default.
        common_name: Option<String>,
    },
}

impl From<Key> for DeviceAuth {
    fn from(primary: Key) -> Self {
        Self::Keys { primary, secondary: None }
    }
}

/// The settings of DPS.
#[derive(Clone, Debug)]
#[must_use]
pub struct DpsConfig {
    pub(crate) host: String,
    pub(crate) id_scope: String,
    pub(crate) port: Option<u16>,
    pub(crate) polls: u32,
    pub(crate) retry_after: u32,
    pub(crate) registers_per_minute: Option<u32>,
    pub(crate) polls_per_ten_seconds: u32,
    pub(crate) refusal: DpsRefusal,
    pub(crate) policy: Reprovision,
}

impl Default for DpsConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl DpsConfig {
    /// DPS with the defaults of the setters below.
    pub fn new() -> Self {
        Self {
            host: "global.azure-devices-provisioning.net".to_owned(),
            id_scope: "0ne00EMULATOR".to_owned(),
            port: None,
            polls: 1,
            retry_after: 1,
            registers_per_minute: None,
            polls_per_ten_seconds: 5,
            refusal: DpsRefusal::Connect,
            policy: Reprovision::MigrateData,
        }
    }

    /// Sets the host name; `global.azure-devices-provisioning.net` by default.
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_ascii_lowercase();
        self
    }

    /// Sets the id scope; `0ne00EMULATOR` by default.
    pub fn id_scope(mut self, id_scope: &str) -> Self {
        id_scope.clone_into(&mut self.id_scope);
        self
    }

    /// Gives DPS a TLS port of its own, besides the shared one; 0 picks a free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets how many polls are answered `assigning` before `assigned`; 1 by default. The answer to the registration
    /// itself is always `assigning`.
    pub fn assigning_polls(mut self, polls: u32) -> Self {
        self.polls = polls;
        self
    }

    /// Sets the `retry-after` of `assigning` in seconds; 1 by default, 0 leaves it out.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = seconds;
        self
    }

    /// Limits registrations per minute, over all devices; beyond it the answer is 429 with `retry-after`. No limit by
    /// default; the real service has 1,000.
    pub fn registers_per_minute(mut self, limit: u32) -> Self {
        self.registers_per_minute = Some(limit);
        self
    }

    /// Limits polls per device and 10 s; 5 by default, as documented for the real service. Beyond it the answer is 429.
    pub fn polls_per_ten_seconds(mut self, limit: u32) -> Self {
        self.polls_per_ten_seconds = limit;
        self
    }

    /// Sets where DPS refuses bad credentials.
    pub fn refusal(mut self, refusal: DpsRefusal) -> Self {
        self.refusal = refusal;
        self
    }

    /// Sets the effect of registering again; migrating with data is the default.
    pub fn reprovision(mut self, policy: Reprovision) -> Self {
        self.policy = policy;
        self
    }
}

/// Where DPS refuses bad credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DpsRefusal {
    /// With CONNACK 5 (the default).
    Connect,
    /// With a 401 answer to the registration.
    Register,
}

/// The effect of registering again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reprovision {
    /// The device may move to another hub; its twin moves too, and its old identity is removed.
    MigrateData,
    /// The device may move to another hub; its twin starts empty, and its old identity is removed.
    Reset,
    /// The device stays at its first hub.
    Never,
}

/// Returns the full host name of a hub given by its full or short name.
pub(crate) fn hub_host(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.contains('.') { name } else { name + HUB_SUFFIX }
}

pub(crate) fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}
