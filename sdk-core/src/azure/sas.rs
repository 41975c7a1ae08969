//! Shared access signature tokens: string to sign, token, and key.
//!
//! A token is `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}`, and `&skn=registration` after it for
//! the provisioning service. The signature is HMAC-SHA256 over `{resource}`, a line feed and the expiry in decimal,
//! with the resource percent-encoded exactly as it is sent. [`SymmetricKey`] signs with a key in memory.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::scan;
use crate::text::{Part, Sink, SinkFull, Text};

/// The resource of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource<'a> {
    /// A device or one of its modules on a hub.
    Device {
        /// Host name of the hub.
        hub: &'a str,
        /// Device id.
        device_id: &'a str,
        /// Module id, for the token of a module.
        module_id: Option<&'a str>,
    },
    /// A registration with the Device Provisioning Service.
    Registration {
        /// Id scope of the service instance.
        id_scope: &'a str,
        /// Registration id.
        registration_id: &'a str,
    },
}

impl<'a> Resource<'a> {
    /// Returns the text whose HMAC-SHA256 is the signature of a token that expires at `expiry_unix_secs`.
    #[must_use]
    pub fn string_to_sign(&self, expiry_unix_secs: u64) -> Text<'a> {
        let [a, b, c, d, e] = self.encoded();
        Text::of([a, b, c, d, e, Part::Plain("\n"), Part::Number(expiry_unix_secs)])
    }

    /// Returns the token, which is the password of the MQTT connection.
    ///
    /// `signature` is the HMAC-SHA256 of [`Resource::string_to_sign`] with the same expiry.
    #[must_use]
    pub fn token(&self, signature: &'a [u8; 32], expiry_unix_secs: u64) -> Text<'a> {
        let [a, b, c, d, e] = self.encoded();
        let policy = match self {
            Self::Device { .. } => "",
            Self::Registration { .. } => "&skn=registration",
        };
        Text::of([
            Part::Plain("SharedAccessSignature sr="),
            a,
            b,
            c,
            d,
            e,
            Part::Plain("&sig="),
            Part::EncodedBase64(signature),
            Part::Plain("&se="),
            Part::Number(expiry_unix_secs),
            Part::Plain(policy),
        ])
    }

    fn encoded(&self) -> [Part<'a>; 5] {
        match *self {
            Self::Device { hub, device_id, module_id } => [
                Part::Encoded(hub),
                Part::Plain("%2Fdevices%2F"),
                Part::Encoded(device_id),
                Part::Plain(if module_id.is_some() { "%2Fmodules%2F" } else { "" }),
                Part::Encoded(module_id.unwrap_or_default()),
            ],
            Self::Registration { id_scope, registration_id } => [
                Part::Encoded(id_scope),
                Part::Plain("%2Fregistrations%2F"),
                Part::Encoded(registration_id),
                Part::Plain(""),
                Part::Plain(""),
            ],
        }
    }
}

/// Returns the expiry of a ready-made token, in Unix seconds, or `None` if the text is not a token with `sr`, `sig` and
/// a decimal `se`, each once.
#[must_use]
pub fn token_expiry(token: &str) -> Option<u64> {
    let fields = token.strip_prefix("SharedAccessSignature ")?;
    let one = |wanted: &str| {
        let mut found = scan::split(fields, b'&')
            .filter_map(|field| scan::split_once(field, b'='))
            .filter(|(key, _)| *key == wanted);
        let (_, value) = found.next()?;
        if value.is_empty() || found.next().is_some() { None } else { Some(value) }
    };
    one("sr")?;
    one("sig")?;
    let expiry = one("se")?;
    scan::decimal(expiry)
}

/// Shortest accepted key from base64, in bytes (Device Provisioning Service, symmetric key attestation).
pub const KEY_MIN: usize = 16;
/// Longest key, in bytes (Device Provisioning Service, symmetric key attestation).
pub const KEY_MAX: usize = 64;

