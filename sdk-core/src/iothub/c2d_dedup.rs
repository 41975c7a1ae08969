//! Recognises redelivered cloud-to-device messages.

use heapless::Vec;

use crate::io::Attempt;
use crate::iothub::property_bag;
use crate::mqtt::PacketId;
use crate::queue::pop_front;

/// How many of the latest messages are remembered.
const REMEMBERED: usize = 16;

/// The latest messages by the hash of their message id.
///
/// The service redelivers a message if its acknowledgement did not arrive.
#[derive(Clone, Debug)]
pub(super) struct Recent(Vec<Seen, REMEMBERED>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    hash: u32,
    place: (PacketId, Attempt),
    /// The position of the previous copy, which the application may still hold.
    before: (PacketId, Attempt),
    completed: bool,
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Records a message and returns whether the application has completed it before.
    pub(super) fn take(&mut self, bag: &str, packet_id: Option<PacketId>, attempt: Attempt) -> bool {
        let id = property_bag::properties(bag).find(|property| property.key == "$.mid");
        let (Some(id), Some(packet_id)) = (id.and_then(|property| property.value), packet_id) else { return false };
        // FNV-1a, 32 bits: offset basis and prime of its definition.
        let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let place = (packet_id, attempt);
        if let Some(seen) = self.0.iter_mut().find(|seen| seen.hash == hash) {
            if seen.place != place {
                seen.before = core::mem::replace(&mut seen.place, place);
            }
            return seen.completed;
        }
        if self.0.is_full() {
            pop_front(&mut self.0);
        }
        let _ = self.0.push(Seen { hash, place, before: place, completed: false });
        false
    }

    /// Records that the application has completed a message, even after the end of its connection.
    pub(super) fn complete(&mut self, packet_id: PacketId, attempt: Attempt) {
        let place = (packet_id, attempt);
        if let Some(seen) = self.0.iter_mut().find(|seen| seen.place == place || seen.before == place) {
            seen.completed = true;
        }
    }

    /// Whether the application is done with a message of this id, this copy of it or another.
    pub(super) fn is_completed(&self, packet_id: PacketId, attempt: Attempt) -> bool {
        self.0.iter().any(|seen| seen.place == (packet_id, attempt) && seen.completed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_message_that_was_completed_is_known_again_and_one_that_was_not_is_new() {
        let mut recent = Recent::new();
        let [first, second] = [1, 2].map(PacketId::new);
        let attempt = Attempt::default();
        assert!(!recent.take("%24.mid=a&x=y", first, attempt));
        assert!(!recent.take("$.mid=b", second, attempt));
        // The connection ended before the acknowledgement was written.
        recent.complete(first.unwrap(), attempt);
        assert!(recent.take("$.mid=a", second, attempt.next()));
        assert!(!recent.take("$.mid=b", first, attempt.next()));
        // The application completes the copy it had before, when the next one is there already.
        assert!(!recent.is_completed(first.unwrap(), attempt.next()));
        recent.complete(second.unwrap(), attempt);
        assert!(recent.is_completed(first.unwrap(), attempt.next()));
        assert!(!recent.take("x=y", first, attempt), "without an id nothing is known");
        for number in 0..REMEMBERED {
            recent.take(&format!("$.mid=n{number}"), first, attempt);
        }
        assert!(!recent.take("$.mid=a", first, attempt), "only the latest are remembered");
    }
}
