//! Other clients' policies, re-implemented from the published sources named at each; not those clients themselves.

use crate::client::{Answer, Ask, Client, End, Request};
use crate::dice::Dice;
use steadfast_core::ServiceKind;

/// A peer's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// azure-iot-sdk-c, `iothub_client_retry_control.c`: immediately, then 1 s doubling to 30 s from start to start;
    /// the cast to whole seconds removes the jitter of up to 5 %, and times are compared in whole seconds of the wall
    /// clock, assumed correct: devices attempt together at each full second.
    AzureC,
    /// azure-iot-sdk-python, `pipeline_stages_base.py`: 10 ms, then 10 s.
    AzurePython,
    /// azure-iot-sdk-node, `retry_policy.ts`, as coded: 100 ms and up to 25 ms for each of `2^(n-1) - 1`, up to 10 s.
    AzureNode,
    /// azure-iot-sdk-csharp v1: 100 ms and 80 to 120 ms for each of `2^n - 1`, up to 10 s after the jitter.
    AzureCsharp,
    /// azure-sdk-for-c, `az_iot_calculate_retry_delay` with its documented values: 1 s doubling to 100 s, up to 5 s of
    /// jitter while that fits below 100 s, less the time the attempt took.
    AzureEmbedded,
    /// Azure IoT Operations SDK in Rust, `reconnect_policy.rs`: immediately, then `2^(n+7)` ms up to 60 s, times 0.9 to
    /// 1.
    OperationsRust,
    /// AWS "full jitter": from 0 to 1 s doubling up to 128 s.
    FullJitter,
    /// gRPC, `connection-backoff.md`: 1 s times 1.6 up to 120 s, 20 % either way, from start to start.
    Grpc,
    /// esp-mqtt: 10 s.
    Fixed,
}

impl Peer {
    pub(crate) const ALL: [Self; 9] = [
        Self::AzureC,
        Self::AzurePython,
        Self::AzureNode,
        Self::AzureCsharp,
        Self::AzureEmbedded,
        Self::OperationsRust,
        Self::FullJitter,
        Self::Grpc,
        Self::Fixed,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AzureC => "azure-iot-sdk-c",
            Self::AzurePython => "azure-iot-sdk-python",
            Self::AzureNode => "azure-iot-sdk-node",
            Self::AzureCsharp => "azure-iot-sdk-csharp-v1",
            Self::AzureEmbedded => "azure-sdk-for-c",
            Self::OperationsRust => "iot-operations-rust",
            Self::FullJitter => "aws-full-jitter",
            Self::Grpc => "grpc",
            Self::Fixed => "fixed-10s",
        }
    }

    /// Milliseconds from the loss of a connection to the first attempt.
    fn first_delay(self, dice: &mut Dice) -> u32 {
        match self {
            Self::AzureC | Self::OperationsRust => 0,
            Self::AzurePython => 10,
            Self::AzureNode => 100,
            Self::AzureCsharp => 100,
            Self::AzureEmbedded => 1_000 + dice.between(0, 5_000),
            Self::FullJitter => dice.between(0, 1_000),
            Self::Grpc => 0,
            Self::Fixed => 10_000,
        }
    }

    /// When the attempt after the `failures`-th failure in a row begins, the last one having begun at `started`.
    fn next(self, failures: u32, started: u32, now: u32, dice: &mut Dice) -> u32 {
        let power = |exponent: u32, cap: u32| 1_u32.checked_shl(exponent.min(24)).unwrap_or(cap).min(cap);
        match self {
            Self::AzureC => {
                let secs = power(failures - 1, 30);
                let jittered = f64::from(secs) * (1.0 + dice.share() * 0.05);
                // It compares whole seconds of the wall clock, whenever the application calls it.
                now.max((started / 1_000 + jittered as u32) * 1_000) + dice.between(0, 10)
            }
            Self::AzurePython | Self::Fixed => now + 10_000,
            Self::AzureNode => {
                let steps = f64::from(power(failures, 1 << 20) - 1);
                now + (100.0 + steps * dice.share() * 25.0).min(10_000.0) as u32
            }
            Self::AzureCsharp => {
                let steps = f64::from(power(failures, 1 << 20) - 1);
                let delay = (100.0 + steps * (80.0 + dice.share() * 40.0)).min(10_000.0) as u32;
                (now + delay).max(started + 1_000)
            }
            Self::AzureEmbedded => {
                let base = power(failures, 100) * 1_000;
                let jitter = dice.between(0, 5_000);
                let delay = if base + jitter <= 100_000 { base + jitter } else { base };
                now.max(started + delay)
            }
            Self::OperationsRust => {
                let base = f64::from(power(failures + 7, 60_000));
                now + (base * (0.9 + dice.share() * 0.1)) as u32
            }
            Self::FullJitter => now + dice.between(0, power(failures, 128) * 1_000),
            Self::Grpc => {
                // Not `powi`, whose last bit depends on the platform.
                let base = (1..failures.min(30)).fold(1.0, |base, _| base * 1.6_f64).min(120.0) * 1_000.0;
                now.max(started + (base * (0.8 + dice.share() * 0.4)) as u32)
            }
        }
    }
}

