//! What the driver was given once, and how it finds the way to a service with it.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use steadfast_core::{Failure, LocalFailure, TlsFailure};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use crate::assignment_file::AssignmentFile;
use crate::connect::{self, Overrides};
use crate::driver::Handshake;
use crate::pipe::Stream;
use crate::signer::Signer;
use crate::tls::{self, CertificateSource, Tls};

/// What the driver was given once.
pub(crate) struct Setup {
    /// The device's name in logs.
    pub(crate) name: Box<str>,
    /// `None` for a connection without TLS.
    pub(crate) tls: Option<Tls>,
    pub(crate) certificate: Option<Box<CertificateSource>>,
    pub(crate) overrides: Option<Box<Overrides>>,
    pub(crate) signer: Option<Arc<dyn Signer>>,
    pub(crate) assignment: Option<Box<AssignmentFile>>,
    /// Without TLS: a credential is sent.
    pub(crate) loopback: bool,
    /// rumqttc's event loop carries the packets.
    #[cfg(feature = "rumqttc")]
    pub(crate) client: Option<crate::rumqttc::Limits>,
}

impl Setup {
    /// Returns what carries the packets over `stream`.
    #[cfg_attr(not(feature = "rumqttc"), expect(clippy::unused_self, reason = "only a feature offers a choice"))]
    pub(crate) fn carry(&self, stream: Stream) -> Stream {
        #[cfg(feature = "rumqttc")]
        if let Some(limits) = self.client {
            return Stream::Client(Box::new(crate::rumqttc::ClientStream::new(stream, limits)));
        }
        stream
    }

    /// Connects to `host`; returns what to do about TLS after that.
    pub(crate) async fn dial(
        self: Arc<Self>,
        host: String,
        port: u16,
        shown: bool,
    ) -> Result<(TcpStream, Option<Handshake>), Failure> {
        let overrides = self.overrides.as_deref();
        if self.tls.is_none() {
            return Ok((connect::connect(&host, port, overrides, self.loopback).await?, None));
        }
        let config = {
            let setup = Arc::clone(&self);
            // Reads files, and the system's store once in a while.
            spawn_blocking(move || {
                let certificate = setup.certificate.as_deref().filter(|_| shown);
                setup.tls.as_ref().map(|tls| tls.config(certificate))
            })
        };
        let config = match config.await {
            Ok(Some(Ok(config))) => config,
            Ok(Some(Err(error))) => {
                tracing::error!(device = %self.name, %error, "TLS cannot be set up");
                return Err(Failure::Local(LocalFailure::Credential));
            }
            Ok(None) | Err(_) => return Err(Failure::Local(LocalFailure::Resources)),
        };
        let stream = connect::connect(&host, port, overrides, false).await?;
        let handshake: Handshake = Box::new(move |stream| {
            Box::pin(async move {
                let name = ServerName::try_from(host.as_str()).map_err(|_| Failure::Tls(TlsFailure::WrongName))?;
                match TlsConnector::from(config).connect(name.to_owned(), stream).await {
                    Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
                    Err(error) => {
                        tracing::warn!(device = %self.name, host, %error, "TLS failed");
                        // What rustls does not say was an end of the stream.
                        Err(Failure::Tls(tls::failure(&error, shown).unwrap_or(TlsFailure::Handshake)))
                    }
                }
            })
        });
        Ok((stream, Some(handshake)))
    }
}
