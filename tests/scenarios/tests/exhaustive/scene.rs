//! The scene: the link's promises, demanded after each step.

use steadfast_core::mqtt::{Incoming, PacketId, Reason, Received};
use steadfast_core::{
    Action, AnyProfile, Assignment, Attempt, Config, Event, Failure, Input, Instant, Link, Message, MessageId,
    Outbox as _, Output, Priority, RamOutbox, Seed, ServiceKind, State, Subscriptions,
};

use crate::line::{Line, Sent};
use crate::step::Step;

type Tiny = Link<RamOutbox<2, 8>, AnyProfile<&'static Config<&'static str>>>;

/// The tiny link with its service, its application and its oracle.
#[derive(Clone)]
pub(crate) struct Scene {
    link: Tiny,
    now: u64,
    line: Option<Line>,
    /// The latest attempt that is over, with a packet id it used.
    old: Option<(Attempt, PacketId)>,
    /// The service keeps a session.
    session: bool,
    epoch: u32,
    hub: char,
    /// Message, packet id and session of the latest sending.
    last_sent: Vec<(u64, PacketId, u32)>,
    received: Vec<u64>,
    acknowledged: Vec<u64>,
    accepted: Vec<u64>,
    delivered: Vec<u64>,
    published: u32,
    healthy: bool,
    pub(crate) path: Vec<Step>,
}

impl Scene {
    pub(crate) fn new(config: &'static Config<&'static str>) -> Self {
        let mut link =
            Link::new(AnyProfile::new(config, [0; 256]), RamOutbox::new(), Seed::from_number(11), Instant::ORIGIN)
                .unwrap();
        link.restore_assignment(Assignment::new("hub-a.example", "pump-7").unwrap());
        link.start(Instant::ORIGIN);
        Self {
            link,
            now: 0,
            line: None,
            old: None,
            session: false,
            epoch: 0,
            hub: 'a',
            last_sent: Vec::new(),
            received: Vec::new(),
            acknowledged: Vec::new(),
            accepted: Vec::new(),
            delivered: Vec::new(),
            published: 0,
            healthy: false,
            path: Vec::new(),
        }
    }

    fn demand(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n  after {:?}\n  {}", self.path, self.link.status());
    }

