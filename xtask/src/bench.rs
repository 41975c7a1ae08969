//! `bench`: builds the peers and runs the side-by-side benchmark.

use crate::{Done, Outcome, shell, tools};
use std::path::PathBuf;

/// Builds what takes part and runs it; arguments are handed on.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let place = shell::target_directory().join("bench-peers");
    std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let mut command =
        shell::cargo(["run", "--release", "--locked", "--package", "steadfast-bench", "--", "side-by-side"]);
    command.args(arguments);
    // A peer that cannot be built is named as absent in the report; the rest is measured all the same.
    match paho(&place) {
        Ok(binary) => _ = command.arg("--paho").arg(binary),
        Err(why) => println!("bench: without the Paho C peer: {why}"),
    }
    match tls_peer(&place) {
        Ok(binary) => _ = command.arg("--tls-peer").arg(binary),
        Err(why) => println!("bench: without the rumqttc TLS peer: {why}"),
    }
    shell::run(&mut command)?;
    Ok(Done::Ran("measured".into()))
}

fn paho(place: &std::path::Path) -> Result<PathBuf, String> {
    tools::ensure_file("/usr/include/MQTTAsync.h", "libpaho-mqtt-dev")?;
    let binary = place.join("paho-peer");
    let mut command = shell::program("cc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o"]);
    command.arg(&binary).args(["tests/bench/paho/peer.c", "-lpaho-mqtt3as", "-lpthread"]);
    shell::run(&mut command)?;
    Ok(binary)
}

fn tls_peer(place: &std::path::Path) -> Result<PathBuf, String> {
    let mut command =
        shell::cargo(["build", "--release", "--locked", "--manifest-path", "tests/bench/tls-peer/Cargo.toml"]);
    let target = place.join("tls-peer");
    shell::run(command.arg("--target-dir").arg(&target))?;
    Ok(target.join("release/tls-peer"))
}
