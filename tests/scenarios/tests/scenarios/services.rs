//! Twin, methods and cloud-to-device messages across everything that can happen to a link.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a scenario fails where it is")]

use core::time::Duration;

use scenarios::{hours, mins, secs, seeds};
use serde_json::{Value, json};
use steadfast_core::iothub::operator_commands::OperatorCommands;
use steadfast_core::{CallId, Event, Failure, RespondError, State, Subscriptions, iothub};
use steadfast_sim::service::{Greeting, TwinFault, merge};
use steadfast_sim::{Feed, Told, World};

fn world(seed: u64) -> World {
    let feeds = [Feed::Whole, Feed::Pieces, Feed::Bytes, Feed::Packets];
    let feed = feeds[usize::try_from(seed % 4).unwrap()];
    let builder = World::builder().seed(seed).assigned().feed(feed);
    builder.configure(|config| config.subscriptions = Subscriptions::ALL).build()
}

fn up(seed: u64) -> World {
    let mut world = world(seed);
    world.start();
    world.run_until_up();
    // Beyond the spread of what follows a connection.
    world.run_for(mins(1));
    world
}

fn report(world: &mut World, patch: &Value) -> steadfast_core::ReportId {
    world.command(0, |link, now| link.report(patch.to_string().as_bytes(), now)).unwrap()
}

/// What an application holds that follows desired properties; every version has to be a new one.
#[derive(Debug)]
struct Follower {
    taken: usize,
    desired: Value,
    version: u64,
}

impl Follower {
    fn new() -> Self {
        Self { taken: 0, desired: json!({}), version: 0 }
    }

