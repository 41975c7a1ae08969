//! Short queues. Moving a few entries up takes less flash than a ring that goes round.

use heapless::Vec;

/// Takes the first entry.
pub(crate) fn pop_front<T, const N: usize>(queue: &mut Vec<T, N>) -> Option<T> {
    // The comparison lets the compiler leave the panic out.
    if queue.is_empty() { None } else { Some(queue.remove(0)) }
}
