//! Medians, ratios, the table and the goals.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// Name of our own client in the report.
pub(crate) const OURS: &str = "steadfast";

/// What was measured, one value per round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) metric: Metric,
    pub(crate) peer: &'static str,
    pub(crate) window: Option<u16>,
    pub(crate) payload: Option<usize>,
    pub(crate) tls: bool,
    pub(crate) values: Vec<f64>,
}

/// The quantities of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Messages acknowledged per second.
    Rate,
    /// Processor time of the client per message.
    Cpu,
    /// Resident memory per idle client beyond its configured queue.
    IdleMemory,
    /// From the return of the listener to the first PUBACK.
    FirstAck,
    /// Attempts to connect during the outage.
    Attempts,
    /// Share of one processor during the outage.
    OutageCpu,
}

impl Metric {
    const ALL: [Self; 6] = [Self::Rate, Self::Cpu, Self::IdleMemory, Self::FirstAck, Self::Attempts, Self::OutageCpu];

    fn name(self) -> &'static str {
        match self {
            Self::Rate => "qos1_rate",
            Self::Cpu => "cpu_per_message",
            Self::IdleMemory => "memory_per_idle_client",
            Self::FirstAck => "first_ack_after_outage",
            Self::Attempts => "attempts_during_outage",
            Self::OutageCpu => "cpu_during_outage",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Rate => "QoS 1 messages per second",
            Self::Cpu => "Processor time of the client per message",
            Self::IdleMemory => "Memory per idle client, beyond its configured queue",
            Self::FirstAck => "First acknowledgement after a 5 s outage, from the return of the listener",
            Self::Attempts => "Attempts to connect in a 5 s outage",
            Self::OutageCpu => "Processor time during a 5 s outage, share of one processor",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Rate => "1/s",
            Self::Cpu => "us",
            Self::IdleMemory => "B",
            Self::FirstAck => "s",
            Self::Attempts => "1",
            Self::OutageCpu => "%",
        }
    }

    /// The row that stands for the limit of the machine.
    fn limit(self) -> Option<&'static str> {
        match self {
            Self::Rate => Some("limit-batched"),
            Self::Cpu => Some("limit-one-write"),
            Self::IdleMemory => Some("limit-raw-task"),
            Self::FirstAck | Self::Attempts | Self::OutageCpu => None,
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{:.1} k/s", value / 1e3),
            Self::Cpu => format!("{value:.3} us"),
            Self::IdleMemory => format!("{:.1} KiB", value / 1024.0),
            Self::FirstAck => format!("{value:.3} s"),
            Self::Attempts => format!("{value:.0}"),
            Self::OutageCpu => format!("{value:.2} %"),
        }
    }
}

/// Everything that was measured, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Report {
    series: Vec<Series>,
    /// Peers or runs that are missing, with the reason.
    absent: Vec<String>,
}

impl Report {
    /// Adds the value of one round.
    pub(crate) fn add(&mut self, key: Series, value: f64) {
        let same = |series: &&mut Series| {
            (series.metric, series.peer, series.window, series.payload, series.tls)
                == (key.metric, key.peer, key.window, key.payload, key.tls)
        };
        match self.series.iter_mut().find(same) {
            Some(series) => series.values.push(value),
            None => self.series.push(Series { values: vec![value], ..key }),
        }
    }

    /// Notes that something is missing; said once however often it happens.
    pub(crate) fn miss(&mut self, what: String) {
        if !self.absent.contains(&what) {
            self.absent.push(what);
        }
    }

    fn find(&self, metric: Metric, peer: &str, window: Option<u16>, tls: bool) -> Option<&Series> {
        self.series
            .iter()
            .find(|one| one.metric == metric && one.peer == peer && one.window == window && one.tls == tls)
    }

    fn ratio_to_limit(&self, series: &Series) -> Option<f64> {
        let limit = self.find(series.metric, series.metric.limit()?, series.window, series.tls)?;
        Some(paired_ratio(series, limit))
    }

