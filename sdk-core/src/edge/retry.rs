//! Retries of the workload API, and the age of its roots.

use core::time::Duration;

use super::workload;
use crate::failure::{LocalFailure, TlsFailure};
use crate::rng::scale;
use crate::time::{Instant, span};

/// Attempts at a request that the service closes unanswered, or is too busy for.
///
/// It answers 10 at a time and closes what comes beyond (`Azure/iotedge`, `edgelet/edgelet-http/src/lib.rs`).
pub const TRIES: u8 = 6;

/// Longest pause in milliseconds before the first repetition, and twice the shortest; each further one is twice as long.
pub const PAUSE_MS: u32 = 50;

/// How long roots are used before they are read again.
pub const ROOTS_LIFE: Duration = Duration::from_secs(3600);

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// An answer with this HTTP status.
    Answered(u16),
    /// The connection ended before the answer, or the answer was not HTTP.
    CutOff,
    /// Nothing listens at the address, or the module may not connect to it.
    Absent,
}

/// The next step after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Read the answer.
    Read,
    /// Retry after this time.
    Repeat(Duration),
    /// Report the failure: the link retries with its back-off.
    Fail(LocalFailure),
}

/// The tries at one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    made: u8,
    last: Option<LocalFailure>,
}

impl Tries {
    /// Begins before the first try.
    #[must_use]
    pub const fn new() -> Self {
        Self { made: 0, last: None }
    }

    /// Returns the next step after an attempt. `word` is random and draws the delay, since all modules of a device find
    /// the service busy at the same moment.
    pub fn after(&mut self, outcome: Outcome, word: u32) -> Next {
        self.made = self.made.saturating_add(1);
        let (failure, passes) = match outcome {
            Outcome::Answered(200..=299) => return Next::Read,
            Outcome::Answered(status) => (LocalFailure::WorkloadRefused(status), workload::is_busy(status)),
            Outcome::CutOff => (LocalFailure::WorkloadUnreachable, true),
            Outcome::Absent => (LocalFailure::WorkloadUnreachable, false),
        };
        self.last = Some(failure);
        if !passes || self.made >= TRIES {
            return Next::Fail(failure);
        }
        let longest = PAUSE_MS.wrapping_shl(u32::from(self.made.saturating_sub(1)));
        Next::Repeat(span(u64::from(scale(word, longest >> 1, longest))))
    }

    /// Returns the failure to report when the time for all tries is up.
    #[must_use]
    pub fn overdue(&self) -> LocalFailure {
        self.last.unwrap_or(LocalFailure::WorkloadUnreachable)
    }
}

/// The state of the service's roots: their age, and whether a certificate of the gateway did not chain to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    named: Option<Instant>,
    doubted: bool,
}

impl Trust {
    /// Begins without roots.
    #[must_use]
    pub const fn new() -> Self {
        Self { named: None, doubted: false }
    }

    /// Records an answer with roots.
    pub fn named(&mut self, now: Instant) {
        *self = Self { named: Some(now), doubted: false };
    }

    /// Records that a gateway's certificate was not trusted: the Edge device may have renewed its own.
    pub fn doubt(&mut self, failure: TlsFailure) {
        let about_roots = matches!(
            failure,
            TlsFailure::UnknownIssuer
                | TlsFailure::BadCertificate
                | TlsFailure::BadSignature
                | TlsFailure::Expired
                | TlsFailure::NotYetValid
        );
        self.doubted |= about_roots;
    }

    /// Returns whether the roots must be read before the next connection.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.doubted || self.named.is_none_or(|named| now.since(named) >= ROOTS_LIFE)
    }

    /// Returns whether to use the cached roots if the service does not answer: they are only old.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.named.is_some() && !self.doubted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_service_is_asked_again_with_pauses_that_have_a_floor_are_drawn_and_widen() {
        let mut tries = Tries::new();
        let widths = [50, 100, 200, 400, 800];
        for width in widths {
            let (mut other, outcome) = (tries, Outcome::CutOff);
            assert_eq!(other.after(outcome, 0), Next::Repeat(Duration::from_millis(width / 2)));
            assert_eq!(tries.after(outcome, u32::MAX), Next::Repeat(Duration::from_millis(width)));
        }
        assert_eq!(tries.after(Outcome::Answered(503), 0), Next::Fail(LocalFailure::WorkloadRefused(503)));
        assert_eq!(widths.len() + 1, usize::from(TRIES));
    }

    #[test]
    fn other_outcomes_are_final_and_the_last_one_is_told_when_time_is_up() {
        let refused = LocalFailure::WorkloadRefused;
        let table = [
            (Outcome::Answered(200), Next::Read),
            (Outcome::Answered(201), Next::Read),
            (Outcome::Answered(403), Next::Fail(refused(403))),
            (Outcome::Answered(500), Next::Fail(refused(500))),
            (Outcome::Absent, Next::Fail(LocalFailure::WorkloadUnreachable)),
        ];
        for (outcome, next) in table {
            assert_eq!(Tries::new().after(outcome, 7), next);
        }
        let mut tries = Tries::new();
        assert_eq!(tries.overdue(), LocalFailure::WorkloadUnreachable);
        tries.after(Outcome::Answered(429), 7);
        assert_eq!(tries.overdue(), refused(429));
    }

    #[test]
    fn roots_are_asked_for_when_unknown_old_or_in_doubt_and_hold_while_merely_old() {
        let now = |secs: u64| Instant::from_millis(secs * 1000);
        let mut trust = Trust::new();
        assert!(trust.is_due(now(5)) && !trust.holds());
        trust.named(now(5));
        assert!(!trust.is_due(now(5 + 3599)) && trust.holds());
        assert!(trust.is_due(now(5 + 3600)) && trust.holds());
        trust.named(now(4000));
        for failure in [TlsFailure::WrongName, TlsFailure::Revoked, TlsFailure::Incompatible, TlsFailure::Handshake] {
            trust.doubt(failure);
            assert!(!trust.is_due(now(4001)), "{failure} says nothing of the roots");
        }
        // A recreated authority of a gateway has the known root's name and another key.
        for failure in [TlsFailure::UnknownIssuer, TlsFailure::BadSignature] {
            trust.named(now(4000));
            trust.doubt(failure);
            assert!(trust.is_due(now(4001)) && !trust.holds());
        }
        trust.named(now(4002));
        assert!(!trust.is_due(now(4003)) && trust.holds());
    }
}
