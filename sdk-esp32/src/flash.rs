//! An outbox in NOR flash: messages survive power cuts and reboots.
//!
//! # What it promises
//!
//! * A message whose `push` returned is there after any power cut, once, unchanged and in order.
//! * A message that was removed does not come back. The window is one removal: the message whose `remove` the power cut
//!   interrupts may come back, and is then sent again under its id.
//! * A message whose `push` the power cut interrupts, or the flash refuses at the moment of a power cut, is there whole
//!   or not at all.
//! * Erases go round the pages, so that no page wears out before the others; [`Wear`] counts them.
//!
//! # How
//!
//! `sequential-storage` keeps records with checksums in a ring of pages; a removal overwrites one checksum in place,
//! hence [`MultiwriteNorFlash`]. The messages are in RAM too (`SLOTS` of them, `BYTES` bytes), since a link borrows what
//! it sends. With [`FlashOutbox::spilling`] only the oldest are: the rest wait in flash alone and follow as places become
//! free, so that the flash may hold far more than the RAM.
//!
//! Flash encryption on an ESP32 forbids the second write: use a partition
//! without it.

use core::fmt;
use core::future::Future;
use core::ops::Range;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage::nor_flash::{ErrorType, MultiwriteNorFlash, NorFlash, ReadNorFlash};
use embedded_storage_async::nor_flash as asynchronous;
use heapless::Vec;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::queue::{QueueConfig, QueueStorage};
use steadfast_core::{Address, Entry, Instant, MessageId, Outbox, OutboxError, RamOutbox, Usage};

/// Form of the records written.
const FORM: u8 = 1;

/// Flag beside the form: the message goes to the telemetry endpoint.
const TELEMETRY: u8 = 0x80;

/// Form, length of the text, id, expiry.
const HEAD_BYTES: usize = 1 + 2 + 8 + 8;

/// Stands for "never".
const NEVER: u64 = u64::MAX;

/// Most runs of ids among the messages that are in flash alone.
const RUNS: usize = 4;

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
    /// Removals that the flash refused: the message is gone from the outbox and may come back after a reboot.
    pub failed_removals: u32,
    /// Messages that could not be read back; they are gone.
    pub damaged: u32,
}

/// Why an outbox cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError<E> {
    /// The range does not begin and end at a page, has fewer than two pages, or lies outside of the flash.
    Range,
    /// The record buffer is too small for the messages kept; the number of bytes it needs.
    Buffer(usize),
    /// The flash failed.
    Flash(E),
    /// The range holds something else, or more damage than can be repaired. [`FlashOutbox::erase`] makes it usable.
    Foreign,
    /// The range holds messages of a newer version of this crate, whose form has this number.
    Newer(u8),
}

impl<E: fmt::Debug> fmt::Display for OpenError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range => f.write_str("the range must be two or more whole pages inside the flash"),
            Self::Buffer(needed) => write!(f, "the record buffer is too small; a message kept needs {needed} bytes"),
            Self::Flash(error) => write!(f, "the flash failed: {error:?}"),
            Self::Foreign => f.write_str("the range holds no messages of this crate, or is damaged beyond repair"),
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
    /// The oldest messages.
    window: RamOutbox<SLOTS, BYTES>,
    /// The ids of the others, in order.
    rest: Vec<Run, RUNS>,
    rest_usage: Usage,
    /// The first message of this boot: the clock of older ones is gone.
    first_of_boot: Option<MessageId>,
    /// Messages may wait in flash alone.
    spills: bool,
    restored_expire: Option<Instant>,
    /// A push that failed may have left a record of this id, which is to be withdrawn before the next push.
    unclean: Option<MessageId>,
    failed_removals: u32,
    damaged: u32,
}

type Queue<F> = QueueStorage<Metered<F>, Cache<Uncached, Uncached, Uncached>>;

/// Ids from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: MessageId,
    last: MessageId,
}

