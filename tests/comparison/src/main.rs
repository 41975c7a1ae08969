//! Lets this SDK and the official Python SDK meet the same faults at the same time, and writes down what came of it.
//!
//! Both run with their defaults and reach the emulator under the names and on the port of the real service: the program
//! runs itself again inside a network namespace, where the port is free, with a hosts file of its own.

mod faults;
mod peer;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use e2e::run_again_inside;
use futures_util::future::join_all;
use hub_emulator::{Config, DeviceAuth, DpsConfig, Emulator, Enrollment, HubConfig, Key};

use crate::faults::{Score, TRIALS, Trial};
use crate::peer::{Peer, Setup};

const INSIDE: &str = "STEADFAST_SCOREBOARD_INSIDE";
const DPS_HOST: &str = "global.azure-devices-provisioning.net";
const SCOPE: &str = "0ne00SCORES";
const WHOLE: Duration = Duration::from_secs(900);

/// Who takes part: the name in hosts and ids, and the name in the table.
const PEERS: [(&str, &str); 2] = [("ours", "Steadfast"), ("python", "Python SDK")];

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(python), file) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: comparison PYTHON [FILE]: PYTHON has the official SDK, FILE takes the table");
        return ExitCode::from(2);
    };
    if std::env::var_os(INSIDE).is_none() {
        let hubs: Vec<String> = pairs().flat_map(|(trial, peer)| trial.hubs(peer)).collect();
        let names: Vec<&str> = hubs.iter().map(String::as_str).chain([DPS_HOST]).collect();
        let again = run_again_inside(&names, std::env::args_os().skip(1), INSIDE);
        return match tokio::time::timeout(WHOLE, again).await {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            Ok(_) | Err(_) => ExitCode::FAILURE,
        };
    }
    let scores = play(&python).await;
    let table = table(&scores);
    // Whoever does not listen still gets the file.
    let _ = std::io::stdout().write_all(table.as_bytes());
    if let Some(file) = file
        && let Err(error) = std::fs::write(&file, table)
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    let ours = scores.iter().filter(|(_, peer, _)| *peer == "ours");
    let failed = ours.filter(|(_, _, score)| score.recovered.is_none() || score.lost > 0).count();
    if failed > 0 {
        eprintln!("{failed} faults were not survived");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// All trials of all peers at the same time, each on hubs of its own.
async fn play(python: &std::path::Path) -> Vec<(Trial, &'static str, Score)> {
    let (first, second) = (Key::from_seed("primary"), Key::from_seed("secondary"));
    let dps = DpsConfig::new().host(DPS_HOST).id_scope(SCOPE);
    let mut config = Config::new().dps(dps).tls_port(8883);
    for (trial, peer) in pairs() {
        let [home, other] = trial.hubs(peer);
        let device = id(trial, peer);
        let auth = DeviceAuth::Keys { primary: first.clone(), secondary: Some(second.clone()) };
        config = config.hub_with(HubConfig::new(&home).device(&device, auth)).hub(&other);
        if trial == Trial::Moved {
            config = config.enroll(Enrollment::individual(&device, first.clone()).hub(&home));
        }
    }
    let emulator = Emulator::start(config).await.expect("port 8883 is free in a new namespace");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, emulator.ca_pem()).expect("the file is written");

    let mut running = Vec::new();
    for (trial, name) in pairs() {
        let [hub, _] = trial.hubs(name);
        let provisioned = trial == Trial::Moved && name == "ours";
        let setup = Setup {
            hub,
            device: id(trial, name),
            key: first.to_base64(),
            second_key: Some(second.to_base64()).filter(|_| trial == Trial::Rotated),
            scope: provisioned.then(|| SCOPE.to_owned()),
            ca: ca.clone(),
        };
        let peer = match name {
            "ours" => Peer::ours(&setup, emulator.ca_pem()),
            _ => Peer::python(python, &setup).await,
        };
        running.push((trial, name, setup, peer));
    }
    let trials = running.into_iter().map(|(trial, name, setup, peer)| {
        let (emulator, second) = (&emulator, &second);
        async move { (trial, name, trial.run(emulator, &setup, peer, second).await) }
    });
    join_all(trials).await
}

fn pairs() -> impl Iterator<Item = (Trial, &'static str)> {
    TRIALS.into_iter().flat_map(|trial| PEERS.map(|(peer, _)| (trial, peer)))
}

fn id(trial: Trial, peer: &str) -> String {
    format!("{}-{peer}", trial.name())
}

fn table(scores: &[(Trial, &str, Score)]) -> String {
    let mut text = String::from(
        "# Comparison\n\nThe same faults for this SDK and for the official Python SDK (`azure-iot-device`), both with \
         their defaults, both over TLS\nagainst the hub emulator. `cargo xtask comparison` repeats the test and writes this \
         page; the faults are in `tests/comparison`.\n\nRecovered: from the end of the fault until the hub has every \
         message, or the application knows the change; \"never\" is\n180 s without. Lost: messages the hub does not have \
         then, and how many of them were reported to the application. Duplicated:\nmessages the hub has more than once. \
         Attempts: connections to hub and DPS after the fault began.\n\n| fault | SDK | recovered after | lost | \
         reported | duplicated | attempts |\n|---|---|---:|---:|---:|---:|---:|\n",
    );
    for (trial, peer, score) in scores {
        let (_, name) = PEERS.into_iter().find(|(short, _)| short == peer).unwrap_or(("", ""));
        let recovered = score.recovered.map_or_else(|| "never".into(), |time| format!("{:.1} s", time.as_secs_f64()));
        let Score { sent, lost, told_lost, duplicated, attempts, .. } = score;
        let _ = writeln!(
            text,
            "| {} | {name} | {recovered} | {lost} of {sent} | {told_lost} | {duplicated} | {attempts} |",
            trial.what()
        );
    }
    text.push_str(
        "\nThe Python SDK has no DPS client that follows a device to another hub and takes one key: an application has \
         to notice,\nprovision again and make a new client. The one tested here does not, as its documentation does not ask for it.\n",
    );
    text
}
