//! The cloud side of a device: its twin and the messages to it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::Error;
use crate::device::Device;
use crate::device_handle::DeviceHandle;
use crate::dps::timestamp;
use crate::fault::Fault;
use crate::inbox::Waiting;
use crate::operations::{Notification, Operation};
use crate::session::{HubSession, to_bytes};
use crate::topic::{Feed, devicebound, encode_bag, input};
use crate::twin::Twin;
use crate::world::{Route, World};

/// Default time to live of a cloud-to-device message.
const TIME_TO_LIVE: Duration = Duration::from_secs(3600);
/// Largest message to a device, in bytes.
const MAX_CLOUD_MESSAGE: usize = 64 * 1024;

/// The feedback that the sender of a cloud-to-device message requests: the `iothub-ack` property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// No feedback; the property is left out.
    #[default]
    None,
    /// Feedback when the message is completed.
    Positive,
    /// Feedback when the message expires.
    Negative,
    /// Feedback in both cases.
    Full,
}

impl Ack {
    /// Parses the value of an `iothub-ack` property; an unknown value means no feedback.
    #[must_use]
    pub fn from_property(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "positive" => Self::Positive,
            "negative" => Self::Negative,
            "full" => Self::Full,
            _ => Self::None,
        }
    }

    fn property(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Positive => Some("positive"),
            Self::Negative => Some("negative"),
            Self::Full => Some("full"),
        }
    }
}

/// A message to a device or to an input of a module. It expires after an hour by default.
#[derive(Clone, Debug)]
#[must_use]
pub struct MessageToDevice {
    body: Vec<u8>,
    properties: Vec<(String, String)>,
    time_to_live: Duration,
    shows_expiry: bool,
    ack: Ack,
}

impl MessageToDevice {
    /// A message with this body and no properties.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        let (body, properties) = (body.into(), Vec::new());
        Self { body, properties, time_to_live: TIME_TO_LIVE, shows_expiry: false, ack: Ack::None }
    }

    /// Adds an application property, or a system property by its short name such as `$.uid`.
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the message id, `$.mid`.
    pub fn id(self, id: &str) -> Self {
        self.property("$.mid", id)
    }

    /// Sets the correlation id, `$.cid`.
    pub fn correlation_id(self, id: &str) -> Self {
        self.property("$.cid", id)
    }

    /// Sets the content type, `$.ct`.
    pub fn content_type(self, kind: &str) -> Self {
        self.property("$.ct", kind)
    }

    /// Sets the content encoding, `$.ce`.
    pub fn content_encoding(self, encoding: &str) -> Self {
        self.property("$.ce", encoding)
    }

    /// Sets the time to live; `$.exp` carries the absolute expiry time.
    pub fn expires_in(mut self, time_to_live: Duration) -> Self {
        (self.time_to_live, self.shows_expiry) = (time_to_live, true);
        self
    }

    /// Requests feedback, `iothub-ack`. The operation log shows the outcome of the message.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }
}