    /// Returns the rows of the JSON file.
    pub(crate) fn to_json(&self) -> Value {
        let rows = self.series.iter().map(|series| {
            let (low, high) = range(&series.values);
            json!({
                "metric": series.metric.name(), "peer": series.peer, "window": series.window,
                "payload": series.payload, "tls": series.tls, "value": median(&series.values),
                "unit": series.metric.unit(), "ratio_to_limit": self.ratio_to_limit(series),
                "min": low, "max": high, "rounds": series.values.len(),
            })
        });
        rows.collect()
    }

    /// Returns the report as Markdown.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::from("# Side by side\n\nMedian (smallest .. largest) of the rounds of this run.\n");
        for metric in Metric::ALL {
            for tls in [false, true] {
                self.table(metric, tls, &mut text);
            }
        }
        if !self.absent.is_empty() {
            text.push_str("\n## Absent\n\n");
            for line in &self.absent {
                // Writing to a string does not fail.
                let _ = writeln!(text, "- {line}");
            }
        }
        text.push_str("\n## Goals\n\n| goal | figure | verdict |\n|---|---|---|\n");
        for goal in self.goals() {
            let _ = writeln!(text, "| {} | {} | {} |", goal.what, goal.figure, goal.verdict());
        }
        text
    }

    fn table(&self, metric: Metric, tls: bool, text: &mut String) {
        let rows: Vec<&Series> = self.series.iter().filter(|one| one.metric == metric && one.tls == tls).collect();
        if rows.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n## {}{}\n", metric.title(), if tls { ", TLS 1.3" } else { "" });
        let ratio_column = metric.limit().map_or(String::new(), |limit| format!(" ratio to {limit} |"));
        let _ = writeln!(text, "| peer | window | value | range |{ratio_column}");
        let _ = writeln!(text, "|---|---:|---:|---|{}", if ratio_column.is_empty() { "" } else { "---:|" });
        for row in rows {
            let window = row.window.map_or_else(|| "-".into(), |window| window.to_string());
            let (low, high) = range(&row.values);
            let (low, high) = (metric.shown(low), metric.shown(high));
            let _ =
                write!(text, "| {} | {window} | {} | {low} .. {high} |", row.peer, metric.shown(median(&row.values)));
            if !ratio_column.is_empty() {
                let ratio = self.ratio_to_limit(row).map_or_else(|| "-".into(), |ratio| format!("{ratio:.3}"));
                let _ = write!(text, " {ratio} |");
            }
            text.push('\n');
        }
    }

    /// Returns the goals with what this run says about them.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let ratio = |metric, peer, other, window, tls| {
            let (ours, other) = (self.find(metric, peer, window, tls)?, self.find(metric, other, window, tls)?);
            Some(paired_ratio(ours, other))
        };
        let value = |metric, peer, tls| self.find(metric, peer, None, tls).map(|series| median(&series.values));
        let times = |ratio: f64| format!("{ratio:.2} x");
        let kib = |bytes: f64| Metric::IdleMemory.shown(bytes);
        let plain = value(Metric::IdleMemory, OURS, false);
        let tls = value(Metric::IdleMemory, OURS, true);
        let first = |peer| value(Metric::FirstAck, peer, false);
        let (ours, slept) = (first(OURS), first(RUMQTTC_SLEEP));
        let share = value(Metric::OutageCpu, OURS, false);
        let outage = ours.zip(slept).zip(share);
        vec![
            Goal::new(
                "QoS 1 rate, window 100, 100 B, plain: at least 3 x rumqttc",
                ratio(Metric::Rate, OURS, RUMQTTC, Some(100), false).map(|ratio| (ratio >= 3.0, times(ratio))),
            ),
            Goal::new(
                "processor time per message, window 1, plain: at most 1.3 x the one-write limit",
                ratio(Metric::Cpu, OURS, "limit-one-write", Some(1), false).map(|ratio| (ratio <= 1.3, times(ratio))),
            ),
            Goal::new(
                "QoS 1 rate, window 100, 100 B, TLS 1.3: at least 2 x rumqttc",
                ratio(Metric::Rate, OURS, RUMQTTC, Some(100), true).map(|ratio| (ratio >= 2.0, times(ratio))),
            ),
            Goal::new("memory per idle device, plain: at most 6 KiB", plain.map(|bytes| (bytes <= 6144.0, kib(bytes)))),
            Goal::new("memory per idle device, TLS: at most 14 KiB", tls.map(|bytes| (bytes <= 14336.0, kib(bytes)))),
            Goal::new(
                "first acknowledgement after a 5 s outage: not after rumqttc with 1 s of sleep, without a busy loop",
                outage.map(|((ours, slept), share)| {
                    let figure = format!("{ours:.3} s against {slept:.3} s, {share:.2} % of a processor");
                    (ours <= slept && share <= BUSY_PERCENT, figure)
                }),
            ),
        ]
    }
}

