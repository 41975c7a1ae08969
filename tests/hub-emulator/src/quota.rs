//! The daily message quota: once it is used up, a hub closes every connection until midnight UTC.

/// A message counts once per started unit of this many bytes.
const METER: usize = 4096;
const DAY: u64 = 86_400;

/// The used part of the daily quota.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quota {
    /// Messages per day; none means unlimited.
    limit: Option<u64>,
    used: u64,
    /// Whether the quota was declared used up, regardless of the count.
    exhausted: bool,
    /// The day of `used` and `exhausted`, counted from 1970.
    day: u64,
}

impl Quota {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Returns whether the quota of the day of `unix` is used up.
    pub(crate) fn is_exhausted(&mut self, unix: u64) -> bool {
        self.turn(unix);
        self.exhausted || self.limit.is_some_and(|limit| self.used >= limit)
    }

    /// Counts a message of `size` bytes.
    pub(crate) fn count(&mut self, size: usize, unix: u64) {
        self.turn(unix);
        self.used = self.used.saturating_add(size.div_ceil(METER).max(1) as u64);
    }

    /// Uses up the rest of the day's quota.
    pub(crate) fn exhaust(&mut self, unix: u64) {
        self.turn(unix);
        self.exhausted = true;
    }

    fn turn(&mut self, unix: u64) {
        let today = unix / DAY;
        if self.day != today {
            *self = Self { limit: self.limit, day: today, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daily_quota_counts_in_units_of_four_kibibytes_and_restarts_at_midnight() {
        let mut quota = Quota::new(Some(3));
        let noon = 20_000 * DAY + DAY / 2;
        quota.count(0, noon);
        quota.count(METER, noon);
        assert!(!quota.is_exhausted(noon));
        quota.count(1, noon);
        assert!(quota.is_exhausted(20_001 * DAY - 1));
        assert!(!quota.is_exhausted(20_001 * DAY));
        quota.exhaust(20_001 * DAY);
        assert!(quota.is_exhausted(20_002 * DAY - 1));
        assert!(!quota.is_exhausted(20_002 * DAY));
    }
}
