//! `run`: one scenario, several policies, curves and a table.

use crate::bench::Figures;
use crate::chart::{Chart, Curve, page, svg};
use crate::contest::{Play, Player, play_all};
use crate::fleet::{Outcome, Scenario};
use crate::progress::Bar;

/// One scenario played by several policies.
#[derive(Debug)]
pub(crate) struct Show {
    pub(crate) scenario: Scenario,
    pub(crate) names: Vec<String>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Points of a curve at most.
const POINTS: usize = 450;

impl Show {
    pub(crate) fn play(players: &[Player], scenario: Scenario, seed: u64, threads: usize) -> Self {
        let outcomes = if let [player] = players {
            let mut bar = Bar::new(player.name());
            let outcome = player.play(&scenario, seed, &mut |done, all| bar.show(done as usize, all as usize));
            bar.clear();
            vec![outcome]
        } else {
            let plays: Vec<Play<'_>> = players.iter().map(|player| (player, scenario, seed)).collect();
            let bar = std::sync::Mutex::new(Bar::new("run"));
            let watch = |done: usize| {
                bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).show(done, plays.len());
            };
            let outcomes = play_all(&plays, threads, &watch);
            bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
            outcomes
        };
        Self { scenario, names: players.iter().map(|player| player.name().to_owned()).collect(), outcomes }
    }

    fn title(&self) -> String {
        format!("{} devices lose their hub", grouped(self.scenario.devices))
    }

    fn facts(&self) -> Vec<String> {
        let scenario = &self.scenario;
        let mut facts = vec![
            format!(
                "Hub: {:.0} admissions per second; ideal drain time D = {:.0} s",
                scenario.rate,
                scenario.ideal_secs()
            ),
            format!("Server model: {}", scenario.model.describe()),
            format!(
                "Outage: {:.0} s; the loss is detected within {:.1} s",
                f64::from(scenario.outage_ms) / 1e3,
                f64::from(scenario.notice_ms) / 1e3
            ),
        ];
        if scenario.hit < 1.0 {
            facts.push(format!("{:.0} % of the fleet are hit", scenario.hit * 100.0));
        }
        if scenario.moved {
            facts.push("The fleet is assigned to another hub".into());
        }
        facts
    }

    pub(crate) const HEAD: [&str; 9] = [
        "Policy",
        "back: 50 %",
        "99 %",
        "100 %",
        "came back",
        "attempts",
        "99th percentile",
        "peak / R",
        "registrations",
    ];

    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let time = |value: Option<f64>| value.map_or_else(|| "never".into(), |drains| format!("{drains:.2} D"));
        let row = |(name, outcome): (&String, &Outcome)| {
            let figures = Figures::of(core::slice::from_ref(outcome), &self.scenario);
            vec![
                name.clone(),
                time(figures.half),
                time(figures.most),
                time(figures.all),
                format!("{:.1} %", figures.returned * 100.0),
                format!("{:.2}", figures.attempts),
                figures.attempts_most.to_string(),
                format!("{:.1}", figures.peak),
                format!("{:.2}", figures.registrations),
            ]
        };
        self.names.iter().zip(&self.outcomes).map(row).collect()
    }

    fn charts(&self) -> Vec<Chart> {
        let end = self.end();
        let hit = f64::from(self.outcomes.first().map_or(1, |outcome| outcome.hit)).max(1.0);
        let each = |points: &dyn Fn(&Outcome) -> Vec<(f64, f64)>| -> Vec<Curve> {
            let curves = self.names.iter().zip(&self.outcomes);
            curves.map(|(name, outcome)| Curve { name: name.clone(), points: points(outcome) }).collect()
        };
        let connected = each(&|outcome| {
            let mut sum = 0.0;
            let total = outcome.returns.iter().map(|count| {
                sum += f64::from(*count);
                sum / hit * 100.0
            });
            let mut total: Vec<f64> = total.collect();
            let last = total.last().copied().unwrap_or(0.0);
            total.resize(total.len().max(end), last);
            thin(&total, end, |bin| bin.last().copied().unwrap_or(0.0))
        });
        let arrivals = each(&|outcome| {
            let counts: Vec<f64> = outcome.arrivals.iter().map(|count| f64::from(*count)).collect();
            // Wide steps: waves every few seconds would fill the whole diagram.
            thin_to(&counts, end, POINTS / 6, |bin| bin.iter().copied().fold(0.0, f64::max))
        });
        let most =
            self.outcomes.iter().map(|outcome| outcome.attempts_quantile(0.999)).max().unwrap_or(1).clamp(10, 200);
        let histogram = each(&|outcome| {
            let mut counts = vec![0_u32; usize::from(most) + 1];
            for attempts in &outcome.attempts {
                counts[usize::from((*attempts).min(most))] += 1;
            }
            (0..).zip(&counts).map(|(x, count)| (f64::from(x), f64::from(*count))).collect()
        });
        let chart = |title: &str, x: &str, y: &str, curves| Chart {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            curves,
            level: None,
            logarithmic: false,
        };
        let seconds = "seconds since the loss";
        let arrivals_title = format!("Arrivals at the hub, busiest second of every {} s", end.div_ceil(POINTS / 6));
        vec![
            chart("Back permanently", seconds, "% of the devices", connected),
            Chart {
                level: Some((self.scenario.rate, "capacity".into())),
                logarithmic: true,
                ..chart(&arrivals_title, seconds, "attempts per second", arrivals)
            },
            Chart {
                logarithmic: true,
                ..chart(
                    "Attempts of a device after the return",
                    "attempts (the last step: and more)",
                    "devices",
                    histogram,
                )
            },
        ]
    }

    /// The second at which the curves end: the slowest of those that drain within three ideal drain times, or those.
    fn end(&self) -> usize {
        let drain = self.scenario.ideal_secs();
        let back = f64::from(self.scenario.outage_ms) / 1_000.0;
        let slowest = self.outcomes.iter().filter_map(|outcome| outcome.back_secs(1.0)).fold(drain * 1.2, f64::max);
        (back + slowest.min(drain * 3.0) * 1.02).ceil() as usize + 1
    }

    pub(crate) fn html(&self) -> String {
        page(&self.title(), &self.facts(), &self.charts(), &Self::HEAD, &self.rows())
    }

    pub(crate) fn svg(&self) -> String {
        svg(&self.charts())
    }

    /// Returns facts and figures as Markdown.
    pub(crate) fn text(&self) -> String {
        let facts: String = self.facts().iter().map(|fact| format!("* {fact}\n")).collect();
        format!("{}\n\n{facts}\n{}", self.title(), table(&Self::HEAD, &self.rows()))
    }
}

/// Returns a Markdown table.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rule = vec!["---".to_owned(); head.len()];
    let body: String = rows.iter().map(|row| line(row)).collect();
    line(&head) + &line(&rule).replace(' ', "") + &body
}

/// Returns a number with commas between thousands.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| core::str::from_utf8(part).ok()).collect();
    parts.join(",")
}

/// Joins seconds into steps so that a curve has few points.
fn thin(seconds: &[f64], end: usize, join: impl Fn(&[f64]) -> f64) -> Vec<(f64, f64)> {
    thin_to(seconds, end, POINTS, join)
}

/// The same with at most so many points.
fn thin_to(seconds: &[f64], end: usize, points: usize, join: impl Fn(&[f64]) -> f64) -> Vec<(f64, f64)> {
    let step = end.div_ceil(points).max(1);
    let steps = seconds[..end.min(seconds.len())].chunks(step);
    steps.enumerate().map(|(place, bin)| ((place * step) as f64, join(bin))).collect()
}
