//! The builder's network settings.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use steadfast_core::{Credential, DEFAULT_PORT, Service};

use super::Builder;
use crate::build_error::BuildError;
use crate::proxy::{Proxy, ProxyError};
use crate::tls::Tls;

/// The transport between TLS and MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// MQTT directly over TLS, by default on port 8883.
    #[default]
    Tcp,
    /// WebSockets (RFC 6455), by default on port 443, for networks that allow nothing else.
    ///
    /// At IoT Hub and the Device Provisioning Service the path is `/$iothub/websocket`, at a broker `/mqtt`. A service
    /// that answers the upgrade with an error causes [`crate::Failure::UpgradeRefused`]; one that violates the
    /// WebSocket protocol, [`crate::Failure::BadFrame`].
    #[cfg(feature = "websocket")]
    WebSockets,
}

impl Transport {
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Tcp => DEFAULT_PORT,
            #[cfg(feature = "websocket")]
            Self::WebSockets => steadfast_core::transport::PORT,
        }
    }

    #[cfg(feature = "websocket")]
    pub(super) const fn is_web_sockets(self) -> bool {
        !matches!(self, Self::Tcp)
    }
}

impl Builder {
    /// Sets the transport of MQTT, for the Device Provisioning Service and the hub. Default [`Transport::Tcp`].
    pub const fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Connects through this proxy to the Device Provisioning Service and the hub. Default: none, whatever the
    /// environment contains; [`Proxy::from_env`] reads it.
    ///
    /// The proxy resolves the services' names; the addresses given to [`resolve`](Self::resolve) apply to hosts that
    /// bypass the proxy, and to the proxy itself.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Sets the TCP port of the services. Default 8883, over WebSockets 443.
    pub const fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Connects to this host instead of the hub, such as an IoT Edge gateway; the credentials keep the hub's name.
    pub fn gateway(mut self, host: &str) -> Self {
        self.config.gateway = Some(host.into());
        self
    }

    /// Uses these addresses for `host` instead of asking DNS, for private endpoints, split DNS and local hubs.
    ///
    /// Port 0 stands for the configured port. The certificate is still verified for `host`.
    pub fn resolve(mut self, host: &str, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.overrides.insert(host.into(), addresses.into_iter().collect());
        self
    }

    /// Like [`resolve`](Self::resolve), for the HTTPS connections of uploads and of calls through a gateway, whose port
    /// is 443 unless an address has another. The addresses given to `resolve` do not apply to them.
    #[cfg(feature = "_https")]
    pub fn resolve_https(mut self, host: &str, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.https_overrides.insert(host.into(), addresses.into_iter().collect());
        self
    }

    /// Sets the trusted root certificates. Default: the operating system's.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects without TLS: anyone on the network can read and change everything, credentials included.
    ///
    /// For a broker or a local hub on this machine. With a key or a password the device then connects to loopback
    /// addresses only, whatever a name resolves to, and `build` refuses hosts that are not local. Only an anonymous
    /// client may use it on a network that is trusted for other reasons.
    pub const fn plaintext_unprotected(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Sends and receives packets through rumqttc's event loop, for applications that standardise on it.
    ///
    /// The device's guarantees, TLS, timeouts and back-off stay the same. It costs more memory and time per message,
    /// and three things differ on the wire: packet ids are rumqttc's; DUP is never set on a resent message; and an
    /// acknowledgement that arrives together with the end of the connection, or an unexpected one, is lost, so that up
    /// to all messages in flight are sent again. User name and password are copied into memory that is not overwritten
    /// afterwards.
    #[cfg(feature = "rumqttc")]
    pub const fn over_rumqttc(mut self) -> Self {
        self.over_rumqttc = true;
        self
    }

    /// The hosts that the configuration names.
    fn hosts(&self) -> impl Iterator<Item = &str> {
        let (Service::Hub { host, .. } | Service::Provisioned { host, .. } | Service::Broker { host, .. }) =
            &self.config.service
        else {
            return None.into_iter().chain(None);
        };
        let provisioned = matches!(self.config.service, Service::Provisioned { .. });
        let gateway = self.config.gateway.as_deref();
        let first = if provisioned { Some(&**host) } else { gateway.or(Some(host)) };
        first.into_iter().chain(gateway.filter(|_| provisioned))
    }

    pub(super) fn check_hosts(&self) -> Result<(), BuildError> {
        for host in self.hosts() {
            ServerName::try_from(host).map_err(|_| BuildError::Host(host.into()))?;
        }
        if let Some(proxy) = &self.proxy {
            proxy.check().map_err(BuildError::Proxy)?;
        }
        match self.overrides.iter().find(|(_, addresses)| addresses.is_empty()) {
            Some((host, _)) => Err(BuildError::NoAddress(host.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn check_plaintext(&self) -> Result<(), BuildError> {
        if self.proxy.is_some() {
            return Err(BuildError::Proxy(ProxyError::WithoutTls));
        }
        if matches!(self.config.credential, Credential::Anonymous) {
            return Ok(());
        }
        if matches!(self.config.credential, Credential::Certificate) {
            return Err(BuildError::CertificateWithoutTls);
        }
        match self.hosts().find(|host| !self.may_be_loopback(host)) {
            Some(host) => Err(BuildError::CredentialWithoutTls(host.into())),
            None => Ok(()),
        }
    }

    /// Whether `host` is this machine, without asking DNS; each connection checks its address again.
    fn may_be_loopback(&self, host: &str) -> bool {
        match self.overrides.get(host) {
            Some(addresses) => addresses.iter().any(|address| address.ip().to_canonical().is_loopback()),
            None => {
                let address = host.parse::<std::net::IpAddr>();
                host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }
}

const _: () = assert!(DEFAULT_PORT == 8883, "the documentation of `Builder::port` states it");
