//! The world, as scenarios see it.

use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::{Destination, Failure, Instant, Message, MessageId, Outbox, PublishError, RamOutbox, State};

use crate::builder::Builder;
use crate::device::{Connection, Device, DeviceLink, Signing, TICK_MS, Uplink};
use crate::drive::{Arrival, Item, Scheduled};
use crate::https::Chip;
use crate::network::{Network, Reach};
use crate::rng::Rng;
use crate::service::{ConnectionId, Dps, Hub, Key, Reaction, Twin};

/// Outbox of a device unless a scenario brings its own.
pub type DefaultOutbox = RamOutbox<64, 16384>;

/// Returns the host name of a hub.
pub(crate) fn hub_name(number: usize) -> String {
    format!("hub-{}.azure-devices.net", char::from(b'a' + u8::try_from(number).unwrap_or(25)))
}

/// Devices, hubs, a provisioning service, a network and the time.
///
/// Methods without a number speak of the first device. Everything that happens is a function of the seed. After every
/// step the oracle checks what the link promises; a broken promise panics with the seed, the time and the latest
/// events.
#[derive(Debug)]
pub struct World<O = DefaultOutbox> {
    pub(crate) seed: u64,
    pub(crate) start_ms: u64,
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) network: Network,
    pub(crate) hubs: Vec<Hub>,
    pub(crate) dps: Dps,
    pub(crate) devices: Vec<Device<O>>,
    pub(crate) connections: HashMap<ConnectionId, Connection>,
    /// Connections whose end a frontend still has, by device.
    pub(crate) open: HashMap<usize, Vec<ConnectionId>>,
    pub(crate) next_connection: ConnectionId,
    pub(crate) queue: BinaryHeap<Scheduled>,
    pub(crate) order: u64,
    /// Bytes that still pass towards services, and towards devices, before connections break.
    pub(crate) cuts: [Option<usize>; 2],
    /// Devices that are up, and devices that have messages.
    pub(crate) up: usize,
    pub(crate) busy: usize,
}

impl World {
    /// Begins to set up a world.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<O: Outbox> World<O> {
    pub(crate) fn new(
        seed: u64,
        start_ms: u64,
        rng: Rng,
        network: Network,
        hubs: Vec<Hub>,
        dps: Dps,
        devices: Vec<Device<O>>,
    ) -> Self {
        let busy = devices.iter().filter(|device| device.busy).count();
        Self {
            seed,
            start_ms,
            now: start_ms,
            rng,
            network,
            hubs,
            dps,
            devices,
            connections: HashMap::new(),
            open: HashMap::new(),
            next_connection: 0,
            queue: BinaryHeap::new(),
            order: 0,
            cuts: [None; 2],
            up: 0,
            busy,
        }
    }