    /// Does `step`, if it makes sense now; returns whether it did.
    pub(crate) fn take(&mut self, step: Step) -> bool {
        let now = Instant::from_millis(self.now);
        let line = self.line.clone();
        let greeting = line.as_ref().filter(|line| line.connect && !line.greeted);
        let attempt = line.as_ref().map(|line| line.attempt);
        let hub = line.as_ref().is_some_and(|line| line.role == ServiceKind::Hub);
        self.path.push(step);
        match (step, attempt) {
            (Step::Publish | Step::Urgent, _) if self.published < 3 => {
                let priority = if step == Step::Urgent { Priority::Urgent } else { Priority::Normal };
                if let Ok(id) = self.link.publish(Message { priority, ..Message::telemetry("", b"x") }, now) {
                    self.published += 1;
                    self.accepted.push(id.get());
                }
            }
            (Step::Deadline, _) => {
                let Some(deadline) = self.link.next_deadline() else { return false };
                self.now = self.now.max(deadline.at.as_millis());
                self.link.handle_timeout(Instant::from_millis(self.now));
            }
            (Step::Ready, Some(attempt)) if line.as_ref().is_some_and(|line| !line.ready) => {
                self.line.as_mut().unwrap().ready = true;
                self.link.handle_input(Input::Ready, attempt, now);
            }
            (Step::Fresh, Some(_)) if greeting.is_some() => self.greet(false, 0),
            (Step::Resumed, Some(_)) if greeting.is_some() && hub && self.session => self.greet(true, 0),
            (Step::Refused, Some(_)) if greeting.is_some() => self.greet(false, 5),
            (Step::Granted, Some(_)) if self.grantable().is_some() => self.grant(),
            (Step::AckOldest, Some(_)) => return self.acknowledge(|sent| sent.iter().position(|(.., done)| !done)),
            (Step::AckNewest, Some(_)) => {
                return self.acknowledge(|sent| sent.iter().rposition(|(.., done)| !done).filter(|place| *place > 0));
            }
            (Step::AckAgain, Some(attempt)) if line.as_ref().is_some_and(|line| line.greeted) => {
                let done = line.iter().flat_map(|line| &line.sent).rfind(|(.., done)| *done);
                let packet_id = done.map_or(PacketId::new(0x7fff).unwrap(), |(_, packet_id, _)| *packet_id);
                self.link.handle_input(
                    Input::Packet(Incoming::PubAck { packet_id, reason: Reason::SUCCESS }),
                    attempt,
                    now,
                );
            }
            (Step::Lost, Some(attempt)) => {
                self.end_line();
                self.link.handle_input(Input::Failed(Failure::Lost), attempt, now);
            }
            (Step::Late, _) if self.old.is_some_and(|(old, _)| Some(old) != attempt) => {
                let Some((old, packet_id)) = self.old else { return false };
                let before = (self.link.status(), self.link.ledger(), self.link.next_deadline());
                for packet in [
                    Incoming::PubAck { packet_id, reason: Reason::SUCCESS },
                    Incoming::ConnAck { session_present: true, code: 0 },
                ] {
                    self.link.handle_input(Input::Packet(packet), old, now);
                }
                self.link.handle_input(Input::Failed(Failure::Lost), old, now);
                let after = (self.link.status(), self.link.ledger(), self.link.next_deadline());
                self.demand(before == after, "a late answer changed something");
            }
            (Step::Stop, _) => self.link.stop(core::time::Duration::from_secs(1), now),
            (Step::Start, _) if matches!(self.link.state(), State::Stopped) => self.link.start(now),
            (Step::Order, _) => self.link.reprovision(now),
            (Step::Same | Step::Other | Step::Throttled, Some(_)) => return self.answer(step),
            _ => return false,
        }
        self.drain();
        if step == Step::Deadline {
            let past = self.link.next_deadline().is_some_and(|deadline| deadline.at.as_millis() <= self.now);
            self.demand(!past, "a deadline stays in the past after handle_timeout");
        }
        true
    }

    fn greet(&mut self, session_present: bool, code: u8) {
        let now = Instant::from_millis(self.now);
        let line = self.line.as_mut().unwrap();
        line.greeted = code == 0;
        line.resumed = session_present;
        line.granted = line.role == ServiceKind::Hub && (session_present && self.session);
        if line.role == ServiceKind::Hub && code == 0 {
            self.epoch += u32::from(!session_present);
            self.session = true;
        }
        let attempt = line.attempt;
        self.link.handle_input(Input::Packet(Incoming::ConnAck { session_present, code }), attempt, now);
    }

    fn grantable(&self) -> Option<(Attempt, PacketId)> {
        self.line.as_ref().and_then(|line| line.subscribe.map(|packet_id| (line.attempt, packet_id)))
    }

    fn grant(&mut self) {
        let Some((attempt, packet_id)) = self.grantable() else { return };
        let line = self.line.as_mut().unwrap();
        (line.subscribe, line.granted) = (None, true);
        let suback = Incoming::SubAck { packet_id, codes: &[1] };
        self.link.handle_input(Input::Packet(suback), attempt, Instant::from_millis(self.now));
    }

    fn acknowledge(&mut self, which: impl Fn(&[(u64, PacketId, bool)]) -> Option<usize>) -> bool {
        let Some(line) = self.line.as_mut() else { return false };
        let Some(place) = which(&line.sent) else { return false };
        let (id, packet_id, done) = &mut line.sent[place];
        *done = true;
        let (id, packet_id, attempt) = (*id, *packet_id, line.attempt);
        self.acknowledged.push(id);
        let now = Instant::from_millis(self.now);
        self.link.handle_input(Input::Packet(Incoming::PubAck { packet_id, reason: Reason::SUCCESS }), attempt, now);
        self.drain();
        true
    }

