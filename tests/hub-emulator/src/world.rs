//! Everything the services know, behind one lock; and what all connections share.

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
use crate::ledger::{Book, Entry};
use crate::operations::Operation;
use crate::pki::Certificates;
use crate::quota::Quota;
use crate::storage::Storage;
use crate::{Clock, Error};

/// How many unsent instructions a connection may have; more means that the device does not read.
pub(crate) const PUSHES: usize = 256;

/// What all connections and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
    /// Tells the listeners of all services whether to listen.
    pub(crate) listening: watch::Sender<bool>,
    /// Most bytes of one WebSocket frame to a client.
    pub(crate) largest_frame: usize,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) addresses: OnceLock<Addresses>,
    /// Counts changes of the ledger, to wake who waits for one.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) stop: watch::Sender<bool>,
    connections: AtomicU64,
    faults: AtomicU64,
    world: Mutex<World>,
}

/// Where the services listen.
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
        clock: Clock,
        certificates: Arc<Certificates>,
        tls: Arc<ServerConfig>,
        largest_frame: usize,
    ) -> Self {
        Self {
            started: Instant::now(),
            clock,
            largest_frame,
            listening: watch::channel(true).0,
            certificates,
            tls,
            addresses: OnceLock::new(),
            changes: watch::channel(0).0,
            stop: watch::channel(false).0,
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

/// What the services know.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) hubs: BTreeMap<String, Hub>,
    pub(crate) dps: Dps,
    pub(crate) faults: Plan<Fault>,
    pub(crate) book: Book,
    pub(crate) storage: Storage,
    pub(crate) clock: Clock,
    /// Where enrollments without a hub assign to.
    pub(crate) first_hub: Option<String>,
    /// Names under which any service may be reached.
    pub(crate) gateways: Vec<String>,
}

impl World {
    pub(crate) fn hub(&mut self, host: &str) -> Result<&mut Hub, Error> {
        self.hubs.get_mut(host).ok_or_else(|| Error::NoSuchHub(host.to_owned()))
    }

    pub(crate) fn device(&mut self, host: &str, id: &str) -> Result<&mut Device, Error> {
        self.hub(host)?.devices.get_mut(id).ok_or_else(|| Error::NoSuchDevice(id.to_owned()))
    }

    /// Enters an operation into the log.
    pub(crate) fn note(&mut self, host: &str, id: &str, operation: Operation, now: Duration) {
        self.book.note(host, id, operation, now);
    }

    /// Lets `act` change an identity and enters what it notes into the log.
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

    /// Sends an identity the waiting messages that were not yet sent on its connection.
    pub(crate) fn pump(&mut self, host: &str, id: &str, now: Duration) {
        // An identity that is gone has nothing waiting.
        let _ = self.with_device(host, id, now, |device, notes| device.pump(now, notes));
    }

    /// Tells every connection that `scope` covers to look at its faults again.
    pub(crate) fn announce_faults(&mut self, scope: &Scope, cleared: bool) {
        for (host, hub) in &mut self.hubs {
            for (id, device) in &mut hub.devices {
                if scope.holds(host, id) {
                    device.push(Push::Faults { cleared });
                }
            }
        }
    }

    /// Ends the session of a connection: its will becomes telemetry unless it said goodbye.
    pub(crate) fn leave(&mut self, left: &Left<'_>, now: Duration) {
        let Some(hub) = self.hubs.get_mut(left.host) else { return };
        let keep_sessions = hub.config.keep_sessions;
        if let Some(device) = hub.devices.get_mut(left.identity)
            && device.live.as_ref().is_some_and(|live| live.connection == left.connection)
        {
            device.live = None;
            device.calls.clear();
            if left.clean_session || !keep_sessions {
                device.forget_session();
            }
        }
        if let Some(will) = left.will {
            let topic = crate::topic::DeviceTopic::parse(&will.topic, left.identity);
            let Some(crate::topic::DeviceTopic::Telemetry { bag }) = topic else { return };
            let mut properties = crate::topic::decode_bag(bag);
            properties.push(("iothub-MessageType".to_owned(), "Will".to_owned()));
            let entry = Entry {
                hub: left.host,
                device: left.identity,
                connection: left.connection,
                packet_id: 0,
                dup: false,
                qos: will.qos as u8,
                topic: &will.topic,
                properties,
                payload: &will.message,
                stored: true,
            };
            self.book.enter(entry, now);
        }
    }
}

/// A session that ends.
pub(crate) struct Left<'a> {
    pub(crate) host: &'a str,
    pub(crate) identity: &'a str,
    pub(crate) connection: u64,
    pub(crate) clean_session: bool,
    pub(crate) will: Option<&'a rumqttc::mqttbytes::v4::LastWill>,
}

/// Whether a hub answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HubState {
    Up,
    Down,
    /// Closes what comes until this time since start.
    FailingOver(Duration),
}

/// A way from an output of a module to an input of another one.
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
    /// Where messages to outputs of modules go.
    pub(crate) routes: Vec<Route>,
    /// Tells a listener of its own whether to listen.
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
