//! An outbox in NOR flash: messages survive power cuts and reboots.
//!
//! # Guarantees
//!
//! * A message whose `push` returned is present after any power failure, once, unchanged and in the order of its
//!   priority.
//! * A removed message does not reappear, with one exception: the message whose `remove` was interrupted by a power
//!   failure may reappear, and is then sent again with its id.
//! * A message whose `push` was interrupted by a power failure is present completely or not at all.
//! * Erases go round the pages, so that no page wears out before the others; [`Wear`] counts them.
//!
//! # How
//!
//! `sequential-storage` keeps records with checksums in a ring of pages; a removal overwrites one checksum in place,
//! hence [`MultiwriteNorFlash`]. The messages are in RAM too (`SLOTS` of them, `BYTES` bytes), since a link borrows
//! what it sends. With [`FlashOutbox::spilling`] only the first ones are: the others are only in flash and follow as
//! slots become free, so that the flash may contain far more than the RAM. An urgent message replaces normal ones in
//! RAM.
//!
//! Pages are used cyclically: a full flash has room again when the messages of its oldest page are removed. If one of
//! them must not be dropped, being in flight or urgent, the newest message is refused and none is dropped in vain.
//!
//! Flash encryption on an ESP32 forbids the second write: use a partition
//! without it.

mod metered;
mod record;
mod runs;

use core::fmt;
use core::ops::Range;

use embedded_storage::nor_flash::{MultiwriteNorFlash, NorFlash};
use heapless::Vec;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::queue::{QueueConfig, QueueStorage};
use steadfast_core::{Entry, Instant, MessageId, Outbox, OutboxError, Outcome, Priority, RamOutbox, Usage};

use self::metered::{Metered, at_once};
use self::record::{FLAGS, FORM, HEAD_BYTES, PROPERTIES_LEN_BYTES, STAMP_BYTES, read, write};
use self::runs::{RUNS, Run, exclude, insert};

/// How much the flash was used since the outbox was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wear {
    /// Pages erased.
    pub erased_pages: u32,
    /// Writes.
    pub writes: u32,
    /// Bytes written.
    pub written_bytes: u64,
    /// Removals that the flash refused: the message is no longer in the outbox, but may reappear after a reboot.
    pub failed_removals: u32,
    /// Messages that could not be read back; they are lost.
    pub damaged: u32,
}

/// Why an outbox cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError<E> {
    /// The range does not begin and end at a page, has fewer than two pages, or lies outside of the flash.
    Range,
    /// The record buffer is too small for the stored messages; the number of bytes it needs.
    Buffer(usize),
    /// The flash failed.
    Flash(E),
    /// The range contains other data, or is damaged beyond repair. [`FlashOutbox::erase`] makes it usable.
    Foreign,
    /// The range contains messages of a newer version of this crate, with this format number.
    Newer(u8),
}

impl<E: fmt::Debug> fmt::Display for OpenError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range => f.write_str("the range must be two or more whole pages inside the flash"),
            Self::Buffer(needed) => write!(f, "the record buffer is too small; a stored message needs {needed} bytes"),
            Self::Flash(error) => write!(f, "the flash failed: {error:?}"),
            Self::Foreign => {
                f.write_str("the range does not contain messages of this crate, or is damaged beyond repair")
            }
            Self::Newer(form) => write!(f, "messages are of form {form}; this version reads form {FORM}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for OpenError<E> {}

/// An outbox in a range of NOR flash; see the [module](self).
pub struct FlashOutbox<'b, F: NorFlash, const SLOTS: usize, const BYTES: usize> {
    queue: Queue<F>,
    /// Holds one record while it is written or read.
    record: &'b mut [u8],
    /// The first messages, by their ids.
    window: RamOutbox<SLOTS, BYTES>,
    /// The ids of the others, in order.
    rest: Vec<Run, RUNS>,
    rest_usage: Usage,
    /// The first message of each priority in this boot, the urgent priority's first: the clock of older ones is gone.
    first_of_boot: [Option<MessageId>; 2],
    /// Messages may be only in flash.
    spills: bool,
    restored_expire: Option<Instant>,
    /// A push that failed may have left a record of this id, which is to be withdrawn before the next push.
    unclean: Option<MessageId>,
    /// The first record in flash, when the latest push found no room: pages are used in turn.
    in_the_way: Option<MessageId>,
    failed_removals: u32,
    damaged: u32,
}