    /// The provisioning service answers.
    fn answer(&mut self, step: Step) -> bool {
        let Some(line) = self.line.as_mut() else { return false };
        let Some(request) = line.request.take() else { return false };
        let status = if step == Step::Throttled { 429 } else { 200 };
        let hub = if (step == Step::Other) == (self.hub == 'a') { 'b' } else { 'a' };
        let topic = format!("$dps/registrations/res/{status}/?$rid={request}&retry-after=3");
        let body = if status == 429 {
            "{\"errorCode\":429001}".to_owned()
        } else {
            format!(
                "{{\"operationId\":\"4\",\"status\":\"assigned\",\"registrationState\":{{\"assignedHub\":\
                 \"hub-{hub}.example\",\"deviceId\":\"pump-7\"}}}}"
            )
        };
        if status == 200 && hub != self.hub {
            (self.hub, self.session) = (hub, false);
            self.epoch += 1;
        }
        let publish = Received { topic: &topic, payload: body.as_bytes(), packet_id: None, dup: false, retain: false };
        let attempt = line.attempt;
        self.link.handle_input(Input::Packet(Incoming::Publish(publish)), attempt, Instant::from_millis(self.now));
        self.drain();
        true
    }

    fn end_line(&mut self) {
        if let Some(line) = self.line.take() {
            let packet_id = line.sent.first().map_or(PacketId::new(1).unwrap(), |(_, packet_id, _)| *packet_id);
            self.old = Some((line.attempt, packet_id));
        }
    }

    pub(crate) fn drain(&mut self) {
        for _ in 0..100 {
            match self.link.poll_output() {
                Output::Wait(_) => return self.check(),
                Output::Event(Event::Delivered(id)) => {
                    let good = self.acknowledged.contains(&id.get()) && !self.delivered.contains(&id.get());
                    self.delivered.push(id.get());
                    self.demand(good, "reported delivered before its acknowledgement, or twice");
                }
                Output::Event(_) => {}
                Output::Action(Action::Connect { attempt, endpoint }) => {
                    let role = endpoint.role;
                    self.demand(self.line.is_none(), "two transports");
                    self.line = Some(Line {
                        attempt,
                        role,
                        ready: false,
                        connect: false,
                        greeted: false,
                        resumed: false,
                        subscribe: None,
                        granted: false,
                        request: None,
                        sent: Vec::new(),
                    });
                }
                Output::Action(Action::Close { attempt, .. }) => {
                    let own = self.line.as_ref().is_some_and(|line| line.attempt == attempt);
                    self.demand(own, "a close of no transport");
                    self.end_line();
                }
                Output::Action(Action::Send { attempt, packet }) => {
                    let sent = Sent::of(&packet);
                    self.sends(attempt, sent);
                }
                Output::Action(_) => {}
                _ => {}
            }
        }
        self.demand(false, "the outputs do not end");
    }

    fn sends(&mut self, attempt: Attempt, sent: Sent) {
        let Some(line) = self.line.as_mut().filter(|line| line.attempt == attempt && line.ready) else {
            return self.demand(false, "a packet without a transport");
        };
        let first = !line.connect;
        let mut good = first == matches!(sent, Sent::Connect);
        match sent {
            Sent::Connect => line.connect = true,
            Sent::Subscribe(packet_id) => line.subscribe = Some(packet_id),
            Sent::Request(request) => line.request = Some(request),
            Sent::Publish(id, packet_id, dup) => {
                let needs = self.link.profile().config().subscriptions != Subscriptions::NONE;
                good &= line.greeted && (line.granted || !needs) && line.role == ServiceKind::Hub;
                good &= !line.sent.iter().any(|(other, ..)| *other == id);
                good &= !line.sent.iter().any(|(_, other, done)| *other == packet_id && !done);
                good &= !self.acknowledged.contains(&id) || !self.delivered.contains(&id);
                let before = self.last_sent.iter().position(|(other, ..)| *other == id);
                let before = before.map(|place| self.last_sent.swap_remove(place));
                let again = before.filter(|(.., epoch)| line.resumed && *epoch == self.epoch);
                good &= dup == again.is_some() && again.is_none_or(|(_, same, _)| same == packet_id);
                self.last_sent.push((id, packet_id, self.epoch));
                line.sent.push((id, packet_id, false));
                let priority_of = |id: &u64| MessageId::new(*id).priority();
                let ended = |id: &u64| self.delivered.contains(id) || line.sent.iter().any(|(other, ..)| other == id);
                if priority_of(&id) == Priority::Normal {
                    good &= self.accepted.iter().all(|other| priority_of(other) == Priority::Normal || ended(other));
                }
                if !self.received.contains(&id) {
                    let last = self.received.iter().rfind(|other| priority_of(other) == priority_of(&id));
                    good &= last.is_none_or(|last| *last < id);
                    self.received.push(id);
                }
            }
            Sent::Other => {}
        }
        self.demand(good, "a packet out of its place, a publish out of order, or a wrong DUP");
    }

