//! The workload API: HTTP/1.1 on a socket of the Edge device, which signs for its modules and names the roots to trust.
//!
//! Format: `Azure/iotedge`, `edgelet/api/workloadVersion_2020_07_07.yaml` and `edgelet/edgelet-http-workload/`. The
//! requests and answers here are the same in every version of it, 2018-06-28 to 2022-08-03.

use core::fmt;

use super::{Module, WorkloadUri, member};
use crate::json::Str;
use crate::text::{Part, Sink, SinkFull, Text};

/// Longest answer: a trust bundle contains a few certificates.
pub const ANSWER_MAX: usize = 256 * 1024;

impl<'a> Module<'a> {
    /// Returns path and query of the request that signs: `POST`, with [`put_sign_request`] as its body.
    #[must_use]
    pub fn sign_path(&self) -> Text<'a> {
        Text::of([
            Part::Plain(self.prefix()),
            Part::Plain("/modules/"),
            Part::Encoded(self.module_id),
            Part::Plain("/genid/"),
            Part::Encoded(self.generation_id),
            Part::Plain("/sign?api-version="),
            Part::Encoded(self.api_version),
        ])
    }

    /// Returns path and query of the request for the roots of the gateway's certificate: `GET`.
    #[must_use]
    pub fn trust_bundle_path(&self) -> Text<'a> {
        Text::of([
            Part::Plain(self.prefix()),
            Part::Plain("/trust-bundle?api-version="),
            Part::Encoded(self.api_version),
        ])
    }

    fn prefix(&self) -> &'a str {
        match self.workload_uri {
            WorkloadUri::Http { prefix, .. } => prefix,
            WorkloadUri::Unix(_) => "",
        }
    }
}

/// Writes the body of the request that signs `text` with HMAC-SHA256 and the module's primary key; `text` is never
/// buffered as a whole.
///
/// # Errors
/// [`SinkFull`] from the sink.
pub fn put_sign_request(text: &Text<'_>, out: &mut dyn Sink) -> Result<(), SinkFull> {
    out.put(br#"{"keyId":"primary","algo":"HMACSHA256","data":""#)?;
    let mut encoder = Base64 { out, group: 0, held: 0 };
    text.write(&mut encoder)?;
    encoder.finish()?;
    out.put(br#""}"#)
}

/// Returns the signature that a sign request was answered with.
///
/// # Errors
/// [`AnswerError`].
pub fn read_digest(answer: &[u8]) -> Result<[u8; 32], AnswerError> {
    let digest = string(answer, "digest")?.plain().ok_or(AnswerError::Digest)?;
    // 32 bytes are 43 digits and one character of padding.
    let digits = digest.strip_suffix('=').unwrap_or(digest);
    if digits.len() != 43 {
        return Err(AnswerError::Digest);
    }
    let mut signature = [0; 32];
    let mut places = signature.iter_mut();
    let (mut word, mut bits) = (0_u32, 0_u32);
    for byte in digits.bytes() {
        word = (word << 6) | u32::from(crate::azure::sas::base64_value(byte).ok_or(AnswerError::Digest)?);
        bits = bits.wrapping_add(6);
        if bits >= 8 {
            bits = bits.wrapping_sub(8);
            *places.next().ok_or(AnswerError::Digest)? = word.wrapping_shr(bits).to_le_bytes()[0];
        }
    }
    Ok(signature)
}

/// Writes the PEM text of a trust bundle into `buffer`, which is large enough if it is as long as the answer, and
/// returns it. An empty text means that the gateway has a publicly trusted certificate.
///
/// # Errors
/// [`AnswerError`].
pub fn read_trust_bundle<'b>(answer: &[u8], buffer: &'b mut [u8]) -> Result<&'b str, AnswerError> {
    string(answer, "certificate")?.unescape(buffer).ok_or(AnswerError::TooLong)
}

