//! One session at DPS: registering and polling.

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish, SubAck, SubscribeReasonCode, UnsubAck};
use serde_json::{Value, json};

use crate::SPAN_MAX;
use crate::config::{DeviceAuth, DpsRefusal, Reprovision};
use crate::connections::{CloseReason, Refusal};
use crate::device::Device;
use crate::dps::{Assignment, Dps, Registration, error_body, error_of, timestamp};
use crate::fault::{DpsFault, Fault};
use crate::session::{Flow, Later, Now, Out, protocol, to_bytes};
use crate::topic::DpsTopic;
use crate::twin::Twin;
use crate::world::World;

/// A device connected to DPS.
#[derive(Debug)]
pub(crate) struct DpsSession {
    pub(crate) registration_id: String,
    /// The enrollment and the credentials of the device on a hub, or the reason for refusing it.
    pub(crate) verified: Result<(usize, DeviceAuth), Refusal>,
    pub(crate) subscribed: bool,
    /// Unix seconds.
    pub(crate) unix: u64,
}

/// A response: status, `retry-after`, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Value,
}

impl DpsSession {
    pub(crate) fn packet(&mut self, world: &mut World, packet: &Packet, out: &mut Out, now: Now) -> Flow {
        if world.dps.down {
            return Flow::Close(CloseReason::HubDown);
        }
        match packet {
            Packet::Publish(publish) => self.publish(world, publish, out, now),
            Packet::Subscribe(subscribe) => {
                let host = world.dps.config.host.clone();
                let refuse = |fault: &Fault| (*fault == Fault::RefuseSubscribe).then_some(());
                let refused = world.faults.strike(&host, &self.registration_id, refuse).is_some();
                let mut codes = Vec::new();
                for filter in &subscribe.filters {
                    if filter.path != DpsTopic::FILTER {
                        return protocol("undocumented filter");
                    }
                    self.subscribed = !refused;
                    let granted = if filter.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                    let success = SubscribeReasonCode::Success(granted);
                    codes.push(if refused { SubscribeReasonCode::Failure } else { success });
                }
                out.packet(&Packet::SubAck(SubAck::new(subscribe.pkid, codes)));
                Flow::Go
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.subscribed = false;
                out.packet(&Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid)));
                Flow::Go
            }
            Packet::PingReq => {
                out.packet(&Packet::PingResp);
                Flow::Go
            }
            Packet::PubAck(_) => Flow::Go,
            Packet::Disconnect => Flow::Close(CloseReason::Disconnected),
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => protocol("unexpected packet type"),
        }
    }

    fn publish(&self, world: &mut World, publish: &Publish, out: &mut Out, now: Now) -> Flow {
        if publish.qos == QoS::ExactlyOnce {
            return protocol("QoS 2 publish");
        }
        if publish.payload.len() > 96 * 1024 {
            return protocol("message too large");
        }
        let Some(topic) = DpsTopic::parse(&publish.topic) else {
            return protocol("publish to an undocumented topic");
        };
        if publish.qos == QoS::AtLeastOnce {
            out.puback(publish.pkid);
        }
        let dps = &mut world.dps;
        let id = &self.registration_id;
        let host = dps.config.host.clone();
        let fault = dps.faults.strike(&host, id, |fault| is_of_requests(fault).then(|| fault.clone()));
        let (request, answer) = match topic {
            DpsTopic::Register { request } => (request, self.register(dps, &publish.payload, fault.as_ref(), now)),
            DpsTopic::Poll { request, operation } => {
                (request, refusal_of(fault.as_ref(), self.unix).unwrap_or_else(|| self.poll(world, operation, now)))
            }
        };
        if fault == Some(DpsFault::Silent) || !self.subscribed {
            return Flow::Go;
        }
        let request = if fault == Some(DpsFault::WrongRequestId) { "0-another-request" } else { request };
        let retry_after = answer.retry_after.map(|seconds| format!("&retry-after={seconds}")).unwrap_or_default();
        let topic = format!("$dps/registrations/res/{}/?$rid={request}{retry_after}", answer.status);
        let payload = match &fault {
            Some(DpsFault::GarbageBody) => Bytes::from_static(b"<\x00\xff{\"operationId\":"),
            Some(DpsFault::Body { text }) => text.clone().into_bytes().into(),
            _ => to_bytes(&answer.body),
        };
        if let Some(DpsFault::Slow { delay }) = fault {
            out.later(now.instant + delay.min(SPAN_MAX), Later::Publish { topic, payload });
        } else {
            out.publish(&topic, payload);
        }
        Flow::Go
    }

    /// Sends this response to a registration.
    pub(crate) fn register(&self, dps: &mut Dps, body: &[u8], fault: Option<&DpsFault>, now: Now) -> Answer {
        let id = &self.registration_id;
        let body: Option<Value> = match body.trim_ascii() {
            b"" => Some(json!({})),
            body => serde_json::from_slice(body).ok(),
        };
        let payload = body.as_ref().and_then(|body| body.get("payload")).filter(|payload| !payload.is_null());
        let sane = body.as_ref().is_some_and(|body| {
            let named = body
                .get("registrationId")
                .filter(|named| !named.is_null())
                .is_none_or(|named| named.as_str().is_some_and(|named| named.eq_ignore_ascii_case(id)));
            body.is_object() && named && payload.is_none_or(Value::is_object)
        });
        let answer = if let Some(answer) = refusal_of(fault, self.unix) {
            answer
        } else if let Some(seconds) = dps.too_many_registers(now.since) {
            Answer { retry_after: Some(seconds), ..self.error(429) }
        } else {
            match &self.verified {
                _ if !sane => self.error(400),
                Err(Refusal::Unknown) => self.error(404),
                Err(_) => self.error(401),
                Ok(_) => self.assigning(&dps.begin(id), dps.config.retry_after),
            }
        };
        let silent = fault == Some(&DpsFault::Silent) || !self.subscribed;
        dps.log.push(Registration {
            at: now.since,
            registration_id: id.clone(),
            payload: payload.cloned(),
            status: (!silent).then_some(answer.status),
        });
        answer
    }

    /// Responds to a poll of a registration state.
    pub(crate) fn poll(&self, world: &mut World, operation: Option<&str>, now: Now) -> Answer {
        let dps = &mut world.dps;
        let id = &self.registration_id;
        if dps.too_many_polls(id, now.since) {
            return Answer { retry_after: Some(10), ..self.error(429) };
        }
        let host = dps.config.host.clone();
        let keep = |fault: &DpsFault| (*fault == DpsFault::KeepAssigning).then_some(());
        let keeps = dps.faults.strike(&host, id, keep).is_some();
        let retry_after = dps.config.retry_after;
        let found = operation.and_then(|operation| dps.operations.get_mut(operation).map(|found| (operation, found)));
        let Some((operation, found)) = found.filter(|(_, found)| found.registration_id == *id) else {
            return self.error(404);
        };
        if keeps || found.polls_left > 0 {
            found.polls_left = found.polls_left.saturating_sub(u32::from(!keeps));
            let mut answer = self.assigning(operation, retry_after);
            answer.body["registrationState"] = json!({ "registrationId": id, "status": "assigning" });
            return answer;
        }
        if let Some(body) = &found.ended {
            return Answer { status: 200, retry_after: None, body: body.clone() };
        }
        let operation = operation.to_owned();
        let answer = self.finish(world, &operation);
        if answer.status == 200
            && let Some(ended) = world.dps.operations.get_mut(&operation)
        {
            ended.ended = Some(answer.body.clone());
        }
        answer
    }

    fn finish(&self, world: &mut World, operation: &str) -> Answer {
        let dps = &mut world.dps;
        let host = dps.config.host.clone();
        let fault = dps.faults.strike(&host, &self.registration_id, |fault| is_of_end(fault).then(|| fault.clone()));
        let Ok((enrollment_at, auth)) = &self.verified else { return self.error(401) };
        let Some(enrollment) = dps.enrollments.get(*enrollment_at) else { return self.error(404) };
        let enabled = enrollment.enabled;
        match &fault {
            Some(DpsFault::Failed { code }) => return self.ended(operation, "failed", Some(*code)),
            Some(DpsFault::Unassigned) => return self.ended(operation, "unassigned", None),
            Some(DpsFault::Disabled) => return self.ended(operation, "disabled", None),
            _ if !enabled => return self.ended(operation, "disabled", None),
            _ => {}
        }
        let answer_payload = enrollment.payload.clone();
        let connection_profile = enrollment.connection_profile.clone();
        let Some((assignment, substatus)) = assign(world, *enrollment_at, auth, &self.registration_id, self.unix)
        else {
            return self.ended(operation, "failed", Some(400_208));
        };
        let mut state = json!({
            "registrationId": self.registration_id,
            "createdDateTimeUtc": timestamp(assignment.created),
            "assignedHub": assignment.hub,
            "deviceId": assignment.device,
            "status": "assigned",
            "substatus": substatus,
            "lastUpdatedDateTimeUtc": timestamp(self.unix),
            "etag": format!("\"{:08x}\"", self.unix),
        });
        match fault {
            Some(DpsFault::NoAssignedHub) => {
                state.as_object_mut().expect("made above").remove("assignedHub");
            }
            Some(DpsFault::AssignedHub { name }) => state["assignedHub"] = json!(name),
            Some(DpsFault::DeviceId { id }) => state["deviceId"] = json!(id),
            _ => {}
        }
        if let Some(payload) = answer_payload {
            state["payload"] = payload;
        }
        if let Some(profile) = connection_profile {
            state["connectionProfile"] = json!(profile);
        }
        let body = json!({ "operationId": operation, "status": "assigned", "registrationState": state });
        Answer { status: 200, retry_after: None, body }
    }

    fn assigning(&self, operation: &str, retry_after: u32) -> Answer {
        let retry_after = (retry_after > 0).then_some(u64::from(retry_after));
        Answer { status: 202, retry_after, body: json!({ "operationId": operation, "status": "assigning" }) }
    }

    fn ended(&self, operation: &str, status: &str, code: Option<u32>) -> Answer {
        let mut state = json!({
            "registrationId": self.registration_id,
            "status": status,
            "lastUpdatedDateTimeUtc": timestamp(self.unix),
        });
        if let Some(code) = code {
            state["errorCode"] = json!(code);
            state["errorMessage"] = json!("The device could not be assigned to a hub.");
        }
        let body = json!({ "operationId": operation, "status": status, "registrationState": state });
        Answer { status: 200, retry_after: None, body }
    }

    fn error(&self, status: u16) -> Answer {
        error_answer(status, self.unix)
    }
}

