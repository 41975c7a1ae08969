//! Keys in a PKCS#11 token: they sign there, and never leave it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use rustls::sign::SigningKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha256, Sha384};
use steadfast_core::SignRequest;

use crate::atomic_file;
use crate::context::KEYS;
use crate::signer::{SignError, Signer, Signing};
use crate::tls::ClientCertificate;

/// Object identifiers of the curves, in DER (RFC 5480, section 2.1.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// A PKCS#11 token, such as an HSM, a TPM behind `tpm2-pkcs11` or SoftHSM, that holds the device's key.
///
/// Clones share the token's one session. It is reopened after the token was removed and inserted again. A PIN that the
/// token refuses is not tried again, since a few wrong ones lock the token: create a new value with the right one.
///
/// A key for TLS signs in the middle of the handshake, on the runtime's thread: a slow token delays the other tasks of
/// that thread.
///
/// ```no_run
/// use steadfast::{Device, Pkcs11};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let token = Pkcs11::open("/usr/lib/softhsm/libsofthsm2.so", "plant", &std::env::var("TOKEN_PIN")?)?;
/// let certificate = token.client_certificate("/etc/pump/chain.pem", "pump-7");
/// let (device, driver) =
///     Device::builder().hub("contoso.azure-devices.net", "pump-7").client_certificate(certificate).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pkcs11(Arc<Token>);

struct Token {
    module: cryptoki::context::Pkcs11,
    label: Box<str>,
    pin: AuthPin,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// The token refused the PIN.
    refused: bool,
}

impl Pkcs11 {
    /// Loads the token's module, a shared library, and opens the token with this label.
    ///
    /// The PIN is overwritten with zeros when the last clone is dropped.
    ///
    /// # Errors
    /// [`Pkcs11Error`] if there is no such module or token, or it refuses the PIN.
    pub fn open(module: impl AsRef<Path>, token: &str, pin: &str) -> Result<Self, Pkcs11Error> {
        let module = module.as_ref();
        // A bare name is looked for by the system's loader.
        if module.components().count() > 1 {
            atomic_file::check(module, u64::MAX)
                .map_err(|error| Pkcs11Error::Module(format!("{}: {error}", module.display())))?;
        }
        let loaded = cryptoki::context::Pkcs11::new(module).map_err(Pkcs11Error::module)?;
        match loaded.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(Pkcs11Error::module(error)),
        }
        let token = Token { module: loaded, label: token.into(), pin: pin.into(), state: Mutex::default() };
        token.with(|_| Ok(()))?;
        Ok(Self(Arc::new(token)))
    }

    /// Returns the certificate of a PEM file, the device's first, with the private key of this label in the token: of
    /// the curve P-256 or P-384, or RSA.
    ///
    /// The file is read again at each attempt to connect.
    #[must_use]
    pub fn client_certificate(&self, chain: impl Into<PathBuf>, key: &str) -> ClientCertificate {
        ClientCertificate::in_token(chain.into(), TokenKey { token: self.clone(), label: key.into() })
    }

    /// Returns who signs with the secret key of this label in the token, by HMAC-SHA256.
    #[must_use]
    pub fn signer(&self, key: &str) -> Pkcs11Signer {
        Pkcs11Signer { token: self.clone(), label: key.into() }
    }
}

impl fmt::Debug for Pkcs11 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11({:?})", self.0.label)
    }
}

