//! One connection, from accept to close.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::v4::{Connect, Packet};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use crate::admission::Admission;
use crate::connect::{Claim, Peer, begin};
use crate::connections::{Carrier, CloseReason, ConnectionRecord, Outcome, Refusal};
use crate::emulator::stopped;
use crate::fault::Fault;
use crate::limits::Slot;
use crate::run;
use crate::wire::{Step, Transport, Wire};
use crate::world::{PUSHES, Shared};

const HTML: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 46\r\nConnection: close\r\n\r\n\
    <html><body>Please sign in first</body></html>";

/// The port a connection came in on.
#[derive(Clone, Debug)]
pub(crate) struct Via {
    pub(crate) secure: bool,
    /// HTTPS and WebSockets instead of MQTT.
    pub(crate) web: bool,
    /// The service this port belongs to; none for a shared port.
    pub(crate) own: Option<String>,
}

/// Serves one connection until it ends or the emulator stops.
pub(crate) async fn serve(shared: Arc<Shared>, tcp: TcpStream, via: Via, slot: Slot) {
    let number = shared.next_connection();
    let record = ConnectionRecord {
        number,
        opened_at: shared.now(),
        carrier: match (via.secure, via.web) {
            (false, _) => Carrier::Plain,
            (true, false) => Carrier::Tls,
            (true, true) => Carrier::Https,
        },
        server_name: None,
        secured_at: None,
        connect_at: None,
        service: None,
        device: None,
        user_name: None,
        api_version: None,
        model_id: None,
        product: None,
        clean_session: None,
        keep_alive: None,
        outcome: Outcome::Pending,
        closed_at: None,
        closed: None,
        bytes_received: 0,
        bytes_sent: 0,
    };
    shared.lock().entries.open(record);
    shared.changed();
    let mut stop = shared.stop.subscribe();
    let connection = Connection { shared: Arc::clone(&shared), number, slot };
    let reason = tokio::select! {
        reason = connection.secure(tcp, via) => reason,
        () = connection.slot.closed() => CloseReason::TooManyUnauthenticated,
        () = stopped(&mut stop) => CloseReason::Stopped,
    };
    connection.amend(|record| {
        record.closed_at = Some(shared.now());
        record.closed = Some(reason);
    });
    shared.changed();
}

pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    pub(crate) slot: Slot,
}

impl Connection {
    /// Returns when a handshake that begins now must be complete.
    pub(crate) fn handshake_deadline(&self) -> Instant {
        Instant::now() + self.shared.unauthenticated.handshake_timeout()
    }

    pub(crate) fn amend(&self, change: impl FnOnce(&mut ConnectionRecord)) {
        self.shared.lock().entries.amend(self.number, change);
    }

