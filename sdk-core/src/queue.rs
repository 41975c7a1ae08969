//! Short queues. Moving a few entries takes less flash than a ring buffer.

use heapless::Vec;

/// Takes the first entry.
pub(crate) fn pop_front<T, const N: usize>(queue: &mut Vec<T, N>) -> Option<T> {
    // The comparison lets the compiler remove the panic.
    if queue.is_empty() { None } else { Some(queue.remove(0)) }
}
