//! The services and the network, in virtual time: two hubs, a provisioning service, and connections of bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::mqttbytes::v4::Packet;
use serde_json::Value;
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::dps::topics::GLOBAL_HOST;
use steadfast_core::{Assignment, BackoffSnapshot};
use steadfast_sim::EPOCH_SECS;
use steadfast_sim::service::{Dps, Hub, Key, Reaction, Receipt, Reply};
use tempfile::TempDir;

/// The device's id, and its registration id.
pub const DEVICE: &str = "pump-7";
/// The id scope of the provisioning service.
pub const SCOPE: &str = "0ne00ABCDEF";
/// The hubs; the device is enrolled for the first.
pub const HUBS: [&str; 2] = ["hub-a.azure-devices.net", "hub-b.azure-devices.net"];
/// Every host there is.
pub const HOSTS: [&str; 3] = [HUBS[0], HUBS[1], GLOBAL_HOST];
/// The device's key, in base64.
pub const KEY_BASE64: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// How long bytes of a service travel.
const LATENCY_MS: u64 = 20;
/// Largest packet a service reads.
const LARGEST: usize = 1 << 20;

/// Returns the device's key.
#[must_use]
pub fn key() -> Key {
    Rc::new(SymmetricKey::from_bytes(&[7; 32]).expect("a good length"))
}

#[derive(Debug)]
struct Connection {
    host: String,
    /// When bytes arrive, and which.
    inbound: VecDeque<(u64, Vec<u8>)>,
    /// When the service has closed it: what the device sends after that is lost.
    closes_at: Option<u64>,
    /// When the device sees the end.
    ends_at: Option<u64>,
    outbound: BytesMut,
    /// No byte passes any more, in either direction.
    stalled: bool,
}

/// What survives a restart of the device.
#[derive(Debug)]
#[non_exhaustive]
pub struct Kept {
    /// For frontends whose application keeps it.
    pub assignment: Option<Assignment>,
    /// For frontends whose application keeps it.
    pub memory: Option<BackoffSnapshot>,
    /// For frontends that keep files.
    pub directory: TempDir,
}

/// The services and the network.
#[derive(Debug)]
pub struct Cloud {
    /// The time, in milliseconds.
    pub now: u64,
    /// The hubs.
    pub hubs: Vec<Hub>,
    /// The provisioning service.
    pub dps: Dps,
    /// What the device has kept.
    pub kept: Kept,
    /// When connections were made, and where to.
    pub dials: Vec<(u64, String)>,
    unreachable: Vec<String>,
    connections: BTreeMap<u64, Connection>,
    calls: u32,
}

/// The cloud, shared by a scenario and its device.
pub type Shared = Rc<RefCell<Cloud>>;

impl Cloud {
    /// Makes a cloud in which the device is enrolled for the first hub.
    #[must_use]
    pub fn shared() -> Shared {
        let mut dps = Dps::new(SCOPE);
        dps.enroll(DEVICE, Some(key()), HUBS[0], EPOCH_SECS);
        let mut hubs: Vec<Hub> = HUBS.iter().map(|name| Hub::new(name)).collect();
        hubs[0].add(DEVICE, Some(key()));
        let directory = tempfile::tempdir().expect("a directory for what is kept");
        Rc::new(RefCell::new(Self {
            now: 0,
            hubs,
            dps,
            kept: Kept { assignment: None, memory: None, directory },
            dials: Vec::new(),
            unreachable: Vec::new(),
            connections: BTreeMap::new(),
            calls: 0,
        }))
    }

    /// Returns the time on the services' clocks, in seconds since 1970.
    #[must_use]
    pub const fn unix_secs(&self) -> u64 {
        EPOCH_SECS + self.now / 1000
    }

    // What scenarios do.

    /// Ends every connection to a hub, and refuses new ones.
    pub fn hub_down(&mut self, hub: usize) {
        self.unreachable.push(HUBS[hub].to_owned());
        self.end(HUBS[hub]);
    }