    async fn secure(&self, tcp: TcpStream, via: Via) -> CloseReason {
        // Without the option, only latency is worse.
        let _ = tcp.set_nodelay(true);
        let deadline = self.handshake_deadline();
        let mut peer = Peer { own: via.own, ..Peer::default() };
        if !via.secure {
            return self.serve_mqtt(Wire::new(tcp), peer, deadline).await;
        }
        let mut start = match timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), tcp)).await {
            Ok(Ok(start)) => start,
            Ok(Err(error)) => return CloseReason::Tls(error.to_string()),
            Err(_) => return CloseReason::Tls("no hello in time".to_owned()),
        };
        peer.server_name = start.client_hello().server_name().map(str::to_ascii_lowercase);
        let service = peer.own.clone().or_else(|| peer.server_name.clone()).unwrap_or_default();
        self.amend(|record| record.server_name.clone_from(&peer.server_name));
        if let Some(page) = self.before_tls(&service) {
            if page {
                use tokio::io::AsyncWriteExt;
                // The connection ends whether or not the client reads the page.
                let _ = start.io.write_all(HTML).await;
            }
            return CloseReason::Fault;
        }
        if !self.is_up(&service) {
            return CloseReason::HubDown;
        }
        let config = Arc::clone(&self.shared.tls);
        let stream = match timeout_at(deadline, start.into_stream(config)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return CloseReason::Tls(error.to_string()),
            Err(_) => return CloseReason::Tls("no handshake in time".to_owned()),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        peer.certificates =
            certificates.map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect()).unwrap_or_default();
        let now = self.shared.now();
        self.amend(|record| record.secured_at = Some(now));
        if via.web { self.web(stream, peer).await } else { self.serve_mqtt(Wire::new(stream), peer, deadline).await }
    }

    /// Returns whether a fault ends the connection before TLS, and whether with an HTML page.
    fn before_tls(&self, service: &str) -> Option<bool> {
        self.shared.lock().faults.strike(service, "", |fault| {
            let page = *fault == Fault::HtmlInsteadOfTls;
            (page || *fault == Fault::CloseBeforeTls).then_some(page)
        })
    }

    pub(crate) fn is_up(&self, service: &str) -> bool {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        if service == world.dps.config.host {
            return !world.dps.down;
        }
        world.hubs.get_mut(service).is_none_or(|hub| hub.is_up(now))
    }

    pub(crate) async fn serve_mqtt<S: Transport>(
        &self,
        mut wire: Wire<S>,
        peer: Peer,
        deadline: Instant,
    ) -> CloseReason {
        let reason = self.talk(&mut wire, peer, deadline).await;
        let (received, sent) = (wire.received, wire.sent);
        self.amend(|record| (record.bytes_received, record.bytes_sent) = (received, sent));
        reason
    }

    async fn talk<S: Transport>(&self, wire: &mut Wire<S>, peer: Peer, deadline: Instant) -> CloseReason {
        let connect = match timeout_at(deadline, first_packet(wire)).await {
            Ok(Ok(connect)) => connect,
            Ok(Err(reason)) => return reason,
            Err(_) => return CloseReason::ConnectTimeout,
        };
        let claim = Claim::read(&connect, &self.shared.lock().dps.config.host);
        let now = self.shared.now();
        self.amend(|record| {
            record.connect_at = Some(now);
            record.service = Some(claim.service.clone());
            record.device = Some(claim.id.clone());
            record.user_name = connect.login.as_ref().map(|login| login.username.clone());
            record.api_version.clone_from(&claim.query.api_version);
            record.model_id.clone_from(&claim.query.model_id);
            record.product.clone_from(&claim.query.product);
            record.clean_session = Some(connect.clean_session);
            record.keep_alive = Some(connect.keep_alive);
        });
        self.shared.changed();
        let session_present = match self.before_connack(wire, &claim).await {
            Ok(session_present) => session_present,
            Err(end) => {
                if let Some(code) = end.code {
                    self.refuse(wire, code, end.why).await;
                } else {
                    self.amend(|record| record.outcome = Outcome::Unanswered);
                }
                return end.reason;
            }
        };
        let (sender, receiver) = mpsc::channel(PUSHES);
        let unix = self.shared.clock.unix();
        let begun = {
            let mut world = self.shared.lock();
            begin(&mut world, &claim, &connect, &peer, self.number, sender.clone(), unix)
        };
        match begun {
            Ok(mut start) => {
                start.session_present = session_present.unwrap_or(start.session_present);
                run::run(self, wire, &claim, start, receiver).await
            }
            Err(why) => {
                let code = if why == Refusal::ProtocolLevel { 1 } else { 5 };
                self.refuse(wire, code, why).await;
                CloseReason::Refused
            }
        }
    }

    /// Applies faults, the state of the hub and the queue of new connections to a CONNECT.
    async fn before_connack<S: Transport>(&self, wire: &mut Wire<S>, claim: &Claim) -> Result<Option<bool>, End> {
        if !self.is_up(&claim.service) {
            return Err(End::unanswered(CloseReason::HubDown));
        }
        self.apply_effects(claim)?;
        self.limit_bytes(wire, claim);
        if wire.receive_limit.is_some_and(|limit| limit <= wire.received) {
            return Err(End::unanswered(CloseReason::Fault));
        }
        if self.strike(claim, |fault| *fault == Fault::CloseOnConnect) {
            return Err(End::unanswered(CloseReason::Fault));
        }
        if self.strike(claim, |fault| *fault == Fault::SilentConnect) {
            self.amend(|record| record.outcome = Outcome::Unanswered);
            wire.discard_until_closed().await;
            return Err(End::unanswered(CloseReason::ClosedByPeer));
        }
        for (kind, bytes) in [
            (Fault::HtmlInsteadOfConnack, HTML),
            // The first byte has a packet type that does not exist.
            (Fault::GarbageInsteadOfConnack, &b"\xf7\x11\x00\xff\xfe\x80garbage\x00\x00"[..]),
        ] {
            if self.strike(claim, |fault| *fault == kind) {
                wire.out.bytes.extend_from_slice(bytes);
                wire.flush().await;
                return Err(End::unanswered(CloseReason::Fault));
            }
        }
        let wait = self.admit(claim)?;
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let code = self.pick(claim, |fault| if let Fault::RefuseConnect { code } = fault { Some(*code) } else { None });
        if let Some(code) = code {
            return Err(End { code: Some(code), why: Refusal::Fault, reason: CloseReason::Fault });
        }
        let delay =
            self.pick(claim, |fault| if let Fault::DelayConnack { delay } = fault { Some(*delay) } else { None });
        if let Some(delay) = delay {
            sleep(delay).await;
        }
        if !self.is_up(&claim.service) {
            return Err(End::unanswered(CloseReason::HubDown));
        }
        Ok(self.pick(claim, |fault| if let Fault::SessionPresent { present } = fault { Some(*present) } else { None }))
    }

    /// Applies the lasting effects of the device's own fault properties.
    fn apply_effects(&self, claim: &Claim) -> Result<(), End> {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        let Ok(device) = world.device(&claim.service, &claim.id) else { return Ok(()) };
        if device.effects.unreachable_until > now {
            return Err(End::unanswered(CloseReason::Fault));
        }
        if device.effects.refused_until > now {
            return Err(End { code: Some(5), why: Refusal::Fault, reason: CloseReason::Fault });
        }
        Ok(())
    }

    fn admit(&self, claim: &Claim) -> Result<Duration, End> {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        let bucket = world.hubs.get_mut(&claim.service).and_then(|hub| hub.admission.as_mut());
        match bucket.map_or(Admission::After(Duration::ZERO), |bucket| bucket.take(now)) {
            Admission::After(wait) => Ok(wait),
            Admission::Refused => Err(End::unanswered(CloseReason::Throttled)),
        }
    }

    /// Applies the byte limits of faults, counted from the first byte.
    pub(crate) fn limit_bytes<S: Transport>(&self, wire: &mut Wire<S>, claim: &Claim) {
        let received =
            self.pick(claim, |fault| if let Fault::CloseAfterReceived { bytes } = fault { Some(*bytes) } else { None });
        let sent =
            self.pick(claim, |fault| if let Fault::CloseAfterSent { bytes } = fault { Some(*bytes) } else { None });
        wire.receive_limit = received.or(wire.receive_limit);
        wire.send_limit = sent.or(wire.send_limit);
    }

    pub(crate) fn pick<T>(&self, claim: &Claim, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.shared.lock().faults.strike(&claim.service, &claim.id, pick)
    }

    pub(crate) fn strike(&self, claim: &Claim, pick: impl Fn(&Fault) -> bool) -> bool {
        self.pick(claim, |fault| pick(fault).then_some(())).is_some()
    }

    async fn refuse<S: Transport>(&self, wire: &mut Wire<S>, code: u8, why: Refusal) {
        self.amend(|record| record.outcome = Outcome::Refused { code, why });
        self.shared.changed();
        // Written by hand: the codec has no codes above 5, but a fault may set one.
        wire.out.bytes.extend_from_slice(&[0x20, 2, 0, code]);
        wire.flush().await;
        wire.shut_down().await;
    }
}

/// A CONNECT that does not start a session.
struct End {
    code: Option<u8>,
    why: Refusal,
    reason: CloseReason,
}

impl End {
    fn unanswered(reason: CloseReason) -> Self {
        Self { code: None, why: Refusal::Fault, reason }
    }
}

async fn first_packet<S: Transport>(wire: &mut Wire<S>) -> Result<Connect, CloseReason> {
    loop {
        match wire.next_packet() {
            Ok(Some(Packet::Connect(connect))) => return Ok(connect),
            Ok(Some(_)) => return Err(CloseReason::Protocol("first packet is not CONNECT [3.1.0-1]".to_owned())),
            Ok(None) => {}
            Err(what) => return Err(CloseReason::Protocol(what)),
        }
        match wire.step(true).await {
            Ok(Step::Ended) | Err(_) => return Err(CloseReason::ClosedByPeer),
            Ok(_) => {}
        }
    }
}
