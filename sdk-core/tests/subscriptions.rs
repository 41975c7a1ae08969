//! Subscriptions of an application at a plain broker: wanted, asked for, held.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails where it is")]

use std::time::Duration;

use steadfast_core::mqtt::{Incoming, Packet, PacketId, QoS};
use steadfast_core::{
    Action, AnyProfile, Attempt, Broker, Config, ConfigError, Credential, Event, Failure, Input, Instant, IotHub, Link,
    Output, RamOutbox, Seed, Service, State, SubscribeError, Subscriptions,
};

static CONFIG: Config<&str> =
    Config::new(Service::Broker { host: "broker.example", client_id: "pump-7" }, Credential::Anonymous);

type Client = Link<RamOutbox<2, 64>, Broker<&'static Config<&'static str>, [u8; 64]>>;

/// A client, and a broker that says what the test has it say.
struct Scene {
    link: Client,
    now: Instant,
    attempt: Attempt,
    events: Vec<Event>,
    /// Packets about subscriptions that wait for their answer: filter, packet id, whether it is SUBSCRIBE.
    asked: Vec<(String, PacketId, bool)>,
}

impl Scene {
    fn new() -> Self {
        let profile = Broker::new(&CONFIG, [0; 64]);
        let link = Link::new(profile, RamOutbox::new(), Seed::from_number(7), Instant::ORIGIN).unwrap();
        let attempt = link.attempt();
        Self { link, now: Instant::ORIGIN, attempt, events: Vec::new(), asked: Vec::new() }
    }

    /// Does what the link wants; returns its deadline.
    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.link.poll_output() {
                Output::Wait(deadline) => return deadline.map(|deadline| deadline.at),
                Output::Event(event) => self.events.push(event),
                Output::Action(Action::Connect { attempt, .. }) => self.attempt = attempt,
                Output::Action(Action::Send { packet: Packet::Subscribe(subscribe), .. }) => {
                    self.asked.push((subscribe.filter.to_string(), subscribe.packet_id, true));
                }
                Output::Action(Action::Send { packet: Packet::Unsubscribe(unsubscribe), .. }) => {
                    self.asked.push((unsubscribe.filter.to_string(), unsubscribe.packet_id, false));
                }
                _ => {}
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.link.handle_input(input, self.attempt, self.now);
        self.drain();
    }

    /// Lets the next attempt come to the broker's answer to CONNECT.
    fn connect(&mut self, session_present: bool) {
        self.link.start(self.now);
        while self.link.state() != State::Connecting {
            self.now = self.drain().unwrap();
            self.link.handle_timeout(self.now);
        }
        self.drain();
        self.input(Input::Ready);
        self.input(Input::Packet(Incoming::ConnAck { session_present, code: 0 }));
    }

    /// Answers everything that was asked for, in order, with this code.
    fn answer(&mut self, code: u8) -> Vec<String> {
        let asked = std::mem::take(&mut self.asked);
        for (_, packet_id, subscribe) in &asked {
            let codes = [code];
            self.input(Input::Packet(if *subscribe {
                Incoming::SubAck { packet_id: *packet_id, codes: &codes }
            } else {
                Incoming::UnsubAck(*packet_id)
            }));
        }
        asked.into_iter().map(|(filter, _, subscribe)| if subscribe { filter } else { format!("-{filter}") }).collect()
    }

    fn lose(&mut self) {
        self.asked.clear();
        self.events.clear();
        self.input(Input::Failed(Failure::Lost));
    }

    fn subscribe(&mut self, filter: &str) {
        self.link.subscribe(filter, QoS::AtLeastOnce, self.now).unwrap();
        self.drain();
    }

    fn unsubscribe(&mut self, filter: &str) {
        assert!(self.link.unsubscribe(filter, self.now).is_some());
        self.drain();
    }

    fn told(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }
}

fn granted(event: &Event) -> bool {
    matches!(event, Event::Subscribed { .. })
}

fn refused(event: &Event) -> bool {
    matches!(event, Event::SubscriptionRefused { .. })
}

fn gone(event: &Event) -> bool {
    matches!(event, Event::Unsubscribed { .. })
}

#[test]
fn a_broker_is_asked_for_the_filters_of_the_application_and_for_no_hub_s() {
    let mut scene = Scene::new();
    scene.subscribe("a/+");
    scene.subscribe("b/#");
    scene.connect(false);
    assert_eq!(scene.link.state(), State::Connecting, "it is up once they are answered");
    assert_eq!(scene.answer(1), ["a/+", "b/#"]);
    assert_eq!((scene.link.state(), scene.told(granted)), (State::Up, 2));
    scene.subscribe("c");
    assert_eq!(scene.answer(0), ["c"]);
    let lower = |event: &Event| matches!(event, Event::Subscribed { qos: QoS::AtMostOnce, .. });
    assert_eq!((scene.link.state(), scene.told(lower)), (State::Up, 1), "the level granted is told");
}

#[test]
fn a_refused_filter_is_an_event_and_asked_for_again_on_the_next_connection_only() {
    let mut scene = Scene::new();
    scene.subscribe("forbidden");
    scene.connect(false);
    assert_eq!(scene.answer(0x80), ["forbidden"]);
    assert_eq!((scene.link.state(), scene.told(refused), scene.told(granted)), (State::Up, 1, 0));
    assert_eq!(scene.answer(0x80), [""; 0]);
    scene.lose();
    scene.connect(true);
    assert_eq!(scene.answer(1), ["forbidden"]);
    assert_eq!((scene.link.state(), scene.told(granted)), (State::Up, 1));
}