impl Token {
    /// Does `work` in a session, in a new one if that of before is of no use any more.
    fn with<T>(&self, work: impl Fn(&Session) -> Result<T, Pkcs11Error>) -> Result<T, Pkcs11Error> {
        let mut state = self.lock();
        if let Some(session) = &state.session {
            match work(session) {
                Ok(done) => return Ok(done),
                Err(error) => tracing::debug!(token = %self.label, %error, "reopening the token"),
            }
        }
        if state.refused {
            return Err(Pkcs11Error::Pin);
        }
        // The old session goes first: the login belongs to all sessions of the process, and ends with the last one.
        state.session = None;
        match self.login() {
            Ok(session) => work(state.session.insert(session)),
            Err(error) => {
                state.refused = error == Pkcs11Error::Pin;
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn login(&self) -> Result<Session, Pkcs11Error> {
        let slots = self.module.get_slots_with_token().map_err(Pkcs11Error::token)?;
        let named = |slot: &cryptoki::slot::Slot| {
            self.module.get_token_info(*slot).is_ok_and(|token| token.label().trim_end() == &*self.label)
        };
        let slot = slots.into_iter().find(named).ok_or_else(|| Pkcs11Error::NoToken(self.label.clone()))?;
        let session = self.module.open_ro_session(slot).map_err(Pkcs11Error::token)?;
        match session.login(UserType::User, Some(&self.pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinLocked | RvError::PinExpired | RvError::PinLenRange,
                _,
            )) => Err(Pkcs11Error::Pin),
            Err(error) => Err(Pkcs11Error::token(error)),
        }
    }
}

/// Finds the one key of this class and label.
fn find(session: &Session, class: ObjectClass, label: &str) -> Result<ObjectHandle, Pkcs11Error> {
    let wanted = [Attribute::Class(class), Attribute::Label(label.as_bytes().to_vec())];
    let found = session.find_objects(&wanted).map_err(Pkcs11Error::token)?;
    found.first().copied().ok_or_else(|| Pkcs11Error::NoKey(label.into()))
}

/// Signs tokens with a secret key in a PKCS#11 token. Made by [`Pkcs11::signer`].
#[derive(Clone, Debug)]
pub struct Pkcs11Signer {
    token: Pkcs11,
    label: Arc<str>,
}

impl Signer for Pkcs11Signer {
    fn sign(&self, request: SignRequest<'_>) -> Signing {
        let (holder, text) = (self.clone(), request.text.to_string());
        Box::pin(async move {
            let signed = KEYS.run(move || {
                holder.token.0.with(|session| {
                    let key = find(session, ObjectClass::SECRET_KEY, &holder.label)?;
                    session.sign(&Mechanism::Sha256Hmac, key, text.as_bytes()).map_err(Pkcs11Error::token)
                })
            });
            let signed = signed.await.map_err(|error| SignError::without_thread(&error))?;
            let signature = signed.map_err(|error| SignError::new(error.to_string()))?;
            signature.try_into().map_err(|_| SignError::new("the signature has not 32 bytes"))
        })
    }
}

/// A private key in a token.
#[derive(Clone, Debug)]
pub(crate) struct TokenKey {
    token: Pkcs11,
    label: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    P256,
    P384,
    Rsa,
}

impl TokenKey {
    /// Finds the key in the token.
    pub(crate) fn load(&self) -> Result<Arc<dyn SigningKey>, Pkcs11Error> {
        let kind = self.token.0.with(|session| {
            let key = find(session, ObjectClass::PRIVATE_KEY, &self.label)?;
            let wanted = [AttributeType::KeyType, AttributeType::EcParams];
            let found = session.get_attributes(key, &wanted).map_err(Pkcs11Error::token)?;
            let rsa = found.contains(&Attribute::KeyType(KeyType::RSA));
            let curve = |curve: &[u8]| found.contains(&Attribute::EcParams(curve.to_vec()));
            match (rsa, curve(P256), curve(P384)) {
                (true, ..) => Ok(Kind::Rsa),
                (_, true, _) => Ok(Kind::P256),
                (.., true) => Ok(Kind::P384),
                _ => Err(Pkcs11Error::KindOfKey(self.label.as_ref().into())),
            }
        })?;
        Ok(Arc::new(LoadedKey { key: self.clone(), kind }))
    }

    fn sign(&self, mechanism: &Mechanism<'_>, data: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signed = self.token.0.with(|session| {
            let key = find(session, ObjectClass::PRIVATE_KEY, &self.label)?;
            session.sign(mechanism, key, data).map_err(Pkcs11Error::token)
        });
        signed.map_err(|error| rustls::Error::General(error.to_string()))
    }
}

#[derive(Debug)]
struct LoadedKey {
    key: TokenKey,
    kind: Kind,
}

