//! The hub's side of file uploads: SAS URI and notification.

use std::time::Duration;

use serde_json::{Value, json};

use crate::connect::{Peer, check_device};
use crate::connections::Refusal;
use crate::dps::{Credentials, timestamp};
use crate::fault::Fault;
use crate::http_message::{Head, Response};
use crate::operations::Operation;
use crate::percent_decode;
use crate::sas::Token;
use crate::storage::Upload;
use crate::world::World;

/// The maximum number of concurrent uploads of one device.
const MAX_UPLOADS: usize = 10;

/// Answers a request under `/devices/`.
pub(crate) fn file_request(
    world: &mut World,
    head: &Head,
    body: &[u8],
    peer: &Peer,
    unix: u64,
    now: Duration,
) -> Response {
    let Some((id, action)) = read_path(&head.path) else {
        return error(404, 404_000, "There is no such resource.", unix);
    };
    if head.method != "POST" {
        return error(405, 405_000, "The method is not allowed.", unix);
    }
    if !head.query.contains_key("api-version") {
        return error(400, 400_001, "The api-version is missing.", unix);
    }
    let password = head.header("authorization").unwrap_or_default();
    let Some(host) = find_hub(world, &head.host(), password, &id) else {
        return error(404, 404_001, "There is no such device.", unix);
    };
    let hub = world.hubs.get(&host).expect("found above");
    let Some(device) = hub.devices.get(&id) else {
        return error(404, 404_001, "There is no such device.", unix);
    };
    let credentials = Credentials { password, certificates: &peer.certificates, unix };
    match check_device(&hub.config, &id, device, &credentials) {
        _ if !device.enabled => return error(403, 403_012, "The device is disabled.", unix),
        Err(Refusal::Expired) => return error(401, 401_003, "The token has expired.", unix),
        Err(_) => return error(401, 401_002, "The device is not authorized.", unix),
        Ok(_) => {}
    }
    let fault = world
        .faults
        .strike(&host, &id, |fault| if let Fault::UploadStatus { status } = fault { Some(*status) } else { None });
    if let Some(status) = fault {
        return error(status, u32::from(status) * 1000, "An injected fault.", unix);
    }
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    match action {
        Action::Begin => begin(world, &host, &id, &body, unix, now),
        Action::Notify(correlation) => {
            let named = member(&body, "correlationId").and_then(Value::as_str).map(str::to_owned);
            notify(world, (&host, &id), correlation.or(named), &body, unix, now)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Begin,
    Notify(Option<String>),
}

/// Returns the device and the action that a path names.
fn read_path(path: &str) -> Option<(String, Action)> {
    let (id, action) = path.strip_prefix("/devices/")?.split_once("/files")?;
    let action = match action {
        "" | "/" => Action::Begin,
        "/notifications" | "/notifications/" => Action::Notify(None),
        // The C SDK does not encode the slashes of the id: two may follow each other, and one may be the first character.
        action => Action::Notify(Some(percent_decode(action.strip_prefix("/notifications/")?))),
    };
    (!id.is_empty() && !id.contains('/')).then(|| (percent_decode(id), action))
}

/// Finds the hub of a request: by the host name, else (through a gateway name) by the token, else by the device.
pub(crate) fn find_hub(world: &World, host: &str, password: &str, id: &str) -> Option<String> {
    if world.hubs.contains_key(host) {
        return Some(host.to_owned());
    }
    let named = Token::parse(password).map(|token| token.resource());
    let named = named.and_then(|resource| resource.split('/').next().map(str::to_ascii_lowercase));
    if let Some(named) = named.filter(|named| world.hubs.contains_key(named)) {
        return Some(named);
    }
    world.hubs.iter().find(|(_, hub)| hub.devices.contains_key(id)).map(|(host, _)| host.clone())
}

fn begin(world: &mut World, host: &str, id: &str, body: &Value, unix: u64, now: Duration) -> Response {
    let Some(name) = member(body, "blobName").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
        return error(400, 400_004, "The name of the blob is missing.", unix);
    };
    if world.storage.under_way(host, id, unix) >= MAX_UPLOADS {
        let operation = Operation::UploadRefused { name: name.to_owned(), status: 403 };
        world.note(host, id, operation, now);
        return error(403, 403_006, "This device already has ten uploads in progress.", unix);
    }
    let life = world.hubs.get(host).map_or(Duration::from_secs(3600), |hub| hub.config.upload_life);
    let upload = world.storage.begin(host, id, name, unix.saturating_add(life.as_secs()));
    let Upload { correlation_id, container, blob, expires, signature, .. } = &upload;
    let sas = format!(
        "?sv=2021-08-06&se={}&sr=b&sp=rw&sig={}",
        crate::percent_encode(&timestamp(*expires)),
        crate::percent_encode(signature)
    );
    let answer = json!({
        "correlationId": correlation_id,
        "hostName": world.storage.authority(),
        "containerName": container,
        "blobName": blob,
        "sasToken": sas,
    });
    let operation = Operation::UploadBegun { correlation_id: correlation_id.clone(), blob: blob.clone() };
    world.note(host, id, operation, now);
    Response::json(200, &answer)
}

fn notify(
    world: &mut World,
    (host, id): (&str, &str),
    correlation: Option<String>,
    body: &Value,
    unix: u64,
    now: Duration,
) -> Response {
    let Some(correlation_id) = correlation else {
        return error(400, 400_004, "The correlation id is missing.", unix);
    };
    let success = member(body, "isSuccess").and_then(Value::as_bool);
    let Some(success) = success else {
        return error(400, 400_004, "The field isSuccess is missing.", unix);
    };
    let known = world.storage.end(host, id, &correlation_id, unix);
    let status = if known { 204 } else { 400 };
    let operation = Operation::UploadNotified {
        correlation_id,
        success,
        code: member(body, "statusCode").and_then(Value::as_i64),
        description: member(body, "statusDescription").and_then(Value::as_str).map(str::to_owned),
        status,
    };
    world.note(host, id, operation, now);
    if known { Response::new(204) } else { error(400, 400_016, "The correlation id is unknown or expired.", unix) }
}

/// Finds a member of an object by its name in any case.
fn member<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    body.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn error(status: u16, code: u32, message: &str, unix: u64) -> Response {
    let body = json!({
        "Message": format!("ErrorCode:{code};{message}"),
        "ExceptionMessage": format!("Tracking ID:{unix:x}-TimeStamp:{}", timestamp(unix)),
    });
    Response::json(status, &body).header("iothub-errorcode", code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_device_and_the_whole_correlation_id_whatever_slashes_it_has() {
        for correlation in ["abc+=", "/abc", "a//b", "a/b/", "//", "files/files"] {
            let encoded = correlation.replace('/', "%2F");
            for text in [correlation, &encoded] {
                let expected = ("pump 7".to_owned(), Action::Notify(Some(correlation.to_owned())));
                assert_eq!(read_path(&format!("/devices/pump%207/files/notifications/{text}")), Some(expected));
            }
        }
        assert_eq!(read_path("/devices/a/files"), Some(("a".to_owned(), Action::Begin)));
        assert_eq!(read_path("/devices/files/files/"), Some(("files".to_owned(), Action::Begin)));
        assert_eq!(read_path("/devices/a/files/notifications"), Some(("a".to_owned(), Action::Notify(None))));
        for path in ["/devices/a/filesx", "/devices//files", "/devices/a/b/files", "/devices/a", "/devices/a/files/x"] {
            assert_eq!(read_path(path), None, "{path}");
        }
    }
}
