//! The core alone, driven by the shortest loop there is.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use steadfast_core::iothub::Received;
use steadfast_core::mqtt::PacketId;
use steadfast_core::{
    Action, AnyProfile, Attempt, CallId, Config, Failure, HubLink, Input, Instant, Ledger, Link, Message, Output,
    RamOutbox, Seed, State,
};

use crate::cloud::{Shared, key};
use crate::plan::{BYTES, PACKET, Plan, SERVICE_BYTES, SLOTS};
use crate::{Seen, Subject};

type Hub = HubLink<RamOutbox<SLOTS, BYTES>, AnyProfile<&'static Config<&'static str>>, Vec<u8>>;

/// The core alone.
pub struct Core {
    cloud: Shared,
    keeps: bool,
    link: Hub,
    connection: Option<(Attempt, u64)>,
    partial: Vec<u8>,
    seen: VecDeque<Seen>,
    handles: u64,
    calls: BTreeMap<u64, CallId>,
    messages: BTreeMap<u64, (PacketId, Attempt)>,
}

impl Core {
    fn now(&self) -> Instant {
        Instant::from_millis(self.cloud.borrow().now)
    }

    /// Does what the link asks for until it waits; returns its deadline.
    fn drain(&mut self) -> Option<u64> {
        enum Next {
            Input(Attempt, Input<'static>),
            Sign(Attempt, [u8; 32]),
            Nothing,
        }
        loop {
            let now = self.now();
            let next = match self.link.poll_output() {
                Output::Wait(deadline) => return deadline.map(|deadline| deadline.at.as_millis()),
                Output::Event(event) => {
                    self.seen.push_back(Seen::from(&event));
                    Next::Nothing
                }
                Output::Action(Action::Sign { attempt, request }) => Next::Sign(attempt, key().sign(&request.text)),
                Output::Action(Action::Connect { attempt, endpoint }) => {
                    match self.cloud.borrow_mut().open(endpoint.host) {
                        Some(id) => {
                            self.connection = Some((attempt, id));
                            self.partial.clear();
                            Next::Input(attempt, Input::Ready)
                        }
                        None => Next::Input(attempt, Input::Failed(Failure::ConnectionRefused)),
                    }
                }
                Output::Action(Action::Send { attempt, packet }) => {
                    let mut bytes = vec![0; PACKET];
                    let len = packet.encode_to_slice(&mut bytes).expect("a packet fits");
                    let (current, id) = self.connection.expect("a connection to send on");
                    assert_eq!(current, attempt, "a packet of another attempt");
                    if self.cloud.borrow_mut().write(id, &bytes[..len]) {
                        Next::Nothing
                    } else {
                        self.connection = None;
                        self.cloud.borrow_mut().leave(id);
                        Next::Input(attempt, Input::Failed(Failure::Lost))
                    }
                }
                Output::Action(Action::Close { attempt, .. }) => {
                    if let Some((_, id)) = self.connection.take_if(|(current, _)| *current == attempt) {
                        self.cloud.borrow_mut().leave(id);
                    }
                    Next::Nothing
                }
                Output::Action(Action::SaveAssignment(assignment)) => {
                    self.cloud.borrow_mut().kept.assignment = Some(assignment.clone());
                    Next::Nothing
                }
                Output::Action(Action::SaveBackoff(memory)) => {
                    self.cloud.borrow_mut().kept.memory = Some(memory);
                    Next::Nothing
                }
                Output::Action(_) | _ => Next::Nothing,
            };
            match next {
                Next::Input(attempt, input) => {
                    self.link.handle_input(input, attempt, now);
                }
                Next::Sign(attempt, signature) => {
                    self.link.handle_input(Input::Signed(&signature), attempt, now);
                }
                Next::Nothing => {}
            }
        }
    }

    /// Reads what has arrived.
    fn receive(&mut self) {
        while let Some((attempt, id)) = self.connection {
            let now = self.now();
            let Some(bytes) = self.cloud.borrow_mut().read(id, usize::MAX) else { return };
            if bytes.is_empty() {
                self.connection = None;
                self.cloud.borrow_mut().leave(id);
                self.link.handle_input(Input::Failed(Failure::Lost), attempt, now);
                self.drain();
                return;
            }
            self.partial.extend_from_slice(&bytes);
            loop {
                let stream = std::mem::take(&mut self.partial);
                let taken = self.link.handle_input(Input::Bytes(&stream), attempt, now);
                let received = taken.received.and_then(|received| self.note(&received, attempt));
                let (len, needed) = (taken.bytes, taken.needed);
                self.partial = stream[len..].to_vec();
                self.seen.extend(received);
                self.drain();
                if needed.is_some() || self.partial.is_empty() || self.connection != Some((attempt, id)) {
                    break;
                }
            }
        }
    }

    fn note(&mut self, received: &Received<&str, &[u8]>, attempt: Attempt) -> Option<Seen> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.handles += 1;
        let handle = self.handles;
        match *received {
            Received::Twin(twin) => Some(Seen::twin(twin.desired, twin.desired_version)),
            Received::Desired { version, patch } => Some(Seen::desired(patch, version)),
            Received::Call { call, name, payload } => {
                self.calls.insert(handle, call);
                Some(Seen::Call { handle, name: name.raw().to_owned(), payload: text(payload) })
            }
            Received::CloudToDevice { payload, packet_id: Some(packet_id), duplicate, .. } => {
                self.messages.insert(handle, (packet_id, attempt));
                Some(Seen::Message { handle, payload: text(payload), duplicate })
            }
            Received::Link(_) | Received::CloudToDevice { .. } | Received::Input { .. } | _ => None,
        }
    }
}

