//! Errors of a TPM.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use steadfast_core::LocalFailure;

use super::wire::Command;
use crate::signer::SignError;

/// An error of a TPM, or of its keys. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tpm2Error {
    /// There is no TPM, or it does not answer.
    Absent(PathBuf),
    /// This process may not use the TPM.
    Denied(PathBuf),
    /// The TPM is in use by others, or asks for a later retry.
    Busy,
    /// There is no key at this persistent handle, and none can be created: the TPM's owner has set a password, or
    /// disabled the hierarchy. The code is that of the TPM.
    NoPrimaryKey {
        /// The handle.
        handle: u32,
        /// The TPM's response code.
        code: u32,
    },
    /// The key at this persistent handle is not of the kind that the service wraps keys for: RSA with 2,048 bits, SHA-256,
    /// AES-128 in the mode CFB, for the decryption of other keys.
    KindOfKey(u32),
    /// The TPM rejects the key: it was wrapped for another TPM, or modified.
    NotAccepted {
        /// The command it refused.
        command: &'static str,
        /// The TPM's response code.
        code: u32,
    },
    /// There is no key to sign with: none was imported, its file is missing, or the TPM was cleared.
    NoKey,
    /// The directory of the stored keys cannot be used.
    Directory(String),
    /// The TPM refuses a command with this response code (TPM 2.0 Library, part 2, section 6.6).
    Refused {
        /// The command.
        command: &'static str,
        /// The TPM's response code.
        code: u32,
    },
    /// The exchange with the TPM broke off.
    Broken(String),
    /// Data from the TPM or the service cannot be parsed.
    Garbled,
}

/// Codes of format one name the parameter, handle or session they are about; this leaves the error itself (part 2,
/// section 6.6.2).
const fn error_of(code: u32) -> u32 {
    if code & 0x80 == 0 { code } else { code & 0xbf }
}

/// `TPM_RC_HANDLE`: there is nothing at the handle.
pub(super) const HANDLE: u32 = 0x8b;

/// A device reports it; on a socket a deadline passes while the TPM serves another client.
fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Tpm2Error {
    pub(super) fn open(path: &Path, error: &io::Error) -> Self {
        if is_busy(error) {
            Self::Busy
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied(path.into())
        } else {
            Self::Absent(path.into())
        }
    }

    pub(super) fn exchange(error: &io::Error) -> Self {
        if is_busy(error) { Self::Busy } else { Self::Broken(error.to_string()) }
    }

    pub(super) const fn refused(command: Command, code: u32) -> Self {
        match code {
            // TPM_RC_YIELDED, TESTING, NV_RATE, LOCKOUT, RETRY; OBJECT_MEMORY, SESSION_MEMORY, OBJECT_HANDLES.
            0x908 | 0x90a | 0x920 | 0x921 | 0x922 | 0x902 | 0x903 | 0x906 => Self::Busy,
            code => Self::Refused { command: command.name(), code },
        }
    }

    /// Whether the TPM refused with this error.
    pub(super) fn is(&self, error: u32) -> bool {
        matches!(self, Self::Refused { code, .. } if error_of(*code) == error)
    }

    /// Converts the refusal of a wrapped key.
    pub(super) fn of_wrapped(self) -> Self {
        if let Self::Refused { command, code } = self { Self::NotAccepted { command, code } } else { self }
    }

    pub(super) fn told(&self) -> SignError {
        let failure = if *self == Self::NoKey { LocalFailure::NoKey } else { LocalFailure::Signing };
        SignError::with_failure(failure, self.to_string())
    }
}

impl fmt::Display for Tpm2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => write!(f, "there is no TPM at {}", path.display()),
            Self::Denied(path) => {
                write!(f, "no access to the TPM at {}; on most systems its group is tss", path.display())
            }
            Self::Busy => f.write_str("the TPM is busy; /dev/tpmrm0 serves several programs at once"),
            Self::NoPrimaryKey { handle, code } => write!(
                f,
                "the TPM has no key at {handle:#010x} and lets none be made (code {code:#05x}); its owner has to, with \
                 tpm2_createek or tpm2_createprimary and tpm2_evictcontrol"
            ),
            Self::KindOfKey(handle) => write!(
                f,
                "the key at {handle:#010x} is not RSA 2048 with SHA-256 and AES-128-CFB; name the handle of one that is"
            ),
            Self::NotAccepted { command, code } => {
                write!(f, "the TPM rejects the key ({command}: {code:#05x}); it was wrapped for another TPM")
            }
            Self::NoKey => f.write_str("the TPM has no key of this device"),
            Self::Directory(problem) => write!(f, "the directory of the TPM's keys cannot be used: {problem}"),
            Self::Refused { command, code } => write!(f, "the TPM refuses {command} with {code:#05x}"),
            Self::Broken(problem) => write!(f, "the exchange with the TPM broke off: {problem}"),
            Self::Garbled => f.write_str("data from the TPM or the service cannot be parsed"),
        }
    }
}

impl std::error::Error for Tpm2Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_codes_have_their_meaning_whatever_they_are_about() {
        for (code, busy) in [(0x922, true), (0x908, true), (0x902, true), (0x18b, false), (0x101, false)] {
            assert_eq!(Tpm2Error::refused(Command::Load, code) == Tpm2Error::Busy, busy, "{code:#x}");
        }
        for code in [0x8b, 0x18b, 0x28b] {
            assert!(Tpm2Error::refused(Command::ReadPublic, code).is(HANDLE), "{code:#x}");
        }
        for code in [0x1df, 0x101] {
            assert!(!Tpm2Error::refused(Command::ReadPublic, code).is(HANDLE), "{code:#x}");
        }
        let taken = Tpm2Error::refused(Command::Import, 0x1df).of_wrapped();
        assert_eq!(taken, Tpm2Error::NotAccepted { command: "TPM2_Import", code: 0x1df });
    }
}
