//! The rules, and the emulator's word on whether they were kept.

use std::collections::HashMap;
use std::time::Duration;

use hub_emulator::{Outcome, Receipt};
use steadfast::{Failure, FailureClass, LinkEvent as Event};

use crate::{Actor, DPS_HOST, Scene, Sent};

/// How far clocks of the two sides and timers may be apart.
const SLACK: Duration = Duration::from_millis(20);

/// What the emulator's ledger says of a device, all rules being kept.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Messages that were stored more than once, each extra time counted.
    pub duplicates: usize,
    /// Receipts with the DUP flag.
    pub dup_flags: u64,
    /// Connections that a hub accepted.
    pub accepted: usize,
    /// TCP connections to any service.
    pub connections: usize,
}

impl Verdict {
    /// Judges one device that was alone in its scene and delivered everything.
    ///
    /// # Panics
    /// When a rule is broken.
    #[must_use]
    pub fn of(scene: &Scene, actor: &Actor, sent: &[Sent]) -> Self {
        let verdict = Self::of_one(scene, actor, sent);
        pace(scene, actor);
        verdict
    }

    /// Judges one device among others.
    ///
    /// # Panics
    /// When a rule is broken.
    #[must_use]
    pub fn of_one(scene: &Scene, actor: &Actor, sent: &[Sent]) -> Self {
        let books = actor.device.ledger();
        assert!(books.balances(), "the books do not balance: {books:?}");
        assert_eq!(books.delivered, sent.len() as u64, "{books:?}");
        no_secrets(scene, actor);
        let ledger = scene.emulator.ledger();
        let report = ledger.check(&actor.name, sent.iter().map(|sent| sent.id.clone()));
        assert!(report.is_complete(), "{}: {report}: {report:?}", actor.name);
        let receipts = ledger.receipts(&actor.name);
        told_after_acknowledgement(sent, &receipts);
        same_id_same_message(&receipts);
        let records = ledger.connections_of(&actor.name);
        let is_accepted = |outcome| matches!(outcome, Outcome::Accepted { .. });
        let at_hubs = records.iter().filter(|record| record.service.as_deref() != Some(DPS_HOST));
        let accepted = at_hubs.filter(|record| is_accepted(record.outcome)).count();
        let window = usize::from(actor.window);
        let repeated = receipts.len().saturating_sub(sent.len());
        let most = window * accepted.saturating_sub(1);
        assert!(repeated <= most, "{repeated} repetitions in {accepted} connections with a window of {window}");
        let duplicates = usize::try_from(report.duplicates()).unwrap_or(usize::MAX);
        let connections = ledger.connections().len();
        Self { duplicates, dup_flags: ledger.counts(&actor.name).dup_flags, accepted, connections }
    }
}

/// Success is never told before the PUBACK.
fn told_after_acknowledgement(sent: &[Sent], receipts: &[Receipt]) {
    let mut acknowledged: HashMap<&str, Duration> = HashMap::new();
    for receipt in receipts {
        if let (Some(id), Some(at)) = (&receipt.message_id, receipt.acknowledged_at) {
            let first = acknowledged.entry(id).or_insert(at);
            *first = at.min(*first);
        }
    }
    for Sent { id, told, outcome } in sent {
        if outcome.is_ok() {
            let at = acknowledged.get(id.as_str());
            assert!(at.is_some_and(|at| at <= told), "{id} was told at {told:?} and acknowledged at {at:?}");
        }
    }
}

/// A repetition carries the id of the first, and an id belongs to one message.
fn same_id_same_message(receipts: &[Receipt]) {
    let mut bodies = HashMap::new();
    let mut ids = HashMap::new();
    for receipt in receipts {
        let id = receipt.message_id.as_deref().expect("every message carries an id");
        assert_eq!(receipt.qos, 1);
        assert_eq!(*bodies.entry(id).or_insert(&receipt.payload), &receipt.payload, "two messages under the id {id}");
        let first = *ids.entry(&receipt.payload).or_insert(id);
        assert_eq!(first, id, "one message under two ids");
    }
}

/// Attempts keep to what the back-off says, and the back-off keeps to the policy.
fn pace(scene: &Scene, actor: &Actor) {
    let policy = actor.policy;
    let opened: Vec<Duration> = scene.emulator.ledger().connections().iter().map(|record| record.opened_at).collect();
    // What the failure before was, at the hub and at the provisioning service, since the link last held for a while.
    let mut before: [Option<FailureClass>; 2] = [None, None];
    let mut up: Option<Duration> = None;
    let receipts = scene.emulator.ledger().receipts(&actor.name);
    let acknowledged: Vec<Duration> = receipts.iter().filter_map(|receipt| receipt.acknowledged_at).collect();
    // Connections of use that ended early, since the link last held for a while: bad lines, up to three times.
    let mut early_ends = 0;
    for (at, event) in actor.events() {
        if let Event::Up { .. } = event {
            up = Some(at);
        }
        let Event::Retrying { failure, delay } = event else { continue };
        let wait = at..(at + delay).saturating_sub(SLACK);
        let early = opened.iter().find(|opened| wait.contains(*opened));
        assert!(early.is_none(), "{failure}: told at {at:?} to wait {delay:?}, connected at {early:?}");
        let age = at.saturating_sub(actor.started) + SLACK;
        let asked = policy.retry_after_cap + policy.retry_after_cap.max(policy.first_jitter);
        let most =
            [policy.first_jitter * 4, policy.min_delay, policy.overload_jitter, policy.refused_cap, asked, age / 2];
        assert!(most.iter().any(|most| delay <= *most), "{failure}: {delay:?}");
        let was_up = up.take();
        if was_up.is_some_and(|up| at - up + SLACK >= policy.reset_after) {
            before = [None, None];
            early_ends = 0;
        }
        let useful = was_up.is_some_and(|up| acknowledged.iter().any(|one| *one + SLACK >= up && *one <= at));
        let line = failure.is_loss() || failure == Failure::KeepAliveTimeout;
        if useful && line && early_ends < 3 && delay <= policy.first_jitter * (1 << early_ends) {
            early_ends += 1;
            before[0] = None;
            continue;
        }
        let before = &mut before[usize::from(matches!(failure, Failure::Provisioning(_)))];
        let least = match (before.replace(failure.class()), failure.class()) {
            (Some(FailureClass::Overload), FailureClass::Overload) => policy.overload_jitter / 2,
            (Some(_), FailureClass::Unreachable | FailureClass::Protocol | FailureClass::Local) => policy.min_delay / 2,
            _ => Duration::ZERO,
        };
        let milli = Duration::from_millis(1);
        assert!(delay + milli >= least, "in a hurry: {delay:?} after {failure}");
    }
}

/// Nothing secret is in the log, nor in what is shown of the device.
fn no_secrets(scene: &Scene, actor: &Actor) {
    let shown = format!("{:?} {:?} {}", actor.device, actor.device.status(), actor.device.status());
    let logged = scene.logs.text();
    assert!(logged.contains("TRACE"), "the log was taken at TRACE");
    for secret in &scene.secrets {
        for (place, text) in [("log", &logged), ("status", &shown)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "a secret is in the {place}: {line:?}");
        }
    }
}
