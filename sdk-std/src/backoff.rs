//! The link's schedule for an application's own retries, through the trait of the crate `backoff`.

use std::fmt;
use std::time::Duration;

use steadfast_core::retry::Backoff;
use steadfast_core::{Failure, RetryPolicy};

use crate::build_error::BuildError;
use crate::{clock, tls};

/// Gives an application's own retries, such as HTTP requests, the delays of a link's connection attempts.
///
/// It implements the trait `Backoff` of the crate `backoff`, version 0.4, which is unmaintained: for code that already
/// uses it. It never gives up.
///
/// ```
/// use backoff::backoff::Backoff;
/// use std::time::Duration;
/// use steadfast::{LinkBackoff, RetryPolicy};
///
/// let mut pace = LinkBackoff::new(RetryPolicy::DEFAULT)?;
/// // After the first failure: at least half the minimum of one second.
/// let delay = pace.next_backoff();
/// assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&delay.unwrap_or_default()));
/// # Ok::<(), steadfast::BuildError>(())
/// ```
pub struct LinkBackoff {
    policy: RetryPolicy,
    state: Backoff,
    /// The source of the jitter.
    random: u64,
}

impl LinkBackoff {
    /// Begins a back-off: the first failure is about to be reported.
    ///
    /// # Errors
    /// [`BuildError::NoRandomness`].
    pub fn new(policy: RetryPolicy) -> Result<Self, BuildError> {
        let mut random = [0; 8];
        tls::provider().secure_random.fill(&mut random).map_err(|_| BuildError::NoRandomness)?;
        Ok(Self { policy, state: Backoff::new(clock::now()), random: u64::from_le_bytes(random) })
    }

    /// Returns the delay after this failure, whose kind chooses the curve.
    ///
    /// [`next_backoff`](backoff::backoff::Backoff::next_backoff) treats every failure as an unreachable service.
    pub fn failed(&mut self, failure: Failure) -> Duration {
        let word = self.word();
        self.state.failed(failure, false, &self.policy, word, clock::now())
    }

    /// Draws a word (splitmix64).
    fn word(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [.., a, b, c, d] = mixed.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl backoff::backoff::Backoff for LinkBackoff {
    fn reset(&mut self) {
        self.state.reset(clock::now());
    }

    fn next_backoff(&mut self) -> Option<Duration> {
        Some(self.failed(Failure::Network))
    }
}

impl fmt::Debug for LinkBackoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkBackoff").field("policy", &self.policy).field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backoff::backoff::Backoff as _;

    #[test]
    fn failures_keep_to_the_curves_of_the_link() {
        let mut pace = LinkBackoff::new(RetryPolicy::DEFAULT).unwrap();
        let (half, whole) = (Duration::from_millis(500), Duration::from_secs(1));
        let delays: Vec<_> = (0..20).filter_map(|_| pace.next_backoff()).collect();
        assert_eq!(delays.len(), 20);
        assert!(delays.iter().all(|delay| (half..=whole).contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]), "jitter is drawn each time");
        assert!(pace.failed(Failure::ConnectRefused(5)) >= Duration::from_secs(30));
        pace.reset();
        assert!(pace.next_backoff().unwrap() <= whole);
    }
}
