//! Messages at a plain broker: what accompanies them, and what the broker answers.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails where it is")]

use std::time::Duration;

use steadfast_core::mqtt::{Incoming, Packet, PacketId, Reason};
use steadfast_core::{
    Action, Attempt, Broker, Config, Credential, DropReason, Event, Input, Instant, IotHub, Link, Message, Output,
    PublishError, RamOutbox, Seed, Service,
};

static CONFIG: Config<&str> =
    Config::new(Service::Broker { host: "broker.example", client_id: "pump-7" }, Credential::Anonymous);

type Client = Link<RamOutbox<4, 64>, Broker<&'static Config<&'static str>, [u8; 0]>>;

/// A client that is up.
struct Scene {
    link: Client,
    now: Instant,
    attempt: Attempt,
    /// Packet id and RETAIN of each PUBLISH.
    published: Vec<(PacketId, bool)>,
    events: Vec<Event>,
}

impl Scene {
    fn up() -> Self {
        let profile = Broker::new(&CONFIG, [0; 0]);
        let link = Link::new(profile, RamOutbox::new(), Seed::from_number(7), Instant::ORIGIN).unwrap();
        let attempt = link.attempt();
        let mut scene = Self { link, now: Instant::ORIGIN, attempt, published: Vec::new(), events: Vec::new() };
        scene.link.start(scene.now);
        scene.now = scene.drain().unwrap();
        scene.link.handle_timeout(scene.now);
        scene.drain();
        scene.input(Input::Ready);
        scene.input(Input::Packet(Incoming::ConnAck { session_present: false, code: 0 }));
        scene
    }

    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.link.poll_output() {
                Output::Wait(deadline) => return deadline.map(|deadline| deadline.at),
                Output::Event(event) => self.events.push(event),
                Output::Action(Action::Connect { attempt, .. }) => self.attempt = attempt,
                Output::Action(Action::Send { packet: Packet::Publish(publish), .. }) => {
                    self.published.push((publish.packet_id.unwrap(), publish.retain));
                }
                _ => {}
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.link.handle_input(input, self.attempt, self.now);
        self.drain();
    }
}

#[test]
fn a_retained_message_is_sent_with_retain_and_others_without() {
    let mut scene = Scene::up();
    scene.link.publish(Message::to_topic("pumps/7", b"on").retained(), scene.now).unwrap();
    scene.link.publish(Message::to_topic("pumps/7", b"21.5"), scene.now).unwrap();
    scene.drain();
    let retained: Vec<bool> = scene.published.iter().map(|(_, retain)| *retain).collect();
    assert_eq!(retained, [true, false]);
}

#[test]
fn a_message_that_the_broker_refuses_with_a_reason_is_rejected_and_the_next_one_goes_on() {
    let mut scene = Scene::up();
    let ids = [b"bad", b"two"].map(|body| scene.link.publish(Message::to_topic("t", body), scene.now).unwrap());
    scene.drain();
    // 0x99: payload format invalid; 0x10: no matching subscribers, which is a success.
    for ((packet_id, _), code) in scene.published.clone().into_iter().zip([0x99, 0x10]) {
        scene.input(Input::Packet(Incoming::PubAck { packet_id, reason: Reason::new(code) }));
    }
    let dropped = scene.events.iter().find_map(|event| match event {
        Event::Dropped(dropped) => Some((dropped.reason, dropped.first)),
        _ => None,
    });
    assert_eq!(dropped, Some((DropReason::Rejected, ids[0])));
    assert!(scene.events.contains(&Event::Delivered(ids[1])));
    let ledger = scene.link.ledger();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.rejected), (2, 1, 1));
    // Nothing is in flight any more: a stop needs no wait.
    scene.link.stop(Duration::from_secs(60), scene.now);
    scene.drain();
    assert!(scene.events.contains(&Event::Stopped));
}

#[test]
fn a_service_of_mqtt_3_1_1_takes_no_properties_and_an_iot_hub_retains_nothing() {
    let mut broker = Scene::up();
    let with_properties = Message { properties: &[0x01, 1], ..Message::to_topic("t", b"x") };
    assert_eq!(broker.link.publish(with_properties, broker.now), Err(PublishError::NoProperties));
    let config = Config::new(Service::Hub { host: "hub.example", device_id: "pump-7" }, Credential::SharedKey);
    let outbox = RamOutbox::<4, 64>::new();
    let mut hub = Link::new(IotHub::new(config), outbox, Seed::from_number(1), Instant::ORIGIN).unwrap();
    let telemetry = Message::telemetry("", b"x");
    assert_eq!(hub.publish(telemetry.retained(), Instant::ORIGIN), Err(PublishError::NotRetained));
    assert_eq!(
        hub.publish(Message { properties: &[0x01, 1], ..telemetry }, Instant::ORIGIN),
        Err(PublishError::NoProperties)
    );
    assert_eq!((broker.link.ledger().refused, hub.ledger().refused), (1, 2));
}
