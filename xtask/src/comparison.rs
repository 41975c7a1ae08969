//! `comparison`: the same faults for this SDK and for the official Python SDK.

use crate::{Done, Outcome, shell, tools};

/// Where the table goes.
const PAGE: &str = "docs/comparison.md";

/// Installs the official SDK if it is missing, plays, and writes the page.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    let python = tools::official_python_sdk()?;
    let mut command = shell::cargo(["run", "--release", "--locked", "--package", "comparison", "--"]);
    command.arg(python).arg(shell::root().join(PAGE));
    shell::run(&mut command)?;
    Ok(Done::Ran(format!("{PAGE} is written")))
}
