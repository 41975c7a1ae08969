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

/// A TPM 2.0, or what stands for one: it takes keys that only it can unwrap, and signs with them.
///
/// The service wraps each key for the endorsement key of the enrollment. The two keys of a device, for the Device
/// Provisioning Service and for the hub, are kept apart and outlive a restart, so that a device with a kept assignment
/// goes straight to its hub. One that finds no key for the hub says so by [`LocalFailure::NoKey`], which leads to a
/// registration, and any other failure by [`SignError::new`].
///
/// `Tpm2` (feature `tpm2`) is one over the kernel's device.
///
/// [`LocalFailure::NoKey`]: steadfast_core::LocalFailure::NoKey
pub trait Tpm: Send + Sync + 'static {
    /// Returns the public keys.
    fn keys(&self) -> TpmWork<TpmKeys>;

    /// Unwraps a key (`TPM2_ActivateCredential` and `TPM2_Import`) and keeps it for `role`, in place of the one before; that
    /// one stays when it fails.
    ///
    /// `wrapped` is what the service sent, in the order in which the official SDKs take it apart: `TPM2B_ID_OBJECT` and
    /// `TPM2B_ENCRYPTED_SECRET`, which give the key of the inner wrapping; `TPM2B_PRIVATE`, the key as a duplicate, and
    /// `TPM2B_ENCRYPTED_SECRET`, which opens its outer wrapping; `TPM2B_PUBLIC`; then a text of no use here.
    fn activate(&self, role: ServiceKind, wrapped: Vec<u8>) -> TpmWork<()>;

    /// Signs [`request.text`](SignRequest::text) by HMAC-SHA256 with the key for [`request.role`](SignRequest::role)
    /// (`TPM2_HMAC`).
    fn sign(&self, request: SignRequest<'_>) -> Signing;
}

impl Builder {
    /// Registers with the Device Provisioning Service over HTTPS on port 443, in place of MQTT: where nothing else gets
    /// through, or for a credential that only goes this way. When to register and how long to wait is as over MQTT. The
    /// hub is spoken to by MQTT all the same.
    pub const fn register_over_https(mut self) -> Self {
        self.config.https_registration = true;
        self
    }

    /// Proves the device with its TPM. It registers over HTTPS, which is the only way the service offers to TPMs: the
    /// service hands the TPM a key for the registration and one for the hub, which never leave it.
    ///
    /// It needs [`provision_with`](Self::provision_with). After a move to another hub the new key is taken in the same way.
    pub fn tpm(self, tpm: impl Tpm) -> Self {
        let tpm: Arc<dyn Tpm> = Arc::new(tpm);
        let mut builder = self.signer(TpmSigner(Arc::clone(&tpm))).register_over_https();
        builder.tpm = Some(tpm);
        builder
    }
}

/// Signs the device's tokens for its hub; those for the registration are made where it takes place.
struct TpmSigner(Arc<dyn Tpm>);

impl Signer for TpmSigner {
    fn sign(&self, request: SignRequest<'_>) -> Signing {
        if request.role == ServiceKind::Hub {
            return self.0.sign(request);
        }
        // Nothing travels with it: the key for the registration is not there yet.
        Box::pin(std::future::ready(Ok([0; 32])))
    }
}
