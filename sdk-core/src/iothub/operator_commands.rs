//! OperatorCommands an operator gives through the twin and by a method, for applications that allow them.
//!
//! They belong to the Plug and Play component `steadfast`:
//!
//! * command `steadfast*reprovision`, body empty or `{"spread":600}`: the device registers with the Device Provisioning
//!   Service again, after a random delay up to that many seconds (default 30). Answered with 202; 400 by a device with
//!   a configured hub.
//! * writable property `spread`, whole seconds: as [`crate::Link::set_spread`].
//! * writable property `logLevel`: `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`, for the application to follow.
//!
//! Properties come as `{"steadfast":{"__t":"c","spread":900}}` and are acknowledged as the convention requires: with
//! 200, or with 400 for an invalid value.

use core::time::Duration;

use super::pnp;
use crate::json::Value;

/// The component's name.
pub const COMPONENT: &str = "steadfast";

/// The method that starts a registration.
pub const REPROVISION: &str = "steadfast*reprovision";

/// Default jitter window of a registration.
pub(super) const DEFAULT_SPREAD: Duration = Duration::from_secs(30);

/// The operator commands that a link executes. None by default, since otherwise anyone who can write the twin could
/// move devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorCommands(u8);

impl OperatorCommands {
    /// None.
    pub const NONE: Self = Self(0);
    /// Register again.
    pub const REPROVISION: Self = Self(1);
    /// Set the jitter window.
    pub const SPREAD: Self = Self(1 << 1);
    /// To log more or less.
    pub const LOG_LEVEL: Self = Self(1 << 2);
    /// All of these.
    pub const ALL: Self = Self(0b111);

    /// Returns these and `other` together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How much an application logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "the levels are those of the log facades")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What may fail.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Each packet.
    Trace,
}

/// A command that was executed, or is for the application to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperatorCommand {
    /// Register again within this time; the link does so.
    Reprovision(Duration),
    /// Set the jitter window to this time; the link does so.
    Spread(Duration),
    /// To log at this level; the application does so.
    LogLevel(LogLevel),
}

impl OperatorCommand {
    /// Reads a writable property of the component: its kind, and the command if the value is valid. A removed property
    /// is no command.
    pub(super) fn property(name: &str, value: Value<'_>) -> Option<(OperatorCommands, Option<Self>)> {
        if value.is_null() {
            return None;
        }
        match name {
            "spread" => {
                Some((OperatorCommands::SPREAD, value.as_u64().map(|secs| Self::Spread(Duration::from_secs(secs)))))
            }
            "logLevel" => {
                let levels = [
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("info", LogLevel::Info),
                    ("debug", LogLevel::Debug),
                    ("trace", LogLevel::Trace),
                ];
                let named = |level: &(&str, LogLevel)| value.as_str().is_some_and(|text| text == level.0);
                let level = levels.into_iter().find(named).map(|(_, level)| Self::LogLevel(level));
                Some((OperatorCommands::LOG_LEVEL, level))
            }
            _ => None,
        }
    }

    /// Reads the body of the command.
    pub(super) fn reprovision(body: &[u8]) -> Self {
        let text = core::str::from_utf8(body).unwrap_or_default();
        let spread = pnp::properties(text).find(|property| property.name == "spread");
        let secs = spread.and_then(|property| property.value.as_u64());
        Self::Reprovision(secs.map_or(DEFAULT_SPREAD, Duration::from_secs))
    }
}
