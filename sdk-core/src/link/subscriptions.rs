//! Subscriptions: wanted, requested and acknowledged filters.
//!
//! Each filter of the profile has an index, and a bit in every set:
//!
//! * *wanted*: by the profile, or by the application;
//! * *touched*: it was requested in this session, so the service may have it;
//! * *held*: SUBACK has arrived in this session. Such a filter is not requested again while the session lasts; one
//!   without an answer is, and after a lost session all are;
//! * *busy*: a packet about it awaits its answer on this connection, and no other one is sent;
//! * *refused*: the service did not grant it. It is requested again on the next connection.

use super::profile::{FILTERS_MAX, Places, SubscribeError};
use super::state::Phase;
use super::{Event, Link, Profile};
use crate::failure::Failure;
use crate::io::{ServiceKind, SubscriptionId};
use crate::mqtt::{PacketId, QoS};
use crate::outbox::Outbox;
use crate::time::Instant;
use crate::timer::TimerReason;

/// Packet ids above those of messages: SUBSCRIBE by index, provisioning requests, UNSUBSCRIBE by index.
const SUBSCRIBE_IDS: u16 = 0xff00;
pub(super) const REQUEST_ID: u16 = 0xff10;
const UNSUBSCRIBE_IDS: u16 = 0xff20;

/// Maximum bytes of SUBSCRIBE and UNSUBSCRIBE without the filter.
const FRAME: usize = 16;

/// The subscriptions that a service may have, and those it has acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) touched: Places,
    pub(super) held: Places,
}

/// The subscription packets in progress on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    busy: Places,
    refused: Places,
    /// Wanted with another QoS since it was requested.
    again: Places,
    /// The one filter of a visit is acknowledged.
    visit: bool,
}

impl Asked {
    pub(super) const fn new() -> Self {
        Self { busy: 0, refused: 0, again: 0, visit: false }
    }
}

impl<O: Outbox, P: Profile> Link<O, P> {
    /// Subscribes to a topic filter of a broker, now or once the link is up, and whenever the broker has lost the session.
    ///
    /// The broker's answer is [`Event::Subscribed`] or [`Event::SubscriptionRefused`]; it is repeated on each later
    /// connection that subscribes again. Subscribing to the same filter again sends SUBSCRIBE again, as in MQTT:
    /// retained messages are delivered once more. The table has room for 16 filters, in memory: subscribe after each
    /// start, best before [`start`](Self::start).
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing changed then.
    pub fn subscribe(&mut self, filter: &str, qos: QoS, now: Instant) -> Result<SubscriptionId, SubscribeError> {
        self.tick(now);
        if filter.len().saturating_add(FRAME) > self.profile.session().max_outbound {
            return Err(SubscribeError::BadFilter);
        }
        let filters = self.profile.filters().filter(|_| P::SUBSCRIBES).ok_or(SubscribeError::NotABroker)?;
        let (place, changed) = filters.want(filter, qos)?;
        let bit = bit(place);
        self.session.subscriptions.held &= !bit;
        self.wire.asked.refused &= !bit;
        if changed {
            self.wire.asked.again |= bit & self.wire.asked.busy;
        }
        Ok(SubscriptionId(place))
    }

    /// Ends the subscription to a filter, now or once the link is up; [`Event::Unsubscribed`] confirms it. Returns
    /// `None` if there is no such subscription.
    pub fn unsubscribe(&mut self, filter: &str, now: Instant) -> Option<SubscriptionId> {
        self.tick(now);
        let filters = self.profile.filters().filter(|_| P::SUBSCRIBES)?;
        let place = filters.find(filter)?;
        filters.unwant(place);
        Some(SubscriptionId(place))
    }

