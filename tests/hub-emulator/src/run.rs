//! The loop of one accepted connection.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, Publish};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::connect::{Claim, Session, Start};
use crate::connections::{CloseReason, Outcome};
use crate::device::Push;
use crate::fault::Fault;
use crate::serve::Connection;
use crate::session::{Flow, Later, Now, Out};
use crate::wire::{Step, Transport, Wire};
use crate::world::{EndedSession, World};

/// Why and how a connection ends.
struct End {
    reason: CloseReason,
    closing: Closing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// Sends all queued bytes, then shuts the transport down.
    Graceful,
    /// Sends all queued bytes, then closes.
    Flushed,
    /// Closes without sending queued bytes.
    Immediate,
    /// Closes with a TCP reset.
    Reset,
}

impl End {
    fn of(reason: CloseReason) -> Self {
        let closing = match &reason {
            CloseReason::Fault
            | CloseReason::TakenOver
            | CloseReason::KeepAlive
            | CloseReason::Throttled
            | CloseReason::QuotaExceeded => Closing::Flushed,
            CloseReason::HubDown | CloseReason::ClosedByPeer | CloseReason::SlowReader => Closing::Immediate,
            CloseReason::Disconnected
            | CloseReason::Tls(_)
            | CloseReason::ConnectTimeout
            | CloseReason::TooManyUnauthenticated
            | CloseReason::Refused
            | CloseReason::TokenExpired
            | CloseReason::Protocol(_)
            | CloseReason::IdentityChanged
            | CloseReason::Control
            | CloseReason::Stopped => Closing::Graceful,
        };
        Self { reason, closing }
    }
}

/// The deadlines and delayed packets of a connection.
struct Pace {
    last_read: Instant,
    silence: Duration,
    ends_unix: Option<u64>,
    /// A delayed packet and the end of its delay.
    waiting: Option<(Packet, Instant)>,
    /// A fault stops reading until it is cleared.
    stopped: bool,
    /// Reading has stopped for the rest of the connection.
    stopped_for_good: bool,
}

/// Sends CONNACK and serves the session until its end.
pub(crate) async fn run<S: Transport>(
    connection: &Connection,
    wire: &mut Wire<S>,
    claim: &Claim,
    start: Start,
    mut pushes: mpsc::Receiver<Push>,
) -> CloseReason {
    let Start { mut session, session_present, silence, ends_unix, notes } = start;
    let shared = &connection.shared;
    let connack = ConnAck::new(ConnectReturnCode::Success, session_present);
    wire.out.packet(&Packet::ConnAck(connack));
    connection.amend(|record| record.outcome = Outcome::Accepted { session_present });
    connection.slot.authenticated();
    if let Session::Hub(hub) = &session {
        let now = shared.now();
        let mut world = shared.lock();
        for operation in notes {
            world.note(&hub.host, &hub.identity, operation, now);
        }
        world.pump(&hub.host, &hub.identity, now);
    }
    shared.changed();
    let mut pace =
        Pace { last_read: Instant::now(), silence, ends_unix, waiting: None, stopped: false, stopped_for_good: false };
    let end = if connection.strike(claim, |fault| *fault == Fault::CloseAfterConnack) {
        End::of(CloseReason::Fault)
    } else if is_out_of_quota(&session, connection) {
        End::of(CloseReason::QuotaExceeded)
    } else {
        check_faults(connection, wire, claim, &mut session, &mut pace, None);
        serve(connection, wire, claim, &mut session, &mut pace, &mut pushes).await
    };
    if let Session::Hub(hub) = &session {
        let now = shared.now();
        let ended = EndedSession {
            host: &hub.host,
            identity: &hub.identity,
            connection: hub.connection,
            clean_session: hub.clean_session,
            will: hub.will.as_ref().filter(|_| end.reason != CloseReason::Disconnected),
        };
        shared.lock().end_session(&ended, now);
        shared.changed();
    }
    match end.closing {
        Closing::Graceful => {
            wire.flush().await;
            wire.shut_down().await;
        }
        Closing::Flushed => wire.flush().await,
        Closing::Immediate => {}
        Closing::Reset => wire.stream.reset_on_close(),
    }
    end.reason
}

fn is_out_of_quota(session: &Session, connection: &Connection) -> bool {
    let Session::Hub(hub) = session else { return false };
    let unix = connection.shared.clock.unix();
    connection.shared.lock().hubs.get_mut(&hub.host).is_some_and(|hub| hub.quota.is_exhausted(unix))
}

