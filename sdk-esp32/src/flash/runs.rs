//! The ids of messages that are in flash alone, as runs.

use heapless::Vec;
use steadfast_core::MessageId;

/// Most runs of ids among the messages that are in flash alone.
pub(super) const RUNS: usize = 4;

/// Ids from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: MessageId,
    pub(super) last: MessageId,
}

impl Run {
    pub(super) fn contains(&self, id: MessageId) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

/// Adds an id at its place; false, and nothing changed, when that takes one run too many.
pub(super) fn insert(runs: &mut Vec<Run, RUNS>, id: MessageId) -> bool {
    let at = runs.iter().position(|run| id < run.first).unwrap_or(runs.len());
    let follows = |run: &Run| run.last.next() == id;
    let joins = runs.get(at).is_some_and(|run| id.next() == run.first);
    let previous = at.checked_sub(1).and_then(|before| runs.get_mut(before)).filter(|run| follows(run));
    match previous {
        Some(run) => run.last = id,
        None if joins => {
            if let Some(run) = runs.get_mut(at) {
                run.first = id;
            }
        }
        None => return runs.insert(at, Run { first: id, last: id }).is_ok(),
    }
    true
}

/// Takes an id out; false when that takes one run too many.
pub(super) fn exclude(runs: &mut Vec<Run, RUNS>, id: MessageId) -> bool {
    let Some(at) = runs.iter().position(|run| run.contains(id)) else { return false };
    let Some(run) = runs.get_mut(at) else { return false };
    let Run { first, last } = *run;
    if first == last {
        runs.remove(at);
    } else if id == first {
        run.first = id.next();
    } else {
        let before = MessageId::new(id.get().wrapping_sub(1));
        if id != last && runs.insert(at + 1, Run { first: id.next(), last }).is_err() {
            return false;
        }
        if let Some(run) = runs.get_mut(at) {
            run.last = before;
        }
    }
    true
}
