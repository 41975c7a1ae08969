//! Errors of the emulator's calls.

use std::fmt;
use std::path::PathBuf;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The hub name is not a host name, or appears twice.
    HubName(String),
    /// There is no hub of this name.
    NoSuchHub(String),
    /// There is no such device at the hub.
    NoSuchDevice(String),
    /// There is no such enrollment.
    NoSuchEnrollment(String),
    /// The device is not connected or not subscribed.
    NotListening(String),
    /// The cloud-to-device queue of the device is full.
    QueueFull,
    /// The device never connected, so nothing is queued for it.
    NeverConnected(String),
    /// The device did not respond in time.
    NoAnswer,
    /// The twin's version differs from the expected one.
    Conflict,
    /// A certificate or key could not be created or read.
    Certificate(String),
    /// A port could not be opened.
    Listen(String, std::io::Error),
    /// A file could not be written.
    Write(PathBuf, std::io::Error),
    /// A request or argument is invalid.
    Request(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HubName(name) => write!(f, "hub name {name:?} is not a host name or appears twice"),
            Self::NoSuchHub(name) => write!(f, "there is no hub {name:?}"),
            Self::NoSuchDevice(id) => write!(f, "there is no device {id:?} at this hub"),
            Self::NoSuchEnrollment(name) => write!(f, "there is no enrollment {name:?}"),
            Self::NotListening(id) => write!(f, "device {id:?} is not connected or has not subscribed"),
            Self::QueueFull => f.write_str("the queue of the device is full: 50 messages wait"),
            Self::NeverConnected(id) => write!(f, "device {id:?} never connected, so nothing is queued for it"),
            Self::NoAnswer => f.write_str("the device did not respond in time"),
            Self::Conflict => f.write_str("the twin's version differs from the expected one"),
            Self::Certificate(why) => write!(f, "certificate: {why}"),
            Self::Listen(what, error) => write!(f, "cannot listen on {what}: {error}"),
            Self::Write(path, error) => write!(f, "cannot write {}: {error}", path.display()),
            Self::Request(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}
