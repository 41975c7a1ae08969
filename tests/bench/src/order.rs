//! What a peer is asked to do, and what it answers.
//!
//! Every peer runs as a process of its own, so that its processor time and memory are its own. It gets an [`Order`] as
//! arguments and prints one [`Answer`] as a line of JSON.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

/// The topic of every message: 33 bytes, the length of an IoT Hub telemetry topic with a device id of 8 bytes.
pub(crate) const TOPIC: &str = "devices/bench-01/messages/events/";

/// What a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Publishes at QoS 1 as fast as its window allows.
    Throughput,
    /// Connects many clients and lets them idle.
    Idle,
    /// Publishes every 20 ms until standard input ends, across an outage.
    Outage,
}

/// The arguments of a peer.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Order {
    /// What to do.
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    /// Port of the sink on 127.0.0.1.
    #[arg(long)]
    pub(crate) port: u16,
    /// Most messages without acknowledgement.
    #[arg(long, default_value_t = 1)]
    pub(crate) window: u16,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 100)]
    pub(crate) payload: usize,
    /// Milliseconds before the measurement starts.
    #[arg(long, default_value_t = 150)]
    pub(crate) warm_up: u64,
    /// Milliseconds of the measurement.
    #[arg(long, default_value_t = 500)]
    pub(crate) measure: u64,
    /// Number of clients that idle.
    #[arg(long, default_value_t = 1000)]
    pub(crate) clients: usize,
    /// Milliseconds a peer without a policy of its own waits after an error.
    #[arg(long, default_value_t = 0)]
    pub(crate) pause: u64,
    /// Trust anchor as a PEM file; TLS 1.3 is spoken when it is given.
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
}

impl Order {
    /// Returns the payload to publish.
    pub(crate) fn payload(&self) -> Vec<u8> {
        vec![b'x'; self.payload]
    }

    /// Returns the time before the measurement starts.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(self.warm_up)
    }

    /// Returns the time of the measurement.
    pub(crate) fn measure(&self) -> Duration {
        Duration::from_millis(self.measure)
    }

    /// Returns the order as arguments.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mode = match self.mode {
            Mode::Throughput => "throughput",
            Mode::Idle => "idle",
            Mode::Outage => "outage",
        };
        let mut arguments = vec![OsString::from("--mode"), mode.into()];
        let numbers = [
            ("--port", u64::from(self.port)),
            ("--window", u64::from(self.window)),
            ("--payload", self.payload as u64),
            ("--warm-up", self.warm_up),
            ("--measure", self.measure),
            ("--clients", self.clients as u64),
            ("--pause", self.pause),
        ];
        for (name, number) in numbers {
            arguments.extend([OsString::from(name), number.to_string().into()]);
        }
        if let Some(ca) = &self.ca {
            arguments.extend([OsString::from("--ca"), ca.into()]);
        }
        arguments
    }
}

/// What a peer found; which members count depends on the mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    /// Messages acknowledged during the measurement.
    pub(crate) acked: u64,
    /// Length of the measurement in seconds.
    pub(crate) seconds: f64,
    /// Processor time of the peer during the measurement, in microseconds.
    pub(crate) cpu_us: f64,
    /// Growth of resident memory per idle client, in bytes.
    pub(crate) bytes_per_client: f64,
    /// Part of `bytes_per_client` that is the queue the client was configured with.
    pub(crate) queue_bytes: f64,
    /// Attempts to connect during the run.
    pub(crate) attempts: u64,
}

impl Answer {
    /// Prints the answer as one line.
    #[expect(clippy::print_stdout, reason = "the process that ordered reads it there")]
    pub(crate) fn print(&self) -> Result<(), String> {
        println!("{}", serde_json::to_string(self).map_err(|error| error.to_string())?);
        Ok(())
    }
}

/// Calls `then` in a thread once standard input has ended: the sign to stop.
pub(crate) fn when_input_ends(then: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        // An error ends the input as well.
        let _ = std::io::stdin().read_to_end(&mut rest);
        then();
    });
}
