//! The command line.

use crate::contest::Player;
use crate::fleet::Scenario;
use crate::peers::Peer;
use crate::plan::Tier;
use crate::service::Model;
use crate::show::Show;
use crate::{bench, plan, snapshot};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use steadfast_core::RetryPolicy;

#[derive(Parser)]
#[command(about = "A fleet of up to a million devices in virtual time, each with the real link")]
struct Arguments {
    /// Threads; one play runs on one.
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures the targets H1 to H10; fails when one is missed.
    Bench {
        /// Devices for targets of a million.
        #[arg(long, default_value_t = 1_000_000)]
        devices: u32,
        /// Writes the figures to this file, too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Plans for an operator before an incident.
    Plan {
        /// Devices of the fleet.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
        devices: u32,
        /// Tier of the hub.
        #[arg(long, value_enum, ignore_case = true)]
        tier: Tier,
        /// Units of the hub.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        units: u32,
        /// Length of the hub's outage, such as 90s, 15m or 2h.
        #[arg(long, value_parser = seconds)]
        outage: f64,
        /// The devices are provisioned by DPS.
        #[arg(long)]
        dps: bool,
    },
    /// Runs one scenario with several policies and draws the curves.
    Run(RunArguments),
    /// Writes the snapshot of the behaviour, or checks it.
    Snapshot {
        /// The document with the snapshot.
        #[arg(long, default_value = "docs/fleet.md")]
        file: PathBuf,
        /// Only checks that the document matches the measurement.
        #[arg(long)]
        check: bool,
    },
}

#[derive(Args)]
struct RunArguments {
    /// Devices of the fleet.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Admissions per second of the hub.
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// How the hub admits.
    #[arg(long, value_enum, default_value_t = ModelName::A)]
    model: ModelName,
    /// Model B: part of an admission that a refusal costs.
    #[arg(long, default_value_t = 0.1, value_parser = positive)]
    cost: f64,
    /// Model C: length of the queue.
    #[arg(long, default_value = "30s", value_parser = seconds)]
    queue: f64,
    /// Length of the hub's outage, such as 90s, 15m or 2h.
    #[arg(long, default_value = "5s", value_parser = seconds)]
    outage: f64,
    /// Devices detect the loss within this time: 300s for a keep-alive of 300 s and an unclosed connection.
    #[arg(long, default_value = "500ms", value_parser = seconds)]
    notice: f64,
    /// Fraction of the fleet that is affected, such as by the failure of one of the hub's nodes.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    hit: f64,
    /// The hub accepts and drops everybody again every 20 s, so many times.
    #[arg(long, default_value_t = 0)]
    crashes: u32,
    /// After the return the resolvers still name the old address for up to this time.
    #[arg(long, default_value = "0s", value_parser = seconds)]
    dns: f64,
    /// Provisioned devices, and a DPS with 1,000 registrations a minute.
    #[arg(long)]
    dps: bool,
    /// The fleet moves: after the return the old hub does not know the devices, DPS names another. Implies --dps.
    #[arg(long)]
    moved: bool,
    /// Policies to overlay, separated by commas: steadfast, steadfast-hint, steadfast-planned, gateway, battery,
    /// aggressive, all, or the name of a peer.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "steadfast,steadfast-hint,azure-iot-sdk-c,iot-operations-rust,aws-full-jitter"
    )]
    policies: Vec<String>,
    /// Jitter window of the hint and the planned move, in seconds. Default: 1.1 times the ideal drain time.
    #[arg(long, value_parser = seconds)]
    hint: Option<f64>,
    /// How long the peers wait for CONNACK.
    #[arg(long, default_value = "30s", value_parser = seconds)]
    peer_connack: f64,
    /// Seed of the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes a page with the curves.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Writes the curves alone.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// How a hub admits.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModelName {
    /// Token bucket of one second, refusals are free.
    A,
    /// Refusals cost a part of an admission.
    B,
    /// A bounded queue.
    C,
    /// Admits every device immediately.
    Open,
}

