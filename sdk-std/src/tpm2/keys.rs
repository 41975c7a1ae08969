//! Keys that the service wraps for a TPM: import, storage, signing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::slice::Chunks;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use steadfast_core::ServiceKind;

use super::error::{HANDLE, Tpm2Error};
use super::primary::{ENDORSEMENT, NULL, SHA256, aes};
use super::transport::{Answer, Line};
use super::wire::{Command, Parameters, Reader};
use crate::atomic_file;

/// `TPM_RH_NULL`: no key, no object, no hierarchy.
const NONE: u32 = 0x4000_0007;
/// `TPM_SE_POLICY`.
const POLICY: u8 = 1;
/// First line of a file with a stored key.
const HEAD: &str = "steadfast-tpm2-key 1";

/// A key that the service wrapped, in the format that the official SDKs parse: C (`hsm_client_tpm.c`), C#
/// (`SecurityProviderTpmHsm.cs`) and Node (`security/tpm/src/tpm.ts`).
///
/// An encrypted text follows these five fields; neither those SDKs nor this one use it.
struct Wrapped<'a> {
    /// `TPM2B_ID_OBJECT`: the key of the inner wrapping, for the endorsement key and the name of the storage root key.
    credential: &'a [u8],
    /// `TPM2B_ENCRYPTED_SECRET`: the secret for the credential.
    secret: &'a [u8],
    /// `TPM2B_PRIVATE`: the device's key, wrapped twice.
    duplicate: &'a [u8],
    /// `TPM2B_ENCRYPTED_SECRET`: the secret for the outer wrapping, for the storage root key.
    seed: &'a [u8],
    /// `TPM2B_PUBLIC` of the device's key.
    public: &'a [u8],
}

impl<'a> Wrapped<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            credential: reader.sized()?,
            secret: reader.sized()?,
            duplicate: reader.sized()?,
            seed: reader.sized()?,
            public: reader.sized()?,
        })
    }
}

/// A stored key: encrypted under the storage root key, usable only by this TPM.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    public: Vec<u8>,
    private: Vec<u8>,
}

/// Returns how many bytes of text one command holds: `TPM_PT_INPUT_BUFFER`, 1,024 in most TPMs.
pub(super) fn input_buffer(line: &mut Line) -> Result<usize, Tpm2Error> {
    // TPM_CAP_TPM_PROPERTIES, and one property from that on (part 2, sections 6.12 and 6.13).
    let wanted = Parameters::new().long(6).long(0x10d).long(1);
    let answer = line.ask(Command::GetCapability, &[], &[], &wanted)?;
    let mut reader = Reader(answer.reader().0.get(1..).unwrap_or_default());
    let [_, count, property, value] = [reader.long(), reader.long(), reader.long(), reader.long()];
    let told = value.filter(|_| (count, property) == (Some(1), Some(0x10d)));
    let told = told.and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0);
    told.ok_or(Tpm2Error::Garbled)
}

impl Kept {
    /// Has the TPM unwrap a key (part 1, section 24, "credential protection"; part 3, sections 12.5 and 13.3).
    pub(super) fn unwrap(
        line: &mut Line,
        endorsement_key: u32,
        storage_root_key: u32,
        wrapped: &[u8],
    ) -> Result<Self, Tpm2Error> {
        let wrapped = Wrapped::parse(wrapped).ok_or(Tpm2Error::Garbled)?;
        // No salt, no key to bind to: the session proves a policy, and no HMAC is made with it.
        let begin = Parameters::new().sized(&[0; 16]).sized(&[]).byte(POLICY).short(NULL).short(SHA256);
        let session = line.ask(Command::StartAuthSession, &[NONE, NONE], &[], &begin)?.handle;
        let inner = line.and_flush(session, |line| {
            let none = Parameters::new().sized(&[]).sized(&[]).sized(&[]).long(0);
            line.ask(Command::PolicySecret, &[ENDORSEMENT, session], &[None], &none)?;
            let credential = Parameters::new().sized(wrapped.credential).sized(wrapped.secret);
            let handles = [storage_root_key, endorsement_key];
            line.ask(Command::ActivateCredential, &handles, &[None, Some(session)], &credential)
                .map_err(Tpm2Error::of_wrapped)
        })?;
        let inner = inner.first()?;
        // AES in the mode CFB; the service chooses the size (azure-iot-sdk-node, `security/tpm/src/tpm.ts`).
        let bits = u16::try_from(inner.len() * 8).map_err(|_| Tpm2Error::Garbled)?;
        let import = Parameters::new().sized(inner).sized(wrapped.public).sized(wrapped.duplicate).sized(wrapped.seed);
        let private = line
            .ask(Command::Import, &[storage_root_key], &[None], &aes(bits, import))
            .map_err(Tpm2Error::of_wrapped)?
            .first()?
            .to_vec();
        let kept = Self { public: wrapped.public.to_vec(), private };
        // A key that cannot sign must not replace one that can.
        kept.sign(line, storage_root_key, usize::MAX, b"steadfast").map_err(Tpm2Error::of_wrapped)?;
        Ok(kept)
    }

