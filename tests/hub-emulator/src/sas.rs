//! Shared access signatures: keys, tokens, and their verification over the text as received.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurpose as Engine};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Clients send signatures with and without padding.
const LENIENT: Engine = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A symmetric key. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

/// A text is not the base64 form of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyError;

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key must be base64 with padding")
    }
}

impl std::error::Error for KeyError {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Reads a key from its base64 form, as in a connection string.
    ///
    /// # Errors
    /// [`KeyError`] when `text` is not base64 with padding, or is empty.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        match STANDARD.decode(text) {
            Ok(bytes) if !bytes.is_empty() => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(KeyError),
        }
    }

    /// Creates a key from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Derives a key from a text. Equal texts give equal keys: for tests, not for secrets.
    #[must_use]
    pub fn from_seed(seed: &str) -> Self {
        Self(Self::from_bytes(b"steadfast hub emulator").sign(seed.as_bytes()).to_vec())
    }

    /// Creates a key of 32 random bytes.
    ///
    /// # Panics
    /// When the system's random generator fails.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        crate::pki::provider().secure_random.fill(&mut bytes).expect("the system's random generator works");
        Self(bytes.to_vec())
    }

    /// Returns the base64 form of this key.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// Derives the key of one device of an enrollment group from the key of the group.
    #[must_use]
    pub fn derive(&self, registration_id: &str) -> Self {
        Self(self.sign(registration_id.as_bytes()).to_vec())
    }

    /// Returns the HMAC-SHA256 of `message` under this key.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.mac(message).finalize().into_bytes().into()
    }

    /// Creates a token for `resource` (not encoded), valid until `expiry` in Unix seconds, with the policy name if
    /// given.
    #[must_use]
    pub fn token(&self, resource: &str, expiry: u64, policy: Option<&str>) -> String {
        let resource = percent_encode(resource);
        let signature = STANDARD.encode(self.sign(format!("{resource}\n{expiry}").as_bytes()));
        let mut token = format!("SharedAccessSignature sr={resource}&sig={}&se={expiry}", percent_encode(&signature));
        if let Some(policy) = policy {
            token.push_str("&skn=");
            token.push_str(policy);
        }
        token
    }

    fn mac(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(message);
        mac
    }
}

/// Percent-encodes all but `A-Z a-z 0-9 - _ . ~`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Decodes percent-encoding; invalid UTF-8 is replaced.
#[must_use]
pub fn percent_decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A token as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// The signed resource, exactly as received.
    sr: &'a str,
    signature: Vec<u8>,
    se: &'a str,
    /// Unix seconds.
    pub(crate) expiry: u64,
    pub(crate) policy: Option<String>,
}

impl<'a> Token<'a> {
    /// Parses a token with its fields in any order; none when a field is missing or malformed.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let fields = text.strip_prefix("SharedAccessSignature ")?;
        let (mut sr, mut sig, mut se, mut policy) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=')?;
            match name {
                "sr" => sr = Some(value),
                "sig" => sig = Some(value),
                "se" => se = Some(value),
                "skn" => policy = Some(percent_decode(value)),
                _ => {}
            }
        }
        let se = se?;
        Some(Self {
            sr: sr?,
            // Encoders that break lines leave white space in the text.
            signature: LENIENT.decode(percent_decode(sig?).split_ascii_whitespace().collect::<String>()).ok()?,
            se,
            expiry: se.parse().ok()?,
            policy: policy.filter(|policy| !policy.is_empty()),
        })
    }

    /// Returns the resource the token is for, decoded.
    pub(crate) fn resource(&self) -> String {
        percent_decode(self.sr)
    }

    /// Returns whether `key` signed the text as received, in constant time.
    pub(crate) fn is_signed_with(&self, key: &Key) -> bool {
        key.mac(format!("{}\n{}", self.sr, self.se).as_bytes()).verify_slice(&self.signature).is_ok()
    }
}

/// Compares two resources case-insensitively: the documentation asks clients for lower case.
pub(crate) fn same_resource(left: &str, right: &str) -> bool {
    left.eq_ignore_ascii_case(right)
}

/// Returns whether `prefix` is `resource` or a parent of it, segment by segment.
pub(crate) fn covers(prefix: &str, resource: &str) -> bool {
    same_resource(prefix, resource)
        || (resource.len() > prefix.len()
            && resource.is_char_boundary(prefix.len())
            && resource.as_bytes()[prefix.len()] == b'/'
            && same_resource(prefix, &resource[..prefix.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_any_order_and_the_encoding_of_sr_is_free() {
        let key = Key::from_bytes(&[7; 32]);
        for sr in ["h.net%2Fdevices%2Fd", "h.net%2fdevices%2fd", "h.net/devices/d"] {
            let signature = percent_encode(&STANDARD.encode(key.sign(format!("{sr}\n99").as_bytes())));
            for text in [
                format!("SharedAccessSignature sr={sr}&sig={signature}&se=99"),
                format!("SharedAccessSignature sig={signature}&skn=p&se=99&sr={sr}"),
            ] {
                let token = Token::parse(&text).unwrap();
                assert!(token.is_signed_with(&key));
                assert_eq!(token.resource(), "h.net/devices/d");
                assert_eq!(token.expiry, 99);
            }
        }
    }

    #[test]
    fn a_policy_token_covers_whole_segments_only() {
        assert!(covers("h.net", "H.NET/devices/d"));
        assert!(covers("h.net/devices", "h.net/devices/d"));
        assert!(!covers("h.net/dev", "h.net/devices/d"));
        assert!(!covers("h.net/devices/d/x", "h.net/devices/d"));
    }

    #[test]
    fn malformed_tokens_are_refused_without_panic() {
        for text in ["", "SharedAccessSignature ", "SharedAccessSignature sr", "SharedAccessSignature sr=a&sig=%%&se=1"]
        {
            assert_eq!(Token::parse(text), None, "{text}");
        }
        assert_eq!(Token::parse("SharedAccessSignature sr=a&sig=AAAA&se=-1"), None);
    }
}
