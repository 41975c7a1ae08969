//! The whole link under any history of commands, inputs and times.

use std::collections::BTreeSet;
use std::time::Duration;

use steadfast_core::mqtt::{Packet, PacketId};
use steadfast_core::{
    Action, AnyProfile, Attempt, Config, Credential, Event, Failure, Input, Instant, Link, LocalFailure, Message,
    MessageId, Output, Overflow, Priority, RamOutbox, Received, Seed, Service, Settings, Subscriptions, TlsFailure,
};

use crate::source::Source;

type Device = Link<RamOutbox<3, 64>, AnyProfile<WithHttps>>;

/// The settings of a frontend that can register over HTTPS.
struct WithHttps(Config<&'static str>);

impl Settings for WithHttps {
    type Text = &'static str;

    const HTTPS: bool = true;

    fn config(&self) -> &Config<&'static str> {
        &self.0
    }
}

/// Plays `data` as a history: the first byte chooses the configuration, then each byte an action.
///
/// # Panics
/// When the books do not balance, a message ends twice or was never accepted, a packet goes out where there is no
/// connection, or the outputs do not come to an end.
pub fn target(data: &[u8]) {
    let mut source = Source::new(data);
    let config = configuration(source.byte());
    let Ok(link) = Link::new(
        AnyProfile::new(WithHttps(config), [0; 256]),
        RamOutbox::new(),
        Seed::from_number(u64::from(source.byte())),
        Instant::ORIGIN,
    ) else {
        return;
    };
    let mut player = Player {
        link,
        now: 0,
        accepted: BTreeSet::new(),
        open: None,
        https: false,
        asked: false,
        sent: Vec::new(),
        inbound: None,
        dropped: 0,
    };
    player.link.start(Instant::ORIGIN);
    for _ in 0..512 {
        if source.is_empty() {
            break;
        }
        player.step(&mut source);
        player.drain(usize::MAX);
        let ledger = player.link.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(
            ledger.queued + player.dropped,
            player.accepted.len() as u64,
            "what was accepted is queued or ended"
        );
        let _ = player.link.status().to_string();
    }
}

fn configuration(choice: u8) -> Config<&'static str> {
    let (service, credential) = match choice & 3 {
        0 => (Service::Broker { host: "broker.example", client_id: "pump" }, Credential::Anonymous),
        1 => (Service::Hub { host: "hub-a.example", device_id: "pump" }, Credential::Certificate),
        2 => (dps(), Credential::Certificate),
        _ => (dps(), Credential::SharedKey),
    };
    let mut config = Config::new(service, credential);
    config.session.window = 2;
    if choice & 4 != 0 {
        config.session.overflow = Overflow::DropOldest;
    }
    if choice & 8 != 0 {
        config.subscriptions = Subscriptions::ALL;
    }
    if choice & 16 != 0 {
        config.session.poison_threshold = Some(1);
    }
    if choice & 32 != 0 {
        config.session.overflow = Overflow::DropForUrgent;
    }
    config.stamp_creation_time = choice & 64 != 0;
    config.https_registration = choice & 128 != 0;
    config
}

fn dps() -> Service<&'static str> {
    Service::Provisioned { host: "dps.example", id_scope: "0ne00000001", registration_id: "pump" }
}

struct Player {
    link: Device,
    now: u64,
    accepted: BTreeSet<MessageId>,
    /// How many of them were dropped, for all the events say.
    dropped: u64,
    /// Attempt whose connection exists.
    open: Option<Attempt>,
    /// It carries HTTPS.
    https: bool,
    /// A request over HTTPS has no answer.
    asked: bool,
    /// Packet ids sent with QoS 1 and not answered here.
    sent: Vec<PacketId>,
    inbound: Option<(PacketId, Attempt)>,
}

