//! The targets H1 to H10 of the reconnection policy, measured with the real link.

use crate::contest::{Play, Player, play_all};
use crate::fleet::{Outcome, Scenario, footprint};
use crate::peers::Peer;
use crate::progress::Bar;
use crate::service::Model;
use core::ops::Range;
use core::time::Duration;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// Seeds of every measurement.
const SEEDS: [u64; 3] = [1, 2, 3];

/// The token bucket of model A, of one second.
pub(crate) const BUCKET: Model = Model::Bucket { burst_secs: 1.0 };

/// Most bytes of a simulated device: a million fit into 1.6 GB.
pub(crate) const FOOTPRINT: usize = 1_536;

/// Model B: a refusal costs a tenth of an admission.
pub(crate) const COSTLY: Model = Model::Costly { cost: 0.1 };

/// One target and what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) id: &'static str,
    pub(crate) scenario: String,
    pub(crate) goal: &'static str,
    pub(crate) measured: String,
    pub(crate) peers: String,
    pub(crate) met: bool,
}

/// The runs, and then their outcomes.
#[derive(Default)]
struct Sheet {
    plays: Vec<(Player, Scenario, u64)>,
    outcomes: Vec<Outcome>,
}

/// The plays of one player in one scenario, one of a seed.
type Plays = Range<usize>;

impl Sheet {
    fn add(&mut self, player: Player, scenario: Scenario) -> Plays {
        self.add_seeds(player, scenario, &SEEDS)
    }

    fn add_seeds(&mut self, player: Player, scenario: Scenario, seeds: &[u64]) -> Plays {
        let start = self.plays.len();
        self.plays.extend(seeds.iter().map(|seed| (player.clone(), scenario, *seed)));
        start..self.plays.len()
    }

    /// The two peers every target names, with one seed.
    fn add_peers(&mut self, scenario: Scenario, connack_secs: u32) -> Vec<Plays> {
        let mut add = |peer| {
            let start = self.plays.len();
            self.plays.push((Player::peer(peer, connack_secs), scenario, SEEDS[0]));
            start..start + 1
        };
        vec![add(Peer::AzureC), add(Peer::OperationsRust)]
    }

    fn of(&self, plays: &Plays) -> Figures {
        let scenario = self.plays[plays.start].1;
        Figures::of(&self.outcomes[plays.clone()], &scenario)
    }

    fn peers(&self, peers: &[Plays]) -> String {
        let one = |plays: &Plays| {
            let name = self.plays[plays.start].0.name();
            format!("{name} {}", self.of(plays).text())
        };
        peers.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// Figures of one player in one scenario over the seeds; times in ideal drain times `D` after the return of the hub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Mean over the seeds.
    pub(crate) half: Option<f64>,
    /// Mean over the seeds.
    pub(crate) most: Option<f64>,
    /// The worst seed.
    pub(crate) all: Option<f64>,
    /// Share that came back, of the worst seed.
    pub(crate) returned: f64,
    /// Attempts of a device after the return, mean.
    pub(crate) attempts: f64,
    /// The same at the 99th percentile, of the worst seed.
    pub(crate) attempts_most: u16,
    /// Attempts of a device before the return, mean.
    pub(crate) during: f64,
    /// Peak of arrivals in a second, in admissions per second.
    pub(crate) peak: f64,
    /// Registrations of a device.
    pub(crate) registrations: f64,
    /// Seconds to the return of a device: mean, 99th percentile, and the last one.
    pub(crate) latency: [f64; 3],
}

impl Figures {
    pub(crate) fn of(outcomes: &[Outcome], scenario: &Scenario) -> Self {
        let drain = scenario.ideal_secs();
        let count = outcomes.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / count;
        let worst = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).fold(0.0, f64::max);
        let reached = |share: f64| outcomes.iter().all(|outcome| outcome.back_secs(share).is_some());
        let secs = |share: f64| move |outcome: &Outcome| outcome.back_secs(share).unwrap_or(f64::INFINITY);
        let hit = f64::from(outcomes.first().map_or(1, |outcome| outcome.hit)).max(1.0);
        Self {
            half: reached(0.5).then(|| mean(&secs(0.5)) / drain),
            most: reached(0.99).then(|| mean(&secs(0.99)) / drain),
            all: reached(1.0).then(|| worst(&secs(1.0)) / drain),
            returned: outcomes.iter().map(Outcome::returned).fold(1.0, f64::min),
            attempts: mean(&Outcome::mean_attempts),
            attempts_most: outcomes.iter().map(|outcome| outcome.attempts_quantile(0.99)).max().unwrap_or(0),
            during: mean(&|outcome| outcome.attempts_during as f64) / hit,
            peak: worst(&|outcome| f64::from(outcome.peak())) / scenario.rate,
            registrations: mean(&|outcome| outcome.registrations.0 as f64) / hit,
            latency: [mean(&Outcome::mean_back_secs), worst(&secs(0.99)), worst(&secs(1.0))],
        }
    }

