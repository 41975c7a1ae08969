//! The driver's fixed settings, and how it connects to a service with them.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use steadfast_core::{Failure, LocalFailure, ServiceKind, TlsFailure};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::assignment_file::AssignmentFile;
use crate::backoff_file::BackoffFile;
use crate::connect::{self, Overrides};
use crate::connection::Stream;
use crate::context::Context;
use crate::driver::Handshake;
use crate::proxy::Proxy;
use crate::tls::{self, CertificateSource, Tls};
use crate::tokens::Authenticator;

/// The driver's fixed settings.
pub(crate) struct Setup {
    pub(crate) context: &'static Context,
    /// The device's name in logs.
    pub(crate) name: Box<str>,
    /// `None` for a connection without TLS.
    pub(crate) tls: Option<Tls>,
    pub(crate) certificate: Option<Arc<CertificateSource>>,
    pub(crate) overrides: Option<Box<Overrides>>,
    pub(crate) authenticator: Option<Authenticator>,
    pub(crate) assignment: Option<Box<AssignmentFile>>,
    pub(crate) backoff_file: Option<Box<BackoffFile>>,
    /// Without TLS: a credential is sent.
    pub(crate) loopback: bool,
    pub(crate) proxy: Option<Box<Proxy>>,
    /// How long the link waits for a connection.
    pub(crate) patience: Duration,
    /// Timeout of a signature.
    #[cfg(feature = "_requests")]
    pub(crate) signing: Duration,
    /// The finished token of a connection string.
    #[cfg(feature = "_requests")]
    pub(crate) token: Option<zeroize::Zeroizing<String>>,
    /// Addresses of hosts for HTTPS.
    #[cfg(feature = "_https")]
    pub(crate) https: Box<Overrides>,
    /// The source of the trusted roots, instead of `tls`.
    #[cfg(feature = "edge")]
    pub(crate) workload: Option<Arc<crate::edge::Workload>>,
    /// Who registers over HTTPS.
    #[cfg(feature = "tpm")]
    pub(crate) registrar: Option<Box<crate::dps_https::Registrar>>,
    /// Places for uploads at the same time.
    #[cfg(feature = "upload")]
    pub(crate) uploads: Arc<tokio::sync::Semaphore>,
    /// The service is a broker.
    #[cfg(feature = "websocket")]
    pub(crate) broker: bool,
    #[cfg(feature = "websocket")]
    pub(crate) web_sockets: bool,
    /// Whether rumqttc's event loop carries the packets.
    #[cfg(feature = "rumqttc")]
    pub(crate) client: Option<crate::rumqttc::Limits>,
}

impl Setup {
    /// Returns the packet stream over `stream`.
    #[cfg_attr(not(feature = "rumqttc"), expect(clippy::unused_self, reason = "only a feature offers a choice"))]
    pub(crate) fn carry(&self, stream: Stream) -> Stream {
        #[cfg(feature = "rumqttc")]
        if let Some(limits) = self.client {
            return Stream::Client(Box::new(crate::rumqttc::ClientStream::new(stream, limits)));
        }
        stream
    }

    /// Connects to `host`; returns the next steps for TLS and WebSockets.
    pub(crate) async fn dial(
        self: Arc<Self>,
        host: String,
        port: u16,
        role: ServiceKind,
        shown: bool,
    ) -> Result<(TcpStream, Option<Handshake>), Failure> {
        let config = self.tls_config(shown).await?;
        let stream = self.reach(&host, port).await?;
        if config.is_none() && !self.upgrades() {
            return Ok((stream, None));
        }
        let handshake: Handshake = Box::new(move |stream| {
            Box::pin(async move {
                let stream = match config {
                    Some(config) => self.secure(stream, &host, config, shown).await?,
                    None => Stream::Plain(stream),
                };
                self.upgrade(stream, &host, port, role, shown).await
            })
        });
        Ok((stream, Some(handshake)))
    }

