//! A simulated Device Provisioning Service.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode,
};
use steadfast_core::azure::sas::Resource;

use super::dps_https::{Asked, Attested, HttpsFault};
use super::token::verify;
use super::{ConnectionId, Key, Reaction, Reply};

/// What the service does with a registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DpsFault {
    /// It assigns the enrollment's hub at once.
    #[default]
    None,
    /// It is assigning for so many answers, each with this retry-after in seconds, and then assigns.
    Assigning {
        /// How many answers.
        polls: u32,
        /// Seconds named in each of them.
        retry_after_secs: Option<u32>,
    },
    /// It is assigning for so many answers, and then assigns; every other question for the state it answers with this
    /// status instead.
    RefusedPolls {
        /// How many answers.
        polls: u32,
        /// Status in the manner of HTTP.
        status: u16,
        /// Seconds named with that status.
        retry_after_secs: Option<u32>,
    },
    /// It is assigning, and answers every question for the state with this status.
    NoPolls {
        /// Status in the manner of HTTP.
        status: u16,
        /// Seconds named with that status.
        retry_after_secs: Option<u32>,
    },
    /// It says "unassigned" for so many answers, and then assigns.
    Unassigned(u32),
    /// It answers with this status, as it does when it is throttled (429) or failing (5xx).
    Status {
        /// Status in the manner of HTTP.
        status: u16,
        /// Seconds named in the answer.
        retry_after_secs: Option<u32>,
    },
    /// It answers a refusal with this status and error code.
    Refuse {
        /// Status in the manner of HTTP.
        status: u16,
        /// Error code.
        code: u32,
    },
    /// The registration fails with this error code.
    Failed(u32),
    /// The enrollment is disabled.
    Disabled,
    /// It does not answer.
    Silence,
    /// It answers another request.
    WrongRequest,
    /// It answers each poll with another operation id, so many times, and then assigns.
    OtherOperation(u32),
    /// It assigns this hub, whatever is enrolled.
    Hub(String),
    /// It assigns the hub under this device id.
    DeviceId(String),
    /// It assigns the hub with this connection profile.
    Profile(String),
    /// It answers 200 with this body.
    Body(String),
    /// It answers with bytes that are not MQTT.
    Garbage,
    /// It refuses CONNECT with this code.
    Connack(u8),
    /// It does not answer CONNECT.
    ConnackSilence,
    /// It closes the connection on the request.
    Close,
}

/// What the service knows of a device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Enrollment {
    /// The key, or none for a client certificate and for a TPM.
    pub key: Option<Key>,
    /// The endorsement key of the TPM that proves the device, if one does.
    pub tpm: Option<String>,
    /// Host name of the hub.
    pub hub: String,
    /// When the registration last changed, in seconds since 1970.
    pub updated_secs: u64,
}

/// The service.
#[derive(Clone, Debug)]
pub struct Dps {
    /// What happens to the next registrations.
    pub next_faults: VecDeque<DpsFault>,
    /// What happens to every other one.
    pub fault: DpsFault,
    /// What happens to requests over HTTPS by their number, from 0.
    pub(super) https_faults: BTreeMap<usize, HttpsFault>,
    pub(super) attested: BTreeMap<String, Attested>,
    pub(super) requests: Vec<Asked>,
    pub(super) id_scope: String,
    pub(super) enrollments: BTreeMap<String, Enrollment>,
    connections: HashMap<ConnectionId, Connection>,
    pub(super) registrations: Vec<(u64, String)>,
    pub(super) polls: Vec<u64>,
    pub(super) payloads: Vec<String>,
    pub(super) objections: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) registration_id: String,
    pub(super) token: Result<(), ()>,
    pub(super) subscribed: bool,
    pub(super) fault: DpsFault,
    pub(super) asked: u32,
    pub(super) operation: String,
}

