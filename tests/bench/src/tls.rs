//! The sink's identity: a certificate authority and a server certificate made for one run.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A server configuration for TLS 1.3, and the file that names its trust anchor.
pub(crate) struct Identity {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) ca: PathBuf,
}

impl Identity {
    /// Makes the keys and writes the trust anchor into `directory`; P-256 throughout.
    ///
    /// # Errors
    /// When a key cannot be made or the file not be written.
    pub(crate) fn new(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "Benchmark authority");
        let anchor = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;

        let ca = directory.join("ca.pem");
        std::fs::write(&ca, anchor.pem())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self { server: Arc::new(server), ca })
    }
}