impl<'b, F: MultiwriteNorFlash, const SLOTS: usize, const BYTES: usize> FlashOutbox<'b, F, SLOTS, BYTES> {
    /// Opens the outbox in `range` of `flash`, with the messages that are there.
    ///
    /// `record` must hold the largest message with 19 bytes more. A message's expiry is a time of the clock of its boot;
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
            first_of_boot: None,
            spills: false,
            restored_expire,
            unclean: None,
            failed_removals: 0,
            damaged: 0,
        };
        outbox.read_all()?;
        Ok(outbox)
    }

    /// Lets messages wait in flash alone while the RAM is full.
    ///
    /// One thing differs then from other outboxes: [`Outbox::get`] knows the oldest messages only. A link works with
    /// that, since it sends in order and messages come near as older ones leave; messages of which it has not heard
    /// expire when they come near. The link's window should not exceed `SLOTS`.
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

    fn read_all(&mut self) -> Result<(), OpenError<F::Error>> {
        let mut records = at_once(self.queue.iter()).map_err(of_storage)?;
        let mut last = None;
        while let Some(record) = at_once(records.next(self.record)).map_err(of_storage)? {
            let mut entry = match read(&record) {
                Ok(entry) => entry,
                Err(form) if form & !TELEMETRY > FORM => return Err(OpenError::Newer(form & !TELEMETRY)),
                Err(_) => return Err(OpenError::Foreign),
            };
            if last.is_some_and(|last| entry.id <= last) {
                return Err(OpenError::Foreign);
            }
            last = Some(entry.id);
            if entry.expires.is_some() {
                entry.expires = self.restored_expire;
            }
            let size = size_of_entry(&entry);
            let in_window = self.rest.is_empty() && self.window.push(entry).is_ok();
            if !in_window && !extend(&mut self.rest, entry.id) {
                return Err(OpenError::Foreign);
            }
            if !in_window {
                self.rest_usage = plus(self.rest_usage, size);
            }
        }
        Ok(())
    }

    /// Takes messages into RAM for which there is room.
    fn refill(&mut self) {
        let Some(wanted) = self.rest.first().map(|run| run.first) else { return };
        let (first_of_boot, restored_expire) = (self.first_of_boot, self.restored_expire);
        let Ok(mut records) = at_once(self.queue.iter()) else { return };
        while let Ok(Some(record)) = at_once(records.next(self.record)) {
            let Ok(mut entry) = read(&record) else { continue };
            if entry.id < wanted || !self.rest.iter().any(|run| run.contains(entry.id)) {
                continue;
            }
            if first_of_boot.is_none_or(|first| entry.id < first) && entry.expires.is_some() {
                entry.expires = restored_expire;
            }
            if self.window.push(entry).is_err() {
                return;
            }
            // What should have come before it cannot be read any more.
            while let Some(id) = self.rest.first().map(|run| run.first).filter(|id| *id < entry.id) {
                self.damaged = self.damaged.saturating_add(1);
                exclude(&mut self.rest, id);
                self.rest_usage.messages = self.rest_usage.messages.saturating_sub(1);
            }
            exclude(&mut self.rest, entry.id);
            self.rest_usage = minus(self.rest_usage, size_of_entry(&entry));
            if self.rest.is_empty() {
                return;
            }
        }
        if self.window.usage().messages == 0 {
            // Nothing of the rest can be read.
            let lost = u32::try_from(self.rest_usage.messages).unwrap_or(u32::MAX);
            self.damaged = self.damaged.saturating_add(lost);
            self.rest.clear();
            self.rest_usage = Usage::default();
        }
    }

    /// Marks the records of `id` as removed; returns the message's size, 0 when there is none.
    fn remove_from_flash(&mut self, id: MessageId) -> Result<usize, ()> {
        let mut size = 0;
        let mut records = at_once(self.queue.iter()).map_err(drop)?;
        while let Some(record) = at_once(records.next(self.record)).map_err(drop)? {
            let Ok(entry) = read(&record) else { continue };
            if entry.id > id {
                break;
            }
            if entry.id == id {
                size = size_of_entry(&entry);
                at_once(record.pop()).map_err(drop)?;
            }
        }
        Ok(size)
    }

    /// Most bytes of text and payload in one message.
    fn largest(&self) -> usize {
        let page = F::ERASE_SIZE.saturating_sub(2 * word::<F>() + item_overhead::<F>());
        self.record.len().min(page).min(usize::from(u16::MAX)).saturating_sub(HEAD_BYTES).min(BYTES)
    }
}