    /// Signs by HMAC-SHA256: in a sequence where the text is longer than `buffer`, which one command holds.
    pub(super) fn sign(
        &self,
        line: &mut Line,
        storage_root_key: u32,
        buffer: usize,
        text: &[u8],
    ) -> Result<[u8; 32], Tpm2Error> {
        let blob = Parameters::new().sized(&self.private).sized(&self.public);
        let loaded = line.ask(Command::Load, &[storage_root_key], &[None], &blob)?;
        let signature = line.and_flush(loaded.handle, |line| {
            if text.len() <= buffer {
                let whole = Parameters::new().sized(text).short(SHA256);
                return line.ask(Command::Hmac, &[loaded.handle], &[None], &whole);
            }
            let begin = Parameters::new().sized(&[]).short(SHA256);
            let sequence = line.ask(Command::HmacStart, &[loaded.handle], &[None], &begin)?.handle;
            let signature = in_sequence(line, sequence, text.chunks(buffer));
            if signature.is_err() {
                // A sequence ends with its signature only.
                let _ = line.ask(Command::FlushContext, &[], &[], &Parameters::new().long(sequence));
            }
            signature
        })?;
        signature.first()?.try_into().map_err(|_| Tpm2Error::Garbled)
    }

    /// Reads the key of a role.
    pub(super) fn read(directory: &Path, role: ServiceKind) -> Result<Self, Tpm2Error> {
        let text = match atomic_file::read(&path(directory, role)) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                return Err(Tpm2Error::NoKey);
            }
            Err(error) => return Err(Tpm2Error::Directory(error.to_string())),
        };
        // A damaged file counts as missing: a registration brings a new key.
        Self::parse(&text).ok_or(Tpm2Error::NoKey)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut decoded = || STANDARD.decode(lines.next()?).ok();
        Some(Self { public: decoded()?, private: decoded()? })
    }

    /// Stores the key for a role, replacing the previous one.
    pub(super) fn write(&self, directory: &Path, role: ServiceKind) -> Result<(), Tpm2Error> {
        let [public, private] = [&self.public, &self.private].map(|bytes| STANDARD.encode(bytes));
        let text = format!("{HEAD}\n{public}\n{private}\n");
        atomic_file::replace(&path(directory, role), &text).map_err(|error| Tpm2Error::Directory(error.to_string()))
    }
}

fn in_sequence(line: &mut Line, sequence: u32, pieces: Chunks<'_, u8>) -> Result<Answer, Tpm2Error> {
    let mut pieces = pieces.peekable();
    loop {
        let piece = Parameters::new().sized(pieces.next().unwrap_or_default());
        if pieces.peek().is_none() {
            return line.ask(Command::SequenceComplete, &[sequence], &[None], &piece.long(NONE));
        }
        line.ask(Command::SequenceUpdate, &[sequence], &[None], &piece)?;
    }
}

/// Converts the refusal to load a stored key: the key is damaged, of another TPM, or of this one before it was cleared.
/// A missing storage root key is a different error.
pub(super) fn of_kept(error: Tpm2Error) -> Tpm2Error {
    let load = matches!(error, Tpm2Error::Refused { command, .. } if command == Command::Load.name());
    if load && !error.is(HANDLE) { Tpm2Error::NoKey } else { error }
}

fn path(directory: &Path, role: ServiceKind) -> PathBuf {
    directory.join(if role == ServiceKind::Hub { "hub.tpm2" } else { "registration.tpm2" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_key_is_read_as_it_was_written_and_a_spoilt_one_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Kept::read(directory.path(), ServiceKind::Hub), Err(Tpm2Error::NoKey));
        let kept = Kept { public: vec![1, 2, 3], private: vec![4; 200] };
        kept.write(directory.path(), ServiceKind::Hub).unwrap();
        assert_eq!(Kept::read(directory.path(), ServiceKind::Provisioning), Err(Tpm2Error::NoKey));
        let file = path(directory.path(), ServiceKind::Hub);
        let text = std::fs::read_to_string(&file).unwrap();
        for end in 0..text.len() - 9 {
            std::fs::write(&file, &text[..end]).unwrap();
            let _ = Kept::read(directory.path(), ServiceKind::Hub);
        }
        std::fs::write(&file, text.replace(HEAD, "another")).unwrap();
        assert_eq!(Kept::read(directory.path(), ServiceKind::Hub), Err(Tpm2Error::NoKey));
        kept.write(directory.path(), ServiceKind::Hub).unwrap();
        assert_eq!(Kept::read(directory.path(), ServiceKind::Hub), Ok(kept));
    }

    #[test]
    fn a_wrapped_key_is_taken_apart_and_a_short_one_is_none() {
        let bytes = [[0, 1, 7], [0, 1, 8], [0, 1, 9], [0, 1, 10], [0, 1, 11], [0, 9, 9]].concat();
        let wrapped = Wrapped::parse(&bytes).unwrap();
        assert_eq!((wrapped.credential, wrapped.seed, wrapped.public), (&[7][..], &[10][..], &[11][..]));
        for end in 0..15 {
            assert!(Wrapped::parse(&bytes[..end]).is_none(), "{end}");
        }
    }
}