    /// 99 % and 100 % in `D`, and attempts.
    pub(crate) fn text(&self) -> String {
        match (self.most, self.all) {
            (Some(most), Some(all)) => format!("{most:.2}/{all:.2} D, {:.1} attempts", self.attempts),
            (Some(most), None) => format!("{most:.2} D/never, {:.1} attempts", self.attempts),
            (None, _) => format!("never ({:.1} %), {:.1} attempts", self.returned * 100.0, self.attempts),
        }
    }

    /// Whether all came back within this many `D`.
    fn within(&self, most: f64) -> bool {
        self.all.is_some_and(|all| all <= most)
    }
}

/// Measures everything on `threads` threads; the fleets have `devices` devices for targets of a million.
///
/// Returns the time on all processors, too.
pub(crate) fn measure(devices: u32, threads: usize) -> (Vec<Line>, Duration) {
    let small = (devices / 10).max(1_000);
    let tiny = 20_000.min(devices);
    let one = 100_000.min(devices);
    // Three seeds of a tenth, and one of the full size.
    let sizes = [(small, &SEEDS[..]), (devices, &SEEDS[..1])];
    let plain = |count: u32| Scenario::outage(count, 1_000.0, 5.0, BUCKET);
    let ours = Player::ours;
    let mut sheet = Sheet::default();

    let h1 = sheet.add(ours(), plain(devices));
    let h2 = sheet.add(ours().hinted(1_100.0), plain(devices));
    let h3 = sheet.add(ours().planned(1_100.0), plain(devices));
    let quick = |count: u32| Scenario::outage(count, 60.0, 5.0, BUCKET);
    let h4 = sheet.add(ours(), quick(devices));
    let plain_peers = sheet.add_peers(plain(small), 10);
    let quick_peers = sheet.add_peers(quick(devices), 10);
    let costly = |count: u32, outage: f64| Scenario::outage(count, 1_000.0, outage, COSTLY);
    let mut h5 = Vec::new();
    for outage in [5.0, 600.0] {
        let peers = sheet.add_peers(costly(small, outage), 10);
        for (count, seeds) in sizes {
            let hinted = sheet.add_seeds(ours().hinted(1_100.0), costly(count, outage), seeds);
            let plain = sheet.add_seeds(ours(), costly(count, outage), seeds);
            h5.push((outage, count, plain, hinted, peers.clone()));
        }
    }
    let mut h6 = Vec::new();
    for (id, secs, connack) in [("H6", 30.0, 10), ("H6b", 90.0, 60)] {
        let queue = |count: u32| Scenario::outage(count, 1_000.0, 5.0, Model::Queue { burst_secs: 0.0, secs });
        let peers = sheet.add_peers(queue(small), connack);
        for (count, seeds) in sizes {
            let hinted = sheet.add_seeds(ours().hinted(1_100.0), queue(count), seeds);
            let plain = sheet.add_seeds(ours(), queue(count), seeds);
            h6.push((id, secs, connack, count, plain, hinted, peers.clone()));
        }
    }
    let blip = |outage: f64| Scenario { horizon_ms: 2_000_000, ..Scenario::outage(one, 1.0, outage, Model::Open) };
    let h7 = [(10.0, 3.0, 6.0), (120.0, 15.0, 32.0), (3_600.0, 55.0, 125.0)].map(|(outage, mean, most)| {
        (outage, mean, most, sheet.add(ours(), blip(outage)), sheet.add_peers(blip(outage), 10))
    });
    let throttled =
        |outage: f64| Scenario { dps_rate: Some(1_000.0 / 60.0), ..Scenario::outage(tiny, 200.0, outage, BUCKET) };
    let h8 = [5.0, 1_500.0].map(|outage| {
        let scenario = throttled(outage);
        let start = sheet.plays.len();
        sheet.plays.push((Player::peer(Peer::AzureC, 10).provisioned(), scenario, SEEDS[0]));
        (outage, sheet.add(ours().provisioned(), scenario), start..start + 1)
    });
    let mut h9 = Vec::new();
    for wrong in [0.1, 0.5, 1.0, 2.0] {
        for (count, seeds) in sizes {
            h9.push((wrong, count, sheet.add_seeds(ours().hinted(1_000.0 * wrong), plain(count), seeds)));
        }
    }

    let plays: Vec<Play<'_>> = sheet.plays.iter().map(|(player, scenario, seed)| (player, *scenario, *seed)).collect();
    let bar = Mutex::new(Bar::new("bench"));
    let watch = |done: usize| bar.lock().unwrap_or_else(PoisonError::into_inner).show(done, plays.len());
    let outcomes = play_all(&plays, threads, &watch);
    bar.lock().unwrap_or_else(PoisonError::into_inner).clear();
    drop(plays);
    sheet.outcomes = outcomes;

    let mut lines = Vec::new();
    let mut line = |id, scenario: String, goal, measured: String, peers: String, met| {
        lines.push(Line { id, scenario, goal, measured, peers, met });
    };
    let f = sheet.of(&h1);
    let met = f.most.is_some_and(|most| most <= 1.2) && f.within(1.4) && f.attempts <= 9.0;
    line(
        "H1",
        fleet("A, D = 1000 s, T = 5 s, no hint", devices),
        "t99 <= 1.20 D, t100 <= 1.40 D, <= 9 attempts",
        f.text(),
        sheet.peers(&plain_peers),
        met,
    );
    let f = sheet.of(&h2);
    line(
        "H2",
        fleet("the same, hint 1.1 D", devices),
        "t100 <= 1.15 D, <= 2.1 attempts",
        f.text(),
        sheet.peers(&plain_peers),
        f.within(1.15) && f.attempts <= 2.1,
    );
    let f = sheet.of(&h3);
    let peaks = plain_peers
        .iter()
        .map(|plays| format!("{} peak {:.0} R", sheet.plays[plays.start].0.name(), sheet.of(plays).peak));
    line(
        "H3",
        fleet("planned move, 1.1 D", devices),
        "t100 <= 1.15 D, <= 1.05 attempts, peak <= 3 R",
        format!("{}, peak {:.1} R", f.text(), f.peak),
        peaks.collect::<Vec<_>>().join("; "),
        f.within(1.15) && f.attempts <= 1.05 && f.peak <= 3.0,
    );
    let f = sheet.of(&h4);
    line(
        "H4",
        fleet("A, D = 60 s, T = 5 s, no hint", devices),
        "t100 <= 1.25 D, <= 2.2 attempts",
        f.text(),
        sheet.peers(&quick_peers),
        f.within(1.25) && f.attempts <= 2.2,
    );
    for (outage, count, plain, hinted, peers) in &h5 {
        let (f, hint) = (sheet.of(plain), sheet.of(hinted));
        line(
            "H5",
            fleet(&format!("B, c = 0.1, D = 1000 s, T = {outage} s"), *count),
            "t100 <= 2.4 D (hint 1.3 D), <= 12 attempts",
            format!("{}; hint {}", f.text(), hint.text()),
            sheet.peers(peers),
            f.within(2.4) && hint.within(1.3) && f.attempts <= 12.0,
        );
    }
    for (id, secs, connack, count, plain, hinted, peers) in &h6 {
        let (f, hint) = (sheet.of(plain), sheet.of(hinted));
        line(
            id,
            fleet(&format!("C, queue of {secs} s; the peers wait {connack} s for CONNACK"), *count),
            "t100 <= 1.4 D (hint 1.15 D)",
            format!("{}; hint {}", f.text(), hint.text()),
            sheet.peers(peers),
            f.within(1.4) && hint.within(1.15),
        );
    }
    for (outage, mean, most, ours, peers) in &h7 {
        let f = sheet.of(ours);
        let [a, b, c] = f.latency;
        let bound = (outage / 4.0 + 5.0).min(125.0);
        let text = |f: Figures| {
            format!(
                "{:.1}/{:.1}/{:.1} s, {:.1} attempts",
                f.latency[0],
                f.latency[1],
                f.latency[2],
                f.during + f.attempts
            )
        };
        let goal = match *outage as u32 {
            10 => "mean <= 3 s, p99 <= 6 s, max <= 7.5 s",
            120 => "mean <= 15 s, p99 <= 32 s, max <= 35 s",
            _ => "mean <= 55 s, p99 <= 125 s, max <= 125 s",
        };
        let peers =
            peers.iter().map(|plays| format!("{} {}", sheet.plays[plays.start].0.name(), text(sheet.of(plays))));
        line(
            "H7",
            fleet(&format!("one device, T = {outage} s, hub idle"), one),
            goal,
            text(f),
            peers.collect::<Vec<_>>().join("; "),
            a <= *mean && b <= *most && c <= bound,
        );
    }
    for (outage, ours, peer) in &h8 {
        let (f, p) = (sheet.of(ours), sheet.of(peer));
        let short = *outage < 60.0;
        let goal = if short { "no registrations, t100 <= 1.4 D" } else { "t100 <= 1.4 D" };
        let text = |f: &Figures| format!("{}, {:.2} registrations", f.text(), f.registrations);
        line(
            "H8",
            fleet(&format!("A with DPS, D = 200 s, T = {outage} s"), tiny),
            goal,
            text(&f),
            format!("azure-iot-sdk-c, 10 failures then DPS: {}", text(&p)),
            f.within(1.4) && (!short || f.registrations == 0.0),
        );
    }
    for (wrong, count, ours) in &h9 {
        let f = sheet.of(ours);
        line(
            "H9",
            fleet(&format!("A, D = 1000 s, hint of {wrong} D"), *count),
            "t100 <= 1.1 * max(hint, 1.4 D)",
            f.text(),
            String::new(),
            f.within(1.1 * wrong.max(1.4)),
        );
    }
    let slowest = sheet.outcomes[h1].iter().map(|outcome| outcome.took.as_secs_f64()).fold(0.0, f64::max);
    let events = sheet.outcomes.first().map_or(0, |outcome| outcome.events);
    line(
        "H10",
        fleet("speed and memory of one seed of H1", devices),
        "<= 60 s, <= 1536 bytes per device",
        format!("{slowest:.1} s on the processor, {} bytes per device, {events} events", footprint()),
        String::new(),
        slowest <= 60.0 && footprint() <= FOOTPRINT,
    );
    let took = sheet.outcomes.iter().map(|outcome| outcome.took).sum();
    (lines, took)
}

fn fleet(scenario: &str, devices: u32) -> String {
    format!("{scenario}, N = {devices}")
}

/// Returns the lines as a Markdown table.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut table = String::from("| Id | Scenario | Goal | Measured | Peers | Met |\n|---|---|---|---|---|---|\n");
    for line in lines {
        let met = if line.met { "yes" } else { "**no**" };
        table += &format!(
            "| {} | {} | {} | {} | {} | {met} |\n",
            line.id, line.scenario, line.goal, line.measured, line.peers
        );
    }
    table
}

pub(crate) fn to_json(lines: &[Line]) -> Value {
    let one = |line: &Line| json!({ "id": line.id, "scenario": line.scenario, "goal": line.goal, "measured": line.measured, "peers": line.peers, "met": line.met });
    json!({ "targets": lines.iter().map(one).collect::<Vec<_>>(), "met": lines.iter().all(|line| line.met) })
}