impl Player {
    fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        let now = Instant::from_millis(self.now);
        let attempt = self.link.attempt();
        match choice % 20 {
            0 => self.now = self.now.saturating_add(u64::from(source.number())),
            1 => self.now = self.now.saturating_add(u64::from(source.number()) * 1000),
            2 => {
                if let Some(deadline) = self.link.next_deadline() {
                    self.now = self.now.max(deadline.at.as_millis());
                    self.link.handle_timeout(Instant::from_millis(self.now));
                }
            }
            3 => self.link.handle_timeout(now),
            4 => self.publish(source, now),
            5 => self.input(Input::Signed(&[7; 32]), attempt),
            6 => self.input(Input::Connected, attempt),
            7 => self.input(Input::Ready, attempt),
            8 => self.bytes(source.bytes(), attempt),
            9 => self.bytes(&[0x20, 2, source.byte() & 1, 0], attempt),
            10 => self.bytes(&[0x20, 2, 0, source.byte()], attempt),
            11 => {
                if let Some(packet_id) = self.sent.pop() {
                    let [high, low] = packet_id.get().to_be_bytes();
                    self.bytes(&[0x40, 2, high, low], attempt);
                }
            }
            12 => {
                let low = source.byte();
                self.bytes(&[0x90, 3, 0xff, low & 15, 1], attempt);
            }
            13 => self.failed(source.byte(), attempt),
            14 => self.answer(source, attempt),
            15 => self.link.set_wall_clock(1_800_000_000 + u64::from(source.number()), now),
            16 => self.link.reprovision(now),
            17 => self.link.stop(Duration::from_secs(u64::from(source.byte())), now),
            18 => self.link.start(now),
            _ => {
                if let Some((packet_id, attempt)) = self.inbound.take() {
                    self.link.acknowledge(packet_id, attempt, now);
                }
                self.drain(usize::from(source.byte()) * 8);
            }
        }
    }

    fn publish(&mut self, source: &mut Source<'_>, now: Instant) {
        let payload = source.bytes();
        let expires_after = source.flag().then(|| Duration::from_secs(u64::from(source.byte())));
        let (bag, topic) = (Message::telemetry("a=b", payload), Message::to_topic("t", payload));
        let message = if source.flag() { bag } else { topic };
        let priority = if source.flag() { Priority::Urgent } else { Priority::Normal };
        if let Ok(id) = self.link.publish(Message { expires_after, priority, ..message }, now) {
            assert!(self.accepted.insert(id), "an id names one message");
            assert_eq!(id.priority(), priority);
        }
    }

    fn failed(&mut self, choice: u8, attempt: Attempt) {
        let failures = [
            Failure::Unresolved,
            Failure::ConnectionRefused,
            Failure::Network,
            Failure::Tls(TlsFailure::Expired),
            Failure::Tls(TlsFailure::ClientCertificateRefused),
            Failure::Lost,
            Failure::Local(LocalFailure::Signing),
            Failure::Local(LocalFailure::Credential),
        ];
        if attempt == self.link.attempt() {
            self.open = None;
        }
        self.input(Input::Failed(failures[usize::from(choice) % failures.len()]), attempt);
    }

    /// An answer of the provisioning service with a body from the data or a good one, over MQTT or over HTTPS, and now and
    /// then over the other one.
    fn answer(&mut self, source: &mut Source<'_>, attempt: Attempt) {
        let request = source.byte();
        let (status, body): (_, &[u8]) = match source.byte() % 4 {
            0 => (202, b"{\"operationId\":\"4.op\",\"status\":\"assigning\"}"),
            1 => (
                200,
                b"{\"operationId\":\"4.op\",\"status\":\"assigned\",\"registrationState\":{\"assignedHub\":\"hub-a.example\",\"deviceId\":\"pump\",\"status\":\"assigned\"}}",
            ),
            2 => (429, b"{\"errorCode\":429000}"),
            _ => (u16::from(source.byte()) * 2, source.bytes()),
        };
        let retry_after = source.byte();
        if self.https != (request % 16 == 15) {
            self.registered(status, u32::from(retry_after), body, attempt);
            return;
        }
        let topic = format!("$dps/registrations/res/{status}/?$rid={request}&retry-after={retry_after}");
        let mut packet = vec![0x30];
        let mut remaining = 2 + topic.len() + body.len();
        while remaining > 127 {
            packet.push(u8::try_from(remaining & 127).unwrap_or(0) | 128);
            remaining >>= 7;
        }
        packet.push(u8::try_from(remaining).unwrap_or(0));
        packet.extend(u16::try_from(topic.len()).unwrap_or(0).to_be_bytes());
        packet.extend(topic.as_bytes());
        packet.extend(body);
        self.bytes(&packet, attempt);
    }

    fn registered(&mut self, status: u16, retry_after_secs: u32, body: &[u8], attempt: Attempt) {
        let asked = std::mem::take(&mut self.asked);
        let (before, now) = (self.link.assignment().cloned(), Instant::from_millis(self.now));
        let input = Input::Registered { status, retry_after_secs: Some(retry_after_secs), body };
        let taken = self.link.handle_input(input, attempt, now);
        assert_eq!(taken.bytes, 0, "an answer over HTTPS is none of the connection's bytes");
        if !asked {
            assert!(taken.received.is_none(), "nobody asked");
            assert_eq!(self.link.assignment(), before.as_ref(), "nobody asked");
        }
    }

    fn input(&mut self, input: Input<'_>, attempt: Attempt) {
        let taken = self.link.handle_input(input, attempt, Instant::from_millis(self.now));
        assert!(taken.bytes == 0 && taken.received.is_none());
    }

    /// Hands in bytes as a frontend does: again, after draining, until nothing is taken.
    fn bytes(&mut self, bytes: &[u8], attempt: Attempt) {
        let mut rest = bytes;
        for _ in 0..=bytes.len() {
            let taken = self.link.handle_input(Input::Bytes(rest), attempt, Instant::from_millis(self.now));
            rest = rest.get(taken.bytes..).expect("no more is taken than was given");
            if let Some(Received::Message { packet_id: Some(packet_id), .. }) = taken.received {
                self.inbound = Some((packet_id, attempt));
            }
            self.drain(usize::MAX);
            if taken.bytes == 0 {
                assert!(taken.needed.is_none_or(|needed| needed > rest.len()));
                break;
            }
        }
    }

    fn drain(&mut self, room: usize) {
        for _ in 0..1_000 {
            match self.link.poll_output_within(room) {
                Output::Wait(_) => return,
                Output::Event(event) => self.event(event),
                Output::Action(Action::Connect { attempt, endpoint }) => {
                    assert_eq!(self.open.replace(attempt), None, "one connection at a time");
                    (self.https, self.asked) = (endpoint.https, false);
                    self.sent.clear();
                }
                Output::Action(Action::Close { attempt, .. }) => {
                    assert_eq!(self.open.take(), Some(attempt), "only what is open is closed");
                }
                Output::Action(Action::Register { attempt, request }) => {
                    assert!(self.https && self.open == Some(attempt), "a request goes out on a connection of HTTPS");
                    assert!(!std::mem::replace(&mut self.asked, true), "one request at a time");
                    let _ = (format!("{request:?}"), request.body().to_string(), request.token().is_some());
                }
                Output::Action(Action::Send { attempt, packet }) => {
                    assert!(!self.https, "no packet goes out on a connection of HTTPS");
                    assert_eq!(self.open, Some(attempt), "packets go out on a connection");
                    let len = packet.encoded_len().expect("a packet of the link can be encoded");
                    assert!(room == usize::MAX || len <= room || matches!(packet, Packet::Disconnect));
                    if let Packet::Publish(publish) = packet {
                        self.sent.extend(publish.packet_id);
                    }
                }
                Output::Action(_) => {}
                _ => unreachable!("every output is known here"),
            }
        }
        panic!("the outputs do not come to an end");
    }

    fn event(&mut self, event: Event) {
        if let Event::Delivered(id) = event {
            assert!(self.accepted.remove(&id), "{id} ends once, after it was accepted");
        } else if let Event::Dropped(dropped) = event {
            self.dropped += u64::from(dropped.count);
        }
    }
}
