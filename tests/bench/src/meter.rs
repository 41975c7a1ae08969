//! Reading the clock, the processor time and the memory of this process.

use crate::order::{Answer, Order};
use std::time::{Duration, Instant};

/// Measures from the end of the warm-up for the ordered time.
#[derive(Debug)]
pub(crate) struct Meter {
    warm_until: Instant,
    length: Duration,
    started: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    cpu: Duration,
    acked: u64,
}

impl Meter {
    /// Starts the warm-up.
    pub(crate) fn new(order: &Order) -> Self {
        Self { warm_until: Instant::now() + order.warm_up(), length: order.measure(), started: None }
    }

    /// Takes the number of messages acknowledged so far, and returns the answer once the measurement is over.
    pub(crate) fn tick(&mut self, acked: u64) -> Option<Answer> {
        let at = Instant::now();
        match self.started {
            None if at >= self.warm_until => self.started = Some(Reading { at, cpu: cpu_time(), acked }),
            None => {}
            Some(start) if at - start.at >= self.length => {
                return Some(Answer {
                    acked: acked - start.acked,
                    seconds: (at - start.at).as_secs_f64(),
                    cpu_us: (cpu_time().saturating_sub(start.cpu)).as_secs_f64() * 1e6,
                    ..Answer::default()
                });
            }
            Some(_) => {}
        }
        None
    }
}

/// Returns the processor time this process has taken.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns the resident memory of this process in bytes.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn resident_bytes() -> Result<f64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0).ok_or_else(|| "/proc/self/status tells no VmRSS".into())
}
