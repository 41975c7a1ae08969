//! Wraps a key for a TPM 2.0 as the service does: `TPM2_MakeCredential` and `TPM2_Duplicate` in software (TCG, TPM 2.0
//! Library, part 1, sections 11.4.10, 23.3, 24 and annex B; part 2 for the structures).
//!
//! The structures and their order are those that the official SDKs parse: C (`hsm_client_tpm.c`), C#
//! (`SecurityProviderTpmHsm.cs`) and Node (`security/tpm/src/tpm.ts`). The attributes of the wrapped key are the emulator's
//! own choice: the service's are not documented.

use aes::Aes128;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cfb_mode::Encryptor;
use cfb_mode::cipher::KeyIvInit;
use hmac::{Hmac, KeyInit, Mac};
use num_bigint::BigUint;
use sha2::{Digest, Sha256};

use crate::sas::Key;

/// `TPM_ALG_KEYEDHASH`, `TPM_ALG_HMAC`, `TPM_ALG_SHA256` (part 2, section 6.3).
const KEYEDHASH: u16 = 0x0008;
const HMAC: u16 = 0x0005;
const SHA256: u16 = 0x000b;

/// `userWithAuth`, `noDA` and `sign` of `TPMA_OBJECT` (part 2, section 8.3).
const ATTRIBUTES: u32 = 0x0004_0440;

/// Type and digest of the public area of a storage key, RSA with SHA-256.
const HEAD: [u8; 4] = [0, 1, 0, 0x0b];

/// Its parameters: AES-128-CFB, no scheme, 2,048 bits, and 0 for the exponent 65,537.
const PARAMETERS: [u8; 14] = [0, 6, 0, 128, 0, 0x43, 0, 0x10, 8, 0, 0, 0, 0, 0];

/// The public part of an RSA storage key in TPM encoding (`TPM2B_PUBLIC`).
pub(crate) struct WrappingKey<'a> {
    /// `TPMT_PUBLIC`.
    area: &'a [u8],
    modulus: &'a [u8],
}

impl<'a> WrappingKey<'a> {
    pub(crate) fn parse(public: &'a [u8]) -> Option<Self> {
        let (area, rest) = sized(public)?;
        // Between them are four bytes of attributes, and the policy.
        let (_, behind) = sized(area.strip_prefix(&HEAD)?.get(4..)?)?;
        let (modulus, end) = sized(behind.strip_prefix(&PARAMETERS)?)?;
        let whole = rest.is_empty() && end.is_empty() && modulus.len() == 256;
        whole.then_some(Self { area, modulus })
    }

    /// Its name: algorithm and digest (part 1, section 16).
    fn name(&self) -> Vec<u8> {
        name(self.area)
    }

    /// Encrypts by RSA-OAEP with SHA-256 (RFC 8017, section 7.1.1; part 1, annex B.4: the label ends with a zero).
    fn encrypt(&self, secret: &[u8; 32], label: &str) -> Vec<u8> {
        let label = Sha256::digest([label.as_bytes(), &[0]].concat());
        let size = self.modulus.len();
        let mut block = vec![0; size - 1 - 32];
        block[..32].copy_from_slice(&label);
        let end = block.len() - 32;
        block[end - 1] = 1;
        block[end..].copy_from_slice(secret);
        let mut seed = random();
        mask(&mut block, &seed);
        mask(&mut seed, &block);
        let padded = BigUint::from_bytes_be(&[&[0][..], &seed, &block].concat());
        let cipher = padded.modpow(&BigUint::from(65_537_u32), &BigUint::from_bytes_be(self.modulus)).to_bytes_be();
        [vec![0; size - cipher.len()], cipher].concat()
    }
}

/// Wraps a key as DPS does, for the TPM 2.0 with these public keys (`TPM2B_PUBLIC`); `None` when they are not RSA with
/// 2,048 bits, SHA-256 and AES-128-CFB, which most TPMs have.
#[must_use]
pub fn wrap_for_tpm(endorsement_key: &[u8], storage_root_key: &[u8], key: &Key) -> Option<Vec<u8>> {
    Some(wrap(&WrappingKey::parse(endorsement_key)?, &WrappingKey::parse(storage_root_key)?, key))
}