pub(crate) fn error_answer(status: u16, unix: u64) -> Answer {
    let (code, message) = error_of(status);
    Answer { status, retry_after: None, body: error_body(code, message, unix) }
}

pub(crate) fn refusal_of(fault: Option<&DpsFault>, unix: u64) -> Option<Answer> {
    if let DpsFault::Throttled { retry_after } = fault? {
        return Some(Answer { retry_after: retry_after.map(u64::from), ..error_answer(429, unix) });
    }
    if let DpsFault::Status { status } = fault? {
        return Some(error_answer(*status, unix));
    }
    None
}

pub(crate) fn is_of_requests(fault: &DpsFault) -> bool {
    matches!(
        fault,
        DpsFault::Throttled { .. }
            | DpsFault::Status { .. }
            | DpsFault::Silent
            | DpsFault::Slow { .. }
            | DpsFault::GarbageBody
            | DpsFault::Body { .. }
            | DpsFault::WrongRequestId
    )
}

fn is_of_end(fault: &DpsFault) -> bool {
    !is_of_requests(fault) && *fault != DpsFault::KeepAssigning
}

/// Creates the identity on its hub; none when the enrollment names an unknown hub.
fn assign(
    world: &mut World,
    enrollment: usize,
    auth: &DeviceAuth,
    registration_id: &str,
    unix: u64,
) -> Option<(Assignment, &'static str)> {
    let first_hub = world.first_hub.clone();
    let dps = &mut world.dps;
    let enrollment = dps.enrollments.get(enrollment)?.clone();
    let previous = dps.assignments.get(registration_id).cloned();
    let device = enrollment.device_id.clone().filter(|_| !enrollment.group);
    let device = device.unwrap_or_else(|| registration_id.to_owned());
    let stays = dps.config.policy == Reprovision::Never;
    let hub = match &previous {
        Some(previous) if stays => previous.hub.clone(),
        _ => dps.overrides.get(&device).or(enrollment.hub.as_ref()).or(first_hub.as_ref())?.clone(),
    };
    if !world.hubs.contains_key(&hub) {
        return None;
    }
    let migrates = world.dps.config.policy == Reprovision::MigrateData;
    let moved_from = previous.as_ref().filter(|previous| previous.hub != hub || previous.device != device);
    let mut twin = world.dps.luggage.remove(&device).filter(|_| migrates);
    if let Some(from) = moved_from
        && let Some(old_hub) = world.hubs.get_mut(&from.hub)
        && let Some(mut old) = old_hub.devices.remove(&from.device)
    {
        old.cut(CloseReason::IdentityChanged);
        twin = migrates.then_some(old.twin).or(twin);
    }
    let moved = moved_from.is_some();
    let identity = world.hubs.get_mut(&hub)?.devices.entry(device.clone()).or_insert_with(|| {
        let mut identity = Device::new(auth.clone());
        identity.twin = twin.unwrap_or_else(|| Twin::with_desired(enrollment.initial_desired.as_ref()));
        identity
    });
    identity.auth = auth.clone();
    let created = previous.map_or(unix, |previous| previous.created);
    let assignment = Assignment { hub, device, created };
    world.dps.assignments.insert(registration_id.to_owned(), assignment.clone());
    let substatus = match (moved, migrates) {
        (false, _) => "initialAssignment",
        (true, true) => "deviceDataMigrated",
        (true, false) => "deviceDataReset",
    };
    Some((assignment, substatus))
}

/// Returns whether a CONNECT with bad credentials is refused at CONNACK.
pub(crate) fn refuses_connect(dps: &Dps, refusal: Refusal) -> bool {
    match refusal {
        Refusal::WrongIdScope | Refusal::NoApiVersion | Refusal::ClientId => true,
        Refusal::Unknown => false,
        Refusal::ProtocolLevel
        | Refusal::UserName
        | Refusal::WrongHub
        | Refusal::Disabled
        | Refusal::NoToken
        | Refusal::WrongResource
        | Refusal::BadSignature
        | Refusal::Expired
        | Refusal::BadCertificate
        | Refusal::Fault => dps.config.refusal == DpsRefusal::Connect,
    }
}
