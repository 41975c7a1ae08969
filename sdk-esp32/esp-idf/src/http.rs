//! Requests over HTTPS by ESP-IDF's HTTP client, for uploads.

use std::fmt;

use esp_idf_svc::http::client::{Configuration, EspHttpConnection, FollowRedirectsPolicy};
use esp_idf_svc::sys::{EspError, esp_crt_bundle_attach};
use esp_idf_svc::tls::X509;
use steadfast_core::{Failure, LocalFailure};
use steadfast_esp32::upload::HttpRequest;
use steadfast_esp32::upload::embedded_svc::{Client, Connections};

use crate::Trust;

/// Room for the first lines of a request: its URL with a grant, its token.
const HEAD: usize = 3072;

/// Makes the requests of an upload.
pub type EspHttp = Client<EspHttps, EspHttpConnection>;

/// Opens connections for [`EspHttp`]; the server's certificate and name are always verified.
pub struct EspHttps {
    trust: Trust<'static>,
    identity: Option<(X509<'static>, X509<'static>)>,
}

impl EspHttps {
    /// Connects as a device with a shared key.
    #[must_use]
    pub const fn new(trust: Trust<'static>) -> Self {
        Self { trust, identity: None }
    }

    /// Shows this certificate with this private key to the hub.
    #[must_use]
    pub const fn with_certificate(mut self, certificate: X509<'static>, key: X509<'static>) -> Self {
        self.identity = Some((certificate, key));
        self
    }
}

impl Connections for EspHttps {
    type Connection = EspHttpConnection;

    fn open(&mut self, request: &HttpRequest<'_>) -> Result<EspHttpConnection, Failure> {
        let mut configuration = Configuration {
            buffer_size_tx: Some(HEAD),
            timeout: Some(request.limit),
            follow_redirects_policy: FollowRedirectsPolicy::FollowNone,
            ..Configuration::default()
        };
        match self.trust {
            Trust::Bundle => configuration.crt_bundle_attach = Some(esp_crt_bundle_attach),
            Trust::Root(root) => configuration.server_certificate = Some(root),
        }
        if let Some((certificate, key)) = self.identity.filter(|_| request.client_certificate) {
            configuration.client_certificate = Some(certificate);
            configuration.private_key = Some(key);
        }
        EspHttpConnection::new(&configuration).map_err(|_: EspError| Failure::Local(LocalFailure::Resources))
    }
}

impl fmt::Debug for EspHttps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspHttps").field("trust", &self.trust).finish_non_exhaustive()
    }
}
