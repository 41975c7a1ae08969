//! The operation log: what the services did for devices besides telemetry.

use std::time::Duration;

use serde::Serialize;

/// One thing a hub did for a device, or a device asked of it, in the order of all devices.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OperationRecord {
    /// Place in the order of all operations of all devices, from 1.
    pub order: u64,
    /// Time since the emulator started.
    pub at: Duration,
    /// Host name of the hub.
    pub hub: String,
    /// Device id, or `device/module`.
    pub device: String,
    /// What was done.
    #[serde(flatten)]
    pub operation: Operation,
}

/// What a hub did for a device. In JSON the name is in kebab case under `operation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// The device asked for its twin.
    TwinRead {
        /// The status of the answer; none when a fault left it out or the device did not listen.
        status: Option<u16>,
    },
    /// The device reported properties.
    TwinReported {
        /// The status of the answer; none when a fault left it out or the device did not listen.
        status: Option<u16>,
        /// The new version, when the report was taken.
        version: Option<u64>,
    },
    /// The service changed desired properties.
    DesiredChanged {
        /// The new version.
        version: u64,
        /// Whether the device was told.
        notification: Notification,
    },
    /// The identity was deleted and made again: both versions restart.
    TwinRestarted,
    /// A method call went to the device.
    MethodCalled {
        /// Name of the method.
        method: String,
        /// The `$rid` of the call.
        request: String,
    },
    /// A method call found no device that listens to it (404 to the caller).
    MethodNotDelivered {
        /// Name of the method.
        method: String,
    },
    /// The device answered a method call in time.
    MethodAnswered {
        /// The `$rid` of the call.
        request: String,
        /// The status of the answer.
        status: i64,
    },
    /// No answer came in time, or the connection ended before it (504 to the caller).
    MethodTimedOut {
        /// The `$rid` of the call.
        request: String,
    },
    /// An answer came that nobody waits for: too late, twice, or under a `$rid` that was never used.
    MethodAnsweredLate {
        /// The `$rid` of the answer.
        request: String,
        /// The status of the answer.
        status: i64,
    },
    /// A message to the device was taken into its queue.
    MessageQueued {
        /// Number of the message at this device, from 1.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
    },
    /// A message was handed to the connection.
    MessageDelivered {
        /// Number of the message at this device.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
        /// How often it was delivered, this time included.
        delivery: u32,
        /// The DUP flag it carries.
        dup: bool,
    },
    /// The device acknowledged a message, which completes it.
    MessageCompleted {
        /// Number of the message at this device.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
        /// Whether its sender asked to hear of it (`iothub-ack`).
        feedback: bool,
    },
    /// The time to live of a message passed before it was acknowledged.
    MessageExpired {
        /// Number of the message at this device.
        number: u64,
        /// The `$.mid` of the message.
        message_id: Option<String>,
        /// Whether its sender asked to hear of it (`iothub-ack`).
        feedback: bool,
    },
    /// The hub agreed to an upload and told where to put it.
    UploadBegun {
        /// The `correlationId`.
        correlation_id: String,
        /// Name of the blob: device id, slash, the name the device gave.
        blob: String,
    },
    /// The hub did not agree to an upload.
    UploadRefused {
        /// The name the device gave.
        name: String,
        /// The HTTP status.
        status: u16,
    },
    /// The storage was asked to keep a blob or a part of it.
    BlobWritten {
        /// Name of the blob.
        blob: String,
        /// `block` or `blocklist`; none for the whole blob at once.
        part: Option<String>,
        /// Bytes of the request's body.
        size: usize,
        /// The HTTP status.
        status: u16,
    },
    /// The device told how an upload went.
    UploadNotified {
        /// The `correlationId`.
        correlation_id: String,
        /// The `isSuccess` it told.
        success: bool,
        /// The `statusCode` it told.
        code: Option<i64>,
        /// The `statusDescription` it told.
        description: Option<String>,
        /// The HTTP status of the answer: 204, or 400 when the upload is unknown or over.
        status: u16,
    },
    /// The queue was emptied: by control, by a fail-over, or by a clean session where the hub is set up so.
    MessagesPurged {
        /// How many messages were in it.
        count: usize,
    },
}

/// Whether a device was told of a change of its desired properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Notification {
    /// It was handed to the connection.
    Sent,
    /// The device is not connected or has not subscribed; nothing is kept for later.
    NotListening,
    /// A fault let it vanish.
    Lost,
}