impl DeviceHandle {
    /// Returns the twin: `{"desired":{..},"reported":{..}}`, each with its `$version`.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn twin(&self) -> Result<Value, Error> {
        self.change(|device| device.twin.document())
    }

    /// Merges `patch` into the desired properties, notifies the device if it is subscribed, and returns the new
    /// version.
    ///
    /// # Errors
    /// [`Error::Request`] when `patch` is not an object or exceeds a twin limit; [`Error::NoSuchDevice`].
    pub fn set_desired(&self, patch: &Value) -> Result<u64, Error> {
        self.desire(patch, None)
    }

    /// Merges `patch` as [`DeviceHandle::set_desired`] does, if this is still the version of the desired properties.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the version differs; otherwise as [`DeviceHandle::set_desired`].
    pub fn set_desired_if(&self, version: u64, patch: &Value) -> Result<u64, Error> {
        self.desire(patch, Some(version))
    }

    fn desire(&self, patch: &Value, expected: Option<u64>) -> Result<u64, Error> {
        let Value::Object(patch) = patch else {
            return Err(Error::Request("desired properties must be a JSON object".to_owned()));
        };
        let now = self.shared.now();
        let mut world = self.shared.lock();
        let device = world.device(&self.host, &self.id)?;
        if expected.is_some_and(|expected| expected != device.twin.desired_version()) {
            return Err(Error::Conflict);
        }
        let (version, body) = device.twin.desire(patch).map_err(|why| Error::Request(why.to_owned()))?;
        let lost = device.listens(Feed::Desired) && {
            let lose = |fault: &Fault| (*fault == Fault::LoseDesired).then_some(());
            world.faults.strike(&self.host, &self.id, lose).is_some()
        };
        let device = world.device(&self.host, &self.id)?;
        let notification = if lost {
            Notification::Lost
        } else {
            let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
            let delivered = device.deliver(Feed::Desired, topic, to_bytes(&body));
            if delivered { Notification::Sent } else { Notification::NotListening }
        };
        world.note(&self.host, &self.id, Operation::DesiredChanged { version, notification }, now);
        drop(world);
        self.shared.changed();
        Ok(version)
    }

    /// Deletes the identity and recreates it with the same name and credentials: its connection is closed, its queue
    /// and session are lost, and both twin versions restart at 1.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn recreate(&self) -> Result<(), Error> {
        self.act(|device, notes| {
            device.cut(crate::CloseReason::IdentityChanged);
            let auth = device.auth.clone();
            *device = Device::new(auth);
            notes.push(Operation::TwinRestarted);
        })
    }

    /// Replaces the twin by an empty one whose versions restart at 1, as restoring an old state of a hub does; the
    /// connection stays open and the device is not notified.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn roll_back_twin(&self) -> Result<(), Error> {
        self.act(|device, notes| {
            device.twin = Twin::default();
            notes.push(Operation::TwinRestarted);
        })
    }

    /// Sends a message to the device at QoS 1. It expires after an hour, and is redelivered on each connection until
    /// its PUBACK.
    ///
    /// Properties may be system properties such as `$.mid`; `$.to` is added. The queue holds at most 50 messages.
    ///
    /// # Errors
    /// [`Error::NeverConnected`], [`Error::QueueFull`], [`Error::Request`] when the body exceeds 64 KiB,
    /// [`Error::NoSuchDevice`].
    pub fn send(&self, properties: &[(&str, &str)], payload: &[u8]) -> Result<(), Error> {
        self.send_for(properties, payload, TIME_TO_LIVE)
    }

    /// Sends a message as [`DeviceHandle::send`] does, with this time to live.
    ///
    /// # Errors
    /// As for [`DeviceHandle::send`].
    pub fn send_for(&self, properties: &[(&str, &str)], payload: &[u8], time_to_live: Duration) -> Result<(), Error> {
        let mut message = MessageToDevice::new(payload);
        message.time_to_live = time_to_live;
        for (name, value) in properties {
            message = message.property(name, value);
        }
        self.send_message(message)
    }

    /// Sends a message to the device as [`DeviceHandle::send`] does.
    ///
    /// # Errors
    /// As for [`DeviceHandle::send`].
    pub fn send_message(&self, message: MessageToDevice) -> Result<(), Error> {
        self.post(message, None)
    }

    /// Sends a message to an input of the module, as a route of IoT Edge does.
    ///
    /// # Errors
    /// As for [`DeviceHandle::send`]; [`Error::Request`] when the identity is not a module.
    pub fn send_to_input(&self, input: &str, message: MessageToDevice) -> Result<(), Error> {
        if !self.id.contains('/') {
            return Err(Error::Request(format!("{:?} is not a module; only modules have inputs", self.id)));
        }
        self.post(message, Some(input))
    }

    fn post(&self, message: MessageToDevice, to_input: Option<&str>) -> Result<(), Error> {
        let MessageToDevice { body, mut properties, time_to_live, shows_expiry, ack } = message;
        if body.len() > MAX_CLOUD_MESSAGE {
            return Err(Error::Request(format!("payload is {} bytes; the limit is {MAX_CLOUD_MESSAGE}", body.len())));
        }
        if let Some(ack) = ack.property() {
            properties.push(("iothub-ack".to_owned(), ack.to_owned()));
        }
        let named = |name: &str| properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let ack = named("iothub-ack").map_or(Ack::None, |text| Ack::from_property(&text));
        let feedback = (matches!(ack, Ack::Positive | Ack::Full), matches!(ack, Ack::Negative | Ack::Full));
        let message_id = properties.iter().find(|(key, _)| key == "$.mid").map(|(_, value)| value.clone());
        let has_destination = named("$.to").is_some();
        if to_input.is_none() && !has_destination {
            properties.push(("$.to".to_owned(), format!("/{}", destination(&self.id))));
        }
        if shows_expiry {
            let ends = self.shared.clock.unix().saturating_add(time_to_live.as_secs());
            properties.push(("$.exp".to_owned(), timestamp(ends)));
        }
        let topic = to_input.map_or_else(|| devicebound(&self.id), |name| input(&self.id, name));
        let topic = topic + &encode_bag(&properties);
        if topic.len() > usize::from(u16::MAX) {
            return Err(Error::Request("the properties do not fit into a topic".to_owned()));
        }
        let now = self.shared.now();
        let message = Waiting {
            number: 0,
            message_id,
            topic,
            payload: Bytes::from(body),
            expires_at: now.saturating_add(time_to_live),
            feedback,
            to_input: to_input.is_some(),
            sent: None,
            deliveries: 0,
        };
        self.act(|device, notes| {
            if !device.ever_connected {
                return Err(Error::NeverConnected(self.id.clone()));
            }
            device.inbox.expire(now, notes);
            device.inbox.add(message, notes)?;
            device.pump(now, notes);
            Ok(())
        })?
    }

    /// Returns how many messages are queued or wait for their PUBACK.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn waiting(&self) -> Result<usize, Error> {
        let now = self.shared.now();
        self.act(|device, notes| {
            device.inbox.expire(now, notes);
            device.inbox.messages.len()
        })
    }

    /// Empties the queue of cloud-to-device messages and returns how many it held.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn purge(&self) -> Result<usize, Error> {
        self.act(|device, notes| {
            let count = device.inbox.messages.len();
            device.inbox.purge(notes);
            count
        })
    }

    /// Returns the state of the identity as JSON.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn describe(&self) -> Result<Value, Error> {
        self.change(|device| {
            let filters: Vec<&str> =
                device.subscriptions.iter().map(|subscription| subscription.filter.as_str()).collect();
            json!({
                "id": self.id,
                "hub": self.host,
                "enabled": device.enabled,
                "connected": device.live.is_some(),
                "connection": device.live.as_ref().map(|live| live.connection),
                "session": device.has_session,
                "subscriptions": filters,
                "waiting": device.inbox.messages.len(),
                "modelId": device.user_query.model_id,
                "apiVersion": device.user_query.api_version,
                "product": device.user_query.product,
            })
        })
    }

    /// Returns the model id the device announced with its last CONNECT.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn model_id(&self) -> Result<Option<String>, Error> {
        self.change(|device| device.user_query.model_id.clone())
    }

    /// Changes the identity and records the operations that `act` adds.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut Device, &mut Vec<Operation>) -> T) -> Result<T, Error> {
        let now = self.shared.now();
        let result = self.shared.lock().with_device(&self.host, &self.id, now, act);
        self.shared.changed();
        result
    }
}

