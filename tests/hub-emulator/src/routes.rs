//! The routes of the control API.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::SPAN_MAX;
use crate::config::HubConfig;
use crate::control::Control;
use crate::device_routes::{device_route, register};
use crate::enrollment::{Attestation, Enrollment};
use crate::fault::{DpsFault, Fault, FaultId, Injection};
use crate::http::{Reply, Request};
use crate::ledger::Receipt;
use crate::{Error, Key};

/// The routes of the control API: method, path, effect and body. `{hub}` is a full or short name.
pub const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/", "this list"),
    ("GET", "/status", "addresses, hubs, connected devices, counts of telemetry"),
    ("GET", "/ca.pem", "the CA certificate clients must trust"),
    ("GET", "/ca.crl", "the revocation list, which is empty, for clients that check it"),
    ("POST", "/certificates", "issues a device certificate: {\"common_name\":\"pump-7\"}"),
    ("POST", "/hubs", "adds a hub: {\"name\":\"hub-c\"}"),
    ("POST", "/hubs/{hub}/down", "takes the hub down: closes all connections and refuses new ones"),
    ("POST", "/hubs/{hub}/up", "brings the hub up again"),
    ("POST", "/hubs/{hub}/fail-over", "drops sessions, closes new connections for this time: {\"seconds\":30}"),
    ("POST", "/hubs/{hub}/exhaust-quota", "uses up the daily quota: closes every connection until midnight UTC"),
    (
        "POST",
        "/hubs/{hub}/routes",
        "routes an output of a module to an input: {\"from\":\"d/m\",\"output\":\"*\",\"to\":\"d/n\",\"input\":\"in\"}",
    ),
    ("POST", "/hubs/{hub}/forget-sessions", "deletes all MQTT sessions; the next CONNACK has session_present 0"),
    ("POST", "/hubs/{hub}/disconnect", "closes all connections: {\"reset\":true}"),
    ("GET", "/hubs/{hub}/devices", "the ids of all identities"),
    (
        "POST",
        "/hubs/{hub}/devices",
        "registers a device or module, returns its connection string: {\"id\":\"pump-7/filter\",\"key\":null,\"secondary\":null}; \"thumbprint\" for \"key\" or \"ca\":true for a certificate",
    ),
    (
        "GET",
        "/hubs/{hub}/devices/{id}",
        "connection, subscriptions, queued messages, model id; for a module, add /modules/{module}",
    ),
    ("DELETE", "/hubs/{hub}/devices/{id}", "deletes the identity"),
    ("GET", "/hubs/{hub}/devices/{id}/twin", "both documents with their versions"),
    (
        "POST",
        "/hubs/{hub}/devices/{id}/desired",
        "merges desired properties: {\"interval\":30}; with `?version=3` only if that is the current version",
    ),
    (
        "POST",
        "/hubs/{hub}/devices/{id}/methods/{name}",
        "calls a method: {\"payload\":{},\"timeout_ms\":5000,\"connect_timeout_ms\":0}; errors 404 and 504 as at IoT Hub",
    ),
    (
        "POST",
        "/hubs/{hub}/devices/{id}/messages",
        "sends a cloud-to-device message: {\"body\":\"hi\",\"properties\":{\"$.mid\":\"1\"},\"expires_ms\":60000,\"ack\":\"full\"}; \"base64\" for \"body\"",
    ),
    ("DELETE", "/hubs/{hub}/devices/{id}/messages", "empties the queue of cloud-to-device messages"),
    (
        "POST",
        "/hubs/{hub}/devices/{id}/modules/{module}/inputs/{name}",
        "sends a message to an input of a module; body as for messages",
    ),
    ("POST", "/hubs/{hub}/devices/{id}/disconnect", "closes the connection: {\"reset\":true}"),
    ("POST", "/hubs/{hub}/devices/{id}/disable", "refuses the device"),
    ("POST", "/hubs/{hub}/devices/{id}/enable", "enables the device again"),
    ("POST", "/hubs/{hub}/devices/{id}/recreate", "deletes and recreates the identity: twin versions restart at 1"),
    ("POST", "/hubs/{hub}/devices/{id}/roll-back-twin", "restarts the twin versions without a notification"),
    ("POST", "/hubs/{hub}/devices/{id}/key", "sets a single key and closes the connection: {\"key\":\"base64\"}"),
    (
        "POST",
        "/hubs/{hub}/devices/{id}/rotate",
        "makes the primary key the secondary and sets a new primary: {\"key\":null}",
    ),
    (
        "POST",
        "/hubs/{hub}/devices/{id}/forget-session",
        "deletes the MQTT session; the next CONNACK has session_present 0",
    ),
    ("POST", "/move", "moves one device or all: {\"from\":\"hub-a\",\"to\":\"hub-b\",\"device\":\"pump-7\"}"),
    ("POST", "/ports/close", "closes the shared ports, so that TCP is refused"),
    ("POST", "/ports/open", "opens the shared ports again"),
    ("GET", "/faults", "the active faults"),
    (
        "POST",
        "/faults",
        "injects a fault: {\"fault\":{\"kind\":\"refuse-connect\",\"code\":3},\"hub\":\"hub-a\",\"device\":\"pump-7\",\"times\":2,\"after\":1}; \"times\":0 means until cleared",
    ),
    ("DELETE", "/faults", "clears all"),
    ("DELETE", "/faults/{id}", "clears one"),
    (
        "POST",
        "/dps/faults",
        "injects a DPS fault: {\"fault\":{\"kind\":\"throttled\",\"retry_after\":5},\"device\":\"pump-7\"}",
    ),
    ("GET", "/dps/registrations", "all registration requests"),
    (
        "POST",
        "/dps/enrollments",
        "adds an enrollment: {\"name\":\"line-1\",\"group\":true,\"key\":\"base64\",\"hub\":\"hub-a\"}; \"thumbprint\" for \"key\" or \"ca\":true for certificates, \"tpm\" with an endorsement key in base64",
    ),
    ("DELETE", "/dps/enrollments/{name}", "removes the enrollment"),
    ("POST", "/dps/enrollments/{name}/repoint", "assigns to another hub: {\"hub\":\"hub-b\"}"),
    ("POST", "/dps/enrollments/{name}/disable", "answers `disabled`"),
    ("POST", "/dps/enrollments/{name}/enable", "enables the enrollment"),
    ("POST", "/dps/down", "refuses TCP on its own port, closes before TLS on a shared one"),
    ("POST", "/dps/close-what-comes", "accepts TCP and closes it before TLS"),
    ("POST", "/dps/up", "brings DPS up again"),
    ("GET", "/messages?device={id}&limit={n}", "the last receipts, 100 by default, of one device or all"),
    ("GET", "/check?device={id}&first={n}&end={n}", "lost, duplicated and reordered values of the property seq"),
    (
        "GET",
        "/operations?device={id}&limit={n}",
        "the last operations (twin, methods, messages to devices, files), 100 by default, of one device or all",
    ),
    ("GET", "/connections?device={id}&limit={n}", "the last connections, 100 by default, of one device or all"),
    ("GET", "/uploads?device={id}&name={name}", "the latest file that the device uploaded under this name"),
    ("DELETE", "/ledger", "deletes receipts and closed connections"),
    ("POST", "/clock", "sets the wall clock: {\"offset_seconds\":-3600} or {\"advance_seconds\":60}"),
    ("POST", "/stop", "stops the emulator"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault<F> {
    fault: F,
    hub: Option<String>,
    device: Option<String>,
    times: Option<u32>,
    #[serde(default)]
    after: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEnrollment {
    name: String,
    #[serde(default)]
    group: bool,
    key: Option<String>,
    secondary: Option<String>,
    thumbprint: Option<String>,
    #[serde(default)]
    ca: bool,
    tpm: Option<String>,
    hub: Option<String>,
    device_id: Option<String>,
    payload: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    from: String,
    to: String,
    device: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Time {
    offset_seconds: Option<i64>,
    advance_seconds: Option<u64>,
}

/// Handles a request.
pub(crate) async fn route(control: &Control, request: &Request) -> Result<Reply, Error> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    match (request.method.as_str(), path.as_slice()) {
        ("GET", []) => Ok(Reply::Text(help())),
        ("GET", ["status"]) => Ok(Reply::Json(status(control))),
        ("GET", ["ca.pem"]) => Ok(Reply::Text(control.ca_pem().to_owned())),
        ("GET", ["ca.crl"]) => Ok(Reply::RevocationList(control.revocation_list()?)),
        ("POST", ["certificates"]) => {
            let certificate = control.device_certificate(text(&request.body, "common_name")?)?;
            Ok(Reply::Json(json!({
                "certificate": certificate.certificate_pem,
                "key": certificate.key_pem,
                "thumbprint": certificate.thumbprint,
            })))
        }
        ("POST", ["move"]) => {
            let Move { from, to, device } = read(&request.body)?;
            match device {
                Some(device) => control.move_device(&device, &from, &to)?,
                None => control.move_all(&from, &to)?,
            }
            done()
        }
        ("POST", ["ports", action @ ("close" | "open")]) => {
            control.set_listening(*action == "open");
            done()
        }
        ("POST", ["hubs"]) => {
            control.add_hub(HubConfig::new(text(&request.body, "name")?))?;
            done()
        }
        (_, ["hubs", hub, rest @ ..]) => hub_route(control, request, hub, rest).await,
        (_, ["dps", rest @ ..]) => dps_route(control, request, rest),
        ("GET", ["faults"]) => Ok(Reply::Json(
            control.world(|world| json!({ "faults": world.faults.list(), "dps": world.dps.faults.list() })),
        )),
        ("POST", ["faults"]) => add_fault(control, read(&request.body)?),
        ("DELETE", ["faults"]) => {
            control.clear_faults();
            done()
        }
        ("DELETE", ["faults", id]) => {
            let id = id.parse().map_err(|_| bad("a fault id must be a number"))?;
            Ok(Reply::Json(json!({ "cleared": control.clear_fault(FaultId(id)) })))
        }
        ("GET", ["messages"]) => {
            let all = match request.query.get("device") {
                Some(device) => control.ledger().receipts(device),
                None => control.ledger().all_messages(),
            };
            Ok(Reply::Json(last(all.iter().map(receipt_json), request)?))
        }
        ("GET", ["check"]) => {
            let device = request.query.get("device").ok_or_else(|| bad("`device` is missing"))?;
            let range = number(request, "first", 0)?..number(request, "end", 0)?;
            let report = control.ledger().check_sequence(device, range);
            Ok(Reply::Json(json!({ "complete": report.is_complete(), "report": report })))
        }
        ("GET", ["connections"]) => {
            let all = match request.query.get("device") {
                Some(device) => control.ledger().connections_of(device),
                None => control.ledger().connections(),
            };
            Ok(Reply::Json(last(all.iter().map(|record| json!(record)), request)?))
        }
        ("GET", ["operations"]) => {
            let wanted = request.query.get("device");
            let all = control.ledger().operations();
            let of_device = all.iter().filter(|record| wanted.is_none_or(|wanted| record.device == *wanted));
            Ok(Reply::Json(last(of_device.map(|record| json!(record)), request)?))
        }
        ("GET", ["uploads"]) => {
            let query = |name: &str| request.query.get(name).ok_or_else(|| bad(&format!("`{name}` is missing")));
            let content = control.uploaded(query("device")?, query("name")?);
            let content = content.ok_or_else(|| bad("there is no such file"))?;
            Ok(Reply::Json(json!({ "size": content.len(), "content": body_json(&content) })))
        }
        ("DELETE", ["ledger"]) => {
            control.ledger().clear();
            done()
        }
        ("POST", ["clock"]) => {
            let Time { offset_seconds, advance_seconds } = read(&request.body)?;
            if let Some(seconds) = offset_seconds {
                control.clock().set_offset_seconds(seconds);
            }
            if let Some(seconds) = advance_seconds {
                control.clock().advance(Duration::from_secs(seconds));
            }
            Ok(Reply::Json(json!({ "unix": control.clock().unix() })))
        }
        ("POST", ["stop"]) => {
            control.shared.stop.send_replace(true);
            done()
        }
        _ => Err(unknown(request)),
    }
}

async fn hub_route(control: &Control, request: &Request, hub: &str, rest: &[&str]) -> Result<Reply, Error> {
    let hub = control.hub(hub);
    match (request.method.as_str(), rest) {
        ("POST", ["down"]) => hub.down()?,
        ("POST", ["up"]) => hub.up()?,
        ("POST", ["fail-over"]) => {
            let seconds = request.body.get("seconds").and_then(Value::as_u64);
            let downtime = seconds.map(Duration::from_secs).filter(|downtime| *downtime <= SPAN_MAX);
            hub.fail_over(downtime.ok_or_else(|| bad("`seconds` must be a whole number, 31,536,000 at most"))?)?;
        }
        ("POST", ["exhaust-quota"]) => hub.exhaust_quota()?,
        ("POST", ["routes"]) => {
            let part = |name| text(&request.body, name);
            hub.route(part("from")?, part("output")?, part("to")?, part("input")?)?;
        }
        ("POST", ["forget-sessions"]) => hub.forget_sessions()?,
        ("POST", ["disconnect"]) => hub.disconnect_all(resets(request))?,
        ("GET", ["devices"]) => return Ok(Reply::Json(json!(hub.devices()?))),
        ("POST", ["devices"]) => return register(control, &hub, &request.body),
        (_, ["devices", id, action @ ..]) => return device_route(&hub, request, id, action).await,
        _ => return Err(unknown(request)),
    }
    done()
}

fn dps_route(control: &Control, request: &Request, rest: &[&str]) -> Result<Reply, Error> {
    let dps = control.dps();
    match (request.method.as_str(), rest) {
        ("POST", ["faults"]) => {
            let NewFault::<DpsFault> { fault, device, times, after, .. } = read(&request.body)?;
            let injection = injection(fault, times, after);
            let id = match device {
                Some(device) => dps.inject_for(&device, injection),
                None => dps.inject(injection),
            };
            return Ok(Reply::Json(json!({ "id": id })));
        }
        ("GET", ["registrations"]) => return Ok(Reply::Json(json!(dps.registrations()))),
        ("POST", ["enrollments"]) => {
            let new: NewEnrollment = read(&request.body)?;
            let attestation = match (new.key, new.thumbprint, new.ca, new.tpm) {
                (Some(key), None, false, None) => {
                    let secondary = new.secondary.map(|key| read_key(&key)).transpose()?;
                    Attestation::Symmetric { primary: read_key(&key)?, secondary }
                }
                (None, Some(thumbprint), false, None) if !new.group => Attestation::Thumbprint(thumbprint),
                (None, None, false, Some(key)) if !new.group => {
                    let endorsement_key = STANDARD.decode(key).map_err(|_| bad("an endorsement key must be base64"))?;
                    Attestation::Tpm { endorsement_key }
                }
                (None, None, true, None) => Attestation::CertificateAuthority(control.ca_pem().to_owned()),
                _ => {
                    return Err(bad(
                        "an enrollment needs exactly one of `key`, `thumbprint`, `tpm` and `ca`; `thumbprint` and `tpm` are for one device",
                    ));
                }
            };
            let mut enrollment = if new.group {
                Enrollment::group_with(&new.name, attestation)
            } else {
                Enrollment::individual_with(&new.name, attestation)
            };
            if let Some(hub) = &new.hub {
                control.world(|world| world.hub(&crate::config::hub_host(hub)).map(|_| ()))?;
                enrollment = enrollment.hub(hub);
            }
            if let Some(id) = &new.device_id {
                enrollment = enrollment.device_id(id);
            }
            if let Some(payload) = new.payload {
                enrollment = enrollment.payload(payload);
            }
            dps.enroll(enrollment);
        }
        ("DELETE", ["enrollments", name]) => dps.remove(name)?,
        ("POST", ["enrollments", name, "repoint"]) => dps.repoint(name, text(&request.body, "hub")?)?,
        ("POST", ["enrollments", name, "disable"]) => dps.set_enabled(name, false)?,
        ("POST", ["enrollments", name, "enable"]) => dps.set_enabled(name, true)?,
        ("POST", ["down"]) => dps.down(),
        ("POST", ["close-what-comes"]) => dps.close_what_comes(),
        ("POST", ["up"]) => dps.up(),
        _ => return Err(unknown(request)),
    }
    done()
}

fn add_fault(control: &Control, new: NewFault<Fault>) -> Result<Reply, Error> {
    let NewFault { fault, hub, device, times, after } = new;
    let injection = injection(fault, times, after);
    if let Some(hub) = hub.as_ref().filter(|hub| *hub != "dps") {
        control.world(|world| world.hub(&crate::config::hub_host(hub)).map(|_| ()))?;
    }
    let id = match (hub, device) {
        (None, None) => control.inject(injection),
        (Some(hub), None) if hub == "dps" => control.dps().inject_connection(injection),
        (Some(hub), None) => control.hub(&hub).inject(injection),
        (Some(hub), Some(device)) => control.hub(&hub).device(&device).inject(injection),
        (None, Some(_)) => return Err(bad("a fault with `device` needs `hub`")),
    };
    Ok(Reply::Json(json!({ "id": id })))
}

fn injection<F>(fault: F, times: Option<u32>, after: u32) -> Injection<F> {
    let injection = match times {
        None => Injection::once(fault),
        Some(0) => Injection::until_cleared(fault),
        Some(times) => Injection::times(fault, times),
    };
    injection.after(after)
}

fn status(control: &Control) -> Value {
    let hubs: serde_json::Map<String, Value> = control
        .hubs()
        .into_iter()
        .map(|name| {
            let hub = control.hub(&name);
            let connected = hub.connected().map(|ids| ids.len()).unwrap_or_default();
            let devices = hub.devices().map(|ids| ids.len()).unwrap_or_default();
            let of_hub = json!({ "address": hub.addr().to_string(), "devices": devices, "connected": connected });
            (name, of_hub)
        })
        .collect();
    json!({
        "tls": control.tls_addr().to_string(),
        "https": control.https_addr().map(|address| address.to_string()),
        "plain": control.plain_addr().map(|address| address.to_string()),
        "dps": { "host": control.dps().host(), "idScope": control.dps().id_scope() },
        "hubs": hubs,
        "telemetry": control.ledger().total(),
        "unix": control.clock().unix(),
    })
}

fn receipt_json(receipt: &Receipt) -> Value {
    let properties: serde_json::Map<String, Value> =
        receipt.properties.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json!({
        "order": receipt.order,
        "at_ms": u64::try_from(receipt.at.as_millis()).unwrap_or(u64::MAX),
        "hub": receipt.hub,
        "device": receipt.device,
        "connection": receipt.connection,
        "packet_id": receipt.packet_id,
        "dup": receipt.dup,
        "message_id": receipt.message_id,
        "component": receipt.component(),
        "output": receipt.output(),
        "content_type": receipt.content_type(),
        "content_encoding": receipt.content_encoding(),
        "properties": properties,
        "body": body_json(&receipt.payload),
        "stored": receipt.stored,
        "acknowledged": receipt.acknowledged_at.is_some(),
    })
}

/// Returns JSON as JSON, other text as text, anything else as base64.
pub(crate) fn body_json(body: &[u8]) -> Value {
    match (serde_json::from_slice(body), std::str::from_utf8(body)) {
        (Ok(value), _) => value,
        (Err(_), Ok(text)) => json!(text),
        (Err(_), Err(_)) => json!(body),
    }
}

/// Returns the list of routes as text.
#[must_use]
pub fn help() -> String {
    let width = ROUTES.iter().map(|(_, path, _)| path.len()).max().unwrap_or(0);
    let line = |(method, path, what): &(&str, &str, &str)| format!("{method:6} {path:width$}  {what}\n");
    ROUTES.iter().map(line).collect()
}

fn last(all: impl Iterator<Item = Value>, request: &Request) -> Result<Value, Error> {
    let limit = usize::try_from(number(request, "limit", 100)?).unwrap_or(usize::MAX);
    let all: Vec<Value> = all.collect();
    Ok(json!(all[all.len().saturating_sub(limit)..]))
}

fn number(request: &Request, name: &str, default: u64) -> Result<u64, Error> {
    match request.query.get(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| bad(&format!("`{name}` must be a whole number"))),
    }
}

pub(crate) fn text<'a>(body: &'a Value, name: &str) -> Result<&'a str, Error> {
    body.get(name).and_then(Value::as_str).ok_or_else(|| bad(&format!("`{name}` must be a string")))
}

pub(crate) fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Error> {
    T::deserialize(body).map_err(|error| bad(&error.to_string()))
}

pub(crate) fn read_key(text: &str) -> Result<Key, Error> {
    Key::from_base64(text).map_err(|error| bad(&error.to_string()))
}

pub(crate) fn resets(request: &Request) -> bool {
    request.body.get("reset").and_then(Value::as_bool).unwrap_or(false)
}

pub(crate) fn done() -> Result<Reply, Error> {
    Ok(Reply::Json(json!({ "done": true })))
}

pub(crate) fn bad(why: &str) -> Error {
    Error::Request(why.to_owned())
}

pub(crate) fn unknown(request: &Request) -> Error {
    bad(&format!("there is no route {} /{}; GET / lists the routes", request.method, request.path.join("/")))
}