fn wrap(endorsement: &WrappingKey<'_>, storage_root: &WrappingKey<'_>, key: &Key) -> Vec<u8> {
    let key = STANDARD.decode(key.to_base64()).unwrap_or_default();
    let [inner, obfuscation] = [random(), random()];
    let inner = &inner[..16];

    let unique = Sha256::digest([&obfuscation[..], &key].concat());
    let area = [
        &KEYEDHASH.to_be_bytes()[..],
        &SHA256.to_be_bytes(),
        &ATTRIBUTES.to_be_bytes(),
        &with_size(&[]),
        &HMAC.to_be_bytes(),
        &SHA256.to_be_bytes(),
        &with_size(&unique),
    ]
    .concat();
    let name = name(&area);

    // The credential is the key of the inner wrapping; only a TPM with both keys can recover it.
    let seed = random();
    let identity = encrypted(&derived::<16>(&seed, "STORAGE", &storage_root.name()), with_size(inner));
    let integrity = sealed(&seed, &identity, &storage_root.name());
    let credential = [with_size(&integrity), identity].concat();
    let secret = endorsement.encrypt(&seed, "IDENTITY");

    let sensitive =
        [&KEYEDHASH.to_be_bytes()[..], &with_size(&[]), &with_size(&obfuscation), &with_size(&key)].concat();
    let sensitive = with_size(&sensitive);
    let integrity = Sha256::digest([&sensitive[..], &name].concat());
    let once = encrypted(inner.first_chunk().unwrap_or(&[0; 16]), [with_size(&integrity), sensitive].concat());

    let seed = random();
    let twice = encrypted(&derived::<16>(&seed, "STORAGE", &name), once);
    let duplicate = [with_size(&sealed(&seed, &twice, &name)), twice].concat();
    let opener = storage_root.encrypt(&seed, "DUPLICATE");

    // No further text follows.
    [&credential, &secret, &duplicate, &opener, &area, &Vec::new()].map(|part| with_size(part)).concat()
}

fn random() -> [u8; 32] {
    let bytes = STANDARD.decode(Key::random().to_base64()).unwrap_or_default();
    bytes.try_into().unwrap_or([0; 32])
}

fn name(area: &[u8]) -> Vec<u8> {
    [&SHA256.to_be_bytes()[..], &Sha256::digest(area)].concat()
}

/// Prefixes bytes with their length, as a `TPM2B`.
fn with_size(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes()[..], bytes].concat()
}

/// Splits a `TPM2B` off the front.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Encrypts with AES-128 in CFB mode with a zero initialization vector.
fn encrypted(key: &[u8; 16], mut bytes: Vec<u8>) -> Vec<u8> {
    Encryptor::<Aes128>::new(&(*key).into(), &[0; 16].into()).encrypt(&mut bytes);
    bytes
}

/// The integrity value of a wrapping: HMAC with its own key (part 1, sections 23.3.2.4 and 24.5).
fn sealed(seed: &[u8; 32], bytes: &[u8], name: &[u8]) -> [u8; 32] {
    let key = derived::<32>(seed, "INTEGRITY", &[]);
    hmac(&key, &[bytes, name])
}

/// KDFa with SHA-256 (part 1, section 11.4.10.2), for at most one digest's length.
fn derived<const LENGTH: usize>(key: &[u8; 32], label: &str, context: &[u8]) -> [u8; LENGTH] {
    let bits = u32::try_from(LENGTH * 8).unwrap_or_default();
    let block = hmac(key, &[&1_u32.to_be_bytes(), label.as_bytes(), &[0], context, &bits.to_be_bytes()]);
    *block.first_chunk().unwrap_or(&[0; LENGTH])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC accepts keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// MGF1 with SHA-256 (RFC 8017, annex B.2.1).
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (number, chunk) in (0_u32..).zip(bytes.chunks_mut(32)) {
        let block = Sha256::digest([seed, &number.to_be_bytes()].concat());
        chunk.iter_mut().zip(block).for_each(|(byte, mask)| *byte ^= mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A public area with this policy, and ones for a modulus.
    fn public(policy: &[u8]) -> Vec<u8> {
        let head = [&[0, 1, 0, 0x0b, 0, 3, 0, 0xb2][..], &with_size(policy)].concat();
        with_size(&[&head[..], &PARAMETERS, &with_size(&[0xff; 256])].concat())
    }

    #[test]
    fn storage_keys_are_distinguished_from_other_keys() {
        for policy in [&[][..], &[7; 32]] {
            let public = public(policy);
            assert_eq!(WrappingKey::parse(&public).unwrap().modulus, [0xff; 256]);
            for end in 0..public.len() {
                assert!(WrappingKey::parse(&public[..end]).is_none(), "{end}");
            }
            let mut other = public.clone();
            other[3] = 0x23;
            assert!(WrappingKey::parse(&other).is_none(), "an elliptic curve");
        }
        assert!(WrappingKey::parse(&[7; 32]).is_none());
    }

    #[test]
    fn a_wrapped_key_has_five_parts_and_no_text_after_them() {
        let public = public(&[]);
        let key = WrappingKey::parse(&public).unwrap();
        let wrapped = wrap(&key, &key, &Key::from_seed("a key"));
        let mut rest = &wrapped[..];
        let mut lengths = Vec::new();
        while let Some((part, behind)) = sized(rest) {
            lengths.push(part.len());
            rest = behind;
        }
        assert_eq!((lengths, rest.len()), (vec![52, 256, 142, 256, 48, 0], 0));
    }
}