    /// Lets a hub be reached again.
    pub fn hub_up(&mut self, hub: usize) {
        self.unreachable.retain(|host| host != HUBS[hub]);
    }

    /// Ends every connection to a hub.
    pub fn cut(&mut self, hub: usize) {
        self.end(HUBS[hub]);
    }

    fn end(&mut self, host: &str) {
        let now = self.now;
        for connection in self.connections.values_mut().filter(|connection| connection.host == host) {
            connection.inbound.clear();
            connection.ends_at = Some(now);
        }
    }

    /// Lets no byte pass on the connections there are, without ending them.
    pub fn stall(&mut self) {
        self.connections.values_mut().for_each(|connection| connection.stalled = true);
    }

    /// Moves the device to the second hub; the first one no longer knows it.
    pub fn move_device(&mut self) {
        let unix_secs = self.unix_secs();
        self.dps.assign(DEVICE, HUBS[1], unix_secs);
        self.hubs[1].add(DEVICE, Some(key()));
        let reactions = self.hubs[0].remove(DEVICE);
        self.react(reactions);
    }

    /// Disables the device at the first hub, or enables it.
    pub fn set_enabled(&mut self, enabled: bool) {
        let reactions = self.hubs[0].set_enabled(DEVICE, enabled);
        self.react(reactions);
    }

    /// Sends a cloud-to-device message with this message id.
    pub fn send_to_device(&mut self, id: &str, payload: &str) {
        let topic = format!("devices/{DEVICE}/messages/devicebound/%24.mid={id}");
        let reactions = self.hubs[0].send_to(DEVICE, &topic, payload.as_bytes(), true);
        self.react(reactions);
    }

    /// Changes desired properties; the device is not notified when the notification is `lost`.
    pub fn desire(&mut self, patch: &Value, lost: bool) {
        let reactions = self.hubs[0].desire(DEVICE, patch, lost);
        self.react(reactions);
    }

    /// Calls a method.
    pub fn call(&mut self, name: &str, payload: &str) {
        self.calls += 1;
        let reactions = self.hubs[0].call(DEVICE, name, &self.calls.to_string(), payload.as_bytes());
        self.react(reactions);
    }

    // What scenarios look at.

    /// Returns what the hubs stored, in order of time, repetitions included.
    #[must_use]
    pub fn receipts(&self) -> Vec<&Receipt> {
        let mut all: Vec<_> = self.hubs.iter().flat_map(Hub::receipts).collect();
        all.sort_by_key(|receipt| receipt.at_ms);
        all
    }

    /// Returns the payloads the hubs stored, in order of time, without repetitions.
    #[must_use]
    pub fn stored(&self) -> Vec<String> {
        let mut stored = Vec::new();
        for receipt in self.receipts() {
            let text = String::from_utf8_lossy(&receipt.payload).into_owned();
            if !stored.contains(&text) {
                stored.push(text);
            }
        }
        stored
    }

    /// Returns how many times the hubs stored a message that they had already.
    #[must_use]
    pub fn repetitions(&self) -> usize {
        self.receipts().len() - self.stored().len()
    }

