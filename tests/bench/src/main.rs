//! Side-by-side benchmarks of Steadfast, of other clients and of what the machine allows.
//!
//! `steadfast-bench side-by-side` runs every peer as a process of its own against a server that acknowledges
//! everything, the peers one after the other in each round, and prints medians, ratios and the goals. What may be
//! compared are the ratios inside one run; absolute figures belong to the machine and its load.

mod child;
mod frames;
mod limit;
mod meter;
mod order;
mod pipe;
mod raw;
mod report;
mod rumqttc_peer;
mod scenarios;
mod sink;
mod steadfast_peer;
mod tls;
mod trust;

use crate::child::Peer;
use crate::limit::Refill;
use crate::order::{Answer, Mode, Order};
use crate::report::{OURS, RUMQTTC, RUMQTTC_SLEEP, Report};
use crate::scenarios::Size;
use crate::steadfast_peer::Receipts;
use crate::tls::Identity;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Side-by-side benchmarks against limits and peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures every peer and prints the report as Markdown.
    SideBySide {
        /// Writes the rows to this file as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Takes one short round: shows that everything works, not how fast.
        #[arg(long)]
        quick: bool,
        /// Fails when a goal is missed or was not measured.
        #[arg(long)]
        strict: bool,
        /// The Paho C peer, built from tests/bench/paho.
        #[arg(long)]
        paho: Option<PathBuf>,
        /// The rumqttc peer with TLS, built from tests/bench/tls-peer.
        #[arg(long)]
        tls_peer: Option<PathBuf>,
    },
    /// Runs one peer and prints its answer as JSON.
    Peer {
        /// limit-batched, limit-one-write, limit-tokio, limit-raw-task, rumqttc, steadfast or steadfast-receipts.
        name: String,
        #[command(flatten)]
        order: Order,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::SideBySide { json, quick, strict, paho, tls_peer } => {
            let size = if quick { Size::QUICK } else { Size::FULL };
            side_by_side(size, json, paho, tls_peer).map(|goals_met| goals_met || !strict)
        }
        Command::Peer { name, order } => peer(&name, &order).and_then(|answer| answer.print()).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("steadfast-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn peer(name: &str, order: &Order) -> Result<Answer, String> {
    raise_descriptor_limit();
    match (name, order.mode) {
        ("limit-batched", Mode::Throughput) => limit::throughput(order, Refill::Batched),
        ("limit-one-write", Mode::Throughput) => limit::throughput(order, Refill::OneByOne),
        ("limit-tokio", Mode::Throughput) if order.ca.is_none() => limit::throughput_on_tokio(order),
        ("limit-raw-task", Mode::Idle) => raw::idle(order),
        ("rumqttc", _) if order.ca.is_some() => Err("this rumqttc speaks no TLS; tests/bench/tls-peer does".into()),
        ("rumqttc", _) => rumqttc_peer::run(order, &rumqttc::Transport::tcp()),
        ("steadfast", _) => steadfast_peer::run(order, Receipts::Dropped),
        ("steadfast-receipts", Mode::Throughput) => steadfast_peer::run(order, Receipts::Awaited),
        _ => Err(format!("no peer {name:?} does this")),
    }
}

/// Measures, prints and returns true when every goal is met.
#[expect(clippy::print_stdout, reason = "the report is this program's product")]
fn side_by_side(
    size: Size,
    json: Option<PathBuf>,
    paho: Option<PathBuf>,
    tls_peer: Option<PathBuf>,
) -> Result<bool, String> {
    raise_descriptor_limit();
    let directory = tempfile::tempdir().map_err(|error| format!("a directory for certificates: {error}"))?;
    let identity = Identity::new(directory.path()).map_err(|error| format!("certificates: {error}"))?;
    let mut report = Report::default();

    let own = |name| Peer::own(name);
    let limits = [own("limit-batched")?, own("limit-one-write")?];
    let (mut plain, mut tls) = (limits.to_vec(), limits.to_vec());
    plain.push(own("limit-tokio")?);
    let (ours, receipts) = (own(OURS)?, own("steadfast-receipts")?);
    for peers in [&mut plain, &mut tls] {
        peers.extend([ours.clone(), receipts.clone()]);
    }
    let raw = own("limit-raw-task")?;
    let (mut plain_idle, mut tls_idle) = (vec![(raw.clone(), 1)], vec![(raw, 1)]);
    [&mut plain_idle, &mut tls_idle].into_iter().for_each(|peers| peers.push((ours.clone(), 100)));
    let rumqttc = own(RUMQTTC)?;
    plain.push(rumqttc.clone());
    for (window, name) in [(10, "rumqttc-inflight-10"), (100, "rumqttc-inflight-100")] {
        plain_idle.push((rumqttc.clone().named(name), window));
        if let Some(program) = &tls_peer {
            tls_idle.push((Peer::other(name, program), window));
        }
    }
    match &tls_peer {
        Some(program) => tls.push(Peer::other(RUMQTTC, program)),
        None => report.miss("rumqttc over TLS: not built".into()),
    }
    match &paho {
        Some(program) => {
            [&mut plain, &mut tls].into_iter().for_each(|peers| peers.push(Peer::other("paho-c", program)))
        }
        None => report.miss("paho-c: not built".into()),
    }

    eprintln!("throughput, plain");
    scenarios::throughput(size, &plain, None, &mut report);
    eprintln!("throughput, TLS 1.3");
    scenarios::throughput(size, &tls, Some(&identity), &mut report);
    eprintln!("memory of idle clients");
    scenarios::idle(size, &plain_idle, None, &mut report);
    scenarios::idle(size, &tls_idle, Some(&identity), &mut report);
    eprintln!("outages");
    scenarios::outage(size, &[(ours, 0), (rumqttc.clone().named(RUMQTTC_SLEEP), 1000)], &mut report);
    // It keeps a processor busy, so it runs alone and once.
    scenarios::outage(Size { outages: 1, ..size }, &[(rumqttc.named("rumqttc-bare-loop"), 0)], &mut report);

    print!("{}", report.to_markdown());
    if let Some(file) = json {
        let text = format!("{:#}\n", report.to_json());
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(report.goals().iter().all(report::Goal::is_met))
}

/// Lets this process open as many sockets as the system allows it.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, a client that finds no socket says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
