//! The application's handle of a device.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use steadfast_core::iothub::Event;
use steadfast_core::mqtt::QoS;
use steadfast_core::{
    Assignment, Destination, Instant, Ledger, Message, MessageId, Outbox, PublishError, ServiceKind, SubscribeError,
    SubscriptionId,
};
use tokio::sync::{broadcast, watch};

use crate::builder::Builder;
use crate::clock;
#[cfg(feature = "_requests")]
use crate::connector::Setup;
use crate::inbox::Inbound;
use crate::receipt::{Receipt, Undelivered};
use crate::shared::{End, Shared, wake};
use crate::status::Status;

/// A device's handle, cheap to clone and valid for the device's whole life: it survives every change of connection, hub
/// and token.
///
/// The [`crate::Driver`] made with it does the work. Dropping all handles stops nothing: the driver continues until it
/// is dropped or the link is [stopped](Self::stop).
///
/// ```no_run
/// use std::time::Duration;
/// use steadfast::{Device, Telemetry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = std::env::var("DEVICE_CONNECTION_STRING")?;
/// let (device, driver) = Device::builder().connection_string(&text).build()?;
/// let driver = tokio::spawn(driver);
///
/// let mut receipt = device.send(&Telemetry::json(r#"{"celsius":21.5}"#)).await?;
/// receipt.delivered().await?;
///
/// let books = device.stop(Duration::from_secs(10)).await;
/// println!("{} delivered, {} still queued", books.delivered, books.queued);
/// driver.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    #[cfg(feature = "_requests")]
    setup: Arc<Setup>,
}

impl Device {
    #[cfg(feature = "_requests")]
    pub(crate) const fn new(shared: Arc<Shared>, setup: Arc<Setup>) -> Self {
        Self { shared, setup }
    }

    #[cfg(not(feature = "_requests"))]
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    #[cfg(feature = "_requests")]
    pub(crate) const fn setup(&self) -> &Arc<Setup> {
        &self.setup
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Begins to describe a device.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Queues a message, and waits for room if necessary: senders are served in order, those of urgent messages first.
    ///
    /// On return the message is accepted, in every state of the link: it is sent as soon as the link is up, again after
    /// every interruption, and ends in exactly one outcome, which the [`Receipt`] reports. Pass a
    /// [`&Telemetry`](crate::Telemetry), or a [`Message`] with its own topic or properties.
    ///
    /// Cancel-safe: a future dropped before its end has queued nothing.
    ///
    /// # Errors
    /// [`SendError`]; the message was not accepted.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Sending<'_, 'm> {
        Sending { shared: &self.shared, message: message.into(), ticket: None }
    }

    /// Queues a message if there is room for it now and no other sender waits for room.
    ///
    /// # Errors
    /// [`TrySendError::Full`] when [`send`](Self::send) would wait; otherwise as there.
    pub fn try_send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Receipt, TrySendError> {
        let mut wakes = Vec::new();
        let (result, driver) = {
            let mut inner = self.shared.lock();
            if inner.end.is_some() {
                return Err(TrySendError::Refused(SendError::Ended));
            }
            let now = clock::now();
            (inner.accept(message.into(), &mut wakes, now), inner.send_lone(now))
        };
        wake(driver);
        wakes.into_iter().for_each(Waker::wake);
        match result {
            Ok(id) => Ok(Receipt::new(Arc::clone(&self.shared), id)),
            Err(PublishError::Full) => Err(TrySendError::Full),
            Err(error) => Err(TrySendError::Refused(error.into())),
        }
    }

