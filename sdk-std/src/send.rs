//! The way of a message into the outbox.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use steadfast_core::{Destination, Message, MessageId, Priority, PublishError};

use crate::clock;
use crate::message::Telemetry;
use crate::receipt::Receipt;
use crate::shared::{Shared, wake};

/// A message that [`crate::Device::send`] takes: made of a [`Telemetry`] or a [`TopicMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboundMessage {
    /// Telemetry for an IoT hub.
    Telemetry(Telemetry),
    /// A message to a topic of a broker.
    Topic(TopicMessage),
}

impl OutboundMessage {
    fn view(&self) -> Message<'_> {
        match self {
            Self::Telemetry(telemetry) => telemetry.into(),
            Self::Topic(message) => message.into(),
        }
    }
}

impl From<Telemetry> for OutboundMessage {
    fn from(telemetry: Telemetry) -> Self {
        Self::Telemetry(telemetry)
    }
}

impl From<&Telemetry> for OutboundMessage {
    fn from(telemetry: &Telemetry) -> Self {
        Self::Telemetry(telemetry.clone())
    }
}

impl From<TopicMessage> for OutboundMessage {
    fn from(message: TopicMessage) -> Self {
        Self::Topic(message)
    }
}

impl From<Message<'_>> for OutboundMessage {
    fn from(message: Message<'_>) -> Self {
        let (text, payload) = (message.destination.text().to_owned(), message.payload.to_vec());
        match message.destination {
            Destination::Telemetry(_) => {
                Self::Telemetry(Telemetry::from_parts(text, payload, message.expires_after, message.priority))
            }
            Destination::Topic(_) | _ => Self::Topic(TopicMessage {
                topic: text,
                payload,
                retain: message.retain,
                expires_after: message.expires_after,
                priority: message.priority,
            }),
        }
    }
}

/// A message to a topic of a broker.
///
/// ```
/// use steadfast::TopicMessage;
///
/// let message = TopicMessage::new("pumps/7/state", "on").retained();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TopicMessage {
    topic: String,
    payload: Vec<u8>,
    retain: bool,
    expires_after: Option<Duration>,
    priority: Priority,
}

impl TopicMessage {
    /// Makes a message of QoS 1.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        let (topic, payload) = (topic.into(), payload.into());
        Self { topic, payload, retain: false, expires_after: None, priority: Priority::Normal }
    }

    /// Asks the broker to keep the message for later subscribers.
    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    /// Sends the message before everything queued that is not urgent and has not been sent.
    pub fn urgent(self) -> Self {
        Self { priority: Priority::Urgent, ..self }
    }

    /// Sets how long the message waits for its delivery at most, counted from its acceptance.
    pub fn expires_after(self, span: Duration) -> Self {
        Self { expires_after: Some(span), ..self }
    }
}

impl<'a> From<&'a TopicMessage> for Message<'a> {
    fn from(message: &'a TopicMessage) -> Self {
        let TopicMessage { topic, payload, retain, expires_after, priority } = message;
        let (retain, expires_after, priority) = (*retain, *expires_after, *priority);
        Self { retain, expires_after, priority, ..Self::to_topic(topic, payload) }
    }
}

/// The future of [`crate::Device::send`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sending {
    shared: Arc<Shared>,
    message: OutboundMessage,
    /// The place in the queue for room.
    ticket: Option<u64>,
}

impl Sending {
    pub(crate) const fn new(shared: Arc<Shared>, message: OutboundMessage) -> Self {
        Self { shared, message, ticket: None }
    }
}

impl Future for Sending {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, message, ticket } = &mut *self;
        poll(shared, message.view(), ticket, cx)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        leave(&self.shared, self.ticket);
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("waits", &self.ticket.is_some()).finish_non_exhaustive()
    }
}

/// The future of [`crate::Device::send_ref`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct SendingRef<'d, 'm> {
    shared: &'d Arc<Shared>,
    message: Message<'m>,
    ticket: Option<u64>,
}

