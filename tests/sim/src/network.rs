//! The network between devices and services.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use steadfast_core::{Failure, TlsFailure};

use crate::rng::Rng;
use crate::transport::{Proxy, UpgradeMood};

/// How far a connection attempt to a host gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// All the way.
    Open,
    /// The host refuses the connection.
    Refused,
    /// SYN is never answered.
    BlackHole,
    /// The name does not resolve.
    Unresolved,
    /// There is no route.
    NoRoute,
    /// TCP comes about and TLS fails so.
    Tls(TlsFailure),
    /// TCP comes about and TLS never ends.
    TlsStalls,
    /// The connection is closed as soon as TLS is up.
    ClosedAfterTls,
    /// The device itself fails before anything is sent.
    Local(steadfast_core::LocalFailure),
}

impl Reach {
    /// Returns the failure a device sees before anything of TLS, if there is one.
    #[must_use]
    pub const fn failure(self) -> Option<Failure> {
        match self {
            Self::Refused => Some(Failure::ConnectionRefused),
            Self::Unresolved => Some(Failure::Unresolved),
            Self::NoRoute => Some(Failure::Network),
            Self::Local(failure) => Some(Failure::Local(failure)),
            Self::Open | Self::BlackHole | Self::Tls(_) | Self::TlsStalls | Self::ClosedAfterTls => None,
        }
    }
}

/// The network: latency and what is out of reach.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Network {
    /// Time one way, in milliseconds, drawn for each piece; pieces of one direction stay in order.
    pub latency_ms: RangeInclusive<u64>,
    /// The proxy that every attempt goes through.
    pub proxy: Option<Proxy>,
    /// MQTT travels on WebSockets, which services open so.
    pub web_sockets: Option<UpgradeMood>,
    hosts: HashMap<String, Reach>,
    gateways: HashMap<String, String>,
    everything: Option<Reach>,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            latency_ms: 5..=40,
            proxy: None,
            web_sockets: None,
            hosts: HashMap::new(),
            gateways: HashMap::new(),
            everything: None,
        }
    }

    /// Puts a gateway before a hub: what is sent to `gateway` reaches `hub`.
    pub fn add_gateway(&mut self, gateway: &str, hub: &str) {
        self.gateways.insert(gateway.to_owned(), hub.to_owned());
    }

    pub(crate) fn is_gateway(&self, host: &str) -> bool {
        self.gateways.contains_key(host)
    }

    /// Returns the hub that a dialled host leads to.
    pub(crate) fn hub_behind<'a>(&'a self, host: &'a str) -> &'a str {
        self.gateways.get(host).map_or(host, String::as_str)
    }

    /// Sets how far attempts to `host` get from now on.
    pub fn set(&mut self, host: &str, reach: Reach) {
        self.hosts.insert(host.to_owned(), reach);
    }

    /// Sets how far attempts to any host get, or lets each host be as it is again.
    pub const fn set_all(&mut self, reach: Option<Reach>) {
        self.everything = reach;
    }

    /// Returns how far an attempt to `host` gets.
    #[must_use]
    pub fn reach(&self, host: &str) -> Reach {
        self.everything.unwrap_or_else(|| self.hosts.get(host).copied().unwrap_or(Reach::Open))
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> u64 {
        rng.between(*self.latency_ms.start(), *self.latency_ms.end())
    }
}