impl SigningKey for LoadedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        let schemes: &[SignatureScheme] = match self.kind {
            Kind::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Kind::P384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Kind::Rsa => &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256],
        };
        let scheme = *schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(ChosenScheme { key: self.key.clone(), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            Kind::P256 | Kind::P384 => SignatureAlgorithm::ECDSA,
            Kind::Rsa => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct ChosenScheme {
    key: TokenKey,
    scheme: SignatureScheme,
}

impl rustls::sign::Signer for ChosenScheme {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let ecdsa = |digest: &[u8]| self.key.sign(&Mechanism::Ecdsa, digest).map(|raw| ecdsa_der(&raw));
        let pss = PkcsPssParams {
            hash_alg: MechanismType::SHA256,
            mgf: PkcsMgfType::MGF1_SHA256,
            // RFC 8446, section 4.2.3: as long as the digest.
            s_len: 32.into(),
        };
        if self.scheme == SignatureScheme::ECDSA_NISTP256_SHA256 {
            ecdsa(&Sha256::digest(message))
        } else if self.scheme == SignatureScheme::ECDSA_NISTP384_SHA384 {
            ecdsa(&Sha384::digest(message))
        } else if self.scheme == SignatureScheme::RSA_PSS_SHA256 {
            self.key.sign(&Mechanism::Sha256RsaPkcsPss(pss), message)
        } else {
            self.key.sign(&Mechanism::Sha256RsaPkcs, message)
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Converts a PKCS#11 signature, two numbers of equal length, to the format of TLS (RFC 3279, section 2.2.3).
fn ecdsa_der(raw: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(raw.len() + 8);
    let (first, second) = raw.split_at(raw.len() / 2);
    for number in [first, second] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len().saturating_sub(1));
        let digits = number.get(zeros..).unwrap_or_default();
        // A leading bit that is set would make the number negative.
        let sign = digits.first().is_some_and(|byte| byte & 0x80 != 0);
        numbers.extend([0x02, short(digits.len() + usize::from(sign))]);
        numbers.extend(sign.then_some(0));
        numbers.extend_from_slice(digits);
    }
    let mut der = vec![0x30, short(numbers.len())];
    der.extend(numbers);
    der
}

/// A length of DER below 128, which the signatures of both curves have.
fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(0x7f)
}

/// An error of a token or of a key in it. It contains no PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pkcs11Error {
    /// The module cannot be loaded.
    Module(String),
    /// No token has this label.
    NoToken(Box<str>),
    /// The token refuses the PIN. It is not tried again.
    Pin,
    /// No key of the wanted kind has this label.
    NoKey(Box<str>),
    /// The key is neither RSA nor of the curves P-256 and P-384.
    KindOfKey(Box<str>),
    /// The token reports an error.
    Token(String),
}

impl Pkcs11Error {
    fn module(error: Error) -> Self {
        Self::Module(error.to_string())
    }

    fn token(error: Error) -> Self {
        Self::Token(error.to_string())
    }
}

impl fmt::Display for Pkcs11Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(problem) => write!(f, "the PKCS#11 module cannot be loaded: {problem}"),
            Self::NoToken(label) => write!(f, "no PKCS#11 token is labelled {label:?}"),
            Self::Pin => f.write_str("the PKCS#11 token refuses the PIN; it is not tried again"),
            Self::NoKey(label) => write!(f, "no key in the PKCS#11 token is labelled {label:?}"),
            Self::KindOfKey(label) => write!(f, "the key {label:?} is neither RSA nor of the curves P-256 and P-384"),
            Self::Token(problem) => write!(f, "the PKCS#11 token reports: {problem}"),
        }
    }
}

impl std::error::Error for Pkcs11Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_becomes_two_positive_integers_without_padding() {
        assert_eq!(ecdsa_der(&[1, 2, 3, 4]), [0x30, 8, 2, 2, 1, 2, 2, 2, 3, 4]);
        assert_eq!(ecdsa_der(&[0, 0x80, 0xff, 0]), [0x30, 9, 2, 2, 0, 0x80, 2, 3, 0, 0xff, 0]);
        assert_eq!(ecdsa_der(&[0, 0, 0, 7]), [0x30, 6, 2, 1, 0, 2, 1, 7]);
        assert_eq!(ecdsa_der(&[0xff; 96]).len(), 2 + 2 * (2 + 49));
    }

    #[test]
    fn a_module_that_is_none_is_told() {
        let error = Pkcs11::open("/nowhere/libnone.so", "plant", "secret").unwrap_err();
        assert!(matches!(error, Pkcs11Error::Module(_)), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
}