impl<'d, 'm> SendingRef<'d, 'm> {
    pub(crate) const fn new(shared: &'d Arc<Shared>, message: Message<'m>) -> Self {
        Self { shared, message, ticket: None }
    }
}

impl Future for SendingRef<'_, '_> {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, message, ticket } = &mut *self;
        poll(shared, *message, ticket, cx)
    }
}

impl Drop for SendingRef<'_, '_> {
    fn drop(&mut self) {
        leave(self.shared, self.ticket);
    }
}

impl fmt::Debug for SendingRef<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendingRef").field("waits", &self.ticket.is_some()).finish_non_exhaustive()
    }
}

fn poll(
    shared: &Arc<Shared>,
    message: Message<'_>,
    ticket: &mut Option<u64>,
    cx: &Context<'_>,
) -> Poll<Result<Receipt, SendError>> {
    let mut wakes = Vec::new();
    let (result, driver, next) = {
        let now = clock::now();
        let mut inner = shared.lock();
        let result: Option<Result<MessageId, SendError>> = if inner.end.is_some() {
            Some(Err(SendError::Stopped))
        } else {
            let accepted = inner.accept_in_turn(message, ticket, cx.waker(), &mut wakes, now);
            accepted.map(|accepted| accepted.map_err(SendError::from))
        };
        let next = match (&result, *ticket) {
            (Some(_), Some(number)) => {
                *ticket = None;
                inner.leave_queue(number)
            }
            _ => None,
        };
        (result, inner.send_lone(now), next)
    };
    wake(driver);
    wake(next);
    wakes.into_iter().for_each(Waker::wake);
    match result {
        Some(result) => Poll::Ready(result.map(|id| Receipt::new(Arc::clone(shared), id))),
        None => {
            shared.expect_driver();
            Poll::Pending
        }
    }
}

fn leave(shared: &Shared, ticket: Option<u64>) {
    if let Some(ticket) = ticket {
        let next = shared.lock().leave_queue(ticket);
        wake(next);
    }
}

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room at present, or others wait for it; only from [`crate::Device::try_send`].
    Full,
    /// The link was stopped, or its driver dropped.
    Stopped,
    /// The message is too large for the service or the outbox, whatever else they hold.
    TooLarge {
        /// Bytes that count.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The properties are longer, encoded, than a topic has room for.
    LongProperties {
        /// Bytes of the encoded properties.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The properties are not encoded as they have to be.
    InvalidProperties {
        /// Offset of the first byte that is not percent-encoded.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// The topic is empty, too long, or has a wildcard or U+0000.
    InvalidTopic,
    /// Telemetry goes to a hub; a broker needs a topic.
    NoTelemetryEndpoint,
    /// The service does not take the message for another reason, which its text says.
    NotForService(PublishError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match *self {
            Self::Stopped => {
                return f.write_str("the link was stopped or its driver dropped; build the device again to send");
            }
            Self::Full => PublishError::Full,
            Self::TooLarge { size, limit } => PublishError::TooLarge { size, limit },
            Self::LongProperties { size, limit } => PublishError::LongProperties { size, limit },
            Self::InvalidProperties { at, byte } => PublishError::BadProperties { at, byte },
            Self::InvalidTopic => PublishError::BadTopic,
            Self::NoTelemetryEndpoint => PublishError::NoTelemetryEndpoint,
            Self::NotForService(error) => error,
        };
        error.fmt(f)
    }
}

impl std::error::Error for SendError {}

impl From<PublishError> for SendError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else a later version refuses has its text")]
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Full => Self::Full,
            PublishError::TooLarge { size, limit } => Self::TooLarge { size, limit },
            PublishError::LongProperties { size, limit } => Self::LongProperties { size, limit },
            PublishError::BadProperties { at, byte } => Self::InvalidProperties { at, byte },
            PublishError::BadTopic => Self::InvalidTopic,
            PublishError::NoTelemetryEndpoint => Self::NoTelemetryEndpoint,
            other => Self::NotForService(other),
        }
    }
}
