//! A scenario under way: a cloud, a device, and all it has shown.

use std::rc::Rc;
use std::time::Duration;

use steadfast_core::{Message, MessageId, Priority, State};

use crate::cloud::{Cloud, Shared};
use crate::{Plan, Seen, Subject};

/// One look of the application.
const LOOK: Duration = Duration::from_secs(1);
/// Most looks until something happens: a scenario that hangs fails.
const LOOKS: usize = 200_000;

/// A cloud and a device. Each step checks the device's ledger, and that a message counts as delivered only when a hub
/// has stored it.
pub struct Run<S> {
    /// The services.
    pub cloud: Shared,
    /// The device.
    pub device: S,
    /// What it has shown, and when in milliseconds.
    pub seen: Vec<(u64, Seen)>,
    plan: Plan,
    /// The ids and payloads that were accepted.
    accepted: Vec<(u64, String)>,
}

impl<S: Subject> Run<S> {
    /// Makes a cloud and a device.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let cloud = Cloud::shared();
        let device = S::new(&cloud, &plan);
        Self { cloud, device, seen: Vec::new(), plan, accepted: Vec::new() }
    }

    /// Makes a cloud and a device, and starts it.
    #[must_use]
    pub fn started(plan: Plan) -> Self {
        let mut run = Self::new(plan);
        run.device.start();
        run
    }

    /// Makes a cloud and a device, and waits until it is up.
    #[must_use]
    pub fn up(plan: Plan) -> Self {
        let mut run = Self::started(plan);
        run.until_up();
        run
    }

    /// The device loses power and comes back a second later.
    #[must_use]
    pub fn restarted(self) -> Self {
        let Self { cloud, device, seen, plan, .. } = self;
        device.power_off();
        cloud.borrow_mut().now += 1_000;
        let mut device = S::new(&cloud, &plan);
        device.start();
        Self { cloud, device, seen, plan, accepted: Vec::new() }
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.cloud.borrow().now)
    }

    /// Lets time pass until the device shows something, for `limit` at most.
    pub fn step(&mut self, limit: Duration) -> Option<Seen> {
        let seen = self.device.poll(limit);
        let ledger = self.device.ledger();
        assert!(ledger.balances(), "the ledger does not balance: {ledger:?}");
        if let Some(seen) = &seen {
            if let Seen::Delivered(id) = seen {
                assert!(self.is_stored(*id), "{id:016x} is delivered, and no hub has stored it");
            }
            let now = self.cloud.borrow().now;
            self.seen.push((now, seen.clone()));
        }
        seen
    }

    fn is_stored(&self, id: u64) -> bool {
        let id = format!("{id:016x}");
        self.cloud.borrow().receipts().iter().any(|receipt| receipt.topic.contains(&id))
    }

    /// Lets time pass until the device shows something that `matches`.
    ///
    /// # Panics
    /// When it never does.
    pub fn until(&mut self, matches: impl Fn(&Seen) -> bool) {
        self.until_some(|seen| matches(seen).then_some(()));
    }

    /// Lets time pass until the device shows something of which `take` makes something, and returns that.
    ///
    /// # Panics
    /// When it never does.
    pub fn until_some<T>(&mut self, take: impl Fn(&Seen) -> Option<T>) -> T {
        for _ in 0..LOOKS {
            if let Some(taken) = self.step(LOOK).as_ref().and_then(&take) {
                return taken;
            }
        }
        panic!("it never comes; {:?}, {:?}", self.device.state(), self.latest());
    }

    fn latest(&self) -> &[(u64, Seen)] {
        &self.seen[self.seen.len().saturating_sub(20)..]
    }

    /// Waits until the link is up.
    ///
    /// # Panics
    /// When it never is.
    pub fn until_up(&mut self) {
        for _ in 0..LOOKS {
            if self.device.state() == State::Up {
                return;
            }
            self.step(LOOK);
        }
        panic!("never up; {:?}, {:?}", self.device.state(), self.latest());
    }

    /// Waits until so many messages are delivered.
    ///
    /// # Panics
    /// When they never are.
    pub fn until_delivered(&mut self, count: u64) {
        for _ in 0..LOOKS {
            if self.device.ledger().delivered >= count {
                return;
            }
            self.step(LOOK);
        }
        panic!("never delivered; {:?}, {:?}", self.device.ledger(), self.latest());
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, span: Duration) {
        let until = self.now() + span;
        while self.now() < until {
            self.step(until - self.now());
        }
    }

    /// Publishes telemetry; returns its id, or `None` when there is no room.
    pub fn publish(&mut self, payload: &str) -> Option<u64> {
        self.accept(Message::telemetry("", payload.as_bytes()), payload)
    }

    /// Publishes urgent telemetry.
    pub fn alarm(&mut self, payload: &str) -> Option<u64> {
        self.accept(Message::telemetry("", payload.as_bytes()).urgent(), payload)
    }

    fn accept(&mut self, message: Message<'_>, payload: &str) -> Option<u64> {
        let id = self.device.publish(message);
        self.accepted.extend(id.map(|id| (id, payload.to_owned())));
        id
    }

    /// Publishes `count` messages; returns their payloads.
    ///
    /// # Panics
    /// When there is no room.
    pub fn publish_many(&mut self, count: usize) -> Vec<String> {
        let payloads: Vec<String> = (1..=count).map(|number| format!("{{\"n\":{number}}}")).collect();
        for payload in &payloads {
            self.publish(payload).expect("room in the outbox");
        }
        payloads
    }

    /// Returns how often the device has shown something that `matches`.
    pub fn count(&self, matches: impl Fn(&Seen) -> bool) -> usize {
        self.seen.iter().filter(|(_, seen)| matches(seen)).count()
    }

    /// Returns the delays of all attempts so far.
    #[must_use]
    pub fn delays(&self) -> Vec<Duration> {
        let delay = |seen: &Seen| if let Seen::Retrying(delay) = seen { Some(*delay) } else { None };
        self.seen.iter().filter_map(|(_, seen)| delay(seen)).collect()
    }

    /// Ends a scenario in which everything accepted has arrived: each message once in the order of its priority, as far as
    /// repetitions are left out, and each with one event.
    ///
    /// # Panics
    /// When something is missing.
    pub fn all_arrived(self) {
        let delivered: Vec<u64> = self
            .seen
            .iter()
            .filter_map(|(_, seen)| if let Seen::Delivered(id) = seen { Some(*id) } else { None })
            .collect();
        let mut once = delivered.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), delivered.len(), "a message was delivered twice");
        assert_eq!(self.device.ledger().delivered, delivered.len() as u64, "a delivery without its event");
        let stored = self.cloud.borrow().stored();
        for priority in [Priority::Urgent, Priority::Normal] {
            let sent: Vec<&String> = self
                .accepted
                .iter()
                .filter(|(id, _)| MessageId::new(*id).priority() == priority)
                .map(|(_, payload)| payload)
                .collect();
            let arrived: Vec<&String> = stored.iter().filter(|payload| sent.contains(payload)).collect();
            assert_eq!(arrived, sent, "not every message, or not in order");
        }
        self.unobjectionable();
    }

    /// Ends a scenario: the services object to nothing the device did.
    ///
    /// # Panics
    /// When one does.
    pub fn unobjectionable(self) {
        assert_eq!(self.cloud.borrow().objections(), [""; 0]);
        let cloud = Rc::clone(&self.cloud);
        self.device.power_off();
        assert_eq!(cloud.borrow().open_connections(), 0, "a connection outlives its device");
    }
}
