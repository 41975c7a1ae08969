//! The simulated Device Provisioning Service over HTTPS, and the attestation of TPMs, which goes no other way.
//!
//! How a key is wrapped is the world's own: the TPM's endorsement key, and the key in hexadecimal, which passes for base64.

use std::rc::Rc;

use serde_json::{Value, json};
use steadfast_core::azure::sas::{Resource, SymmetricKey};
use steadfast_core::text::Text;

use super::dps::{Answer, Connection, Dps, DpsFault, respond};
use super::token::verify;
use super::{ConnectionId, Key};

/// A request over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpRequest {
    /// `PUT` or `GET`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The value of `Authorization`.
    pub authorization: Option<String>,
    /// The body.
    pub body: String,
}

/// An answer to one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The value of `Retry-After`, in seconds.
    pub retry_after_secs: Option<u32>,
    /// The body.
    pub body: String,
}

/// What happens to a request over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpsFault {
    /// It does not arrive: the connection breaks before.
    Lost,
    /// It is carried out, and the connection breaks before the answer.
    AnswerLost,
    /// It does not arrive, and nobody is told.
    Silence,
    /// It is not carried out, and answered with this status and this retry-after in seconds.
    Status(u16, Option<u32>),
    /// It is carried out, and answered with its status and this body.
    Body(&'static str),
}

impl HttpsFault {
    /// All that can happen to a request, for tests that try everything.
    pub const ALL: [Self; 12] = [
        Self::Lost,
        Self::AnswerLost,
        Self::Silence,
        Self::Status(400, None),
        Self::Status(401, None),
        Self::Status(404, None),
        Self::Status(429, Some(30)),
        Self::Status(500, None),
        Self::Status(503, Some(7)),
        Self::Body("<html>Welcome to the hotel</html>"),
        Self::Body("{\"authenticationKey\":\"****\",\"status\":\"assigned\",\"registrationState\":{\"tpm\":7}}"),
        Self::Body(""),
    ];
}

/// What a request over HTTPS was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asked {
    /// A registration without a token.
    Bare,
    /// A registration with one.
    Signed,
    /// The state of a registration.
    State,
}

/// The bytes of a key.
type Secret = [u8; 32];

/// Where the attestation of a TPM stands.
#[derive(Clone, Debug)]
pub(super) struct Attested {
    /// The key of the latest challenge.
    own: Secret,
    /// What stands for a connection: the registration under way, and the key for the hub that it ends with.
    operation: Option<(Connection, Secret)>,
}

impl Dps {
    /// Enrolls a device that its TPM proves, by its endorsement key.
    pub fn enroll_tpm(&mut self, registration_id: &str, endorsement_key: &str) {
        if let Some(enrollment) = self.enrollments.get_mut(registration_id) {
            (enrollment.key, enrollment.tpm) = (None, Some(endorsement_key.to_owned()));
        }
    }

    /// Has something happen to a request over HTTPS, counted from 0.
    pub fn fault_request(&mut self, number: usize, fault: HttpsFault) {
        self.https_faults.insert(number, fault);
    }

    /// Returns what requests over HTTPS were for, those that did not arrive or had no answer among them.
    #[must_use]
    pub fn requests(&self) -> &[Asked] {
        &self.requests
    }

    /// Takes note of a request that is made, and returns what happens to it.
    pub(crate) fn made(&mut self, request: &HttpRequest) -> Option<HttpsFault> {
        let asked = match (request.method, &request.authorization) {
            ("PUT", None) => Asked::Bare,
            ("PUT", Some(_)) => Asked::Signed,
            _ => Asked::State,
        };
        self.requests.push(asked);
        self.https_faults.remove(&(self.requests.len() - 1))
    }