type Queue<F> = QueueStorage<Metered<F>, Cache<Uncached, Uncached, Uncached>>;

impl<'b, F: MultiwriteNorFlash, const SLOTS: usize, const BYTES: usize> FlashOutbox<'b, F, SLOTS, BYTES> {
    /// Opens the outbox in `range` of `flash`, with the messages that are there.
    ///
    /// `record` must hold the largest message with 19 bytes more, 27 where creation times are stamped. A message's expiry is a time of the clock of its boot;
    /// messages of an earlier boot that had one expire at `restored_expire` instead, never if that is `None`.
    ///
    /// # Errors
    /// [`OpenError`]; the flash is as it was, but for repairs after a power cut.
    pub fn open(
        flash: F,
        range: Range<u32>,
        record: &'b mut [u8],
        restored_expire: Option<Instant>,
    ) -> Result<Self, OpenError<F::Error>> {
        let mut outbox = Self {
            queue: queue(flash, range)?,
            record,
            window: RamOutbox::new(),
            rest: Vec::new(),
            rest_usage: Usage::default(),
            first_of_boot: [None; 2],
            spills: false,
            restored_expire,
            unclean: None,
            in_the_way: None,
            failed_removals: 0,
            damaged: 0,
        };
        outbox.read_all()?;
        Ok(outbox)
    }

    /// Allows messages that are only in flash while the RAM is full.
    ///
    /// Unlike other outboxes, [`Outbox::get`] then returns only the first messages. A link works with that, since it
    /// sends in order and messages move up as earlier ones leave; the others expire only when they move up. The link's
    /// maximum in flight should not exceed `SLOTS`.
    #[must_use]
    pub const fn spilling(mut self) -> Self {
        self.spills = true;
        self
    }

    /// Erases `range`, and with it every message.
    ///
    /// # Errors
    /// [`OpenError::Range`] and [`OpenError::Flash`].
    pub fn erase(flash: F, range: Range<u32>) -> Result<(), OpenError<F::Error>> {
        let mut queue = queue(flash, range)?;
        at_once(queue.erase_all()).map_err(of_storage)
    }

    /// Returns how much the flash was used since the outbox was opened.
    #[must_use]
    pub fn wear(&mut self) -> Wear {
        let (failed_removals, damaged) = (self.failed_removals, self.damaged);
        Wear { failed_removals, damaged, ..self.queue.flash().wear }
    }

    /// Reads one priority after the other: the window is then no shorter than it was before the power cut, and the rest takes
    /// no more runs.
    fn read_all(&mut self) -> Result<(), OpenError<F::Error>> {
        for priority in [Priority::Urgent, Priority::Normal] {
            let mut records = at_once(self.queue.iter()).map_err(of_storage)?;
            let mut last = None;
            while let Some(record) = at_once(records.next(self.record)).map_err(of_storage)? {
                let mut entry = match read(&record) {
                    Ok(entry) if entry.id.priority() == priority => entry,
                    Ok(_) => continue,
                    Err(form) if form & !FLAGS > FORM => return Err(OpenError::Newer(form & !FLAGS)),
                    Err(_) => return Err(OpenError::Foreign),
                };
                if last.replace(entry.id).is_some_and(|last| entry.id <= last) {
                    return Err(OpenError::Foreign);
                }
                if entry.expires.is_some() {
                    entry.expires = self.restored_expire;
                }
                let size = entry.size();
                let place = place(&self.window, &self.rest, entry.id, size).ok_or(OpenError::Foreign)?;
                settle(&mut self.window, &mut self.rest, &mut self.rest_usage, &entry, place);
            }
        }
        Ok(())
    }

