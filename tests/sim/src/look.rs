//! What a scenario can look at.

use steadfast_core::{
    AnyProfile, Assignment, BackoffSnapshot, Event, Ledger, Link, MessageId, Outbox, State, Status, iothub,
};

use crate::device::{AttemptRecord, Inbound, Shared, Told};
use crate::recorded::Recorded;
use crate::world::{World, millis};

impl<O: Outbox> World<O> {
    /// Returns the state of the first link.
    #[must_use]
    pub fn state(&self) -> State {
        self.state_of(0)
    }

    /// Returns the state of a link.
    #[must_use]
    pub fn state_of(&self, number: usize) -> State {
        self.devices[number].link.link().state()
    }

    /// Returns the status of the first link.
    #[must_use]
    pub fn status(&self) -> Status {
        self.devices[0].link.link().status()
    }

    /// Returns the ledger of the first link.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.devices[0].link.link().ledger()
    }

    /// Returns the first link.
    #[must_use]
    pub fn link(&self) -> &Link<Recorded<O>, AnyProfile<Shared>> {
        self.devices[0].link.link()
    }

    /// Returns the events of the first link, each with its time in milliseconds.
    #[must_use]
    pub fn events(&self) -> &[(u64, Event)] {
        self.events_of(0)
    }

    /// Returns the events of a link, each with its time in milliseconds.
    #[must_use]
    pub fn events_of(&self, number: usize) -> &[(u64, Event)] {
        &self.devices[number].events
    }

    /// Returns the events of the first device's services, each with its time in milliseconds.
    #[must_use]
    pub fn service_events(&self) -> &[(u64, iothub::Event)] {
        &self.devices[0].service_events
    }

    /// Returns how often an event of the first device's services came that `is` wants.
    #[must_use]
    pub fn count_of_services(&self, is: impl Fn(&iothub::Event) -> bool) -> usize {
        self.devices[0].service_events.iter().filter(|(_, event)| is(event)).count()
    }

    /// Returns how often an event of the link came that `is` wants.
    #[must_use]
    pub fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.devices[0].events.iter().filter(|(_, event)| is(event)).count()
    }

    /// Returns the delays before the first link's next attempts, in milliseconds, as it announced them.
    #[must_use]
    pub fn delays_ms(&self) -> Vec<u64> {
        let delay = |event: &Event| if let Event::Retrying { delay, .. } = event { Some(millis(*delay)) } else { None };
        self.devices[0].events.iter().filter_map(|(_, event)| delay(event)).collect()
    }

    /// Returns the connection attempts of the first device.
    #[must_use]
    pub fn attempts(&self) -> &[AttemptRecord] {
        self.attempts_of(0)
    }

    /// Returns the connection attempts of a device.
    #[must_use]
    pub fn attempts_of(&self, number: usize) -> &[AttemptRecord] {
        &self.devices[number].attempts
    }

    /// Returns when registrations came to the provisioning service.
    #[must_use]
    pub fn registrations(&self) -> Vec<u64> {
        self.dps.registrations().iter().map(|(at, _)| *at).collect()
    }

    /// Returns what the first device's application received.
    #[must_use]
    pub fn inbound(&self) -> &[Inbound] {
        &self.devices[0].inbound
    }

    /// Returns what services of the hub told the first device's application, each with its time in milliseconds.
    #[must_use]
    pub fn told(&self) -> &[(u64, Told)] {
        &self.devices[0].told
    }

    /// Returns the assignment the first device was told to keep.
    #[must_use]
    pub fn saved(&self) -> Option<&Assignment> {
        self.devices[0].saved.as_ref()
    }

    /// Returns the memory the first device was told to keep.
    #[must_use]
    pub fn backoff_snapshot(&self) -> Option<BackoffSnapshot> {
        self.devices[0].memory
    }

    /// Returns the messages reported delivered, in that order.
    #[must_use]
    pub fn delivered(&self) -> &[MessageId] {
        &self.devices[0].oracle.delivered
    }

    /// Returns the messages reported dropped, in that order.
    #[must_use]
    pub fn dropped(&self) -> &[(MessageId, steadfast_core::DropReason)] {
        &self.devices[0].oracle.dropped
    }

    /// Returns how many messages reached a service more than once, counting each time after the first.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.devices.iter().map(|device| device.oracle.duplicates()).sum()
    }

    /// Returns the bodies a hub has stored, in the order of arrival.
    #[must_use]
    pub fn bodies(&self, hub: usize) -> Vec<String> {
        let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
        self.hubs[hub].receipts().iter().map(|receipt| text(&receipt.payload)).collect()
    }

    /// Returns how many connections frontends hold, and how many things are under way.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        let held = self.open.values().map(Vec::len).sum();
        (held, self.connections.len(), self.queue.len())
    }

    /// Ends the scenario with everything there is to know.
    pub(crate) fn fail(&self, number: usize, what: &str) -> ! {
        let device = &self.devices[number];
        let latest = device.events.iter().rev().take(12).rev();
        let events: Vec<String> = latest.map(|(at, event)| format!("  {at:>12} ms  {event:?}")).collect();
        panic!(
            "{what}\n  seed {}, device {number}, {} ms, attempt {}\n  {}\n{}",
            self.seed,
            self.now,
            device.link.link().attempt(),
            device.link.link().status(),
            events.join("\n")
        )
    }
}