    /// Subscribes to a topic filter of a broker, now or once the link is up, and again after the broker has lost the
    /// session. [`receive`](Self::receive) returns its messages.
    ///
    /// The broker's answer is an event: [`LinkEvent::Subscribed`](crate::LinkEvent::Subscribed) with the granted QoS,
    /// or [`LinkEvent::SubscriptionRefused`](crate::LinkEvent::SubscriptionRefused), after which the link subscribes
    /// again on the next connection. The table has room for 16 filters with 4 KiB in total, in memory: subscribe after
    /// each start, best before the driver runs.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing changed then.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<SubscriptionId, SubscribeError> {
        self.shared.command(|inner| inner.link.subscribe(filter, qos, clock::now()))
    }

    /// Ends the subscription to a filter of a broker; [`LinkEvent::Unsubscribed`](crate::LinkEvent::Unsubscribed)
    /// confirms it. Returns `None` if there is no such subscription.
    #[expect(clippy::must_use_candidate, reason = "the end of the subscription is the point")]
    pub fn unsubscribe(&self, filter: &str) -> Option<SubscriptionId> {
        self.shared.command(|inner| inner.link.unsubscribe(filter, clock::now()))
    }

    /// Returns the status as a watch channel, to read or to await changes.
    ///
    /// It changes with the link's state and deadlines, not with each message: `queued` and `in_flight` are those at the
    /// latest change. Instants in it are on the clock of [`now`](Self::now).
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status()
    }

    /// Returns the current status of the link, with the current queue.
    #[must_use]
    pub fn look(&self) -> Status {
        let inner = self.shared.lock();
        self.shared.look(&inner).at(clock::now())
    }

    /// Returns the time on the clock of [`Status`]: monotonic, the time asleep included.
    #[must_use]
    pub fn now(&self) -> Instant {
        clock::now()
    }

    /// Listens to the events of the link from here on, those of single messages included.
    ///
    /// A listener more than 256 events behind gets the number of events it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events()
    }

    /// Waits for the next message from the service.
    ///
    /// Each message is delivered once, to one caller. Up to 50 messages that need an acknowledgement (a hub queues as
    /// many for a device) and 64 others are queued; more of the former are redelivered on a later connection, more of
    /// the latter are dropped with a warning. Returns `None` when the driver has ended and no message is queued.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn receive(&self) -> Option<Inbound> {
        loop {
            let arrived = self.shared.arrived.notified();
            {
                let mut inner = self.shared.lock();
                if let Some(mut body) = inner.inbox.pop_front() {
                    body.duplicate |= body.owed.is_some_and(|(id, attempt)| inner.link.is_duplicate(id, attempt));
                    let more = !inner.inbox.is_empty();
                    drop(inner);
                    if more {
                        self.shared.arrived.notify_one();
                    }
                    return Some(Inbound::new(body, Arc::clone(&self.shared)));
                }
                if inner.end.is_some() {
                    drop(inner);
                    // Wakes the other receivers too.
                    self.shared.arrived.notify_one();
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// Returns the ledger: at every instant, accepted = delivered + queued + expired + evicted + rejected.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.lock().ledger()
    }

    /// Returns the hub the Device Provisioning Service has assigned, if one has been.
    #[must_use]
    pub fn assignment(&self) -> Option<Assignment> {
        self.shared.lock().link.link().assignment().cloned()
    }

    /// Returns the JSON text that came with the latest assignment of this process, if one did.
    #[must_use]
    pub fn provisioning_payload(&self) -> Option<Vec<u8>> {
        self.shared.lock().provisioning_payload.as_deref().map(<[u8]>::to_vec)
    }

    /// Returns copies of the messages that wait or are in flight, the urgent ones before the others, and each the oldest
    /// first.
    ///
    /// After [`stop`](Self::stop), or once the driver was dropped, these are the undelivered messages: store them, or
    /// notify their senders.
    #[must_use]
    pub fn queued(&self) -> Vec<Queued> {
        let inner = self.shared.lock();
        let outbox = inner.link.link().outbox();
        let mut all = Vec::with_capacity(outbox.usage().messages);
        let mut next = outbox.first();
        while let Some(entry) = next.and_then(|id| outbox.get(id)) {
            all.push(Queued {
                id: entry.id,
                telemetry: matches!(entry.destination, Destination::Telemetry(_)),
                address: entry.destination.text().to_owned(),
                payload: entry.payload.to_vec(),
            });
            next = outbox.next(entry.id.next());
        }
        all
    }

    /// Registers with the Device Provisioning Service, such as when an operator has moved the device.
    ///
    /// Messages in flight are drained first. Without effect for a configured hub, or while the link is stopped.
    /// Registrations are billed.
    pub fn reprovision(&self) {
        self.shared.command(|inner| inner.link.reprovision(clock::now()));
    }

    /// Sets the operator's jitter window for an overloaded service; zero for none.
    ///
    /// The right value is 1.1 times the number of devices divided by the admissions per second of the service. At most
    /// [`RetryPolicy::jitter_cap`](crate::RetryPolicy) counts.
    pub fn set_spread(&self, spread: Duration) {
        self.shared.command(|inner| inner.link.set_spread(spread, clock::now()));
    }

    /// Plans a move before the service shuts down: the fleet disconnects and reconnects within `spread`.
    ///
    /// The link draws a random moment, stays up until then, drains, sends DISCONNECT and reconnects. With
    /// [`ServiceKind::Provisioning`] it first asks the Device Provisioning Service for its hub. Without effect while
    /// the link is stopped.
    pub fn move_within(&self, spread: Duration, by: ServiceKind) {
        self.shared.command(|inner| inner.link.move_within(spread, by, clock::now()));
    }

    /// Stops the link: sends queued messages and awaits their acknowledgements, for at most `drain` while the link is
    /// up, sends DISCONNECT, and ends the driver. Returns the ledger.
    ///
    /// The receipts of messages still queued then report [`Undelivered::StillQueued`]; [`queued`](Self::queued) returns
    /// these messages. Messages sent during the drain are still accepted; later ones are not. A driver that was never
    /// polled counts as ended.
    ///
    /// Cancel-safe in that the link stops all the same.
    pub async fn stop(&self, drain: Duration) -> Ledger {
        let never_ran = self.shared.command(|inner| {
            inner.link.stop(drain, clock::now());
            let first = !std::mem::replace(&mut inner.stopping, true);
            first && !inner.running && inner.end.is_none()
        });
        if never_ran {
            self.shared.end(End::Stopped, Undelivered::StillQueued);
        }
        loop {
            let mut over = pin!(self.shared.over.notified());
            over.as_mut().enable();
            {
                let inner = self.shared.lock();
                if inner.end.is_some() {
                    return inner.ledger();
                }
            }
            over.await;
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.look())
    }
}

/// The future of [`Device::send`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sending<'d, 'm> {
    shared: &'d Arc<Shared>,
    message: Message<'m>,
    /// The place in the queue of waiting senders.
    ticket: Option<u64>,
}

