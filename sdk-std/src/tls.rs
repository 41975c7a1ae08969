//! What is trusted, what is shown, and what a failure of TLS means.

use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use steadfast_core::{Instant, TlsFailure};
use zeroize::Zeroizing;

use crate::clock;

/// Whom the device trusts to be its service.
///
/// Certificates are always verified, against the name of the service and against roots: those of the operating system,
/// and those added here. There is no way to switch that off. TLS 1.2 and 1.3 are spoken.
///
/// Clones share everything, TLS sessions and parsed roots included: give one value to all devices of a process. Files
/// are read again at each attempt to connect, and the operating system's roots once an hour, so that a root can change
/// without a restart.
#[derive(Clone)]
pub struct Tls(Arc<Trust>);

struct Trust {
    source: Source,
    made: Mutex<Option<Made>>,
}

enum Source {
    Config(Arc<ClientConfig>),
    Roots { system: bool, files: Vec<PathBuf>, pem: Vec<Vec<u8>> },
}

/// What was made of the source, and what the source was then.
#[derive(Clone)]
struct Made {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
    files: u64,
    at: Instant,
}

/// How long the operating system's roots are used before they are read again.
const ROOTS_LIFE: Duration = Duration::from_secs(3600);

/// TLS sessions kept for resumption. A device talks to two services at a time.
const SESSIONS: usize = 16;

impl Tls {
    /// Trusts the operating system's roots.
    #[must_use]
    pub fn system() -> Self {
        static SHARED: OnceLock<Tls> = OnceLock::new();
        SHARED.get_or_init(|| Self::of(Source::Roots { system: true, files: Vec::new(), pem: Vec::new() })).clone()
    }

    /// Trusts no roots but those added, such as a private authority's.
    #[must_use]
    pub fn without_system_roots() -> Self {
        Self::of(Source::Roots { system: false, files: Vec::new(), pem: Vec::new() })
    }

    /// Uses the application's own configuration of rustls as it is.
    ///
    /// What it verifies, and the certificate it shows, are then the application's business.
    #[must_use]
    pub fn with_config(config: Arc<ClientConfig>) -> Self {
        Self::of(Source::Config(config))
    }

    /// Trusts the roots in this PEM file too; it is read again at each attempt to connect.
    ///
    /// Without effect on the application's own configuration.
    #[must_use]
    pub fn and_file(self, path: impl Into<PathBuf>) -> Self {
        self.changed(|files, _| files.push(path.into()))
    }

    /// Trusts the roots in this PEM text too.
    ///
    /// Without effect on the application's own configuration.
    #[must_use]
    pub fn and_pem(self, text: impl Into<Vec<u8>>) -> Self {
        self.changed(|_, pem| pem.push(text.into()))
    }

    /// Trusts the roots in this PEM text, and leaves out those that rustls cannot use: a bundle that somebody else put
    /// together may hold some.
    #[cfg(feature = "edge")]
    pub(crate) fn of_bundle(text: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_slice_iter(text).filter_map(Result::ok);
        let (added, ignored) = roots.add_parsable_certificates(found);
        if added == 0 {
            return Err(TlsError::NoRoots);
        }
        tracing::debug!(added, ignored, "took roots from a bundle");
        Ok(Self::with_config(client_config(&Arc::new(roots), None)?))
    }

    fn of(source: Source) -> Self {
        Self(Arc::new(Trust { source, made: Mutex::new(None) }))
    }

    fn changed(self, change: impl FnOnce(&mut Vec<PathBuf>, &mut Vec<Vec<u8>>)) -> Self {
        match &self.0.source {
            Source::Config(_) => self,
            Source::Roots { system, files, pem } => {
                let (mut files, mut pem) = (files.clone(), pem.clone());
                change(&mut files, &mut pem);
                Self::of(Source::Roots { system: *system, files, pem })
            }
        }
    }

    /// Returns the configuration to connect with, and makes it anew when its files have changed.
    pub(crate) fn config(&self, certificate: Option<&CertificateSource>) -> Result<Arc<ClientConfig>, TlsError> {
        let (system, files, pem) = match &self.0.source {
            Source::Config(config) => return Ok(Arc::clone(config)),
            Source::Roots { system, files, pem } => (*system, files, pem),
        };
        let made = match self.made(system, files, pem) {
            Ok(made) => made,
            Err(error) => {
                let slot = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(made) = slot.clone() else { return Err(error) };
                tracing::warn!(%error, "the trusted roots cannot be read; going on with those read before");
                made
            }
        };
        match certificate {
            None => Ok(made.config),
            Some(certificate) => certificate.config(&made.roots),
        }
    }