impl Dps {
    /// Makes a service with this id scope, without enrollments.
    #[must_use]
    pub fn new(id_scope: &str) -> Self {
        Self {
            next_faults: VecDeque::new(),
            fault: DpsFault::None,
            https_faults: BTreeMap::new(),
            attested: BTreeMap::new(),
            requests: Vec::new(),
            id_scope: id_scope.to_owned(),
            enrollments: BTreeMap::new(),
            connections: HashMap::new(),
            registrations: Vec::new(),
            polls: Vec::new(),
            payloads: Vec::new(),
            objections: Vec::new(),
        }
    }

    /// Enrolls a device for a hub.
    pub fn enroll(&mut self, registration_id: &str, key: Option<Key>, hub: &str, unix_secs: u64) {
        let enrollment = Enrollment { key, tpm: None, hub: hub.to_owned(), updated_secs: unix_secs };
        self.enrollments.insert(registration_id.to_owned(), enrollment);
    }

    /// Gives the device another key.
    pub fn set_key(&mut self, registration_id: &str, key: Option<Key>) {
        if let Some(enrollment) = self.enrollments.get_mut(registration_id) {
            enrollment.key = key;
        }
    }

    /// Gives the device another hub.
    pub fn assign(&mut self, registration_id: &str, hub: &str, unix_secs: u64) {
        if let Some(enrollment) = self.enrollments.get_mut(registration_id) {
            enrollment.hub = hub.to_owned();
            enrollment.updated_secs = unix_secs;
        }
    }

    /// Returns when registrations came, in milliseconds of the world, and whose.
    #[must_use]
    pub fn registrations(&self) -> &[(u64, String)] {
        &self.registrations
    }

    /// Returns when polls came, in milliseconds of the world.
    #[must_use]
    pub fn polls(&self) -> &[u64] {
        &self.polls
    }

    /// Returns the bodies of the registrations.
    #[must_use]
    pub fn payloads(&self) -> &[String] {
        &self.payloads
    }

    /// Returns what clients did that a service may object to so far.
    #[must_use]
    pub fn objections(&self) -> &[String] {
        &self.objections
    }

