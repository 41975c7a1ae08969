//! The forms of the device, alike for the scenarios.

use std::rc::Rc;
use std::time::Duration;

use steadfast_core::dps::topics::GLOBAL_HOST;
use steadfast_core::{
    AnyProfile, Assignment, BackoffSnapshot, Config, Credential, DEFAULT_PORT, Event, Message, PublishError, RamOutbox,
    Seed, Service, State, Subscriptions, iothub, transport,
};
#[cfg(feature = "embedded-svc")]
use steadfast_esp32::mqtt_client::ClientDialler;
use steadfast_esp32::{Ack, Buffers, Device, Poll, nonblocking};

#[cfg(feature = "embedded-svc")]
use crate::client::FakeClients;
use crate::rig::websocket::{AsyncWebDialler, WebDialler};
use crate::rig::{self, AsyncDialler, Clock, DEVICE, Dialler, Rig, SCOPE, Shared, run_for};

pub(crate) static CONFIG: Config<&str> = config(DEFAULT_PORT);
static WEB_CONFIG: Config<&str> = config(transport::PORT);

const fn config(port: u16) -> Config<&'static str> {
    let service = Service::Provisioned { host: GLOBAL_HOST, id_scope: SCOPE, registration_id: DEVICE };
    let mut config = Config::new(service, Credential::SharedKey);
    config.session.max_inbound = 1024;
    config.session.max_outbound = 1024;
    config.subscriptions = Subscriptions::CLOUD_TO_DEVICE;
    config.port = port;
    config
}

pub(crate) type Outbox = RamOutbox<8, 1024>;
pub(crate) type Settings = AnyProfile<&'static Config<&'static str>>;

/// What a poll brought, without borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Idle,
    Event(Event),
    Message(String, Vec<u8>, Ack),
}

/// Either form of the device.
pub(crate) trait Frontend {
    /// Every how many bytes trouble is made in a scenario that has it everywhere. Frames make twice as many of the same.
    const STRIDE: usize = 1;

    fn new(net: &Shared) -> Self;
    fn start(&mut self);
    fn wake(&mut self);
    fn poll(&mut self, timeout: Duration) -> Got;
    fn send(&mut self, payload: &str) -> Result<(), PublishError>;
    fn acknowledge(&mut self, ack: Ack) -> bool;
    fn stop(&mut self);
    fn reprovision(&mut self);
    fn network_lost(&mut self);
    fn restore(&mut self, assignment: Assignment);
    fn remember(&mut self, memory: BackoffSnapshot);
    fn state(&self) -> State;
    fn delivered(&self) -> u64;
    fn balances(&self) -> bool;
}

