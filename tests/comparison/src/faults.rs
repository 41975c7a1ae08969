//! The faults, and what came of them.

use std::collections::HashSet;
use std::time::Duration;

use hub_emulator::{DeviceAuth, Emulator, Fault, Injection, Key};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::peer::{Peer, Setup};

/// A fault of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    Cut,
    Outage,
    Moved,
    Rotated,
    Desired,
}

pub(crate) const TRIALS: [Trial; 5] = [Trial::Cut, Trial::Outage, Trial::Moved, Trial::Rotated, Trial::Desired];

/// Longest wait for a device to be well again.
const PATIENCE: Duration = Duration::from_secs(180);

/// What came of a trial.
#[derive(Clone, Debug)]
pub(crate) struct Score {
    /// From the end of the fault until every message was stored, or the change was seen.
    pub(crate) recovered: Option<Duration>,
    pub(crate) sent: u64,
    /// Messages that the hub does not have.
    pub(crate) lost: u64,
    /// Of those, the ones the application was told of.
    pub(crate) told_lost: u64,
    /// Messages the hub has more than once, each further time.
    pub(crate) duplicated: u64,
    /// Connections the device made after the fault began.
    pub(crate) attempts: usize,
}

impl Trial {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Outage => "outage",
            Self::Moved => "moved",
            Self::Rotated => "rotated",
            Self::Desired => "desired",
        }
    }

    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Cut => "link cut between PUBLISH and PUBACK, three times in 30 messages",
            Self::Outage => "hub out of reach for 30 s, 200 messages handed over meanwhile",
            Self::Moved => "device moved to another hub by DPS, 20 messages handed over meanwhile",
            Self::Rotated => "primary key replaced, secondary key still valid, 20 messages handed over meanwhile",
            Self::Desired => "desired property changed while the hub is out of reach for 10 s",
        }
    }

    /// The hub of this trial for a peer, and the one it moves to.
    pub(crate) fn hubs(self, peer: &str) -> [String; 2] {
        ["a", "b"].map(|which| format!("{}-{peer}-{which}.azure-devices.net", self.name()))
    }

    /// Lets the peer meet the fault.
    pub(crate) async fn run(self, emulator: &Emulator, setup: &Setup, mut peer: Peer, second: &Key) -> Score {
        let control = emulator.control();
        let [home, other] = [&setup.hub, &setup.hub.replace("-a.", "-b.")];
        let hub = emulator.hub(home);
        let cloud = hub.device(&setup.device);
        let connected = peer.wait(Duration::from_secs(60), |told| told.connected).await;
        assert!(connected.is_some(), "{self:?}: {} did not connect to begin with", setup.device);
        peer.send(5).await;
        peer.wait(Duration::from_secs(60), |told| told.messages.len() == 5).await;
        let known = peer.told(|told| told.desired);
        let began = control.now();
        let (mut sent, mut wanted) = (5, None);
        match self {
            Self::Cut => {
                for after in [3, 10, 17] {
                    cloud.inject(Injection::once(Fault::DropAfterStoreBeforePuback).after(after));
                }
                for _ in 0..30 {
                    peer.send(1).await;
                    sleep(Duration::from_millis(100)).await;
                }
                sent += 30;
            }
            Self::Outage => {
                hub.down().expect("the hub is up");
                peer.send(200).await;
                sent += 200;
                sleep(Duration::from_secs(30)).await;
                hub.up().expect("the hub is down");
            }
            Self::Moved => {
                control.move_device(&setup.device, home, other).expect("the device is there");
                peer.send(20).await;
                sent += 20;
            }
            Self::Rotated => {
                let primary = Key::from_seed("a new primary key");
                cloud.set_auth(DeviceAuth::Keys { primary, secondary: Some(second.clone()) }).expect("it is there");
                peer.send(20).await;
                sent += 20;
            }
            Self::Desired => {
                hub.down().expect("the hub is up");
                sleep(Duration::from_secs(5)).await;
                wanted = Some(cloud.set_desired(&json!({"interval": 30})).expect("it is there"));
                sleep(Duration::from_secs(5)).await;
                hub.up().expect("the hub is down");
                assert!(wanted > Some(known), "a new version");
            }
        }
        let start = Instant::now();
        let stored = || -> u64 {
            let messages = emulator.ledger().messages(&setup.device);
            let ids: HashSet<_> = messages.iter().filter_map(|message| message.message_id.clone()).collect();
            ids.len() as u64
        };
        let well = || stored() >= sent && wanted.is_none_or(|wanted| peer.told(|told| told.desired >= wanted));
        let mut recovered = None;
        while start.elapsed() < PATIENCE {
            if well() {
                recovered = Some(start.elapsed());
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        // Repetitions may still be on their way.
        sleep(Duration::from_secs(5)).await;
        let lost = sent.saturating_sub(stored());
        let told_lost = peer.told(|told| told.messages.values().filter(|error| error.is_some()).count()) as u64;
        let receipts = emulator.ledger().messages(&setup.device).len() as u64;
        let connections = emulator.ledger().connections();
        let attempts = connections
            .iter()
            .filter(|one| one.device.as_deref() == Some(setup.device.as_str()) && one.opened_at >= began)
            .count();
        peer.end().await;
        let duplicated = receipts - (sent - lost);
        Score { recovered, sent, lost, told_lost: told_lost.min(lost), duplicated, attempts }
    }
}