    fn made(&self, system: bool, files: &[PathBuf], pem: &[Vec<u8>]) -> Result<Made, TlsError> {
        let texts = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let fingerprint = fingerprint(texts.iter().map(Vec::as_slice));
        let mut slot = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if let Some(made) = slot.as_ref() {
            let fresh = !system || now.since(made.at) < ROOTS_LIFE;
            if fresh && made.files == fingerprint {
                return Ok(made.clone());
            }
        }
        let mut roots = RootCertStore::empty();
        if system {
            add_system_roots(&mut roots);
        }
        for (path, text) in files.iter().zip(&texts) {
            add_roots(&mut roots, text, &path.display().to_string())?;
        }
        for text in pem {
            add_roots(&mut roots, text, "the text given")?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let roots = Arc::new(roots);
        let config = client_config(&roots, None)?;
        let made = Made { roots, config, files: fingerprint, at: now };
        *slot = Some(made.clone());
        Ok(made)
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.source {
            Source::Config(_) => "Tls(configuration of the application)",
            Source::Roots { system: true, .. } => "Tls(roots of the operating system)",
            Source::Roots { system: false, .. } => "Tls(given roots)",
        })
    }
}

/// The certificate with which the device proves who it is, and its key.
#[derive(Clone)]
pub struct ClientCertificate(Pem);

#[derive(Clone)]
enum Pem {
    Files {
        chain: PathBuf,
        key: PathBuf,
    },
    Texts {
        chain: Arc<[u8]>,
        key: Arc<Zeroizing<Vec<u8>>>,
    },
    #[cfg(feature = "pkcs11")]
    Token {
        chain: PathBuf,
        key: crate::pkcs11::TokenKey,
    },
}

impl ClientCertificate {
    /// Takes the chain, the device's certificate first, and the key from PEM files.
    ///
    /// They are read again at each attempt to connect, so they can be replaced while the device runs, each by a rename.
    /// While only one of them has been, or one is damaged, the device goes on with the pair before. Keys are taken in
    /// PKCS#8, SEC1 and PKCS#1.
    #[must_use]
    pub fn from_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self(Pem::Files { chain: chain.into(), key: key.into() })
    }

    /// Takes the chain, the device's certificate first, and the key from PEM texts.
    #[must_use]
    pub fn from_pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let chain: Vec<u8> = chain.into();
        Self(Pem::Texts { chain: chain.into(), key: Arc::new(Zeroizing::new(key.into())) })
    }

    #[cfg(feature = "pkcs11")]
    pub(crate) const fn in_token(chain: PathBuf, key: crate::pkcs11::TokenKey) -> Self {
        Self(Pem::Token { chain, key })
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pem::Files { chain, .. } => write!(f, "ClientCertificate({})", chain.display()),
            Pem::Texts { .. } => f.write_str("ClientCertificate(text)"),
            #[cfg(feature = "pkcs11")]
            Pem::Token { chain, .. } => write!(f, "ClientCertificate({}, key in a token)", chain.display()),
        }
    }
}

/// A device's certificate and the configuration last made with it.
pub(crate) struct CertificateSource {
    certificate: ClientCertificate,
    made: Mutex<Option<Shown>>,
}

/// A configuration, and what it was made of.
struct Shown {
    fingerprint: u64,
    roots: Arc<RootCertStore>,
    pair: Arc<CertifiedKey>,
    config: Arc<ClientConfig>,
}

impl CertificateSource {
    pub(crate) const fn new(certificate: ClientCertificate) -> Self {
        Self { certificate, made: Mutex::new(None) }
    }