/// Names of the peers that goals compare with.
pub(crate) const RUMQTTC: &str = "rumqttc";
/// rumqttc with one second of sleep after each error.
pub(crate) const RUMQTTC_SLEEP: &str = "rumqttc-sleep-1s";

/// A client that takes more of a processor while its hub is gone is busy.
const BUSY_PERCENT: f64 = 2.0;

/// A goal and what the run says about it.
#[derive(Debug, PartialEq)]
pub(crate) struct Goal {
    what: &'static str,
    figure: String,
    met: Option<bool>,
}

impl Goal {
    fn new(what: &'static str, outcome: Option<(bool, String)>) -> Self {
        match outcome {
            Some((met, figure)) => Self { what, figure, met: Some(met) },
            None => Self { what, figure: "-".into(), met: None },
        }
    }

    /// Returns true when the goal was measured and met.
    pub(crate) fn is_met(&self) -> bool {
        self.met == Some(true)
    }

    fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        }
    }
}

/// Returns the median of the ratios round by round: what disturbs a round disturbs both.
fn paired_ratio(one: &Series, other: &Series) -> f64 {
    let ratios: Vec<f64> = one.values.iter().zip(&other.values).map(|(one, other)| one / other).collect();
    if one.values.len() == other.values.len() { median(&ratios) } else { median(&one.values) / median(&other.values) }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

fn range(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metric: Metric, peer: &'static str, window: Option<u16>, values: &[f64]) -> Series {
        Series { metric, peer, window, payload: Some(100), tls: false, values: values.to_vec() }
    }

    fn report(series: &[Series]) -> Report {
        let mut report = Report::default();
        for series in series {
            series.values.iter().for_each(|value| report.add(series.clone(), *value));
        }
        report
    }

    #[test]
    fn a_ratio_is_the_median_of_the_ratios_round_by_round() {
        let report = report(&[
            series(Metric::Rate, "limit-batched", Some(1), &[100.0, 10.0, 50.0]),
            series(Metric::Rate, "rumqttc", Some(1), &[50.0, 5.0, 40.0]),
        ]);
        let rows = report.to_json();
        assert_eq!(rows[1]["value"], 40.0);
        assert_eq!(rows[1]["ratio_to_limit"], 0.5);
    }

    #[test]
    fn a_goal_is_met_missed_or_not_measured() {
        let report = report(&[
            series(Metric::Rate, "rumqttc", Some(100), &[100.0]),
            series(Metric::Rate, "steadfast", Some(100), &[301.0]),
            series(Metric::IdleMemory, "steadfast", None, &[9000.0]),
        ]);
        let verdicts: Vec<&str> = report.goals().iter().map(Goal::verdict).collect();
        assert_eq!(verdicts, ["met", "not measured", "not measured", "MISSED", "not measured", "not measured"]);
        assert!(report.to_markdown().contains("| 3.01 x | met |"));
    }

    #[test]
    fn an_even_number_of_rounds_has_a_median_between_the_middle_ones() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!(median(&[]).is_nan());
    }
}
