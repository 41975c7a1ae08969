//! A set of numbers stored as ranges: small while the numbers are mostly consecutive.

use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Inclusive ranges, sorted, never touching.
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// Adds a number; false when the set contains it already.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let at = self.ranges.partition_point(|&(_, last)| last < number);
        if self.ranges.get(at).is_some_and(|&(first, _)| first <= number) {
            return false;
        }
        let joins_left = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(number);
        let joins_right = self.ranges.get(at).is_some_and(|&(first, _)| number.checked_add(1) == Some(first));
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        true
    }

    /// Returns the numbers of `wanted` that are missing, as ranges.
    pub(crate) fn missing(&self, wanted: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut next = wanted.start;
        for &(first, last) in &self.ranges {
            if next >= wanted.end || first >= wanted.end {
                break;
            }
            if last < next {
                continue;
            }
            if first > next {
                missing.push(next..first);
            }
            next = last.saturating_add(1);
        }
        if next < wanted.end {
            missing.push(next..wanted.end);
        }
        missing
    }

    /// Returns how many numbers lie outside `wanted`.
    pub(crate) fn outside(&self, wanted: &Range<u64>) -> u64 {
        let all: u64 = self.ranges.iter().map(|&(first, last)| (last - first).saturating_add(1)).sum();
        let missing: u64 = self.missing(wanted.clone()).iter().map(|range| range.end - range.start).sum();
        all - (wanted.end.saturating_sub(wanted.start) - missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_are_merged_into_ranges() {
        let mut set = RangeSet::default();
        for number in [5, 1, 2, 9, 3, 4] {
            assert!(set.insert(number));
        }
        assert!(!set.insert(3));
        assert_eq!(set.ranges, [(1, 5), (9, 9)]);
        assert_eq!(set.missing(0..12), [0..1, 6..9, 10..12]);
        assert_eq!(set.missing(2..4), Vec::new());
        assert_eq!(set.outside(&(2..6)), 2);
    }
}
