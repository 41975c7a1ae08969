//! Compares the devices' ledgers with the service's.

use std::collections::HashMap;

use hub_emulator::Ledger;

use crate::Options;
use crate::pump::Account;

/// Most devices with a line of their own in the table.
const SHOWN: usize = 10;

/// Prints the table and the result; returns whether nothing was lost, reordered or reported too early.
pub(crate) fn judge(accounts: &[Account], service: &Ledger, options: &Options) -> bool {
    println!("\n  device     accepted delivered   lost reordered  again attempts registrations ledger");
    let mut sum = Findings::default();
    for (place, account) in accounts.iter().enumerate() {
        let found = Findings::of(account, service);
        if place < SHOWN {
            let books = if account.ledger.balances() { "balance" } else { "DO NOT BALANCE" };
            println!(
                "  {:<10} {:>8} {:>9} {:>6} {:>9} {:>6} {:>8} {:>13}  {books}",
                account.name,
                account.ledger.accepted,
                account.ledger.delivered,
                found.lost,
                found.reordered,
                found.again,
                account.attempts,
                account.registrations,
            );
        }
        sum.add(&found);
    }
    if accounts.len() > SHOWN {
        println!("  and {} devices more", accounts.len() - SHOWN);
    }
    println!();
    let mut well = true;
    for (holds, text) in [
        (sum.accepted > 0 && sum.unaccounted == 0, format!("{} messages accepted, each accounted for", sum.accepted)),
        (sum.lost == 0, format!("{} lost", sum.lost)),
        (sum.reordered == 0, format!("{} out of order", sum.reordered)),
        (sum.early == 0, format!("{} reported before the hub's acknowledgement", sum.early)),
        (
            sum.again <= sum.most_again,
            format!(
                "{} came again, always with the same message id (a window per reconnection allows {})",
                sum.again, sum.most_again
            ),
        ),
    ] {
        println!("  {} {text}", if holds { "ok  " } else { "FAIL" });
        well &= holds;
    }
    println!("\n{} (seed {})", if well { "Nothing was lost." } else { "The promise was broken." }, options.seed);
    well
}

/// The result of the comparison for one device, or all.
#[derive(Default)]
struct Findings {
    accepted: u64,
    /// Accepted and neither delivered nor queued nor dropped, or dropped without a configured reason.
    unaccounted: u64,
    lost: u64,
    reordered: u64,
    again: u64,
    most_again: u64,
    /// Reported as delivered before the service had acknowledged them.
    early: u64,
}

impl Findings {
    fn of(account: &Account, service: &Ledger) -> Self {
        let books = account.ledger;
        let sequence = service.check_sequence(&account.name, 0..account.sent);
        let ids = account.told.iter().map(|told| told.id.to_string());
        let delivery = service.check(&account.name, ids);
        let mut acknowledged = HashMap::new();
        for receipt in service.receipts(&account.name) {
            if let (Some(id), Some(at)) = (receipt.message_id, receipt.acknowledged_at) {
                acknowledged.entry(id).or_insert(at);
            }
        }
        let early = account
            .told
            .iter()
            .filter(|told| told.delivered && acknowledged.get(&told.id.to_string()).is_none_or(|at| *at > told.at));
        let dropped = books.expired + books.evicted + books.rejected + books.queued;
        let unaccounted = u64::from(!books.balances())
            + dropped
            + books.accepted.abs_diff(account.sent)
            + account.told.iter().filter(|told| !told.delivered).count() as u64;
        Self {
            accepted: books.accepted,
            unaccounted,
            lost: sequence.lost_count.max(delivery.lost.len() as u64),
            reordered: sequence.reordered.max(delivery.reordered.len() as u64),
            again: delivery.duplicates(),
            most_again: u64::from(account.attempts) * u64::from(WINDOW),
            early: early.count() as u64,
        }
    }

    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.unaccounted += other.unaccounted;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.again += other.again;
        self.most_again += other.most_again;
        self.early += other.early;
    }
}

/// The default window of `steadfast`.
const WINDOW: u16 = 100;