    /// The connection is gone.
    pub fn closed(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// Reacts to a packet. `unix_secs` is what the service's clock shows, `at_ms` the world's.
    pub fn packet(&mut self, connection: ConnectionId, packet: Packet, unix_secs: u64, at_ms: u64) -> Vec<Reaction> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is what only a server sends")]
        match packet {
            Packet::Connect(connect) => {
                let login = connect
                    .login
                    .unwrap_or(rumqttc::mqttbytes::v4::Login { username: String::new(), password: String::new() });
                let id = connect.client_id;
                let resource = Resource::Registration { id_scope: &self.id_scope, registration_id: &id };
                let token = match self.enrollments.get(&id).map(|enrollment| &enrollment.key) {
                    Some(Some(key)) => verify(&login.password, resource, key, unix_secs).map(|_| ()).map_err(|_| ()),
                    Some(None) => Ok(()),
                    None => Err(()),
                };
                let expected = format!("{}/registrations/{id}/api-version=2019-03-31", self.id_scope);
                if !login.username.starts_with(&expected) || !connect.clean_session {
                    self.objections.push(format!("CONNECT of {:?} at DPS", login.username));
                }
                let fault = self.next_faults.pop_front().unwrap_or_else(|| self.fault.clone());
                if let DpsFault::Connack(code) = &fault {
                    return vec![
                        Reaction::now(connection, Reply::Bytes(vec![0x20, 2, 0, *code])),
                        Reaction::now(connection, Reply::Close),
                    ];
                }
                if fault == DpsFault::ConnackSilence {
                    return Vec::new();
                }
                let answer = Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false));
                let known = Connection {
                    registration_id: id,
                    token,
                    subscribed: false,
                    fault,
                    asked: 0,
                    operation: format!("4.d0a671905ea5b2c8.{connection:08x}"),
                };
                self.connections.insert(connection, known);
                vec![Reaction::now(connection, Reply::Packet(answer))]
            }
            Packet::Subscribe(subscribe) => self.subscribe(connection, &subscribe),
            Packet::Publish(publish) => self.publish(connection, &publish, unix_secs, at_ms),
            Packet::PingReq => vec![Reaction::now(connection, Reply::Packet(Packet::PingResp))],
            Packet::Disconnect => {
                self.closed(connection);
                vec![Reaction::now(connection, Reply::Close)]
            }
            other => {
                self.objections.push(format!("a client does not send {other:?} to DPS"));
                vec![Reaction::now(connection, Reply::Close)]
            }
        }
    }

    fn subscribe(&mut self, connection: ConnectionId, subscribe: &Subscribe) -> Vec<Reaction> {
        if let Some(known) = self.connections.get_mut(&connection) {
            known.subscribed = subscribe.filters.iter().any(|filter| filter.path == "$dps/registrations/res/#");
        }
        let granted = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
        vec![Reaction::now(connection, Reply::Packet(Packet::SubAck(SubAck::new(subscribe.pkid, granted))))]
    }

    fn publish(&mut self, connection: ConnectionId, publish: &Publish, unix_secs: u64, at_ms: u64) -> Vec<Reaction> {
        let Some(known) = self.connections.get_mut(&connection).filter(|known| known.subscribed) else {
            self.objections.push("a request before the subscription".into());
            return vec![Reaction::now(connection, Reply::Close)];
        };
        let mut reactions = vec![Reaction::now(connection, Reply::Packet(Packet::PubAck(PubAck::new(publish.pkid))))];
        let register = publish.topic.starts_with("$dps/registrations/PUT/iotdps-register/?$rid=");
        let request = publish.topic.split("$rid=").nth(1).unwrap_or("").split('&').next().unwrap_or("").to_owned();
        if register {
            self.registrations.push((at_ms, known.registration_id.clone()));
            self.payloads.push(String::from_utf8_lossy(&publish.payload).into_owned());
        } else {
            self.polls.push(at_ms);
            let operation = publish.topic.split("operationId=").nth(1).unwrap_or("");
            if operation != known.operation {
                self.objections.push(format!("a poll for {operation:?}, not {:?}", known.operation));
            }
        }
        known.asked += 1;
        let Some(enrollment) = self.enrollments.get(&known.registration_id) else { return reactions };
        match respond(known, enrollment, unix_secs) {
            Answer::Send { status, retry_after_secs, body } => {
                let request = if known.fault == DpsFault::WrongRequest { "9999".into() } else { request };
                let retry = retry_after_secs.map_or_else(String::new, |secs| format!("&retry-after={secs}"));
                let topic = format!("$dps/registrations/res/{status}/?$rid={request}{retry}");
                let answer = Packet::Publish(Publish::new(topic, QoS::AtMostOnce, body));
                reactions.push(Reaction::now(connection, Reply::Packet(answer)));
            }
            Answer::Silence => {}
            Answer::Garbage => reactions.push(Reaction::now(connection, Reply::Bytes(vec![0xf0, 0]))),
            Answer::Close => reactions.push(Reaction::now(connection, Reply::Close)),
        }
        reactions
    }
}

pub(super) enum Answer {
    Send { status: u16, retry_after_secs: Option<u32>, body: String },
    Silence,
    Garbage,
    Close,
}