    /// Answers a request, and says whose key at which hub becomes which one; `None` for silence.
    pub(crate) fn https(
        &mut self,
        connection: ConnectionId,
        request: &HttpRequest,
        unix_secs: u64,
        at_ms: u64,
    ) -> (Option<HttpAnswer>, Option<(String, String, Key)>) {
        let path = request.path.split('?').next().unwrap_or_default();
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (id, operation) = match segments.as_slice() {
            [scope, "registrations", id, "register"] if request.method == "PUT" && *scope == self.id_scope => {
                (*id, None)
            }
            [scope, "registrations", id, "operations", operation]
                if request.method == "GET" && *scope == self.id_scope =>
            {
                (*id, Some(*operation))
            }
            _ => {
                self.objections.push(format!("a request for {:?}", request.path));
                return (Some(refused(404, None)), None);
            }
        };
        let id = id.to_owned();
        let Some(enrollment) = self.enrollments.get(&id).cloned() else { return (Some(refused(401, None)), None) };
        if operation.is_none() {
            self.registrations.push((at_ms, id.clone()));
            self.payloads.push(request.body.clone());
        } else {
            self.polls.push(at_ms);
        }
        let resource = Resource::Registration { id_scope: &self.id_scope, registration_id: &id };
        let token = |key: &Key| {
            let shown = request.authorization.as_deref().unwrap_or_default();
            verify(shown, resource, key, unix_secs).map(|_| ()).map_err(|_| ())
        };
        let number = self.registrations.len();
        let fresh = || Connection {
            registration_id: id.clone(),
            token: Ok(()),
            subscribed: true,
            fault: DpsFault::None,
            asked: 0,
            operation: format!("4.d0a671905ea5b2c8.{number:04x}-{connection:04x}"),
        };
        let (mut known, hub_key) = match (&enrollment.tpm, self.attested.get(&id), operation) {
            (Some(endorsement_key), _, None) if request.authorization.is_none() => {
                return (Some(self.challenge(&id, endorsement_key, &request.body)), None);
            }
            (Some(_), Some(attested), None) => {
                let known = Connection { token: token(&key_of(&attested.own)), ..fresh() };
                (known, Some(secret(&format!("the key number {number} of {id} for a hub"))))
            }
            (Some(_), Some(Attested { own, operation: Some((known, hub_key)) }), Some(operation))
                if operation == known.operation =>
            {
                (Connection { token: token(&key_of(own)), ..known.clone() }, Some(*hub_key))
            }
            (None, ..) => {
                let token = enrollment.key.as_ref().map_or(Ok(()), token);
                (Connection { token, ..fresh() }, None)
            }
            _ => return (Some(refused(401, None)), None),
        };
        if operation.is_none() {
            known.fault = self.next_faults.pop_front().unwrap_or_else(|| self.fault.clone());
        }
        known.asked += 1;
        let answer = respond(&mut known, &enrollment, unix_secs);
        let mut change = None;
        let answer = match answer {
            Answer::Send { status, retry_after_secs, body } => {
                let mut body: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
                if let (Some(hub_key), Some(endorsement_key), true) =
                    (&hub_key, &enrollment.tpm, body["status"] == "assigned")
                {
                    let wrapped = wrap(endorsement_key, hub_key);
                    body["registrationState"]["tpm"] = json!({ "authenticationKey": wrapped });
                    change = Some((id.clone(), enrollment.hub.clone(), key_of(hub_key)));
                }
                let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
                Some(HttpAnswer { status, retry_after_secs, body })
            }
            Answer::Silence | Answer::Garbage | Answer::Close => None,
        };
        if let (Some(attested), Some(hub_key)) = (self.attested.get_mut(&id), hub_key) {
            attested.operation = Some((known, hub_key));
        }
        (answer, change)
    }

    /// Answers a registration without a token.
    fn challenge(&mut self, id: &str, endorsement_key: &str, body: &str) -> HttpAnswer {
        let shown: Value = serde_json::from_str(body).unwrap_or_default();
        if shown["registrationId"] != id || shown["tpm"]["storageRootKey"].as_str().is_none() {
            self.objections.push(format!("{body} as a registration with a TPM"));
        }
        if shown["tpm"]["endorsementKey"] != endorsement_key {
            return refused(401, None);
        }
        let own = secret(&format!("the key {} of a registration", self.registrations.len()));
        let wrapped = wrap(endorsement_key, &own);
        self.attested.insert(id.to_owned(), Attested { own, operation: None });
        let body = json!({
            "errorCode": 401_002, "message": "Authorization required", "keyName": "registration", "authenticationKey": wrapped,
        });
        HttpAnswer { status: 401, retry_after_secs: None, body: body.to_string() }
    }
}

impl HttpAnswer {
    pub(crate) fn refused(status: u16, retry_after_secs: Option<u32>) -> Self {
        refused(status, retry_after_secs)
    }
}

fn refused(status: u16, retry_after_secs: Option<u32>) -> HttpAnswer {
    let body = json!({ "errorCode": u32::from(status) * 1000 + 2, "trackingId": "8ad0463c", "message": "No." });
    HttpAnswer { status, retry_after_secs, body: body.to_string() }
}

/// Makes the bytes of a key from a text.
fn secret(text: &str) -> Secret {
    let master = SymmetricKey::from_bytes(b"what the service makes keys from").expect("a good length");
    master.sign(&Text::from(text))
}

/// Returns the key of these bytes.
pub(crate) fn key_of(secret: &Secret) -> Key {
    Rc::new(SymmetricKey::from_bytes(secret).expect("a good length"))
}

fn wrap(endorsement_key: &str, secret: &Secret) -> String {
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{endorsement_key}{digits}")
}

/// Takes a key out of its wrapping; `None` for what was not wrapped for this endorsement key.
pub(crate) fn unwrap(endorsement_key: &str, wrapped: &str) -> Option<Key> {
    let digits = wrapped.strip_prefix(endorsement_key).filter(|digits| digits.len() == 64)?;
    let mut secret = Secret::default();
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(key_of(&secret))
}
