//! A device that sends numbered messages and notes when it was told what.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hub_emulator::Control;
use steadfast::{
    Builder, DeliveryError, Device, Event as AnyEvent, Failure, Ledger, LinkEvent as Event, Receipt, RetryPolicy,
    State, Status, Telemetry,
};
use tokio::task::JoinHandle;

use crate::{Scene, Verdict, policy, soon};

/// A device at work in a scene. Times are those of the emulator.
#[derive(Debug)]
pub struct Actor {
    /// The device.
    pub device: Device,
    /// Its name in the emulator's ledger.
    pub name: String,
    /// Most publishes without acknowledgement.
    pub window: u16,
    /// The back-off it is held to: that of [`policy`] unless it was built with another one.
    pub policy: RetryPolicy,
    /// When it was started.
    pub started: Duration,
    /// What its driver returns.
    pub driver: JoinHandle<Ledger>,
    clock: Control,
    sent: Vec<(String, JoinHandle<Outcome>)>,
    events: Arc<Mutex<Vec<(Duration, Event)>>>,
}

/// What became of a message, and when that was told.
type Outcome = (Duration, Result<(), DeliveryError>);

/// A message that was accepted.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its id, as the service sees it.
    pub id: String,
    /// When the outcome was told.
    pub told: Duration,
    /// The outcome.
    pub outcome: Result<(), DeliveryError>,
}

impl Actor {
    /// Builds a device and lets it run; `name` is how the emulator will know it.
    ///
    /// # Panics
    /// When the builder lacks something.
    #[must_use]
    pub fn start(scene: &Scene, name: &str, builder: Builder, window: u16) -> Self {
        let (device, driver) = builder.window(window).build().expect("a complete device");
        let clock = scene.emulator.control();
        let events = Arc::<Mutex<Vec<_>>>::default();
        let (mut heard, noted, control) = (device.events(), Arc::clone(&events), clock.clone());
        tokio::spawn(async move {
            while let Some(event) = heard.next().await {
                if let AnyEvent::Link(event) = event {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push((control.now(), event));
                }
            }
        });
        let started = clock.now();
        let driver = tokio::spawn(driver);
        let (name, policy) = (name.to_owned(), policy());
        Self { device, name, window, policy, started, driver, clock, sent: Vec::new(), events }
    }

    /// Sends that many messages, each with its number in `seq` and in its body. Waits for room in the outbox only.
    ///
    /// # Panics
    /// When a message is not accepted.
    pub async fn send(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.sent.len().to_string();
            let message = Telemetry::new(number.clone()).property("seq", &number).expect("a new key");
            let receipt = soon(self.device.send(&message)).await.expect("a message that is accepted");
            self.watch(receipt);
        }
    }

    /// Notes what becomes of a message that was sent by other means.
    pub fn watch(&mut self, receipt: Receipt) {
        let (id, clock) = (receipt.id().to_string(), self.clock.clone());
        let outcome = tokio::spawn(async move {
            let outcome = receipt.delivered().await;
            (clock.now(), outcome)
        });
        self.sent.push((id, outcome));
    }

    /// Returns the ids of all messages accepted so far, in their order.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.sent.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Waits until the status is as wished, and returns it.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn status(&self, what: &str, wished: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.device.status_changes();
        let found = tokio::time::timeout(crate::PATIENCE, status.wait_for(wished)).await;
        let found = found.unwrap_or_else(|_| panic!("it never came to this: {what}; now {}", self.device.status()));
        found.expect("the device holds the sender").clone()
    }

    /// Waits until the link is up.
    pub async fn up(&self) -> Status {
        self.status("up", |status| status.state == State::Up).await
    }

    /// Waits until the link has failed for this reason.
    pub async fn failed(&self, failure: Failure) -> Status {
        self.status(&format!("failed: {failure}"), |status| status.last_failure == Some(failure)).await
    }

    /// Waits until an attempt failed because the connection was closed or reset, and returns the status then.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn lost(&self) -> Status {
        self.status("lost", |status| status.last_failure.is_some_and(Failure::is_loss)).await
    }

    /// Waits until all messages sent so far are acknowledged.
    ///
    /// # Panics
    /// When they are not in time.
    pub async fn delivered(&self) {
        let mut events = self.device.events();
        let wait = async {
            while self.device.ledger().queued > 0 {
                // Missed events are made up for by the next look.
                let _ = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
            }
        };
        tokio::time::timeout(crate::PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("not all messages were delivered: {}", self.device.status()));
    }

    /// Returns the events of the link so far, without those of messages delivered.
    #[must_use]
    pub fn events(&self) -> Vec<(Duration, Event)> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|(_, event)| !matches!(event, Event::Delivered(_))).copied().collect()
    }

    /// Returns the causes of all failures so far.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        let cause = |event| if let Event::Retrying { failure, .. } = event { Some(failure) } else { None };
        self.events().into_iter().filter_map(|(_, event)| cause(event)).collect()
    }

    /// Returns all messages with their outcomes.
    ///
    /// # Panics
    /// When an outcome does not come in time.
    pub async fn outcomes(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        for (id, outcome) in std::mem::take(&mut self.sent) {
            let (told, outcome) = soon(outcome).await.expect("the watcher does not panic");
            all.push(Sent { id, told, outcome });
        }
        all
    }

    /// Waits until everything is delivered, stops, and has the scene judged by every rule.
    ///
    /// # Panics
    /// When a rule is broken.
    pub async fn finish(mut self, scene: &Scene) -> Verdict {
        let sent = self.end().await;
        Verdict::of(scene, &self, &sent)
    }

    /// Like [`Actor::finish`], for one device of several in a scene.
    ///
    /// # Panics
    /// When a rule is broken.
    pub async fn finish_among_others(mut self, scene: &Scene) -> Verdict {
        let sent = self.end().await;
        Verdict::of_one(scene, &self, &sent)
    }

    async fn end(&mut self) -> Vec<Sent> {
        self.delivered().await;
        let sent = self.outcomes().await;
        let books = soon(self.device.stop(Duration::from_secs(10))).await;
        let by_driver = soon(&mut self.driver).await.expect("the driver does not panic");
        assert_eq!(books, by_driver);
        sent
    }
}
