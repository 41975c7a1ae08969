//! What comes out: actions, events, packets, in that order of urgency.

use super::{Event, Home, Link};
use crate::azure::timestamp;
use crate::config::{Settings, Subscriptions};
use crate::io::{Action, Output, Role, SignRequest};
use crate::link::receive::SUBSCRIBE_IDS;
use crate::mqtt::{Connect, Packet, PacketId, Publish, Subscribe};
use crate::outbox::{MessageId, Outbox};

/// What comes next, decided before anything is borrowed for it.
enum Next {
    Disconnect,
    Close,
    Save,
    Remember,
    Sign,
    Open,
    Connect,
    Acknowledge(PacketId),
    Subscribe(u8, PacketId),
    Ping,
    Request,
    Message { id: MessageId, packet_id: PacketId, dup: bool },
}

/// No packet but CONNECT, a publish and a provisioning request is longer.
const SMALL_PACKET: usize = 256;

/// A CONNECT with every name at its limit, percent-encoded, is shorter.
const CONNECT_PACKET: usize = 2048;

impl<O: Outbox, S: Settings, H: Home> Link<O, S, H> {
    pub(super) fn next_output(&mut self, room: usize) -> Output<'_, Event> {
        // The old connection is closed before anything else is known or done.
        if self.pending.close.is_none()
            && let Some(event) = self.events.pop()
        {
            return Output::Event(event);
        }
        match self.choose(room) {
            Some(next) => Output::Action(self.action(next)),
            // Dropping expired messages may have left something to know.
            None => match self.events.pop() {
                Some(event) => Output::Event(event),
                None => Output::Wait(self.timers.next()),
            },
        }
    }

    fn choose(&mut self, room: usize) -> Option<Next> {
        let pending = &mut self.pending;
        if pending.close.is_some() {
            if core::mem::take(&mut pending.disconnect) {
                return Some(Next::Disconnect);
            }
            return Some(Next::Close);
        }
        if core::mem::take(&mut pending.save) {
            return Some(Next::Save);
        }
        if core::mem::take(&mut pending.remember) {
            return Some(Next::Remember);
        }
        if core::mem::take(&mut pending.sign) && self.account.has_shared_key() {
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
        if self.wire.subscribe != 0 {
            let place = u8::try_from(self.wire.subscribe.trailing_zeros()).unwrap_or(Subscriptions::COUNT);
            self.wire.subscribe &= self.wire.subscribe.wrapping_sub(1);
            if let Some(packet_id) = PacketId::new(SUBSCRIBE_IDS.wrapping_add(u16::from(place))) {
                return Some(Next::Subscribe(place, packet_id));
            }
        }
        if core::mem::take(&mut self.wire.ping) {
            return Some(Next::Ping);
        }
        if self.wire.request && self.account.is_provisioned() {
            let fits = room >= self.request_len();
            self.wire.request = !fits;
            return fits.then_some(Next::Request);
        }
        let (id, packet_id, dup) = self.next_to_send(room)?;
        Some(Next::Message { id, packet_id, dup })
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn action(&mut self, next: Next) -> Action<'_> {
        let attempt = self.attempt;
        match next {
            Next::Disconnect => {
                let attempt = self.pending.close.map_or(attempt, |(attempt, _)| attempt);
                Action::Send { attempt, packet: Packet::Disconnect }
            }
            Next::Close => {
                let (attempt, flush) = self.pending.close.take().unwrap_or((attempt, false));
                Action::Close { attempt, flush }
            }
            Next::Save => match self.account.home.assignment() {
                Some(assignment) => Action::SaveAssignment(assignment),
                // Only an assignment asks to be saved.
                None => Action::Close { attempt, flush: false },
            },
            Next::Remember => Action::SaveMemory(self.memory()),
            Next::Sign => {
                let (role, refusals) = (self.account.role(), self.backoff().refusals());
                Action::Sign { attempt, request: SignRequest::new(role, refusals, self.account.string_to_sign()) }
            }
            Next::Open => Action::Connect { attempt, endpoint: self.account.endpoint() },
            Next::Connect => {
                let config = self.account.config();
                let clean_session = self.account.role() == Role::Provisioning || config.clean_session;
                let keep_alive_secs = u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX);
                let connect = Connect { login: &self.account, clean_session, keep_alive_secs };
                Action::Send { attempt, packet: Packet::Connect(connect) }
            }
            Next::Acknowledge(packet_id) => Action::Send { attempt, packet: Packet::PubAck(packet_id) },
            Next::Subscribe(place, packet_id) => {
                let subscribe =
                    Subscribe { packet_id, filter: self.account.filter(place), qos: self.account.qos(place) };
                Action::Send { attempt, packet: Packet::Subscribe(subscribe) }
            }
            Next::Ping => Action::Send { attempt, packet: Packet::PingReq },
            Next::Request => Action::Send { attempt, packet: Packet::PublishText(self.request()) },
            Next::Message { id, packet_id, dup } => match self.outbox.get(id) {
                Some(entry) => {
                    if self.account.stamps(&entry) {
                        self.account.created = timestamp::utc(entry.created_unix_ms.unwrap_or_default());
                    }
                    let topic = self.account.message_topic(&entry);
                    let packet_id = Some(packet_id);
                    let publish = Publish { topic, payload: entry.payload, packet_id, dup, retain: false };
                    Action::Send { attempt, packet: Packet::Publish(publish) }
                }
                // The outbox named this message an instant ago; a ping does no harm.
                None => Action::Send { attempt, packet: Packet::PingReq },
            },
        }
    }
}
