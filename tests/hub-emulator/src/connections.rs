//! The connection log: a record of every TCP connection.

use std::time::Duration;

use serde::Serialize;

/// The record of one TCP connection. Times are since the emulator started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// Number of the connection, from 1 in the order of acceptance.
    pub number: u64,
    /// When TCP was accepted.
    pub opened_at: Duration,
    /// Its transport.
    pub carrier: Carrier,
    /// Server name of the TLS hello.
    pub server_name: Option<String>,
    /// When the TLS handshake finished; none on the plain port or when it failed.
    pub secured_at: Option<Duration>,
    /// When CONNECT arrived.
    pub connect_at: Option<Duration>,
    /// Host name of the hub or DPS in CONNECT.
    pub service: Option<String>,
    /// Device id, `device/module`, or registration id in CONNECT.
    pub device: Option<String>,
    /// User name of CONNECT as received.
    pub user_name: Option<String>,
    /// The `api-version` of the user name.
    pub api_version: Option<String>,
    /// The `model-id` of the user name, decoded: the Plug and Play model the device announces.
    pub model_id: Option<String>,
    /// The `DeviceClientType` or `ClientVersion` of the user name, decoded.
    pub product: Option<String>,
    /// CleanSession of CONNECT.
    pub clean_session: Option<bool>,
    /// Keep-alive of CONNECT in seconds.
    pub keep_alive: Option<u16>,
    /// The outcome of CONNECT.
    pub outcome: Outcome,
    /// When the connection ended; none while it is open.
    pub closed_at: Option<Duration>,
    /// Why it ended.
    pub closed: Option<CloseReason>,
    /// MQTT bytes received.
    pub bytes_received: u64,
    /// MQTT bytes sent.
    pub bytes_sent: u64,
}

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Carrier {
    /// MQTT over TLS.
    Tls,
    /// MQTT over bare TCP.
    Plain,
    /// MQTT over a WebSocket over TLS.
    WebSocket,
    /// Requests over HTTPS.
    Https,
}

/// The outcome of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// No CONNECT has arrived, or it waits in the queue.
    Pending,
    /// CONNACK 0.
    Accepted {
        /// The flag in CONNACK.
        session_present: bool,
    },
    /// CONNACK with this code.
    Refused {
        /// The return code.
        code: u8,
        /// The reason, which the device does not see.
        why: Refusal,
    },
    /// No CONNACK.
    Unanswered,
}

/// Why a CONNECT was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// The protocol level is not 4.
    ProtocolLevel,
    /// The user name has none of the documented forms.
    UserName,
    /// There is no such hub, or the TLS server name is that of another hub.
    WrongHub,
    /// The id scope does not belong to this DPS.
    WrongIdScope,
    /// The user name has no api-version.
    NoApiVersion,
    /// The client id is not the id in the user name.
    ClientId,
    /// There is no such device or enrollment.
    Unknown,
    /// The device is disabled.
    Disabled,
    /// There is no token, or it cannot be read.
    NoToken,
    /// The token is for another resource.
    WrongResource,
    /// The signature is wrong.
    BadSignature,
    /// The token has expired.
    Expired,
    /// The client certificate is missing or wrong.
    BadCertificate,
    /// A fault was injected.
    Fault,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CloseReason {
    /// The device sent DISCONNECT.
    Disconnected,
    /// The device closed or reset the socket.
    ClosedByPeer,
    /// The TLS handshake failed.
    Tls(String),
    /// CONNECT did not arrive in time.
    ConnectTimeout,
    /// It was the oldest of too many connections whose CONNECT was not accepted.
    TooManyUnauthenticated,
    /// CONNECT was refused.
    Refused,
    /// A newer connection of the same identity took the session over.
    TakenOver,
    /// The client sent nothing for 1.5 times the keep-alive.
    KeepAlive,
    /// The token and its grace period expired.
    TokenExpired,
    /// The device broke MQTT or a rule of the service.
    Protocol(String),
    /// A rate limit was exceeded and its queue was full.
    Throttled,
    /// The daily message quota was used up.
    QuotaExceeded,
    /// An injected fault.
    Fault,
    /// The hub is down or failing over.
    HubDown,
    /// The identity was disabled, deleted, moved or given a new key.
    IdentityChanged,
    /// Closed through the control API or a handle.
    Control,
    /// The device read too slowly.
    SlowReader,
    /// The emulator stopped.
    Stopped,
}