#[test]
fn a_lost_session_is_subscribed_to_again_and_a_kept_one_is_not() {
    let mut scene = Scene::new();
    scene.subscribe("a");
    scene.connect(false);
    assert_eq!(scene.answer(1), ["a"]);
    scene.lose();
    scene.connect(true);
    assert_eq!((scene.link.state(), scene.answer(1)), (State::Up, vec![]));
    scene.lose();
    scene.connect(false);
    assert_eq!((scene.link.state(), scene.answer(1)), (State::Connecting, vec!["a".to_owned()]));
    assert_eq!(scene.link.state(), State::Up);
}

#[test]
fn a_subscription_whose_answer_was_lost_is_asked_for_again_though_the_session_was_kept() {
    let mut scene = Scene::new();
    scene.subscribe("a");
    scene.connect(false);
    assert_eq!(scene.asked.len(), 1);
    scene.lose();
    scene.connect(true);
    assert_eq!(scene.answer(1), ["a"]);
    assert_eq!((scene.link.state(), scene.told(granted)), (State::Up, 1));
}

#[test]
fn what_is_unsubscribed_while_down_is_unsubscribed_at_a_kept_session_and_forgotten_with_a_lost_one() {
    for session_present in [true, false] {
        let mut scene = Scene::new();
        scene.subscribe("a");
        scene.subscribe("b");
        scene.connect(false);
        scene.answer(1);
        scene.lose();
        scene.unsubscribe("a");
        assert_eq!(scene.told(gone), 0, "the broker may still hold it");
        scene.connect(session_present);
        let asked = scene.answer(1);
        assert_eq!(asked, if session_present { vec!["-a"] } else { vec!["b"] });
        assert_eq!((scene.link.state(), scene.told(gone)), (State::Up, 1));
        assert_eq!(scene.link.unsubscribe("a", scene.now), None);
    }
}

#[test]
fn a_filter_that_was_never_asked_for_is_gone_at_once_and_one_under_way_after_its_answers() {
    let mut scene = Scene::new();
    scene.subscribe("a");
    scene.unsubscribe("a");
    assert_eq!(scene.told(gone), 1);
    scene.subscribe("b");
    scene.connect(false);
    scene.unsubscribe("b");
    assert_eq!(scene.answer(1), ["b"]);
    assert_eq!(scene.answer(1), ["-b"]);
    assert_eq!((scene.told(granted), scene.told(gone), scene.link.state()), (0, 2, State::Up));
    scene.subscribe("c");
    scene.unsubscribe("c");
    scene.subscribe("c");
    assert_eq!(scene.answer(1), ["c"]);
    assert_eq!((scene.told(granted), scene.told(gone)), (1, 2), "it is wanted again before it was gone");
}

#[test]
fn another_level_is_asked_for_also_while_the_first_is() {
    let mut scene = Scene::new();
    scene.subscribe("a");
    scene.connect(false);
    scene.link.subscribe("a", QoS::AtMostOnce, scene.now).unwrap();
    scene.drain();
    assert_eq!(scene.answer(1), ["a"]);
    assert_eq!((scene.told(granted), scene.answer(0)), (0, vec!["a".to_owned()]));
    assert_eq!((scene.told(granted), scene.link.state()), (1, State::Up));
}

#[test]
fn a_subscription_without_an_answer_ends_the_connection_and_is_asked_for_on_the_next() {
    let mut scene = Scene::new();
    scene.connect(false);
    assert_eq!(scene.link.state(), State::Up);
    scene.subscribe("a");
    scene.asked.clear();
    scene.now = scene.now.after(Duration::from_secs(30));
    scene.link.handle_timeout(scene.now);
    scene.drain();
    assert_eq!(scene.link.status().last_failure, Some(Failure::SubackTimeout));
    scene.connect(true);
    assert_eq!(scene.answer(1), ["a"]);
}

#[test]
fn answers_that_nothing_asked_for_break_the_protocol() {
    for packet in [Incoming::UnsubAck(PacketId::new(0xff20).unwrap()), Incoming::UnsubAck(PacketId::new(7).unwrap())] {
        let mut scene = Scene::new();
        scene.connect(false);
        scene.input(Input::Packet(packet));
        assert_eq!(scene.link.status().last_failure, Some(Failure::UnexpectedPacket));
    }
}

#[test]
fn a_full_table_and_a_bad_filter_are_errors_and_a_hub_takes_no_filters() {
    let mut scene = Scene::new();
    let long = "x".repeat(65);
    assert_eq!(scene.link.subscribe(&long, QoS::AtLeastOnce, scene.now), Err(SubscribeError::Full));
    assert_eq!(scene.link.subscribe("a#", QoS::AtLeastOnce, scene.now), Err(SubscribeError::BadFilter));
    static HUB: Config<&str> =
        Config::new(Service::Hub { host: "contoso.azure-devices.net", device_id: "pump-7" }, Credential::Certificate);
    let seed = Seed::from_number(7);
    let mut fixed = Link::new(IotHub::new(&HUB), RamOutbox::<1, 16>::new(), seed, Instant::ORIGIN).unwrap();
    let mut any = Link::new(AnyProfile::new(&HUB, [0; 16]), RamOutbox::<1, 16>::new(), seed, Instant::ORIGIN).unwrap();
    let (qos, now) = (QoS::AtLeastOnce, Instant::ORIGIN);
    assert_eq!(fixed.subscribe("a", qos, now), Err(SubscribeError::NotABroker));
    assert_eq!(any.subscribe("a", qos, now), Err(SubscribeError::NotABroker));
}

#[test]
fn a_broker_with_subscriptions_of_a_hub_is_a_mistake_that_is_named() {
    let mut config = CONFIG;
    config.subscriptions = Subscriptions::ALL;
    assert_eq!(config.check(), Err(ConfigError::SubscriptionsOfAHub));
}
