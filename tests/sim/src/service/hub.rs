//! A simulated IoT hub, or a plain broker: sessions, subscriptions, tokens, and a ledger of every message.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{self, ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode};
use steadfast_core::azure::sas::Resource;

use super::hub_faults::{Acks, Greeting, HubFaults, PublishFault, SubscribeFault};
use super::token::{BadToken, verify};
use super::twin::{MethodAnswer, Services, Twin, TwinFault};
use super::{ConnectionId, Key, Reaction, Reply};

/// A message the hub has stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Receipt {
    /// When, in milliseconds of the world.
    pub at_ms: u64,
    /// Who sent it.
    pub client_id: String,
    /// On which connection.
    pub connection: ConnectionId,
    /// Its topic.
    pub topic: String,
    /// Its body.
    pub payload: Vec<u8>,
    /// Its packet id.
    pub packet_id: u16,
    /// Whether it was marked as a repetition.
    pub dup: bool,
}

/// What came of a packet, for an oracle.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// The hub stored the message in the last of [`Hub::receipts`].
    Stored,
    /// The hub acknowledges what was stored with this topic.
    Acknowledged(String),
}

/// A hub.
#[derive(Clone, Debug)]
pub struct Hub {
    /// What goes wrong.
    pub faults: HubFaults,
    name: String,
    identities: BTreeMap<String, Identity>,
    anyone: bool,
    sessions: HashMap<String, Session>,
    connections: HashMap<ConnectionId, Connection>,
    /// The accepted connection of each client.
    current: HashMap<String, ConnectionId>,
    receipts: Vec<Receipt>,
    connects: u64,
    accepted: u64,
    user_names: Vec<String>,
    deliveries: Vec<Delivery>,
    objections: Vec<String>,
    services: Services,
}

#[derive(Clone, Debug)]
struct Identity {
    key: Option<Key>,
    enabled: bool,
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// It ends with the connection.
    forgotten: bool,
    filters: Vec<String>,
    /// Sent with QoS 1 and not acknowledged, then what waits.
    outbound: VecDeque<Outbound>,
    next_id: u16,
}

impl Session {
    fn wants(&self, topic: &str) -> bool {
        let matches = |filter: &String| filter.strip_suffix('#').is_some_and(|prefix| topic.starts_with(prefix));
        self.filters.iter().any(|filter| matches(filter) || filter == topic)
    }
}

#[derive(Clone, Debug)]
struct Outbound {
    packet_id: u16,
    topic: String,
    payload: Vec<u8>,
    sent: bool,
    /// A later one was acknowledged on this connection.
    passed: bool,
}

#[derive(Clone, Debug)]
struct Connection {
    client_id: String,
    greeted: bool,
    held: Vec<(u16, String)>,
}

