//! The books of a link: what became of every message it accepted.

/// Counts of messages; at every instant [`Ledger::balances`] holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// Messages [`crate::Link::publish`] took, and messages the outbox brought along from before.
    pub accepted: u64,
    /// Messages the service acknowledged.
    pub delivered: u64,
    /// Messages that wait, or are in flight.
    pub queued: u64,
    /// Messages whose time ran out before an acknowledgement. One that had been sent may have arrived all the same.
    pub expired: u64,
    /// Messages that made room for newer ones.
    pub evicted: u64,
    /// Messages set aside because the service does not take them.
    pub rejected: u64,
    /// Messages that were never accepted because there was no room or they were too large; not part of the balance.
    pub refused: u64,
    /// Publishes sent again after a reconnection; not part of the balance.
    pub resent: u64,
}

impl Ledger {
    /// Returns whether every accepted message is accounted for.
    #[must_use]
    pub const fn balances(&self) -> bool {
        self.accepted
            == self
                .delivered
                .saturating_add(self.queued)
                .saturating_add(self.expired)
                .saturating_add(self.evicted)
                .saturating_add(self.rejected)
    }
}
