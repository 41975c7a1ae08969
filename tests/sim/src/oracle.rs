//! What must hold after every step.

use std::collections::{BTreeSet, HashMap, HashSet};

use steadfast_core::{DropReason, Event, Ledger, MessageId, Priority};

/// The promises of one link, and what has happened so far.
///
/// A broken promise is returned as a sentence; the world adds when it was and how to see it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    window: usize,
    /// Accepted and neither delivered nor dropped.
    pub(crate) open: BTreeSet<MessageId>,
    accepted: u64,
    pub(crate) delivered: Vec<MessageId>,
    pub(crate) dropped: Vec<(MessageId, DropReason)>,
    /// How many the events say, by reason.
    reported: HashMap<DropReason, u64>,
    finished: HashSet<MessageId>,
    /// Priority of each message and its place in the order of acceptance, by what the service sees of it.
    places: HashMap<String, (Priority, u64)>,
    stored: HashMap<String, u32>,
    acknowledged: HashSet<String>,
    bodies: HashMap<String, Vec<u8>>,
    keys: HashMap<MessageId, String>,
    last_first_receipts: HashMap<Priority, u64>,
    /// Packet id and session of the latest sending, by message.
    sent: HashMap<String, (u16, u64)>,
    session: u64,
    sent_here: HashMap<u16, String>,
    here: HashSet<String>,
    repeated_here: HashMap<Priority, usize>,
    repeated: usize,
    broken: usize,
    resumed: bool,
    greeted: bool,
    connects: Vec<u64>,
    last_ids: HashMap<Priority, MessageId>,
    duplicates: u64,
}

/// Most connection attempts in a minute that the policy can bring about.
const ATTEMPTS_PER_MINUTE: usize = 40;

impl Oracle {
    pub(crate) fn new(window: usize) -> Self {
        Self { window, ..Self::default() }
    }

    /// Messages the outbox brought along.
    pub(crate) fn restored(&mut self, id: MessageId, key: String, body: Vec<u8>) {
        self.open.insert(id);
        self.enter(id, key, body);
    }

    pub(crate) fn accepted(&mut self, id: MessageId, key: String, body: Vec<u8>) -> Result<(), String> {
        if let Some(last) = self.last_ids.get(&id.priority()).filter(|last| id <= **last) {
            return Err(format!("{id} was accepted after {last}"));
        }
        self.open.insert(id);
        self.enter(id, key, body);
        Ok(())
    }

    fn enter(&mut self, id: MessageId, key: String, body: Vec<u8>) {
        self.accepted += 1;
        self.places.insert(key.clone(), (id.priority(), self.accepted));
        self.bodies.insert(key.clone(), body);
        self.keys.insert(id, key);
        self.last_ids.insert(id.priority(), id);
    }

    pub(crate) fn event(&mut self, event: &Event) -> Result<(), String> {
        let id = if let Event::Delivered(id) = event {
            let key = self.keys.get(id).ok_or_else(|| format!("{id} was delivered and never accepted"))?;
            if !self.stored.contains_key(key) || !self.acknowledged.contains(key) {
                return Err(format!("{id} was reported delivered before its PUBACK"));
            }
            self.delivered.push(*id);
            *id
        } else {
            if let Event::Dropped(dropped) = event {
                if dropped.count == 0 || dropped.first > dropped.last {
                    return Err(format!("{dropped:?} names no message"));
                }
                *self.reported.entry(dropped.reason).or_default() += u64::from(dropped.count);
            }
            return Ok(());
        };
        self.finish(id)
    }

    /// The outbox was asked to forget a message undelivered.
    pub(crate) fn left(&mut self, id: MessageId, reason: DropReason) -> Result<(), String> {
        self.dropped.push((id, reason));
        self.finish(id)
    }

    fn finish(&mut self, id: MessageId) -> Result<(), String> {
        self.open.remove(&id);
        if self.finished.insert(id) { Ok(()) } else { Err(format!("{id} ended twice")) }
    }

    pub(crate) fn attempt(&mut self, now: u64, other_hub: bool) -> Result<(), String> {
        self.connects.retain(|at| now - at < 60_000);
        self.connects.push(now);
        self.session += u64::from(other_hub);
        self.sent_here.clear();
        self.broken += usize::from(!self.here.is_empty());
        self.here.clear();
        self.repeated_here.clear();
        self.resumed = false;
        self.greeted = false;
        if self.connects.len() > ATTEMPTS_PER_MINUTE {
            return Err(format!("{} connection attempts within a minute", self.connects.len()));
        }
        Ok(())
    }

