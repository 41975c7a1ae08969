//! A device of the fleet that runs the real link.

use crate::client::{Answer, Ask, Client, End, Request};
use crate::dice::Dice;
use crate::service::RETRY_AFTER_SECS;
use core::time::Duration;
use steadfast_core::mqtt::{Incoming, Packet, PacketId, Received};
use steadfast_core::{
    Action, Assignment, Config, Entry, Event, Failure, Input, Instant, IotHub, Link, MessageId, Outbox, OutboxError,
    Outcome, Output, Profile, Provisioned, Seed, ServiceKind, Usage,
};

/// The settings all devices of a fleet share.
pub(crate) type Shared<'c> = &'c Config<&'static str>;

/// A link and its state in the simulated network.
#[derive(Clone, Debug)]
pub(crate) struct Ours<P> {
    link: Link<Nothing, P>,
    /// Number of the latest request to the provisioning service.
    request: u32,
}

/// Hub names by number.
const HUBS: [&str; 2] = ["west.azure-devices.net", "east.azure-devices.net"];

/// Reason for the expect: the configuration is valid.
const CHECKED: &str = "the configurations of the simulator are checked by its tests";

impl<'c> Ours<IotHub<Shared<'c>>> {
    /// Makes an idle device with a configured hub.
    pub(crate) fn direct(config: Shared<'c>, dice: &mut Dice) -> Self {
        let link = Link::new(IotHub::new(config), Nothing, Seed::new(dice.bytes()), Instant::ORIGIN);
        Self { link: link.expect(CHECKED), request: 0 }
    }

    /// Bytes a device takes.
    pub(crate) const fn size() -> usize {
        size_of::<Self>()
    }
}

impl<'c> Ours<Provisioned<Shared<'c>>> {
    /// Makes an idle device that was assigned to the first hub.
    pub(crate) fn provisioned(config: Shared<'c>, dice: &mut Dice) -> Self {
        let link = Link::new(Provisioned::new(config), Nothing, Seed::new(dice.bytes()), Instant::ORIGIN);
        let mut device = Self { link: link.expect(CHECKED), request: 0 };
        device.link.restore_assignment(Assignment::new(HUBS[0], "device").expect(CHECKED));
        device
    }
}

impl<P: Profile> Ours<P> {
    /// Brings the device up, so that it has been connected for more than [`steadfast_core::RetryPolicy::reset_after`]
    /// at `now`, sets the hint, and starts the planned move.
    pub(crate) fn settled(
        mut self,
        now: u32,
        hint: Option<Duration>,
        planned: Option<Duration>,
        dice: &mut Dice,
    ) -> Self {
        self.link.start(Instant::ORIGIN);
        let mut ask = self.drain(0);
        while let Some(at) = ask.deadline.filter(|at| *at <= now) {
            ask = self.wake(at, dice);
            if ask.connect.is_some() {
                self.ready(at);
                ask = self.accept(at, dice);
            }
        }
        if let Some(spread) = hint {
            self.link.set_spread(spread, at(now));
        }
        if let Some(spread) = planned {
            self.link.move_within(spread, ServiceKind::Provisioning, at(now));
        }
        self
    }

    fn input(&mut self, input: Input<'_>, now: u32) {
        let attempt = self.link.attempt();
        self.link.handle_input(input, attempt, at(now));
    }