/// Returns the error message of an answer other than 2xx, if any.
#[must_use]
pub fn error_message(answer: &[u8]) -> Option<Str<'_>> {
    member(answer, "message")?.as_str()
}

/// Returns whether a status allows an immediate retry: the service is busy.
#[must_use]
pub const fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 503)
}

fn string<'a>(answer: &'a [u8], name: &'static str) -> Result<Str<'a>, AnswerError> {
    member(answer, name).and_then(|value| value.as_str()).ok_or(AnswerError::Missing(name))
}

/// Why an answer of the workload API is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is no JSON object with this member, a string.
    Missing(&'static str),
    /// The signature is not 32 bytes in base64.
    Digest,
    /// The buffer has no room for the text.
    TooLong,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "the workload API's answer has no string {name:?}"),
            Self::Digest => f.write_str("the workload API's signature is not 32 bytes in base64"),
            Self::TooLong => f.write_str("the workload API's answer does not fit the buffer"),
        }
    }
}

impl core::error::Error for AnswerError {}

/// Encodes its input in base64 (RFC 4648, section 4).
struct Base64<'o> {
    out: &'o mut dyn Sink,
    /// Up to two bytes of an incomplete group.
    group: u32,
    held: u8,
}

impl Base64<'_> {
    fn finish(mut self) -> Result<(), SinkFull> {
        match self.held {
            0 => Ok(()),
            1 => {
                self.group <<= 16;
                self.digits(2)?;
                self.out.put(b"==")
            }
            _ => {
                self.group <<= 8;
                self.digits(3)?;
                self.out.put(b"=")
            }
        }
    }

    /// Writes the first digits of the group of 24 bits.
    fn digits(&mut self, count: u32) -> Result<(), SinkFull> {
        for place in 0..count {
            let shift = 18_u32.saturating_sub(place.saturating_mul(6));
            let value = self.group.wrapping_shr(shift).to_le_bytes()[0] & 63;
            self.out.put(&[digit(value)])?;
        }
        Ok(())
    }
}

impl Sink for Base64<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        for byte in bytes {
            self.group = (self.group << 8) | u32::from(*byte);
            self.held = self.held.wrapping_add(1);
            if self.held == 3 {
                self.digits(4)?;
                (self.group, self.held) = (0, 0);
            }
        }
        Ok(())
    }
}

