//! The twin and the methods of a simulated hub's devices.

use std::collections::{BTreeMap, VecDeque};

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use serde_json::{Map, Value, json};

use super::{ConnectionId, Reaction, Reply};

/// What the hub does with a twin request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TwinFault {
    /// It does as it is asked.
    #[default]
    None,
    /// It does nothing and answers with this status.
    Status(u16),
    /// It does as it is asked and says nothing.
    Silence,
    /// It does as it is asked, after so many milliseconds; what it says is what was true when it was asked.
    Late(u64),
    /// It does as it is asked and closes the connection.
    Close,
}

/// A device's twin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Twin {
    /// The desired properties, without `$version`.
    pub desired: Value,
    /// Their version.
    pub desired_version: u64,
    /// The reported properties, without `$version`.
    pub reported: Value,
    /// Their version.
    pub reported_version: u64,
}

impl Default for Twin {
    fn default() -> Self {
        Self { desired: json!({}), desired_version: 1, reported: json!({}), reported_version: 1 }
    }
}

/// The answer of a device to a method call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodAnswer {
    /// What named the call.
    pub request: String,
    /// The connection it came on.
    pub connection: ConnectionId,
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// The twins and calls of a hub's devices.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    twins: BTreeMap<String, Twin>,
    /// When twin requests came, in milliseconds.
    pub(super) requests: Vec<u64>,
    pub(super) answers: Vec<MethodAnswer>,
    pub(super) next_faults: VecDeque<TwinFault>,
    pub(super) fault: TwinFault,
}

impl Services {
    pub(super) fn twin(&mut self, client_id: &str) -> &mut Twin {
        self.twins.entry(client_id.to_owned()).or_default()
    }

    /// Changes the desired properties; returns what the device is told.
    pub(super) fn desire(&mut self, client_id: &str, patch: &Value) -> (String, Vec<u8>) {
        let twin = self.twin(client_id);
        merge(&mut twin.desired, patch);
        twin.desired_version += 1;
        let version = twin.desired_version;
        let mut body = patch.clone();
        body["$version"] = version.into();
        (format!("$iothub/twin/PATCH/properties/desired/?$version={version}"), body.to_string().into_bytes())
    }

    pub(super) fn renew(&mut self, client_id: &str) {
        self.twins.insert(client_id.to_owned(), Twin::default());
    }

    /// Reacts to a publish to a topic of a service; `None` when it is none.
    pub(super) fn publish(
        &mut self,
        connection: ConnectionId,
        client_id: &str,
        publish: &Publish,
        at_ms: u64,
    ) -> Option<Vec<Reaction>> {
        let rest = publish.topic.strip_prefix("$iothub/")?;
        let (path, query) = rest.split_once("/?").unwrap_or((rest, ""));
        let request = query.split('&').find_map(|one| one.strip_prefix("$rid=")).unwrap_or_default();
        if let Some(status) = path.strip_prefix("methods/res/") {
            let (request, status) = (request.to_owned(), status.parse().unwrap_or(0));
            self.answers.push(MethodAnswer { request, connection, status, body: publish.payload.to_vec() });
            return Some(Vec::new());
        }
        self.requests.push(at_ms);
        let fault = self.next_faults.pop_front().unwrap_or(self.fault);
        let answer = |status: u16, version: Option<u64>, body: Vec<u8>, after_ms| {
            let version = version.map_or_else(String::new, |version| format!("&$version={version}"));
            let topic = format!("$iothub/twin/res/{status}/?$rid={request}{version}");
            let publish = Publish::new(topic, QoS::AtMostOnce, body);
            vec![Reaction::after(connection, after_ms, Reply::Packet(Packet::Publish(publish)))]
        };
        let after_ms = match fault {
            TwinFault::Status(status) => return Some(answer(status, None, Vec::new(), 0)),
            TwinFault::Late(after_ms) => after_ms,
            TwinFault::None | TwinFault::Silence | TwinFault::Close => 0,
        };
        let twin = self.twin(client_id);
        let reactions = match path {
            "twin/GET" => {
                let with = |section: &Value, version: u64| {
                    let mut section = section.clone();
                    section["$version"] = version.into();
                    section
                };
                let desired = with(&twin.desired, twin.desired_version);
                let reported = with(&twin.reported, twin.reported_version);
                let body = json!({ "desired": desired, "reported": reported });
                answer(200, None, body.to_string().into_bytes(), after_ms)
            }
            "twin/PATCH/properties/reported" => match serde_json::from_slice(&publish.payload) {
                Ok(patch @ Value::Object(_)) => {
                    merge(&mut twin.reported, &patch);
                    twin.reported_version += 1;
                    answer(204, Some(twin.reported_version), Vec::new(), after_ms)
                }
                _ => answer(400, None, Vec::new(), after_ms),
            },
            _ => return Some(vec![Reaction::now(connection, Reply::Close)]),
        };
        Some(match fault {
            TwinFault::Silence => Vec::new(),
            TwinFault::Close => vec![Reaction::now(connection, Reply::Close)],
            TwinFault::None | TwinFault::Late(_) | TwinFault::Status(_) => reactions,
        })
    }
}

/// Changes `target` as a patch says: `null` deletes, objects are merged, all else takes the place of what was there.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}
