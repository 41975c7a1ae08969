//! The control routes of one identity.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::SPAN_MAX;
use crate::cloud::{Ack, MessageToDevice};
use crate::config::DeviceAuth;
use crate::control::{Control, Hub};
use crate::device_handle::DeviceHandle;
use crate::http::{Reply, Request};
use crate::routes::{bad, body_json, done, read, read_key, resets, text, unknown};
use crate::{Error, Key};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDevice {
    id: String,
    key: Option<String>,
    secondary: Option<String>,
    thumbprint: Option<String>,
    #[serde(default)]
    ca: bool,
}

/// Registers an identity and replies with its connection string.
pub(crate) fn register(control: &Control, hub: &Hub, body: &Value) -> Result<Reply, Error> {
    let NewDevice { id, key, secondary, thumbprint, ca } = read(body)?;
    let auth = match (key, thumbprint, ca) {
        (key, None, false) => {
            let primary = key.map_or_else(|| Ok(Key::random()), |key| read_key(&key))?;
            DeviceAuth::Keys { primary, secondary: secondary.map(|key| read_key(&key)).transpose()? }
        }
        (None, Some(primary), false) => DeviceAuth::Thumbprint { primary, secondary },
        (None, None, true) => DeviceAuth::CertificateAuthority { pem: control.ca_pem().to_owned(), common_name: None },
        _ => return Err(bad("a device needs exactly one of `key`, `thumbprint` and `ca`")),
    };
    hub.add_device(&id, auth.clone())?;
    let key = if let DeviceAuth::Keys { primary, .. } = &auth { Some(primary) } else { None };
    Ok(Reply::Json(json!({ "connectionString": connection_string(hub.host(), &id, key) })))
}

/// Returns the connection string of a device or module; without a key, the one for its certificate.
fn connection_string(host: &str, id: &str, key: Option<&Key>) -> String {
    let identity = match id.split_once('/') {
        None => format!("DeviceId={id}"),
        Some((device, module)) => format!("DeviceId={device};ModuleId={module}"),
    };
    match key {
        Some(key) => format!("HostName={host};{identity};SharedAccessKey={}", key.to_base64()),
        None => format!("HostName={host};{identity};x509=true"),
    }
}

/// Handles `/hubs/{hub}/devices/{id}/...`; a module's id is `{device}/modules/{module}` in a path.
pub(crate) async fn device_route(hub: &Hub, request: &Request, id: &str, action: &[&str]) -> Result<Reply, Error> {
    let (id, action) = match action {
        ["modules", module, action @ ..] => (format!("{id}/{module}"), action),
        action => (id.to_owned(), action),
    };
    let device = hub.device(&id);
    match (request.method.as_str(), action) {
        ("GET", []) => return Ok(Reply::Json(device.describe()?)),
        ("DELETE", []) => device.delete()?,
        ("GET", ["twin"]) => return Ok(Reply::Json(device.twin()?)),
        ("POST", ["desired"]) => {
            let version = match request.query.get("version") {
                None => device.set_desired(&request.body)?,
                Some(version) => {
                    let version = version.parse().map_err(|_| bad("`version` must be a whole number"))?;
                    device.set_desired_if(version, &request.body)?
                }
            };
            return Ok(Reply::Json(json!({ "version": version })));
        }
        ("POST", ["methods", name]) => return call(&device, name, &request.body).await,
        ("POST", ["messages"]) => device.send_message(message(&request.body)?)?,
        ("DELETE", ["messages"]) => return Ok(Reply::Json(json!({ "purged": device.purge()? }))),
        ("POST", ["inputs", name]) => device.send_to_input(name, message(&request.body)?)?,
        ("POST", ["disconnect"]) => device.disconnect(resets(request))?,
        ("POST", ["disable"]) => device.disable()?,
        ("POST", ["enable"]) => device.enable()?,
        ("POST", ["recreate"]) => device.recreate()?,
        ("POST", ["roll-back-twin"]) => device.roll_back_twin()?,
        ("POST", ["key"]) => device.set_auth(read_key(text(&request.body, "key")?)?)?,
        ("POST", ["rotate"]) => {
            let key = match request.body.get("key").and_then(Value::as_str) {
                Some(key) => read_key(key)?,
                None => Key::random(),
            };
            device.rotate_key(key.clone())?;
            return Ok(Reply::Json(json!({ "connectionString": connection_string(hub.host(), &id, Some(&key)) })));
        }
        ("POST", ["forget-session"]) => device.forget_session()?,
        _ => return Err(unknown(request)),
    }
    done()
}

async fn call(device: &DeviceHandle, name: &str, body: &Value) -> Result<Reply, Error> {
    let millis = |key: &str, default| span(body, key).map(|span| span.unwrap_or(Duration::from_millis(default)));
    let payload = body.get("payload").unwrap_or(&Value::Null);
    let (connect_limit, limit) = (millis("connect_timeout_ms", 0)?, millis("timeout_ms", 30_000)?);
    let answer = device.invoke_within(name, payload, connect_limit, limit).await?;
    let mut reply = json!({ "status": answer.status, "payload": body_json(&answer.payload) });
    if !answer.payload.is_empty() && serde_json::from_slice::<IgnoredAny>(&answer.payload).is_err() {
        reply["problem"] = json!("the response is neither JSON nor empty: IoT Hub fails such a call");
    }
    Ok(Reply::Json(reply))
}

/// Reads a member in milliseconds, a year at most.
fn span(body: &Value, key: &str) -> Result<Option<Duration>, Error> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let span = value.as_u64().map(Duration::from_millis).filter(|span| *span <= SPAN_MAX);
            span.map(Some).ok_or_else(|| bad(&format!("`{key}` must be milliseconds, a year at most")))
        }
    }
}

fn message(body: &Value) -> Result<MessageToDevice, Error> {
    let bytes = match body.get("base64").and_then(Value::as_str) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| bad("`base64` must be base64 with padding"))?,
        None => text(body, "body")?.as_bytes().to_vec(),
    };
    let mut message = MessageToDevice::new(bytes);
    match body.get("properties") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (name, value) in map {
                let value = value.as_str().ok_or_else(|| bad("the values of `properties` must be strings"))?;
                message = message.property(name, value);
            }
        }
        Some(_) => return Err(bad("`properties` must be an object")),
    }
    if let Some(span) = span(body, "expires_ms")? {
        message = message.expires_in(span);
    }
    if let Some(ack) = body.get("ack").and_then(Value::as_str) {
        message = message.ack(Ack::from_property(ack));
    }
    Ok(message)
}
