//! The driver: what a frontend, a network and the time do.

use std::cmp::Ordering;

use rumqttc::mqttbytes::v4;
use steadfast_core::iothub::Received;
use steadfast_core::mqtt::{Decoded, Incoming, decode};
use steadfast_core::{
    Action, Attempt, Failure, Input, Instant, LocalFailure, Outbox, Outcome, Output, ServiceKind, SignRequest, State,
    iothub,
};

use crate::EPOCH_SECS;
use crate::device::{Feed, Inbound, TICK_MS, Told};
use crate::https::Asking;
use crate::service::{ConnectionId, HttpAnswer, HttpRequest, HttpsFault, Reaction, Reply};
use crate::world::World;

/// Most outputs of one drain beside a window of publishes.
const DRAIN: usize = 600;
/// Largest packet a service reads.
pub(crate) const SERVICE_LIMIT: usize = 1 << 20;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Item {
    Wake { device: usize, deadline: u64 },
    Input { device: usize, attempt: Attempt, connection: ConnectionId, what: Arrival },
    ToService { connection: ConnectionId, bytes: Vec<u8> },
    ClientGone { connection: ConnectionId },
    React(Reaction),
    Request { connection: ConnectionId, request: HttpRequest, fault: Option<HttpsFault> },
    Answered { connection: ConnectionId, answer: HttpAnswer },
    Tick { connection: ConnectionId },
}

/// What reaches a device.
#[derive(Debug)]
pub(crate) enum Arrival {
    Signed([u8; 32]),
    Connected,
    Ready,
    Bytes(Vec<u8>),
    Registered(HttpAnswer),
    Failed(Failure),
}

#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(crate) at: u64,
    pub(crate) order: u64,
    pub(crate) item: Item,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// An action, freed from the link it borrows.
enum Deed {
    Sign(Attempt, Result<[u8; 32], LocalFailure>),
    Connect(Attempt, String, ServiceKind, bool),
    Send(Attempt, Vec<u8>),
    Register(Attempt, Asking),
    Close(Attempt),
    Nothing,
}

