//! Everything the services know, behind one lock; and what all connections share.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::admission::Bucket;
use crate::config::{DeviceAuth, HubConfig};
use crate::connections::CloseReason;
use crate::control::MethodAnswer;
use crate::dps::Dps;
use crate::fault::{Fault, FaultId, Plan, Scope};
use crate::ledger::{Book, Entry};
use crate::pki::Certificates;
use crate::topic::{Feed, devicebound, encode_bag};
use crate::twin::Twin;
use crate::{Clock, Error};

/// How many messages may wait for a device.
pub(crate) const C2D_QUEUE: usize = 50;
/// How many unsent instructions a connection may have; more means that the device does not read.
pub(crate) const PUSHES: usize = 256;

/// What all connections and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
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
    /// By host name, for services with a port of their own.
    pub(crate) own: HashMap<String, SocketAddr>,
}

impl Shared {
    pub(crate) fn new(world: World, clock: Clock, certificates: Arc<Certificates>, tls: Arc<ServerConfig>) -> Self {
        Self {
            started: Instant::now(),
            clock,
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

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: HubConfig,
    pub(crate) state: HubState,
    pub(crate) devices: HashMap<String, Device>,
    pub(crate) admission: Option<Bucket>,
    pub(crate) telemetry: Option<Bucket>,
    pub(crate) twin: Option<Bucket>,
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

/// An identity of a hub: a device, or a module under the name `device/module`.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) auth: DeviceAuth,
    pub(crate) enabled: bool,
    pub(crate) twin: Twin,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) has_session: bool,
    pub(crate) ever_connected: bool,
    pub(crate) live: Option<Live>,
    pub(crate) inbox: VecDeque<CloudMessage>,
    pub(crate) calls: HashMap<String, oneshot::Sender<MethodAnswer>>,
    /// Message ids whose fault properties were obeyed.
    pub(crate) obeyed: HashSet<String>,
    pub(crate) spell: Spell,
    next_packet_id: u16,
}

/// Effects of fault properties that last: each until a time since start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spell {
    pub(crate) unreachable_until: Duration,
    pub(crate) refused_until: Duration,
    pub(crate) throttled_until: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    pub(crate) feed: Option<Feed>,
    pub(crate) qos: u8,
}

/// The connection of an identity.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) connection: u64,
    pub(crate) pushes: mpsc::Sender<Push>,
}

/// A message to a device, kept until its PUBACK.
#[derive(Clone, Debug)]
pub(crate) struct CloudMessage {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) expires_at: Duration,
    /// Id and connection of its last delivery.
    pub(crate) sent: Option<(u16, u64)>,
}

/// An instruction to a connection.
#[derive(Debug)]
pub(crate) enum Push {
    /// Sends a publish, at QoS 1 when it has a packet id.
    Publish { topic: String, payload: Bytes, packet_id: Option<u16>, dup: bool },
    /// Looks at the faults again.
    Faults { cleared: bool },
    /// Closes the socket; with a reset if asked.
    Close { reason: CloseReason, reset: bool },
}

impl Device {
    pub(crate) fn new(auth: DeviceAuth) -> Self {
        Self {
            auth,
            enabled: true,
            twin: Twin::default(),
            subscriptions: Vec::new(),
            has_session: false,
            ever_connected: false,
            live: None,
            inbox: VecDeque::new(),
            calls: HashMap::new(),
            obeyed: HashSet::new(),
            spell: Spell::default(),
            next_packet_id: 0,
        }
    }

    /// Instructs the connection of this identity; false when there is none or it does not keep up.
    pub(crate) fn push(&mut self, push: Push) -> bool {
        let Some(live) = &self.live else { return false };
        live.pushes.try_send(push).is_ok()
    }

    /// Closes the connection and forgets it, so that nothing of it counts any more.
    pub(crate) fn cut(&mut self, reason: CloseReason) {
        self.push(Push::Close { reason, reset: false });
        self.live = None;
        self.calls.clear();
    }

    pub(crate) fn forget_session(&mut self) {
        self.has_session = false;
        if self.live.is_none() {
            self.subscriptions.clear();
        }
        self.inbox.iter_mut().for_each(|message| message.sent = None);
    }

    /// Returns the granted QoS of a feed this identity is subscribed to.
    pub(crate) fn subscribed(&self, feed: Feed) -> Option<u8> {
        let of_feed = self.subscriptions.iter().filter(|subscription| subscription.feed == Some(feed));
        of_feed.map(|subscription| subscription.qos).max()
    }

    /// Publishes to the device if it is connected and subscribed.
    pub(crate) fn tell(&mut self, feed: Feed, topic: String, payload: Bytes) -> bool {
        self.subscribed(feed).is_some() && self.push(Push::Publish { topic, payload, packet_id: None, dup: false })
    }

    pub(crate) fn enqueue(
        &mut self,
        id: &str,
        properties: &[(String, String)],
        payload: Bytes,
        expires_at: Duration,
        now: Duration,
    ) -> Result<(), Error> {
        if !self.ever_connected {
            return Err(Error::NeverConnected(id.to_owned()));
        }
        self.inbox.retain(|message| message.expires_at > now);
        if self.inbox.len() >= C2D_QUEUE {
            return Err(Error::QueueFull);
        }
        let topic = devicebound(id) + &encode_bag(properties);
        self.inbox.push_back(CloudMessage { topic, payload, expires_at, sent: None });
        self.pump(now);
        Ok(())
    }

    /// Sends the waiting messages that were not yet sent on this connection.
    pub(crate) fn pump(&mut self, now: Duration) {
        let (Some(qos), Some(connection)) =
            (self.subscribed(Feed::CloudToDevice), self.live.as_ref().map(|live| live.connection))
        else {
            return;
        };
        self.inbox.retain(|message| message.expires_at > now);
        for at in 0..self.inbox.len() {
            let sent = self.inbox[at].sent;
            if sent.is_some_and(|(_, on)| on == connection) {
                continue;
            }
            let packet_id = sent.map_or_else(|| self.free_packet_id(), |(packet_id, _)| packet_id);
            let message = &self.inbox[at];
            let push = Push::Publish {
                topic: message.topic.clone(),
                payload: message.payload.clone(),
                packet_id: (qos > 0).then_some(packet_id),
                dup: sent.is_some(),
            };
            if !self.push(push) {
                return;
            }
            self.inbox[at].sent = Some((packet_id, connection));
        }
        if qos == 0 {
            self.inbox.clear();
        }
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            let taken = |message: &CloudMessage| message.sent.is_some_and(|(id, _)| id == self.next_packet_id);
            if !self.inbox.iter().any(taken) {
                return self.next_packet_id;
            }
        }
    }
}
