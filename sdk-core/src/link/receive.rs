//! Packets from the service.

use super::state::Phase;
use super::{Event, Link, Profile, Received};
use crate::failure::Failure;
use crate::io::{Attempt, Input, ServiceKind, Taken};
use crate::mqtt::{self, Decoded, Incoming, decode};
use crate::outbox::Outbox;
use crate::time::Instant;

impl<O: Outbox, P: Profile> Link<O, P> {
    pub(super) fn take_input<'b>(
        &mut self,
        input: Input<'b>,
        attempt: Attempt,
        now: Instant,
    ) -> Taken<Received<&'b str, &'b [u8]>> {
        let all = match input {
            Input::Bytes(bytes) => bytes.len(),
            Input::Signed(_)
            | Input::Token(_)
            | Input::Connected
            | Input::Ready
            | Input::Packet(_)
            | Input::Wrote { .. }
            | Input::Registered { .. }
            | Input::Failed(_) => 0,
        };
        if attempt != self.attempt || !self.is_trying() {
            return Taken::nothing_in(all);
        }
        let mut taken = Taken::nothing_in(0);
        match input {
            Input::Signed(signature) => {
                if self.phase == Phase::Signing && !self.pending.sign {
                    self.profile.take_signature(signature);
                    self.open();
                }
            }
            Input::Token(token) => {
                if self.phase == Phase::Signing && !self.pending.sign {
                    self.take_token(token);
                }
            }
            Input::Connected => self.connected(),
            Input::Ready => self.ready(),
            Input::Bytes(bytes) => return self.take_bytes(bytes, now),
            Input::Packet(packet) => taken.received = self.take_packet(packet),
            Input::Wrote { pending } => {
                if pending > 0 {
                    self.wire.last_moved = now;
                }
            }
            Input::Registered { status, retry_after_secs, body } => {
                if P::HTTPS {
                    taken.received = self.take_registered(status, retry_after_secs, body);
                }
            }
            Input::Failed(failure) => {
                // The transport is already closed.
                self.wire.open = false;
                self.attempt_failed(failure);
            }
        }
        taken
    }

    fn is_trying(&self) -> bool {
        match self.phase {
            Phase::Signing
            | Phase::Connecting
            | Phase::AwaitingConnack
            | Phase::Subscribing
            | Phase::Registering
            | Phase::Up
            | Phase::Draining => true,
            Phase::Idle | Phase::Waiting | Phase::Stopped => false,
        }
    }

    fn take_bytes<'b>(&mut self, bytes: &'b [u8], now: Instant) -> Taken<Received<&'b str, &'b [u8]>> {
        let limit = self.profile.session().max_inbound;
        let attempt = self.attempt;
        let mut taken = Taken::nothing_in(0);
        while self.events.has_room() {
            let rest = bytes.get(taken.bytes..).unwrap_or(&[]);
            match decode(rest, limit) {
                Ok(Decoded::Packet { packet, len }) => {
                    taken.bytes = taken.bytes.saturating_add(len);
                    self.wire.last_received = now;
                    self.wire.pinged = None;
                    taken.received = self.take_packet(packet);
                    if taken.received.is_some() {
                        return taken;
                    }
                }
                Ok(Decoded::Incomplete { needed }) => {
                    taken.needed = Some(needed);
                    return taken;
                }
                Err(error) => self.attempt_failed(Failure::Malformed(error)),
            }
            if self.attempt != attempt || !self.is_trying() {
                // The connection has ended: the remaining bytes are ignored.
                taken.bytes = bytes.len();
                return taken;
            }
        }
        taken
    }

    fn take_packet<'b>(&mut self, packet: Incoming<'b>) -> Option<Received<&'b str, &'b [u8]>> {
        self.wire.last_received = self.now;
        self.wire.pinged = None;
        let greeting = self.phase == Phase::AwaitingConnack && !self.wire.connect;
        match packet {
            Incoming::ConnAck { session_present, code } if greeting => {
                let config = self.profile.session();
                let clean = self.role() == ServiceKind::Provisioning || config.clean_session;
                if code != 0 {
                    self.attempt_failed(Failure::ConnectRefused(code));
                } else if session_present && clean && self.role() == ServiceKind::Hub {
                    self.attempt_failed(Failure::UnexpectedSession);
                } else {
                    self.accepted(session_present);
                }
            }
            _ if !self.is_greeted() => self.attempt_failed(Failure::UnexpectedPacket),
            Incoming::Publish(publish) => return self.take_publish(publish),
            Incoming::PubAck { packet_id, reason } => self.take_puback(packet_id, reason),
            Incoming::SubAck { packet_id, codes } => self.take_suback(packet_id, codes),
            Incoming::UnsubAck(packet_id) if P::SUBSCRIBES => self.take_unsuback(packet_id),
            Incoming::UnsubAck(_) | Incoming::PingResp => {}
            _ => self.attempt_failed(Failure::UnexpectedPacket),
        }
        None
    }

    /// Whether CONNACK has come on this connection; over HTTPS there is none.
    fn is_greeted(&self) -> bool {
        matches!(self.phase, Phase::Subscribing | Phase::Registering | Phase::Up | Phase::Draining)
            && !(self.phase == Phase::Registering && self.is_over_https())
    }

    fn take_publish<'b>(&mut self, publish: mqtt::Received<'b>) -> Option<Received<&'b str, &'b [u8]>> {
        if self.role() == ServiceKind::Provisioning {
            return self.take_provisioning_answer(publish.topic, publish.payload);
        }
        if let Some(packet_id) = publish.packet_id
            && !self.inbound.push(packet_id)
        {
            // Not acknowledged, so the service sends it again on a later connection.
            self.events.report(Event::InboundOverflow);
            return None;
        }
        let mqtt::Received { topic, payload, packet_id, dup, .. } = publish;
        Some(Received::Message { topic, payload, packet_id, dup })
    }
}