impl<O: Outbox> World<O> {
    pub(crate) fn schedule(&mut self, at: u64, item: Item) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Scheduled { at, order, item });
    }

    /// Lets the next thing happen, unless it lies beyond `end`; returns whether something did.
    pub(crate) fn step(&mut self, end: u64) -> bool {
        let Some(next) = self.queue.peek().filter(|next| next.at <= end) else { return false };
        self.now = self.now.max(next.at);
        let Some(Scheduled { order, item, .. }) = self.queue.pop() else { return false };
        let device = match &item {
            Item::Wake { device, .. } | Item::Input { device, .. } => Some(*device),
            Item::Tick { connection } | Item::Answered { connection, .. } => {
                self.connections.get(connection).map(|known| known.device)
            }
            Item::Request { .. } | Item::ToService { .. } | Item::ClientGone { .. } | Item::React(_) => None,
        };
        if let Some(asleep) = device.map(|device| self.devices[device].asleep_until).filter(|until| *until > self.now) {
            self.queue.push(Scheduled { at: asleep, order, item });
            return true;
        }
        match item {
            Item::Wake { device, deadline } => self.wake(device, deadline),
            Item::Input { device, attempt, connection, what } => self.arrive(device, attempt, connection, what),
            Item::ToService { connection, bytes } => self.serve(connection, &bytes),
            Item::ClientGone { connection } => self.client_gone(connection),
            Item::React(reaction) => self.react(reaction),
            Item::Request { connection, request, fault } => self.requested(connection, &request, fault),
            Item::Answered { connection, answer } => self.answered(connection, &answer),
            Item::Tick { connection } => self.tick(connection),
        }
        true
    }

    fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    pub(crate) fn unix_secs(&self) -> u64 {
        EPOCH_SECS + (self.now - self.start_ms) / 1000
    }

    fn wake(&mut self, number: usize, deadline: u64) {
        let now = self.instant();
        let device = &mut self.devices[number];
        if device.armed != Some(deadline) {
            return;
        }
        device.armed = None;
        if device.link.next_deadline().is_none_or(|deadline| deadline.at > now) {
            self.arm(number);
            return;
        }
        device.spins =
            if device.spins.0 == now.as_millis() { (device.spins.0, device.spins.1 + 1) } else { (now.as_millis(), 0) };
        if device.spins.1 > 50 {
            self.fail(number, "timers fire again and again at one instant");
        }
        device.link.handle_timeout(now);
        self.drain(number);
        if self.devices[number].link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            self.fail(number, "a deadline stays in the past after handle_timeout");
        }
    }

    /// Arms a wake-up for the link's deadline.
    fn arm(&mut self, number: usize) {
        let lag = self.devices[number].timer_lag_ms;
        let lag = if lag == 0 { 0 } else { self.rng.between(0, lag) };
        let now = self.now;
        let device = &mut self.devices[number];
        let Some(deadline) = device.link.next_deadline() else { return };
        let at = deadline.at.as_millis().max(now);
        if device.armed.is_none_or(|armed| at < armed) {
            device.armed = Some(at);
            self.schedule(at + lag, Item::Wake { device: number, deadline: at });
        }
    }

    /// Does what the link asks for until it waits.
    pub(crate) fn drain(&mut self, number: usize) {
        let most = DRAIN + usize::from(self.devices[number].link.link().profile().config().session.window);
        for _ in 0..most {
            let room = self.room(number);
            let device = &mut self.devices[number];
            let deed = match device.link.poll_output_within(room) {
                Output::Wait(deadline) => {
                    if deadline.map(|deadline| deadline.at) != device.link.next_deadline().map(|deadline| deadline.at) {
                        self.fail(number, "Wait and next_deadline differ");
                    }
                    self.check(number);
                    self.arm(number);
                    return;
                }
                Output::Event(event) => {
                    self.note(number, event);
                    continue;
                }
                Output::Action(action) => match action {
                    Action::Sign { attempt, request: SignRequest { role, refusals, text, .. } } => {
                        let second = device.choices[usize::from(role == ServiceKind::Hub)].choose(refusals) == 1;
                        let key = device.second_key.as_ref().filter(|_| second).or(device.key.as_ref());
                        let signature = key.map_or([0; 32], |key| key.sign(&text));
                        let chip = device.chip.as_ref().filter(|_| role == ServiceKind::Hub);
                        Deed::Sign(attempt, chip.map_or(Ok(signature), |chip| chip.sign(role, &text)))
                    }
                    Action::Connect { attempt, endpoint } => {
                        Deed::Connect(attempt, endpoint.host.to_owned(), endpoint.role, endpoint.https)
                    }
                    Action::Send { attempt, packet } => {
                        let mut bytes = vec![0; packet.encoded_len().unwrap_or(0)];
                        let len = packet.encode_to_slice(&mut bytes);
                        assert_eq!(len, Ok(bytes.len()), "seed {}: {packet:?}", self.seed);
                        Deed::Send(attempt, bytes)
                    }
                    Action::Register { attempt, request } => Deed::Register(attempt, Asking::of(&request)),
                    Action::Close { attempt, .. } => Deed::Close(attempt),
                    Action::SaveAssignment(assignment) => {
                        device.saved = Some(assignment.clone());
                        Deed::Nothing
                    }
                    Action::SaveBackoff(memory) => {
                        device.memory = Some(memory);
                        Deed::Nothing
                    }
                    _ => Deed::Nothing,
                },
                _ => Deed::Nothing,
            };
            match deed {
                Deed::Sign(attempt, signature) => self.sign(number, attempt, signature),
                Deed::Connect(attempt, host, role, https) => self.connect(number, attempt, host, role, https),
                Deed::Send(attempt, bytes) => self.send(number, attempt, bytes),
                Deed::Register(attempt, asking) => self.register(number, attempt, asking),
                Deed::Close(attempt) => self.close(number, attempt),
                Deed::Nothing => {}
            }
        }
        self.fail(number, "the outputs do not end");
    }

    fn note(&mut self, number: usize, event: iothub::Event) {
        let now = self.now;
        let device = &mut self.devices[number];
        let iothub::Event::Link(event) = event else {
            device.service_events.push((now, event));
            return;
        };
        device.events.push((now, event));
        let mut told = device.oracle.event(&event);
        for (id, outcome) in device.link.link().outbox().take_ended() {
            if let Outcome::Dropped(reason) = outcome {
                told = told.and_then(|()| device.oracle.left(id, reason));
            }
        }
        if let Err(broken) = told {
            self.fail(number, &broken);
        }
    }

    /// Checks what must hold when the link waits.
    pub(crate) fn check(&mut self, number: usize) {
        let device = &mut self.devices[number];
        let (up, busy) = (device.link.link().state() == State::Up, !device.oracle.open.is_empty());
        self.up = self.up + usize::from(up) - usize::from(core::mem::replace(&mut device.up, up));
        self.busy = self.busy + usize::from(busy) - usize::from(core::mem::replace(&mut device.busy, busy));
        let device = &self.devices[number];
        let queued = device.link.link().outbox().usage().messages;
        if let Err(broken) = device.oracle.books(&device.link.link().ledger(), queued) {
            self.fail(number, &broken);
        }
        let status = device.link.link().status();
        if status.in_flight > device.link.link().profile().config().session.window {
            self.fail(number, "more in flight than the window allows");
        }
        let alone = (device.oracle.open.first(), device.oracle.open.last());
        if alone != (device.link.link().outbox().first().as_ref(), device.link.link().outbox().last().as_ref()) {
            self.fail(number, "a message is neither queued nor delivered nor dropped");
        }
    }

    fn room(&self, number: usize) -> usize {
        let device = &self.devices[number];
        let Some(uplink) = device.uplink else { return usize::MAX };
        let attempt = device.link.link().attempt();
        let backlog = self.own(number, attempt).map_or(0, |id| self.connections[&id].backlog.len());
        uplink.buffer.saturating_sub(backlog)
    }

    /// Returns the connection of an attempt whose end the frontend still has.
    pub(crate) fn own(&self, number: usize, attempt: Attempt) -> Option<ConnectionId> {
        let open = self.open.get(&number)?;
        open.iter().copied().find(|id| self.connections.get(id).is_some_and(|known| known.attempt == attempt))
    }

    fn send(&mut self, number: usize, attempt: Attempt, bytes: Vec<u8>) {
        let Some(id) = self.own(number, attempt) else {
            self.fail(number, &format!("{bytes:?} is sent on attempt {attempt}, which has no connection"));
        };
        self.watch(number, id, &bytes);
        let uplink = self.devices[number].uplink.is_some();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !uplink {
            self.carry(id, bytes);
            return;
        }
        connection.backlog.extend_from_slice(&bytes);
        if !core::mem::replace(&mut connection.ticking, true) {
            self.schedule(self.now + TICK_MS, Item::Tick { connection: id });
        }
    }

    /// Checks what a device sends where it sends it.
    fn watch(&mut self, number: usize, id: ConnectionId, bytes: &[u8]) {
        let mut stream = bytes::BytesMut::from(bytes);
        let packet = v4::Packet::read(&mut stream, SERVICE_LIMIT);
        let mut broken = match (&packet, stream.is_empty()) {
            (Err(error), _) => Some(format!("an independent codec does not read {bytes:?}: {error}")),
            (_, false) => Some(format!("an independent codec leaves bytes of {bytes:?}")),
            _ => None,
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let connect = matches!(packet, Ok(v4::Packet::Connect(_)));
        if connection.https {
            broken = broken.or(Some(format!("{packet:?} on a connection of HTTPS")));
        }
        if !connection.ready {
            broken = broken.or(Some(format!("{packet:?} before the connection is ready")));
        }
        if connect == connection.sent_connect {
            broken = broken.or(Some(format!("{packet:?} out of its place: CONNECT is the first packet, once")));
        }
        if connection.sent_disconnect {
            broken = broken.or(Some(format!("{packet:?} after DISCONNECT")));
        }
        connection.sent_connect = true;
        connection.sent_disconnect = matches!(packet, Ok(v4::Packet::Disconnect));
        // What goes to a service of the hub is no message.
        if let (Ok(v4::Packet::Publish(publish)), ServiceKind::Hub) = (&packet, connection.role)
            && !publish.topic.starts_with("$iothub/")
        {
            let key = message_key(&publish.topic);
            let sends = self.devices[number].oracle.sends(&key, publish.pkid, publish.dup, &publish.payload);
            broken = broken.or(sends.err());
        }
        if let Some(broken) = broken {
            self.fail(number, &broken);
        }
    }

    /// Brings bytes on their way to the service.
    fn carry(&mut self, id: ConnectionId, mut bytes: Vec<u8>) {
        let latency = self.network.draw(&mut self.rng);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let at = (self.now + latency).max(connection.last_to_service);
        connection.last_to_service = at;
        let hub = connection.role == ServiceKind::Hub;
        let cut = hub && self.cut(0, &mut bytes);
        self.schedule(at, Item::ToService { connection: id, bytes });
        if cut {
            // What was on its way arrives before the break.
            self.schedule(at, Item::React(Reaction { connection: id, after_ms: 0, reply: Reply::Close }));
        }
    }

    /// Lets through what a cut lets through; returns whether the connection breaks there.
    pub(crate) fn cut(&mut self, direction: usize, bytes: &mut Vec<u8>) -> bool {
        let Some(left) = self.cuts[direction] else { return false };
        let cut = bytes.len() >= left;
        bytes.truncate(left);
        self.cuts[direction] = if cut { None } else { Some(left - bytes.len()) };
        cut
    }

    fn tick(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|known| known.here) else { return };
        let number = connection.device;
        let Some(uplink) = self.devices[number].uplink else {
            let rest = core::mem::take(&mut connection.backlog);
            connection.ticking = false;
            self.carry(id, rest);
            self.drain(number);
            return;
        };
        let moved = connection.backlog.len().min(uplink.bytes_per_tick);
        let bytes: Vec<u8> = connection.backlog.drain(..moved).collect();
        let (pending, attempt) = (connection.backlog.len(), connection.attempt);
        connection.ticking = pending > 0;
        if pending > 0 {
            self.schedule(self.now + TICK_MS, Item::Tick { connection: id });
        }
        if moved > 0 {
            self.carry(id, bytes);
            let now = self.instant();
            let _ = self.devices[number].link.handle_input(Input::Wrote { pending }, attempt, now);
        }
        self.drain(number);
    }

    fn close(&mut self, number: usize, attempt: Attempt) {
        let Some(id) = self.own(number, attempt) else { return };
        self.let_go(number, id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let at = self.now.max(connection.last_to_service) + 1;
        self.schedule(at, Item::ClientGone { connection: id });
    }

    /// The frontend has no connection any more.
    fn let_go(&mut self, number: usize, id: ConnectionId) {
        if let Some(open) = self.open.get_mut(&number) {
            open.retain(|open| *open != id);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.here = false;
        }
    }

    fn arrive(&mut self, number: usize, attempt: Attempt, id: ConnectionId, what: Arrival) {
        let now = self.instant();
        let link = &mut self.devices[number].link;
        match what {
            Arrival::Signed(signature) => drop(link.handle_input(Input::Signed(&signature), attempt, now)),
            Arrival::Connected => drop(link.handle_input(Input::Connected, attempt, now)),
            Arrival::Ready => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.ready = true;
                }
                let _ = link.handle_input(Input::Ready, attempt, now);
            }
            Arrival::Registered(HttpAnswer { status, retry_after_secs, body }) => {
                let body = body.as_bytes();
                let _ = link.handle_input(Input::Registered { status, retry_after_secs, body }, attempt, now);
            }
            Arrival::Failed(failure) => {
                let known = self.connections.get(&id).is_some_and(|connection| connection.here);
                if id == 0 || known {
                    self.let_go(number, id);
                    self.connections.remove(&id);
                }
                let _ = self.devices[number].link.handle_input(Input::Failed(failure), attempt, now);
            }
            Arrival::Bytes(bytes) => {
                self.read(number, attempt, id, &bytes);
                return;
            }
        }
        self.drain(number);
    }

    /// Hands bytes to the link as the contract says: what it does not take is handed in again after a drain.
    fn read(&mut self, number: usize, attempt: Attempt, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.here) else {
            // A late answer: the frontend may still hand it in, and it must change nothing.
            let now = self.instant();
            let taken = self.devices[number].link.handle_input(Input::Bytes(bytes), attempt, now);
            assert_eq!(taken.received, None, "seed {}: a late answer reached the application", self.seed);
            self.drain(number);
            return;
        };
        let mut held = core::mem::take(&mut connection.received);
        held.extend_from_slice(bytes);
        let mut from = 0;
        for _ in 0..=held.len() {
            let taken = self.hand_in(number, attempt, &held[from..]);
            from += taken.0;
            self.drain(number);
            if from >= held.len() || taken.1 {
                break;
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.received = held.split_off(from);
        }
    }

    /// Returns how many bytes the link took, and whether it waits for more.
    fn hand_in(&mut self, number: usize, attempt: Attempt, bytes: &[u8]) -> (usize, bool) {
        let now = self.instant();
        let hub = self.own(number, attempt).is_some_and(|id| self.connections[&id].role == ServiceKind::Hub);
        let device = &mut self.devices[number];
        let limit = device.link.link().profile().config().session.max_inbound;
        let (len, waits, received) = if device.feed == Feed::Packets {
            match decode(bytes, limit) {
                Ok(Decoded::Packet { packet, len }) => {
                    (len, false, device.link.handle_input(Input::Packet(packet), attempt, now).received)
                }
                Ok(Decoded::Incomplete { .. }) => (0, true, None),
                Err(error) => {
                    let failed = Input::Failed(Failure::Malformed(error));
                    let _ = device.link.handle_input(failed, attempt, now);
                    if let Some(id) = self.own(number, attempt) {
                        self.let_go(number, id);
                        self.schedule(self.now + 1, Item::ClientGone { connection: id });
                    }
                    return (bytes.len(), false);
                }
            }
        } else {
            let taken = device.link.handle_input(Input::Bytes(bytes), attempt, now);
            (taken.bytes, taken.bytes == 0 && taken.needed.is_some(), taken.received)
        };
        let json = |text: &str| serde_json::from_str(text).expect("services send good JSON");
        let message = |topic: String, payload: &[u8], packet_id, dup, duplicate| {
            Ok(Inbound { attempt, topic, payload: payload.into(), packet_id, dup, duplicate })
        };
        let received = received.map(|received| match received {
            Received::Link(steadfast_core::Received::Message { topic, payload, packet_id, dup }) => {
                message(topic.into(), payload, packet_id, dup, false)
            }
            Received::CloudToDevice { properties, payload, packet_id, dup, duplicate } => {
                let topic = format!("devices/{}/messages/devicebound/{properties}", device.id);
                message(topic, payload, packet_id, dup, duplicate)
            }
            Received::Input { name, properties, payload, packet_id, dup } => {
                let name = String::from_utf8(name.bytes().collect()).expect("a name");
                let topic = format!("inputs/{name}/{properties}");
                message(topic, payload, packet_id, dup, false)
            }
            Received::Link(steadfast_core::Received::ProvisioningPayload(payload)) => {
                message(String::new(), payload, None, false, false)
            }
            Received::Twin(twin) => {
                Err(Told::Twin { desired: json(twin.desired), version: twin.desired_version, reset: twin.reset })
            }
            Received::Desired { version, patch } => Err(Told::Desired { patch: json(patch), version }),
            Received::Call { call, name, payload } => {
                let name = String::from_utf8(name.bytes().collect()).expect("a name");
                Err(Told::Call { call, name, payload: payload.into() })
            }
            other @ (Received::Link(_) | _) => panic!("the world does not know {other:?}"),
        });
        let inbound = match received {
            Some(Ok(inbound)) => Some(inbound),
            Some(Err(told)) => {
                device.told.push((self.now, told));
                None
            }
            None => None,
        };
        let mut rest = bytes.get(..len).unwrap_or(&[]);
        while let Ok(Decoded::Packet { packet, len }) = decode(rest, limit) {
            if let (Incoming::ConnAck { session_present, code: 0 }, true) = (packet, hub) {
                device.oracle.greeted(session_present);
            }
            rest = rest.get(len..).unwrap_or(&[]);
        }
        if let Some(inbound) = inbound {
            let packet_id = inbound.packet_id.filter(|_| device.acknowledges);
            device.inbound.push(inbound);
            if let Some(packet_id) = packet_id {
                assert!(device.link.acknowledge(packet_id, attempt, now), "seed {}: an unknown message", self.seed);
            }
        }
        (len, waits)
    }
}

/// What names a message to a service: the message id in its topic, or a broker's topic.
pub(crate) fn message_key(topic: &str) -> String {
    match topic.split_once("$.mid=") {
        Some((_, rest)) => rest.split('&').next().unwrap_or(rest).to_owned(),
        None => topic.to_owned(),
    }
}