pub(super) fn respond(known: &mut Connection, enrollment: &Enrollment, unix_secs: u64) -> Answer {
    let time = timestamp(unix_secs);
    let refusal = |code: u32| {
        format!("{{\"errorCode\":{code},\"trackingId\":\"8ad0463c\",\"message\":\"No.\",\"timestampUtc\":\"{time}\"}}")
    };
    let send = |status, retry_after_secs, body| Answer::Send { status, retry_after_secs, body };
    if known.token.is_err() {
        return send(401, None, refusal(401_002));
    }
    let working =
        |status: &str, operation: &str| format!("{{\"operationId\":\"{operation}\",\"status\":\"{status}\"}}");
    let device_id =
        if let DpsFault::DeviceId(other) = &known.fault { other.clone() } else { known.registration_id.clone() };
    let assigned = |hub: &str, profile: &str| {
        let updated = timestamp(enrollment.updated_secs);
        format!(
            "{{\"operationId\":\"{}\",\"status\":\"assigned\",\"registrationState\":{{\"registrationId\":\"{}\",\
             \"assignedHub\":\"{hub}\",\"deviceId\":\"{device_id}\",\"status\":\"assigned\",\
             \"substatus\":\"initialAssignment\",\"lastUpdatedDateTimeUtc\":\"{updated}\"{profile}}}}}",
            known.operation, known.registration_id
        )
    };
    let done = || send(200, None, assigned(&enrollment.hub, ""));
    match known.fault.clone() {
        DpsFault::None
        | DpsFault::WrongRequest
        | DpsFault::DeviceId(_)
        | DpsFault::Connack(_)
        | DpsFault::ConnackSilence => done(),
        DpsFault::Assigning { polls, .. } | DpsFault::Unassigned(polls) | DpsFault::OtherOperation(polls)
            if known.asked > polls =>
        {
            done()
        }
        DpsFault::NoPolls { .. } if known.asked == 1 => send(202, Some(3), working("assigning", &known.operation)),
        DpsFault::NoPolls { status, retry_after_secs } => {
            send(status, retry_after_secs, refusal(u32::from(status) * 1000 + 1))
        }
        DpsFault::RefusedPolls { status, retry_after_secs, .. } if known.asked.is_multiple_of(2) => {
            send(status, retry_after_secs, refusal(u32::from(status) * 1000 + 1))
        }
        DpsFault::RefusedPolls { polls, .. } if known.asked > 2 * polls => done(),
        DpsFault::RefusedPolls { .. } => send(202, Some(3), working("assigning", &known.operation)),
        DpsFault::Assigning { retry_after_secs, .. } => {
            send(202, retry_after_secs, working("assigning", &known.operation))
        }
        DpsFault::Unassigned(_) => send(202, None, working("unassigned", &known.operation)),
        DpsFault::OtherOperation(_) => {
            known.operation.push('x');
            send(202, None, working("assigning", &known.operation))
        }
        DpsFault::Status { status, retry_after_secs } => {
            send(status, retry_after_secs, refusal(u32::from(status) * 1000 + 1))
        }
        DpsFault::Refuse { status, code } => send(status, None, refusal(code)),
        DpsFault::Failed(code) => {
            let operation = &known.operation;
            let body = format!(
                "{{\"operationId\":\"{operation}\",\"status\":\"failed\",\"registrationState\":{{\"errorCode\":{code},\
                 \"errorMessage\":\"Allocation failed.\",\"lastUpdatedDateTimeUtc\":\"{time}\"}}}}"
            );
            send(200, None, body)
        }
        DpsFault::Disabled => send(200, None, working("disabled", &known.operation)),
        DpsFault::Silence => Answer::Silence,
        DpsFault::Garbage => Answer::Garbage,
        DpsFault::Hub(hub) => send(200, None, assigned(&hub, "")),
        DpsFault::Profile(profile) => {
            send(200, None, assigned(&enrollment.hub, &format!(",\"connectionProfile\":\"{profile}\"")))
        }
        DpsFault::Body(body) => send(200, None, body),
        DpsFault::Close => Answer::Close,
    }
}

/// Writes a time as the service does.
fn timestamp(unix_secs: u64) -> String {
    let (days, rest) = (unix_secs / 86_400, unix_secs % 86_400);
    // Days to a civil date, with years that begin in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.4718526Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_core_reads_them() {
        for secs in [0, 951_782_399, 951_782_400, 1_709_164_800, 1_780_000_000, 4_102_444_799] {
            assert_eq!(steadfast_core::azure::timestamp::unix_secs(&timestamp(secs)), Some(secs));
        }
    }
}