    /// Returns the configuration of TLS, `None` for a connection without it. `shown`: with the device's certificate.
    pub(crate) async fn tls_config(self: &Arc<Self>, shown: bool) -> Result<Option<Arc<ClientConfig>>, Failure> {
        let Some(tls) = self.trust().await? else { return Ok(None) };
        let certificate = self.certificate.clone().filter(|_| shown);
        let (trust, source) = (tls.clone(), certificate.clone());
        // Files, and the system's store once in a while.
        let reading = self.context.readers.run(move || trust.config(source.as_deref()));
        // The link's own timeout would not name the disk.
        match timeout(self.context.reading.min(self.patience / 2), reading).await {
            Ok(Ok(Ok(config))) => Ok(Some(config)),
            Ok(Ok(Err(error))) => {
                tracing::error!(device = %self.name, %error, "TLS cannot be set up");
                Err(Failure::Local(LocalFailure::Credential))
            }
            Ok(Err(error)) => {
                tracing::error!(device = %self.name, %error, "TLS cannot be set up: its files were not read");
                Err(Failure::Local(LocalFailure::Resources))
            }
            Err(_) => {
                let files = tls.files(certificate.as_deref());
                if let Some(config) = tls.known(certificate.as_deref()) {
                    tracing::warn!(device = %self.name, ?files, "the disk does not answer; continuing with the certificates read before");
                    return Ok(Some(config));
                }
                tracing::error!(device = %self.name, ?files, "TLS cannot be set up: the disk does not answer");
                Err(Failure::Local(LocalFailure::Credential))
            }
        }
    }

    /// Returns the trusted roots, `None` for a connection without TLS.
    #[cfg(feature = "edge")]
    async fn trust(&self) -> Result<Option<Tls>, Failure> {
        match &self.workload {
            Some(workload) => workload.trust().await.map(Some),
            None => Ok(self.tls.clone()),
        }
    }

    #[cfg(not(feature = "edge"))]
    async fn trust(&self) -> Result<Option<Tls>, Failure> {
        Ok(self.tls.clone())
    }

    /// Connects to `host`, through the proxy if there is one.
    pub(crate) async fn reach(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        self.reach_by(self.overrides.as_deref(), host, port).await
    }

    /// Connects to `host` for HTTPS.
    #[cfg(feature = "_https")]
    pub(crate) async fn reach_https(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        self.reach_by(Some(&self.https), host, port).await
    }

    async fn reach_by(&self, overrides: Option<&Overrides>, host: &str, port: u16) -> Result<TcpStream, Failure> {
        match self.proxy.as_deref().filter(|proxy| proxy.serves(host)) {
            Some(proxy) => {
                proxy.tunnel(&self.context.names, host, port, self.overrides.as_deref(), self.patience).await
            }
            None => {
                let loopback = self.tls.is_none() && self.loopback;
                connect::connect(&self.context.names, host, port, overrides, loopback).await
            }
        }
    }

    /// Completes TLS with `host`.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
        config: Arc<ClientConfig>,
        shown: bool,
    ) -> Result<Stream, Failure> {
        let name = ServerName::try_from(host).map_err(|_| Failure::Tls(TlsFailure::WrongName))?;
        match TlsConnector::from(config).connect(name.to_owned(), stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => {
                tracing::warn!(device = %self.name, host, error = tls::told(&error), "TLS failed");
                // What rustls does not say was an end of the stream.
                let failure = tls::failure(&error, shown).unwrap_or(TlsFailure::Handshake);
                #[cfg(feature = "edge")]
                if let Some(workload) = &self.workload {
                    workload.doubt(failure);
                }
                Err(Failure::Tls(failure))
            }
        }
    }

    const fn upgrades(&self) -> bool {
        #[cfg(feature = "websocket")]
        let upgrades = self.web_sockets;
        #[cfg(not(feature = "websocket"))]
        let upgrades = false;
        upgrades
    }

    #[cfg(feature = "websocket")]
    async fn upgrade(
        &self,
        stream: Stream,
        host: &str,
        port: u16,
        role: ServiceKind,
        shown: bool,
    ) -> Result<Stream, Failure> {
        if !self.web_sockets {
            return Ok(stream);
        }
        let frames = crate::websocket::WebSocket::upgrade(stream, host, port, role, self.broker, shown).await?;
        Ok(Stream::WebSocket(Box::new(frames)))
    }

    #[cfg(not(feature = "websocket"))]
    async fn upgrade(&self, stream: Stream, _: &str, _: u16, _: ServiceKind, _: bool) -> Result<Stream, Failure> {
        Ok(stream)
    }
}
