//! Direct method calls from a module to another module or to a device, through the gateway.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::connect::{Peer, check_device};
use crate::device_handle::DeviceHandle;
use crate::dps::Credentials;
use crate::files::find_hub;
use crate::http_message::{Head, Response};
use crate::methods::MAX_METHOD_PAYLOAD;
use crate::world::Shared;
use crate::{Error, percent_decode};

/// Longest name of a method (`Azure/iotedge`, `MethodRequestValidator.cs`).
const MAX_NAME: usize = 100;

/// Answers a request under `/twins/`. Only a gateway serves these: a hub requires a token of its service policies,
/// which modules do not have.
pub(crate) async fn module_call(shared: &Arc<Shared>, head: &Head, body: &[u8], peer: &Peer, unix: u64) -> Response {
    let segments: Vec<String> = head.path.split('/').skip(1).map(percent_decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let target = match segments.as_slice() {
        ["twins", device, "methods"] => (*device).to_owned(),
        ["twins", device, "modules", module, "methods"] => format!("{device}/{module}"),
        _ => return error(404, "There is no such resource."),
    };
    if head.method != "POST" {
        return error(405, "The method is not allowed.");
    }
    let caller = head.header("x-ms-edge-moduleid").unwrap_or_default();
    if caller.split('/').filter(|part| !part.is_empty()).count() != 2 {
        return error(400, "Invalid header value for x-ms-edge-moduleId");
    }
    let password = head.header("authorization").unwrap_or_default();
    let found = authenticate(shared, head, caller, &Credentials { password, certificates: &peer.certificates, unix });
    let Some(host) = found else { return error(401, "The module is not authorized.") };
    let Some(call) = Request::read(body) else { return error(400, "The request is not a method call.") };
    let handle = DeviceHandle { shared: Arc::clone(shared), host, id: target };
    match handle.invoke_within(&call.name, &call.payload, call.connect_wait, call.answer_wait).await {
        Ok(answer) => {
            let payload: Value = serde_json::from_slice(&answer.payload).unwrap_or(Value::Null);
            Response::json(200, &json!({ "status": answer.status, "payload": payload }))
        }
        Err(Error::NoAnswer) => error(504, "The called device or module did not respond in time."),
        Err(Error::Request(why)) => error(400, &why),
        Err(why) => error(404, &why.to_string()),
    }
}

/// Returns the hub of the caller if the caller authenticates and uses a gateway name.
fn authenticate(shared: &Shared, head: &Head, caller: &str, credentials: &Credentials<'_>) -> Option<String> {
    let world = shared.lock();
    if world.hubs.contains_key(&head.host()) {
        return None;
    }
    let host = find_hub(&world, &head.host(), credentials.password, caller)?;
    let hub = world.hubs.get(&host)?;
    let device = hub.devices.get(caller)?;
    let authenticated = device.enabled && check_device(&hub.config, caller, device, credentials).is_ok();
    authenticated.then_some(host)
}

struct Request {
    name: String,
    payload: Value,
    connect_wait: Duration,
    answer_wait: Duration,
}

impl Request {
    fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let name = body.get("methodName")?.as_str().filter(|name| !name.trim().is_empty() && name.len() <= MAX_NAME)?;
        let payload = body.get("payload").cloned().unwrap_or(Value::Null);
        let seconds = |name: &str, default| body.get(name).map_or(Some(default), Value::as_u64);
        let connect_wait = seconds("connectTimeoutInSeconds", 0).filter(|wait| *wait <= 300)?;
        let answer_wait = seconds("responseTimeoutInSeconds", 30).filter(|wait| (5..=300).contains(wait))?;
        (payload.to_string().len() <= MAX_METHOD_PAYLOAD).then(|| Self {
            name: name.to_owned(),
            payload,
            connect_wait: Duration::from_secs(connect_wait),
            answer_wait: Duration::from_secs(answer_wait),
        })
    }
}

fn error(status: u16, message: &str) -> Response {
    Response::json(status, &json!({ "message": message }))
}
