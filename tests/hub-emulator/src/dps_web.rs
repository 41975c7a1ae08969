//! DPS over HTTPS: the same registrations as over MQTT, and TPM registrations, which are possible only here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::DeviceAuth;
use crate::connect::Peer;
use crate::connections::Refusal;
use crate::dps::{Credentials, Dps, TpmKeys, error_body, error_of};
use crate::dps_session::{Answer, DpsSession, error_answer, is_of_requests, refusal_of};
use crate::enrollment::Attestation;
use crate::fault::DpsFault;
use crate::http_message::{Head, Response};
use crate::percent_decode;
use crate::sas::{Key, Token, same_resource};
use crate::session::Now;
use crate::soft_tpm;
use crate::tpm_wrap::{WrappingKey, wrap_for_tpm};
use crate::world::World;

/// Returns whether a request is for DPS.
pub(crate) fn is_registration(head: &Head) -> bool {
    head.path.split('/').nth(2).is_some_and(|part| part.eq_ignore_ascii_case("registrations"))
}

/// Answers a request under `/{id scope}/registrations/`.
pub(crate) fn registration(world: &mut World, head: &Head, body: &[u8], peer: &Peer, unix: u64, now: Now) -> Response {
    let segments: Vec<String> = head.path.split('/').filter(|part| !part.is_empty()).map(percent_decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (id_scope, id, operation) = match segments.as_slice() {
        [id_scope, _, id, "register"] if head.method == "PUT" => (*id_scope, (*id).to_owned(), None),
        [id_scope, _, id, "operations", operation] if head.method == "GET" => {
            (*id_scope, (*id).to_owned(), Some((*operation).to_owned()))
        }
        _ => return respond(error_answer(404, unix)),
    };
    if !head.query.contains_key("api-version") {
        return respond(error_answer(400, unix));
    }
    let password = head.header("authorization").unwrap_or_default();
    let credentials = Credentials { password, certificates: &peer.certificates, unix };
    let host = world.dps.config.host.clone();
    let fault = world.dps.faults.strike(&host, &id, |fault| is_of_requests(fault).then(|| fault.clone()));
    let verified = match endorsement_key(&world.dps, &id) {
        Some((_, endorsement_key)) if password.is_empty() && operation.is_none() && fault.is_none() => {
            return challenge(&mut world.dps, id_scope, &id, &endorsement_key, body, unix, now);
        }
        Some((enrollment, _)) => by_tpm(&world.dps, enrollment, id_scope, &id, &credentials),
        None => world.dps.verify(id_scope, &id, &credentials),
    };
    let session = DpsSession { registration_id: id.clone(), verified, subscribed: true, unix };
    let dps = &mut world.dps;
    let mut answer = match &operation {
        None => session.register(dps, body, fault.as_ref(), now),
        Some(operation) => {
            let refused = refusal_of(fault.as_ref(), unix);
            refused.unwrap_or_else(|| session.poll(world, Some(operation), now))
        }
    };
    if let Some((_, endorsement_key)) = endorsement_key(&world.dps, &id)
        && let Some(keys) = world.dps.tpm_keys.get(&id)
        && answer.body["status"] == "assigned"
    {
        let wrapped = wrap(&endorsement_key, &keys.storage_root_key, &keys.hub);
        answer.body["registrationState"]["tpm"] = json!({ "authenticationKey": wrapped });
    }
    if let Some(DpsFault::Body { text }) = &fault {
        return Response::new(answer.status).body(text.clone());
    }
    let mut response = respond(answer);
    if let (202, Some(operation)) = (response.status, operation_of(&response)) {
        let location = format!("https://{host}/{id_scope}/registrations/{id}/operations/{operation}");
        response = response.header("Location", location);
    }
    response
}

fn respond(answer: Answer) -> Response {
    let response = Response::json(answer.status, &answer.body);
    match answer.retry_after {
        Some(seconds) => response.header("Retry-After", seconds.to_string()),
        None => response,
    }
}

fn operation_of(response: &Response) -> Option<String> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    body["operationId"].as_str().map(str::to_owned)
}

/// Finds the enrollment of a TPM, and its endorsement key.
fn endorsement_key(dps: &Dps, id: &str) -> Option<(usize, Vec<u8>)> {
    let own = |name: &str| name.eq_ignore_ascii_case(id);
    dps.enrollments.iter().enumerate().find_map(|(at, enrollment)| {
        let Attestation::Tpm { endorsement_key } = &enrollment.attestation else { return None };
        own(&enrollment.name).then(|| (at, endorsement_key.clone()))
    })
}

/// Responds to a registration without a token: returns a key that only the TPM of the enrollment can unwrap.
fn challenge(
    dps: &mut Dps,
    id_scope: &str,
    id: &str,
    endorsement_key: &[u8],
    body: &[u8],
    unix: u64,
    now: Now,
) -> Response {
    if let Some(seconds) = dps.too_many_registers(now.since) {
        return respond(Answer { retry_after: Some(seconds), ..error_answer(429, unix) });
    }
    if id_scope != dps.config.id_scope {
        return respond(error_answer(401, unix));
    }
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let shown = body["tpm"]["endorsementKey"].as_str().map(str::to_owned).unwrap_or_default();
    let storage_root_key = body["tpm"]["storageRootKey"].as_str().and_then(|key| STANDARD.decode(key).ok());
    let storage_root_key = storage_root_key.filter(|key| !key.is_empty()).unwrap_or_default();
    if Key::from_base64(&shown).is_ok() && storage_root_key.is_empty() {
        return respond(error_answer(400, unix));
    }
    if shown != Key::from_bytes(endorsement_key).to_base64() {
        return respond(error_answer(401, unix));
    }
    let keys = TpmKeys { own: Key::random(), hub: Key::random(), storage_root_key };
    let Some(wrapped) = wrap(endorsement_key, &keys.storage_root_key, &keys.own) else {
        return respond(error_answer(400, unix));
    };
    dps.tpm_keys.insert(id.to_owned(), keys);
    let (code, message) = error_of(401);
    let mut body = error_body(code, message, unix);
    body["authenticationKey"] = json!(wrapped);
    body["keyName"] = json!("registration");
    Response::json(401, &body)
}

/// Wraps a key for a TPM and returns base64; for a `SoftTpm` if the endorsement key is not a TPM's.
fn wrap(endorsement_key: &[u8], storage_root_key: &[u8], key: &Key) -> Option<String> {
    if WrappingKey::parse(endorsement_key).is_none() {
        return soft_tpm::wrap(endorsement_key, key);
    }
    wrap_for_tpm(endorsement_key, storage_root_key, key).map(|wrapped| STANDARD.encode(wrapped))
}

/// Checks a token signed with the key of the challenge.
fn by_tpm(
    dps: &Dps,
    enrollment: usize,
    id_scope: &str,
    id: &str,
    credentials: &Credentials<'_>,
) -> Result<(usize, DeviceAuth), Refusal> {
    if id_scope != dps.config.id_scope {
        return Err(Refusal::WrongIdScope);
    }
    let token = Token::parse(credentials.password).ok_or(Refusal::NoToken)?;
    let keys = dps.tpm_keys.get(id).ok_or(Refusal::BadSignature)?;
    if !same_resource(&token.resource(), &format!("{id_scope}/registrations/{id}")) {
        return Err(Refusal::WrongResource);
    }
    if !token.is_signed_with(&keys.own) {
        return Err(Refusal::BadSignature);
    }
    if token.expiry < credentials.unix {
        return Err(Refusal::Expired);
    }
    Ok((enrollment, DeviceAuth::Keys { primary: keys.hub.clone(), secondary: None }))
}
