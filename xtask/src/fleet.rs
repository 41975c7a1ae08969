//! `fleet`: the fleet's behaviour against its snapshot.

use crate::{Done, Outcome, shell};

/// Simulates the fleets of `docs/fleet.md` with the real link and compares; `--write` takes what is measured.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let write = shell::take_flag(&mut arguments, "--write");
    shell::expect_none(&arguments)?;
    let mut command = shell::cargo(["run", "--release", "--locked", "--package", "fleet-sim", "--", "snapshot"]);
    if !write {
        command.arg("--check");
    }
    shell::run(&mut command)?;
    Ok(Done::Ran("docs/fleet.md is as measured".into()))
}
