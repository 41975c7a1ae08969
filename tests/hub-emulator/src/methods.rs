//! Direct methods: calls a device and waits for its response.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Error;
use crate::control::MethodAnswer;
use crate::device_handle::DeviceHandle;
use crate::operations::Operation;
use crate::session::to_bytes;
use crate::topic::Feed;

/// Largest payload of a call and of its response, in bytes.
pub(crate) const MAX_METHOD_PAYLOAD: usize = 128 * 1024;

impl DeviceHandle {
    /// Calls a method of the device and waits for its response. Any number of calls may run at the same time.
    ///
    /// # Errors
    /// [`Error::NotListening`] when the device is not connected or has not subscribed; [`Error::NoAnswer`] when `limit` passes or the connection ends before the response; [`Error::Request`] when the payload exceeds 128 KiB;
    /// [`Error::NoSuchDevice`].
    pub async fn invoke(&self, method: &str, payload: &Value, limit: Duration) -> Result<MethodAnswer, Error> {
        self.invoke_within(method, payload, Duration::ZERO, limit).await
    }

    /// Calls a method as [`DeviceHandle::invoke`] does, waiting up to `connect_limit` for the device to connect and
    /// subscribe.
    ///
    /// # Errors
    /// As for [`DeviceHandle::invoke`].
    pub async fn invoke_within(
        &self,
        method: &str,
        payload: &Value,
        connect_limit: Duration,
        limit: Duration,
    ) -> Result<MethodAnswer, Error> {
        let payload = if payload.is_null() { Bytes::new() } else { to_bytes(payload) };
        if payload.len() > MAX_METHOD_PAYLOAD {
            let size = payload.len();
            return Err(Error::Request(format!("payload is {size} bytes; the limit is {MAX_METHOD_PAYLOAD}")));
        }
        if !connect_limit.is_zero() {
            let ledger = crate::Ledger { shared: self.shared.clone() };
            let listens = |_: &crate::Ledger| self.change(|device| device.listens(Feed::Methods)).unwrap_or(false);
            // The call below reports whether the device connected in time.
            ledger.wait_until(connect_limit, listens).await;
        }
        let request = format!("{:x}", self.shared.next_fault().0);
        let (sender, receiver) = oneshot::channel();
        let delivered = self.act(|device, notes| {
            let topic = format!("$iothub/methods/POST/{method}/?$rid={request}");
            let delivered = device.deliver(Feed::Methods, topic, payload);
            if delivered {
                device.calls.insert(request.clone(), sender);
                notes.push(Operation::MethodCalled { method: method.to_owned(), request: request.clone() });
            } else {
                notes.push(Operation::MethodNotDelivered { method: method.to_owned() });
            }
            delivered
        })?;
        if !delivered {
            return Err(Error::NotListening(self.id.clone()));
        }
        if let Some(answer) = timeout(limit, receiver).await.ok().and_then(Result::ok) {
            return Ok(answer);
        }
        // If the device was deleted meanwhile, so was the call.
        let _ = self.act(|device, notes| {
            device.calls.remove(&request);
            notes.push(Operation::MethodTimedOut { request: request.clone() });
        });
        Err(Error::NoAnswer)
    }
}
