//! A registration over HTTPS: an action for each request, and no packet.

use core::time::Duration;

use steadfast_core::dps::topics::GLOBAL_HOST;
use steadfast_core::{
    Action, Attempt, Config, ConfigError, Credential, Failure, Input, Instant, Link, Output, Provisioned,
    ProvisioningFailure, RamOutbox, Received, Seed, Service, Settings, State,
};

struct WithHttps(Config<&'static str>);

impl Settings for WithHttps {
    type Text = &'static str;

    const HTTPS: bool = true;

    fn config(&self) -> &Config<&'static str> {
        &self.0
    }
}

fn config(https: bool) -> Config<&'static str> {
    let service = Service::Provisioned { host: GLOBAL_HOST, id_scope: "0ne00ABCDEF", registration_id: "pump-7" };
    let mut config = Config::new(service, Credential::SharedKey);
    config.https_registration = https;
    config.session.keep_alive = Duration::from_secs(5);
    config
}

/// What the link asked for.
#[derive(Debug, PartialEq)]
enum Asked {
    Connect { host: String, port: u16, https: bool },
    Register { operation_id: Option<String>, body: String, token: String },
    Packet(&'static str),
    Close,
}

struct Pump {
    link: Link<RamOutbox<4, 256>, Provisioned<WithHttps>>,
    now: Instant,
    asked: Vec<Asked>,
}

impl Pump {
    /// Goes as far as a TCP connection.
    fn connected(https: bool) -> Self {
        let profile = Provisioned::new(WithHttps(config(https)));
        let link = Link::new(profile, RamOutbox::new(), Seed::from_number(7), Instant::ORIGIN).expect("a link");
        let mut pump = Self { link, now: Instant::ORIGIN, asked: Vec::new() };
        pump.link.set_wall_clock(1_800_000_000, pump.now);
        pump.link.start(pump.now);
        pump.sleep();
        pump.input(Input::Signed(&[7; 32]));
        pump.input(Input::Connected);
        pump
    }

    /// Goes as far as the first request over HTTPS.
    fn registering() -> Self {
        let mut pump = Self::connected(true);
        pump.input(Input::Ready);
        pump
    }

    fn attempt(&self) -> Attempt {
        self.link.attempt()
    }

    fn input<'b>(&mut self, input: Input<'b>) -> Option<Received<&'b str, &'b [u8]>> {
        let received = self.link.handle_input(input, self.attempt(), self.now).received;
        self.drain();
        received
    }

    fn answer(&mut self, status: u16, retry_after_secs: Option<u32>, body: &str) {
        let received = self.input(Input::Registered { status, retry_after_secs, body: body.as_bytes() });
        assert_eq!(received, None);
    }

    /// Sleeps until the next deadline.
    fn sleep(&mut self) {
        let deadline = self.link.next_deadline().expect("a deadline");
        self.now = self.now.max(deadline.at);
        self.link.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let (current, https) = (self.link.attempt(), self.link.profile().config().https_registration);
        // There is no room for packets where none are sent.
        let room = if https { 0 } else { usize::MAX };
        loop {
            match self.link.poll_output_within(room) {
                Output::Wait(_) => return,
                Output::Action(Action::Connect { endpoint, .. }) => self.asked.push(Asked::Connect {
                    host: endpoint.host.into(),
                    port: endpoint.port,
                    https: endpoint.https,
                }),
                Output::Action(Action::Register { attempt, request }) => {
                    assert_eq!(attempt, current);
                    assert!(!format!("{request:?}").contains("sig="), "a token was shown");
                    self.asked.push(Asked::Register {
                        operation_id: request.operation_id().map(Into::into),
                        body: request.body().to_string(),
                        token: request.token().map(|token| token.to_string()).unwrap_or_default(),
                    });
                }
                Output::Action(Action::Send { packet, .. }) => self.asked.push(Asked::Packet(packet.name())),
                Output::Action(Action::Close { .. }) => self.asked.push(Asked::Close),
                Output::Action(_) | Output::Event(_) | _ => {}
            }
        }
    }

    fn asked(&mut self) -> Vec<Asked> {
        core::mem::take(&mut self.asked)
    }

    /// Whether all that was asked is the state of this operation.
    fn polled(&mut self, operation: &str) -> bool {
        matches!(&self.asked()[..], [Asked::Register { operation_id: Some(id), body, .. }]
            if id == operation && body.is_empty())
    }
}

const ASSIGNING: &str = r#"{"operationId":"4.op","status":"assigning"}"#;
const ASSIGNED: &str = r#"{"operationId":"4.op","status":"assigned","registrationState":{"assignedHub":"hub-a.azure-devices.net","deviceId":"pump-7"}}"#;
const ANSWER: Input<'static> = Input::Registered { status: 200, retry_after_secs: None, body: ASSIGNED.as_bytes() };

/// An answer as it comes over MQTT.
fn answer_over_mqtt() -> Vec<u8> {
    let topic = "$dps/registrations/res/200/?$rid=1";
    let length = |len: usize| u8::try_from(len).expect("a short packet");
    let rest = 2 + topic.len() + ASSIGNED.len();
    let mut packet = vec![0x30, length(rest & 0x7f) | 0x80, length(rest >> 7), 0, length(topic.len())];
    packet.extend_from_slice(topic.as_bytes());
    packet.extend_from_slice(ASSIGNED.as_bytes());
    packet
}

