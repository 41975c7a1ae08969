//! A hub's services over a link, under any history of what a hub sends, an application does, and time.

use std::collections::BTreeSet;
use std::time::Duration;

use steadfast_core::iothub::operator_commands::OperatorCommands;
use steadfast_core::iothub::{Event, Received};
use steadfast_core::mqtt::{Packet, PacketId};
use steadfast_core::text::Text;
use steadfast_core::{
    Action, AnyProfile, Attempt, CallId, Config, Credential, Failure, HubLink, Input, Instant, Link, Message, Output,
    RamOutbox, Received as LinkReceived, ReportId, Seed, Service, State, Subscriptions,
};

use crate::source::Source;

type Device<'c> = HubLink<RamOutbox<3, 64>, AnyProfile<&'c Config<&'static str>>, [u8; 96]>;

/// Plays `data` as a history: the first byte chooses the configuration, then each byte an action.
///
/// # Panics
/// When a version of desired properties is told twice, skipped or taken back, an answer goes out for a call that is not
/// open on its connection, a report ends twice or was never made, the books do not balance, or the outputs do not come to
/// an end.
pub fn target(data: &[u8]) {
    let mut source = Source::new(data);
    let mut config = Config::new(Service::Hub { host: "hub-a.example", device_id: "pump" }, Credential::Certificate);
    let choice = source.byte();
    config.subscriptions = if choice & 1 == 0 { Subscriptions::ALL } else { Subscriptions::METHODS };
    let Ok(link) = Link::new(
        AnyProfile::new(&config, [0; 256]),
        RamOutbox::new(),
        Seed::from_number(u64::from(choice)),
        Instant::ORIGIN,
    ) else {
        return;
    };
    let mut link = HubLink::new(link, [0; 96], [0; 96]);
    if choice & 2 != 0 {
        link.allow_operator_commands(OperatorCommands::ALL);
    }
    let mut told = None;
    if choice & 4 != 0 {
        link.restore_desired_version(7);
        told = Some(7);
    }
    let has_commands = choice & 2 != 0;
    let mut player = Player {
        link,
        has_commands,
        now: 0,
        open: None,
        told,
        asked: false,
        get: 0,
        patch: 0,
        calls: BTreeSet::new(),
        requests: 0,
        held: Vec::new(),
        reports: BTreeSet::new(),
        inbound: Vec::new(),
    };
    player.link.start(Instant::ORIGIN);
    for _ in 0..512 {
        if source.is_empty() {
            break;
        }
        player.step(&mut source);
        player.drain(usize::MAX);
        let ledger = player.link.link().ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(player.link.desired_version(), player.told, "what is known was told");
        let _ = (format!("{:?}", player.link), player.link.next_deadline());
    }
}

struct Player<'c> {
    link: Device<'c>,
    has_commands: bool,
    now: u64,
    /// Attempt whose connection exists.
    open: Option<Attempt>,
    /// Latest version of desired properties that was told.
    told: Option<u64>,
    /// The application asked for the twin and was not told it since.
    asked: bool,
    /// Numbers of the latest requests.
    get: u32,
    patch: u32,
    /// Calls of this connection that have no answer, by what names them.
    calls: BTreeSet<String>,
    requests: u32,
    /// What the application holds, of this connection and others.
    held: Vec<CallId>,
    reports: BTreeSet<ReportId>,
    inbound: Vec<(PacketId, Attempt)>,
}

