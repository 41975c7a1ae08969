//! Both forms of the device with services, alike for the scenarios.

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use steadfast_core::{
    AnyProfile, Assignment, CallId, Config, Credential, Message, RamOutbox, ReportError, ReportId, RespondError, Seed,
    Service, State, Subscriptions, iothub,
};
use steadfast_esp32::{Ack, Buffers, Device, Poll, ServiceBuffers, WithServices, nonblocking};

use crate::rig::{self, AsyncDialler, Clock, DEVICE, Dialler, HUBS, Rig, SCOPE, Shared, run_for};

static CONFIG: Config<&str> = {
    let service = Service::Provisioned {
        host: steadfast_core::dps::topics::GLOBAL_HOST,
        id_scope: SCOPE,
        registration_id: DEVICE,
    };
    let mut config = Config::new(service, Credential::SharedKey);
    config.session.max_inbound = 1024;
    config.session.max_outbound = 1024;
    config.subscriptions = Subscriptions::ALL;
    config
};

type Outbox = RamOutbox<8, 1024>;
type Settings = AnyProfile<&'static Config<&'static str>>;
type Services = WithServices<'static, Outbox, Settings>;

/// What a poll brought, without borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Idle,
    Event(iothub::Event),
    Twin { desired: Value, version: u64, reset: bool },
    Desired { version: u64, patch: Value },
    Call { call: CallId, name: String, payload: Vec<u8> },
    Message { properties: String, payload: Vec<u8>, duplicate: bool, ack: Ack },
}

pub(crate) trait Frontend {
    fn new(net: &Shared) -> Self;
    fn poll(&mut self, timeout: Duration) -> Got;
    fn start(&mut self);
    fn send(&mut self, payload: &str);
    fn report(&mut self, patch: &str) -> Result<ReportId, ReportError>;
    fn respond(&mut self, call: CallId, status: u16, body: &[u8]) -> Result<(), RespondError>;
    fn get_twin(&mut self) -> bool;
    fn acknowledge(&mut self, ack: Ack) -> bool;
    fn abandon(&mut self, ack: Ack) -> bool;
    fn state(&self) -> State;
    fn delivered(&self) -> u64;
    fn balances(&self) -> bool;
}

pub(crate) struct Blocking(pub(crate) Device<'static, Rig, Dialler, Outbox, Settings, Services>);
pub(crate) struct Asynchronous(nonblocking::Device<'static, Rig, AsyncDialler, Clock, Outbox, Settings, Services>);

fn buffers() -> Buffers<'static> {
    Buffers { rx: vec![0; 1024].leak(), tx: vec![0; 2048].leak() }
}

fn memory() -> ServiceBuffers<'static> {
    ServiceBuffers { reports: vec![0; 512].leak(), answers: vec![0; 256].leak() }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn got(poll: Poll<'_>) -> Got {
    match poll {
        Poll::Event(event) => Got::Event(event),
        Poll::Twin(twin) => {
            assert!(parsed(twin.reported).is_object());
            Got::Twin { desired: parsed(twin.desired), version: twin.desired_version, reset: twin.reset }
        }
        Poll::Desired { version, patch } => Got::Desired { version, patch: parsed(patch) },
        Poll::Call { call, name, payload } => {
            let name = String::from_utf8(name.bytes().collect()).unwrap();
            Got::Call { call, name, payload: payload.to_vec() }
        }
        Poll::CloudToDevice(message) => Got::Message {
            properties: message.properties.to_owned(),
            payload: message.payload.to_vec(),
            duplicate: message.duplicate,
            ack: message.ack,
        },
        Poll::Message(message) => panic!("{} is of no service", message.topic),
        Poll::Input(input) => panic!("{input:?} comes to modules"),
        Poll::ProvisioningPayload(_) | Poll::Idle | _ => Got::Idle,
    }
}

macro_rules! commands {
    () => {
        fn start(&mut self) {
            self.0.start();
        }

        fn send(&mut self, payload: &str) {
            self.0.send(Message::telemetry("", payload.as_bytes())).unwrap();
        }

        fn report(&mut self, patch: &str) -> Result<ReportId, ReportError> {
            self.0.report(patch.as_bytes())
        }

        fn respond(&mut self, call: CallId, status: u16, body: &[u8]) -> Result<(), RespondError> {
            self.0.respond(call, status, body)
        }

        fn get_twin(&mut self) -> bool {
            self.0.get_twin()
        }

        fn acknowledge(&mut self, ack: Ack) -> bool {
            self.0.acknowledge(ack)
        }

        fn abandon(&mut self, ack: Ack) -> bool {
            self.0.abandon(ack)
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
        let device = Device::new(
            board,
            dialler,
            AnyProfile::new(&CONFIG, [0; 256]),
            Outbox::new(),
            Seed::from_number(7),
            buffers(),
        )
        .unwrap();
        let mut device = device.with_services(memory());
        device.restore_assignment(Assignment::new(HUBS[0], DEVICE).unwrap());
        Self(device)
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
        let device = nonblocking::Device::new(
            board,
            rig::dialler(dialler),
            clock,
            AnyProfile::new(&CONFIG, [0; 256]),
            Outbox::new(),
            seed,
            buffers(),
        )
        .unwrap();
        let mut device = device.with_services(memory());
        device.restore_assignment(Assignment::new(HUBS[0], DEVICE).unwrap());
        Self(device)
    }

    fn poll(&mut self, timeout: Duration) -> Got {
        run_for(1_000_000, async { got(self.0.poll(timeout).await) }).expect("a poll without end")
    }

    commands!();
}