/// Routes a module's output message to its inputs, with the sender in `$.cdid` and `$.cmid`. The message is dropped
/// when the queue is full or the module never connected.
pub(crate) fn route(
    world: &mut World,
    session: &HubSession,
    output: &str,
    properties: &[(String, String)],
    payload: &[u8],
    now: Duration,
) {
    let Some(hub) = world.hubs.get(&session.host) else { return };
    let fits = |route: &&Route| route.from == session.identity && (route.output == output || route.output == "*");
    let routes: Vec<Route> = hub.routes.iter().filter(fits).cloned().collect();
    let message_id = properties.iter().find(|(key, _)| key == "$.mid").map(|(_, value)| value.clone());
    let mut properties = properties.to_vec();
    let (device, module) = session.identity.split_once('/').unwrap_or((&session.identity, ""));
    for (name, value) in [("$.cdid", device), ("$.cmid", module)] {
        properties.push((name.to_owned(), value.to_owned()));
    }
    for route in routes {
        let message = Waiting {
            number: 0,
            message_id: message_id.clone(),
            topic: input(&route.to, &route.input) + &encode_bag(&properties),
            payload: Bytes::copy_from_slice(payload),
            expires_at: now + TIME_TO_LIVE,
            feedback: (false, false),
            to_input: true,
            sent: None,
            deliveries: 0,
        };
        // A module that was deleted or never connected gets nothing.
        let _ = world.with_device(&session.host, &route.to, now, |device, notes| {
            if device.ever_connected && device.inbox.add(message, notes).is_ok() {
                device.pump(now, notes);
            }
        });
    }
}

/// Returns the destination of a message, without the leading slash.
fn destination(id: &str) -> String {
    match id.split_once('/') {
        None => format!("devices/{id}/messages/deviceBound"),
        Some((device, module)) => format!("devices/{device}/modules/{module}/messages/deviceBound"),
    }
}
