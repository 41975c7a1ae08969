//! Wi-Fi of a device, through `embedded-svc`: its loss ends the connection immediately, and without it no connection is
//! attempted.

use core::time::Duration;

use embedded_svc::wifi::Wifi;
use steadfast_core::{Failure, Instant};

use crate::board::{Connect, Dial, OwnedDial};
use crate::nonblocking;

/// The station's change since the last check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Nothing.
    None,
    /// It has joined its access point.
    Joined,
    /// It has lost its access point: call `network_lost` of the device.
    Lost,
}

/// Keeps a configured station joined: rejoins after each loss, at a fixed interval.
#[derive(Debug)]
pub struct Station<W> {
    wifi: W,
    joined: bool,
    next_try: Instant,
    pace: Duration,
}

impl<W: Wifi> Station<W> {
    /// Uses `wifi`, whose configuration names the access point. `pace` is the minimum interval between two attempts to
    /// join; 5 s suits most access points.
    pub const fn new(wifi: W, pace: Duration) -> Self {
        Self { wifi, joined: false, next_try: Instant::ORIGIN, pace }
    }

    /// Checks the station, and starts joining if necessary; call it between two `poll`s.
    ///
    /// # Errors
    /// The driver's. The station counts as lost then, and the next call tries again.
    pub fn tend(&mut self, now: Instant) -> Result<Change, W::Error> {
        match self.is_joined_or_asked(now) {
            Ok(joined) => Ok(self.note(joined)),
            Err(error) if self.note(false) == Change::None => Err(error),
            // The loss is the news; the error comes again with the next call, if it stays.
            Err(_) => Ok(Change::Lost),
        }
    }

    /// Returns whether the station had joined at the last look.
    pub const fn is_joined(&self) -> bool {
        self.joined
    }

    /// Returns the driver.
    pub const fn wifi_mut(&mut self) -> &mut W {
        &mut self.wifi
    }

    fn is_joined_or_asked(&mut self, now: Instant) -> Result<bool, W::Error> {
        if self.wifi.is_started()? && self.wifi.is_connected()? {
            return Ok(true);
        }
        if now >= self.next_try {
            self.next_try = now.after(self.pace);
            if !self.wifi.is_started()? {
                self.wifi.start()?;
            }
            self.wifi.connect()?;
        }
        Ok(false)
    }

    fn note(&mut self, joined: bool) -> Change {
        let before = core::mem::replace(&mut self.joined, joined);
        match (before, joined) {
            (false, true) => Change::Joined,
            (true, false) => Change::Lost,
            (false, false) | (true, true) => Change::None,
        }
    }
}

/// A connector that connects only while the station is joined.
///
/// Without Wi-Fi a connection fails immediately with [`Failure::Network`] instead of after a timeout, so the device
/// notices the return of the network sooner.
#[derive(Debug)]
pub struct OverWifi<W, C> {
    wifi: W,
    connector: C,
}

impl<W: Wifi, C> OverWifi<W, C> {
    /// Connects with `connector` while `wifi` is connected.
    pub const fn new(wifi: W, connector: C) -> Self {
        Self { wifi, connector }
    }

    fn check(&self) -> Result<(), Failure> {
        if self.wifi.is_connected().unwrap_or(false) { Ok(()) } else { Err(Failure::Network) }
    }
}

impl<W: Wifi, C: Connect> Connect for OverWifi<W, C> {
    type Stream = C::Stream;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Self::Stream, Failure> {
        self.check()?;
        self.connector.connect(dial)
    }
}

impl<W: Wifi, C: nonblocking::Connect> nonblocking::Connect for OverWifi<W, C> {
    type Stream = C::Stream;
    type Dialling = C::Dialling;

    fn connect(&mut self, dial: &OwnedDial) -> Result<C::Dialling, Failure> {
        self.check()?;
        self.connector.connect(dial)
    }
}

#[cfg(test)]
mod tests {
    use embedded_svc::wifi::{AccessPointInfo, Capability, Configuration};

    use super::*;

    /// Joins when it is asked to while the access point is there.
    #[derive(Default)]
    struct Radio {
        started: bool,
        joined: bool,
        reachable: bool,
        broken: bool,
        asked: usize,
    }

    impl Wifi for Radio {
        type Error = &'static str;

        fn get_capabilities(&self) -> Result<enumset::EnumSet<Capability>, Self::Error> {
            Ok(enumset::EnumSet::empty())
        }

        fn get_configuration(&self) -> Result<Configuration, Self::Error> {
            Ok(Configuration::None)
        }

        fn set_configuration(&mut self, _: &Configuration) -> Result<(), Self::Error> {
            Ok(())
        }

        fn start(&mut self) -> Result<(), Self::Error> {
            self.started = true;
            Ok(())
        }

        fn stop(&mut self) -> Result<(), Self::Error> {
            self.started = false;
            Ok(())
        }

        fn connect(&mut self) -> Result<(), Self::Error> {
            self.asked += 1;
            self.joined = self.reachable;
            Ok(())
        }

        fn disconnect(&mut self) -> Result<(), Self::Error> {
            self.joined = false;
            Ok(())
        }

        fn is_started(&self) -> Result<bool, Self::Error> {
            if self.broken { Err("driver") } else { Ok(self.started) }
        }

        fn is_connected(&self) -> Result<bool, Self::Error> {
            Ok(self.joined && self.reachable)
        }

        fn scan_n<const N: usize>(&mut self) -> Result<(heapless::Vec<AccessPointInfo, N>, usize), Self::Error> {
            Ok((heapless::Vec::new(), 0))
        }
    }

    #[test]
    fn a_station_is_started_joined_and_joined_again_at_a_steady_pace() {
        let mut station = Station::new(Radio::default(), Duration::from_secs(5));
        let at = |millis| Instant::from_millis(millis);
        for millis in (0..20_000).step_by(100) {
            assert_eq!(station.tend(at(millis)), Ok(Change::None));
        }
        assert_eq!(station.wifi_mut().asked, 4);
        station.wifi_mut().reachable = true;
        assert_eq!(station.tend(at(20_000)), Ok(Change::None));
        assert_eq!(station.tend(at(20_100)), Ok(Change::Joined));
        assert_eq!(station.tend(at(20_200)), Ok(Change::None));
        station.wifi_mut().reachable = false;
        assert_eq!(station.tend(at(30_000)), Ok(Change::Lost));
        assert!(!station.is_joined());
    }

    #[test]
    fn a_broken_driver_is_a_loss_first_and_an_error_after_that() {
        let radio = Radio { started: true, joined: true, reachable: true, ..Radio::default() };
        let mut station = Station::new(radio, Duration::from_secs(5));
        assert_eq!(station.tend(Instant::ORIGIN), Ok(Change::Joined));
        station.wifi_mut().broken = true;
        assert_eq!(station.tend(Instant::ORIGIN), Ok(Change::Lost));
        assert_eq!(station.tend(Instant::ORIGIN), Err("driver"));
    }

    #[test]
    fn nothing_is_dialled_without_wifi() {
        struct Never;
        impl Connect for Never {
            type Stream = crate::board::tests::NoStream;

            fn connect(&mut self, _: &Dial<'_>) -> Result<Self::Stream, Failure> {
                Err(Failure::ConnectTimeout)
            }
        }
        let dial = crate::board::tests::DIAL;
        let over = |joined| OverWifi::new(Radio { joined, reachable: true, ..Radio::default() }, Never);
        assert_eq!(over(false).connect(&dial).err(), Some(Failure::Network));
        assert_eq!(over(true).connect(&dial).err(), Some(Failure::ConnectTimeout));
    }
}
