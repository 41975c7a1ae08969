//! The state of all services behind one lock, and the data that all connections share.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::Bucket;
use crate::config::HubConfig;
use crate::connections::CloseReason;
use crate::device::{Device, Push};
use crate::dps::Dps;
use crate::fault::{Fault, FaultId, Plan, Scope};
use crate::ledger::{Entries, Entry};
use crate::limits::Unauthenticated;
use crate::operations::Operation;
use crate::pki::Certificates;
use crate::quota::Quota;
use crate::storage::Storage;
use crate::{Clock, Error};

/// The limit of pending instructions to a connection; beyond it, the device counts as not reading.
pub(crate) const PUSHES: usize = 256;

/// The data that all connections and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
    /// Switches the shared listeners on and off.
    pub(crate) listening: watch::Sender<bool>,
    /// Largest WebSocket frame to a client, in bytes.
    pub(crate) largest_frame: usize,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) addresses: OnceLock<Addresses>,
    /// Counts changes of the ledger, to wake waiting tasks.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) unauthenticated: Arc<Unauthenticated>,
    connections: AtomicU64,
    faults: AtomicU64,
    world: Mutex<World>,
}

/// The addresses of the listeners.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) tls: SocketAddr,
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    /// By host name, for services with a port of their own.
    pub(crate) own: HashMap<String, SocketAddr>,
}