const fn digit(value: u8) -> u8 {
    match value {
        0..=25 => b'A'.wrapping_add(value),
        26..=51 => b'a'.wrapping_add(value.wrapping_sub(26)),
        52..=61 => b'0'.wrapping_add(value.wrapping_sub(52)),
        62 => b'+',
        _ => b'/',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::sas::{Resource, SymmetricKey};
    use crate::edge::{Environment, Variable};
    use crate::text::Slice;
    use proptest::prelude::*;
    use std::format;
    use std::string::{String, ToString};
    use std::vec;
    use std::vec::Vec;

    fn module(uri: &'static str) -> Module<'static> {
        let values = [
            (Variable::HubHostName, "h.net"),
            (Variable::DeviceId, "d"),
            (Variable::ModuleId, "$edge(Hub)"),
            (Variable::GenerationId, "a/1"),
            (Variable::WorkloadUri, uri),
            (Variable::ApiVersion, "2020-07-07"),
        ];
        let value = |variable| values.iter().find(|(one, _)| *one == variable).map(|(_, text)| *text);
        let Ok(Environment::Module(module)) = Environment::read(value) else { panic!("a module") };
        module
    }

    fn body(text: &str) -> Vec<u8> {
        let mut buffer = vec![0; 64 + text.len() * 2];
        let mut out = Slice::new(&mut buffer);
        put_sign_request(&Text::from(text), &mut out).unwrap();
        let len = out.len();
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn requests_have_the_documented_form() {
        let over_socket = module("unix:///run/w.sock");
        let path = "/modules/%24edge%28Hub%29/genid/a%2F1/sign?api-version=2020-07-07";
        assert_eq!(over_socket.sign_path().to_string(), path);
        assert_eq!(over_socket.trust_bundle_path().to_string(), "/trust-bundle?api-version=2020-07-07");
        let over_tcp = module("http://localhost:15581/base/");
        assert_eq!(over_tcp.sign_path().to_string(), format!("/base{path}"));
        let sign = br#"{"keyId":"primary","algo":"HMACSHA256","data":"aC5uZXQKMTIz"}"#;
        assert_eq!(body("h.net\n123"), sign);
    }

    #[test]
    fn a_signature_is_read_and_anything_else_is_told() {
        let key = SymmetricKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let resource = Resource::Device { hub: "h.net", device_id: "d", module_id: Some("m") };
        let signature = key.sign(&resource.string_to_sign(1_700_000_000));
        let mut encoded = [0; 64];
        let mut out = Slice::new(&mut encoded);
        let mut encoder = Base64 { out: &mut out, group: 0, held: 0 };
        encoder.put(&signature).unwrap();
        encoder.finish().unwrap();
        let digest = std::str::from_utf8(&encoded[..44]).unwrap();
        assert_eq!(read_digest(format!(r#"{{"digest":"{digest}"}}"#).as_bytes()), Ok(signature));
        let table = [
            (String::from("{}"), AnswerError::Missing("digest")),
            (String::from(r#"{"digest":7}"#), AnswerError::Missing("digest")),
            (String::from("<html>"), AnswerError::Missing("digest")),
            (format!(r#"{{"digest":"{}"}}"#, &digest[..40]), AnswerError::Digest),
            (format!(r#"{{"digest":"{}"}}"#, digest.replacen(&digest[..1], "-", 1)), AnswerError::Digest),
            (String::from(r#"{"digest":""}"#), AnswerError::Digest),
        ];
        for (answer, error) in table {
            assert_eq!(read_digest(answer.as_bytes()), Err(error), "{answer}");
        }
    }

    #[test]
    fn a_trust_bundle_and_an_error_are_read() {
        let answer = br#"{"certificate":"-----BEGIN\nabc\u002b\n"}"#;
        assert_eq!(read_trust_bundle(answer, &mut [0; 64]), Ok("-----BEGIN\nabc+\n"));
        assert_eq!(read_trust_bundle(answer, &mut [0; 4]), Err(AnswerError::TooLong));
        assert_eq!(read_trust_bundle(br#"{"certificate":""}"#, &mut []), Ok(""));
        assert_eq!(read_trust_bundle(b"null", &mut []), Err(AnswerError::Missing("certificate")));
        assert!(error_message(br#"{"message":"Forbidden"}"#).is_some_and(|text| text == *"Forbidden"));
        assert_eq!(error_message(b"Forbidden"), None);
    }

    proptest! {
        #[test]
        fn what_is_to_be_signed_arrives_whole(text in "\\PC{0,40}") {
            let request: serde_json::Value = serde_json::from_slice(&body(&text)).unwrap();
            let mut signed = Vec::new();
            // Decoded here digit by digit, apart from the code under test.
            let data = request["data"].as_str().unwrap().trim_end_matches('=');
            let (mut word, mut bits) = (0_u32, 0);
            for letter in data.bytes() {
                let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                let value = alphabet.iter().position(|one| *one == letter).unwrap();
                word = (word << 6) | u32::try_from(value).unwrap();
                bits += 6;
                if bits >= 8 {
                    bits -= 8;
                    signed.push((word >> bits).to_le_bytes()[0]);
                }
            }
            prop_assert_eq!(signed, text.as_bytes());
            prop_assert_eq!(request["data"].as_str().unwrap().len() % 4, 0);
        }

        #[test]
        fn no_answer_is_too_strange_to_be_read(answer in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut buffer = [0; 80];
            let _ = (read_digest(&answer), read_trust_bundle(&answer, &mut buffer), error_message(&answer).is_some());
        }
    }
}