pub(crate) struct Blocking(pub(crate) Device<'static, Rig, Dialler, Outbox, Settings>);
pub(crate) struct Asynchronous(pub(crate) nonblocking::Device<'static, Rig, AsyncDialler, Clock, Outbox, Settings>);

pub(crate) fn buffers() -> Buffers<'static> {
    Buffers { rx: vec![0; 1024].leak(), tx: vec![0; 2048].leak() }
}

pub(crate) fn got(poll: Poll<'_>) -> Got {
    match poll {
        Poll::Event(iothub::Event::Link(event)) => Got::Event(event),
        Poll::Message(message) => Got::Message(message.topic.to_owned(), message.payload.to_vec(), message.ack),
        Poll::Event(_) | Poll::ProvisioningPayload(_) | Poll::Idle | _ => Got::Idle,
    }
}

macro_rules! commands {
    () => {
        fn start(&mut self) {
            self.0.start();
        }

        fn wake(&mut self) {
            self.0.wake();
        }

        fn send(&mut self, payload: &str) -> Result<(), PublishError> {
            self.0.send(Message::telemetry("", payload.as_bytes())).map(drop)
        }

        fn acknowledge(&mut self, ack: Ack) -> bool {
            self.0.acknowledge(ack)
        }

        fn stop(&mut self) {
            self.0.stop(Duration::from_secs(30));
        }

        fn reprovision(&mut self) {
            self.0.reprovision();
        }

        fn network_lost(&mut self) {
            self.0.network_lost();
        }

        fn restore(&mut self, assignment: Assignment) {
            self.0.restore_assignment(assignment);
        }

        fn remember(&mut self, memory: BackoffSnapshot) {
            self.0.restore_backoff(memory);
        }

        fn state(&self) -> State {
            self.0.link().state()
        }

        fn delivered(&self) -> u64 {
            self.0.link().ledger().delivered
        }

        fn balances(&self) -> bool {
            self.0.link().ledger().balances()
        }
    };
}

impl Frontend for Blocking {
    fn new(net: &Shared) -> Self {
        let (board, dialler) = (Rig(Rc::clone(net)), Dialler(Rc::clone(net)));
        Self(
            Device::new(
                board,
                dialler,
                AnyProfile::new(&CONFIG, [0; 256]),
                Outbox::new(),
                Seed::from_number(7),
                buffers(),
            )
            .unwrap(),
        )
    }

    fn poll(&mut self, timeout: Duration) -> Got {
        got(self.0.poll(timeout))
    }

    commands!();
}

impl Frontend for Asynchronous {
    fn new(net: &Shared) -> Self {
        let (board, dialler, clock) = (Rig(Rc::clone(net)), AsyncDialler(Rc::clone(net)), Clock(Rc::clone(net)));
        let seed = Seed::from_number(7);
        Self(
            nonblocking::Device::new(
                board,
                rig::dialler(dialler),
                clock,
                AnyProfile::new(&CONFIG, [0; 256]),
                Outbox::new(),
                seed,
                buffers(),
            )
            .unwrap(),
        )
    }

    fn poll(&mut self, timeout: Duration) -> Got {
        run_for(1_000_000, async { got(self.0.poll(timeout).await) }).expect("a poll without end")
    }

    commands!();
}

/// The blocking device over WebSockets.
pub(crate) struct WebBlocking(Device<'static, Rig, WebDialler, Outbox, Settings>);

impl Frontend for WebBlocking {
    const STRIDE: usize = 3;

    fn new(net: &Shared) -> Self {
        let (board, dialler) = (Rig(Rc::clone(net)), WebDialler(Rc::clone(net)));
        Self(
            Device::new(
                board,
                dialler,
                AnyProfile::new(&WEB_CONFIG, [0; 256]),
                Outbox::new(),
                Seed::from_number(7),
                buffers(),
            )
            .unwrap(),
        )
    }

    fn poll(&mut self, timeout: Duration) -> Got {
        got(self.0.poll(timeout))
    }

    commands!();
}

/// The asynchronous device over WebSockets.
pub(crate) struct WebAsynchronous(
    pub(crate) nonblocking::Device<'static, Rig, AsyncWebDialler, Clock, Outbox, Settings>,
);

impl Frontend for WebAsynchronous {
    const STRIDE: usize = 3;

    fn new(net: &Shared) -> Self {
        let (board, dialler, clock) = (Rig(Rc::clone(net)), AsyncWebDialler(Rc::clone(net)), Clock(Rc::clone(net)));
        let seed = Seed::from_number(7);
        Self(
            nonblocking::Device::new(
                board,
                rig::dialler(dialler),
                clock,
                AnyProfile::new(&WEB_CONFIG, [0; 256]),
                Outbox::new(),
                seed,
                buffers(),
            )
            .unwrap(),
        )
    }

    fn poll(&mut self, timeout: Duration) -> Got {
        run_for(1_000_000, async { got(self.0.poll(timeout).await) }).expect("a poll without end")
    }

    commands!();
}

/// The blocking device over a client that tells the code of a refusal.
#[cfg(feature = "embedded-svc")]
pub(crate) struct ThroughClient(pub(crate) Device<'static, Rig, ClientDialler<&'static FakeClients>, Outbox, Settings>);

#[cfg(feature = "embedded-svc")]
impl Frontend for ThroughClient {
    fn new(net: &Shared) -> Self {
        Self::over(net, FakeClients::new(net))
    }

    fn poll(&mut self, timeout: Duration) -> Got {
        got(self.0.poll(timeout))
    }

    commands!();
}

#[cfg(feature = "embedded-svc")]
impl ThroughClient {
    pub(crate) fn over(net: &Shared, clients: &'static FakeClients) -> Self {
        let (board, dialler) = (Rig(Rc::clone(net)), ClientDialler::new(clients));
        Self(
            Device::new(
                board,
                dialler,
                AnyProfile::new(&CONFIG, [0; 256]),
                Outbox::new(),
                Seed::from_number(7),
                buffers(),
            )
            .unwrap(),
        )
    }
}

/// Polls until `done`, acknowledging what comes; returns the events. Bounded: a scenario that hangs fails.
pub(crate) fn until(device: &mut impl Frontend, mut done: impl FnMut(&dyn Fn() -> (u64, State)) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..20_000 {
        assert!(device.balances(), "the ledger does not balance");
        if done(&|| (device.delivered(), device.state())) {
            return events;
        }
        match device.poll(Duration::from_secs(1)) {
            Got::Event(event) => events.push(event),
            Got::Message(_, _, ack) => {
                device.acknowledge(ack);
            }
            Got::Idle => {}
        }
    }
    panic!("no end; {:?} {events:?}", device.state());
}

pub(crate) fn until_delivered(device: &mut impl Frontend, count: u64) -> Vec<Event> {
    until(device, |look| look().0 >= count)
}

pub(crate) fn until_up(device: &mut impl Frontend) -> Vec<Event> {
    until(device, |look| look().1 == State::Up)
}

pub(crate) fn payloads(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{{\"n\":{number}}}")).collect()
}
