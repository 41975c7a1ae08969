//! The daily quota of messages: used up, a hub closes what connects until midnight UTC.

/// A message counts once for each of so many bytes it begins.
const METER: usize = 4096;
const DAY: u64 = 86_400;

/// How much of a day's quota is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quota {
    /// Messages of a day; none is no limit.
    limit: Option<u64>,
    used: u64,
    /// Whether it counts as used up, whatever was counted.
    exhausted: bool,
    /// The day `used` and `exhausted` are of, counted from 1970.
    day: u64,
}

impl Quota {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Tells whether nothing is left of the day that `unix` is in.
    pub(crate) fn is_exhausted(&mut self, unix: u64) -> bool {
        self.turn(unix);
        self.exhausted || self.limit.is_some_and(|limit| self.used >= limit)
    }

    /// Counts a message of `size` bytes.
    pub(crate) fn count(&mut self, size: usize, unix: u64) {
        self.turn(unix);
        self.used = self.used.saturating_add(size.div_ceil(METER).max(1) as u64);
    }

    /// Uses up what is left of the day.
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
    fn a_day_has_its_messages_in_units_of_four_kibibytes_and_midnight_gives_new_ones() {
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
