//! Every example succeeds at the local hub, by itself.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Each takes a few seconds; a loaded machine gets ten times that.
const LIMIT: Duration = Duration::from_secs(90);

/// The variables that name a real hub.
const VARIABLES: [&str; 6] = [
    "IOTHUB_DEVICE_CONNECTION_STRING",
    "DPS_ID_SCOPE",
    "DPS_REGISTRATION_ID",
    "DPS_KEY",
    "IOTEDGE_WORKLOADURI",
    "EdgeHubConnectionString",
];

fn without_place(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

fn ends_well(program: &str, says: &str) {
    let mut command = without_place(program);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    // What it prints fits into the pipes.
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > LIMIT {
            child.kill().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    let (told, problem) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains(says), "{}\n{told}{problem}", output.status);
}

#[test]
fn telemetry_ends_well() {
    ends_well(env!("CARGO_BIN_EXE_telemetry"), "nothing was lost");
}

#[test]
fn twin_thermostat_ends_well() {
    ends_well(env!("CARGO_BIN_EXE_twin-thermostat"), "26 was applied once");
}

#[test]
fn methods_ends_well() {
    ends_well(env!("CARGO_BIN_EXE_methods"), "and hears 404");
}

#[test]
fn file_upload_ends_well() {
    ends_well(env!("CARGO_BIN_EXE_file-upload"), "all of them right");
}

#[test]
fn x509_ends_well() {
    ends_well(env!("CARGO_BIN_EXE_x509"), "the device is back with certificate");
}

#[test]
fn gateway_leaf_ends_well() {
    ends_well(env!("CARGO_BIN_EXE_gateway-leaf"), "and named its hub plant.azure-devices.net");
}

#[test]
fn edge_module_ends_well() {
    ends_well(env!("CARGO_BIN_EXE_edge-module"), "nothing was lost");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let refused = |variable: (&str, &str), argument: &str, says: &str| {
        let mut command = without_place(env!("CARGO_BIN_EXE_telemetry"));
        let arguments = Some(argument).filter(|argument| !argument.is_empty());
        let output = command.env(variable.0, variable.1).args(arguments).output().unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && problem.contains(says), "{problem}");
    };
    refused(("DPS_ID_SCOPE", "0ne00AB12CD"), "", "Error: the environment variable DPS_REGISTRATION_ID is missing");
    refused(("IOTHUB_DEVICE_CONNECTION_STRING", "HostName=h"), "", "DeviceId");
    refused(("IOTHUB_DEVICE_CONNECTION_STRING", "HostName=h"), "--help", "the only option is --for SECONDS");
}