    /// Loads messages into RAM while there is room. Records lie in the order of acceptance, so that each priority is
    /// looked for by itself.
    fn refill(&mut self) {
        for priority in [Priority::Urgent, Priority::Normal] {
            if self.rest.first().is_some_and(|run| run.first.priority() == priority) && !self.refill_priority(priority)
            {
                return;
            }
        }
        if self.window.usage().messages == 0 && !self.rest.is_empty() {
            // Nothing of the rest can be read.
            let lost = u32::try_from(self.rest_usage.messages).unwrap_or(u32::MAX);
            self.damaged = self.damaged.saturating_add(lost);
            self.rest.clear();
            self.rest_usage = Usage::default();
        }
    }

    /// Takes messages of one priority into RAM; returns whether there may be room for more.
    fn refill_priority(&mut self, priority: Priority) -> bool {
        let (mut first_of_boot, restored_expire) = (self.first_of_boot, self.restored_expire);
        let Ok(mut records) = at_once(self.queue.iter()) else { return false };
        while let Ok(Some(record)) = at_once(records.next(self.record)) {
            let Ok(mut entry) = read(&record) else { continue };
            if entry.id.priority() != priority || !self.rest.iter().any(|run| run.contains(entry.id)) {
                continue;
            }
            let first = of_priority(&mut first_of_boot, entry.id);
            if first.is_none_or(|first| entry.id < first) && entry.expires.is_some() {
                entry.expires = restored_expire;
            }
            if self.window.push(entry).is_err() {
                return false;
            }
            // What should have come before it cannot be read any more.
            self.damaged = self.damaged.saturating_add(give_up(&mut self.rest, &mut self.rest_usage, entry.id));
            exclude(&mut self.rest, entry.id);
            self.rest_usage = minus(self.rest_usage, entry.size());
            if self.rest.is_empty() {
                return false;
            }
        }
        if priority == Priority::Urgent {
            // No urgent message is left to be read.
            let lost = give_up(&mut self.rest, &mut self.rest_usage, Priority::Normal.first_id());
            self.damaged = self.damaged.saturating_add(lost);
        }
        true
    }

    /// Returns the message that lies in flash longest.
    fn first_record(&mut self) -> Option<MessageId> {
        let record = at_once(self.queue.peek(self.record)).ok()??;
        read(record).ok().map(|entry| entry.id)
    }

    /// Marks the records of `id` as removed; returns the message's size, 0 when there is none.
    fn remove_from_flash(&mut self, id: MessageId) -> Result<usize, ()> {
        let mut size = 0;
        let mut records = at_once(self.queue.iter()).map_err(drop)?;
        while let Some(record) = at_once(records.next(self.record)).map_err(drop)? {
            let Ok(entry) = read(&record) else { continue };
            if entry.id > id && entry.id.priority() == id.priority() {
                break;
            }
            if entry.id == id {
                size = entry.size();
                at_once(record.pop()).map_err(drop)?;
            }
        }
        Ok(size)
    }

    /// Most bytes of text, properties and payload in one message like this.
    fn largest(&self, like: &Entry<'_>) -> usize {
        let stamp = if like.created_unix_ms.is_some() { STAMP_BYTES } else { 0 };
        let head = HEAD_BYTES + stamp + if like.properties.is_empty() { 0 } else { PROPERTIES_LEN_BYTES };
        let page = F::ERASE_SIZE.saturating_sub(2 * word::<F>() + item_overhead::<F>());
        self.record.len().min(page).min(usize::from(u16::MAX)).saturating_sub(head).min(BYTES)
    }
}