/// Runs the command line; returns 1 if a target is missed, 2 on an error.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let threads = arguments.threads.max(1);
    let done = match arguments.command {
        Command::Bench { devices, json } => bench(devices.clamp(1_000, 1_000_000), json.as_deref(), threads),
        Command::Plan { devices, tier, units, outage, dps } => {
            println!("{}", plan::plan(devices, tier, units, outage, dps, threads));
            Ok(true)
        }
        Command::Run(run) => show(&run, threads),
        Command::Snapshot { file, check } => snapshot::run(&file, check, threads),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn bench(devices: u32, json: Option<&Path>, threads: usize) -> Result<bool, String> {
    let begun = std::time::Instant::now();
    let before = load();
    let (lines, processor) = bench::measure(devices, threads);
    println!(
        "{}\nThe bench took {:.0} s on the wall and {:.0} s on processors with {threads} threads. Load of the machine: \
         {before} before, {} after.",
        bench::table(&lines),
        begun.elapsed().as_secs_f64(),
        processor.as_secs_f64(),
        load()
    );
    if let Some(file) = json {
        write(file, &format!("{:#}\n", bench::to_json(&lines)))?;
    }
    Ok(lines.iter().all(|line| line.met))
}

/// Returns Linux's load average of the last minute.
fn load() -> String {
    let told = std::fs::read_to_string("/proc/loadavg");
    told.ok().and_then(|text| text.split(' ').next().map(str::to_owned)).unwrap_or_else(|| "unknown".into())
}

fn show(run: &RunArguments, threads: usize) -> Result<bool, String> {
    let model = match run.model {
        ModelName::A => bench::BUCKET,
        ModelName::B => Model::Costly { cost: run.cost },
        ModelName::C => Model::Queue { burst_secs: 0.0, secs: run.queue },
        ModelName::Open => Model::Open,
    };
    let drain = f64::from(run.devices) / run.rate;
    let mut scenario = Scenario::outage(run.devices, drain, run.outage, model);
    scenario.notice_ms = (run.notice * 1_000.0) as u32;
    scenario.hit = run.hit.min(1.0);
    scenario.crashes = (run.crashes > 0).then_some((20_000, run.crashes));
    scenario.dns_ms = (run.dns * 1_000.0) as u32;
    scenario.moved = run.moved;
    scenario.dps_rate = (run.dps || run.moved).then_some(plan::DPS_PER_SEC);
    scenario.horizon_ms = scenario.horizon_ms.max(7_200_000);
    let hint = run.hint.unwrap_or(1.1 * scenario.ideal_secs());
    let connack = run.peer_connack.max(1.0) as u32;
    let players = players(&run.policies, hint, connack)?;
    let place = |player: Player| if scenario.dps_rate.is_some() { player.provisioned() } else { player };
    let players: Vec<Player> = players.into_iter().map(place).collect();
    let show = Show::play(&players, scenario, run.seed, threads);
    println!("{}", show.text());
    if let Some(file) = &run.html {
        write(file, &show.html())?;
    }
    if let Some(file) = &run.svg {
        write(file, &show.svg())?;
    }
    Ok(true)
}

/// Returns the players of these names.
fn players(names: &[String], hint: f64, connack_secs: u32) -> Result<Vec<Player>, String> {
    let mut players = Vec::new();
    for name in names {
        match name.trim() {
            "steadfast" => players.push(Player::ours()),
            "steadfast-hint" => players.push(Player::ours().hinted(hint)),
            "steadfast-planned" => players.push(Player::ours().planned(hint)),
            "gateway" => players.push(Player::preset("steadfast gateway", RetryPolicy::GATEWAY)),
            "battery" => players.push(Player::preset("steadfast battery", RetryPolicy::BATTERY)),
            "aggressive" => players.push(Player::preset("steadfast aggressive", RetryPolicy::AGGRESSIVE)),
            "all" => {
                players.push(Player::ours());
                players.extend(Peer::ALL.map(|peer| Player::peer(peer, connack_secs)));
            }
            name => {
                let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
                let known = Peer::ALL.map(Peer::name).join(", ");
                let peer = peer.ok_or_else(|| format!("no policy is called {name}; the peers are {known}"))?;
                players.push(Player::peer(peer, connack_secs));
            }
        }
    }
    Ok(players)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Reads a time such as `500ms`, `90s`, `15m` or `2h`, up to 30 days.
fn seconds(text: &str) -> Result<f64, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    let (number, unit) =
        units.iter().find_map(|(unit, secs)| Some((text.strip_suffix(unit)?, *secs))).unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().map_err(|_| format!("{text} is no time; write it as 90s, 15m or 2h"))?;
    let secs = number * unit;
    if (0.0..=2_592_000.0).contains(&secs) { Ok(secs) } else { Err(format!("{text} is not within 0 and 30 days")) }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err(format!("{text} is not above zero")) }
}
