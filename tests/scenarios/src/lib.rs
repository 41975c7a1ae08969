//! Scenarios of the link in virtual time: each test tells one behaviour, as its name says.
//!
//! `tests/scenarios` holds the scenarios by theme, `tests/exhaustive` every short history of a tiny link, and
//! `tests/histories.rs` long random ones. The binary `mutants` proves that they notice mistakes.

use std::time::Duration;

/// Returns so many seconds.
#[must_use]
pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Returns so many minutes.
#[must_use]
pub const fn mins(mins: u64) -> Duration {
    Duration::from_secs(mins * 60)
}

/// Returns so many hours.
#[must_use]
pub const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Returns so many days.
#[must_use]
pub const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

/// Tells a scenario once for each of so many seeds; a failing seed is named by the world.
pub fn seeds(count: u64, mut scenario: impl FnMut(u64)) {
    for seed in 1..=count {
        scenario(seed);
    }
}

/// Pearson's statistic of `values`, each expected to fall into `bins` equal parts of `0..=most` alike.
///
/// For `bins` of 20 a fair draw exceeds 43.8 once in a thousand times.
#[must_use]
pub fn chi_square(values: &[u64], most: u64, bins: usize) -> f64 {
    let mut counts = vec![0_u32; bins];
    for value in values {
        let place = usize::try_from(value * bins as u64 / (most + 1)).unwrap_or(0);
        counts[place.min(bins - 1)] += 1;
    }
    let expected = values.len() as f64 / bins as f64;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}