impl Player<'_> {
    fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        match choice % 24 {
            0 => self.now = self.now.saturating_add(u64::from(source.number())),
            1 => self.now = self.now.saturating_add(u64::from(source.number()) * 100),
            2 => {
                if let Some(deadline) = self.link.next_deadline() {
                    self.now = self.now.max(deadline.at.as_millis());
                }
                self.link.handle_timeout(self.now());
            }
            3 => self.link.handle_timeout(self.now()),
            4..=6 => self.come_up(source),
            7 => self.fail(),
            8 => self.twin(source),
            9 => self.twin_of(u64::from(source.byte() % 16), source.flag()),
            10 => self.desired(self.told.unwrap_or(0).saturating_add(1)),
            11 => self.desired(u64::from(source.byte() % 16)),
            12 => self.mangled(source),
            13 => self.patched(source),
            14 | 15 => self.call(source),
            16 | 17 => self.respond(source),
            18 => self.message(source),
            19 => {
                if let Some((packet_id, attempt)) = self.inbound.pop() {
                    self.link.acknowledge(packet_id, attempt, self.now());
                }
            }
            20 => self.report(source),
            21 => self.asked |= self.link.get_twin(self.now()),
            22 => self.publish(source),
            _ => {
                let room = usize::from(source.byte()) * 4;
                self.drain(room);
                let now = self.now();
                match source.byte() % 8 {
                    0 => self.link.stop(Duration::from_secs(1), now),
                    1 => self.link.start(now),
                    _ => {}
                }
            }
        }
    }

    fn now(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    fn come_up(&mut self, source: &mut Source<'_>) {
        for _ in 0..8 {
            self.drain(usize::MAX);
            if self.link.link().state() == State::Up {
                return;
            }
            if let Some(attempt) = self.open {
                self.input(Input::Ready, attempt);
                self.drain(usize::MAX);
                self.bytes(&[0x20, 2, source.byte() & 1, 0], attempt);
            } else if let Some(deadline) = self.link.next_deadline() {
                self.now = self.now.max(deadline.at.as_millis());
                self.link.handle_timeout(self.now());
            }
        }
    }

    fn fail(&mut self) {
        if let Some(attempt) = self.open {
            self.gone();
            self.input(Input::Failed(Failure::Lost), attempt);
        }
    }

    /// The connection is gone, and what belonged to it.
    fn gone(&mut self) {
        self.open = None;
        self.calls.clear();
    }

    /// An answer to the latest twin request with a version from the data, or to one of long ago.
    fn twin(&mut self, source: &mut Source<'_>) {
        let (offset, low) = (u32::from(source.byte() % 3), u64::from(source.byte() % 4));
        let request = self.get.wrapping_sub(offset);
        let version = self.told.unwrap_or(1).saturating_add(low).saturating_sub(1);
        let status = [200, 200, 200, 429, 503, 404][usize::from(source.byte() % 6)];
        self.answer(request, status, version);
    }

    fn twin_of(&mut self, version: u64, anew: bool) {
        let request = if anew { self.get } else { self.get.wrapping_add(1) };
        self.answer(request, 200, version);
    }

    fn answer(&mut self, request: u32, status: u16, version: u64) {
        let order = if version.is_multiple_of(3) { r#","steadfast":{"__t":"c","spread":9}"# } else { "" };
        let body = format!(r#"{{"desired":{{"a":1{order},"$version":{version}}},"reported":{{"$version":1}}}}"#);
        self.publish_in(&format!("$iothub/twin/res/{status}/?$rid={request}"), body.as_bytes(), None);
    }

    fn desired(&mut self, version: u64) {
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        let body: &[u8] = if version.is_multiple_of(3) {
            br#"{"steadfast":{"__t":"c","spread":900,"logLevel":"warn"}}"#
        } else {
            br#"{"a":null}"#
        };
        self.publish_in(&topic, body, None);
    }

    /// Topics and bodies that no hub sends.
    fn mangled(&mut self, source: &mut Source<'_>) {
        let stems = [
            "$iothub/twin/res/",
            "$iothub/twin/res/200/?$rid=",
            "$iothub/twin/PATCH/properties/desired/?",
            "$iothub/methods/POST/",
            "devices/pump/messages/devicebound/",
            "",
        ];
        let stem = stems[usize::from(source.byte()) % stems.len()];
        let topic = format!("{stem}{}", source.text());
        let topic = match source.byte() % 4 {
            0 => format!("$iothub/twin/res/200/?$rid={}", self.get),
            1 => format!("$iothub/twin/PATCH/properties/desired/?$version={}", self.told.unwrap_or(0) + 1),
            _ => topic,
        };
        let id = source.flag().then(|| source.number());
        self.publish_in(&topic, source.bytes(), id);
    }

    fn patched(&mut self, source: &mut Source<'_>) {
        let status = [204, 200, 429, 500, 400, 412][usize::from(source.byte() % 6)];
        let request = self.patch.wrapping_sub(u32::from(source.byte() % 2));
        self.publish_in(&format!("$iothub/twin/res/{status}/?$rid={request}&$version=3"), b"", None);
    }

    fn call(&mut self, source: &mut Source<'_>) {
        let names = ["reboot", "thermo%2Areset", "steadfast*reprovision", ""];
        let name = names[usize::from(source.byte() % 4)];
        self.requests += 1;
        let request = format!("{:x}", self.requests);
        if self.open.is_some() {
            self.calls.insert(request.clone());
        }
        self.publish_in(&format!("$iothub/methods/POST/{name}/?$rid={request}"), source.bytes(), None);
    }

    fn respond(&mut self, source: &mut Source<'_>) {
        if self.held.is_empty() {
            return;
        }
        let at = usize::from(source.byte()) % self.held.len();
        let call = if source.flag() { self.held.swap_remove(at) } else { self.held[at] };
        let _ = self.link.respond(call, source.number(), source.bytes(), self.now());
    }

    fn message(&mut self, source: &mut Source<'_>) {
        let bag = match source.byte() % 4 {
            0 => format!("%24.mid={}", source.byte() % 4),
            1 => String::new(),
            _ => source.text().to_owned(),
        };
        let topic = format!("devices/pump/messages/devicebound/{bag}");
        let id = Some(u16::from(source.byte()));
        self.publish_in(&topic, source.bytes(), id);
    }

    fn report(&mut self, source: &mut Source<'_>) {
        let patches =
            [r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{"x":2}}"#, r#"{"b":{"c":[1,2,3]}}"#, r#"{"k":"0123456789"}"#];
        let at = usize::from(source.byte()) % (patches.len() + 1);
        let patch = patches.get(at).map_or_else(|| source.bytes(), |patch| patch.as_bytes());
        if let Ok(id) = self.link.report(patch, self.now()) {
            self.reports.insert(id);
        }
    }

    fn publish(&mut self, source: &mut Source<'_>) {
        let now = self.now();
        let _ = self.link.publish(Message::telemetry("", source.bytes()), now);
    }

    /// Hands in a publish, whole or in two parts; `id` makes it one of QoS 1.
    fn publish_in(&mut self, topic: &str, body: &[u8], id: Option<u16>) {
        let Some(attempt) = self.open else { return };
        let mut packet = vec![if id.is_some() { 0x32 } else { 0x30 }];
        let mut remaining = 2 + topic.len() + body.len() + if id.is_some() { 2 } else { 0 };
        while remaining > 127 {
            packet.push(u8::try_from(remaining & 127).unwrap_or(0) | 128);
            remaining >>= 7;
        }
        packet.push(u8::try_from(remaining).unwrap_or(0));
        packet.extend(u16::try_from(topic.len()).unwrap_or(0).to_be_bytes());
        packet.extend(topic.as_bytes());
        packet.extend(id.into_iter().flat_map(u16::to_be_bytes));
        packet.extend(body);
        self.bytes(&packet, attempt);
    }

    fn input(&mut self, input: Input<'_>, attempt: Attempt) {
        let taken = self.link.handle_input(input, attempt, self.now());
        assert!(taken.bytes == 0 && taken.received.is_none());
    }

    /// Hands in bytes as a frontend does: again, after draining, until nothing is taken.
    fn bytes(&mut self, bytes: &[u8], attempt: Attempt) {
        let mut rest = bytes;
        for _ in 0..=bytes.len() {
            let taken = self.link.handle_input(Input::Bytes(rest), attempt, Instant::from_millis(self.now));
            rest = rest.get(taken.bytes..).expect("no more is taken than was given");
            if let Some(received) = taken.received {
                self.received(received, attempt);
            }
            self.drain(usize::MAX);
            if taken.bytes == 0 {
                break;
            }
        }
    }

    fn received(&mut self, received: Received<&str, &[u8]>, attempt: Attempt) {
        match received {
            Received::Twin(twin) => {
                let version = twin.desired_version;
                assert_eq!(twin.reset, self.link.desired_version() == Some(version) && Some(version) < self.told);
                assert!(twin.reset || self.asked || Some(version) > self.told, "{version} after {:?}", self.told);
                self.told = self.link.desired_version();
                self.asked = false;
            }
            Received::Desired { version, .. } => {
                assert_eq!(self.told.and_then(|told| told.checked_add(1)), Some(version), "none twice, none skipped");
                self.told = Some(version);
            }
            Received::Call { call, name, .. } => {
                let _ = name.decoded_len();
                assert!(!self.held.contains(&call), "a call has a name of its own");
                self.held.push(call);
            }
            Received::CloudToDevice { packet_id, .. } | Received::Link(LinkReceived::Message { packet_id, .. }) => {
                self.inbound.extend(packet_id.map(|packet_id| (packet_id, attempt)));
            }
            Received::Input { .. } | Received::Link(_) | _ => panic!("{received:?} comes to no device"),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not of the services")]
    fn drain(&mut self, room: usize) {
        for _ in 0..1_000 {
            let mut subscribed = None;
            match self.link.poll_output_within(room) {
                Output::Wait(_) => return,
                Output::Event(event) => match event {
                    Event::Reported { report, .. } | Event::ReportRefused { report, .. } => {
                        assert!(
                            self.reports.remove(&report) || self.has_commands,
                            "{report:?} ends once, after it was made"
                        );
                    }
                    Event::TwinRefused { .. } | Event::TwinGivenUp => self.asked = false,
                    _ => {}
                },
                Output::Action(Action::Connect { attempt, .. }) => {
                    assert_eq!(self.open.replace(attempt), None, "one connection at a time");
                }
                Output::Action(Action::Close { attempt, .. }) => {
                    assert_eq!(self.open, Some(attempt), "only what is open is closed");
                    self.gone();
                }
                Output::Action(Action::Send { attempt, packet }) => {
                    assert_eq!(self.open, Some(attempt), "packets go out on a connection");
                    let len = packet.encoded_len().expect("a packet of the link can be encoded");
                    assert!(room == usize::MAX || len <= room || matches!(packet, Packet::Disconnect));
                    match packet {
                        Packet::Publish(publish) => {
                            let topic = publish.topic;
                            sent(&topic, &mut self.get, &mut self.patch, &mut self.calls);
                        }
                        Packet::Subscribe(subscribe) => subscribed = Some((subscribe.packet_id, attempt)),
                        _ => {}
                    }
                }
                Output::Action(_) => {}
                _ => unreachable!("every output is known here"),
            }
            if let Some((packet_id, attempt)) = subscribed {
                let [high, low] = packet_id.get().to_be_bytes();
                let answer = [0x90, 3, high, low, 0];
                let taken = self.link.handle_input(Input::Bytes(&answer), attempt, Instant::from_millis(self.now));
                assert!(taken.received.is_none());
            }
        }
        panic!("the outputs do not come to an end");
    }
}

/// Takes note of a packet of a service.
fn sent(topic: &Text<'_>, get: &mut u32, patch: &mut u32, calls: &mut BTreeSet<String>) {
    let topic = topic.to_string();
    let Some((stem, request)) = topic.split_once("?$rid=") else { return };
    if stem.starts_with("$iothub/methods/res/") {
        assert!(calls.remove(request), "the answer to {request} has no open call on this connection");
        return;
    }
    let number = request.parse().expect("requests have numbers");
    assert!(number > *get && number > *patch, "a request has a number of its own");
    *if stem.starts_with("$iothub/twin/GET/") { get } else { patch } = number;
}
