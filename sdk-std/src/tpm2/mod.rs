//! A TPM 2.0 through the kernel, and no library between.

mod error;
mod keys;
mod primary;
mod transport;
mod wire;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use steadfast_core::{ServiceKind, SignRequest};

pub use self::error::Tpm2Error;
use self::keys::Kept;
use self::primary::Primary;
use self::transport::Line;
use crate::context::KEYS;
use crate::signer::{SignError, Signing};
use crate::tpm::{Tpm, TpmKeys, TpmWork};

/// A TPM 2.0, for [`Builder::tpm`](crate::Builder::tpm).
///
/// The TPM unwraps the service's keys (`TPM2_ActivateCredential`, `TPM2_Import`), which are stored in files that only
/// this TPM can read, one for the registration and one for the hub; the keys themselves never leave it. It signs tokens
/// (`TPM2_HMAC`, in a sequence for a text longer than one command). It is opened for each use, about once an hour, and
/// released in between.
///
/// ```no_run
/// use steadfast::{Device, Dps, Tpm2};
///
/// let tpm = Tpm2::open("/dev/tpmrm0", "/var/lib/pump/keys")?;
/// let (device, driver) = Device::builder()
///     .provision_with(Dps::new("0ne00ABCDEF", "pump-7"))
///     .tpm(tpm)
///     .assignment_file("/var/lib/pump/assignment")
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tpm2(Arc<Inner>);

struct Inner {
    path: PathBuf,
    directory: PathBuf,
    handles: Tpm2Handles,
    keys: TpmKeys,
    /// Bytes of text that one command holds.
    buffer: usize,
    /// One operation at a time: a TPM without a resource manager has room for few keys.
    turn: Mutex<()>,
}

/// Persistent handles of the keys that a TPM creates itself, both RSA with 2,048 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a TPM takes part with these two")]
pub struct Tpm2Handles {
    /// The endorsement key. Default 0x8101_0001.
    pub endorsement_key: u32,
    /// The storage root key. Default 0x8100_0001.
    pub storage_root_key: u32,
}

impl Tpm2Handles {
    /// Where the TCG TPM v2.0 Provisioning Guidance (section 7.8) has them, and azure-iot-sdk-c looks for them.
    pub const DEFAULT: Self = Self { endorsement_key: 0x8101_0001, storage_root_key: 0x8100_0001 };
}

impl Default for Tpm2Handles {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Tpm2 {
    /// Opens a TPM: a device of the kernel, best `/dev/tpmrm0`, which several programs share; or a Unix socket on which
    /// swtpm listens. The device's keys are stored in `directory`, which must exist.
    ///
    /// If the TPM lacks its endorsement key or storage root key, they are created and persisted; that may take a
    /// minute. Its hierarchies must have no passwords. The call blocks.
    ///
    /// # Errors
    /// [`Tpm2Error`] if the TPM or the directory is not usable.
    pub fn open(path: impl AsRef<Path>, directory: impl Into<PathBuf>) -> Result<Self, Tpm2Error> {
        Self::open_with(path, directory, Tpm2Handles::DEFAULT)
    }

    /// Like [`open`](Self::open), with the two keys at other handles: for a TPM whose usual handles hold keys of
    /// another kind.
    ///
    /// # Errors
    /// [`Tpm2Error`] if the TPM or the directory is not usable.
    pub fn open_with(
        path: impl AsRef<Path>,
        directory: impl Into<PathBuf>,
        handles: Tpm2Handles,
    ) -> Result<Self, Tpm2Error> {
        let (path, directory) = (path.as_ref().to_owned(), directory.into());
        if !directory.is_dir() {
            return Err(Tpm2Error::Directory(format!("{} is no directory", directory.display())));
        }
        let mut line = Line::open(&path)?;
        let endorsement_key = Primary::Endorsement.at(handles.endorsement_key, &mut line)?;
        let storage_root_key = Primary::StorageRoot.at(handles.storage_root_key, &mut line)?;
        let buffer = keys::input_buffer(&mut line)?;
        let keys = TpmKeys { endorsement_key, storage_root_key };
        Ok(Self(Arc::new(Inner { path, directory, handles, keys, buffer, turn: Mutex::new(()) })))
    }

    /// Returns the public endorsement key (`TPM2B_PUBLIC`); an enrollment names it in base64.
    #[must_use]
    pub fn endorsement_key(&self) -> &[u8] {
        &self.0.keys.endorsement_key
    }

    /// Runs `work` on a thread where it may block.
    fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut Line) -> Result<T, Tpm2Error> + Send + 'static,
    ) -> TpmWork<T> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let done = KEYS.run(move || {
                let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
                Line::open(&inner.path).and_then(|mut line| work(&inner, &mut line))
            });
            let done = done.await.map_err(|error| SignError::without_thread(&error))?;
            done.map_err(|error| error.told())
        })
    }
}

impl Tpm for Tpm2 {
    fn keys(&self) -> TpmWork<TpmKeys> {
        Box::pin(std::future::ready(Ok(self.0.keys.clone())))
    }

    fn activate(&self, role: ServiceKind, wrapped: Vec<u8>) -> TpmWork<()> {
        self.work(move |inner, line| {
            let Tpm2Handles { endorsement_key, storage_root_key } = inner.handles;
            Kept::unwrap(line, endorsement_key, storage_root_key, &wrapped)?.write(&inner.directory, role)
        })
    }

    fn sign(&self, request: SignRequest<'_>) -> Signing {
        let (role, text) = (request.role, request.text.to_string());
        self.work(move |inner, line| {
            let kept = Kept::read(&inner.directory, role)?;
            kept.sign(line, inner.handles.storage_root_key, inner.buffer, text.as_bytes()).map_err(keys::of_kept)
        })
    }
}

impl fmt::Debug for Tpm2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tpm2({})", self.0.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_that_is_not_there_and_a_directory_that_is_none_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = directory.path().join("tpmrm0");
        let error = Tpm2::open(&nowhere, directory.path()).unwrap_err();
        assert_eq!(error, Tpm2Error::Absent(nowhere.clone()));
        let error = Tpm2::open(&nowhere, directory.path().join("keys")).unwrap_err();
        assert!(matches!(error, Tpm2Error::Directory(_)), "{error}");
    }
}