/// A symmetric key is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// A character is not of the base64 alphabet, or padding is not at the end.
    Character {
        /// Its byte offset.
        at: usize,
    },
    /// The text is not padded to a multiple of four characters.
    Padding,
    /// The last character before the padding carries bits of no byte.
    SpareBits,
    /// The key is too short or too long.
    Length {
        /// Its length in bytes; for a text that is far too long, the bytes read so far.
        bytes: usize,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character { at } => write!(f, "the key is not base64: bad character at offset {at}"),
            Self::Padding => {
                f.write_str("the key is not base64: it must be padded with = to a multiple of 4 characters")
            }
            Self::SpareBits => f.write_str("the key is not base64: its last character has bits that belong to no byte"),
            Self::Length { bytes } => {
                write!(f, "the key has {bytes} bytes; keys have {KEY_MIN} to {KEY_MAX}: copy it whole, in base64")
            }
        }
    }
}

impl core::error::Error for KeyError {}

/// A symmetric key in memory.
///
/// It cannot be cloned, read or printed, and is zeroed when dropped. Moving it may leave copies of its bytes on the
/// stack, so construct it in place.
pub struct SymmetricKey {
    bytes: [u8; KEY_MAX],
    len: usize,
}

impl SymmetricKey {
    /// Parses a key as shown by the service: base64 (RFC 4648, section 4) with padding, of [`KEY_MIN`] to [`KEY_MAX`]
    /// bytes. White space and spare bits are refused, so two texts never mean one key.
    ///
    /// # Errors
    /// [`KeyError`] naming the first flaw, never the key.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let mut key = Self { bytes: [0; KEY_MAX], len: 0 };
        let mut body = text.as_bytes();
        while let [digits @ .., b'='] = body {
            body = digits;
        }
        let padding = text.len().saturating_sub(body.len());
        let mut word = 0_u32;
        let mut bits = 0_u32;
        let mut at = 0_usize;
        for byte in body {
            let digit = base64_value(*byte).ok_or(KeyError::Character { at })?;
            at = at.wrapping_add(1);
            word = (word << 6) | u32::from(digit);
            bits = bits.wrapping_add(6);
            if bits >= 8 {
                bits = bits.wrapping_sub(8);
                key.push(word.wrapping_shr(bits).to_le_bytes()[0])?;
            }
        }
        if !text.len().is_multiple_of(4) || padding > 2 {
            return Err(KeyError::Padding);
        }
        // After 8-bit bytes are taken, 0, 2 or 4 bits are left, below the padding.
        if (word & !u32::MAX.wrapping_shl(bits)) != 0 {
            return Err(KeyError::SpareBits);
        }
        if key.len < KEY_MIN { Err(KeyError::Length { bytes: key.len }) } else { Ok(key) }
    }

    /// Takes a key's raw bytes, 1 to [`KEY_MAX`] of them. Keys of the service have at least [`KEY_MIN`].
    ///
    /// # Errors
    /// [`KeyError::Length`] for no bytes or too many.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.is_empty() || bytes.len() > KEY_MAX {
            return Err(KeyError::Length { bytes: bytes.len() });
        }
        Ok(Self::holding(bytes))
    }

    /// Returns the HMAC-SHA256 of `text`, which is never buffered as a whole.
    #[must_use]
    pub fn sign(&self, text: &Text<'_>) -> [u8; 32] {
        struct Signer(Hmac<Sha256>);
        impl Sink for Signer {
            fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
                self.0.update(bytes);
                Ok(())
            }
        }
        // A shorter key is filled up with zeros to the length of a block, as here (RFC 2104, section 2).
        let mut signer = Signer(Hmac::new((&self.bytes).into()));
        // A signer is never full.
        let _ = text.write(&mut signer);
        signer.0.finalize().into_bytes().into()
    }

    /// Returns the key of one device of an enrollment group whose key this is.
    ///
    /// The registration id must be written as it is registered: the service derives from lower case ids.
    #[must_use]
    pub fn derive(&self, registration_id: &str) -> Self {
        let mut derived = self.sign(&Text::from(registration_id));
        let key = Self::holding(&derived);
        derived.zeroize();
        key
    }

    /// Holds `bytes`, which are at most [`KEY_MAX`].
    fn holding(bytes: &[u8]) -> Self {
        let mut key = Self { bytes: [0; KEY_MAX], len: bytes.len() };
        for (to, from) in key.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        key
    }

    fn push(&mut self, byte: u8) -> Result<(), KeyError> {
        let slot = self.bytes.get_mut(self.len).ok_or(KeyError::Length { bytes: self.len.saturating_add(1) })?;
        *slot = byte;
        self.len = self.len.saturating_add(1);
        Ok(())
    }
}

