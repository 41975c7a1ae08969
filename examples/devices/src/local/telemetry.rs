//! Stops the hub for a while, and checks the order in which messages arrive.

use std::collections::HashSet;
use std::time::Duration;

use hub_emulator::Receipt;

use super::{DEVICE, Local, ensure};
use crate::{Outcome, say};

/// Plays the cloud for a device that numbers its messages in `seq` and names their `kind`.
///
/// # Errors
/// If an alarm did not overtake the backlog, a message lost its properties, or an expected result is missing.
pub async fn telemetry(local: &Local) -> Outcome {
    local.more_messages(5).await?;
    say("cloud", "stops the hub for 3 seconds");
    local.hub().down()?;
    let before = local.emulator.ledger().messages(DEVICE).iter().filter_map(seq).max().unwrap_or(0);
    tokio::time::sleep(Duration::from_secs(3)).await;
    local.hub().up()?;
    say("cloud", "the hub is back");
    // All messages but alarms arrive in order: once a newer one than the alarm has arrived, so has the whole backlog.
    let backlog_is_in = |messages: &[Receipt]| {
        let newest = messages.iter().filter(|message| !is_alarm(message)).filter_map(seq).max();
        overtaken(messages, before).is_some_and(|(alarm, _)| newest > Some(alarm))
    };
    local.until("an alarm and the backlog arrive", |ledger| backlog_is_in(&ledger.messages(DEVICE))).await?;

    let messages = local.emulator.ledger().messages(DEVICE);
    let (alarm, older) = overtaken(&messages, before).unwrap_or_default();
    say("cloud", format_args!("alarm {alarm} came before {older} older messages"));
    let described = |message: &Receipt| {
        message.content_type() == Some("application/json") && message.content_encoding() == Some("utf-8")
    };
    ensure(messages.iter().all(described), "a message does not say that it is JSON")?;
    let arrived: HashSet<u64> = messages.iter().filter_map(seq).collect();
    let outdated = (before..alarm).filter(|seq| !arrived.contains(seq)).count();
    say("cloud", format_args!("{outdated} live values were outdated when the hub was back, and did not come"));
    ensure(outdated > 0, "no message expired in an outage that was longer than its expiry")
}

fn seq(message: &Receipt) -> Option<u64> {
    message.property("seq")?.parse().ok()
}

fn is_alarm(message: &Receipt) -> bool {
    message.property("kind") == Some("alarm")
}

/// Finds the alarm after `before` that overtook most messages; returns its number and how many older messages arrived
/// after it.
fn overtaken(messages: &[Receipt], before: u64) -> Option<(u64, usize)> {
    let mut seen = HashSet::new();
    let first: Vec<_> = messages
        .iter()
        .filter_map(|message| Some((seq(message)?, is_alarm(message))))
        .filter(|(seq, _)| seen.insert(*seq))
        .collect();
    let alarms = first.iter().enumerate().filter(|(_, (seq, alarm))| *alarm && *seq > before);
    let older = alarms.map(|(place, (alarm, _))| {
        let after = first.iter().skip(place).filter(|(seq, _)| seq < alarm);
        (*alarm, after.count())
    });
    older.filter(|(_, count)| *count > 0).max_by_key(|(_, count)| *count)
}
