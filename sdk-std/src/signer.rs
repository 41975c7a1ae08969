//! Who signs the device's tokens.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use steadfast_core::azure::key_choice::KeyChoice;
use steadfast_core::azure::sas::{KeyError, SymmetricKey};
use steadfast_core::{Failure, LocalFailure, ServiceKind, SignRequest};

/// What a [`Signer`] returns.
pub type Signing = Pin<Box<dyn Future<Output = Result<[u8; 32], SignError>> + Send>>;

/// Signs on behalf of a key that need not be in this process: in a TPM, a PKCS#11 token, or IoT Edge's workload API.
///
/// It is called once for each token: about once an hour, and once for each connection attempt.
pub trait Signer: Send + Sync + 'static {
    /// Signs [`request.text`](SignRequest::text) with HMAC-SHA256; the request has the service whose key to use, and
    /// how often in a row that service has refused the device.
    ///
    /// The future may be dropped: after [`crate::Timeouts::sign`] the attempt fails and another one begins later.
    fn sign(&self, request: SignRequest<'_>) -> Signing;
}

/// The key holder did not sign; its own log should say why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignError {
    failure: LocalFailure,
    reason: String,
}

impl SignError {
    /// Makes an error with a reason for the log, which must not contain secrets.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self::with_failure(LocalFailure::Signing, reason)
    }

    /// Makes an error that the status shows as `failure`, with a reason for the log, which must not contain secrets.
    #[must_use]
    pub fn with_failure(failure: LocalFailure, reason: impl Into<String>) -> Self {
        Self { failure, reason: reason.into() }
    }

    /// Makes the error of a thread that could not be created.
    #[cfg(any(feature = "pkcs11", feature = "tpm2"))]
    pub(crate) fn without_thread(error: &std::io::Error) -> Self {
        Self::with_failure(LocalFailure::Resources, format!("it could not be called: {error}"))
    }

    pub(crate) const fn failure(&self) -> Failure {
        Failure::Local(self.failure)
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key holder did not sign: {}", self.reason)
    }
}

impl std::error::Error for SignError {}

/// A symmetric key in memory, overwritten with zeros when dropped.
///
/// ```
/// use steadfast::SharedKey;
///
/// // The key of one device, derived from its enrollment group's key.
/// let group = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// let key = SharedKey::of_group(group, "pump-7")?;
/// assert_eq!(format!("{key:?}"), "SharedKey(hidden)");
/// # Ok::<(), steadfast::KeyError>(())
/// ```
pub struct SharedKey(Box<SymmetricKey>);

impl SharedKey {
    /// Takes a key as shown by the service: base64 with padding, 16 to 64 bytes.
    ///
    /// # Errors
    /// [`KeyError`] names the flaw, never the key.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        SymmetricKey::from_base64(text).map(|key| Self(Box::new(key)))
    }

    /// Derives the key of one device from the key of its enrollment group, given in base64.
    ///
    /// It is safer to derive it where the group's key is secure, and to give each device only its own key.
    ///
    /// # Errors
    /// [`KeyError`] names the flaw, never the key.
    pub fn of_group(group_key: &str, registration_id: &str) -> Result<Self, KeyError> {
        SymmetricKey::from_base64(group_key).map(|key| Self(Box::new(key.derive(registration_id))))
    }
}

impl Signer for SharedKey {
    fn sign(&self, request: SignRequest<'_>) -> Signing {
        Box::pin(ready(Ok(self.0.sign(&request.text))))
    }
}

/// The two symmetric keys of a device, primary and secondary; the service accepts either.
///
/// It signs with the primary until that is refused, and switches with each further refusal. The accepted key stays in
/// use, also for renewals. If both keys are refused in a row, the device registers with DPS again, if it uses DPS.
#[derive(Debug)]
pub struct KeyPair {
    keys: [SharedKey; 2],
    /// For the Device Provisioning Service and for the hub, which may know different keys.
    choices: Mutex<[KeyChoice; 2]>,
}

impl KeyPair {
    /// Takes both keys.
    #[must_use]
    pub fn new(primary: SharedKey, secondary: SharedKey) -> Self {
        Self { keys: [primary, secondary], choices: Mutex::default() }
    }
}

impl Signer for KeyPair {
    fn sign(&self, request: SignRequest<'_>) -> Signing {
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        let key = choices[usize::from(request.role == ServiceKind::Hub)].choose(request.refusals);
        self.keys[key].sign(request)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(hidden)")
    }
}
