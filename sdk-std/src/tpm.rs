//! Devices whose key is in a TPM, and registration over HTTPS.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use steadfast_core::{ServiceKind, SignRequest};

use crate::builder::Builder;
use crate::signer::{SignError, Signer, Signing};

/// What a [`Tpm`] returns.
pub type TpmWork<T> = Pin<Box<dyn Future<Output = Result<T, SignError>> + Send>>;

/// The public keys of a TPM, as it encodes them (`TPM2B_PUBLIC`).
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the registration takes these two")]
pub struct TpmKeys {
    /// The endorsement key, which the enrollment names.
    pub endorsement_key: Vec<u8>,
    /// The storage root key.
    pub storage_root_key: Vec<u8>,
}

impl fmt::Debug for TpmKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endorsement_key, storage_root_key } = self;
        write!(f, "TpmKeys({} and {} bytes)", endorsement_key.len(), storage_root_key.len())
    }
}

/// A TPM 2.0 or a substitute: it imports keys that only it can unwrap, and signs with them.
///
/// The service wraps each key for the endorsement key of the enrollment. The two keys of a device, for the Device
/// Provisioning Service and for the hub, are stored separately and survive a restart, so that a device with a stored
/// assignment connects directly to its hub. Report a missing key for the hub as [`LocalFailure::NoKey`], which leads to
/// a registration, and any other failure with [`SignError::new`].
///
/// `Tpm2` (feature `tpm2`) is one over the kernel's device.
///
/// [`LocalFailure::NoKey`]: steadfast_core::LocalFailure::NoKey
pub trait Tpm: Send + Sync + 'static {
    /// Returns the public keys.
    fn keys(&self) -> TpmWork<TpmKeys>;

    /// Unwraps a key (`TPM2_ActivateCredential` and `TPM2_Import`) and stores it for `role`, replacing the previous
    /// one, which stays on failure.
    ///
    /// `wrapped` is the service's data, in the order in which the official SDKs parse it: `TPM2B_ID_OBJECT` and
    /// `TPM2B_ENCRYPTED_SECRET`, which give the key of the inner wrapping; `TPM2B_PRIVATE`, the key as a duplicate, and
    /// `TPM2B_ENCRYPTED_SECRET`, which opens its outer wrapping; `TPM2B_PUBLIC`; then a text that is not used here.
    fn activate(&self, role: ServiceKind, wrapped: Vec<u8>) -> TpmWork<()>;

    /// Signs [`request.text`](SignRequest::text) by HMAC-SHA256 with the key for [`request.role`](SignRequest::role)
    /// (`TPM2_HMAC`).
    fn sign(&self, request: SignRequest<'_>) -> Signing;
}

impl Builder {
    /// Registers with the Device Provisioning Service over HTTPS on port 443 instead of MQTT: for networks that allow
    /// nothing else, or for a credential that requires it. Registrations and delays are the same as over MQTT. The hub
    /// is still reached over MQTT.
    pub const fn register_over_https(mut self) -> Self {
        self.config.https_registration = true;
        self
    }

    /// Authenticates with the device's TPM. The device registers over HTTPS, the only protocol that the service offers
    /// for TPMs: the service sends the TPM a key for the registration and one for the hub, which never leave it.
    ///
    /// It needs [`provision_with`](Self::provision_with). After a move to another hub the TPM gets a new key in the
    /// same way.
    pub fn tpm(self, tpm: impl Tpm) -> Self {
        let tpm: Arc<dyn Tpm> = Arc::new(tpm);
        let mut builder = self.signer(TpmSigner(Arc::clone(&tpm))).register_over_https();
        builder.tpm = Some(tpm);
        builder
    }
}

/// Signs the device's tokens for its hub; the registration makes its own.
struct TpmSigner(Arc<dyn Tpm>);

impl Signer for TpmSigner {
    fn sign(&self, request: SignRequest<'_>) -> Signing {
        if request.role == ServiceKind::Hub {
            return self.0.sign(request);
        }
        // Without a token: the key for the registration does not exist yet.
        Box::pin(std::future::ready(Ok([0; 32])))
    }
}
