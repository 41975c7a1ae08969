//! The wall clock of the emulator, which tests can set.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// The emulator's wall clock, used to check tokens. Clones share the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    offset: Arc<watch::Sender<i64>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { offset: Arc::new(watch::channel(0).0) }
    }
}

impl Clock {
    /// Returns the time in Unix seconds.
    #[must_use]
    pub fn unix(&self) -> u64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        real.saturating_add_signed(*self.offset.borrow())
    }

    /// Returns how many seconds this clock is ahead of the machine's; negative when it is behind.
    #[must_use]
    pub fn offset_seconds(&self) -> i64 {
        *self.offset.borrow()
    }

    /// Sets the clock `seconds` ahead of the machine's; a negative value sets it behind.
    pub fn set_offset_seconds(&self, seconds: i64) {
        self.offset.send_replace(seconds);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        self.offset.send_modify(|offset| *offset = offset.saturating_add(by));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<i64> {
        self.offset.subscribe()
    }
}
