//! A fleet of devices in virtual time, each with the real link.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_sim::main()
}