    /// Returns the time in milliseconds.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.now
    }

    /// Returns the time as links count it.
    #[must_use]
    pub const fn now(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    /// Returns how many devices there are.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Returns the world's generator, for draws of a scenario.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Returns the network.
    pub const fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Returns a hub.
    #[must_use]
    pub fn hub(&self, number: usize) -> &Hub {
        &self.hubs[number]
    }

    /// Returns a hub, to change what goes wrong there.
    pub fn hub_mut(&mut self, number: usize) -> &mut Hub {
        &mut self.hubs[number]
    }

    /// Returns the provisioning service.
    #[must_use]
    pub const fn dps(&self) -> &Dps {
        &self.dps
    }

    /// Returns the provisioning service, to change what goes wrong there.
    pub const fn dps_mut(&mut self) -> &mut Dps {
        &mut self.dps
    }

    // Commands.

    /// Starts every link.
    pub fn start(&mut self) {
        for number in 0..self.devices.len() {
            self.start_device(number);
        }
    }

    /// Starts the link of one device.
    pub fn start_device(&mut self, number: usize) {
        self.command(number, |link, now| link.start(now));
    }

    /// Stops the first link, which may send what is queued for `drain`.
    pub fn stop(&mut self, drain: Duration) {
        self.command(0, |link, now| link.stop(drain, now));
    }

    /// Orders a registration.
    pub fn reprovision(&mut self) {
        self.command(0, |link, now| link.reprovision(now));
    }

    /// Sets the wall clock of the first device wrong by so many seconds.
    pub fn set_clock(&mut self, offset_secs: i64) {
        let unix_secs = self.unix_secs().saturating_add_signed(offset_secs);
        self.command(0, |link, now| link.set_wall_clock(unix_secs, now));
    }

    /// Publishes `body` and demands that the link takes it.
    ///
    /// # Panics
    /// When it does not.
    pub fn publish(&mut self, body: &str) -> MessageId {
        match self.try_publish(body.as_bytes(), None) {
            Ok(id) => id,
            Err(error) => self.fail(0, &format!("{body:?} was not taken: {error}")),
        }
    }

    /// Publishes so many messages, with their numbers as bodies.
    pub fn publish_many(&mut self, count: usize) -> Vec<MessageId> {
        (0..count).map(|number| self.publish(&number.to_string())).collect()
    }

    /// Publishes `body`, of use for `expires_after` where that is given.
    ///
    /// # Errors
    /// What the link says.
    pub fn try_publish(&mut self, body: &[u8], expires_after: Option<Duration>) -> Result<MessageId, PublishError> {
        self.publish_on(0, body, expires_after)
    }

    /// Publishes `body` as an alarm and demands that the link takes it.
    ///
    /// # Panics
    /// When it does not.
    pub fn publish_urgent(&mut self, body: &str) -> MessageId {
        match self.publish_as(0, Message::telemetry("", body.as_bytes()).urgent()) {
            Ok(id) => id,
            Err(error) => self.fail(0, &format!("the alarm {body:?} was not taken: {error}")),
        }
    }

    /// Publishes on one device.
    ///
    /// # Errors
    /// What the link says.
    pub fn publish_on(
        &mut self,
        number: usize,
        body: &[u8],
        expires_after: Option<Duration>,
    ) -> Result<MessageId, PublishError> {
        self.publish_as(number, Message { expires_after, ..Message::telemetry("", body) })
    }

    /// Publishes a telemetry message on one device; a broker gets it under a topic of its own.
    ///
    /// # Errors
    /// What the link says.
    pub fn publish_as(&mut self, number: usize, message: Message<'_>) -> Result<MessageId, PublishError> {
        let now = self.now();
        let device = &mut self.devices[number];
        device.published += 1;
        let broker = matches!(device.link.link().profile().config().service, steadfast_core::Service::Broker { .. });
        let topic = format!("pumps/{}", device.published);
        let message = if broker { Message { destination: Destination::Topic(&topic), ..message } } else { message };
        let result = device.link.publish(message, now);
        if let Ok(id) = result {
            let key = if broker { topic.clone() } else { id.to_string() };
            if let Err(broken) = device.oracle.accepted(id, key, message.payload.to_vec()) {
                self.fail(number, &broken);
            }
        }
        self.drain(number);
        result
    }

    /// Calls the link of a device as an application or a frontend does, and drains its outputs.
    pub fn command<R>(&mut self, number: usize, call: impl FnOnce(&mut DeviceLink<O>, Instant) -> R) -> R {
        let now = self.now();
        let result = call(&mut self.devices[number].link, now);
        self.drain(number);
        result
    }

    // The device's frontend.

    /// Gives the first device a secondary key beside the one it has.
    pub fn give_second_key(&mut self) {
        let key = SymmetricKey::from_bytes(b"the secondary key of a device!!!").expect("a good length");
        self.devices[0].second_key = Some(Rc::new(key));
    }

    /// Lets a hub know the first device by its secondary key only; its connections are closed.
    pub fn take_first_key_away(&mut self, hub: usize) {
        let (id, _) = self.identity();
        let key = self.devices[0].second_key.clone();
        self.hub_acts(hub, |hub| {
            hub.add(&id, key);
            hub.set_enabled(&id, true)
        });
    }

    /// Lets the provisioning service know the first device by its secondary key only.
    pub fn take_first_key_away_at_dps(&mut self) {
        let (id, _) = self.identity();
        self.dps.set_key(&id, self.devices[0].second_key.clone());
    }

    /// Returns the TPM of the first device.
    ///
    /// # Panics
    /// When it has none.
    pub fn chip(&mut self) -> &mut Chip {
        self.devices[0].chip.as_mut().expect("the builder gave it one")
    }

    /// Sets how the holder of the key answers.
    pub fn set_signing(&mut self, signing: Signing) {
        self.devices[0].signing = signing;
    }

    /// Sets how the key holder of every device answers.
    pub fn set_all_signing(&mut self, signing: Signing) {
        for device in &mut self.devices {
            device.signing = signing;
        }
    }

    /// Sets how late timers fire, at most.
    pub fn set_timer_lag_ms(&mut self, lag_ms: u64) {
        self.devices[0].timer_lag_ms = lag_ms;
    }

    /// Sets whether the application acknowledges what it receives at once. Default true.
    pub fn set_acknowledging(&mut self, acknowledges: bool) {
        self.devices[0].acknowledges = acknowledges;
    }

    /// Gives the frontend a send buffer and a slow uplink; 0 bytes a second is a service that does not read.
    pub fn set_uplink(&mut self, buffer: usize, bytes_per_sec: usize) {
        let ticks = usize::try_from(1000 / TICK_MS).unwrap_or(1);
        self.devices[0].uplink = Some(Uplink { buffer, bytes_per_tick: bytes_per_sec / ticks });
    }

    /// Suspends the first device: its time goes on and it does nothing.
    pub fn suspend(&mut self, time: Duration) {
        self.devices[0].asleep_until = self.now + millis(time);
    }

    // Faults.

    /// Takes a hub off the network: connections are reset, new ones refused.
    pub fn hub_down(&mut self, number: usize) {
        let host = self.hubs[number].name().to_owned();
        self.network.set(&host, Reach::Refused);
        self.reset_connections(&host);
    }

    /// Brings a hub back.
    pub fn hub_up(&mut self, number: usize) {
        let host = self.hubs[number].name().to_owned();
        self.network.set(&host, Reach::Open);
    }

    /// Resets every connection; what is under way is lost.
    pub fn reset_all(&mut self) {
        self.reset_connections("");
    }

    /// Breaks the connections once so many more bytes have gone towards hubs.
    pub const fn cut_to_service(&mut self, bytes: usize) {
        self.cuts[0] = Some(bytes);
    }

    /// Breaks the connections once so many more bytes have come from hubs.
    pub const fn cut_to_device(&mut self, bytes: usize) {
        self.cuts[1] = Some(bytes);
    }

    /// Lets nothing pass on the connections there are, without telling anybody.
    pub fn freeze(&mut self) {
        self.connections.values_mut().for_each(|connection| connection.frozen = true);
    }

    /// Lets what a hub does on its own happen, such as a message to a device.
    pub fn hub_acts(&mut self, number: usize, act: impl FnOnce(&mut Hub) -> Vec<Reaction>) {
        let reactions = act(&mut self.hubs[number]);
        for reaction in reactions {
            self.schedule(self.now + reaction.after_ms, Item::React(reaction));
        }
    }

    /// Enrolls the first device for another hub, where it is registered; the old one deletes it.
    pub fn move_device(&mut self, from: usize, to: usize) {
        let (id, key) = self.identity();
        let hub = self.hubs[to].name().to_owned();
        // A device with a TPM is made known to its hub by its registration.
        if self.devices[0].chip.is_none() {
            self.hubs[to].add(&id, key);
        }
        let unix_secs = self.unix_secs();
        self.dps.assign(&id, &hub, unix_secs);
        self.hub_acts(from, |hub| hub.remove(&id));
    }

    /// Registers the first device at another hub as well, without telling anybody.
    pub fn add_to_hub(&mut self, number: usize) {
        let (id, key) = self.identity();
        self.hubs[number].add(&id, key);
    }

    /// Enables or disables the first device at a hub.
    pub fn set_enabled(&mut self, hub: usize, enabled: bool) {
        let (id, _) = self.identity();
        self.hub_acts(hub, |hub| hub.set_enabled(&id, enabled));
    }

    /// Changes the first device's desired properties at a hub, and tells the device unless the notification is `lost`.
    pub fn desire(&mut self, hub: usize, patch: &serde_json::Value, lost: bool) {
        let id = self.client_id(0);
        self.hub_acts(hub, |hub| hub.desire(&id, patch, lost));
    }

    /// Returns the first device's twin at a hub.
    pub fn twin(&mut self, hub: usize) -> Twin {
        let id = self.client_id(0);
        self.hubs[hub].twin(&id)
    }

    /// Deletes the first device's twin at a hub and makes it anew.
    pub fn renew_twin(&mut self, hub: usize) {
        let id = self.client_id(0);
        self.hubs[hub].renew_twin(&id);
    }

    /// Calls a method of the first device.
    pub fn call(&mut self, hub: usize, method: &str, request: &str, body: &[u8]) {
        let id = self.client_id(0);
        self.hub_acts(hub, |hub| hub.call(&id, method, request, body));
    }

    /// Sends the first device a message with properties.
    pub fn send_with(&mut self, hub: usize, properties: &str, body: &str) {
        let (id, _) = self.identity();
        let topic = format!("devices/{id}/messages/devicebound/{properties}");
        self.hub_acts(hub, |hub| hub.send_to(&id, &topic, body.as_bytes(), true));
    }

    /// Sends the first device a message.
    pub fn send_to_device(&mut self, hub: usize, body: &str, qos1: bool) {
        let (id, _) = self.identity();
        let topic = format!("devices/{id}/messages/devicebound/");
        self.hub_acts(hub, |hub| hub.send_to(&id, &topic, body.as_bytes(), qos1));
    }

    /// Sends an input of the first device's module a message.
    pub fn send_to_input(&mut self, hub: usize, input: &str, properties: &str, body: &str) {
        let id = self.client_id(0);
        let module = id.replacen('/', "/modules/", 1);
        let topic = format!("devices/{module}/inputs/{input}/{properties}");
        self.hub_acts(hub, |hub| hub.send_to(&id, &topic, body.as_bytes(), true));
    }

    /// The name of a device or its module at the hub.
    pub(crate) fn client_id(&self, number: usize) -> String {
        let device = &self.devices[number];
        match &device.link.link().profile().config().module_id {
            Some(module) => format!("{}/{module}", device.id),
            None => device.id.clone(),
        }
    }

    fn identity(&self) -> (String, Option<Key>) {
        (self.devices[0].id.clone(), self.devices[0].key.clone())
    }

    fn reset_connections(&mut self, host: &str) {
        let of = |known: &Connection| known.there && (host.is_empty() || known.host == host);
        let mut broken: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, known)| of(known)).map(|(id, _)| *id).collect();
        broken.sort_unstable();
        for id in broken {
            let Some(known) = self.connections.get_mut(&id) else { continue };
            known.there = false;
            let at = self.now.max(known.last_to_device);
            let (device, attempt, frozen, role) = (known.device, known.attempt, known.frozen, known.role);
            self.tell_service(role, id);
            if !frozen {
                let what = Arrival::Failed(Failure::Lost);
                self.schedule(at, Item::Input { device, attempt, connection: id, what });
            }
        }
    }

    // Time.

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + millis(time);
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`; returns how much.
    ///
    /// # Panics
    /// When that does not come about within `limit`.
    pub fn run_until(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        let end = start + millis(limit);
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                self.fail(0, &format!("not {what} within {limit:?}"));
            }
        }
        Duration::from_millis(self.now - start)
    }

    /// Lets time pass until every link is up, at most a day; returns how much.
    pub fn run_until_up(&mut self) -> Duration {
        self.run_until("up", Duration::from_secs(86_400), |world| world.up == world.devices.len())
    }

    /// Lets time pass until every link is up, at most `limit`; returns how much.
    pub fn run_until_up_within(&mut self, limit: Duration) -> Duration {
        self.run_until("up", limit, |world| world.up == world.devices.len())
    }

    /// Lets time pass until the first link is not up, at most a day; returns how much.
    pub fn run_until_down(&mut self) -> Duration {
        self.run_until("down", Duration::from_secs(86_400), |world| world.state() != State::Up)
    }

    /// Lets time pass until every accepted message was delivered or dropped, at most ten days.
    pub fn run_until_delivered(&mut self) -> Duration {
        self.run_until("delivered", Duration::from_secs(864_000), |world| world.busy == 0)
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
