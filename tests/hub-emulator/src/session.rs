//! One session at a hub: handles each packet of a connected device.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    LastWill, Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, Unsubscribe,
};
use tokio::time::Instant;

use crate::admission::Admission;
use crate::config::Undocumented;
use crate::connections::CloseReason;
use crate::control::MethodAnswer;
use crate::device::{Device, Subscription};
use crate::fault::Fault;
use crate::methods::MAX_METHOD_PAYLOAD;
use crate::operations::Operation;
use crate::telemetry::after_store;
use crate::topic::{DeviceTopic, Feed};
use crate::world::World;

/// The next step of a connection after a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Go,
    /// Handles the same packet again after this time; nothing is read until then.
    Wait(Duration),
    Close(CloseReason),
}

/// The current time on both scales.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Since the emulator started.
    pub(crate) since: Duration,
}

/// Bytes to send, now or later.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) bytes: BytesMut,
    later: BTreeMap<(Instant, u64), Later>,
    count: u64,
}

/// A scheduled action.
#[derive(Debug)]
pub(crate) enum Later {
    Publish { topic: String, payload: Bytes },
    Acknowledge(Ack),
    Close,
}

/// A PUBACK and the receipt it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) packet_id: u16,
    pub(crate) order: u64,
}

impl Out {
    pub(crate) fn packet(&mut self, packet: &Packet) {
        packet.write(&mut self.bytes, usize::MAX).expect("the emulator writes only packets the codec takes");
    }

    pub(crate) fn puback(&mut self, packet_id: u16) {
        self.packet(&Packet::PubAck(PubAck::new(packet_id)));
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: Bytes) {
        self.packet(&Packet::Publish(Publish::from_bytes(topic, QoS::AtMostOnce, payload)));
    }

    pub(crate) fn later(&mut self, at: Instant, what: Later) {
        self.count += 1;
        self.later.insert((at, self.count), what);
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Later> {
        let due = self.next_due().is_some_and(|at| at <= now);
        due.then(|| self.later.pop_first())?.map(|(_, later)| later)
    }
}

/// A device connected to a hub.
#[derive(Debug)]
pub(crate) struct HubSession {
    pub(crate) host: String,
    pub(crate) identity: String,
    pub(crate) connection: u64,
    pub(crate) clean_session: bool,
    pub(crate) will: Option<LastWill>,
    /// The session no longer sends or stores anything.
    pub(crate) half_open: bool,
    /// PUBACKs that a fault holds back.
    pub(crate) held: Vec<Ack>,
}

impl HubSession {
    /// Handles one packet. `waited` is true when the packet was delayed before.
    pub(crate) fn packet(&mut self, world: &mut World, packet: &Packet, waited: bool, out: &mut Out, now: Now) -> Flow {
        if self.half_open {
            return Flow::Go;
        }
        let live = world.device(&self.host, &self.identity).ok().and_then(|device| device.live.as_ref());
        if live.is_none_or(|live| live.connection != self.connection) {
            return Flow::Close(CloseReason::IdentityChanged);
        }
        match packet {
            Packet::Publish(publish) => self.publish(world, publish, waited, out, now),
            Packet::PubAck(ack) => self.complete(world, ack.pkid, now.since),
            Packet::Subscribe(subscribe) => self.subscribe(world, subscribe, out, now),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(world, unsubscribe, out),
            Packet::PingReq => {
                let silent = |fault: &Fault| (*fault == Fault::SilentPing).then_some(());
                if world.faults.strike(&self.host, &self.identity, silent).is_none() {
                    out.packet(&Packet::PingResp);
                }
                Flow::Go
            }
            Packet::Disconnect => {
                self.will = None;
                Flow::Close(CloseReason::Disconnected)
            }
            Packet::Connect(_) => protocol("second CONNECT [3.1.0-2]"),
            Packet::ConnAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => protocol("packet type of a server or of QoS 2"),
        }
    }

    /// Sends the held-back PUBACKs, unless the fault is still active.
    pub(crate) fn release(&mut self, world: &mut World, out: &mut Out, now: Duration) {
        let withheld = |fault: &Fault| *fault == Fault::WithholdPubacks;
        if self.half_open || world.faults.stands(&self.host, &self.identity, withheld) {
            return;
        }
        for ack in std::mem::take(&mut self.held) {
            self.acknowledge(world, ack, out, now);
        }
    }