impl Future for Sending<'_, '_> {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut wakes = Vec::new();
        let (result, driver, next) = {
            let now = clock::now();
            let mut inner = this.shared.lock();
            let result = if inner.end.is_some() {
                Some(Err(SendError::Ended))
            } else {
                let accepted = inner.accept_in_turn(this.message, &mut this.ticket, cx.waker(), &mut wakes, now);
                accepted.map(|accepted| accepted.map_err(SendError::from))
            };
            let next = match (&result, this.ticket) {
                (Some(_), Some(ticket)) => {
                    this.ticket = None;
                    inner.leave_queue(ticket)
                }
                _ => None,
            };
            (result, inner.send_lone(now), next)
        };
        wake(driver);
        wake(next);
        wakes.into_iter().for_each(Waker::wake);
        match result {
            Some(result) => Poll::Ready(result.map(|id| Receipt::new(Arc::clone(this.shared), id))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Sending<'_, '_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let next = self.shared.lock().leave_queue(ticket);
            wake(next);
        }
    }
}

impl fmt::Debug for Sending<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("waits", &self.ticket.is_some()).finish_non_exhaustive()
    }
}

/// A message that waits or is in flight, as [`Device::queued`] copies it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// Its id.
    pub id: MessageId,
    /// Whether it is telemetry of a hub's device.
    pub telemetry: bool,
    /// Its properties, for telemetry, or its topic.
    pub address: String,
    /// Its body.
    pub payload: Vec<u8>,
}

impl<'a> From<&'a Queued> for Message<'a> {
    fn from(queued: &'a Queued) -> Self {
        if queued.telemetry {
            Self::telemetry(&queued.address, &queued.payload)
        } else {
            Self::to_topic(&queued.address, &queued.payload)
        }
    }
}

/// Why [`Device::send`] did not accept a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The message can never be accepted as it is.
    Unfit(PublishError),
    /// The link was stopped, or its driver dropped.
    Ended,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(error) => error.fmt(f),
            Self::Ended => f.write_str("the link was stopped or its driver dropped; build the device again to send"),
        }
    }
}

impl std::error::Error for SendError {}

impl From<PublishError> for SendError {
    fn from(error: PublishError) -> Self {
        Self::Unfit(error)
    }
}

/// Why [`Device::try_send`] did not accept a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError {
    /// There is no room now, or others wait for it.
    Full,
    /// Waiting would not help.
    Refused(SendError),
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the outbox is full; wait for a delivery and try again"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TrySendError {}
