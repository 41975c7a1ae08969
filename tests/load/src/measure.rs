//! What was measured, against what was foretold.

use std::fmt;
use std::time::Duration;

use fleet_sim::Forecast;

/// What a herd did. Times count from the return of the hub.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Measured {
    /// Connection attempts in the busiest second after the return; seconds begin with the loss.
    pub peak_per_second: f64,
    /// The same for the busiest three seconds in a row, as attempts a second.
    pub wave_per_second: f64,
    /// Attempts after the return, mean over the devices.
    pub attempts: f64,
    /// When half of the devices were back.
    pub half: Duration,
    /// When 99 % were.
    pub most: Duration,
    /// When all were.
    pub all: Duration,
}

impl Measured {
    /// Takes the instants of all attempts since the loss, the length of the outage, and the returns in ascending order.
    ///
    /// `None` when there is no return.
    #[must_use]
    pub fn of(attempts: &[Duration], outage: Duration, returns: &[Duration]) -> Option<Self> {
        let mut seconds = Vec::<u32>::new();
        let after = attempts.iter().filter(|at| **at >= outage);
        for at in after.clone() {
            let second = usize::try_from(at.as_secs()).ok()?;
            seconds.resize(seconds.len().max(second + 1), 0);
            *seconds.get_mut(second)? += 1;
        }
        let rank = |share: usize| returns.get((returns.len() * share).div_ceil(100).saturating_sub(1)).copied();
        let devices = u32::try_from(returns.len()).ok()?;
        Some(Self {
            peak_per_second: busiest(&seconds, 1),
            wave_per_second: busiest(&seconds, 3),
            attempts: after.count() as f64 / f64::from(devices),
            half: rank(50)?,
            most: rank(99)?,
            all: rank(100)?,
        })
    }
}

/// Returns the most in so many seconds in a row, per second.
fn busiest(seconds: &[u32], row: u32) -> f64 {
    let sums = seconds.windows(row as usize).map(|part| part.iter().sum::<u32>());
    f64::from(sums.max().unwrap_or(0)) / f64::from(row)
}

/// One figure: what was foretold with several seeds, and what was measured.
#[derive(Clone, Debug)]
pub struct Band {
    name: &'static str,
    foretold: Vec<f64>,
    measured: f64,
}

impl Band {
    /// Returns all figures.
    #[must_use]
    pub fn all(forecasts: &[Forecast], measured: &Measured) -> [Self; 6] {
        let band = |name, of: &dyn Fn(&Forecast) -> f64, measured| Self {
            name,
            foretold: forecasts.iter().map(of).collect(),
            measured,
        };
        [
            band("peak, attempts a second", &|one| one.peak_per_second, measured.peak_per_second),
            band("wave of 3 s, attempts a s", &|one| one.wave_per_second, measured.wave_per_second),
            band("attempts of a device", &|one| one.attempts, measured.attempts),
            band("t50, s", &|one| one.half.as_secs_f64(), measured.half.as_secs_f64()),
            band("t99, s", &|one| one.most.as_secs_f64(), measured.most.as_secs_f64()),
            band("t100, s", &|one| one.all.as_secs_f64(), measured.all.as_secs_f64()),
        ]
    }

    fn mean(&self) -> f64 {
        self.foretold.iter().sum::<f64>() / self.foretold.len().max(1) as f64
    }

    /// Returns how far the measurement is from the mean forecast, as a part of that.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        (self.measured - self.mean()) / self.mean()
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.foretold.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.foretold.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let Self { name, measured, .. } = self;
        let (mean, percent) = (self.mean(), self.deviation() * 100.0);
        write!(f, "{name:25} {mean:8.2} ({least:.2} to {most:.2}) foretold, {measured:8.2} measured: {percent:+.1} %")
    }
}
