//! The status of a device: that of its link, with the host it is about.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use steadfast_core::{HubProfile as _, Instant, Profile as _, Residence, ServiceKind};

use crate::shared::DeviceLink;

/// The status of a device's link: state, cause, next attempt and advice, with the host that the link is connected to or
/// tried last. Its `Display` is a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    link: steadfast_core::Status,
    peer: Option<Peer>,
    failed: Option<Peer>,
}

/// A service by its kind and host name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    kind: Kind,
    host: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dps,
    IotHub,
    Broker,
}

impl Status {
    /// Returns the status with the durations in it counted up to `now`.
    #[must_use]
    pub fn at(self, now: Instant) -> Self {
        Self { link: self.link.at(now), ..self }
    }

    /// Returns the host name of the service that the link is connected to, is connecting to, or tried last; before the first
    /// attempt, of its hub or broker, `None` while DPS has not named one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.peer.as_ref().map(|peer| &*peer.host)
    }

    /// Returns the host name of the service at which [`last_failure`](steadfast_core::Status::last_failure) happened.
    #[must_use]
    pub fn failed_host(&self) -> Option<&str> {
        self.failed.as_ref().map(|failed| &*failed.host)
    }
}

impl Deref for Status {
    type Target = steadfast_core::Status;

    fn deref(&self) -> &steadfast_core::Status {
        &self.link
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(peer) = &self.peer {
            write!(f, "{peer}: ")?;
        }
        self.link.fmt(f)?;
        match &self.failed {
            Some(failed) if self.failed != self.peer => write!(f, "; the latest failure was at the {failed}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Dps => "DPS",
            Kind::IotHub => "IoT hub",
            Kind::Broker => "broker",
        };
        write!(f, "{kind} {}", self.host)
    }
}

/// The services that the latest status was about.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    current: Option<Peer>,
    failed: Option<Peer>,
    /// Failures when `failed` was noted.
    failures: u32,
}

impl Peers {
    /// Takes the status of `link`. Call it after each failure, before the next attempt starts.
    pub(crate) fn look(&mut self, link: &DeviceLink) -> Status {
        let link = link.link();
        let status = link.status();
        let endpoint = link.profile().endpoint();
        let kind = match endpoint.role {
            ServiceKind::Provisioning => Kind::Dps,
            _ if link.profile().residence() == Residence::NoHub => Kind::Broker,
            ServiceKind::Hub | _ => Kind::IotHub,
        };
        let same = self.current.take().filter(|peer| peer.kind == kind && *peer.host == *endpoint.host);
        let made = || (!endpoint.host.is_empty()).then(|| Peer { kind, host: Arc::from(endpoint.host) });
        let peer = same.or_else(made);
        if status.failures != self.failures {
            self.failures = status.failures;
            self.failed.clone_from(&peer);
        }
        if status.last_failure.is_none() {
            self.failed = None;
        }
        self.current.clone_from(&peer);
        Status { link: status, peer, failed: self.failed.clone() }
    }
}
