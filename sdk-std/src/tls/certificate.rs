//! The certificate and key that the device presents, read again when they change.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::pem::Error::NoItemsFound;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use super::{CERTIFICATE, TlsError, client_config, fingerprint, is_text, pem, provider, read, unusable};

/// The device's client certificate and its key.
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
    /// They are read again at each connection attempt, so they can be replaced while the device runs, each by a rename.
    /// While only one of them is replaced, or one is damaged, the device continues with the previous pair. Keys may be
    /// in PKCS#8, SEC1 or PKCS#1.
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
            Pem::Files { chain, .. } if is_text(chain) => f.write_str("ClientCertificate(text)"),
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

/// A configuration, and the fingerprint of its sources.
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

    pub(super) fn config(&self, roots: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>, TlsError> {
        let known = self.lock().as_ref().map(|shown| shown.fingerprint);
        // Without the lock, since the disk may be slow.
        let read = self.certificate.read(known);
        let mut slot = self.lock();
        let (fingerprint, pair) = match (read, slot.as_ref()) {
            (Ok(Read::Same), Some(shown)) => (shown.fingerprint, Arc::clone(&shown.pair)),
            (Ok(Read::New(fingerprint, pair)), _) => (fingerprint, pair),
            // Only one of the two files may have been replaced so far.
            (Err(error), Some(shown)) => {
                tracing::warn!(%error, "the device's certificate cannot be read; continuing with the previous one");
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

impl CertificateSource {
    /// Returns the configuration made last.
    pub(super) fn known(&self) -> Option<Arc<ClientConfig>> {
        self.lock().as_ref().map(|shown| Arc::clone(&shown.config))
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        match &self.certificate.0 {
            Pem::Files { chain, key } => vec![chain.clone(), key.clone()],
            Pem::Texts { .. } => Vec::new(),
            #[cfg(feature = "pkcs11")]
            Pem::Token { chain, .. } => vec![chain.clone()],
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Shown>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a certificate and its key.
enum Read {
    /// They are unchanged.
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
        let key_text = pem::mended(&key_text);
        let key = PrivateKeyDer::from_pem_slice(&key_text).map_err(|error| {
            let problem = pem::problem(&error, &key_text, "private key");
            TlsError::Pem { what: String::from("the private key"), problem }
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(unusable)?;
        let pair = CertifiedKey::new(chain, key);
        belong_together(&pair).map_err(unusable)?;
        Ok(Read::New(fingerprint, Arc::new(pair)))
    }
}

/// Checks that the key is the certificate's.
///
/// rustls parses X.509 version 3 only. It presents any certificate, and services accept version 1 too, which `openssl
/// x509 -req` makes when it is given no extensions.
fn belong_together(pair: &CertifiedKey) -> Result<(), rustls::Error> {
    match (pair.keys_match(), pair.key.public_key()) {
        (Err(rustls::Error::InvalidCertificate(_)), Some(key)) if is_version_1(pair.end_entity_cert()?) => {
            let certificate = pair.end_entity_cert()?;
            let mut parts = certificate.windows(key.len());
            if parts.any(|part| part == &*key) { Ok(()) } else { Err(InconsistentKeys::KeyMismatch.into()) }
        }
        (Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)), _) => Ok(()),
        (matched, _) => matched,
    }
}

/// Whether a certificate names no version, and so is of the first (RFC 5280, section 4.1.2.1).
fn is_version_1(certificate: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    /// The content of a sequence, and what is behind it.
    fn content(der: &[u8]) -> Option<&[u8]> {
        let [tag, length, rest @ ..] = der else { return None };
        // More bytes of length (X.690, section 8.1.3.5).
        let more = if length & 0x80 == 0 { 0 } else { usize::from(length & 0x7f) };
        rest.get(more..).filter(|_| *tag == SEQUENCE)
    }
    content(certificate).and_then(content).is_some_and(|fields| fields.first() == Some(&INTEGER))
}

/// Reads a chain of certificates.
fn chain_of(text: &[u8], name: String) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = pem::mended(text);
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let error = match chain {
        Ok(chain) if !chain.is_empty() => return Ok(chain),
        Ok(_) => NoItemsFound,
        Err(error) => error,
    };
    Err(TlsError::Pem { what: name, problem: pem::problem(&error, &text, CERTIFICATE) })
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
