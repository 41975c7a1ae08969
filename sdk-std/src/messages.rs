//! Messages from the service to the device.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use steadfast_core::iothub::Received;
use steadfast_core::iothub::property_bag::{self, Encoded};
use steadfast_core::mqtt::PacketId;
use steadfast_core::{Attempt, HubProfile as _, Received as LinkReceived, Subscriptions};

use crate::clock;
use crate::shared::Shared;

/// Limit of queued QoS 0 messages.
pub(crate) const INBOX: usize = 64;

/// A message as it waits in the inbox.
#[derive(Debug)]
pub(crate) struct Body {
    /// The topic or input it arrived on.
    source: Source,
    payload: Box<[u8]>,
    dup: bool,
    pub(crate) duplicate: bool,
    /// The handle that acknowledges it, for QoS 1.
    pub(crate) owed: Option<(PacketId, Attempt)>,
}

#[derive(Debug)]
enum Source {
    Topic(Box<str>),
    /// A cloud-to-device message's properties.
    Cloud(Box<str>),
    /// An input's name, and the message's properties.
    Input(String, Box<str>),
}

impl Body {
    /// Copies a received message; returns `None` for anything else received.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all else received is no message")]
    pub(crate) fn copy(received: &Received<&str, &[u8]>, attempt: Attempt) -> Option<Self> {
        let (source, payload, packet_id, dup, duplicate) = match *received {
            Received::Link(LinkReceived::Message { topic, payload, packet_id, dup }) => {
                (Source::Topic(topic.into()), payload, packet_id, dup, false)
            }
            Received::CloudToDevice { properties, payload, packet_id, dup, duplicate } => {
                (Source::Cloud(properties.into()), payload, packet_id, dup, duplicate)
            }
            Received::Input { name, properties, payload, packet_id, dup } => {
                (Source::Input(text(name), properties.into()), payload, packet_id, dup, false)
            }
            _ => return None,
        };
        let owed = packet_id.map(|packet_id| (packet_id, attempt));
        Some(Self { source, payload: payload.into(), dup, duplicate, owed })
    }
}

/// Decodes; bytes that are no UTF-8 become U+FFFD.
fn text(encoded: Encoded<&str>) -> String {
    String::from_utf8_lossy(&encoded.bytes().collect::<Vec<_>>()).into_owned()
}

/// The messages from the service, a [`Stream`]: [`crate::Device::messages`].
///
/// Cloud-to-device messages of a device, messages routed to the inputs of a module, or what a broker sends for the filters
/// the application [subscribed](crate::Device::subscribe) to. Each message is given once: two of these share the messages
/// between them. Up to 50 that are owed an acknowledgement, as many as a hub keeps for a device, and 64 others wait; more
/// of the former come again on a later connection, more of the latter are dropped with a warning.
///
/// ```no_run
/// # async fn example(device: steadfast::Device) {
/// let mut messages = device.messages();
/// while let Some(message) = messages.next().await {
///     println!("{}", String::from_utf8_lossy(message.payload()));
///     message.acknowledge();
/// }
/// # }
/// ```
#[must_use = "a stream that is dropped gives nothing"]
pub struct Messages {
    shared: Arc<Shared>,
}

impl Messages {
    pub(crate) fn open(shared: &Arc<Shared>) -> Self {
        shared.command(|inner| {
            let module = inner.link.link().profile().module_id().is_some();
            inner.open(if module { Subscriptions::INPUTS } else { Subscriptions::CLOUD_TO_DEVICE });
        });
        Self { shared: Arc::clone(shared) }
    }

    /// Waits for the next message; `None` when the link was stopped and no message waits.
    ///
    /// Cancel-safe: a future dropped before its end has taken nothing.
    pub async fn next(&mut self) -> Option<Inbound> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let mut inner = self.shared.lock();
        if let Some(mut body) = inner.inbox.pop_front() {
            body.duplicate |= body.owed.is_some_and(|(id, attempt)| inner.link.is_duplicate(id, attempt));
            drop(inner);
            return Poll::Ready(Some(Inbound::new(body, Arc::clone(&self.shared))));
        }
        if inner.end.is_some() {
            return Poll::Ready(None);
        }
        inner.wake_when_served(cx.waker());
        drop(inner);
        self.shared.expect_driver();
        Poll::Pending
    }
}

impl Stream for Messages {
    type Item = Inbound;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        self.poll(cx)
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// A message from the service.
///
/// [Acknowledge](Self::acknowledge) a QoS 1 message once it is handled. If it is dropped without that, it is abandoned:
/// the service redelivers it on a later connection. Acknowledgements are sent in the order of the messages, as MQTT
/// requires: while this one is neither acknowledged nor dropped, those of later messages wait.
pub struct Inbound {
    body: Body,
    shared: Arc<Shared>,
}

impl Inbound {
    pub(crate) const fn new(body: Body, shared: Arc<Shared>) -> Self {
        Self { body, shared }
    }

    /// Returns the topic of a broker's message; empty for a hub's, which has [properties](Self::properties).
    #[must_use]
    pub fn topic(&self) -> &str {
        if let Source::Topic(topic) = &self.body.source { topic } else { "" }
    }

    /// Returns the name of the module's input it was routed to.
    #[must_use]
    pub fn input(&self) -> Option<&str> {
        if let Source::Input(name, _) = &self.body.source { Some(name) } else { None }
    }

    /// Lists the properties, decoded: `None` for one without a value. System properties have their short names, such as
    /// `$.mid`.
    pub fn properties(&self) -> impl Iterator<Item = (String, Option<String>)> {
        let bag = match &self.body.source {
            Source::Topic(_) => "",
            Source::Cloud(bag) | Source::Input(_, bag) => bag,
        };
        property_bag::properties(bag).map(|property| (text(property.key), property.value.map(text)))
    }

    /// Returns the value of a property, such as `$.mid` or an application property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<String> {
        self.properties().find(|(key, _)| key == name)?.1
    }

    /// Returns the message id, if the sender gave one.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        self.property("$.mid")
    }

    /// Returns the correlation id, if the sender gave one.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        self.property("$.cid")
    }

    /// Returns whether the application has acknowledged the message before: the acknowledgement did not reach the
    /// service. Duplicates are recognised by their message id, among the latest 16.
    #[must_use]
    pub const fn is_duplicate(&self) -> bool {
        self.body.duplicate
    }

    /// Returns the body.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.body.payload
    }

    /// Returns the DUP flag: the service may have sent the message before.
    #[must_use]
    pub const fn dup(&self) -> bool {
        self.body.dup
    }

    /// Acknowledges the message, so that the service does not send it again.
    ///
    /// Returns false when the connection it came on has ended: the service sends it again. A message of QoS 0 needs no
    /// acknowledgement and returns true.
    #[expect(clippy::must_use_candidate, reason = "the acknowledgement is the point")]
    pub fn acknowledge(mut self) -> bool {
        let Some((packet_id, attempt)) = self.body.owed.take() else { return true };
        self.shared.command(|inner| inner.link.acknowledge(packet_id, attempt, clock::now()))
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some((packet_id, attempt)) = self.body.owed.take() {
            self.shared.command(|inner| inner.link.abandon(packet_id, attempt));
        }
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("source", &self.body.source)
            .field("len", &self.payload().len())
            .finish_non_exhaustive()
    }
}
