//! Telemetry: stores a message in the ledger, then sends its PUBACK, and applies faults on the way.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Publish;

use crate::SPAN_MAX;
use crate::connections::CloseReason;
use crate::fault::Fault;
use crate::ledger::Entry;
use crate::session::{Ack, Flow, HubSession, Later, Now, Out};
use crate::topic::decode_bag;
use crate::world::World;

/// A message that exceeds the hub's limit.
pub(crate) struct TooLarge;

/// The outcome of a message.
pub(crate) enum Stored {
    /// A fault dropped it.
    Vanished,
    Kept {
        ack: Option<Ack>,
        order: FaultOrder,
    },
}

/// A fault requested by the message's own properties, with the names of the C# SDK's tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultOrder {
    kind: Option<OrderedFault>,
    delay: Duration,
    duration: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OrderedFault {
    Disconnect,
    Throttle,
    Quota,
    RefuseCredentials,
}

impl FaultOrder {
    fn read(properties: &[(String, String)]) -> Self {
        let property = |name: &str| properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let kind = match property("AzIoTHub_FaultOperationType") {
            Some("KillTcp" | "ShutDownMqtt") => Some(OrderedFault::Disconnect),
            Some("InvokeThrottling") => Some(OrderedFault::Throttle),
            Some("InvokeMaxMessageQuota") => Some(OrderedFault::Quota),
            Some("InvokeAuthError") => Some(OrderedFault::RefuseCredentials),
            _ => return Self::default(),
        };
        let seconds = |name| {
            let seconds = property(name).and_then(|value| value.parse::<u32>().ok()).unwrap_or(0);
            Duration::from_secs(u64::from(seconds.min(3600)))
        };
        let delay = seconds("AzIoTHub_FaultOperationDelayInSecs");
        Self { kind, delay, duration: seconds("AzIoTHub_FaultOperationDurationInSecs") }
    }
}

/// Records a message in the ledger.
pub(crate) fn store(
    session: &HubSession,
    world: &mut World,
    publish: &Publish,
    bag: &str,
    now: Now,
) -> Result<Stored, TooLarge> {
    let mut properties = decode_bag(bag);
    let hub = world.hubs.get_mut(&session.host).expect("the hub of a session");
    let names_and_values =
        |(key, value): &(String, String)| value.len() + if key.starts_with("$.") { 0 } else { key.len() };
    if publish.payload.len() + properties.iter().map(names_and_values).sum::<usize>() > hub.config.max_message {
        return Err(TooLarge);
    }
    if publish.retain {
        properties.push(("mqtt-retain".to_owned(), "true".to_owned()));
    }
    let mut order = FaultOrder::read(&properties);
    if order.kind.is_some() {
        let id = properties.iter().find(|(key, _)| key == "$.mid").map_or("", |(_, id)| id).to_owned();
        let device = hub.devices.get_mut(&session.identity).expect("the device of a session");
        if !device.applied_faults.insert(id) {
            order = FaultOrder::default();
        }
    }
    let before_store = |fault: &Fault| (*fault == Fault::DropBeforeStore).then_some(());
    let vanishes = world.faults.strike(&session.host, &session.identity, before_store).is_some();
    let entry = Entry {
        hub: &session.host,
        device: &session.identity,
        connection: session.connection,
        packet_id: publish.pkid,
        dup: publish.dup,
        qos: publish.qos as u8,
        topic: &publish.topic,
        properties,
        payload: &publish.payload,
        stored: !vanishes,
    };
    let outputs = if vanishes { None } else { entry.output() };
    let place = world.entries.enter(entry, now.since);
    if vanishes {
        return Ok(Stored::Vanished);
    }
    let unix = world.clock.unix();
    if let Some(hub) = world.hubs.get_mut(&session.host) {
        hub.quota.count(publish.payload.len(), unix);
    }
    if let Some((output, bag)) = outputs {
        crate::cloud::route(world, session, &output, &bag, &publish.payload, now.since);
    }
    let ack = (publish.qos == QoS::AtLeastOnce).then_some(Ack { packet_id: publish.pkid, order: place });
    Ok(Stored::Kept { ack, order })
}

/// Acknowledges a message, or applies a fault instead.
pub(crate) fn after_store(
    session: &mut HubSession,
    world: &mut World,
    stored: Stored,
    out: &mut Out,
    now: Now,
) -> Flow {
    let Stored::Kept { ack, order } = stored else { return Flow::Close(CloseReason::Fault) };
    let mut strike = |pick: fn(&Fault) -> bool| {
        world.faults.strike(&session.host, &session.identity, |fault| pick(fault).then_some(())).is_some()
    };
    if strike(|fault| *fault == Fault::DropAfterStoreBeforePuback) {
        return Flow::Close(CloseReason::Fault);
    }
    let closes = strike(|fault| *fault == Fault::DropAfterPuback);
    let stray = strike(|fault| *fault == Fault::StrayPubacks);
    let repeated = strike(|fault| *fault == Fault::RepeatPubacks);
    let withheld = strike(|fault| *fault == Fault::WithholdPubacks);
    let delay = world.faults.strike(&session.host, &session.identity, |fault| {
        if let Fault::DelayPubacks { delay } = fault { Some(*delay) } else { None }
    });
    if let Flow::Close(reason) = apply_fault_properties(session, world, &order, out, now) {
        return Flow::Close(reason);
    }
    let throttled_until =
        world.device(&session.host, &session.identity).map_or(Duration::ZERO, |device| device.effects.throttled_until);
    if let Some(ack) = ack {
        if stray {
            out.puback(ack.packet_id.wrapping_add(0x4000).max(1));
        }
        if withheld {
            session.held.push(ack);
        } else if throttled_until > now.since {
            out.later(now.instant + (throttled_until - now.since).min(SPAN_MAX), Later::Acknowledge(ack));
        } else if let Some(delay) = delay {
            out.later(now.instant + delay.min(SPAN_MAX), Later::Acknowledge(ack));
        } else {
            session.acknowledge(world, ack, out, now.since);
            if repeated {
                out.puback(ack.packet_id);
            }
        }
    }
    if closes { Flow::Close(CloseReason::Fault) } else { Flow::Go }
}

fn apply_fault_properties(
    session: &HubSession,
    world: &mut World,
    order: &FaultOrder,
    out: &mut Out,
    now: Now,
) -> Flow {
    let Some(kind) = order.kind else { return Flow::Go };
    let Ok(device) = world.device(&session.host, &session.identity) else { return Flow::Go };
    let delay = order.delay.min(SPAN_MAX);
    let until = now.since.saturating_add(delay).saturating_add(order.duration);
    match kind {
        OrderedFault::Disconnect => {
            device.effects.unreachable_until = until;
            if delay.is_zero() {
                return Flow::Close(CloseReason::Fault);
            }
            out.later(now.instant + delay, Later::Close);
        }
        OrderedFault::Throttle | OrderedFault::Quota => device.effects.throttled_until = until,
        OrderedFault::RefuseCredentials => device.effects.refused_until = until,
    }
    Flow::Go
}
