//! The outcome of a message.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use steadfast_core::{DropReason, MessageId};

use crate::shared::Shared;

/// Why an accepted message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryError {
    /// Its time ran out. It may have arrived all the same, if it had been sent before.
    Expired,
    /// It was evicted to make room for a newer one.
    Evicted,
    /// It was dead-lettered, since every connection on which it was sent ended.
    Rejected,
    /// The link was stopped while the message was queued: [`crate::Device::queued`] still has it.
    StillQueued,
    /// The driver was dropped while the message was queued: [`crate::Device::queued`] still has it.
    DriverDropped,
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the message expired before it was delivered",
            Self::Evicted => "the message was evicted to make room for a newer one",
            Self::Rejected => "the message was dead-lettered: every connection on which it was sent ended",
            Self::StillQueued => "the link was stopped while the message was queued",
            Self::DriverDropped => "the driver was dropped while the message was queued",
        })
    }
}

impl std::error::Error for DeliveryError {}

impl From<DropReason> for DeliveryError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a reason that a later version adds counts as rejected")]
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::Expired => Self::Expired,
            DropReason::Evicted => Self::Evicted,
            _ => Self::Rejected,
        }
    }
}

/// A future for the outcome of an accepted message.
///
/// Await it, or [`delivered`](Self::delivered), for the one outcome: `Ok` once the service has acknowledged the message.
/// Dropping the receipt changes nothing for the message.
#[derive(Debug)]
#[must_use = "dropping the receipt gives up learning whether the message was delivered"]
pub struct Receipt {
    shared: Arc<Shared>,
    id: MessageId,
    outcome: Option<Result<(), DeliveryError>>,
}

impl Receipt {
    pub(crate) const fn new(shared: Arc<Shared>, id: MessageId) -> Self {
        Self { shared, id, outcome: None }
    }

    /// Returns the message's id, which the service sees as its `$.mid`, in hexadecimal.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.id
    }

    /// Waits for the outcome. To wait beside other work and keep the receipt, await `&mut receipt`.
    ///
    /// # Errors
    /// [`DeliveryError`] tells why the message was not delivered.
    pub async fn delivered(mut self) -> Result<(), DeliveryError> {
        (&mut self).await
    }

    /// Returns the outcome if it is known.
    pub fn outcome(&mut self) -> Option<Result<(), DeliveryError>> {
        if self.outcome.is_none() {
            self.outcome = self.shared.lock().receipts.claim(self.id, None);
        }
        self.outcome
    }
}

impl Future for Receipt {
    type Output = Result<(), DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.outcome.is_none() {
            let outcome = self.shared.lock().receipts.claim(self.id, Some(cx.waker()));
            self.outcome = outcome;
        }
        if self.outcome.is_none() {
            self.shared.expect_driver();
        }
        self.outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            self.shared.lock().receipts.forget(self.id);
        }
    }
}

/// The receipts that still wait for their outcome.
#[derive(Debug, Default)]
pub(crate) struct Receipts(HashMap<u64, Claim, BuildHasherDefault<IdHasher>>);

#[derive(Debug)]
enum Claim {
    Open(Option<Waker>),
    Settled(Result<(), DeliveryError>),
}

/// Capacity up to which an empty table is kept.
const KEPT_CLAIMS: usize = 64;

impl Receipts {
    pub(crate) fn insert(&mut self, id: MessageId) {
        self.0.insert(id.get(), Claim::Open(None));
    }

    /// Notes the outcome; returns who waits for it.
    pub(crate) fn settle(&mut self, id: MessageId, outcome: Result<(), DeliveryError>) -> Option<Waker> {
        let claim = self.0.get_mut(&id.get())?;
        match std::mem::replace(claim, Claim::Settled(outcome)) {
            Claim::Open(waker) => waker,
            Claim::Settled(first) => {
                *claim = Claim::Settled(first);
                None
            }
        }
    }

    /// Settles all that are open.
    pub(crate) fn settle_all(&mut self, outcome: Result<(), DeliveryError>, wakes: &mut Vec<Waker>) {
        for claim in self.0.values_mut() {
            if let Claim::Open(waker) = claim {
                wakes.extend(waker.take());
                *claim = Claim::Settled(outcome);
            }
        }
    }

    /// Takes the outcome, or leaves word to be woken.
    fn claim(&mut self, id: MessageId, waker: Option<&Waker>) -> Option<Result<(), DeliveryError>> {
        match self.0.get_mut(&id.get()) {
            Some(Claim::Open(waiting)) => {
                if let Some(waker) = waker {
                    match waiting {
                        Some(waiting) => waiting.clone_from(waker),
                        None => *waiting = Some(waker.clone()),
                    }
                }
                None
            }
            Some(Claim::Settled(outcome)) => {
                let outcome = *outcome;
                self.forget(id);
                Some(outcome)
            }
            // Every live receipt without an outcome has its claim.
            None => Some(Err(DeliveryError::DriverDropped)),
        }
    }

    fn forget(&mut self, id: MessageId) {
        self.0.remove(&id.get());
        if self.0.is_empty() && self.0.capacity() > KEPT_CLAIMS {
            self.0 = HashMap::default();
        }
    }
}

/// Message ids are consecutive and not chosen by anybody outside: a multiplication distributes them well enough.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, section 6.4).
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_given_once_and_the_first_one_counts() {
        let mut receipts = Receipts::default();
        let id = MessageId::new(5);
        receipts.insert(id);
        assert_eq!(receipts.claim(id, Some(Waker::noop())), None);
        assert!(receipts.settle(id, Ok(())).is_some());
        assert!(receipts.settle(id, Err(DeliveryError::Expired)).is_none());
        assert_eq!(receipts.claim(id, None), Some(Ok(())));
        assert!(receipts.0.is_empty());
    }

    #[test]
    fn receipts_nobody_holds_are_not_kept() {
        let mut receipts = Receipts::default();
        for id in 0..1000 {
            receipts.insert(MessageId::new(id));
        }
        for id in 0..1000 {
            receipts.forget(MessageId::new(id));
            assert!(receipts.settle(MessageId::new(id), Ok(())).is_none());
        }
        assert_eq!(receipts.0.capacity(), 0);
    }
}
