//! Admission models of a hub and of the provisioning service.

use crate::dice::Dice;

/// How a hub admits connections. The real one is not published: B and C are stress models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Model {
    /// Admits every device immediately.
    Open,
    /// A: a token bucket; connections above it are refused at no cost.
    Bucket {
        /// Seconds of the rate that the bucket holds.
        burst_secs: f64,
    },
    /// B: a refusal costs this part of an admission, and without that the SYN is dropped.
    Costly {
        /// The part.
        cost: f64,
    },
    /// C: a queue of this many seconds; entries of clients that left are still served.
    Queue {
        /// Burst after a quiet time, in seconds of the rate.
        burst_secs: f64,
        /// Its length in seconds of the rate.
        secs: f64,
    },
}

impl Model {
    /// Returns a description.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Open => "admits every device immediately".into(),
            Self::Bucket { burst_secs } => format!("A, token bucket of {burst_secs} s, refusals are free"),
            Self::Costly { cost } => format!("B, a refusal costs {cost} of an admission"),
            Self::Queue { burst_secs: 0.0, secs } => format!("C, queue of {secs} s"),
            Self::Queue { burst_secs, secs } => format!("C, queue of {secs} s after a burst of {burst_secs} s"),
        }
    }
}

/// The outcome of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Fails before TLS is up, after this many milliseconds.
    Unreachable(u32),
    /// No answer to the SYN.
    Silent,
    /// Closed after TLS was up, after this many milliseconds.
    Refused(u32),
    /// Accepted, after this many milliseconds.
    Accepted(u32),
}

/// A hub.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    model: Model,
    /// Admissions per millisecond.
    rate: f64,
    tokens: f64,
    filled: u32,
    /// When the queue will be empty.
    free_at: f64,
    /// Minimum and maximum latency of an answer, in milliseconds.
    reply_ms: (u32, u32),
}

impl Hub {
    pub(crate) fn new(model: Model, rate_per_sec: f64, reply_ms: (u32, u32), now: u32) -> Self {
        let mut hub =
            Self { model, reply_ms, rate: rate_per_sec / 1000.0, tokens: 0.0, filled: now, free_at: f64::from(now) };
        hub.tokens = hub.capacity();
        hub
    }

    fn capacity(&self) -> f64 {
        match self.model {
            Model::Bucket { burst_secs } => (burst_secs * self.rate * 1000.0).max(1.0),
            Model::Costly { .. } => (self.rate * 1000.0).max(1.0),
            Model::Open | Model::Queue { .. } => 0.0,
        }
    }

    /// Decides on an attempt that arrives at `now`, while the hub is in service.
    pub(crate) fn arrive(&mut self, now: u32, dice: &mut Dice) -> Verdict {
        let answer = dice.span(self.reply_ms);
        self.tokens = (self.tokens + f64::from(now - self.filled) * self.rate).min(self.capacity());
        self.filled = now;
        match self.model {
            Model::Open => Verdict::Accepted(answer),
            Model::Bucket { .. } if self.tokens >= 1.0 => {
                self.tokens -= 1.0;
                Verdict::Accepted(answer)
            }
            Model::Bucket { .. } => Verdict::Refused(answer),
            Model::Costly { .. } if self.tokens >= 1.0 => {
                self.tokens -= 1.0;
                Verdict::Accepted(answer)
            }
            Model::Costly { cost } if self.tokens >= cost => {
                self.tokens -= cost;
                Verdict::Refused(answer)
            }
            Model::Costly { .. } => Verdict::Silent,
            Model::Queue { burst_secs, secs } => {
                let start = self.free_at.max(f64::from(now));
                let wait = start - f64::from(now) - burst_secs * 1000.0;
                if wait > secs * 1000.0 {
                    return Verdict::Refused(answer);
                }
                self.free_at = start + 1.0 / self.rate;
                Verdict::Accepted(((wait + 1.0 / self.rate) as u32).max(answer))
            }
        }
    }
}

/// The provisioning service: a token bucket of one second, refusals with 429 and a retry-after.
#[derive(Clone, Debug)]
pub(crate) struct Dps {
    rate: f64,
    tokens: f64,
    filled: u32,
    /// Registrations it took; each is billed.
    pub(crate) taken: u64,
    /// Registrations it refused.
    pub(crate) refused: u64,
}

/// Retry-after of the provisioning service's 429, in seconds.
pub(crate) const RETRY_AFTER_SECS: u32 = 5;

/// Seconds from a registration to the assignment.
pub(crate) const ASSIGNING_SECS: u32 = 3;

impl Dps {
    pub(crate) fn new(rate_per_sec: f64, now: u32) -> Self {
        Self { rate: rate_per_sec / 1000.0, tokens: rate_per_sec.max(1.0), filled: now, taken: 0, refused: 0 }
    }

    /// Decides whether a registration at `now` is accepted.
    pub(crate) fn register(&mut self, now: u32) -> bool {
        let capacity = (self.rate * 1000.0).max(1.0);
        self.tokens = (self.tokens + f64::from(now - self.filled) * self.rate).min(capacity);
        self.filled = now;
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
            self.taken += 1;
        } else {
            self.refused += 1;
        }
        taken
    }
}
