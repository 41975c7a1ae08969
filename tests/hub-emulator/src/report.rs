//! Reports of the ledger.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::ranges::RangeSet;

/// Counts of received telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Receipts, including messages that a fault dropped.
    pub receipts: u64,
    /// Receipts that were stored.
    pub stored: u64,
    /// Distinct messages stored, identified by `$.mid` (by `seq` when only counts are kept); each message without one
    /// counts.
    pub distinct: u64,
    /// Stored receipts of a message stored before.
    pub duplicates: u64,
    /// PUBACKs sent.
    pub acknowledged: u64,
    /// Receipts with the DUP flag.
    pub dup_flags: u64,
    /// Messages whose first receipt came after one with a greater `seq`.
    pub reordered: u64,
    /// Bytes of all stored bodies.
    pub bytes: u64,
}

impl Counts {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            receipts: self.receipts + other.receipts,
            stored: self.stored + other.stored,
            distinct: self.distinct + other.distinct,
            duplicates: self.duplicates + other.duplicates,
            acknowledged: self.acknowledged + other.acknowledged,
            dup_flags: self.dup_flags + other.dup_flags,
            reordered: self.reordered + other.reordered,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// A comparison of delivered with accepted messages, by message id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// Accepted, never stored.
    pub lost: Vec<String>,
    /// Stored more than once, with the number of extra receipts.
    pub duplicated: Vec<(String, u32)>,
    /// First stored after a message that was accepted later.
    pub reordered: Vec<String>,
    /// Stored, never accepted.
    pub unexpected: Vec<String>,
}

impl DeliveryReport {
    pub(crate) fn compare<'a>(accepted: &[String], received: impl Iterator<Item = &'a str>) -> Self {
        let places: HashMap<&str, usize> = accepted.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let mut times: HashMap<&str, u32> = HashMap::new();
        let mut report = Self::default();
        let mut furthest = 0;
        for id in received {
            let times = times.entry(id).or_insert(0);
            *times += 1;
            if *times > 1 {
                continue;
            }
            match places.get(id) {
                None => report.unexpected.push(id.to_owned()),
                Some(&place) if place < furthest => report.reordered.push(id.to_owned()),
                Some(&place) => furthest = place,
            }
        }
        for id in accepted {
            match times.get(id.as_str()) {
                None => report.lost.push(id.clone()),
                Some(1) => {}
                Some(&times) => report.duplicated.push((id.clone(), times - 1)),
            }
        }
        report
    }

    /// Returns whether every message arrived, in order; duplicates are allowed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.reordered.is_empty() && self.unexpected.is_empty()
    }

    /// Returns the number of extra receipts.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicated.iter().map(|(_, times)| u64::from(*times)).sum()
    }
}

impl fmt::Display for DeliveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, reordered, unexpected, .. } = self;
        let (lost, reordered, unexpected) = (lost.len(), reordered.len(), unexpected.len());
        let duplicates = self.duplicates();
        write!(f, "{lost} lost, {reordered} reordered, {duplicates} duplicates, {unexpected} unexpected")
    }
}

/// A comparison of delivered messages with a range of the application property `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SequenceReport {
    /// Values never stored.
    pub lost: Vec<Range<u64>>,
    /// Number of values never stored.
    pub lost_count: u64,
    /// Stored receipts of a value stored before.
    pub duplicates: u64,
    /// Values first stored after a greater one.
    pub reordered: u64,
    /// Number of values stored that were not expected.
    pub unexpected: u64,
}

impl SequenceReport {
    pub(crate) fn of(seen: &RangeSet, counts: Counts, expected: Range<u64>) -> Self {
        let unexpected = seen.outside(&expected);
        let lost = seen.missing(expected);
        let lost_count = lost.iter().map(|range| range.end - range.start).sum();
        Self { lost, lost_count, duplicates: counts.duplicates, reordered: counts.reordered, unexpected }
    }

    /// Returns whether every value arrived, in order; duplicates are allowed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.reordered == 0 && self.unexpected == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lists_lost_reordered_duplicated_and_unexpected_messages() {
        let accepted = ["a", "b", "c", "d"].map(str::to_owned);
        let report = DeliveryReport::compare(&accepted, ["a", "c", "b", "c", "x"].into_iter());
        assert_eq!(report.lost, ["d"]);
        assert_eq!(report.reordered, ["b"]);
        assert_eq!(report.duplicated, [("c".to_owned(), 1)]);
        assert_eq!(report.unexpected, ["x"]);
        assert!(!report.is_complete());
        assert_eq!(report.to_string(), "1 lost, 1 reordered, 1 duplicates, 1 unexpected");
    }
}
