//! A fleet of devices in virtual time, each with the real link.
//!
//! [`main`] is the program. [`Herd`] forecasts the behaviour of a fleet on real sockets, so that a test can check the
//! simulator.
#![expect(
    clippy::cast_possible_truncation,
    reason = "figures of the simulation are far below the limits of their types"
)]
#![expect(clippy::print_stdout, reason = "printing tables is what it is for")]

mod bench;
mod chart;
mod cli;
mod client;
mod contest;
mod dice;
mod fleet;
mod forecast;
mod ours;
mod peers;
mod plan;
mod progress;
mod service;
mod show;
mod snapshot;
mod wheel;

pub use cli::main;
pub use forecast::{Forecast, Herd};