impl Subject for Core {
    fn new(cloud: &Shared, plan: &Plan) -> Self {
        let now = Instant::from_millis(cloud.borrow().now);
        let link = Link::new(AnyProfile::new(plan.config(), [0; 256]), RamOutbox::new(), Seed::from_number(7), now)
            .expect("a good configuration");
        let mut link = HubLink::new(link, vec![0; SERVICE_BYTES], vec![0; SERVICE_BYTES]);
        link.set_wall_clock(cloud.borrow().unix_secs(), now);
        if plan.keeps {
            let kept = &cloud.borrow().kept;
            if let Some(assignment) = &kept.assignment {
                link.restore_assignment(assignment.clone());
            }
            if let Some(memory) = kept.memory {
                link.restore_backoff(memory, now);
            }
        }
        Self {
            cloud: Rc::clone(cloud),
            keeps: plan.keeps,
            link,
            connection: None,
            partial: Vec::new(),
            seen: VecDeque::new(),
            handles: 0,
            calls: BTreeMap::new(),
            messages: BTreeMap::new(),
        }
    }

    fn start(&mut self) {
        let now = self.now();
        self.link.start(now);
    }

    fn stop(&mut self, drain: Duration) {
        let now = self.now();
        self.link.stop(drain, now);
    }

    fn publish(&mut self, message: Message<'_>) -> Option<u64> {
        let now = self.now();
        self.link.publish(message, now).ok().map(|id| id.get())
    }

    fn report(&mut self, patch: &str) {
        let now = self.now();
        self.link.report(patch.as_bytes(), now).expect("room for reported properties");
    }

    fn respond(&mut self, call: u64, status: u16, body: &str) -> bool {
        let call = self.calls[&call];
        let now = self.now();
        self.link.respond(call, status, body.as_bytes(), now).is_ok()
    }

    fn acknowledge(&mut self, message: u64) -> bool {
        let (packet_id, attempt) = self.messages[&message];
        let now = self.now();
        self.link.acknowledge(packet_id, attempt, now)
    }

    fn poll(&mut self, limit: Duration) -> Option<Seen> {
        let until = self.now().after(limit).as_millis();
        for _ in 0..100_000 {
            let deadline = self.drain();
            if let Some(seen) = self.seen.pop_front() {
                return Some(seen);
            }
            let now = self.now();
            let arrival = self.connection.and_then(|(_, id)| self.cloud.borrow().arrival(id));
            let next = deadline.into_iter().chain(arrival).min().unwrap_or(u64::MAX);
            if next > until {
                let mut cloud = self.cloud.borrow_mut();
                cloud.now = cloud.now.max(until);
                return None;
            }
            self.cloud.borrow_mut().now = now.as_millis().max(next);
            self.receive();
            let now = self.now();
            if self.link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
                self.link.set_wall_clock(self.cloud.borrow().unix_secs(), now);
                self.link.handle_timeout(now);
            }
        }
        panic!("the link never waits");
    }

    fn ledger(&self) -> Ledger {
        self.link.link().ledger()
    }

    fn state(&self) -> State {
        self.link.link().state()
    }

    fn power_off(self) {
        if let Some((_, id)) = self.connection {
            self.cloud.borrow_mut().leave(id);
        }
        assert!(!self.keeps || self.cloud.borrow().kept.assignment.is_some(), "nothing was kept");
    }
}