#[test]
fn a_registration_is_requests_and_answers_and_no_packet_up_to_the_assignment() {
    let mut pump = Pump::connected(true);
    let connect = Asked::Connect { host: GLOBAL_HOST.into(), port: 443, https: true };
    assert_eq!(pump.asked(), [connect]);
    pump.input(Input::Ready);
    let asked = pump.asked();
    let [Asked::Register { operation_id: None, body, token }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(body, r#"{"registrationId":"pump-7"}"#);
    assert!(token.starts_with("SharedAccessSignature ") && token.contains("&sig="), "{token}");
    pump.answer(202, Some(3), ASSIGNING);
    assert_eq!(pump.asked(), []);
    let before = pump.now;
    pump.sleep();
    let waited = pump.now.since(before);
    assert!((3_000..=3_750).contains(&waited.as_millis()), "{waited:?}");
    assert!(pump.polled("4.op"));
    pump.answer(200, None, ASSIGNED);
    assert_eq!(pump.asked(), [Asked::Close], "HTTPS knows no DISCONNECT");
    pump.input(Input::Signed(&[8; 32]));
    let connect = Asked::Connect { host: "hub-a.azure-devices.net".into(), port: 8883, https: false };
    assert_eq!(pump.asked(), [connect]);
    assert_eq!(pump.link.state(), State::Connecting);
}

#[test]
fn a_refused_poll_keeps_the_operation_and_no_ping_goes_out_while_it_waits() {
    let mut pump = Pump::registering();
    pump.answer(202, None, ASSIGNING);
    pump.sleep();
    pump.asked();
    pump.answer(429, Some(100), "{}");
    let before = pump.now;
    while pump.asked.is_empty() {
        pump.sleep();
    }
    // The keep-alive interval of 5 s passed many times.
    assert!(pump.now.since(before) >= Duration::from_secs(100));
    assert!(pump.polled("4.op"));
    assert_eq!(pump.link.status().registrations, 1);
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut pump = Pump::connected(true);
    pump.input(ANSWER);
    assert_eq!(pump.link.assignment(), None, "before the connection is ready");
    pump.input(Input::Ready);
    let first = pump.attempt();
    pump.answer(202, None, ASSIGNING);
    pump.input(ANSWER);
    assert_eq!(pump.link.assignment(), None, "between two requests");
    pump.input(Input::Failed(Failure::Lost));
    pump.sleep();
    pump.input(Input::Signed(&[7; 32]));
    pump.input(Input::Ready);
    assert_ne!(pump.attempt(), first);
    pump.link.handle_input(ANSWER, first, pump.now);
    pump.drain();
    assert_eq!(pump.link.assignment(), None, "of an earlier attempt");
    pump.input(ANSWER);
    assert!(pump.link.assignment().is_some());
}

#[test]
fn a_request_without_an_answer_ends_the_attempt_and_its_connection() {
    let mut pump = Pump::registering();
    pump.asked();
    pump.sleep();
    assert_eq!(pump.asked(), [Asked::Close]);
    let failure = Failure::Provisioning(ProvisioningFailure::NoAnswer);
    assert_eq!(pump.link.status().last_failure, Some(failure));
}

#[test]
fn what_comes_over_mqtt_answers_no_request_over_https() {
    let packet = answer_over_mqtt();
    let mut pump = Pump::registering();
    pump.link.handle_input(Input::Bytes(&packet), pump.attempt(), pump.now);
    pump.drain();
    assert_eq!(pump.link.assignment(), None);
    assert_eq!(pump.link.status().last_failure, Some(Failure::UnexpectedPacket));
}

#[test]
fn what_comes_over_https_answers_no_request_over_mqtt() {
    let mut pump = Pump::connected(false);
    pump.input(Input::Ready);
    pump.link.handle_input(Input::Bytes(&[0x20, 2, 0, 0]), pump.attempt(), pump.now);
    pump.drain();
    // SUBACK for the first subscription.
    let packet = [0x90, 3, 0xff, 0xf0, 1];
    for low in 0..=u8::MAX {
        let [head, len, high, _, code] = packet;
        if pump.asked.contains(&Asked::Packet("PUBLISH")) {
            break;
        }
        pump.link.handle_input(Input::Bytes(&[head, len, high, low, code]), pump.attempt(), pump.now);
        pump.drain();
    }
    assert!(pump.asked.contains(&Asked::Packet("PUBLISH")), "{:?}", pump.asked);
    pump.input(ANSWER);
    assert_eq!(pump.link.assignment(), None);
    pump.link.handle_input(Input::Bytes(&answer_over_mqtt()), pump.attempt(), pump.now);
    assert!(pump.link.assignment().is_some());
}

#[test]
fn a_frontend_without_https_refuses_the_configuration_before_the_first_packet() {
    let config = config(true);
    config.check().expect("the configuration itself is good");
    let made = Link::new(Provisioned::new(&config), RamOutbox::<4, 256>::new(), Seed::from_number(7), Instant::ORIGIN);
    assert_eq!(made.err(), Some(ConfigError::HttpsRegistration));
}
