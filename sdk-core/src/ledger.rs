//! The ledger of a link: the outcomes of all accepted messages.

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
    /// Messages that expired before an acknowledgement. One that had been sent may have arrived nevertheless.
    pub expired: u64,
    /// Messages evicted to make room for newer ones.
    pub evicted: u64,
    /// Messages dead-lettered because the service does not accept them.
    pub rejected: u64,
    /// Messages that were never accepted, for lack of room or because of their size; not part of the balance.
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
