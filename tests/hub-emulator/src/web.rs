//! The HTTPS and WebSocket port: tells WebSocket handshakes from HTTPS requests, and serves both.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connect::Peer;
use crate::connections::{Carrier, CloseReason};
use crate::dps_web::{is_registration, registration};
use crate::fault::Fault;
use crate::files::file_request;
use crate::frames::Frames;
use crate::http_message::{Conversation, Head, Response};
use crate::module_calls::module_call;
use crate::percent_decode;
use crate::serve::Connection;
use crate::session::Now;
use crate::storage::storage_request;
use crate::wire::{Transport, Wire};

/// Path of MQTT over WebSockets, at hubs and at DPS, as it is and percent-encoded.
const WEB_SOCKET_PATH: &str = "/$iothub/websocket";
/// Path at DPS of the C# SDK, which sets none.
const WEB_SOCKET_PATH_AT_DPS: &str = "/";
/// The subprotocol, compared in any case.
const SUBPROTOCOL: &str = "mqtt";
/// Timeout of a request, and of an idle connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

impl Connection {
    /// Serves a connection to the port of HTTPS and WebSockets.
    pub(crate) async fn web<S: Transport>(&self, stream: S, peer: Peer) -> CloseReason {
        let mut conversation = Conversation::new(stream);
        loop {
            let head = match timeout(REQUEST_TIMEOUT, conversation.head()).await {
                Ok(Ok(Some(head))) => head,
                Ok(Ok(None)) => return self.closed(&conversation, CloseReason::ClosedByPeer),
                Ok(Err(error)) => return self.closed(&conversation, reason_of(&error)),
                Err(_) => return self.closed(&conversation, CloseReason::KeepAlive),
            };
            let service = peer.server_name.clone().unwrap_or_else(|| head.host());
            if !self.is_up(&service) {
                return self.closed(&conversation, CloseReason::HubDown);
            }
            if head.lists("upgrade", "websocket") {
                return self.upgrade(conversation, &head, peer).await;
            }
            self.amend(|record| {
                record.carrier = Carrier::Https;
                record.service = Some(head.host());
            });
            match timeout(REQUEST_TIMEOUT, self.respond(&mut conversation, &head, &peer)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    let _ = timeout(Duration::from_millis(200), conversation.stream.shutdown()).await;
                    return self.closed(&conversation, CloseReason::Disconnected);
                }
                Ok(Err(reason)) => return self.closed(&conversation, reason),
                Err(_) => return self.closed(&conversation, CloseReason::KeepAlive),
            }
        }
    }

    fn closed<S>(&self, conversation: &Conversation<S>, reason: CloseReason) -> CloseReason {
        self.amend(|record| (record.bytes_received, record.bytes_sent) = (conversation.received, conversation.sent));
        reason
    }

    /// Answers a WebSocket handshake, and serves MQTT on it.
    async fn upgrade<S: Transport>(&self, mut conversation: Conversation<S>, head: &Head, peer: Peer) -> CloseReason {
        self.amend(|record| record.carrier = Carrier::WebSocket);
        let offered = head.header("sec-websocket-protocol").unwrap_or_default();
        let protocol = offered.split(',').map(str::trim).find(|one| one.eq_ignore_ascii_case(SUBPROTOCOL));
        let status = match (head.header("sec-websocket-key"), protocol) {
            _ if !self.takes_web_sockets(head, &peer) => 404,
            _ if head.method != "GET" || head.header("sec-websocket-version") != Some("13") => 400,
            (Some(key), Some(protocol)) => {
                let response = Response::new(101)
                    .header("Upgrade", "websocket")
                    .header("Connection", "Upgrade")
                    .header("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes()))
                    .header("Sec-WebSocket-Protocol", protocol);
                if conversation.answer(&response).await.is_err() {
                    return CloseReason::ClosedByPeer;
                }
                let largest = self.shared.largest_frame;
                let frames = Frames::new(conversation.stream, conversation.input, largest).await;
                return self.serve_mqtt(Wire::new(frames), peer, self.handshake_deadline()).await;
            }
            _ => 400,
        };
        // The client may have closed the connection already.
        let _ = conversation.answer(&Response::new(status).header("Connection", "close")).await;
        let _ = timeout(Duration::from_millis(200), conversation.stream.shutdown()).await;
        CloseReason::Protocol(format!("WebSocket handshake refused with {status}"))
    }

    /// Returns whether the path of a handshake is an MQTT path of the requested service.
    fn takes_web_sockets(&self, head: &Head, peer: &Peer) -> bool {
        let path = percent_decode(&head.path);
        let service = peer.server_name.clone().unwrap_or_else(|| head.host());
        let at_dps = || service == self.shared.lock().dps.config.host;
        path.eq_ignore_ascii_case(WEB_SOCKET_PATH) || (path == WEB_SOCKET_PATH_AT_DPS && at_dps())
    }

    /// Answers a request; false when the connection ends after it.
    async fn respond<S: Transport>(
        &self,
        conversation: &mut Conversation<S>,
        head: &Head,
        peer: &Peer,
    ) -> Result<bool, CloseReason> {
        let is_of_hub = head.path.starts_with("/devices/") || head.path.starts_with("/twins/") || is_registration(head);
        let cut = if is_of_hub { None } else { self.body_limit(head) };
        // What nobody has a grant for is small.
        let is_of_storage = !is_of_hub && self.shared.lock().storage.owner(&head.path).is_some();
        let most = cut.or_else(|| (!is_of_storage).then_some(SMALL_BODY));
        let declared = head.header("content-length").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let body = if cut.is_none() && most.is_some_and(|most| declared > most) {
            None
        } else {
            conversation.body(head, most).await.map_err(|error| reason_of(&error))?
        };
        let Some(body) = body else {
            if cut.is_some() {
                conversation.stream.reset_on_close();
                return Err(CloseReason::Fault);
            }
            let _ = conversation.answer(&Response::new(413).header("Connection", "close")).await;
            return Ok(false);
        };
        let (unix, now) = (self.shared.clock.unix(), self.shared.now());
        let response = if head.path.starts_with("/twins/") {
            module_call(&self.shared, head, &body, peer, unix).await
        } else {
            let mut world = self.shared.lock();
            if is_registration(head) {
                let now = Now { instant: std::time::Instant::now().into(), since: now };
                registration(&mut world, head, &body, peer, unix, now)
            } else if is_of_hub {
                file_request(&mut world, head, &body, peer, unix, now)
            } else {
                storage_request(&mut world, head, body, unix, now)
            }
        };
        self.shared.changed();
        conversation.answer(&response).await.map_err(|error| reason_of(&error))?;
        Ok(head.stays_open())
    }

    /// Returns how many bytes of the body pass before a fault resets the connection to the storage.
    fn body_limit(&self, head: &Head) -> Option<u64> {
        let mut world = self.shared.lock();
        let (hub, device) = world.storage.owner(&head.path)?;
        world.faults.strike(
            &hub,
            &device,
            |fault| {
                if let Fault::StorageDrop { bytes } = fault { Some(*bytes) } else { None }
            },
        )
    }
}

/// Most bytes of the body of a request that is not for a file of the storage: a twin has 32 KiB a section, a message 256 KiB.
const SMALL_BODY: u64 = 1024 * 1024;

/// Returns the close reason after a request could not be read or answered.
fn reason_of(error: &std::io::Error) -> CloseReason {
    let is_of_client = error.kind() == std::io::ErrorKind::InvalidData;
    if is_of_client { CloseReason::Protocol(error.to_string()) } else { CloseReason::ClosedByPeer }
}