impl<F: MultiwriteNorFlash, const SLOTS: usize, const BYTES: usize> Outbox for FlashOutbox<'_, F, SLOTS, BYTES> {
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError> {
        let size = size_of_entry(&entry);
        let limit = self.largest();
        if let Some(unclean) = self.unclean {
            self.remove_from_flash(unclean).map_err(|()| OutboxError::Storage)?;
            self.unclean = None;
        }
        let len = write(&entry, self.record).filter(|_| size <= limit);
        let Some(record) = len.and_then(|len| self.record.get(..len)) else {
            return Err(OutboxError::TooLarge { size, limit });
        };
        let in_window = self.rest.is_empty() && {
            let usage = self.window.usage();
            usage.messages < SLOTS && usage.bytes + size <= BYTES
        };
        let follows = self.rest.last().is_none_or(|run| run.last.next() == entry.id);
        if !in_window && (!self.spills || (!follows && self.rest.is_full())) {
            return Err(OutboxError::Full);
        }
        match at_once(self.queue.push(record, false)) {
            Ok(()) => {}
            Err(sequential_storage::Error::FullStorage) => return Err(OutboxError::Full),
            Err(_) => {
                // Whatever of it was written must not come back: its id goes to the next message.
                self.unclean = self.remove_from_flash(entry.id).is_err().then_some(entry.id);
                return Err(OutboxError::Storage);
            }
        }
        self.first_of_boot.get_or_insert(entry.id);
        if !(in_window && self.window.push(entry).is_ok()) {
            extend(&mut self.rest, entry.id);
            self.rest_usage = plus(self.rest_usage, size);
            if self.window.usage().messages == 0 {
                self.refill();
            }
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

    fn remove(&mut self, id: MessageId) -> bool {
        let in_rest = self.rest.iter().any(|run| run.contains(id));
        if in_rest && !exclude(&mut self.rest, id) {
            return false;
        }
        if !in_rest && !self.window.remove(id) {
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

    fn usage(&self) -> Usage {
        let Usage { messages, bytes } = self.window.usage();
        Usage { messages: messages + self.rest_usage.messages, bytes: bytes + self.rest_usage.bytes }
    }

    /// While it spills these are upper bounds: each message takes 27 bytes more in flash, rounded up to the flash's word,
    /// and does not cross a page.
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

impl Run {
    fn contains(&self, id: MessageId) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

/// Adds an id behind all others; false when that takes one run too many.
fn extend(runs: &mut Vec<Run, RUNS>, id: MessageId) -> bool {
    match runs.last_mut() {
        Some(run) if run.last.next() == id => run.last = id,
        _ => return runs.push(Run { first: id, last: id }).is_ok(),
    }
    true
}

/// Takes an id out; false when that takes one run too many.
fn exclude(runs: &mut Vec<Run, RUNS>, id: MessageId) -> bool {
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

fn plus(usage: Usage, size: usize) -> Usage {
    Usage { messages: usage.messages + 1, bytes: usage.bytes + size }
}

fn minus(usage: Usage, size: usize) -> Usage {
    Usage { messages: usage.messages.saturating_sub(1), bytes: usage.bytes.saturating_sub(size) }
}

fn size_of_entry(entry: &Entry<'_>) -> usize {
    entry.address.text().len().saturating_add(entry.payload.len())
}

/// Writes a record and returns its length, `None` when it does not fit.
fn write(entry: &Entry<'_>, record: &mut [u8]) -> Option<usize> {
    let text = entry.address.text();
    let form = if matches!(entry.address, Address::Telemetry(_)) { FORM | TELEMETRY } else { FORM };
    let expires = entry.expires.map_or(NEVER, Instant::as_millis);
    let parts: [&[u8]; 6] = [
        &[form],
        &u16::try_from(text.len()).ok()?.to_le_bytes(),
        &entry.id.get().to_le_bytes(),
        &expires.to_le_bytes(),
        text.as_bytes(),
        entry.payload,
    ];
    let mut len = 0;
    for part in parts {
        record.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    Some(len)
}

/// Reads a record. The error is the first byte.
fn read(record: &[u8]) -> Result<Entry<'_>, u8> {
    let form = record.first().copied().unwrap_or_default();
    let parse = || {
        let (_, rest) = record.split_first()?;
        let (text_len, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (text, payload) = rest.split_at_checked(usize::from(u16::from_le_bytes(*text_len)))?;
        let text = core::str::from_utf8(text).ok()?;
        let address = if form & TELEMETRY != 0 { Address::Telemetry(text) } else { Address::Topic(text) };
        let expires = match u64::from_le_bytes(*expires) {
            NEVER => None,
            millis => Some(Instant::from_millis(millis)),
        };
        Some(Entry { id: MessageId::new(u64::from_le_bytes(*id)), address, payload, expires })
    };
    if form & !TELEMETRY == FORM { parse().ok_or(form) } else { Err(form) }
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

/// Finishes a future that waits for nothing but a blocking flash.
fn at_once<R, E>(
    work: impl Future<Output = Result<R, sequential_storage::Error<E>>>,
) -> Result<R, sequential_storage::Error<E>> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(sequential_storage::Error::LogicBug {}),
    }
}

/// A blocking flash as an asynchronous one that never waits, with a count of what is done to it.
struct Metered<F> {
    flash: F,
    wear: Wear,
}

impl<F: ErrorType> ErrorType for Metered<F> {
    type Error = F::Error;
}

impl<F: ReadNorFlash> asynchronous::ReadNorFlash for Metered<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.flash.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: NorFlash> asynchronous::NorFlash for Metered<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        let pages = (to.saturating_sub(from) as usize).checked_div(F::ERASE_SIZE).unwrap_or_default();
        self.wear.erased_pages = self.wear.erased_pages.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
        self.flash.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.wear.writes = self.wear.writes.saturating_add(1);
        self.wear.written_bytes = self.wear.written_bytes.saturating_add(bytes.len() as u64);
        self.flash.write(offset, bytes)
    }
}

impl<F: MultiwriteNorFlash> asynchronous::MultiwriteNorFlash for Metered<F> {}