impl<F: MultiwriteNorFlash, const SLOTS: usize, const BYTES: usize> Outbox for FlashOutbox<'_, F, SLOTS, BYTES> {
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError> {
        let size = entry.size();
        let limit = self.largest(&entry);
        self.in_the_way = None;
        if let Some(unclean) = self.unclean {
            self.remove_from_flash(unclean).map_err(|()| OutboxError::Storage)?;
            self.unclean = None;
        }
        let len = write(&entry, self.record).filter(|_| size <= limit);
        let Some(record) = len.and_then(|len| self.record.get(..len)) else {
            return Err(OutboxError::TooLarge { size, limit });
        };
        let place = place(&self.window, &self.rest, entry.id, size).ok_or(OutboxError::Full)?;
        if !self.spills && place != (Place { moves: 0, in_window: true }) {
            return Err(OutboxError::Full);
        }
        match at_once(self.queue.push(record, false)) {
            Ok(()) => {}
            Err(sequential_storage::Error::FullStorage) => {
                self.in_the_way = self.first_record();
                return Err(OutboxError::Full);
            }
            Err(_) => {
                // Whatever of it was written must not come back: its id goes to the next message.
                self.unclean = self.remove_from_flash(entry.id).is_err().then_some(entry.id);
                return Err(OutboxError::Storage);
            }
        }
        of_priority(&mut self.first_of_boot, entry.id).get_or_insert(entry.id);
        settle(&mut self.window, &mut self.rest, &mut self.rest_usage, &entry, place);
        if self.window.usage().messages == 0 {
            self.refill();
        }
        Ok(())
    }

    fn get(&self, id: MessageId) -> Option<Entry<'_>> {
        self.window.get(id)
    }

    fn next(&self, from: MessageId) -> Option<MessageId> {
        let in_rest = || self.rest.iter().find(|run| run.last >= from).map(|run| run.first.max(from));
        self.window.next(from).or_else(in_rest)
    }

    fn remove(&mut self, id: MessageId, outcome: Outcome) -> bool {
        let in_rest = self.rest.iter().any(|run| run.contains(id));
        if in_rest && !exclude(&mut self.rest, id) {
            return false;
        }
        if !in_rest && !self.window.remove(id, outcome) {
            return false;
        }
        let size = self.remove_from_flash(id).unwrap_or_else(|()| {
            self.failed_removals = self.failed_removals.saturating_add(1);
            0
        });
        if in_rest {
            self.rest_usage = minus(self.rest_usage, size);
        }
        if self.window.usage().messages <= SLOTS / 2 {
            self.refill();
        }
        true
    }

    fn last(&self) -> Option<MessageId> {
        self.rest.last().map(|run| run.last).or_else(|| self.window.last())
    }

    fn first_to_leave(&self) -> Option<MessageId> {
        self.in_the_way
    }

    fn usage(&self) -> Usage {
        let Usage { messages, bytes } = self.window.usage();
        Usage { messages: messages + self.rest_usage.messages, bytes: bytes + self.rest_usage.bytes }
    }

    /// While it spills these are upper bounds: each message takes 27 bytes more in flash, 35 with a creation time, rounded
    /// up to the flash's word, and does not cross a page.
    fn capacity(&self) -> Usage {
        if !self.spills {
            return self.window.capacity();
        }
        let range = self.queue.flash_range();
        let pages = (range.end - range.start) as usize / F::ERASE_SIZE;
        let bytes = pages * F::ERASE_SIZE.saturating_sub(2 * word::<F>());
        Usage { messages: bytes / (item_overhead::<F>() + HEAD_BYTES), bytes }
    }
}

impl<F: NorFlash, const SLOTS: usize, const BYTES: usize> fmt::Debug for FlashOutbox<'_, F, SLOTS, BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.window.usage().messages + self.rest_usage.messages;
        f.debug_struct("FlashOutbox").field("messages", &waiting).finish_non_exhaustive()
    }
}

/// Where a new message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// So many messages at the end of the window move to the rest.
    moves: usize,
    in_window: bool,
}

/// Finds the place of a new message so that the window holds the first messages; `None` when the rest cannot take it.
fn place<const SLOTS: usize, const BYTES: usize>(
    window: &RamOutbox<SLOTS, BYTES>,
    rest: &[Run],
    id: MessageId,
    size: usize,
) -> Option<Place> {
    let Usage { mut messages, mut bytes } = window.usage();
    let (mut moves, mut in_window) = (0, rest.first().is_none_or(|run| id < run.first));
    let mut after = Vec::<Run, RUNS>::from_slice(rest).ok()?;
    let mut end = window.last();
    while in_window && (messages >= SLOTS || bytes + size > BYTES) {
        match end.filter(|last| *last > id) {
            Some(last) => {
                insert(&mut after, last).then_some(())?;
                let moved = window.get(last)?;
                messages = messages.saturating_sub(1);
                bytes = bytes.saturating_sub(moved.size());
                moves += 1;
                end = before(window, last);
            }
            None => in_window = false,
        }
    }
    (in_window || insert(&mut after, id)).then_some(Place { moves, in_window })
}

