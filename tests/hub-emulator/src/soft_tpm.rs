//! A software TPM for tests: only it can unwrap the keys that are wrapped for its endorsement key.
//!
//! The format of a wrapped key is the emulator's own (X25519, HMAC-SHA256); [`crate::tpm_wrap`] wraps keys for a real
//! TPM. This one runs inside the test and can be made to fail.

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::sas::Key;

/// Bytes of a public key, and of the authentication tag.
const BYTES: usize = 32;

/// A TPM in software.
pub struct SoftTpm {
    endorsement: StaticSecret,
    /// The unwrapped keys, in slots that the caller selects.
    keys: Mutex<[Option<Key>; 2]>,
}

impl SoftTpm {
    /// Creates a TPM with new keys.
    #[must_use]
    pub fn new() -> Self {
        Self { endorsement: secret(), keys: Mutex::default() }
    }

    /// Returns the public endorsement key, for the enrollment.
    #[must_use]
    pub fn endorsement_key(&self) -> Vec<u8> {
        PublicKey::from(&self.endorsement).as_bytes().to_vec()
    }

    /// Unwraps a key into slot 0 or 1; false when it was not wrapped for this TPM, or was changed.
    pub fn activate(&self, slot: usize, wrapped: &[u8]) -> bool {
        let Some(key) = self.unwrap(wrapped) else { return false };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get_mut(slot).map(|entry| *entry = Some(key)).is_some()
    }

    /// Signs with the key in a slot; none when the slot is empty.
    #[must_use]
    pub fn sign(&self, slot: usize, text: &str) -> Option<[u8; 32]> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(slot)?.as_ref().map(|key| key.sign(text.as_bytes()))
    }

    fn unwrap(&self, wrapped: &[u8]) -> Option<Key> {
        let (public, rest) = wrapped.split_first_chunk::<BYTES>()?;
        let (sealed, tag) = rest.split_last_chunk::<BYTES>()?;
        let shared = self.endorsement.diffie_hellman(&PublicKey::from(*public));
        let (stream, seal) = derive(shared.as_bytes(), public, sealed);
        (seal == *tag).then(|| Key::from_bytes(&mix(sealed, &stream)))
    }
}

impl Default for SoftTpm {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SoftTpm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SoftTpm(hidden)")
    }
}

/// Wraps a key for the TPM with this endorsement key, in base64; `None` when the endorsement key is invalid.
pub(crate) fn wrap(endorsement_key: &[u8], key: &Key) -> Option<String> {
    let endorsement_key = <[u8; BYTES]>::try_from(endorsement_key).ok()?;
    let ephemeral = secret();
    let public = PublicKey::from(&ephemeral);
    let shared = ephemeral.diffie_hellman(&PublicKey::from(endorsement_key));
    let plain = STANDARD.decode(key.to_base64()).unwrap_or_default();
    let (stream, _) = derive(shared.as_bytes(), public.as_bytes(), &[]);
    let sealed = mix(&plain, &stream);
    let (_, seal) = derive(shared.as_bytes(), public.as_bytes(), &sealed);
    Some(STANDARD.encode([public.as_bytes().as_slice(), &sealed, &seal].concat()))
}

fn secret() -> StaticSecret {
    let mut bytes = [0; BYTES];
    let random = STANDARD.decode(Key::random().to_base64()).unwrap_or_default();
    for (byte, random) in bytes.iter_mut().zip(random) {
        *byte = random;
    }
    StaticSecret::from(bytes)
}

/// Returns a 64-byte key stream and the authentication tag.
fn derive(shared: &[u8; BYTES], public: &[u8; BYTES], sealed: &[u8]) -> (Vec<u8>, [u8; BYTES]) {
    let block = |label: u8, data: &[u8]| -> [u8; BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(shared).expect("HMAC accepts keys of any length");
        mac.update(&[label]);
        mac.update(public);
        mac.update(data);
        mac.finalize().into_bytes().into()
    };
    ([block(1, &[]), block(2, &[])].concat(), block(3, sealed))
}

fn mix(bytes: &[u8], stream: &[u8]) -> Vec<u8> {
    bytes.iter().zip(stream).map(|(byte, other)| byte ^ other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tpm_of_a_wrapped_key_unwraps_it() {
        let (tpm, other) = (SoftTpm::new(), SoftTpm::new());
        let key = Key::from_seed("a key");
        let mut wrapped = STANDARD.decode(wrap(&tpm.endorsement_key(), &key).unwrap()).unwrap();
        assert_eq!(tpm.sign(0, "text"), None);
        assert!(!other.activate(0, &wrapped));
        assert!(tpm.activate(0, &wrapped));
        assert_eq!(tpm.sign(0, "text"), Some(key.sign(b"text")));
        wrapped[40] ^= 1;
        assert!(!tpm.activate(1, &wrapped));
        assert_eq!(tpm.sign(1, "text"), None);
    }
}
