//! `plan`: forecasts for an operator before an incident.

use crate::bench::{BUCKET, Figures};
use crate::contest::{Play, Player, play_all};
use crate::fleet::Scenario;

/// Tiers of IoT Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

impl Tier {
    /// New device connections per second (azure-docs `iot-hub/iot-hub-devguide-quotas-throttling.md`).
    pub(crate) fn connections_per_sec(self, units: u32) -> f64 {
        let units = f64::from(units);
        match self {
            Self::S1 => (12.0 * units).max(100.0),
            Self::S2 => 120.0 * units,
            Self::S3 => 6_000.0 * units,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
        }
    }
}

/// Registrations per second of one provisioning service (azure-docs `includes/iot-dps-limits.md`: 1,000 a minute).
pub(crate) const DPS_PER_SEC: f64 = 1_000.0 / 60.0;

/// Devices a plan simulates at most; a larger fleet is drawn to scale, rate and all.
const MOST: u32 = 200_000;

/// Returns the plan as text.
pub(crate) fn plan(devices: u32, tier: Tier, units: u32, outage_secs: f64, dps: bool, threads: usize) -> String {
    let rate = tier.connections_per_sec(units);
    let scale = f64::from(devices.min(MOST)) / f64::from(devices);
    let scenario = |rate: f64| {
        let mut scenario = Scenario::outage(devices.min(MOST), f64::from(devices) / rate, outage_secs, BUCKET);
        scenario.dps_rate = dps.then_some(DPS_PER_SEC * scale);
        scenario
    };
    let drain = f64::from(devices) / rate;
    let hint = (1.1 * drain).max(60.0);
    let mut wanted = units;
    while tier.connections_per_sec(wanted) < 2.0 * rate && wanted < 100_000 {
        wanted += 1;
    }
    let place = |player: Player| if dps { player.provisioned() } else { player };
    let players = [place(Player::ours()), place(Player::ours().hinted(hint)), place(Player::ours().planned(hint))];
    let mut plays: Vec<Play<'_>> = players.iter().map(|player| (player, scenario(rate), 1)).collect();
    plays.push((&players[0], scenario(tier.connections_per_sec(wanted)), 1));
    let outcomes = play_all(&plays, threads, &|_| {});
    let row = |name: &str, place: usize| {
        let outcome = &outcomes[place];
        let figures = Figures::of(core::slice::from_ref(outcome), &plays[place].1);
        let time = |share| outcome.back_secs(share).map_or_else(|| "never".into(), span);
        vec![
            name.to_owned(),
            time(0.5),
            time(0.99),
            time(1.0),
            format!("{:.1}", figures.attempts),
            format!("{:.0}", figures.registrations * f64::from(devices)),
        ]
    };
    let name = tier.name();
    let rows = [
        row("as it is", 0),
        row(&format!("with the hint {} s", hint.ceil()), 1),
        row("with a planned move over that time", 2),
        row(&format!("with {wanted} units"), 3),
    ];
    let head = ["", "50 % back", "99 %", "100 %", "attempts per device", "DPS registrations"];
    let drawn = if scale < 1.0 { format!(" (simulated to scale with {MOST} devices)") } else { String::new() };
    format!(
        "{devices} devices on {units} unit(s) of {name}: {rate:.0} new connections per second, so {} at best{drawn}.\n\
         Outage of {}; times count from its end; the hub refuses for free above its limit.\n\n{}\n\
         Publish the hint in the payload of the provisioning service or as a desired property: \
         {{\"{}\":{}}}\n\
         {wanted} units would halve the time.\n",
        span(drain),
        span(outage_secs),
        crate::show::table(&head, &rows),
        steadfast_core::dps::SPREAD_MEMBER,
        hint.ceil()
    )
}

/// Returns a time for people.
fn span(secs: f64) -> String {
    if secs < 120.0 {
        format!("{secs:.0} s")
    } else if secs < 7_200.0 {
        format!("{:.1} min", secs / 60.0)
    } else {
        format!("{:.1} h", secs / 3_600.0)
    }
}