/// Puts a new message where [`place`] has found a place for it.
fn settle<const SLOTS: usize, const BYTES: usize>(
    window: &mut RamOutbox<SLOTS, BYTES>,
    rest: &mut Vec<Run, RUNS>,
    rest_usage: &mut Usage,
    entry: &Entry<'_>,
    place: Place,
) {
    for _ in 0..place.moves {
        let Some(last) = window.last() else { break };
        *rest_usage = plus(*rest_usage, window.get(last).as_ref().map_or(0, Entry::size));
        insert(rest, last);
        // It moves to the rest; this outbox keeps no outcomes.
        window.remove(last, Outcome::Delivered);
    }
    if !(place.in_window && window.push(*entry).is_ok()) {
        insert(rest, entry.id);
        *rest_usage = plus(*rest_usage, entry.size());
    }
}

/// The greatest id in the window below `id`.
fn before<const SLOTS: usize, const BYTES: usize>(
    window: &RamOutbox<SLOTS, BYTES>,
    id: MessageId,
) -> Option<MessageId> {
    let mut found = None;
    let mut next = window.first();
    while let Some(other) = next.filter(|other| *other < id) {
        found = Some(other);
        next = window.next(other.next());
    }
    found
}

/// What belongs to the priority of `id` of two things, the urgent priority's first.
fn of_priority<T>([urgent, normal]: &mut [T; 2], id: MessageId) -> &mut T {
    match id.priority() {
        Priority::Urgent => urgent,
        Priority::Normal => normal,
    }
}

/// Takes the ids before `id` out of the rest; returns how many there were.
fn give_up(rest: &mut Vec<Run, RUNS>, rest_usage: &mut Usage, id: MessageId) -> u32 {
    let mut lost = 0;
    while let Some(first) = rest.first().map(|run| run.first).filter(|first| *first < id) {
        exclude(rest, first);
        rest_usage.messages = rest_usage.messages.saturating_sub(1);
        lost += 1;
    }
    lost
}

fn plus(usage: Usage, size: usize) -> Usage {
    Usage { messages: usage.messages + 1, bytes: usage.bytes + size }
}

fn minus(usage: Usage, size: usize) -> Usage {
    Usage { messages: usage.messages.saturating_sub(1), bytes: usage.bytes.saturating_sub(size) }
}

fn queue<F: NorFlash>(flash: F, range: Range<u32>) -> Result<Queue<F>, OpenError<F::Error>> {
    let page = u32::try_from(F::ERASE_SIZE).map_err(|_| OpenError::Range)?;
    let inside = usize::try_from(range.end).is_ok_and(|end| end <= flash.capacity());
    // One page alone would have to be empty before the next message fits.
    if !inside || range.end.checked_sub(range.start).is_none_or(|len| len < page.saturating_mul(2)) {
        return Err(OpenError::Range);
    }
    let config = QueueConfig::try_new(range).map_err(|_| OpenError::Range)?;
    Ok(QueueStorage::new(Metered { flash, wear: Wear::default() }, config, Cache::new_uncached()))
}

fn of_storage<E>(error: sequential_storage::Error<E>) -> OpenError<E> {
    match error {
        sequential_storage::Error::Storage { value, .. } => OpenError::Flash(value),
        sequential_storage::Error::BufferTooSmall(needed) => OpenError::Buffer(needed),
        sequential_storage::Error::FullStorage
        | sequential_storage::Error::Corrupted { .. }
        | sequential_storage::Error::LogicBug { .. }
        | sequential_storage::Error::BufferTooBig
        | sequential_storage::Error::SerializationError(_)
        | sequential_storage::Error::ItemTooBig
        | _ => OpenError::Foreign,
    }
}

const fn word<F: NorFlash>() -> usize {
    if F::WRITE_SIZE > F::READ_SIZE { F::WRITE_SIZE } else { F::READ_SIZE }
}

const fn item_overhead<F: NorFlash>() -> usize {
    Queue::<F>::item_overhead_size() as usize
}
