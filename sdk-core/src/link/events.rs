//! The events that wait for the frontend.

use core::time::Duration;

use heapless::Vec;

use crate::failure::Failure;
use crate::io::{DropReason, Event};
use crate::outbox::{Lane, MessageId};
use crate::queue::pop_front;

/// Most events that wait.
const PLACES: usize = 16;

/// Places among them kept for what is not about a single message.
const KEPT: usize = 6;

/// A bounded queue of events.
///
/// What is large in an event is held once: of two failures that nobody has looked at the later one counts.
#[derive(Clone, Debug)]
pub(super) struct Events {
    queue: Vec<Notice, PLACES>,
    /// The latest message of each lane reported; the others are near it.
    normal: MessageId,
    urgent: MessageId,
    failure: Failure,
    delay: Duration,
    skew_secs: i64,
}

/// An event without what [`Events`] holds for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    Up { session_present: bool },
    Down,
    Retrying,
    Renewing,
    Provisioned { migrated: bool },
    Delivered(Low),
    Dropped(Low, DropReason),
    InboundOverflow,
    ClockSkew,
    Stopped,
}

/// The lane and the last 31 bits of a message id, which is enough beside the latest of that lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Low(u32);

/// Bit of [`Low`] for a normal message.
const NORMAL: u32 = 1 << 31;

impl Low {
    fn of(id: MessageId) -> Self {
        let low = u32::try_from(id.get() & u64::from(NORMAL.wrapping_sub(1))).unwrap_or(0);
        Self(if id.lane() == Lane::Normal { low | NORMAL } else { low })
    }

    const fn lane(self) -> Lane {
        if self.0 < NORMAL { Lane::Urgent } else { Lane::Normal }
    }

    /// The id of these bits that is nearest to `near`.
    fn beside(self, near: MessageId) -> MessageId {
        // The lane's bit falls out on the left.
        let apart = self.0.wrapping_sub(Self::of(near).0).wrapping_shl(1).cast_signed().wrapping_shr(1);
        MessageId::new(near.get().wrapping_add_signed(i64::from(apart)))
    }
}

impl Events {
    pub(super) const fn new() -> Self {
        Self {
            queue: Vec::new(),
            normal: Lane::Normal.first_id(),
            urgent: Lane::Urgent.first_id(),
            failure: Failure::Lost,
            delay: Duration::ZERO,
            skew_secs: 0,
        }
    }

    /// Whether an event about a single message has a place.
    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many events about single messages have a place.
    pub(super) fn room(&self) -> usize {
        PLACES.saturating_sub(KEPT).saturating_sub(self.queue.len())
    }

    /// Takes an event about a single message; the caller has made sure of a place.
    pub(super) fn delivered(&mut self, id: MessageId) {
        let id = self.keep(id);
        let _ = self.queue.push(Notice::Delivered(id));
    }

    /// Takes an event about a single message; the caller has made sure of a place.
    pub(super) fn dropped(&mut self, id: MessageId, reason: DropReason) {
        let id = self.keep(id);
        let _ = self.queue.push(Notice::Dropped(id, reason));
    }

    fn keep(&mut self, id: MessageId) -> Low {
        match id.lane() {
            Lane::Normal => self.normal = id,
            Lane::Urgent => self.urgent = id,
        }
        Low::of(id)
    }

    fn message(&self, low: Low) -> MessageId {
        low.beside(match low.lane() {
            Lane::Normal => self.normal,
            Lane::Urgent => self.urgent,
        })
    }

    /// Takes an event that is not about a single message.
    ///
    /// The places kept for them suffice, since each follows an action that had to be polled for, or a command; of
    /// commands repeated without polling the latest counts.
    pub(super) fn report(&mut self, event: Event) {
        let notice = match event {
            Event::Up { session_present } => Notice::Up { session_present },
            Event::Down(failure) => {
                self.failure = failure;
                Notice::Down
            }
            Event::Retrying { failure, delay } => {
                self.failure = failure;
                self.delay = delay;
                Notice::Retrying
            }
            Event::Renewing => Notice::Renewing,
            Event::Provisioned { migrated } => Notice::Provisioned { migrated },
            Event::Delivered(id) => Notice::Delivered(self.keep(id)),
            Event::Dropped(id, reason) => Notice::Dropped(self.keep(id), reason),
            Event::InboundOverflow => Notice::InboundOverflow,
            Event::ClockSkew { seconds } => {
                self.skew_secs = seconds;
                Notice::ClockSkew
            }
            Event::Stopped => Notice::Stopped,
            Event::Reported { .. }
            | Event::ReportRefused { .. }
            | Event::TwinThrottled { .. }
            | Event::TwinRefused { .. }
            | Event::TwinGivenUp
            | Event::CallsDropped { .. }
            | Event::CallRefused
            | Event::Ordered(_) => return,
        };
        if self.queue.last() == Some(&notice) {
            return;
        }
        if self.queue.is_full() {
            self.queue.pop();
        }
        let _ = self.queue.push(notice);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        Some(match pop_front(&mut self.queue)? {
            Notice::Up { session_present } => Event::Up { session_present },
            Notice::Down => Event::Down(self.failure),
            Notice::Retrying => Event::Retrying { failure: self.failure, delay: self.delay },
            Notice::Renewing => Event::Renewing,
            Notice::Provisioned { migrated } => Event::Provisioned { migrated },
            Notice::Delivered(id) => Event::Delivered(self.message(id)),
            Notice::Dropped(id, reason) => Event::Dropped(self.message(id), reason),
            Notice::InboundOverflow => Event::InboundOverflow,
            Notice::ClockSkew => Event::ClockSkew { seconds: self.skew_secs },
            Notice::Stopped => Event::Stopped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_under_their_names_wherever_their_last_bits_wrap() {
        let mut events = Events::new();
        for lane in [0, 1 << 63] {
            let first = (1 << 62) - 2;
            let ids = [first, first + 5, first + 1, (1 << 31) - 1, 1 << 31].map(|id| MessageId::new(lane + id));
            for pair in [[ids[0], ids[1]], [ids[2], ids[1]], [ids[3], ids[4]], [ids[4], ids[3]]] {
                events.delivered(pair[0]);
                events.dropped(pair[1], DropReason::Expired);
                assert_eq!(events.pop(), Some(Event::Delivered(pair[0])));
                assert_eq!(events.pop(), Some(Event::Dropped(pair[1], DropReason::Expired)));
            }
        }
    }

    #[test]
    fn messages_of_both_lanes_wait_side_by_side() {
        let mut events = Events::new();
        let ids = [(1 << 63) + 7, 1 << 40, (1 << 63) + 5, (1 << 40) + 1].map(MessageId::new);
        ids.into_iter().for_each(|id| events.delivered(id));
        for id in ids {
            assert_eq!(events.pop(), Some(Event::Delivered(id)));
        }
    }
}
