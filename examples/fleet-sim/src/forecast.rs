//! The simulator's forecast for a fleet on real sockets.

use crate::contest::Player;
use crate::fleet::{Outcome, Scenario};
use crate::service::Model;
use core::time::Duration;
use steadfast_core::RetryPolicy;

/// A fleet that loses a hub, which then admits devices at a limited rate: the input of a [`Forecast`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Herd {
    /// Devices, all connected for longer than [`RetryPolicy::reset_after`].
    pub devices: u32,
    /// The back-off of each of them.
    pub retry: RetryPolicy,
    /// CONNECTs the hub admits in a second.
    pub per_second: u32,
    /// Burst of CONNECTs accepted after a quiet time.
    pub burst: u32,
    /// CONNECTs that wait for their turn; the connections of the others are closed.
    pub queue: u32,
    /// How long the hub does not listen, in whole seconds. Attempts meanwhile fail immediately.
    pub outage_secs: u32,
    /// Longest time until a device detects the loss. Default 20 ms.
    pub notice: Duration,
    /// Longest time of an attempt without the wait in the queue. Default 10 ms.
    pub reply: Duration,
}

/// The forecast. Times count from the return of the hub.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Forecast {
    /// Connection attempts in the busiest second after the return; seconds begin with the loss.
    pub peak_per_second: f64,
    /// The same for the busiest three seconds in a row, as attempts a second.
    pub wave_per_second: f64,
    /// Attempts after the return, mean over the devices.
    pub attempts: f64,
    /// When half of the devices are back.
    pub half: Duration,
    /// When 99 % are.
    pub most: Duration,
    /// When all are.
    pub all: Duration,
}

impl Herd {
    /// A fleet whose hub admits `per_second`, with a burst of one second and a queue of two, after an outage of 5 s.
    #[must_use]
    pub const fn new(devices: u32, retry: RetryPolicy, per_second: u32) -> Self {
        Self {
            devices,
            retry,
            per_second,
            burst: per_second,
            queue: per_second.saturating_mul(2),
            outage_secs: 5,
            notice: Duration::from_millis(20),
            reply: Duration::from_millis(10),
        }
    }

    /// Simulates it; each seed is another draw of all delays. `None` if not all devices were back within 100 times the
    /// ideal.
    #[must_use]
    pub fn forecast(&self, seed: u64) -> Option<Forecast> {
        let rate = f64::from(self.per_second.max(1));
        let model = Model::Queue { burst_secs: f64::from(self.burst) / rate, secs: f64::from(self.queue) / rate };
        let drain = f64::from(self.devices) / rate;
        let mut scenario = Scenario::outage(self.devices, drain, f64::from(self.outage_secs), model);
        let reply = self.reply.as_millis() as u32;
        scenario.notice_ms = self.notice.as_millis() as u32;
        scenario.reply_ms = (0, reply);
        scenario.unreached_ms = (0, reply);
        scenario.horizon_ms = (drain * 100_000.0) as u32;
        let outcome = Player::preset("herd", self.retry).play(&scenario, seed, &mut |_, _| {});
        Forecast::of(&outcome)
    }
}

impl Forecast {
    fn of(outcome: &Outcome) -> Option<Self> {
        let back = |share| outcome.back_secs(share).map(Duration::from_secs_f64);
        Some(Self {
            peak_per_second: f64::from(outcome.busiest(1)),
            wave_per_second: f64::from(outcome.busiest(3)) / 3.0,
            attempts: outcome.mean_attempts(),
            half: back(0.5)?,
            most: back(0.99)?,
            all: back(1.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_takes_all_at_once_has_them_back_within_the_first_delays() {
        let herd = Herd { burst: 500, outage_secs: 0, ..Herd::new(500, RetryPolicy::DEFAULT, 100) };
        let forecast = herd.forecast(1).unwrap();
        assert!(forecast.all <= Duration::from_millis(3_050), "{forecast:?}");
        assert!((forecast.attempts - 1.0).abs() < 1e-9, "{forecast:?}");
    }

    #[test]
    fn nobody_overtakes_the_rate_of_the_hub() {
        let herd = Herd::new(2_000, RetryPolicy::DEFAULT.divided_by(10), 100);
        let forecast = herd.forecast(1).unwrap();
        assert!(forecast.all >= Duration::from_secs(19), "{forecast:?}");
        assert!(forecast.half >= Duration::from_secs(9), "{forecast:?}");
    }
}
