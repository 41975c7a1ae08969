//! The DPS dialogue over HTTPS, the only protocol for devices with a TPM.
//!
//! The link makes requests with [`crate::Action::Register`]; statuses, bodies and retry-after are those of MQTT
//! ([`crate::dps::topics`]). A device with a TPM registers twice (Device Provisioning Service, "TPM attestation";
//! azure-iot-sdk-c, `provisioning_client/src/prov_transport_http_client.c`):
//!
//! 1. without a token, with both public keys of its TPM ([`tpm_body`]). The service answers 401 with a key that only
//!    that TPM can unwrap;
//! 2. with a token signed by that key, like any other device. The assignment contains the key for the hub, wrapped
//!    likewise. [`Attestation`] distinguishes the two.
//!
//! A failure of any of these requests, or a refusal of any but a poll, ends the whole registration, and the next one
//! starts again without a token: a wrapped key is valid only for its own registration.

use core::time::Duration;

use crate::dps::topics::API_VERSION;
use crate::json::{Str, Value, member};
use crate::text::{Part, Text};

/// TCP port (Device Provisioning Service, "symmetric keys over HTTPS").
pub const PORT: u16 = 443;

/// Lifetime of the token for the second registration (azure-iot-sdk-c, `prov_device_ll_client.c`,
/// `SAS_TOKEN_DEFAULT_LIFETIME`: 2,400 or 3,600 s, by its version).
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Longest wrapped key, in characters of base64: one from a TPM 2.0 has about 1,000.
pub const WRAPPED_KEY_MAX: usize = 4096;

/// Returns path and query of a registration: `PUT`, with the body of [`crate::dps::topics::register_body`].
///
/// Names go into it unencoded: check them first with [`crate::azure::names`].
#[must_use]
pub fn register_path<'a>(id_scope: &'a str, registration_id: &'a str) -> Text<'a> {
    Text::of([
        Part::Plain("/"),
        Part::Plain(id_scope),
        Part::Plain("/registrations/"),
        Part::Plain(registration_id),
        Part::Plain("/register?api-version="),
        Part::Plain(API_VERSION),
    ])
}

/// Returns path and query of a poll: `GET`.
#[must_use]
pub fn operation_path<'a>(id_scope: &'a str, registration_id: &'a str, operation_id: &'a str) -> Text<'a> {
    Text::of([
        Part::Plain("/"),
        Part::Plain(id_scope),
        Part::Plain("/registrations/"),
        Part::Plain(registration_id),
        Part::Plain("/operations/"),
        Part::Encoded(operation_id),
        Part::Plain("?api-version="),
        Part::Plain(API_VERSION),
    ])
}

/// Returns the body of a registration with a TPM: the `body` of [`crate::dps::topics::register_body`] with both public
/// keys in base64, as the TPM encodes them (`TPM2B_PUBLIC`).
#[must_use]
pub fn tpm_body<'a>(body: &'a str, endorsement_key: &'a str, storage_root_key: &'a str) -> Text<'a> {
    Text::of([
        Part::Plain("{\"tpm\":{\"endorsementKey\":\""),
        Part::Plain(endorsement_key),
        Part::Plain("\",\"storageRootKey\":\""),
        Part::Plain(storage_root_key),
        Part::Plain("\"},"),
        Part::Plain(body.strip_prefix('{').unwrap_or(body)),
    ])
}

/// Returns the wrapped key of a 401 for the second registration, in base64; `None` for a refusal.
fn authentication_key(body: &[u8]) -> Option<&str> {
    wrapped(member(body, "authenticationKey")?)
}

/// Returns the wrapped key for the hub in a TPM device's assignment, in base64.
fn hub_key(body: &[u8]) -> Option<&str> {
    let state = member(body, "registrationState")?;
    let tpm = member(state.raw().as_bytes(), "tpm")?;
    wrapped(member(tpm.raw().as_bytes(), "authenticationKey")?)
}

fn wrapped(value: Value<'_>) -> Option<&str> {
    value.as_str().and_then(Str::plain).filter(|key| !key.is_empty() && key.len() <= WRAPPED_KEY_MAX)
}

/// A registration with a TPM: which requests have a token, and the next step after each answer.
///
/// Each registration begins with [`begin`](Self::begin); a connection has one of these for all of its requests.
///
/// ```
/// use steadfast_core::dps::https::{Attestation, Step};
///
/// let mut attestation = Attestation::new();
/// attestation.begin();
/// assert!(!attestation.has_token());
/// let challenge = br#"{"authenticationKey":"QUJD","keyName":"registration"}"#;
/// assert_eq!(attestation.judge(401, challenge), Step::RegisterAgain("QUJD"));
/// assert!(attestation.has_token());
/// // A second one is a refusal like any other.
/// assert_eq!(attestation.judge(401, challenge), Step::Answer);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attestation {
    challenged: bool,
}

