//! Outputs: actions, events, packets, in that order.

use super::state::Phase;
use super::{Event, Link, Profile};
use crate::io::{Action, Attempt, Output, ServiceKind, SignRequest};
use crate::mqtt::{Connect, Packet, PacketId, Publish, Subscribe, Unsubscribe};
use crate::outbox::{MessageId, Outbox};

/// The next output, chosen before its data is borrowed.
enum Next {
    Disconnect(Attempt),
    Close { attempt: Attempt, flush: bool },
    Save,
    Remember,
    Sign,
    Open,
    Connect,
    Acknowledge(PacketId),
    Subscribe(u8, PacketId),
    Unsubscribe(u8, PacketId),
    Ping,
    Request,
    Register,
    Message { id: MessageId, packet_id: PacketId, dup: bool },
}

/// No packet is longer but CONNECT, a publish, a provisioning request, and those about subscriptions.
const SMALL_PACKET: usize = 256;

/// A CONNECT with every name at its limit, percent-encoded, is shorter.
const CONNECT_PACKET: usize = 2048;

impl<O: Outbox, P: Profile> Link<O, P> {
    /// The next output, with the events of the caller's layer: constructed here, so that the large value is moved only
    /// once.
    pub(crate) fn next_output<E: From<Event>>(&mut self, room: usize) -> Output<'_, E> {
        // The old connection is closed before anything else.
        if self.pending.close.is_none()
            && let Some(event) = self.events.pop()
        {
            return Output::Event(event.into());
        }
        if P::SUBSCRIBES
            && let Some(event) = self.next_unsubscribed()
        {
            return Output::Event(event.into());
        }
        let Some(next) = self.choose(room) else {
            // Dropping expired messages may have queued an event.
            return match self.events.pop() {
                Some(event) => Output::Event(event.into()),
                None => Output::Wait(self.timers.next()),
            };
        };
        self.action(next)
    }

    fn choose(&mut self, room: usize) -> Option<Next> {
        let pending = &mut self.pending;
        if let Some((attempt, flush)) = pending.close {
            if core::mem::take(&mut pending.disconnect) {
                return Some(Next::Disconnect(attempt));
            }
            pending.close = None;
            return Some(Next::Close { attempt, flush });
        }
        if core::mem::take(&mut pending.save) {
            return Some(Next::Save);
        }
        if core::mem::take(&mut pending.remember) {
            return Some(Next::Remember);
        }
        if core::mem::take(&mut pending.sign) && self.profile.token_lifetime().is_some() {
            return Some(Next::Sign);
        }
        if core::mem::take(&mut pending.connect) {
            self.wire.open = true;
            return Some(Next::Open);
        }
        let next = self.choose_packet(room)?;
        self.wire.last_sent = self.now;
        Some(next)
    }

    fn choose_packet(&mut self, room: usize) -> Option<Next> {
        if P::HTTPS && self.wire.request && self.is_over_https() {
            self.wire.request = false;
            return Some(Next::Register);
        }
        if self.wire.connect {
            let fits = room >= CONNECT_PACKET;
            self.wire.connect = !fits;
            return fits.then_some(Next::Connect);
        }
        if room < SMALL_PACKET {
            return None;
        }
        if let Some(packet_id) = self.inbound.due() {
            return Some(Next::Acknowledge(packet_id));
        }
        if matches!(self.phase, Phase::Subscribing | Phase::Up)
            && let Some((place, packet_id)) = self.next_to_subscribe(room)
        {
            return Some(Next::Subscribe(place, packet_id));
        }
        if P::SUBSCRIBES
            && self.phase == Phase::Up
            && let Some((place, packet_id)) = self.next_to_unsubscribe(room)
        {
            return Some(Next::Unsubscribe(place, packet_id));
        }
        if core::mem::take(&mut self.wire.ping) {
            return Some(Next::Ping);
        }
        if self.wire.request && self.visits() {
            let fits = room >= self.request_len();
            self.wire.request = !fits;
            return fits.then_some(Next::Request);
        }
        let (id, packet_id, dup) = self.next_to_send(room)?;
        Some(Next::Message { id, packet_id, dup })
    }

    /// The chosen output with its borrowed data, or the deadline if that is missing, which cannot happen here.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn action<E>(&mut self, next: Next) -> Output<'_, E> {
        let attempt = self.attempt;
        let packet = match next {
            Next::Disconnect(attempt) => {
                return Output::Action(Action::Send { attempt, packet: Packet::Disconnect });
            }
            Next::Close { attempt, flush } => return Output::Action(Action::Close { attempt, flush }),
            Next::Save => {
                return match self.profile.assignment() {
                    Some(assignment) => Output::Action(Action::SaveAssignment(assignment)),
                    None => Output::Wait(self.timers.next()),
                };
            }
            Next::Remember => return Output::Action(Action::SaveBackoff(self.backoff_snapshot())),
            Next::Sign => return self.sign(),
            Next::Register => return self.register(),
            Next::Open => return Output::Action(Action::Connect { attempt, endpoint: self.profile.endpoint() }),
            Next::Connect => {
                let session = self.profile.session();
                let clean_session = self.role() == ServiceKind::Provisioning || session.clean_session;
                let keep_alive_secs = u16::try_from(session.keep_alive.as_secs()).unwrap_or(u16::MAX);
                Packet::Connect(Connect { login: &self.profile, clean_session, keep_alive_secs })
            }
            Next::Acknowledge(packet_id) => Packet::PubAck(packet_id),
            Next::Subscribe(place, packet_id) => return self.subscription(place, packet_id, true),
            Next::Unsubscribe(place, packet_id) => return self.subscription(place, packet_id, false),
            Next::Ping => Packet::PingReq,
            Next::Request => return self.service_request(),
            Next::Message { id, packet_id, dup } => return self.message(id, packet_id, dup),
        };
        Output::Action(Action::Send { attempt, packet })
    }

    // Each output with a text is made in a frame of its own: in one frame together they would lie side by side.

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn sign<E>(&mut self) -> Output<'_, E> {
        let (attempt, role, refusals) = (self.attempt, self.role(), self.backoff().refusals());
        let request = SignRequest::new(role, refusals, self.profile.string_to_sign());
        Output::Action(Action::Sign { attempt, request })
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn subscription<E>(&mut self, place: u8, packet_id: PacketId, wanted: bool) -> Output<'_, E> {
        let (filter, qos) = self.profile.filter(place);
        let packet = if wanted {
            Packet::Subscribe(Subscribe { packet_id, filter, qos })
        } else {
            Packet::Unsubscribe(Unsubscribe { packet_id, filter })
        };
        Output::Action(Action::Send { attempt: self.attempt, packet })
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn service_request<E>(&mut self) -> Output<'_, E> {
        match self.request() {
            Some(request) => {
                Output::Action(Action::Send { attempt: self.attempt, packet: Packet::PublishText(request) })
            }
            None => Output::Wait(self.timers.next()),
        }
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn message<E>(&mut self, id: MessageId, packet_id: PacketId, dup: bool) -> Output<'_, E> {
        let Some(entry) = self.outbox.get(id) else { return Output::Wait(self.timers.next()) };
        self.profile.prepare(entry.created_unix_ms);
        let topic = self.profile.topic(&entry);
        let publish = Publish { topic, payload: entry.payload, packet_id: Some(packet_id), dup, retain: entry.retain };
        Output::Action(Action::Send { attempt: self.attempt, packet: Packet::Publish(publish) })
    }
}