    fn check(&self) {
        let ledger = self.link.ledger();
        let queued = self.link.outbox().usage().messages;
        self.demand(ledger.balances() && ledger.queued == queued as u64, "the books do not balance");
        self.demand(ledger.delivered == self.delivered.len() as u64, "a delivery was not reported");
        self.demand(ledger.accepted == self.accepted.len() as u64, "accepted");
        self.demand(self.link.status().in_flight <= 2, "more in flight than the window");
        let waits = match self.link.state() {
            State::Idle | State::Stopped => true,
            State::Provisioning | State::Connecting | State::Up | State::Draining | State::BackingOff => {
                self.link.next_deadline().is_some()
            }
            _ => false,
        };
        self.demand(waits, "a link at work has no deadline: it could wait for ever");
        let idle = matches!(self.link.state(), State::Stopped | State::BackingOff);
        self.demand(!idle || self.line.is_none(), "a link at rest holds a transport");
    }

    /// What the future depends on, times and numbers of attempts left out.
    pub(crate) fn outline(&self) -> impl Eq + core::hash::Hash + use<> {
        let status = self.link.status();
        let line = self.line.as_ref().map(|line| {
            let done: Vec<_> = line.sent.iter().map(|(id, _, done)| (MessageId::new(*id).priority(), *done)).collect();
            (line.ready, line.connect, line.greeted, line.granted, line.resumed, line.request.is_some(), done)
        });
        let ledger = self.link.ledger();
        let urgent = self.link.outbox().first_of(Priority::Urgent).is_some();
        (
            urgent,
            (status.state as u8, status.in_flight, ledger.queued, ledger.delivered, ledger.resent),
            (line, self.session, self.hub, self.last_sent.len(), status.failures),
            (self.link.next_deadline().map(|deadline| deadline.reason as u8), status.registrations),
        )
    }

    /// From here on the service is well: the link comes up and delivers everything, in bounded time.
    pub(crate) fn must_recover(mut self) {
        self.healthy = true;
        if matches!(self.link.state(), State::Draining) {
            self.run(2, |scene| scene.link.state() != State::Draining);
        }
        self.take(Step::Start);
        let start = self.now;
        self.run(400, |scene| scene.link.state() == State::Up && scene.link.ledger().queued == 0);
        self.demand(self.now - start < 2 * 3_600_000, "recovery took more than two hours");
        self.demand(self.accepted.len() == self.delivered.len(), "something was not delivered");
    }

    fn run(&mut self, steps: u32, done: impl Fn(&Self) -> bool) {
        for _ in 0..steps {
            if done(self) {
                return;
            }
            let resumed = self.session && self.take(Step::Resumed);
            let helped = resumed
                || self.take(Step::Ready)
                || self.take(Step::Fresh)
                || self.take(Step::Granted)
                || self.take(Step::AckOldest)
                || self.take(Step::Same);
            if !helped {
                self.take(Step::Deadline);
            }
        }
        self.demand(done(self), "no recovery");
    }
}