impl Hub {
    /// Makes a hub of this name, without devices.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            faults: HubFaults::default(),
            name: name.to_owned(),
            services: Services::default(),
            identities: BTreeMap::new(),
            anyone: false,
            sessions: HashMap::new(),
            connections: HashMap::new(),
            current: HashMap::new(),
            receipts: Vec::new(),
            connects: 0,
            accepted: 0,
            user_names: Vec::new(),
            deliveries: Vec::new(),
            objections: Vec::new(),
        }
    }

    /// Makes a broker that takes anyone.
    #[must_use]
    pub fn broker(name: &str) -> Self {
        Self { anyone: true, ..Self::new(name) }
    }

    /// Returns the host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Registers a device, with its key or for a client certificate.
    pub fn add(&mut self, device_id: &str, key: Option<Key>) {
        self.identities.insert(device_id.to_owned(), Identity { key, enabled: true });
    }

    /// Deletes a device and what was kept for it; its connections are closed.
    pub fn remove(&mut self, device_id: &str) -> Vec<Reaction> {
        self.identities.remove(device_id);
        self.sessions.remove(device_id);
        self.drop_connections(device_id)
    }

    /// Enables or disables a device; its connections are closed.
    pub fn set_enabled(&mut self, device_id: &str, enabled: bool) -> Vec<Reaction> {
        if let Some(identity) = self.identities.get_mut(device_id) {
            identity.enabled = enabled;
        }
        self.drop_connections(device_id)
    }

    /// Forgets every session; a client that is connected finds out when it comes back.
    pub fn forget_sessions(&mut self) {
        self.sessions.values_mut().for_each(|session| session.forgotten = true);
    }

    /// Returns every message stored, in order.
    #[must_use]
    pub fn receipts(&self) -> &[Receipt] {
        &self.receipts
    }

    /// Returns how many CONNECTs came.
    #[must_use]
    pub const fn connects(&self) -> u64 {
        self.connects
    }

    /// Returns how many of them were accepted.
    #[must_use]
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Returns the user names of the accepted CONNECTs, in order.
    #[must_use]
    pub fn user_names(&self) -> &[String] {
        &self.user_names
    }

    /// Returns the filters of a client's session, if there is one.
    #[must_use]
    pub fn filters(&self, client_id: &str) -> Option<&[String]> {
        self.sessions.get(client_id).map(|session| session.filters.as_slice())
    }

    /// Returns whether the connection has been accepted.
    #[must_use]
    pub fn is_greeted(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|connection| connection.greeted)
    }

    /// Takes what became of messages since the last call.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        core::mem::take(&mut self.deliveries)
    }

    /// Returns what clients did that a hub may object to so far.
    #[must_use]
    pub fn objections(&self) -> &[String] {
        &self.objections
    }

    /// Sets what happens to the next twin requests, first things first.
    pub fn next_twin_faults(&mut self, faults: impl IntoIterator<Item = TwinFault>) {
        self.services.next_faults.extend(faults);
    }

    /// Sets what happens to every other twin request.
    pub fn twin_fault(&mut self, fault: TwinFault) {
        self.services.fault = fault;
    }

    /// Returns a device's twin.
    pub fn twin(&mut self, client_id: &str) -> Twin {
        self.services.twin(client_id).clone()
    }

    /// Returns when twin requests came, in milliseconds.
    #[must_use]
    pub fn twin_requests(&self) -> &[u64] {
        &self.services.requests
    }

    /// Changes desired properties, and tells the device unless the notification is `lost`.
    pub fn desire(&mut self, client_id: &str, patch: &serde_json::Value, lost: bool) -> Vec<Reaction> {
        let (topic, body) = self.services.desire(client_id, patch);
        if lost { Vec::new() } else { self.send_to(client_id, &topic, &body, false) }
    }

    /// Deletes a device's twin and makes it anew.
    pub fn renew_twin(&mut self, client_id: &str) {
        self.services.renew(client_id);
    }

    /// Calls a method of a device.
    pub fn call(&mut self, client_id: &str, method: &str, request: &str, body: &[u8]) -> Vec<Reaction> {
        self.send_to(client_id, &format!("$iothub/methods/POST/{method}/?$rid={request}"), body, false)
    }

    /// Returns the answers to method calls, in the order of their coming.
    #[must_use]
    pub fn answers(&self) -> &[MethodAnswer] {
        &self.services.answers
    }

    /// The connection is gone.
    pub fn closed(&mut self, connection: ConnectionId) {
        if let Some(gone) = self.connections.remove(&connection)
            && self.current.get(&gone.client_id) == Some(&connection)
        {
            self.current.remove(&gone.client_id);
        }
    }

    /// Queues a message for a device and sends it if the device is there; `qos1` messages wait for the device.
    pub fn send_to(&mut self, client_id: &str, topic: &str, payload: &[u8], qos1: bool) -> Vec<Reaction> {
        let connection = self.current.get(client_id).copied();
        let Some(session) = self.sessions.get_mut(client_id) else { return Vec::new() };
        if qos1 {
            session.next_id = session.next_id % 0x7fff + 1;
            let packet_id = session.next_id;
            session.outbound.push_back(Outbound {
                packet_id,
                topic: topic.to_owned(),
                payload: payload.to_vec(),
                sent: false,
                passed: false,
            });
            connection.map_or_else(Vec::new, |connection| self.flush(connection, client_id, false))
        } else {
            let publish = Publish::new(topic, QoS::AtMostOnce, payload);
            connection
                .filter(|_| session.wants(topic))
                .map(|connection| Reaction::now(connection, Reply::Packet(Packet::Publish(publish))))
                .into_iter()
                .collect()
        }
    }

    /// Reacts to a packet. `unix_secs` is what the hub's clock shows, `at_ms` the world's.
    pub fn packet(&mut self, connection: ConnectionId, packet: Packet, unix_secs: u64, at_ms: u64) -> Vec<Reaction> {
        if let Packet::Connect(connect) = packet {
            return self.connect(connection, &connect, unix_secs);
        }
        let Some(client_id) = self.connections.get(&connection).map(|known| known.client_id.clone()) else {
            self.objections.push(format!("{packet:?} before CONNECT"));
            return vec![Reaction::now(connection, Reply::Close)];
        };
        if !self.is_greeted(connection) {
            self.objections.push(format!("{packet:?} before CONNACK"));
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is what only a server sends")]
        match packet {
            Packet::Publish(publish) => self.publish(connection, &client_id, publish, at_ms),
            Packet::Subscribe(subscribe) => self.subscribe(connection, &client_id, &subscribe),
            Packet::PubAck(ack) => {
                let session = self.sessions.entry(client_id).or_default();
                let named = |message: &Outbound| message.packet_id == ack.pkid && message.sent && !message.passed;
                let Some(at) = session.outbound.iter().position(named) else {
                    self.objections.push(format!("PUBACK {} is out of order", ack.pkid));
                    return Vec::new();
                };
                session.outbound.remove(at);
                session.outbound.iter_mut().take(at).for_each(|before| before.passed = true);
                Vec::new()
            }
            Packet::PingReq if self.faults.mute => Vec::new(),
            Packet::PingReq => vec![Reaction::now(connection, Reply::Packet(Packet::PingResp))],
            Packet::Disconnect => {
                self.closed(connection);
                vec![Reaction::now(connection, Reply::Close)]
            }
            other => {
                self.objections.push(format!("a client does not send {other:?}"));
                vec![Reaction::now(connection, Reply::Close)]
            }
        }
    }

    fn connect(&mut self, connection: ConnectionId, connect: &v4::Connect, unix_secs: u64) -> Vec<Reaction> {
        self.connects += 1;
        if self.connections.contains_key(&connection) {
            self.objections.push("a second CONNECT".into());
            return vec![Reaction::now(connection, Reply::Close)];
        }
        let client_id = connect.client_id.clone();
        let greeted = Connection { client_id: client_id.clone(), greeted: false, held: Vec::new() };
        self.connections.insert(connection, greeted);
        let greeting = self.faults.next_greetings.pop_front().unwrap_or_else(|| self.faults.greeting.clone());
        let (after_ms, code) = match greeting {
            Greeting::Judge => (0, None),
            Greeting::Late(after_ms) => (after_ms, None),
            Greeting::Code(code) => (0, Some(code)),
            Greeting::Silence => return Vec::new(),
            Greeting::Close => return vec![Reaction::now(connection, Reply::Close)],
            Greeting::Bytes(bytes) => return vec![Reaction::now(connection, Reply::Bytes(bytes))],
        };
        let expiry = match (code, self.judge(connect, unix_secs)) {
            (Some(code), _) => return refuse(connection, after_ms, code),
            (None, Err(())) => return refuse(connection, after_ms, 5),
            (None, Ok(expiry)) => expiry,
        };
        self.accepted += 1;
        self.user_names.push(connect.login.as_ref().map_or_else(String::new, |login| login.username.clone()));
        // One connection per identity: the older one is closed.
        let older = self.current.insert(client_id.clone(), connection);
        let mut reactions: Vec<_> = older.map(|older| Reaction::now(older, Reply::Close)).into_iter().collect();
        older.map(|older| self.connections.remove(&older));
        let kept = self.sessions.get(&client_id).is_some_and(|session| !session.forgotten)
            && !connect.clean_session
            && !self.faults.forget_sessions;
        if !kept {
            self.sessions.insert(client_id.clone(), Session::default());
        }
        if let Some(known) = self.connections.get_mut(&connection) {
            known.greeted = true;
        }
        let present = kept || self.faults.claim_session;
        let accept = Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, present));
        reactions.push(Reaction::after(connection, after_ms, Reply::Packet(accept)));
        if let Some(expiry) = expiry {
            let left = expiry.saturating_sub(unix_secs).saturating_mul(1000);
            reactions.push(Reaction::after(connection, left, Reply::Close));
        }
        if let Some(lasts) = self.faults.close_after_ms {
            reactions.push(Reaction::after(connection, after_ms + lasts, Reply::Close));
        }
        if kept {
            for mut reaction in self.flush(connection, &client_id, true) {
                reaction.after_ms += after_ms;
                reactions.push(reaction);
            }
        }
        reactions
    }

    /// Judges who it is; returns when the token ends.
    fn judge(&mut self, connect: &v4::Connect, unix_secs: u64) -> Result<Option<u64>, ()> {
        if self.anyone {
            return Ok(None);
        }
        let (device_id, module_id) = match connect.client_id.split_once('/') {
            Some((device, module)) => (device, Some(module)),
            None => (connect.client_id.as_str(), None),
        };
        let identity = self.identities.get(device_id).filter(|identity| identity.enabled).ok_or(())?;
        let user_name = connect.login.as_ref().map_or("", |login| &login.username);
        if !user_name.starts_with(&format!("{}/{}/?api-version=", self.name, connect.client_id)) {
            self.objections.push(format!("user name {user_name:?} at {}", self.name));
            return Err(());
        }
        let Some(key) = &identity.key else { return Ok(None) };
        let password = connect.login.as_ref().map_or("", |login| &login.password);
        match verify(password, Resource::Device { hub: &self.name, device_id, module_id }, key, unix_secs) {
            Ok(expiry) => Ok(Some(expiry)),
            Err(BadToken::Forged | BadToken::Expired) => Err(()),
        }
    }

    fn publish(&mut self, connection: ConnectionId, client_id: &str, publish: Publish, at_ms: u64) -> Vec<Reaction> {
        if let Some(reactions) = self.services.publish(connection, client_id, &publish, at_ms) {
            return reactions;
        }
        let fault = self.faults.next_publishes.pop_front().unwrap_or_else(|| self.faults.publish.clone());
        let poisoned = self.faults.poison.as_ref().is_some_and(|poison| **poison == *publish.payload);
        if poisoned || fault == PublishFault::CloseBeforeStore {
            self.closed(connection);
            return vec![Reaction::now(connection, Reply::Close)];
        }
        let (topic, pkid) = (publish.topic.clone(), publish.pkid);
        self.receipts.push(Receipt {
            at_ms,
            client_id: client_id.to_owned(),
            connection,
            topic: publish.topic,
            payload: publish.payload.to_vec(),
            packet_id: pkid,
            dup: publish.dup,
        });
        self.deliveries.push(Delivery::Stored);
        if publish.qos == QoS::AtMostOnce {
            return Vec::new();
        }
        let ack = |pkid| Reply::Packet(Packet::PubAck(PubAck::new(pkid)));
        let acknowledged = Delivery::Acknowledged(topic.clone());
        match fault {
            PublishFault::CloseAfterStore | PublishFault::CloseBeforeStore => {
                self.closed(connection);
                return vec![Reaction::now(connection, Reply::Close)];
            }
            PublishFault::Withhold => return Vec::new(),
            PublishFault::Bytes(bytes) => return vec![Reaction::now(connection, Reply::Bytes(bytes))],
            PublishFault::AckTwice => {
                self.deliveries.push(acknowledged);
                return vec![Reaction::now(connection, ack(pkid)), Reaction::now(connection, ack(pkid))];
            }
            PublishFault::AckUnknown(other) => {
                self.deliveries.push(acknowledged);
                return vec![Reaction::now(connection, ack(other)), Reaction::now(connection, ack(pkid))];
            }
            PublishFault::AckLate(after_ms) => {
                self.deliveries.push(acknowledged);
                return vec![Reaction::after(connection, after_ms, ack(pkid))];
            }
            PublishFault::None => {}
        }
        let batch = match self.faults.acks {
            Acks::InOrder => 1,
            Acks::Reversed(batch) => batch,
        };
        let Some(known) = self.connections.get_mut(&connection) else { return Vec::new() };
        known.held.push((pkid, topic));
        if known.held.len() < batch {
            return Vec::new();
        }
        let held = core::mem::take(&mut known.held);
        held.into_iter()
            .rev()
            .map(|(pkid, topic)| {
                self.deliveries.push(Delivery::Acknowledged(topic));
                Reaction::now(connection, ack(pkid))
            })
            .collect()
    }

    fn subscribe(&mut self, connection: ConnectionId, client_id: &str, subscribe: &v4::Subscribe) -> Vec<Reaction> {
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        let answer = |pkid, codes| Reaction::now(connection, Reply::Packet(Packet::SubAck(SubAck::new(pkid, codes))));
        let pkid = subscribe.pkid;
        let mut reactions = match self.faults.subscribe {
            SubscribeFault::None => vec![answer(pkid, vec![granted; subscribe.filters.len()])],
            SubscribeFault::Refuse => return vec![answer(pkid, vec![SubscribeReasonCode::Failure])],
            SubscribeFault::Silence => return Vec::new(),
            SubscribeFault::TwoCodes => return vec![answer(pkid, vec![granted; 2])],
            SubscribeFault::Twice => vec![answer(pkid, vec![granted]), answer(pkid, vec![granted])],
            SubscribeFault::OtherId => return vec![answer(pkid % 0xfffe + 1, vec![granted])],
        };
        let session = self.sessions.entry(client_id.to_owned()).or_default();
        for filter in &subscribe.filters {
            if !session.filters.contains(&filter.path) {
                session.filters.push(filter.path.clone());
            }
        }
        reactions.extend(self.flush(connection, client_id, false));
        reactions
    }

    /// Sends what waits for a device; what was sent before is sent again on a new connection.
    fn flush(&mut self, connection: ConnectionId, client_id: &str, anew: bool) -> Vec<Reaction> {
        let Some(session) = self.sessions.get_mut(client_id) else { return Vec::new() };
        let mut outbound = core::mem::take(&mut session.outbound);
        let due = outbound.iter_mut().filter(|message| (anew || !message.sent) && session.wants(&message.topic));
        let reactions = due.map(|message| {
            let dup = core::mem::replace(&mut message.sent, true);
            message.passed = false;
            let mut publish =
                Publish::from_bytes(&*message.topic, QoS::AtLeastOnce, Bytes::copy_from_slice(&message.payload));
            publish.pkid = message.packet_id;
            publish.dup = dup;
            Reaction::now(connection, Reply::Packet(Packet::Publish(publish)))
        });
        let reactions = reactions.collect();
        session.outbound = outbound;
        reactions
    }

    fn drop_connections(&mut self, client_id: &str) -> Vec<Reaction> {
        let current = self.current.get(client_id);
        current.map(|connection| Reaction::now(*connection, Reply::Close)).into_iter().collect()
    }
}

/// Refuses with a return code, also with one that no enumeration knows, and closes.
fn refuse(connection: ConnectionId, after_ms: u64, code: u8) -> Vec<Reaction> {
    vec![
        Reaction::after(connection, after_ms, Reply::Bytes(vec![0x20, 2, 0, code])),
        Reaction::after(connection, after_ms, Reply::Close),
    ]
}
