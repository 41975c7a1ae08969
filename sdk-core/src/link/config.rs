//! The settings of a session, common to all services.

use core::fmt;
use core::time::Duration;

use super::timeouts::Timeouts;
use crate::retry::RetryPolicy;
use crate::time::millis;

/// The policy of a full outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The new message is refused: [`crate::PublishError::Full`].
    #[default]
    RejectNewest,
    /// The oldest messages that are not in flight are evicted, each reported as [`crate::Event::Dropped`]: normal ones
    /// first, urgent ones only for an urgent one.
    DropOldest,
    /// A new normal message is refused; for an urgent one the oldest normal messages that are not in flight are
    /// evicted.
    DropForUrgent,
}

/// The settings of a session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SessionConfig {
    /// Whether the service is to forget its side of the session. Default false, so that messages to the device wait.
    pub clean_session: bool,
    /// The keep-alive interval, from 1 s to the service's maximum: 1,177 s for IoT Hub
    /// (`iot-mqtt-connect-to-iot-hub.md`: it waits 1.5 times as long, and never longer than 29.45 min), 65,535 s for a
    /// broker. Default 240 s.
    pub keep_alive: Duration,
    /// Most publishes without an acknowledgement, 1 to 32,767. Default 16.
    pub window: u16,
    /// The policy of a full outbox. Default [`Overflow::RejectNewest`].
    pub overflow: Overflow,
    /// The expiry of messages that have none of their own. Default: messages do not expire.
    pub expiry: Option<Duration>,
    /// After how many connections in a row that ended with only this message in flight it is dead-lettered as a poison
    /// message. Default `None`: never, since otherwise a temporarily broken hub would cost messages.
    pub poison_threshold: Option<u8>,
    /// Largest packet accepted from the service, in bytes. Default 307,200: the largest message to a module's input,
    /// with properties of any length. A larger one ends the connection.
    pub max_inbound: usize,
    /// Largest packet the frontend can send, in bytes. Default 307,200: the largest telemetry message, with properties of
    /// any length.
    pub max_outbound: usize,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Back-off.
    pub retry: RetryPolicy,
}

impl SessionConfig {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        clean_session: false,
        keep_alive: Duration::from_secs(240),
        window: 16,
        overflow: Overflow::RejectNewest,
        expiry: None,
        poison_threshold: None,
        max_inbound: 300 * 1024,
        max_outbound: 300 * 1024,
        timeouts: Timeouts::DEFAULT,
        retry: RetryPolicy::DEFAULT,
    };

    /// Checks everything that is known before the first packet, for a service with a keep-alive interval of at most
    /// `longest_keep_alive`.
    ///
    /// # Errors
    /// [`SessionConfigError`], naming the setting.
    pub const fn check(&self, longest_keep_alive: Duration) -> Result<(), SessionConfigError> {
        if let Err(error) = within(Setting::KeepAlive, self.keep_alive, 1_000, millis(longest_keep_alive)) {
            return Err(error);
        }
        let times = &self.timeouts;
        let timeouts = [
            times.connect,
            times.tls,
            times.connack,
            times.connack_longest,
            times.suback,
            times.puback,
            times.drain,
            times.sign,
            times.provisioning_answer,
            times.provisioning,
        ];
        let mut rest: &[Duration] = &timeouts;
        while let [timeout, behind @ ..] = rest {
            if let Err(error) = within(Setting::Timeout, *timeout, 1, 86_400_000) {
                return Err(error);
            }
            rest = behind;
        }
        if self.retry.first_jitter.is_zero() || self.retry.min_delay.is_zero() || self.retry.overload_jitter.is_zero() {
            return Err(SessionConfigError::NoJitter);
        }
        if self.window == 0 || self.window > 0x7fff {
            return Err(SessionConfigError::Window(self.window));
        }
        Ok(())
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Checks that a time is from `least_ms` to `most_ms`.
pub(crate) const fn within(
    setting: Setting,
    time: Duration,
    least_ms: u64,
    most_ms: u64,
) -> Result<(), SessionConfigError> {
    let value_ms = millis(time);
    if least_ms <= value_ms && value_ms <= most_ms {
        Ok(())
    } else {
        Err(SessionConfigError::OutOfRange { setting, value_ms, least_ms, most_ms })
    }
}

/// A time that can be out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// The keep-alive interval.
    KeepAlive,
    /// The token lifetime.
    TokenLifetime,
    /// One of the timeouts.
    Timeout,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepAlive => "keep-alive interval",
            Self::TokenLifetime => "token lifetime",
            Self::Timeout => "timeout",
        })
    }
}

/// An error in a [`SessionConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionConfigError {
    /// A time is out of its range.
    OutOfRange {
        /// Which.
        setting: Setting,
        /// Its value in milliseconds.
        value_ms: u64,
        /// Least value in milliseconds.
        least_ms: u64,
        /// Greatest value in milliseconds.
        most_ms: u64,
    },
    /// The window is not within 1 to 32,767.
    Window(u16),
    /// A jitter window of the back-off is zero, so a fleet would reconnect in step.
    NoJitter,
}

impl fmt::Display for SessionConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { setting, value_ms, least_ms, most_ms } => {
                write!(f, "{setting} is {value_ms} ms; it must be {least_ms} to {most_ms} ms")
            }
            Self::Window(window) => write!(f, "window is {window}; it must be 1 to 32767 messages"),
            Self::NoJitter => {
                f.write_str("first_jitter, min_delay and overload_jitter of the back-off must be above zero")
            }
        }
    }
}

impl core::error::Error for SessionConfigError {}