    fn follow(&mut self, world: &World) {
        for (at, told) in &world.told()[self.taken..] {
            let (version, reset) = match told {
                Told::Twin { desired, version, reset } => {
                    self.desired = desired.clone();
                    (*version, *reset)
                }
                Told::Desired { patch, version } => {
                    assert_eq!(*version, self.version + 1, "a change was skipped at {at} ms");
                    merge(&mut self.desired, patch);
                    (*version, false)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(reset, version < self.version, "version {version} after {} at {at} ms", self.version);
            assert_ne!(version, self.version, "version {version} twice, at {at} ms");
            self.version = version;
            self.desired.as_object_mut().unwrap().remove("$version");
        }
        self.taken = world.told().len();
    }
}

#[test]
fn desired_properties_are_followed_whatever_happens() {
    seeds(60, |seed| {
        let mut world = world(seed);
        world.start();
        let mut follower = Follower::new();
        for round in 0..60 {
            match world.rng().between(0, 11) {
                0 => world.hub_down(0),
                1 => world.hub_up(0),
                2 => world.reset_all(),
                3 => {
                    let fault = match world.rng().between(0, 4) {
                        0 => TwinFault::Status(429),
                        1 => TwinFault::Status(503),
                        2 => TwinFault::Silence,
                        3 => TwinFault::Close,
                        _ => TwinFault::Late(5_000),
                    };
                    world.hub_mut(0).next_twin_faults([fault]);
                }
                4 => world.freeze(),
                5 if follower.version > 4 => {
                    // Seen in time: one whose version has caught up cannot be told from the old one.
                    world.hub_up(0);
                    world.run_for(hours(2));
                    world.renew_twin(0);
                    world.desire(0, &json!({"anew": round}), false);
                    world.run_for(hours(2));
                }
                lot => {
                    let key = format!("k{}", world.rng().between(0, 3));
                    let value = if lot == 6 { Value::Null } else { json!(round) };
                    let lost = lot == 7;
                    world.desire(0, &json!({ key: value }), lost);
                }
            }
            let pause = world.rng().between(0, 20_000);
            world.run_for(Duration::from_millis(pause));
            follower.follow(&world);
        }
        world.hub_up(0);
        world.run_for(hours(12));
        world.run_until_up();
        // A change that nothing follows is not missed for ever: the next one shows the gap.
        world.desire(0, &json!({"last": true}), false);
        world.run_for(hours(1));
        follower.follow(&world);
        let twin = world.twin(0);
        assert_eq!((follower.version, &follower.desired), (twin.desired_version, &twin.desired), "seed {seed}");
    });
}

#[test]
fn reported_properties_end_as_the_application_left_them() {
    seeds(60, |seed| {
        let mut world = world(seed);
        world.start();
        let mut expected = json!({});
        let mut latest = None;
        for round in 0..60 {
            match world.rng().between(0, 9) {
                0 => world.hub_down(0),
                1 => world.hub_up(0),
                2 => world.reset_all(),
                3 => {
                    let faults = [
                        TwinFault::Status(429),
                        TwinFault::Status(500),
                        TwinFault::Silence,
                        TwinFault::Close,
                        TwinFault::Late(90_000),
                    ];
                    let lot = usize::try_from(world.rng().between(0, 4)).unwrap();
                    world.hub_mut(0).next_twin_faults([faults[lot]]);
                }
                lot => {
                    let key = format!("k{}", world.rng().between(0, 2));
                    let patch = match lot {
                        4 => json!({ key: null }),
                        5 => json!({ key: { "x": round } }),
                        6 => json!({ key: { "x": null, "y": round } }),
                        _ => json!({ key: round }),
                    };
                    let taken = world.command(0, |link, now| link.report(patch.to_string().as_bytes(), now));
                    // Full is an answer too: the application tries again later.
                    if let Ok(id) = taken {
                        merge(&mut expected, &patch);
                        latest = Some(id);
                    }
                }
            }
            let pause = world.rng().between(0, 20_000);
            world.run_for(Duration::from_millis(pause));
        }
        world.hub_up(0);
        world.run_for(hours(12));
        world.run_until_up();
        world.run_for(hours(1));
        assert_eq!(world.twin(0).reported, expected, "seed {seed}");
        let told = world.service_events().iter().rev().find_map(|(_, event)| match event {
            iothub::Event::Reported { report, .. } => Some(*report),
            _ => None,
        });
        assert_eq!(told, latest, "seed {seed}");
    });
}

#[test]
fn patches_made_offline_arrive_as_one() {
    let mut world = up(1);
    world.hub_down(0);
    world.run_for(secs(5));
    let before = world.hub(0).twin_requests().len();
    for number in 0..100 {
        report(&mut world, &json!({"count": number, "state": {"door": "shut"}}));
    }
    let last = report(&mut world, &json!({"state": {"door": null}}));
    world.hub_up(0);
    world.run_until_up();
    world.run_for(mins(2));
    assert_eq!(world.twin(0).reported, json!({"count": 99, "state": {}}));
    assert_eq!(world.hub(0).twin_requests().len(), before + 2, "one patch, and one look at the twin");
    assert_eq!(
        world.count_of_services(|event| matches!(event, iothub::Event::Reported { report, .. } if *report == last)),
        1
    );
}

#[test]
fn a_refused_patch_is_told_and_does_not_hold_up_others() {
    let mut world = up(2);
    world.hub_mut(0).next_twin_faults([TwinFault::Status(400)]);
    let refused = report(&mut world, &json!({"a": 1}));
    world.run_for(secs(1));
    let taken = report(&mut world, &json!({"b": 2}));
    world.run_for(secs(1));
    assert_eq!(
        world.count_of_services(|event| *event == iothub::Event::ReportRefused { report: refused, status: 400 }),
        1
    );
    assert_eq!(
        world.count_of_services(|event| matches!(event, iothub::Event::Reported { report, .. } if *report == taken)),
        1
    );
    assert_eq!(world.twin(0).reported, json!({"b": 2}));
}

#[test]
fn a_throttled_twin_is_asked_for_ever_less_often() {
    let mut world = up(3);
    world.hub_mut(0).twin_fault(TwinFault::Status(429));
    let before = world.hub(0).twin_requests().len();
    report(&mut world, &json!({"a": 1}));
    world.run_for(hours(2));
    let asked = world.hub(0).twin_requests().len() - before;
    assert!((10..40).contains(&asked), "{asked} requests in two hours");
    let throttled = |event: &iothub::Event| matches!(event, iothub::Event::TwinThrottled { status: 429 });
    assert_eq!(world.count_of_services(throttled), asked);
    assert_eq!(world.state(), State::Up, "a throttled twin is no reason to leave");
    world.hub_mut(0).twin_fault(TwinFault::None);
    world.run_for(mins(15));
    assert_eq!(world.twin(0).reported, json!({"a": 1}));
}

#[test]
fn a_hub_that_never_gives_the_twin_is_left_and_tried_again() {
    let mut world = up(4);
    world.hub_mut(0).twin_fault(TwinFault::Silence);
    report(&mut world, &json!({"a": 1}));
    world.run_for(mins(10));
    assert!(world.count(|event| *event == Event::Down(Failure::TwinUnanswered)) >= 1);
    world.hub_mut(0).twin_fault(TwinFault::None);
    world.run_for(mins(30));
    assert_eq!(world.twin(0).reported, json!({"a": 1}));
    assert_eq!(world.state(), State::Up);
}

#[test]
fn a_twin_that_breaks_every_connection_does_not_keep_the_device_offline() {
    let mut world = world(5);
    world.hub_mut(0).twin_fault(TwinFault::Close);
    world.start();
    world.run_for(hours(2));
    assert_eq!(world.count_of_services(|event| *event == iothub::Event::TwinGivenUp), 1);
    assert!(world.count(|event| matches!(event, Event::Down(_))) < 12, "online but for a few looks");
    world.publish("still useful");
    world.run_until_delivered();
    world.hub_mut(0).twin_fault(TwinFault::None);
    world.command(0, |link, now| link.get_twin(now));
    world.run_for(mins(1));
    assert!(matches!(world.told().last(), Some((_, Told::Twin { .. }))));
}

#[test]
fn a_fleet_that_comes_back_does_not_ask_for_its_twins_in_step() {
    let devices = 300;
    let builder = World::builder().seed(6).assigned().devices(devices);
    let mut world = builder.configure(|config| config.subscriptions = Subscriptions::ALL).build();
    world.start();
    world.run_until_up();
    world.run_for(mins(10));
    // The hub takes connections and closes them again: overload, by all a device can know.
    world.hub_mut(0).faults.greeting = Greeting::Close;
    world.reset_all();
    world.run_for(mins(20));
    world.hub_mut(0).faults.greeting = Greeting::Judge;
    world.hub_mut(0).faults.next_greetings.clear();
    let before = world.hub(0).twin_requests().len();
    world.run_for(hours(2));
    let requests = &world.hub(0).twin_requests()[before..];
    assert!(requests.len() >= devices, "{} of {devices} asked", requests.len());
    let mut most = 0;
    for (place, at) in requests.iter().enumerate() {
        most = most.max(requests[place..].iter().take_while(|other| **other < at + 1_000).count());
    }
    assert!(most <= devices / 20, "{most} of {devices} asked within a second");
}

fn next_call(world: &World) -> (CallId, String) {
    match world.told().last() {
        Some((_, Told::Call { call, name, .. })) => (*call, name.clone()),
        other => panic!("no call: {other:?}"),
    }
}

fn respond(world: &mut World, call: CallId, status: u16, body: &[u8]) -> Result<(), RespondError> {
    world.command(0, |link, now| link.respond(call, status, body, now))
}

#[test]
fn calls_are_answered_each_on_its_own_however_they_interleave() {
    seeds(20, |seed| {
        let mut world = up(seed);
        let mut open = Vec::new();
        for number in 0..40_u16 {
            world.call(0, "thermo*reset", &format!("{number:x}"), number.to_string().as_bytes());
            world.run_for(secs(1));
            let (call, name) = next_call(&world);
            assert_eq!(name, "thermo*reset");
            open.push((number, call));
            while open.len() > 4 {
                let lot = world.rng().between(0, open.len() as u64 - 1);
                let (number, call) = open.swap_remove(usize::try_from(lot).unwrap());
                respond(&mut world, call, 200 + number, format!("\"{number}\"").as_bytes()).unwrap();
            }
        }
        world.run_for(secs(2));
        assert_eq!(world.hub(0).answers().len(), 36);
        for answer in world.hub(0).answers() {
            let number = u16::from_str_radix(&answer.request, 16).unwrap();
            assert_eq!((answer.status, answer.body.clone()), (200 + number, format!("\"{number}\"").into_bytes()));
        }
    });
}

#[test]
fn an_answer_never_crosses_to_another_connection() {
    seeds(20, |seed| {
        let mut world = up(seed);
        world.call(0, "reboot", "1", b"");
        world.run_for(secs(1));
        let (late, _) = next_call(&world);
        world.call(0, "reboot", "2", b"");
        world.run_for(secs(1));
        let (queued, _) = next_call(&world);
        // Nothing can leave, so the answer waits; then the connection ends.
        world.freeze();
        respond(&mut world, queued, 200, b"").unwrap();
        world.reset_all();
        world.run_until_down();
        assert_eq!(respond(&mut world, late, 200, b""), Err(RespondError::ConnectionLost));
        world.run_until_up();
        assert_eq!(respond(&mut world, late, 200, b""), Err(RespondError::ConnectionLost));
        // A new call may have the name of an old one.
        world.call(0, "reboot", "1", b"");
        world.run_for(secs(1));
        assert_eq!(respond(&mut world, late, 200, b"late"), Err(RespondError::ConnectionLost));
        let (new, _) = next_call(&world);
        respond(&mut world, new, 200, b"\"new\"").unwrap();
        world.run_for(secs(1));
        let answers: Vec<_> = world.hub(0).answers().iter().map(|answer| answer.body.clone()).collect();
        assert_eq!(answers, [b"\"new\"".to_vec()]);
        assert!(world.count_of_services(|event| matches!(event, iothub::Event::CallsDropped { .. })) >= 1);
    });
}

#[test]
fn a_completed_message_that_comes_again_is_known_and_an_abandoned_one_is_new() {
    let mut world = up(7);
    world.set_acknowledging(false);
    world.send_with(0, "%24.mid=open", "open");
    world.send_with(0, "%24.mid=shut", "shut");
    world.run_for(secs(1));
    let [open, shut] = [0, 1].map(|place| world.inbound()[place].clone());
    assert!(!open.duplicate && !shut.duplicate);
    world.reset_all();
    world.run_until_down();
    // The application is done with the first one, too late for its connection.
    let taken = world.command(0, |link, now| link.acknowledge(open.packet_id.unwrap(), open.attempt, now));
    assert!(!taken);
    world.set_acknowledging(true);
    world.run_until_up();
    world.run_for(secs(5));
    let again: Vec<_> = world.inbound()[2..].iter().map(|one| (one.payload.clone(), one.duplicate)).collect();
    assert_eq!(again, [(b"open".to_vec(), true), (b"shut".to_vec(), false)]);
}

#[test]
fn an_order_that_makes_no_sense_is_refused_in_the_twin_and_one_taken_back_is_left_alone() {
    let mut world = up(8);
    world.command(0, |link, _| link.allow_operator_commands(OperatorCommands::ALL));
    world.desire(0, &json!({"steadfast": {"__t": "c", "spread": "soon", "logLevel": "verbose", "other": 1}}), false);
    world.run_for(secs(5));
    let refused =
        json!({"spread": {"value": "soon", "ac": 400, "av": 2}, "logLevel": {"value": "verbose", "ac": 400, "av": 2}});
    let mut reported = world.twin(0).reported["steadfast"].clone();
    reported.as_object_mut().unwrap().remove("__t");
    assert_eq!(reported, refused);
    let version = world.twin(0).reported_version;
    world.desire(0, &json!({"steadfast": {"__t": "c", "spread": null, "logLevel": null}}), false);
    world.run_for(secs(5));
    assert_eq!(world.twin(0).reported_version, version);
    assert_eq!(world.count_of_services(|event| matches!(event, iothub::Event::OperatorCommand(_))), 0);
}

#[test]
fn an_order_to_register_is_refused_by_a_device_whose_hub_is_configured() {
    let builder = World::builder().configure(|config| {
        let (host, device_id) = ("hub-a.azure-devices.net".to_owned(), "pump-7".to_owned());
        config.service = steadfast_core::Service::Hub { host, device_id };
        config.subscriptions = Subscriptions::ALL;
    });
    let mut world = builder.build();
    world.command(0, |link, _| link.allow_operator_commands(OperatorCommands::ALL));
    world.start();
    world.run_until_up();
    world.call(0, "steadfast*reprovision", "1", b"");
    world.run_for(mins(2));
    assert_eq!(world.hub(0).answers()[0].status, 400);
    assert_eq!(world.count_of_services(|event| matches!(event, iothub::Event::OperatorCommand(_))), 0);
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
}

#[test]
fn orders_are_carried_out_only_when_they_are_allowed() {
    for allowed in [false, true] {
        let mut world = up(8);
        if allowed {
            world.command(0, |link, _| link.allow_operator_commands(OperatorCommands::ALL));
        }
        let registrations = world.registrations().len();
        world.desire(0, &json!({"steadfast": {"__t": "c", "spread": 1200, "logLevel": "debug"}}), false);
        world.run_for(secs(5));
        world.call(0, "steadfast*reprovision", "1", b"{\"spread\":20}");
        world.run_for(mins(2));
        let ordered = world.count_of_services(|event| matches!(event, iothub::Event::OperatorCommand(_)));
        let registered = world.registrations().len() - registrations;
        if allowed {
            assert_eq!((ordered, registered), (3, 1));
            assert_eq!(world.hub(0).answers()[0].status, 202);
            let acknowledged = &world.twin(0).reported["steadfast"];
            assert_eq!(acknowledged["spread"], json!({"value": 1200, "ac": 200, "av": 2}));
            assert_eq!(acknowledged["logLevel"], json!({"value": "debug", "ac": 200, "av": 2}));
        } else {
            assert_eq!((ordered, registered), (0, 0));
            assert!(matches!(world.told().last(), Some((_, Told::Call { .. }))), "the application's own affair");
        }
    }
}
