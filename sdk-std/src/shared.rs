//! The state that a device's handles and its driver share.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use steadfast_core::iothub::{CallSlot, Event};
use steadfast_core::{
    AnyProfile, Config, Credential, HubLink, HubProfile as _, Instant, Ledger, Message, MessageId, Outcome, Priority,
    PublishError, Settings, Subscriptions,
};
use tokio::sync::{Notify, broadcast, watch};
use zeroize::{Zeroize, Zeroizing};

use crate::clock;
use crate::connection::Connection;
use crate::engine::Turn;
use crate::memory_outbox::MemoryOutbox;
use crate::messages::Body;
use crate::receipt::{DeliveryError, Receipts};
use crate::services::Services;
use crate::status::{Peers, Status};

/// The link of a device on this frontend.
pub(crate) type DeviceLink = HubLink<MemoryOutbox, AnyProfile<SharedConfig, Box<[u8]>>, Box<[u8]>, Box<[CallSlot]>>;

/// The configuration, held once by the link and once by the driver.
#[derive(Clone, Debug)]
pub(crate) struct SharedConfig {
    config: Arc<Kept>,
    subscriptions: Subscriptions,
    token: Option<Box<Token>>,
}

/// A configuration whose password or ready-made token is overwritten when it is dropped.
#[derive(Debug)]
struct Kept(Config<Box<str>>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Credential::Token(secret) | Credential::Password { password: secret, .. } = &mut self.0.credential {
            secret.zeroize();
        }
    }
}

/// A ready-made token.
#[derive(Clone)]
struct Token(Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl SharedConfig {
    pub(crate) fn new(config: Config<Box<str>>) -> Self {
        Self { subscriptions: config.subscriptions, config: Arc::new(Kept(config)), token: None }
    }
}

impl Settings for SharedConfig {
    type Text = Box<str>;

    const HTTPS: bool = cfg!(feature = "tpm");

    fn config(&self) -> &Config<Box<str>> {
        &self.config.0
    }

    fn subscriptions(&self) -> Subscriptions {
        self.subscriptions
    }

    fn subscribe(&mut self, more: Subscriptions) -> bool {
        self.subscriptions |= more;
        true
    }

    fn keep_token(&mut self, token: &str) -> bool {
        self.token = Some(Box::new(Token(Zeroizing::new(token.to_owned()))));
        true
    }

    fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.0.as_str())
    }
}

/// Why a driver has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    Dropped,
}

/// The state that a device's handles and its driver share.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Created on first use, like the next field.
    status: OnceLock<watch::Sender<Status>>,
    /// Locked for short, under the lock of `inner`.
    peers: Mutex<Peers>,
    events: OnceLock<broadcast::Sender<Event>>,
    /// Notified when a service of the hub has something, or the driver has ended.
    pub(crate) serving: Notify,
    /// The driver has ended.
    pub(crate) over: Notify,
}

/// The state behind the lock.
pub(crate) struct Inner {
    pub(crate) link: DeviceLink,
    pub(crate) receipts: Receipts,
    /// Senders that wait for room in the outbox: those of urgent messages, then the others, each in order of arrival.
    queue: VecDeque<Waiting>,
    next_ticket: u64,
    /// Wakes the driver; taken when used.
    pub(crate) driver: Option<Waker>,
    pub(crate) inbox: VecDeque<Body>,
    pub(crate) services: Services,
    /// Memory for services that are not opened yet.
    rooms: Rooms,
    /// Who polls a stream and found nothing.
    pollers: Vec<Waker>,
    pub(crate) provisioning_payload: Option<Box<[u8]>>,
    pub(crate) connection: Option<Connection>,
    /// Actions of a turn outside the driver.
    pub(crate) left_over: Option<Box<Turn>>,
    /// The link's next deadline.
    pub(crate) deadline: Option<Instant>,
    /// The driver's own timer.
    pub(crate) alarm: Option<Instant>,
    /// The link may have packets for which the buffer had no room.
    pub(crate) held_back: bool,
    /// The link has stopped.
    pub(crate) stopped: bool,
    pub(crate) end: Option<End>,
    /// The driver was polled.
    pub(crate) running: bool,
    /// Somebody waits for what the driver does, and sees to it that a driver that nobody polls is noticed.
    watched: bool,
    /// The application has stopped the link, perhaps before the driver started.
    pub(crate) stopping: bool,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    priority: Priority,
    /// `None` after it was woken and before it runs.
    waker: Option<Waker>,
}

/// How long a driver may take to be polled before a warning is logged.
const DRIVER_EXPECTED: Duration = Duration::from_secs(5);

/// Most events a listener can be behind before it misses the oldest.
const EVENTS_KEPT: usize = 256;