    /// Returns how many registrations the provisioning service has seen.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.dps.registrations().len()
    }

    /// Returns what the device did that a service may object to.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        self.hubs.iter().flat_map(Hub::objections).chain(self.dps.objections()).cloned().collect()
    }

    /// Returns how many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections.len()
    }

    // What subjects do.

    /// Returns whether connections to a host are taken.
    #[must_use]
    pub fn is_reachable(&self, host: &str) -> bool {
        !self.unreachable.iter().any(|unreachable| unreachable == host)
    }

    /// Opens a connection; `None` when it is refused.
    pub fn open(&mut self, host: &str) -> Option<u64> {
        if !self.is_reachable(host) {
            return None;
        }
        self.dials.push((self.now, host.to_owned()));
        let id = self.dials.len() as u64;
        let connection = Connection {
            host: host.to_owned(),
            inbound: VecDeque::new(),
            closes_at: None,
            ends_at: None,
            outbound: BytesMut::new(),
            stalled: false,
        };
        self.connections.insert(id, connection);
        Some(id)
    }

    /// The device has closed a connection.
    pub fn leave(&mut self, id: u64) {
        self.connections.remove(&id);
        self.hubs.iter_mut().for_each(|hub| hub.closed(id));
        self.dps.closed(id);
    }

    /// The device has closed every connection.
    pub fn leave_all(&mut self) {
        self.connections.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.leave(id));
    }

    /// Takes bytes of the device; returns false when the connection has ended.
    ///
    /// # Panics
    /// When an independent codec cannot read what the device sent.
    pub fn write(&mut self, id: u64, bytes: &[u8]) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.ends_at.is_some_and(|at| at <= now) {
            return false;
        }
        if connection.stalled || connection.closes_at.is_some_and(|at| at <= now) {
            return true;
        }
        connection.outbound.extend_from_slice(bytes);
        let host = connection.host.clone();
        while let Some(connection) = self.connections.get_mut(&id)
            && connection.closes_at.is_none_or(|at| at > now)
        {
            match Packet::read(&mut connection.outbound, LARGEST) {
                Ok(packet) => {
                    let unix_secs = self.unix_secs();
                    let reactions = match self.hubs.iter_mut().find(|hub| hub.name() == host) {
                        Some(hub) => hub.packet(id, packet, unix_secs, now),
                        None => self.dps.packet(id, packet, unix_secs, now),
                    };
                    self.react(reactions);
                }
                Err(CodecError::InsufficientBytes(_)) => break,
                Err(error) => panic!("an independent codec does not read what the device sent: {error:?}"),
            }
        }
        true
    }

    /// Returns the bytes that have arrived at the device, empty for the end of the connection; `None` when there are
    /// none.
    pub fn read(&mut self, id: u64, most: usize) -> Option<Vec<u8>> {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return Some(Vec::new()) };
        if connection.stalled {
            return None;
        }
        let Some((_, bytes)) = connection.inbound.front_mut().filter(|(at, _)| *at <= now) else {
            return connection.ends_at.filter(|at| *at <= now).map(|_| Vec::new());
        };
        let taken: Vec<u8> = bytes.drain(..bytes.len().min(most)).collect();
        if bytes.is_empty() {
            connection.inbound.pop_front();
        }
        Some(taken)
    }

    /// Returns when something next arrives on a connection, its end included.
    #[must_use]
    pub fn arrival(&self, id: u64) -> Option<u64> {
        let Some(connection) = self.connections.get(&id) else { return Some(self.now) };
        if connection.stalled {
            return None;
        }
        let bytes = connection.inbound.front().map(|(at, _)| *at);
        bytes.into_iter().chain(connection.ends_at).min()
    }

    /// Returns when something next arrives on any connection.
    #[must_use]
    pub fn next_arrival(&self) -> Option<u64> {
        self.connections.keys().filter_map(|id| self.arrival(*id)).min()
    }

    fn react(&mut self, reactions: Vec<Reaction>) {
        for reaction in reactions {
            let at = self.now + LATENCY_MS + reaction.after_ms;
            let Some(connection) = self.connections.get_mut(&reaction.connection) else { continue };
            let bytes = match reaction.reply {
                Reply::Packet(packet) => {
                    let mut bytes = BytesMut::new();
                    packet.write(&mut bytes, LARGEST).expect("a service writes what fits");
                    bytes.to_vec()
                }
                Reply::Bytes(bytes) => bytes,
                Reply::Close | _ => {
                    let closes_at = self.now + reaction.after_ms;
                    connection.closes_at = Some(connection.closes_at.map_or(closes_at, |before| before.min(closes_at)));
                    connection.ends_at = Some(connection.ends_at.map_or(at, |before| before.min(at)));
                    continue;
                }
            };
            // A later answer may be ready earlier.
            let place = connection.inbound.partition_point(|(before, _)| *before <= at);
            connection.inbound.insert(place, (at, bytes));
        }
    }
}