    fn config(&self, roots: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>, TlsError> {
        let mut slot = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slot.as_ref().map(|shown| shown.fingerprint);
        let (fingerprint, pair) = match (self.certificate.read(known), slot.as_ref()) {
            (Ok(Read::Same), Some(shown)) => (shown.fingerprint, Arc::clone(&shown.pair)),
            (Ok(Read::New(fingerprint, pair)), _) => (fingerprint, pair),
            // Only one of the two files may have been replaced so far.
            (Err(error), Some(shown)) => {
                tracing::warn!(%error, "the device's certificate cannot be read; going on with the one before");
                (shown.fingerprint, Arc::clone(&shown.pair))
            }
            (Err(error), None) => return Err(error),
            (Ok(Read::Same), None) => return Err(TlsError::Unusable(String::from("nothing was read"))),
        };
        if let Some(shown) = slot.as_ref()
            && Arc::ptr_eq(&shown.pair, &pair)
            && Arc::ptr_eq(&shown.roots, roots)
        {
            return Ok(Arc::clone(&shown.config));
        }
        let config = client_config(roots, Some(&pair))?;
        *slot = Some(Shown { fingerprint, roots: Arc::clone(roots), pair, config: Arc::clone(&config) });
        Ok(config)
    }
}

/// What a certificate and its key were found to be.
enum Read {
    /// What they were before.
    Same,
    New(u64, Arc<CertifiedKey>),
}

impl ClientCertificate {
    /// Reads both, and takes them apart unless they are what `known` is the fingerprint of.
    fn read(&self, known: Option<u64>) -> Result<Read, TlsError> {
        let (chain_text, key_text, name) = match &self.0 {
            Pem::Files { chain, key } => {
                warn_of_open_key(key);
                (read(chain)?, Arc::new(Zeroizing::new(read(key)?)), chain.display().to_string())
            }
            Pem::Texts { chain, key } => (chain.to_vec(), Arc::clone(key), String::from("the text given")),
            #[cfg(feature = "pkcs11")]
            Pem::Token { chain, key } => {
                let text = read(chain)?;
                let fingerprint = fingerprint(std::iter::once(text.as_slice()));
                if known == Some(fingerprint) {
                    return Ok(Read::Same);
                }
                let key = key.load().map_err(|error| TlsError::Unusable(error.to_string()))?;
                let chain = chain_of(&text, chain.display().to_string())?;
                return Ok(Read::New(fingerprint, Arc::new(CertifiedKey::new(chain, key))));
            }
        };
        let fingerprint = fingerprint([chain_text.as_slice(), key_text.as_slice()].into_iter());
        if known == Some(fingerprint) {
            return Ok(Read::Same);
        }
        let chain = chain_of(&chain_text, name)?;
        let key = PrivateKeyDer::from_pem_slice(&key_text)
            .map_err(|error| TlsError::Pem { what: String::from("the private key"), problem: error.to_string() })?;
        let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(unusable)?;
        Ok(Read::New(fingerprint, Arc::new(pair)))
    }
}

/// Shows one certificate to every server that asks for one.
#[derive(Debug)]
struct Show(Arc<CertifiedKey>);

impl ResolvesClientCert for Show {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The settings of TLS cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A PEM text does not hold what it should.
    Pem {
        /// Which.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no root to trust.
    NoRoots,
    /// rustls does not take the certificate and its key.
    Unusable(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, problem } => write!(f, "cannot read {}: {problem}", path.display()),
            Self::Pem { what, problem } => write!(f, "not usable as PEM: {what}: {problem}"),
            Self::NoRoots => f.write_str(
                "no trusted root certificates: install the system's (Debian: ca-certificates) or add an authority's",
            ),
            Self::Unusable(problem) => {
                write!(f, "the device's certificate and key are not usable: {problem}")
            }
        }
    }
}

impl std::error::Error for TlsError {}

/// Returns the cryptography of every connection, named each time: a process-wide default is for the application to
/// choose, and does not exist once two crates have chosen differently.
pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Unusable(error.to_string())
}

fn client_config(roots: &Arc<RootCertStore>, pair: Option<&Arc<CertifiedKey>>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(Arc::clone(roots));
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => builder.with_client_cert_resolver(Arc::new(Show(Arc::clone(pair)))),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// Reads a chain of certificates.
fn chain_of(text: &[u8], name: String) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err(TlsError::Pem { what: name, problem: String::from("there is no certificate in it") })
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(TlsError::Pem { what: name, problem: error.to_string() }),
    }
}

fn add_system_roots(roots: &mut RootCertStore) {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a part of the system's certificate store was skipped");
    }
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "loaded the system's root certificates");
}

fn add_roots(roots: &mut RootCertStore, text: &[u8], name: &str) -> Result<(), TlsError> {
    let bad = |problem: String| TlsError::Pem { what: name.to_owned(), problem };
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        found = true;
    }
    if found { Ok(()) } else { Err(bad(String::from("there is no certificate in it"))) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), problem: error.to_string() })
}

fn fingerprint<'a>(texts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in texts {
        text.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(unix)]
fn warn_of_open_key(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format_args!("{mode:o}"), "others can read the private key; set its mode to 600");
    }
}

#[cfg(not(unix))]
fn warn_of_open_key(_: &Path) {}

/// Says what an error of TLS was about, if it was one of TLS. `shown`: the device showed a certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "other errors are faults of the handshake")]
pub(crate) fn failure(error: &io::Error, shown: bool) -> Option<TlsFailure> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(error) => certificate_failure(error),
        rustls::Error::AlertReceived(alert) => alert_failure(*alert, shown),
        rustls::Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        _ => TlsFailure::Handshake,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other errors are faults of the certificate")]
fn certificate_failure(error: &CertificateError) -> TlsFailure {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFailure::NotYetValid,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFailure::WrongName,
        // The signature is wrong when a root of that name has another key, as after a private authority was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFailure::UnknownIssuer,
        CertificateError::Revoked => TlsFailure::Revoked,
        _ => TlsFailure::BadCertificate,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other alerts are faults of the handshake")]
fn alert_failure(alert: AlertDescription, shown: bool) -> TlsFailure {
    match alert {
        // RFC 8446, section 6.2: sent when a certificate was asked for and none came.
        AlertDescription::CertificateRequired => TlsFailure::ClientCertificateRefused,
        // RFC 8446, section 6.2, and RFC 5246, section 7.2.2: about the certificate shown; a server of TLS 1.2 says
        // handshake_failure or access_denied as well.
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError
        | AlertDescription::HandshakeFailure
            if shown =>
        {
            TlsFailure::ClientCertificateRefused
        }
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => TlsFailure::Incompatible,
        _ => TlsFailure::Handshake,
    }
}