    /// The service's CONNACK has reached the device.
    pub(crate) fn greeted(&mut self, session_present: bool) {
        if core::mem::replace(&mut self.greeted, true) {
            return;
        }
        if !session_present {
            self.session += 1;
        }
        self.resumed = session_present;
    }

    /// The device sends a message.
    pub(crate) fn sends(&mut self, key: &str, packet_id: u16, dup: bool, body: &[u8]) -> Result<(), String> {
        if self.bodies.get(key).is_none_or(|known| known != body) {
            return Err(format!("{key} is not what was accepted"));
        }
        if !self.here.insert(key.to_owned()) {
            return Err(format!("{key} was sent twice on one connection"));
        }
        if let Some(other) = self.sent_here.insert(packet_id, key.to_owned())
            && !self.acknowledged.contains(&other)
        {
            return Err(format!("{key} and {other} share the packet id {packet_id}"));
        }
        let priority = self.places.get(key).map_or(Priority::Normal, |(priority, _)| *priority);
        if priority == Priority::Normal {
            let urgent = self.open.iter().take_while(|id| id.priority() == Priority::Urgent);
            let overtaken = urgent.map(|id| &self.keys[id]).find(|urgent| !self.here.contains(*urgent));
            if let Some(overtaken) = overtaken {
                return Err(format!("{key} was sent before {overtaken}, which is urgent"));
            }
        }
        let before = self.sent.insert(key.to_owned(), (packet_id, self.session));
        if before.is_some() {
            self.repeated += 1;
            let here = self.repeated_here.entry(priority).or_default();
            *here += 1;
            if *here > self.window {
                return Err(format!("{here} messages of a priority repeated on one connection"));
            }
            if self.repeated > self.window * self.broken {
                return Err(format!("{} messages repeated after {} connections", self.repeated, self.broken));
            }
        }
        let again = before.filter(|(_, session)| *session == self.session && self.resumed);
        match again {
            Some((same, _)) if same != packet_id => Err(format!("{key} came back as {packet_id}, not {same}")),
            Some(_) if !dup => Err(format!("{key} came back without DUP")),
            None if dup => Err(format!("{key} has DUP and was not sent in this session")),
            _ => Ok(()),
        }
    }

    /// A service has stored a message.
    pub(crate) fn stored(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        let (priority, place) = *self.places.get(key).ok_or_else(|| format!("{key} was stored and never accepted"))?;
        if self.bodies.get(key).is_none_or(|known| known != body) {
            return Err(format!("{key} arrived altered"));
        }
        let times = self.stored.entry(key.to_owned()).or_default();
        *times += 1;
        if *times > 1 {
            self.duplicates += 1;
            return Ok(());
        }
        let last = self.last_first_receipts.entry(priority).or_default();
        if place < *last {
            return Err(format!("{key} (number {place}) arrived after number {last} of its priority"));
        }
        *last = place;
        Ok(())
    }

    /// A service acknowledges a message.
    pub(crate) fn acknowledges(&mut self, key: &str) {
        self.acknowledged.insert(key.to_owned());
    }

    /// How often messages arrived more than once.
    pub(crate) const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Checks the books after a drain.
    pub(crate) fn books(&self, ledger: &Ledger, queued: usize) -> Result<(), String> {
        if !ledger.balances() {
            return Err(format!("the books do not balance: {ledger:?}"));
        }
        let of = |reason| self.dropped.iter().filter(|(_, why)| *why == reason).count() as u64;
        let expected = [
            ("accepted", ledger.accepted, self.accepted),
            ("delivered", ledger.delivered, self.delivered.len() as u64),
            ("queued", ledger.queued, queued as u64),
            ("open", self.open.len() as u64, queued as u64),
            ("dropped", ledger.expired + ledger.evicted + ledger.rejected, self.dropped.len() as u64),
        ];
        for (what, found, wanted) in expected {
            if found != wanted {
                return Err(format!("{what}: the ledger says {found}, the events say {wanted}: {ledger:?}"));
            }
        }
        for (reason, counted) in [
            (DropReason::Expired, ledger.expired),
            (DropReason::Evicted, ledger.evicted),
            (DropReason::Rejected, ledger.rejected),
        ] {
            let reported = self.reported.get(&reason).copied().unwrap_or(0);
            if (of(reason), reported) != (counted, counted) {
                return Err(format!("{reported} messages were reported {reason}: {ledger:?}"));
            }
        }
        Ok(())
    }
}
