//! Trusted roots, presented certificates, and the meaning of TLS failures.

mod certificate;
mod failure;
mod pem;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::Error::NoItemsFound;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use steadfast_core::Instant;

use crate::{atomic_file, clock};

pub(crate) use self::certificate::CertificateSource;
pub use self::certificate::ClientCertificate;
pub(crate) use self::failure::{failure, told};

/// The TLS settings of a device, above all its trusted roots.
///
/// Certificates are always verified, against the name of the service and against roots: those of the operating system,
/// and those added here. That cannot be switched off. TLS 1.2 and 1.3 are supported.
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

/// The configuration, and the fingerprint of its sources.
#[derive(Clone)]
struct Made {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
    files: u64,
    at: Instant,
}

/// The expected content of a PEM text.
const CERTIFICATE: &str = "certificate";

/// How long the operating system's roots are used before they are read again.
const ROOTS_LIFE: Duration = Duration::from_secs(3600);

/// Longest PEM file that is read, in bytes; the roots of an operating system have some 230,000.
const LONGEST: u64 = 4 << 20;

/// TLS sessions kept for resumption. A device uses two services at a time.
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
    /// The application is then responsible for its verification and for the certificate it presents.
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

    /// Trusts the roots in this PEM text, and skips those that rustls cannot use, which a third-party bundle may
    /// contain.
    #[cfg(feature = "edge")]
    pub(crate) fn of_bundle(text: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let text = pem::mended(text);
        let found = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
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

    /// Returns the configuration to connect with; makes it again if its files have changed.
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
                tracing::warn!(%error, "the trusted roots cannot be read; continuing with those read before");
                made
            }
        };
        match certificate {
            None => Ok(made.config),
            Some(certificate) => certificate.config(&made.roots),
        }
    }

    /// Returns the configuration made last, without reading anything.
    pub(crate) fn known(&self, certificate: Option<&CertificateSource>) -> Option<Arc<ClientConfig>> {
        if let Source::Config(config) = &self.0.source {
            return Some(Arc::clone(config));
        }
        match certificate {
            // The lock may be held for long while the system's roots are read.
            None => self.0.made.try_lock().ok()?.as_ref().map(|made| Arc::clone(&made.config)),
            Some(certificate) => certificate.known(),
        }
    }

    /// Returns the files of a configuration.
    pub(crate) fn files(&self, certificate: Option<&CertificateSource>) -> Vec<PathBuf> {
        let roots = match &self.0.source {
            Source::Config(_) => Vec::new(),
            Source::Roots { files, .. } => files.clone(),
        };
        roots.into_iter().chain(certificate.into_iter().flat_map(CertificateSource::files)).collect()
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
    /// A disk does not answer.
    Silent {
        /// The files that were to be read; the operating system's own are not among them.
        files: Vec<PathBuf>,
        /// What happened.
        problem: String,
    },
    /// A PEM text does not have the expected content.
    Pem {
        /// Which.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no root to trust.
    NoRoots,
    /// rustls does not accept the certificate and its key.
    Unusable(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, problem } => write!(f, "cannot read {}: {problem}", path.display()),
            Self::Silent { files, problem } if files.is_empty() => {
                write!(f, "the operating system's root certificates were not read: {problem}")
            }
            Self::Silent { files, problem } => {
                f.write_str("the disk did not give ")?;
                for (place, file) in files.iter().enumerate() {
                    write!(f, "{}{}", if place > 0 { ", " } else { "" }, file.display())?;
                }
                write!(f, ": {problem}")
            }
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

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls words the others well enough")]
fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Unusable(match error {
        rustls::Error::InconsistentKeys(_) => String::from("the key does not belong to the certificate"),
        rustls::Error::InvalidCertificate(_) => String::from("not an X.509 certificate"),
        other => other.to_string(),
    })
}

/// Presents one certificate to every server that requests one.
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

fn add_system_roots(roots: &mut RootCertStore) {
    // Where this is set, it is read in place of the system's, whatever it is.
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
        && let Err(error) = atomic_file::check(&path, LONGEST)
    {
        tracing::error!(path = %path.display(), %error, "SSL_CERT_FILE names no usable file of root certificates");
        return;
    }
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
    let text = pem::mended(text);
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| bad(pem::problem(&error, &text, CERTIFICATE)))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        found = true;
    }
    if found { Ok(()) } else { Err(bad(pem::problem(&NoItemsFound, &text, CERTIFICATE))) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    if is_text(path) {
        let problem = String::from("it is a PEM text instead of a file's path");
        return Err(TlsError::Pem { what: String::from("what was given as a path"), problem });
    }
    atomic_file::read_whole(path, LONGEST)
        .map_err(|error| TlsError::Unreadable { path: path.to_owned(), problem: error.to_string() })
}

/// Whether a text, which may be a key, was given for a path.
fn is_text(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().windows(5).any(|dashes| dashes == b"-----")
}

fn fingerprint<'a>(texts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in texts {
        text.hash(&mut hasher);
    }
    hasher.finish()
}