impl Shared {
    pub(crate) fn new(link: DeviceLink, rooms: Rooms) -> Self {
        Self {
            inner: Mutex::new(Inner {
                link,
                receipts: Receipts::default(),
                queue: VecDeque::new(),
                next_ticket: 0,
                driver: None,
                inbox: VecDeque::new(),
                services: Services::new(rooms.calls),
                rooms,
                pollers: Vec::new(),
                provisioning_payload: None,
                connection: None,
                left_over: None,
                deadline: None,
                alarm: None,
                held_back: false,
                stopped: false,
                end: None,
                running: false,
                watched: false,
                stopping: false,
            }),
            status: OnceLock::new(),
            peers: Mutex::default(),
            events: OnceLock::new(),
            serving: Notify::new(),
            over: Notify::new(),
        }
    }

    /// The state behind the lock. A poisoned lock is safe to use: the link does not panic on input, so no panic leaves
    /// it half-changed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        // The lock prevents the driver from publishing between the status and the creation of the channel.
        let inner = self.lock();
        self.status.get_or_init(|| watch::Sender::new(self.look(&inner))).subscribe()
    }

    pub(crate) fn publish_status(&self, inner: &Inner) {
        let look = self.look(inner);
        if let Some(status) = self.status.get() {
            status.send_replace(look);
        }
    }

    /// Returns the status as of the link's latest time.
    pub(crate) fn look(&self, inner: &Inner) -> Status {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).look(&inner.link)
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.get_or_init(|| broadcast::Sender::new(EVENTS_KEPT)).subscribe()
    }

    /// The event channel, if somebody listens.
    pub(crate) fn listeners(&self) -> Option<&broadcast::Sender<Event>> {
        self.events.get().filter(|events| events.receiver_count() > 0)
    }

    /// Runs `command` and lets the driver act on it.
    pub(crate) fn command<T>(&self, command: impl FnOnce(&mut Inner) -> T) -> T {
        let (result, driver) = {
            let mut inner = self.lock();
            let result = command(&mut inner);
            self.publish_status(&inner);
            (result, inner.driver.take())
        };
        wake(driver);
        result
    }

    /// Has a warning logged when nobody polls the driver while somebody waits for it. To be called by whoever waits.
    pub(crate) fn expect_driver(self: &Arc<Self>) {
        {
            let mut inner = self.lock();
            if inner.running || inner.end.is_some() || std::mem::replace(&mut inner.watched, true) {
                return;
            }
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let shared = Arc::downgrade(self);
        drop(runtime.spawn(async move {
            tokio::time::sleep(DRIVER_EXPECTED).await;
            let Some(shared) = shared.upgrade() else { return };
            let inner = shared.lock();
            if !inner.running && inner.end.is_none() {
                let device = inner.link.link().profile().device_id();
                tracing::warn!(
                    device,
                    "nobody polls the driver, so that nothing is sent: spawn it, as by tokio::spawn(driver)"
                );
            }
        }));
    }

    /// Waits until `look` returns a value; calls it again whenever a service has something.
    pub(crate) async fn served<T>(self: &Arc<Self>, mut look: impl FnMut(&mut Inner) -> Option<T>) -> T {
        loop {
            let mut served = std::pin::pin!(self.serving.notified());
            served.as_mut().enable();
            let found = look(&mut self.lock());
            if let Some(found) = found {
                return found;
            }
            self.expect_driver();
            served.await;
        }
    }

    /// Wakes every task that waits for the driver.
    pub(crate) fn end(&self, end: End, outcome: DeliveryError) {
        let mut wakes = Vec::new();
        {
            let mut inner = self.lock();
            inner.end.get_or_insert(end);
            inner.settle_ended(&mut wakes);
            inner.receipts.settle_all(Err(outcome), &mut wakes);
            wakes.extend(inner.queue.iter_mut().filter_map(|waiting| waiting.waker.take()));
            wakes.append(&mut inner.pollers);
            inner.driver = None;
            inner.connection = None;
        }
        wakes.into_iter().for_each(Waker::wake);
        self.serving.notify_waiters();
        self.over.notify_waiters();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// How much memory the services of a hub get when they are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rooms {
    /// Bytes of reported properties that wait.
    pub(crate) reports: usize,
    /// Bytes of answers to method calls that wait.
    pub(crate) answers: usize,
    /// Method calls that can be open.
    pub(crate) calls: usize,
}

impl Rooms {
    pub(crate) fn for_reports(&self) -> Box<[u8]> {
        vec![0; self.reports].into_boxed_slice()
    }

    /// Memory for answers, and places for calls: one more says that there are too many.
    pub(crate) fn for_calls(&self) -> (Box<[u8]>, Box<[CallSlot]>) {
        let places = vec![CallSlot::EMPTY; self.calls + 1];
        (vec![0; self.answers].into_boxed_slice(), places.into_boxed_slice())
    }
}

impl Inner {
    /// Subscribes to what a service needs, with memory for it, unless that is done. Returns whether it is.
    pub(crate) fn open(&mut self, more: Subscriptions) -> bool {
        let before = self.subscriptions();
        let now = clock::now();
        if !self.link.open(more, now) {
            return false;
        }
        let fresh = |wanted| more.contains(wanted) && !before.contains(wanted);
        if fresh(Subscriptions::TWIN_RESPONSES) {
            self.link.set_report_room(self.rooms.for_reports());
        }
        if fresh(Subscriptions::METHODS) {
            let (answers, calls) = self.rooms.for_calls();
            self.link.set_call_room(answers, calls);
        }
        true
    }

    pub(crate) fn subscriptions(&self) -> Subscriptions {
        self.link.link().profile().subscriptions()
    }

    /// Whether desired properties are followed already.
    pub(crate) fn follows_twin(&self) -> bool {
        self.subscriptions().contains(Subscriptions::TWIN)
    }

    /// Has whoever polls woken when a service has something, or the driver has ended.
    pub(crate) fn wake_when_served(&mut self, waker: &Waker) {
        if !self.pollers.iter().any(|known| known.will_wake(waker)) {
            self.pollers.push(waker.clone());
        }
    }

    /// Takes those who poll and are to look again.
    pub(crate) fn take_pollers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.pollers)
    }

    /// Takes a message into the outbox, unless other senders wait for room. Adds the tasks to wake to `wakes`.
    pub(crate) fn accept(
        &mut self,
        message: Message<'_>,
        wakes: &mut Vec<Waker>,
        now: Instant,
    ) -> Result<MessageId, PublishError> {
        if self.place_in_queue(message.priority) > 0 && self.link.link().can_accept(&message) {
            return Err(PublishError::Full);
        }
        let accepted = self.link.publish(message, now);
        if let Ok(id) = accepted {
            self.receipts.insert(id);
        }
        self.share_room(wakes);
        accepted
    }

    /// Takes a message from the holder of `ticket`; without one, or before its turn, issues a ticket.
    ///
    /// Returns `None` if there is no room; `waker` is woken when another call may succeed. Adds the tasks to wake to
    /// `wakes`.
    pub(crate) fn accept_in_turn(
        &mut self,
        message: Message<'_>,
        ticket: &mut Option<u64>,
        waker: &Waker,
        wakes: &mut Vec<Waker>,
        now: Instant,
    ) -> Option<Result<MessageId, PublishError>> {
        let first = match *ticket {
            None => self.place_in_queue(message.priority) == 0,
            Some(ticket) => self.queue.front().is_some_and(|waiting| waiting.ticket == ticket),
        };
        if first || !self.link.link().can_accept(&message) {
            let offered = self.link.offer(message, now);
            self.share_room(wakes);
            match offered {
                Ok(Some(id)) => {
                    self.receipts.insert(id);
                    return Some(Ok(id));
                }
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        match *ticket {
            None => {
                let number = self.next_ticket;
                self.next_ticket = number.wrapping_add(1);
                let priority = message.priority;
                let place = self.place_in_queue(priority);
                self.queue.insert(place, Waiting { ticket: number, priority, waker: Some(waker.clone()) });
                *ticket = Some(number);
            }
            Some(ticket) => {
                if let Some(waiting) = self.queue.iter_mut().find(|waiting| waiting.ticket == ticket) {
                    waiting.waker = Some(waker.clone());
                }
            }
        }
        None
    }

    /// The number of waiting senders ahead of a new one.
    fn place_in_queue(&self, priority: Priority) -> usize {
        match priority {
            Priority::Normal => self.queue.len(),
            Priority::Urgent => self.queue.partition_point(|waiting| waiting.priority == Priority::Urgent),
        }
    }

    /// Returns a ticket; returns the waker of the next sender, whose turn it may be.
    pub(crate) fn leave_queue(&mut self, ticket: u64) -> Option<Waker> {
        let place = self.queue.iter().position(|waiting| waiting.ticket == ticket)?;
        self.queue.remove(place);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        if place == 0 { self.next_in_turn() } else { None }
    }

    /// The sender that has waited longest for room, unless it is already woken.
    pub(crate) fn next_in_turn(&mut self) -> Option<Waker> {
        self.queue.front_mut()?.waker.take()
    }

    /// After a message was offered: completes the receipts of messages evicted for it, and wakes the first waiting
    /// sender, since there may be more room than the message took.
    fn share_room(&mut self, wakes: &mut Vec<Waker>) {
        if self.settle_ended(wakes) {
            wakes.extend(self.next_in_turn());
        }
    }

    /// Completes the receipts of messages that ended; returns whether there were any.
    pub(crate) fn settle_ended(&mut self, wakes: &mut Vec<Waker>) -> bool {
        let Self { link, receipts, .. } = self;
        let mut any = false;
        link.link().outbox().drain_ended(|id, outcome| {
            any = true;
            let outcome = match outcome {
                Outcome::Delivered => Ok(()),
                Outcome::Dropped(reason) => Err(reason.into()),
                // A later version may have other outcomes, and none of them is a delivery.
                _ => Err(DeliveryError::Rejected),
            };
            wakes.extend(receipts.settle(id, outcome));
        });
        any
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.link.link().ledger()
    }
}