    pub(crate) fn acknowledge(&self, world: &mut World, ack: Ack, out: &mut Out, now: Duration) {
        out.puback(ack.packet_id);
        world.entries.acknowledge(&self.identity, ack.order, now);
    }

    fn device<'w>(&self, world: &'w mut World) -> &'w mut Device {
        world.device(&self.host, &self.identity).expect("checked at the start of each packet")
    }

    fn publish(&mut self, world: &mut World, publish: &Publish, waited: bool, out: &mut Out, now: Now) -> Flow {
        if publish.qos == QoS::ExactlyOnce {
            return protocol("QoS 2 publish");
        }
        let Some(topic) = DeviceTopic::parse(&publish.topic, &self.identity) else {
            let hub = world.hubs.get(&self.host).expect("the hub of a session");
            if hub.config.undocumented == Undocumented::Close {
                return protocol("publish to an undocumented topic");
            }
            acknowledge_request(publish, out);
            return Flow::Go;
        };
        if let DeviceTopic::Telemetry { bag } = topic {
            let unix = world.clock.unix();
            let hub = world.hubs.get_mut(&self.host).expect("the hub of a session");
            if hub.quota.is_exhausted(unix) {
                return Flow::Close(CloseReason::QuotaExceeded);
            }
            if !waited && let Some(bucket) = &mut hub.telemetry {
                match bucket.take(now.since) {
                    Admission::Refused => return Flow::Close(CloseReason::Throttled),
                    Admission::After(wait) if !wait.is_zero() => return Flow::Wait(wait),
                    Admission::After(_) => {}
                }
            }
            return self.telemetry(world, publish, bag, out, now);
        }
        acknowledge_request(publish, out);
        match topic {
            DeviceTopic::TwinGet { request } => self.twin(world, request, None, out, now),
            DeviceTopic::TwinPatch { request, version } => {
                self.twin(world, request, Some((&publish.payload, version)), out, now);
            }
            DeviceTopic::MethodAnswer { status, request } => {
                if publish.payload.len() > MAX_METHOD_PAYLOAD {
                    return protocol("method response too large");
                }
                let answer = MethodAnswer { status, payload: publish.payload.to_vec() };
                let caller = self.device(world).calls.remove(request);
                let in_time = caller.is_some_and(|caller| caller.send(answer).is_ok());
                let request = request.to_owned();
                let operation = if in_time {
                    Operation::MethodAnswered { request, status }
                } else {
                    Operation::MethodAnsweredLate { request, status }
                };
                world.note(&self.host, &self.identity, operation, now.since);
            }
            DeviceTopic::IssueCertificate { request } => {
                if self.device(world).subscribed(Feed::Credentials).is_some() {
                    let body = crate::dps::error_body(403_010, "Not available at this hub.", 0);
                    out.publish(&format!("$iothub/credentials/res/403/?$rid={request}"), to_bytes(&body));
                }
            }
            DeviceTopic::Telemetry { .. } => {}
        }
        Flow::Go
    }

    fn twin(&self, world: &mut World, request: &str, patch: Option<(&Bytes, Option<u64>)>, out: &mut Out, now: Now) {
        let fault = world.faults.strike(&self.host, &self.identity, TwinFault::of);
        let hub = world.hubs.get_mut(&self.host).expect("the hub of a session");
        let admission = hub.twin.as_mut().map_or(Admission::After(Duration::ZERO), |bucket| bucket.take(now.since));
        let device = self.device(world);
        let mut hint = String::new();
        let (status, version, body) = match (&fault, admission) {
            (Some(TwinFault::Silent), _) => (0, None, Bytes::new()),
            (Some(TwinFault::Status(status)), _) => (*status, None, Bytes::new()),
            (Some(TwinFault::Throttled(seconds)), _) => {
                hint = seconds.map(|seconds| format!("&retry-after={seconds}")).unwrap_or_default();
                (429, None, Bytes::new())
            }
            (None, Admission::Refused) => (429, None, Bytes::new()),
            (None, _) if device.effects.throttled_until > now.since => (429, None, Bytes::new()),
            (None, Admission::After(_)) => match patch {
                None => (200, None, to_bytes(&device.twin.document())),
                Some((patch, version)) => match device.twin.report_into(version, patch) {
                    Ok(version) => (204, Some(version), Bytes::new()),
                    Err(status) => (status, None, Bytes::new()),
                },
            },
        };
        let told_version = version.map(|version| format!("&$version={version}")).unwrap_or_default();
        let topic = format!("$iothub/twin/res/{status}/?$rid={request}{told_version}{hint}");
        let answers = fault != Some(TwinFault::Silent) && device.takes(Feed::TwinAnswers, &topic);
        let reported = answers.then_some(status);
        let operation = match patch {
            None => Operation::TwinRead { status: reported },
            Some(_) => Operation::TwinReported { status: reported, version },
        };
        world.note(&self.host, &self.identity, operation, now.since);
        if !answers {
            return;
        }
        match admission {
            Admission::After(wait) if !wait.is_zero() => {
                out.later(now.instant + wait, Later::Publish { topic, payload: body });
            }
            Admission::After(_) | Admission::Refused => out.publish(&topic, body),
        }
    }

    fn complete(&self, world: &mut World, packet_id: u16, now: Duration) -> Flow {
        let connection = self.connection;
        let complete = |device: &mut Device, notes: &mut Vec<Operation>| {
            device.inbox.expire(now, notes);
            device.inbox.complete(packet_id, connection, notes);
        };
        world.with_device(&self.host, &self.identity, now, complete).expect("checked at the start of each packet");
        Flow::Go
    }

    fn subscribe(&self, world: &mut World, subscribe: &Subscribe, out: &mut Out, now: Now) -> Flow {
        let refuse = |fault: &Fault| (*fault == Fault::RefuseSubscribe).then_some(());
        let refused = world.faults.strike(&self.host, &self.identity, refuse).is_some();
        let config = &world.hubs.get(&self.host).expect("the hub of a session").config;
        let (undocumented, limit) = (config.undocumented, config.max_filters);
        let device = self.device(world);
        let mut codes = Vec::new();
        for filter in &subscribe.filters {
            let feeds = Feed::of(&filter.path, &self.identity);
            let known = device.subscriptions.iter().position(|subscription| subscription.filter == filter.path);
            let too_many = known.is_none() && device.subscriptions.len() >= limit;
            if refused || feeds.is_none() || too_many {
                if !refused && undocumented == Undocumented::Close {
                    return protocol(if too_many { "too many filters" } else { "undocumented filter" });
                }
                codes.push(SubscribeReasonCode::Failure);
                continue;
            }
            let qos = if filter.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            codes.push(SubscribeReasonCode::Success(qos));
            let subscription =
                Subscription { filter: filter.path.clone(), feeds: feeds.unwrap_or_default(), qos: qos as u8 };
            match known {
                Some(at) => device.subscriptions[at] = subscription,
                None => device.subscriptions.push(subscription),
            }
        }
        out.packet(&Packet::SubAck(SubAck::new(subscribe.pkid, codes)));
        world.pump(&self.host, &self.identity, now.since);
        Flow::Go
    }

    fn unsubscribe(&self, world: &mut World, unsubscribe: &Unsubscribe, out: &mut Out) -> Flow {
        let device = self.device(world);
        device.subscriptions.retain(|subscription| !unsubscribe.topics.contains(&subscription.filter));
        out.packet(&Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid)));
        Flow::Go
    }

    fn telemetry(&mut self, world: &mut World, publish: &Publish, bag: &str, out: &mut Out, now: Now) -> Flow {
        let Ok(stored) = crate::telemetry::store(self, world, publish, bag, now) else {
            return protocol("message too large");
        };
        after_store(self, world, stored, out, now)
    }
}

/// The effect of a fault on a twin request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TwinFault {
    Silent,
    Status(u16),
    Throttled(Option<u32>),
}

impl TwinFault {
    fn of(fault: &Fault) -> Option<Self> {
        if let Fault::TwinStatus { status } = fault {
            return Some(Self::Status(*status));
        }
        if let Fault::TwinThrottled { retry_after } = fault {
            return Some(Self::Throttled(*retry_after));
        }
        (*fault == Fault::TwinSilent).then_some(Self::Silent)
    }
}

fn acknowledge_request(publish: &Publish, out: &mut Out) {
    if publish.qos == QoS::AtLeastOnce {
        out.puback(publish.pkid);
    }
}

pub(crate) fn protocol(what: &str) -> Flow {
    Flow::Close(CloseReason::Protocol(what.to_owned()))
}

pub(crate) fn to_bytes(value: &serde_json::Value) -> Bytes {
    value.to_string().into_bytes().into()
}
