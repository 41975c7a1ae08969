//! The operation log: all operations other than telemetry.

use std::time::Duration;

use serde::Serialize;

/// One operation of a hub or a device, in the order of all devices.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OperationRecord {
    /// Position in the order of all operations of all devices, from 1.
    pub order: u64,
    /// Time since the emulator started.
    pub at: Duration,
    /// Host name of the hub.
    pub hub: String,
    /// Device id, or `device/module`.
    pub device: String,
    /// The operation.
    #[serde(flatten)]
    pub operation: Operation,
}

/// An operation of a hub or a device. In JSON the name is in kebab case under `operation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// The device requested its twin.
    TwinRead {
        /// The status of the response; none when a fault dropped it or the device was not subscribed.
        status: Option<u16>,
    },
    /// The device reported properties.
    TwinReported {
        /// The status of the response; none when a fault dropped it or the device was not subscribed.
        status: Option<u16>,
        /// The new version, when the report was accepted.
        version: Option<u64>,
    },
    /// The service changed desired properties.
    DesiredChanged {
        /// The new version.
        version: u64,
        /// Whether the device was notified.
        notification: Notification,
    },
    /// The identity was deleted and recreated: both versions restart.
    TwinRestarted,
    /// A method call was sent to the device.
    MethodCalled {
        /// Name of the method.
        method: String,
        /// The `$rid` of the call.
        request: String,
    },
    /// The called device was not connected or not subscribed (404 to the caller).
    MethodNotDelivered {
        /// Name of the method.
        method: String,
    },
    /// The device responded to a method call in time.
    MethodAnswered {
        /// The `$rid` of the call.
        request: String,
        /// The status of the response.
        status: i64,
    },
    /// No response arrived in time, or the connection ended first (504 to the caller).
    MethodTimedOut {
        /// The `$rid` of the call.
        request: String,
    },
    /// An unexpected response arrived: late, twice, or with an unknown `$rid`.
    MethodAnsweredLate {
        /// The `$rid` of the response.
        request: String,
        /// The status of the response.
        status: i64,
    },
    /// A cloud-to-device message was queued.
    MessageQueued {
        /// Number of the message at this device, from 1.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
    },
    /// A message was passed to the connection.
    MessageDelivered {
        /// Number of the message at this device.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
        /// The number of deliveries, including this one.
        delivery: u32,
        /// Its DUP flag.
        dup: bool,
    },
    /// The device completed a message by its PUBACK.
    MessageCompleted {
        /// Number of the message at this device.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
        /// Whether the sender requested feedback (`iothub-ack`).
        feedback: bool,
    },
    /// A message expired before it was acknowledged.
    MessageExpired {
        /// Number of the message at this device.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
        /// Whether the sender requested feedback (`iothub-ack`).
        feedback: bool,
    },
    /// The hub accepted an upload and returned its SAS URI.
    UploadBegun {
        /// The `correlationId`.
        correlation_id: String,
        /// Name of the blob: device id, slash, the name from the device.
        blob: String,
    },
    /// The hub refused an upload.
    UploadRefused {
        /// The name from the device.
        name: String,
        /// The HTTP status.
        status: u16,
    },
    /// A blob, a block or a block list was put to the storage.
    BlobWritten {
        /// Name of the blob.
        blob: String,
        /// `block` or `blocklist`; none for a whole blob.
        part: Option<String>,
        /// Bytes of the request's body.
        size: usize,
        /// The HTTP status.
        status: u16,
    },
    /// The device sent an upload notification.
    UploadNotified {
        /// The `correlationId`.
        correlation_id: String,
        /// The `isSuccess` of the notification.
        success: bool,
        /// The `statusCode` of the notification.
        code: Option<i64>,
        /// The `statusDescription` of the notification.
        description: Option<String>,
        /// The HTTP status of the response: 204, or 400 when the upload is unknown or expired.
        status: u16,
    },
    /// The queue was emptied through the control API, by a fail-over, or by a clean session (see
    /// [`HubConfig::clean_session_drops_c2d`](crate::HubConfig::clean_session_drops_c2d)).
    MessagesPurged {
        /// The number of dropped messages.
        count: usize,
    },
}

/// Whether a device was notified of a desired property change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Notification {
    /// The notification was passed to the connection.
    Sent,
    /// The device is not connected or not subscribed; nothing is queued.
    NotListening,
    /// A fault dropped the notification.
    Lost,
}