impl Drop for SymmetricKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(hidden)")
    }
}

pub(crate) fn base64_value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte.wrapping_sub(b'A')),
        b'a'..=b'z' => Some(byte.wrapping_sub(b'a').wrapping_add(26)),
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0').wrapping_add(52)),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::string::{String, ToString};
    use std::vec::Vec;
    use std::{format, vec};

    const ZERO_TO_31: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn vectors() -> Vec<Value> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/sas-vectors.json");
        let all: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        all["vectors"].as_array().unwrap().clone()
    }

    fn text<'v>(vector: &'v Value, member: &str) -> &'v str {
        vector[member].as_str().unwrap()
    }

    fn resource(text: &str) -> Resource<'_> {
        if let Some((id_scope, registration_id)) = text.split_once("/registrations/") {
            return Resource::Registration { id_scope, registration_id };
        }
        let (hub, device) = text.split_once("/devices/").unwrap();
        match device.split_once("/modules/") {
            Some((device_id, module_id)) => Resource::Device { hub, device_id, module_id: Some(module_id) },
            None => Resource::Device { hub, device_id: device, module_id: None },
        }
    }

    fn token(key: &SymmetricKey, resource: Resource<'_>, expiry: u64) -> String {
        let signature = key.sign(&resource.string_to_sign(expiry));
        resource.token(&signature, expiry).to_string()
    }

    fn base64(bytes: &[u8]) -> String {
        let encoded = Text::of([Part::EncodedBase64(bytes)]).to_string();
        encoded.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
    }

    /// What a decoder that pads by itself and ignores spare bits makes of a text.
    fn lenient(text: &str) -> SymmetricKey {
        let digits = text.bytes().map(|byte| base64_value(byte).unwrap());
        let bits: Vec<bool> = digits.flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1)).collect();
        let byte = |bits: &[bool]| bits.iter().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
        SymmetricKey::from_bytes(&bits.chunks_exact(8).map(byte).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_golden_vector_is_met() {
        let mut seen = vec![];
        let vectors = vectors();
        for vector in &vectors {
            let name = text(vector, "name");
            let expected = vector["expected_token_or_signature"].as_str().unwrap_or_default();
            let expiry = vector["expiry"].as_u64().unwrap_or_default();
            let key = vector["key_base64"].as_str().map(SymmetricKey::from_base64);
            let kind = text(vector, "kind");
            seen.push(kind);
            match (kind, name) {
                ("token", "dps-registration-lower-2f") => {
                    let lower = Text::from("0ne00ABCDEF%2fregistrations%2freg-01\n1893456000");
                    let signature = key.unwrap().unwrap().sign(&lower);
                    let sent = Text::of([Part::EncodedBase64(&signature)]).to_string();
                    assert!(expected.contains(&format!("&sig={sent}&")), "{name}");
                }
                ("token", _) => {
                    let made = token(&key.unwrap().unwrap(), resource(text(vector, "resource")), expiry);
                    // A client that leaves the policy name out signs the same text.
                    let bare = made.strip_suffix("&skn=registration").unwrap_or(&made);
                    let wanted = if vector["skn"].is_string() { &*made } else { bare };
                    assert_eq!(wanted, expected, "{name}");
                }
                ("token-mismatch", _) => {
                    let made = token(&key.unwrap().unwrap(), resource(text(vector, "resource")), expiry);
                    assert_eq!(made, text(vector, "computed_token"), "{name}");
                    assert!(!made.contains(expected), "{name}");
                }
                ("derived-key", _) => {
                    let derived = key.unwrap().unwrap().derive(text(vector, "resource"));
                    assert_eq!(base64(&derived.bytes[..derived.len]), expected, "{name}");
                }
                ("signature", _) => {
                    let refused = key.unwrap().unwrap_err();
                    let unpadded = !text(vector, "key_base64").len().is_multiple_of(4);
                    let reason = if unpadded { KeyError::Padding } else { KeyError::Length { bytes: 8 } };
                    assert_eq!(refused, reason, "{name}");
                    let key = lenient(text(vector, "key_base64").trim_end_matches('='));
                    let to_sign = Text::of([
                        Part::Plain(text(vector, "resource")),
                        Part::Plain("\n"),
                        Part::Number(vector["expiry"].as_u64().unwrap()),
                    ]);
                    assert_eq!(base64(&key.sign(&to_sign)), expected, "{name}");
                }
                ("hmac", _) => {
                    let signature = key.unwrap().unwrap().sign(&Text::from(text(vector, "resource")));
                    assert_eq!(base64(&signature), expected, "{name}");
                }
                ("string-to-sign", _) => {
                    let to_sign = resource(text(vector, "resource")).string_to_sign(expiry);
                    assert_eq!(to_sign.to_string(), expected, "{name}");
                }
                ("token-format", _) => {
                    let made = resource(text(vector, "resource")).token(&[0; 32], expiry).to_string();
                    let shape = |token: &str| {
                        let (before, after) = token.split_once("&sig=").unwrap();
                        (String::from(before), String::from(after.split_once('&').unwrap().1))
                    };
                    assert_eq!(shape(&made), shape(expected), "{name}");
                }
                ("invalid-key", _) => assert!(key.unwrap().is_err(), "{name}"),
                other => panic!("unknown kind of vector {other:?}"),
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8, "{seen:?}");
    }

    #[test]
    fn a_key_that_is_not_strict_base64_is_refused() {
        let table = [
            (String::new(), KeyError::Length { bytes: 0 }),
            (ZERO_TO_31.replace('A', " "), KeyError::Character { at: 0 }),
            (ZERO_TO_31.replace('=', ""), KeyError::Padding),
            (ZERO_TO_31.replace('=', "====="), KeyError::Padding),
            (format!("{ZERO_TO_31}\n"), KeyError::Character { at: 43 }),
            (ZERO_TO_31.replace("8=", "9="), KeyError::SpareBits),
            (format!("AAAA={}", "A".repeat(19)), KeyError::Character { at: 4 }),
            (format!("{}=", "A".repeat(19)), KeyError::Length { bytes: 14 }),
            ("A".repeat(4000), KeyError::Length { bytes: 65 }),
            (String::from("\u{e9}\u{e9}"), KeyError::Character { at: 0 }),
        ];
        for (bad, error) in table {
            assert_eq!(SymmetricKey::from_base64(&bad).unwrap_err(), error, "{bad}");
        }
        assert_eq!(SymmetricKey::from_base64(&format!("{}==", "A".repeat(22))).unwrap().len, 16);
        assert_eq!(SymmetricKey::from_base64(&format!("{}==", "A".repeat(86))).unwrap().len, 64);
        assert_eq!(SymmetricKey::from_bytes(&[]).unwrap_err(), KeyError::Length { bytes: 0 });
        assert_eq!(SymmetricKey::from_bytes(&[0; 65]).unwrap_err(), KeyError::Length { bytes: 65 });
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = SymmetricKey::from_base64(ZERO_TO_31).unwrap();
        assert_eq!(format!("{key:?}"), "SymmetricKey(hidden)");
    }

    #[test]
    fn a_finished_token_tells_when_it_expires() {
        let key = SymmetricKey::from_base64(ZERO_TO_31).unwrap();
        let made = token(&key, Resource::Device { hub: "h", device_id: "d", module_id: None }, 77);
        assert_eq!(token_expiry(&made), Some(77));
        assert_eq!(token_expiry("SharedAccessSignature sig=a&se=5&sr=h"), Some(5));
        for bad in ["", "sr=h&sig=a&se=5", "SharedAccessSignature sr=h&se=5", "SharedAccessSignature sr=h&sig=a&se=+5"]
        {
            assert_eq!(token_expiry(bad), None, "{bad}");
        }
        assert_eq!(token_expiry("SharedAccessSignature sr=h&sig=a&se=5&se=6"), None);
    }
}