/// The next step after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a frontend must handle all of them")]
pub enum Step<'a> {
    /// Import this wrapped key into the TPM for the registration, sign a token with it ([`TOKEN_LIFETIME`]), and
    /// register again with that.
    RegisterAgain(&'a str),
    /// Import this wrapped key into the TPM for the hub, then pass the answer to the link.
    TakeHubKey(&'a str),
    /// Pass the answer to the link.
    Answer,
}

impl Attestation {
    /// Begins a connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { challenged: false }
    }

    /// Starts a registration. A TPM device has no token yet; DPS sends the wrapped key first.
    pub const fn begin(&mut self) {
        self.challenged = false;
    }

    /// Returns whether the next request has the token.
    #[must_use]
    pub const fn has_token(&self) -> bool {
        self.challenged
    }

    /// Returns the next step after an answer to a registration or a poll.
    pub fn judge<'a>(&mut self, status: u16, body: &'a [u8]) -> Step<'a> {
        if status == 401 {
            let wrapped = authentication_key(body).filter(|_| !self.challenged);
            self.challenged = true;
            return wrapped.map_or(Step::Answer, Step::RegisterAgain);
        }
        hub_key(body).filter(|_| status < 300).map_or(Step::Answer, Step::TakeHubKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn paths_are_those_of_the_service() {
        assert_eq!(
            register_path("0ne0", "pump-7").to_string(),
            "/0ne0/registrations/pump-7/register?api-version=2019-03-31"
        );
        assert_eq!(
            operation_path("0ne0", "pump-7", "4.a/b").to_string(),
            "/0ne0/registrations/pump-7/operations/4.a%2Fb?api-version=2019-03-31"
        );
        assert_eq!(
            tpm_body(r#"{"registrationId":"pump-7"}"#, "RUs=", "U1JL").to_string(),
            r#"{"tpm":{"endorsementKey":"RUs=","storageRootKey":"U1JL"},"registrationId":"pump-7"}"#
        );
    }

    #[test]
    fn wrapped_keys_are_found_where_they_stand_and_nowhere_else() {
        let refusal = br#"{"errorCode":401002,"trackingId":"x","message":"no"}"#;
        assert_eq!(authentication_key(refusal), None);
        assert_eq!(authentication_key(br#"{"keyName":"registration","authenticationKey":"QUJD"}"#), Some("QUJD"));
        assert_eq!(authentication_key(br#"{"authenticationKey":7}"#), None);
        assert_eq!(authentication_key(b"nonsense"), None);
        let assigned = br#"{"status":"assigned","registrationState":{"tpm":{"authenticationKey":"SFVC"},"etag":"1"}}"#;
        assert_eq!(hub_key(assigned), Some("SFVC"));
        assert_eq!(hub_key(br#"{"registrationState":{"tpm":null}}"#), None);
        let long = std::format!(r#"{{"authenticationKey":"{}"}}"#, "A".repeat(WRAPPED_KEY_MAX + 1));
        assert_eq!(authentication_key(long.as_bytes()), None);
    }

    #[test]
    fn a_registration_is_repeated_once_and_its_assignment_brings_the_key_for_the_hub() {
        let mut attestation = Attestation::new();
        assert_eq!(attestation.judge(429, b"{}"), Step::Answer);
        assert_eq!(attestation.judge(401, br#"{"authenticationKey":"QQ=="}"#), Step::RegisterAgain("QQ=="));
        assert_eq!(attestation.judge(202, br#"{"operationId":"4.a","status":"assigning"}"#), Step::Answer);
        let assigned = br#"{"status":"assigned","registrationState":{"tpm":{"authenticationKey":"Qg=="}}}"#;
        assert_eq!(attestation.judge(200, assigned), Step::TakeHubKey("Qg=="));
        assert_eq!(attestation.judge(500, assigned), Step::Answer);
        assert_eq!(Attestation::new().judge(401, b"{}"), Step::Answer, "a refusal without a key is one");
    }

    #[test]
    fn each_registration_begins_without_a_token_and_is_polled_with_it() {
        let mut attestation = Attestation::new();
        let challenge = br#"{"authenticationKey":"QQ=="}"#;
        for _ in 0..2 {
            attestation.begin();
            assert!(!attestation.has_token());
            assert_eq!(attestation.judge(401, challenge), Step::RegisterAgain("QQ=="));
            assert!(attestation.has_token());
            assert_eq!(attestation.judge(401, challenge), Step::Answer, "a question for the state is no registration");
        }
    }
}