async fn serve<S: Transport>(
    connection: &Connection,
    wire: &mut Wire<S>,
    claim: &Claim,
    session: &mut Session,
    pace: &mut Pace,
    pushes: &mut mpsc::Receiver<Push>,
) -> End {
    let shared = &connection.shared;
    let mut clock = shared.clock.changes();
    let mut limit_reached = false;
    loop {
        if let Err(end) = work(connection, wire, session, pace) {
            return end;
        }
        if limit_reached {
            return End { reason: CloseReason::Fault, closing: Closing::Flushed };
        }
        let left = pace.ends_unix.map(|ends| ends.saturating_sub(shared.clock.unix()));
        if left == Some(0) {
            return End::of(CloseReason::TokenExpired);
        }
        let mute = matches!(session, Session::Hub(hub) if hub.half_open);
        if mute {
            wire.discard_output();
        }
        let reads = pace.waiting.is_none() && !pace.stopped && !pace.stopped_for_good;
        let wake = next_wake(wire, pace, left, reads && !mute);
        tokio::select! {
            step = wire.step(reads) => match step {
                Ok(Step::Read) => pace.last_read = Instant::now(),
                Ok(Step::Wrote) => {}
                Ok(Step::LimitReached) => limit_reached = true,
                Ok(Step::Ended) | Err(_) => return End::of(CloseReason::ClosedByPeer),
            },
            Some(push) = pushes.recv() => match push {
                Push::Close { reason, reset: true } => return End { reason, closing: Closing::Reset },
                Push::Close { reason, reset: false } => return End::of(reason),
                Push::Publish { topic, payload, packet_id, dup } => {
                    let mut publish = Publish::from_bytes(topic, QoS::AtMostOnce, payload);
                    if let Some(packet_id) = packet_id {
                        (publish.qos, publish.pkid, publish.dup) = (QoS::AtLeastOnce, packet_id, dup);
                    }
                    wire.out.packet(&Packet::Publish(publish));
                }
                Push::Faults { cleared } => {
                    check_faults(connection, wire, claim, session, pace, Some(cleared));
                }
            },
            () = sleep_until(wake) => {}
            _ = clock.changed() => {}
        }
        let now = Instant::now();
        if !reads || mute {
            pace.last_read = now;
        } else if now >= pace.last_read + pace.silence {
            return End::of(CloseReason::KeepAlive);
        }
    }
}

/// Handles all due timers and all received packets while holding the lock once.
fn work<S: Transport>(
    connection: &Connection,
    wire: &mut Wire<S>,
    session: &mut Session,
    pace: &mut Pace,
) -> Result<(), End> {
    let shared = &connection.shared;
    let now = Now { instant: Instant::now(), since: shared.now() };
    let mut world = shared.lock();
    let mut worked = false;
    while let Some(due) = wire.out.take_due(now.instant) {
        worked = true;
        match (due, &*session) {
            (Later::Publish { topic, payload }, _) => wire.out.publish(&topic, payload),
            (Later::Acknowledge(ack), Session::Hub(hub)) => {
                hub.acknowledge(&mut world, ack, &mut wire.out, now.since);
            }
            (Later::Acknowledge(_), Session::Dps(_)) => {}
            (Later::Close, _) => return Err(End::of(CloseReason::Fault)),
        }
    }
    if pace.waiting.as_ref().is_some_and(|(_, until)| *until > now.instant) {
        return Ok(());
    }
    let outcome = loop {
        let (packet, waited) = match pace.waiting.take() {
            Some((packet, _)) => (packet, true),
            None => match wire.next_packet() {
                Ok(Some(packet)) => (packet, false),
                Ok(None) => break Ok(()),
                Err(what) => break Err(End::of(CloseReason::Protocol(what))),
            },
        };
        worked = true;
        match act(session, &mut world, &packet, waited, &mut wire.out, now) {
            Flow::Go => {}
            Flow::Wait(wait) => {
                pace.waiting = Some((packet, now.instant + wait));
                break Ok(());
            }
            Flow::Close(reason) => break Err(End::of(reason)),
        }
    };
    drop(world);
    if worked {
        shared.changed();
    }
    outcome
}

fn act(session: &mut Session, world: &mut World, packet: &Packet, waited: bool, out: &mut Out, now: Now) -> Flow {
    match session {
        Session::Hub(hub) => hub.packet(world, packet, waited, out, now),
        Session::Dps(dps) => dps.packet(world, packet, out, now),
    }
}

fn next_wake<S>(wire: &Wire<S>, pace: &Pace, left: Option<u64>, watches: bool) -> Instant {
    let now = Instant::now();
    let mut wake = now + Duration::from_secs(3600);
    if watches {
        wake = wake.min(pace.last_read + pace.silence);
    }
    if let Some(due) = wire.out.next_due() {
        wake = wake.min(due);
    }
    if let Some((_, until)) = &pace.waiting {
        wake = wake.min(*until);
    }
    if let Some(left) = left {
        wake = wake.min(now + Duration::from_secs(left.min(3600)));
    }
    wake
}

/// Applies the active faults to a live connection. `cleared` is `None` at its start.
fn check_faults<S: Transport>(
    connection: &Connection,
    wire: &mut Wire<S>,
    claim: &Claim,
    session: &mut Session,
    pace: &mut Pace,
    cleared: Option<bool>,
) {
    if cleared.is_some() {
        let before = (wire.receive_limit.take(), wire.send_limit.take());
        connection.limit_bytes(wire, claim);
        wire.receive_limit = wire.receive_limit.map(|bytes| wire.received + bytes).or(before.0);
        wire.send_limit = wire.send_limit.map(|bytes| wire.sent + bytes).or(before.1);
    }
    let is_stop = |fault: &Fault| *fault == Fault::StopReading;
    pace.stopped = connection.shared.lock().faults.stands_until_cleared(&claim.service, &claim.id, is_stop);
    if !pace.stopped && connection.strike(claim, is_stop) {
        pace.stopped_for_good = true;
    }
    if let Session::Hub(hub) = session {
        hub.half_open = hub.half_open || connection.strike(claim, |fault| *fault == Fault::HalfOpen);
        if cleared == Some(true) {
            let now = connection.shared.now();
            hub.release(&mut connection.shared.lock(), &mut wire.out, now);
        }
    }
}