    /// Executes actions that take no time, and collects the others.
    fn drain(&mut self, now: u32) -> Ask {
        let mut ask = Ask::default();
        let mut subscribed: Option<PacketId> = None;
        loop {
            match self.link.poll_output() {
                Output::Action(Action::Connect { endpoint, .. }) => ask.connect = Some(endpoint.role),
                Output::Action(Action::Send { packet: Packet::Subscribe(subscribe), .. }) => {
                    subscribed = Some(subscribe.packet_id);
                }
                Output::Action(Action::Send { packet: Packet::PublishText(request), .. }) => {
                    let topic = request.message.topic().to_string();
                    let kind = if topic.contains("iotdps-register") { Request::Register } else { Request::Poll };
                    let number = topic.split("$rid=").nth(1).unwrap_or_default();
                    let digits = number.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(number.len());
                    self.request = number[..digits].parse().unwrap_or_default();
                    ask.request = Some(kind);
                }
                Output::Event(Event::Up { .. }) => ask.up = true,
                Output::Event(Event::Down(_)) => ask.down = true,
                Output::Wait(deadline) => {
                    let Some(packet_id) = subscribed.take() else {
                        ask.deadline = deadline.map(|deadline| deadline.at.as_millis() as u32);
                        return ask;
                    };
                    let attempt = self.link.attempt();
                    let granted = Input::Packet(Incoming::SubAck { packet_id, codes: &[1] });
                    self.link.handle_input(granted, attempt, at(now));
                }
                Output::Action(_) | Output::Event(_) | _ => {}
            }
        }
    }
}

impl<P: Profile> Client for Ours<P> {
    fn wake(&mut self, now: u32, _: &mut Dice) -> Ask {
        self.link.handle_timeout(at(now));
        self.drain(now)
    }

    fn ready(&mut self, now: u32) -> Option<u32> {
        self.input(Input::Ready, now);
        self.drain(now).deadline
    }

    fn accept(&mut self, now: u32, _: &mut Dice) -> Ask {
        self.input(Input::Packet(Incoming::ConnAck { session_present: false, code: 0 }), now);
        self.drain(now)
    }

    fn end(&mut self, how: End, now: u32, _: &mut Dice) -> Ask {
        let input = match how {
            End::Unreachable => Input::Failed(Failure::Unresolved),
            End::Closed => Input::Failed(Failure::Lost),
            End::Silent => Input::Failed(Failure::KeepAliveTimeout),
            End::Unknown => Input::Packet(Incoming::ConnAck { session_present: false, code: 5 }),
        };
        self.input(input, now);
        self.drain(now)
    }

    fn answer(&mut self, answer: Answer, now: u32, _: &mut Dice) -> Ask {
        let (status, tail, payload) = match answer {
            Answer::Assigning => (202, "&retry-after=3".into(), r#"{"operationId":"1","status":"assigning"}"#.into()),
            Answer::Assigned(hub) => {
                let hub = HUBS[usize::from(hub) % HUBS.len()];
                let state = format!(r#"{{"assignedHub":"{hub}","deviceId":"device"}}"#);
                (
                    200,
                    String::new(),
                    format!(r#"{{"operationId":"1","status":"assigned","registrationState":{state}}}"#),
                )
            }
            Answer::Throttled => (
                429,
                format!("&retry-after={RETRY_AFTER_SECS}"),
                r#"{"errorCode":429001,"message":"throttled"}"#.into(),
            ),
        };
        let topic = format!("$dps/registrations/res/{status}/?$rid={}{tail}", self.request);
        let publish =
            Received { topic: &topic, payload: payload.as_bytes(), packet_id: None, dup: false, retain: false };
        self.input(Input::Packet(Incoming::Publish(publish)), now);
        self.drain(now)
    }
}

const fn at(now: u32) -> Instant {
    Instant::from_millis(now as u64)
}

/// An outbox for links that only connect.
#[derive(Clone, Copy, Debug)]
struct Nothing;

impl Outbox for Nothing {
    fn push(&mut self, _: Entry<'_>) -> Result<(), OutboxError> {
        Err(OutboxError::Full)
    }

    fn get(&self, _: MessageId) -> Option<Entry<'_>> {
        None
    }

    fn next(&self, _: MessageId) -> Option<MessageId> {
        None
    }

    fn remove(&mut self, _: MessageId, _: Outcome) -> bool {
        false
    }

    fn last(&self) -> Option<MessageId> {
        None
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn capacity(&self) -> Usage {
        Usage::default()
    }
}
