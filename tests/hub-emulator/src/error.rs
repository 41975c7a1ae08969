//! What can go wrong in a call.

use std::fmt;
use std::path::PathBuf;

/// Why an emulator did not start or a name was not accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A hub name has characters that no host name has, or appears twice.
    HubName(String),
    /// There is no hub of this name.
    NoSuchHub(String),
    /// There is no such device at the hub.
    NoSuchDevice(String),
    /// There is no such enrollment.
    NoSuchEnrollment(String),
    /// The device is not connected, or does not listen to what was sent.
    NotListening(String),
    /// The queue of messages to the device is full.
    QueueFull,
    /// The device never connected, so that nothing is kept for it.
    NeverConnected(String),
    /// The device did not answer in time.
    NoAnswer,
    /// The twin has another version than expected.
    Conflict,
    /// A certificate or key could not be made or read.
    Certificate(String),
    /// A port could not be opened.
    Listen(String, std::io::Error),
    /// A file could not be written.
    Write(PathBuf, std::io::Error),
    /// A request to the control port makes no sense.
    Request(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HubName(name) => write!(f, "hub name {name:?} is no host name or appears twice"),
            Self::NoSuchHub(name) => write!(f, "there is no hub {name:?}"),
            Self::NoSuchDevice(id) => write!(f, "there is no device {id:?} at this hub"),
            Self::NoSuchEnrollment(name) => write!(f, "there is no enrollment {name:?}"),
            Self::NotListening(id) => write!(f, "device {id:?} is not connected or has not subscribed"),
            Self::QueueFull => f.write_str("50 messages wait for the device, which is the limit"),
            Self::NeverConnected(id) => write!(f, "device {id:?} never connected, so nothing is kept for it"),
            Self::NoAnswer => f.write_str("the device did not answer in time"),
            Self::Conflict => f.write_str("the twin has another version than expected"),
            Self::Certificate(why) => write!(f, "certificate: {why}"),
            Self::Listen(what, error) => write!(f, "cannot listen on {what}: {error}"),
            Self::Write(path, error) => write!(f, "cannot write {}: {error}", path.display()),
            Self::Request(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}
