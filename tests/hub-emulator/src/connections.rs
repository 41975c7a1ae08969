//! The connection log: what came of every TCP connection.

use std::time::Duration;

use serde::Serialize;

/// What came of one TCP connection. Times are since the emulator started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// Number of the connection, from 1 in the order of acceptance.
    pub number: u64,
    /// When TCP was accepted.
    pub opened_at: Duration,
    /// What carried it.
    pub carrier: Carrier,
    /// Server name of the TLS hello.
    pub server_name: Option<String>,
    /// When the TLS handshake was done; none on the plain port or when it failed.
    pub secured_at: Option<Duration>,
    /// When CONNECT came.
    pub connect_at: Option<Duration>,
    /// Host name of the hub or of DPS that CONNECT was for.
    pub service: Option<String>,
    /// Device id, `device/module`, or registration id of CONNECT.
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
    /// What CONNECT met.
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

/// What carries a connection.
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

/// What a CONNECT met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// No CONNECT came yet, or it waits in the queue.
    Pending,
    /// CONNACK 0.
    Accepted {
        /// What was told.
        session_present: bool,
    },
    /// CONNACK with this code.
    Refused {
        /// The return code.
        code: u8,
        /// Why; the device does not see it.
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
    /// The user name has neither shape.
    UserName,
    /// There is no such hub, or the TLS server name is that of another one.
    WrongHub,
    /// The id scope is not that of this DPS.
    WrongIdScope,
    /// The user name carries no api-version.
    NoApiVersion,
    /// The client id is not the id in the user name.
    ClientId,
    /// There is no such device or enrollment.
    Unknown,
    /// The device is disabled.
    Disabled,
    /// There is no token, or it cannot be read.
    NoToken,
    /// The token is for something else.
    WrongResource,
    /// The signature does not fit.
    BadSignature,
    /// The token is over.
    Expired,
    /// The client certificate is missing or not the right one.
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
    /// TLS did not come about.
    Tls(String),
    /// No CONNECT came in time.
    ConnectTimeout,
    /// CONNECT was refused.
    Refused,
    /// The same identity connected again.
    TakenOver,
    /// Nothing came for 1.5 times the keep-alive.
    KeepAlive,
    /// The token was over, and its grace.
    TokenExpired,
    /// The device broke MQTT or a rule of the service.
    Protocol(String),
    /// A rate was exceeded beyond its queue.
    Throttled,
    /// The hub's messages of the day were used up.
    QuotaExceeded,
    /// An injected fault.
    Fault,
    /// The hub is down or failing over.
    HubDown,
    /// The identity was disabled, deleted, moved or got a new key.
    IdentityChanged,
    /// Closed by control.
    Control,
    /// The device did not read fast enough what was sent to it.
    SlowReader,
    /// The emulator stopped.
    Stopped,
}