impl Shared {
    pub(crate) fn new(
        world: World,
        certificates: Arc<Certificates>,
        tls: Arc<ServerConfig>,
        largest_frame: usize,
        unauthenticated: Unauthenticated,
    ) -> Self {
        Self {
            started: Instant::now(),
            clock: world.clock.clone(),
            largest_frame,
            listening: watch::channel(true).0,
            certificates,
            tls,
            addresses: OnceLock::new(),
            changes: watch::channel(0).0,
            stop: watch::channel(false).0,
            unauthenticated: Arc::new(unauthenticated),
            connections: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            world: Mutex::new(world),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn next_fault(&self) -> FaultId {
        FaultId(self.faults.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The state of the services.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) hubs: BTreeMap<String, Hub>,
    pub(crate) dps: Dps,
    pub(crate) faults: Plan<Fault>,
    pub(crate) entries: Entries,
    pub(crate) storage: Storage,
    pub(crate) clock: Clock,
    /// The hub of enrollments without one.
    pub(crate) first_hub: Option<String>,
    /// Names that are valid for every service.
    pub(crate) gateways: Vec<String>,
}

impl World {
    pub(crate) fn hub(&mut self, host: &str) -> Result<&mut Hub, Error> {
        self.hubs.get_mut(host).ok_or_else(|| Error::NoSuchHub(host.to_owned()))
    }

    pub(crate) fn device(&mut self, host: &str, id: &str) -> Result<&mut Device, Error> {
        self.hub(host)?.devices.get_mut(id).ok_or_else(|| Error::NoSuchDevice(id.to_owned()))
    }

    /// Adds an operation to the log.
    pub(crate) fn note(&mut self, host: &str, id: &str, operation: Operation, now: Duration) {
        self.entries.note(host, id, operation, now);
    }

    /// Lets `act` change an identity, and records the operations it adds.
    pub(crate) fn with_device<T>(
        &mut self,
        host: &str,
        id: &str,
        now: Duration,
        act: impl FnOnce(&mut Device, &mut Vec<Operation>) -> T,
    ) -> Result<T, Error> {
        let mut notes = Vec::new();
        let result = act(self.device(host, id)?, &mut notes);
        for operation in notes {
            self.note(host, id, operation, now);
        }
        Ok(result)
    }

    /// Sends an identity the queued messages that were not yet sent on its connection.
    pub(crate) fn pump(&mut self, host: &str, id: &str, now: Duration) {
        // A deleted identity has no queued messages.
        let _ = self.with_device(host, id, now, |device, notes| device.pump(now, notes));
    }

    /// Makes every connection in `scope` check the active faults again.
    pub(crate) fn announce_faults(&mut self, scope: &Scope, cleared: bool) {
        for (host, hub) in &mut self.hubs {
            for (id, device) in &mut hub.devices {
                if scope.matches(host, id) {
                    device.push(Push::Faults { cleared });
                }
            }
        }
    }

    /// Ends the session of a connection: its will becomes telemetry unless the device sent DISCONNECT.
    pub(crate) fn end_session(&mut self, ended: &EndedSession<'_>, now: Duration) {
        let Some(hub) = self.hubs.get_mut(ended.host) else { return };
        let keep_sessions = hub.config.keep_sessions;
        if let Some(device) = hub.devices.get_mut(ended.identity)
            && device.live.as_ref().is_some_and(|live| live.connection == ended.connection)
        {
            device.live = None;
            device.calls.clear();
            if ended.clean_session || !keep_sessions {
                device.forget_session();
            }
        }
        if let Some(will) = ended.will {
            let topic = crate::topic::DeviceTopic::parse(&will.topic, ended.identity);
            let Some(crate::topic::DeviceTopic::Telemetry { bag }) = topic else { return };
            let mut properties = crate::topic::decode_bag(bag);
            properties.push(("iothub-MessageType".to_owned(), "Will".to_owned()));
            let entry = Entry {
                hub: ended.host,
                device: ended.identity,
                connection: ended.connection,
                packet_id: 0,
                dup: false,
                qos: will.qos as u8,
                topic: &will.topic,
                properties,
                payload: &will.message,
                stored: true,
            };
            self.entries.enter(entry, now);
        }
    }
}

/// A session that ends.
pub(crate) struct EndedSession<'a> {
    pub(crate) host: &'a str,
    pub(crate) identity: &'a str,
    pub(crate) connection: u64,
    pub(crate) clean_session: bool,
    pub(crate) will: Option<&'a rumqttc::mqttbytes::v4::LastWill>,
}

/// The availability of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HubState {
    Up,
    Down,
    /// Closes new connections until this time since start.
    FailingOver(Duration),
}

/// A route from an output of a module to an input of another module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) from: String,
    pub(crate) output: String,
    pub(crate) to: String,
    pub(crate) input: String,
}

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: HubConfig,
    pub(crate) state: HubState,
    pub(crate) devices: HashMap<String, Device>,
    pub(crate) admission: Option<Bucket>,
    pub(crate) telemetry: Option<Bucket>,
    pub(crate) twin: Option<Bucket>,
    pub(crate) quota: Quota,
    /// The routes of module outputs.
    pub(crate) routes: Vec<Route>,
    /// Switches the hub's own listener on and off.
    pub(crate) listening: watch::Sender<bool>,
}

impl Hub {
    pub(crate) fn new(config: HubConfig) -> Self {
        let devices = config.devices.iter().map(|(id, auth)| (id.clone(), Device::new(auth.clone()))).collect();
        Self {
            admission: config.admission.map(Bucket::new),
            telemetry: config.telemetry.map(Bucket::new),
            twin: config.twin.map(Bucket::new),
            quota: Quota::new(config.daily_quota),
            routes: Vec::new(),
            config,
            state: HubState::Up,
            devices,
            listening: watch::channel(true).0,
        }
    }

    pub(crate) fn is_up(&mut self, now: Duration) -> bool {
        if let HubState::FailingOver(until) = self.state
            && until <= now
        {
            self.state = HubState::Up;
        }
        self.state == HubState::Up
    }

    pub(crate) fn close_all(&mut self, reason: &CloseReason) {
        for device in self.devices.values_mut() {
            device.push(Push::Close { reason: reason.clone(), reset: false });
        }
    }

    pub(crate) fn forget_sessions(&mut self) {
        self.devices.values_mut().for_each(Device::forget_session);
    }
}