/// How a fleet of peers is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSettings {
    pub(crate) peer: Peer,
    /// How long it waits for a SYN to be answered.
    pub(crate) connect_ms: u32,
    /// How long it waits for CONNACK.
    pub(crate) connack_ms: u32,
    /// Failures in a row after which it registers again, as in the official guide.
    pub(crate) provision_after: Option<u32>,
}

/// A device that follows a peer's policy.
#[derive(Clone, Debug)]
pub(crate) struct PeerDevice<'c> {
    settings: &'c PeerSettings,
    failures: u32,
    started: u32,
    state: Place,
    provisioning: bool,
}

/// The state of a peer's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Trying,
    Polling,
    Up,
}

impl<'c> PeerDevice<'c> {
    pub(crate) const fn settled(settings: &'c PeerSettings) -> Self {
        Self { settings, failures: 0, started: 0, state: Place::Up, provisioning: false }
    }

    fn failed(&mut self, now: u32, dice: &mut Dice) -> Ask {
        let down = self.state == Place::Up;
        let at = if down {
            self.failures = 0;
            now + self.settings.peer.first_delay(dice)
        } else {
            self.failures += 1;
            let limit = self.settings.provision_after;
            if !self.provisioning && limit.is_some_and(|limit| self.failures >= limit) {
                self.provisioning = true;
                self.failures = 1;
            }
            self.settings.peer.next(self.failures, self.started, now, dice).max(now)
        };
        self.state = Place::Waiting;
        Ask { down, deadline: Some(at), ..Ask::default() }
    }
}

impl Client for PeerDevice<'_> {
    fn wake(&mut self, now: u32, dice: &mut Dice) -> Ask {
        match self.state {
            Place::Waiting => {
                self.state = Place::Trying;
                self.started = now;
                let role = if self.provisioning { ServiceKind::Provisioning } else { ServiceKind::Hub };
                Ask { connect: Some(role), deadline: Some(now + self.settings.connect_ms), ..Ask::default() }
            }
            Place::Trying => self.failed(now, dice),
            Place::Polling => Ask { request: Some(Request::Poll), ..Ask::default() },
            Place::Up => Ask::default(),
        }
    }

    fn ready(&mut self, now: u32) -> Option<u32> {
        Some(now + self.settings.connack_ms)
    }

    fn accept(&mut self, _: u32, _: &mut Dice) -> Ask {
        if self.provisioning {
            return Ask { request: Some(Request::Register), ..Ask::default() };
        }
        self.state = Place::Up;
        self.failures = 0;
        Ask { up: true, ..Ask::default() }
    }

    fn end(&mut self, how: End, now: u32, dice: &mut Dice) -> Ask {
        if how == End::Unknown && self.settings.provision_after.is_some() {
            self.provisioning = true;
        }
        self.failed(now, dice)
    }

    fn answer(&mut self, answer: Answer, now: u32, dice: &mut Dice) -> Ask {
        match answer {
            Answer::Assigning => {
                self.state = Place::Polling;
                Ask { deadline: Some(now + crate::service::ASSIGNING_SECS * 1_000), ..Ask::default() }
            }
            Answer::Assigned(_) => {
                self.provisioning = false;
                self.failures = 0;
                self.state = Place::Waiting;
                Ask { deadline: Some(now), ..Ask::default() }
            }
            Answer::Throttled => {
                self.state = Place::Trying;
                self.failed(now, dice)
            }
        }
    }
}
