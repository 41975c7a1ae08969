//! The application's handle of a device.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use steadfast_core::iothub::operator_commands::OperatorCommand;
use steadfast_core::mqtt::QoS;
use steadfast_core::{
    Assignment, Destination, Instant, Ledger, Message, MessageId, Outbox, ServiceKind, SubscribeError, SubscriptionId,
};

use crate::builder::Builder;
use crate::clock;
use crate::component::Component;
#[cfg(feature = "_requests")]
use crate::connector::Setup;
use crate::direct_methods::DirectMethods;
use crate::events::{Events, StatusChanges};
use crate::messages::Messages;
use crate::receipt::{DeliveryError, Receipt};
use crate::send::{OutboundMessage, SendError, Sending, SendingRef};
use crate::shared::{End, Shared, wake};
use crate::status::Status;
use crate::twin::Twin;

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
/// device.send(Telemetry::json(r#"{"celsius":21.5}"#)).await?.delivered().await?;
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

    #[cfg(feature = "_requests")]
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Begins to describe a device.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Queues a message, when there is room for it: first come, first served, urgent ones before others.
    ///
    /// What it returns is accepted, in every state of the link: it is sent as soon as the link is up, again after every
    /// interruption, and ends in exactly one outcome, which the [`Receipt`] gives. Take a [`Telemetry`](crate::Telemetry), or
    /// a [`TopicMessage`](crate::TopicMessage) for a broker.
    ///
    /// ```no_run
    /// # async fn example(device: steadfast::Device) -> Result<(), Box<dyn std::error::Error>> {
    /// use steadfast::Telemetry;
    ///
    /// device.send(Telemetry::json(r#"{"celsius":21.5}"#)).await?.delivered().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel-safe: a future dropped before its end has queued nothing.
    ///
    /// # Errors
    /// [`SendError`]; the message was not accepted.
    pub fn send(&self, message: impl Into<OutboundMessage>) -> Sending {
        Sending::new(Arc::clone(&self.shared), message.into())
    }

    /// As [`send`](Self::send), of a message that is borrowed.
    ///
    /// # Errors
    /// [`SendError`]; the message was not accepted.
    pub fn send_ref<'m>(&self, message: impl Into<Message<'m>>) -> SendingRef<'_, 'm> {
        SendingRef::new(&self.shared, message.into())
    }

    /// Queues a message if there is room for it immediately and nobody waits for room.
    ///
    /// # Errors
    /// [`SendError::Full`] when [`send`](Self::send) would wait; otherwise as there.
    pub fn try_send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Receipt, SendError> {
        let mut wakes = Vec::new();
        let (result, driver) = {
            let mut inner = self.shared.lock();
            if inner.end.is_some() {
                return Err(SendError::Stopped);
            }
            let now = clock::now();
            (inner.accept(message.into(), &mut wakes, now), inner.send_lone(now))
        };
        wake(driver);
        wakes.into_iter().for_each(Waker::wake);
        Ok(Receipt::new(Arc::clone(&self.shared), result?))
    }

    /// Subscribes to a topic filter of a broker, now or once the link is up, and again whenever the broker has lost the
    /// session. What comes is taken with [`messages`](Self::messages).
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

    /// Returns the status as it is.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = self.shared.lock();
        self.shared.look(&inner).at(clock::now())
    }

    /// Follows the status.
    pub fn status_changes(&self) -> StatusChanges {
        StatusChanges::new(self.shared.status())
    }

    /// Returns the time on the clock of [`Status`]: monotonic, the time asleep included.
    #[must_use]
    pub fn now(&self) -> Instant {
        clock::now()
    }

    /// Listens to the events of the link from here on.
    pub fn events(&self) -> Events {
        Events::new(self.shared.events())
    }

    /// Returns the twin of the device.
    #[must_use]
    pub fn twin(&self) -> Twin {
        Twin::new(Arc::clone(&self.shared))
    }

    /// Takes the calls of direct methods from here on. [`Methods`](crate::Methods) does so with a handler for each method.
    pub fn direct_methods(&self) -> DirectMethods {
        DirectMethods::open(&self.shared, None)
    }

    /// Takes the messages from the service from here on.
    pub fn messages(&self) -> Messages {
        Messages::open(&self.shared)
    }

    /// Returns a Plug and Play component, with streams of its own.
    #[must_use]
    pub fn component(&self, name: &str) -> Component {
        Component::new(Arc::clone(&self.shared), name)
    }

    /// Waits for the next command of an operator; see [`Builder::allow_operator_commands`].
    ///
    /// Commands to register or to spread were carried out by then; one about the log is for the application. Each is given
    /// once; up to 16 wait, and of more the latest count. `None` when the link was stopped and no command waits.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn next_operator_command(&self) -> Option<OperatorCommand> {
        self.shared
            .served(|inner| match inner.services.next_command() {
                Some(command) => Some(Some(command)),
                None => inner.end.is_some().then_some(None),
            })
            .await
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
    /// Messages still queued then are told to their receipts as [`DeliveryError::StillQueued`] and stay readable by
    /// [`queued`](Self::queued). Messages sent meanwhile are still accepted; after the end, none are. A driver that was
    /// never polled is taken as ended.
    ///
    /// Cancel-safe in that the link stops all the same.
    pub async fn stop(&self, drain: Duration) -> Ledger {
        let never_ran = self.shared.command(|inner| {
            inner.link.stop(drain, clock::now());
            let first = !std::mem::replace(&mut inner.stopping, true);
            first && !inner.running && inner.end.is_none()
        });
        if never_ran {
            self.shared.end(End::Stopped, DeliveryError::StillQueued);
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
        write!(f, "Device({})", self.status())
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

impl From<&Queued> for OutboundMessage {
    fn from(queued: &Queued) -> Self {
        Message::from(queued).into()
    }
}
