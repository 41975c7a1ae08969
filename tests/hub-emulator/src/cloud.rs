//! The cloud side of a device: twin, methods, messages to the device.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Error;
use crate::control::{DeviceHandle, MethodAnswer};
use crate::session::to_bytes;
use crate::topic::Feed;

/// How long a message to a device is kept when nothing else is said.
const TIME_TO_LIVE: Duration = Duration::from_secs(3600);
const MAX_CLOUD_MESSAGE: usize = 64 * 1024;

impl DeviceHandle {
    /// Returns the twin: `{"desired":{..},"reported":{..}}`, each with its `$version`.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn twin(&self) -> Result<Value, Error> {
        self.change(|device| device.twin.document())
    }

    /// Merges `patch` into the desired properties, tells the device if it listens, and returns the new version.
    ///
    /// # Errors
    /// [`Error::Request`] when `patch` is no object; [`Error::NoSuchDevice`].
    pub fn set_desired(&self, patch: &Value) -> Result<u64, Error> {
        let Value::Object(patch) = patch else {
            return Err(Error::Request("desired properties must be a JSON object".to_owned()));
        };
        self.change(|device| {
            let (version, body) = device.twin.desire(patch);
            let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
            device.tell(Feed::Desired, topic, to_bytes(&body));
            version
        })
    }

    /// Calls a method of the device and waits for its answer.
    ///
    /// # Errors
    /// [`Error::NotListening`] when the device is not connected or has not subscribed; [`Error::NoAnswer`] when `limit`
    /// passes or the connection ends before the answer; [`Error::NoSuchDevice`].
    pub async fn invoke(&self, method: &str, payload: &Value, limit: Duration) -> Result<MethodAnswer, Error> {
        let payload = if payload.is_null() { Bytes::new() } else { to_bytes(payload) };
        let request = format!("{:x}", self.shared.next_fault().0);
        let (sender, receiver) = oneshot::channel();
        let told = self.change(|device| {
            device.calls.insert(request.clone(), sender);
            device.tell(Feed::Methods, format!("$iothub/methods/POST/{method}/?$rid={request}"), payload)
        })?;
        let answer = if told { timeout(limit, receiver).await.ok().and_then(Result::ok) } else { None };
        // The device may be gone by now; then so is the call.
        let _ = self.change(|device| device.calls.remove(&request));
        match answer {
            Some(answer) => Ok(answer),
            None if told => Err(Error::NoAnswer),
            None => Err(Error::NotListening(self.id.clone())),
        }
    }

    /// Sends a message to the device at QoS 1: kept for an hour, delivered again on each connection until its PUBACK.
    ///
    /// Properties may be system properties such as `$.mid`; `$.to` is added. At most 50 messages wait.
    ///
    /// # Errors
    /// [`Error::NeverConnected`], [`Error::QueueFull`], [`Error::Request`] when the body exceeds 64 KiB,
    /// [`Error::NoSuchDevice`].
    pub fn send(&self, properties: &[(&str, &str)], payload: &[u8]) -> Result<(), Error> {
        self.send_for(properties, payload, TIME_TO_LIVE)
    }

    /// Sends a message as [`DeviceHandle::send`] does, kept for `time_to_live`.
    ///
    /// # Errors
    /// As for [`DeviceHandle::send`].
    pub fn send_for(&self, properties: &[(&str, &str)], payload: &[u8], time_to_live: Duration) -> Result<(), Error> {
        if payload.len() > MAX_CLOUD_MESSAGE {
            return Err(Error::Request(format!(
                "payload is {} bytes; the limit is {MAX_CLOUD_MESSAGE}",
                payload.len()
            )));
        }
        let mut all: Vec<(String, String)> =
            properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        if !all.iter().any(|(key, _)| key == "$.to") {
            all.push(("$.to".to_owned(), format!("/devices/{}/messages/deviceBound", self.id)));
        }
        let now = self.shared.now();
        let payload = Bytes::copy_from_slice(payload);
        self.change(|device| device.enqueue(&self.id, &all, payload, now + time_to_live, now))?
    }

    /// Returns how many messages wait for the device or for its PUBACK.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn waiting(&self) -> Result<usize, Error> {
        self.change(|device| device.inbox.len())
    }

    /// Returns what is known of the identity, as JSON.
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
                "waiting": device.inbox.len(),
            })
        })
    }
}
