//! Who plays a scenario, and how the plays are shared out over the cores.

use crate::dice::Dice;
use crate::fleet::{LOSS, Outcome, Scenario, run};
use crate::ours::Ours;
use crate::peers::{Peer, PeerDevice, PeerSettings};
use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use steadfast_core::dps::topics::GLOBAL_HOST;
use steadfast_core::{Config, Credential, RetryPolicy, Service};

/// The policy a fleet follows.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are a handful of them")]
pub(crate) enum Player {
    /// The real link.
    Ours {
        name: String,
        config: Config<&'static str>,
        /// The hint the devices know.
        hint: Option<Duration>,
        /// The move that is ordered just before the loss.
        planned: Option<Duration>,
    },
    /// Another client's policy.
    Peer(PeerSettings),
}

impl Player {
    /// The real link with its defaults.
    pub(crate) fn ours() -> Self {
        Self::Ours { name: "steadfast".into(), config: config(), hint: None, planned: None }
    }

    /// The real link with this back-off.
    pub(crate) fn preset(name: &str, retry: RetryPolicy) -> Self {
        let mut config = config();
        config.session.retry = retry;
        Self::Ours { name: name.into(), config, hint: None, planned: None }
    }

    /// The same with a hint.
    pub(crate) fn hinted(self, secs: f64) -> Self {
        match self {
            Self::Ours { name, config, planned, .. } => {
                Self::Ours { name: format!("{name}, hint"), config, hint: Some(Duration::from_secs_f64(secs)), planned }
            }
            Self::Peer(_) => self,
        }
    }

    /// The same with a planned move.
    pub(crate) fn planned(self, secs: f64) -> Self {
        match self {
            Self::Ours { name, config, hint, .. } => Self::Ours {
                name: format!("{name}, planned move"),
                config,
                hint,
                planned: Some(Duration::from_secs_f64(secs)),
            },
            Self::Peer(_) => self,
        }
    }

    /// The same in a fleet that is provisioned.
    pub(crate) fn provisioned(self) -> Self {
        match self {
            Self::Ours { name, mut config, hint, planned } => {
                config.service =
                    Service::Provisioned { host: GLOBAL_HOST, id_scope: "0ne00000000", registration_id: "device" };
                Self::Ours { name, config, hint, planned }
            }
            Self::Peer(settings) => Self::Peer(PeerSettings { provision_after: Some(10), ..settings }),
        }
    }

    /// A peer that waits 10 s for a SYN and this long for CONNACK.
    pub(crate) const fn peer(peer: Peer, connack_secs: u32) -> Self {
        Self::Peer(PeerSettings {
            peer,
            connect_ms: 10_000,
            connack_ms: connack_secs.saturating_mul(1_000),
            provision_after: None,
        })
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Ours { name, .. } => name,
            Self::Peer(settings) => settings.peer.name(),
        }
    }

    /// Plays a scenario.
    pub(crate) fn play(&self, scenario: &Scenario, seed: u64, watch: &mut dyn FnMut(u32, u32)) -> Outcome {
        match self {
            Self::Ours { config, hint, planned, .. } => {
                if matches!(config.service, Service::Provisioned { .. }) {
                    let make = |dice: &mut Dice| Ours::provisioned(config, dice).settled(LOSS, *hint, *planned, dice);
                    return run(scenario, seed, make, watch);
                }
                let make = |dice: &mut Dice| Ours::direct(config, dice).settled(LOSS, *hint, *planned, dice);
                run(scenario, seed, make, watch)
            }
            Self::Peer(settings) => run(scenario, seed, |_| PeerDevice::settled(settings), watch),
        }
    }
}

/// The configuration of the simulated devices: the defaults, with a certificate and without pings during a run.
fn config() -> Config<&'static str> {
    let hub = Service::Hub { host: "west.azure-devices.net", device_id: "device" };
    let mut config = Config::new(hub, Credential::Certificate);
    config.session.keep_alive = Duration::from_secs(1_177);
    config
}

/// One run: policy, scenario and seed.
pub(crate) type Play<'p> = (&'p Player, Scenario, u64);

/// Runs all on `threads` threads and returns the outcomes in order; `watch` is called with the number done.
pub(crate) fn play_all(plays: &[Play<'_>], threads: usize, watch: &(dyn Fn(usize) + Sync)) -> Vec<Outcome> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let outcomes: Vec<Mutex<Outcome>> = plays.iter().map(|_| Mutex::default()).collect();
    // The longest first, so that the threads end together.
    let mut order: Vec<usize> = (0..plays.len()).collect();
    order.sort_by_key(|place| core::cmp::Reverse(plays[*place].1.devices));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, plays.len().max(1)) {
            scope.spawn(|| {
                while let Some(place) = order.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let (player, scenario, seed) = &plays[place];
                    let outcome = player.play(scenario, *seed, &mut |_, _| {});
                    *outcomes[place].lock().unwrap_or_else(PoisonError::into_inner) = outcome;
                    watch(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    outcomes.into_iter().map(|outcome| outcome.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{BUCKET, FOOTPRINT, Figures};
    use crate::fleet::footprint;
    use crate::service::Model;

    fn play(player: &Player, scenario: &Scenario, seed: u64) -> Outcome {
        player.play(scenario, seed, &mut |_, _| {})
    }

    #[test]
    fn a_seed_gives_the_same_run_and_another_one_another() {
        let scenario = Scenario::outage(1_000, 100.0, 5.0, BUCKET);
        for player in [Player::ours(), Player::peer(Peer::FullJitter, 10)] {
            let runs = [1, 1, 2].map(|seed| play(&player, &scenario, seed));
            assert_eq!(runs[0].back_ms, runs[1].back_ms);
            assert_eq!(runs[0].attempts, runs[1].attempts);
            assert_ne!(runs[0].back_ms, runs[2].back_ms);
        }
    }

    #[test]
    fn every_device_comes_back_in_every_model() {
        let models = [BUCKET, Model::Costly { cost: 0.1 }, Model::Queue { burst_secs: 0.0, secs: 30.0 }, Model::Open];
        for scenario in models.map(|model| Scenario::outage(2_000, 200.0, 5.0, model)) {
            for player in [Player::ours(), Player::ours().hinted(220.0), Player::ours().planned(220.0)] {
                let outcome = play(&player, &scenario, 1);
                assert!(outcome.back_secs(1.0).is_some_and(|secs| secs < 600.0), "{} {scenario:?}", player.name());
            }
        }
    }

    #[test]
    fn a_throttled_hub_sends_nobody_to_the_provisioning_service() {
        let scenario = Scenario { dps_rate: Some(1.0), ..Scenario::outage(2_000, 200.0, 5.0, BUCKET) };
        assert_eq!(play(&Player::ours().provisioned(), &scenario, 1).registrations, (0, 0));
        let peer = Player::peer(Peer::AzureC, 10).provisioned();
        assert!(play(&peer, &scenario, 1).registrations.0 > 0);
    }

    #[test]
    fn a_fleet_that_moved_registers_once_and_arrives() {
        let mut scenario = Scenario::outage(500, 50.0, 5.0, BUCKET);
        scenario.dps_rate = Some(5.0);
        scenario.moved = true;
        scenario.horizon_ms = 3_600_000;
        let outcome = play(&Player::ours().provisioned(), &scenario, 1);
        let figures = Figures::of(core::slice::from_ref(&outcome), &scenario);
        assert!(figures.all.is_some() && figures.registrations < 1.1, "{figures:?}");
    }

    #[test]
    fn a_device_takes_no_more_memory_than_stated() {
        assert!(footprint() <= FOOTPRINT, "{}", footprint());
    }
}