    /// Whether all wanted filters are acknowledged or refused on this connection.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.to_ask() == 0 && self.wire.asked.busy == 0
    }

    /// The service does not have this session.
    pub(super) fn forget_session(&mut self) {
        self.session.subscriptions = Held::default();
        self.session.forget_sent();
    }

    /// The indices to request.
    fn to_ask(&self) -> Places {
        let asked = &self.wire.asked;
        let held = match self.role() {
            ServiceKind::Provisioning => Places::from(asked.visit),
            ServiceKind::Hub => self.session.subscriptions.held,
        };
        self.profile.wanted() & !(held | asked.busy | asked.refused)
    }

    /// The next filter to request, if its packet fits.
    pub(super) fn next_to_subscribe(&mut self, room: usize) -> Option<(u8, PacketId)> {
        let place = lowest(self.to_ask())?;
        let packet_id = self.ask_about(place, SUBSCRIBE_IDS, room)?;
        self.session.subscriptions.touched |= if self.role() == ServiceKind::Hub { bit(place) } else { 0 };
        Some((place, packet_id))
    }

    /// The next filter to end the subscription of, if its packet fits.
    pub(super) fn next_to_unsubscribe(&mut self, room: usize) -> Option<(u8, PacketId)> {
        let unwanted = self.session.subscriptions.touched & !self.profile.wanted() & !self.wire.asked.busy;
        let place = lowest(unwanted)?;
        let packet_id = self.ask_about(place, UNSUBSCRIBE_IDS, room)?;
        Some((place, packet_id))
    }

    fn ask_about(&mut self, place: u8, ids: u16, room: usize) -> Option<PacketId> {
        let (filter, _) = self.profile.filter(place);
        if filter.len().saturating_add(FRAME) > room {
            return None;
        }
        self.wire.asked.busy |= bit(place);
        if self.timers.get(TimerReason::Suback).is_none() {
            self.set_timer(TimerReason::Suback, self.profile.session().timeouts.suback);
        }
        PacketId::new(ids.wrapping_add(u16::from(place)))
    }

    pub(super) fn take_suback(&mut self, packet_id: PacketId, codes: &[u8]) {
        let Some(place) = self.answered(packet_id, SUBSCRIBE_IDS) else { return };
        let bit = bit(place);
        match codes {
            [code @ 0..=2] => {
                if self.role() == ServiceKind::Provisioning {
                    self.wire.asked.visit = true;
                } else if self.wire.asked.again & bit == 0 {
                    self.session.subscriptions.held |= bit;
                    let qos = if *code == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                    self.tell_of(place, |subscription| Event::Subscribed { subscription, qos });
                }
                self.wire.asked.again &= !bit;
                self.go_on();
            }
            [_] => {
                let refused = self.tell_of(place, |subscription| Event::SubscriptionRefused { subscription });
                if refused {
                    self.session.subscriptions.touched &= !bit;
                    self.wire.asked.refused |= bit;
                    self.go_on();
                } else {
                    self.attempt_failed(Failure::SubscribeRefused);
                }
            }
            _ => self.attempt_failed(Failure::UnexpectedPacket),
        }
    }

    pub(super) fn take_unsuback(&mut self, packet_id: PacketId) {
        if let Some(place) = self.answered(packet_id, UNSUBSCRIBE_IDS) {
            self.session.subscriptions.touched &= !bit(place);
            self.session.subscriptions.held &= !bit(place);
            self.go_on();
        }
    }

    /// The index of a packet; an answer without a request violates the protocol.
    fn answered(&mut self, packet_id: PacketId, ids: u16) -> Option<u8> {
        let place = packet_id.get().checked_sub(ids).and_then(|place| u8::try_from(place).ok());
        let place = place.filter(|place| *place < FILTERS_MAX && self.wire.asked.busy & bit(*place) != 0);
        match place {
            // Without room for the event the answer is ignored, and its deadline ends the connection.
            Some(_) if P::SUBSCRIBES && !self.events.has_room() => return None,
            Some(place) => self.wire.asked.busy &= !bit(place),
            None => self.attempt_failed(Failure::UnexpectedPacket),
        }
        place
    }

    /// Queues an event for a filter, and returns whether it is one of the application's.
    fn tell_of(&mut self, place: u8, event: impl FnOnce(SubscriptionId) -> Event) -> bool {
        let Some(filters) = self.profile.filters().filter(|_| P::SUBSCRIBES) else { return false };
        if filters.wanted() & bit(place) != 0 {
            self.events.push(event(SubscriptionId(place)));
        }
        true
    }

    fn go_on(&mut self) {
        if self.is_subscribed() {
            self.timers.clear(TimerReason::Suback);
            if self.phase == Phase::Subscribing {
                self.subscribed();
            }
        }
    }

    /// Frees the index of a filter that is neither wanted nor held, and reports it.
    pub(super) fn next_unsubscribed(&mut self) -> Option<Event> {
        let kept = self.session.subscriptions.touched | self.wire.asked.busy;
        let filters = self.profile.filters()?;
        let place = lowest(filters.taken() & !filters.wanted() & !kept)?;
        filters.free(place);
        Some(Event::Unsubscribed { subscription: SubscriptionId(place) })
    }
}

const fn bit(place: u8) -> Places {
    1 << (place % FILTERS_MAX)
}

/// The lowest of some places.
fn lowest(places: Places) -> Option<u8> {
    if places == 0 { None } else { u8::try_from(places.trailing_zeros()).ok() }
}
