//! Modules, devices behind a gateway, Plug and Play, and IoT Central.

#![expect(clippy::unwrap_used, reason = "a scenario fails where it is")]

use core::time::Duration;

use scenarios::{hours, mins, secs, seeds};
use serde_json::{Value, json};
use steadfast_core::iothub::pnp::{self, Acknowledgement};
use steadfast_core::{Event, Message, ServiceKind, Subscriptions};
use steadfast_sim::service::{DpsFault, PublishFault};
use steadfast_sim::{Reach, Told, World};

const GATEWAY: &str = "edge-3.plant.local";
const MODEL: &str = "dtmi:com:example:Thermostat;1";

fn module(seed: u64) -> World {
    let builder = World::builder().seed(seed).fixed_hub();
    builder
        .configure(|config| {
            config.module_id = Some("filter".into());
            config.subscriptions = Subscriptions::MODULE;
        })
        .build()
}

fn behind_gateway(seed: u64, devices: usize) -> World {
    let builder = World::builder().seed(seed).devices(devices).fixed_hub();
    let mut world = builder.configure(|config| config.gateway = Some(GATEWAY.into())).build();
    let hub = world.hub(0).name().to_owned();
    world.network().add_gateway(GATEWAY, &hub);
    world
}

fn with_model(seed: u64) -> World {
    let builder = World::builder().seed(seed);
    builder
        .configure(|config| {
            config.model_id = Some(MODEL.into());
            config.subscriptions = Subscriptions::ALL;
        })
        .build()
}

/// One of the things that break connections.
fn disturb(world: &mut World) {
    match world.rng().between(0, 4) {
        0 => world.hub_down(0),
        1 => world.hub_up(0),
        2 => world.reset_all(),
        3 => world.freeze(),
        _ => world.hub_mut(0).faults.next_publishes.push_back(PublishFault::CloseAfterStore),
    }
}

fn pause(world: &mut World) {
    let pause = world.rng().between(0, 20_000);
    world.run_for(Duration::from_millis(pause));
}

#[test]
fn a_module_s_twin_is_its_own_and_no_change_of_it_is_missed() {
    seeds(40, |seed| {
        let mut world = module(seed);
        world.start();
        for round in 0..30 {
            disturb(&mut world);
            world.desire(0, &json!({"level": round}), false);
            let patch = json!({"round": round}).to_string();
            world.command(0, |link, now| link.report(patch.as_bytes(), now)).unwrap();
            pause(&mut world);
        }
        world.hub_up(0);
        world.run_for(hours(12));
        world.run_until_up();
        world.run_for(hours(1));
        let mut latest = 0;
        for (_, told) in world.told() {
            let (Told::Twin { version, .. } | Told::Desired { version, .. }) = told else { panic!("{told:?}") };
            assert!(*version > latest, "seed {seed}: version {version} after {latest}");
            latest = *version;
        }
        let twin = world.twin(0);
        assert_eq!(latest, twin.desired_version, "seed {seed}");
        assert_eq!(twin.reported, json!({"round": 29}), "seed {seed}");
        assert_eq!(world.hub_mut(0).twin("pump-7").reported, json!({}), "the device's twin is another");
    });
}

#[test]
fn the_largest_message_to_an_input_and_the_largest_call_break_no_connection() {
    let mut world = module(1);
    world.start();
    world.run_until_up();
    let body = "x".repeat(262_144 - "unit=bar".len());
    world.send_to_input(0, "raw", "unit=bar", &body);
    let call = format!("\"{}\"", "x".repeat(128 * 1024 - 2));
    world.call(0, "blink", "1", call.as_bytes());
    world.run_for(mins(1));
    assert_eq!(world.inbound()[0].payload.len(), body.len());
    assert!(world.told().iter().any(|(_, told)| matches!(told, Told::Call { .. })));
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
}

#[test]
fn what_goes_to_an_input_waits_for_its_module_and_comes_until_it_is_acknowledged() {
    seeds(20, |seed| {
        let mut world = module(seed);
        world.start();
        world.run_until_up();
        world.run_for(mins(1));
        world.set_acknowledging(false);
        world.send_to_input(0, "raw", "unit=bar", "held");
        world.run_for(mins(1));
        world.hub_down(0);
        for number in 0..5 {
            world.send_to_input(0, "raw", "unit=bar", &number.to_string());
        }
        world.set_acknowledging(true);
        world.run_for(mins(20));
        world.hub_up(0);
        world.run_until_up();
        world.run_for(mins(1));
        let came: Vec<_> = world.inbound().iter().map(|one| (one.topic.as_str(), one.payload.as_slice())).collect();
        let bodies: [&[u8]; 7] = [b"held", b"held", b"0", b"1", b"2", b"3", b"4"];
        assert_eq!(came, bodies.map(|body| ("inputs/raw/unit=bar", body)), "seed {seed}");
        assert!(world.inbound()[1].dup);
        world.reset_all();
        world.run_until_up();
        world.run_for(mins(1));
        assert_eq!(world.inbound().len(), 7, "what was acknowledged does not come again");
    });
}

#[test]
fn a_call_to_a_module_is_answered_by_that_module() {
    let mut world = module(3);
    world.start();
    world.run_until_up();
    world.run_for(mins(1));
    world.call(0, "flush", "a1", b"null");
    world.run_for(secs(5));
    let Some((_, Told::Call { call, name, .. })) = world.told().last().cloned() else { panic!("a call") };
    assert_eq!(name, "flush");
    world.command(0, |link, now| link.respond(call, 200, b"1", now)).unwrap();
    world.run_for(secs(5));
    let answers: Vec<_> =
        world.hub(0).answers().iter().map(|answer| (answer.request.as_str(), answer.status)).collect();
    assert_eq!(answers, [("a1", 200)]);
}

#[test]
fn messages_leave_by_a_module_s_outputs_in_order_through_every_cut() {
    seeds(30, |seed| {
        let mut world = module(seed);
        world.start();
        for _ in 0..20 {
            world.publish_as(0, Message::telemetry("%24.on=alarms", b"x")).unwrap();
            disturb(&mut world);
            pause(&mut world);
        }
        world.hub_up(0);
        world.run_until_delivered();
        for receipt in world.hub(0).receipts() {
            let rest = receipt.topic.strip_prefix("devices/pump-7/modules/filter/messages/events/");
            assert!(rest.is_some_and(|bag| bag.ends_with("&%24.on=alarms")), "{}", receipt.topic);
        }
    });
}

#[test]
fn a_device_behind_a_gateway_dials_the_gateway_and_proves_itself_to_the_hub() {
    seeds(20, |seed| {
        let mut world = behind_gateway(seed, 1);
        let hub = world.hub(0).name().to_owned();
        world.start();
        for round in 0..8 {
            world.publish_many(3);
            let reach = match round % 4 {
                0 => Reach::Refused,
                1 => Reach::BlackHole,
                2 => Reach::Unresolved,
                _ => Reach::TlsStalls,
            };
            world.network().set(GATEWAY, reach);
            world.reset_all();
            world.run_for(mins(3));
            world.network().set(GATEWAY, Reach::Open);
            world.run_until_delivered();
        }
        assert!(world.attempts().iter().all(|attempt| attempt.host == GATEWAY && attempt.role == ServiceKind::Hub));
        for user_name in world.hub(0).user_names() {
            assert!(user_name.starts_with(&format!("{hub}/pump-7/?api-version=")), "{user_name}");
        }
    });
}

#[test]
fn a_gateway_that_restarts_gets_its_devices_back_one_by_one() {
    let mut world = behind_gateway(5, 100);
    world.start();
    world.run_until_up();
    world.run_for(mins(10));
    let before = world.attempts().len();
    let lost = world.now_ms();
    world.network().set(GATEWAY, Reach::Refused);
    world.reset_all();
    world.run_for(secs(60));
    world.network().set(GATEWAY, Reach::Open);
    let back = world.now_ms();
    world.run_until_up();
    assert!(before > 0 && world.now_ms() - back < 30_000, "back {} ms after the gateway", world.now_ms() - back);
    // Refused connections cost the gateway nothing; the ones that succeed must not come in the same moment.
    let mut seconds = [0_u32; 40];
    for number in 0..world.devices() {
        let last = world.attempts_of(number).last().unwrap();
        assert!(last.at_ms > lost);
        let second = usize::try_from(last.at_ms.saturating_sub(back) / 1000).unwrap();
        seconds[second] += 1;
    }
    assert!(seconds.iter().all(|count| *count <= 25), "{seconds:?}");
}

#[test]
fn the_model_is_announced_wherever_the_device_turns() {
    seeds(20, |seed| {
        let mut world = with_model(seed);
        world.start();
        world.run_until_up();
        world.publish_many(5);
        world.move_device(0, 1);
        world.publish_many(5);
        world.run_until_delivered();
        assert_eq!(world.registrations().len(), 2);
        for payload in world.dps().payloads() {
            let body: Value = serde_json::from_str(payload).unwrap();
            assert_eq!(body["payload"], json!({"modelId": MODEL}), "seed {seed}");
        }
        for number in [0, 1] {
            let names = world.hub(number).user_names();
            assert!(!names.is_empty());
            assert!(
                names.iter().all(|name| name.contains("&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1")),
                "{names:?}"
            );
        }
    });
}

/// What the application of a thermostat does with a wish: it takes it, and says so.
fn obey(world: &mut World, taken: &mut usize) {
    let new = world.told()[*taken..].to_vec();
    *taken += new.len();
    for (_, told) in new {
        let (document, version) = match told {
            Told::Twin { desired, version, .. } => (desired, version),
            Told::Desired { patch, version } => (patch, version),
            Told::Call { .. } | _ => panic!("{told:?}"),
        };
        let document = document.to_string();
        for property in pnp::properties(&document).filter(|property| property.name == "target") {
            let mut buffer = [0; 256];
            let acknowledgement = Acknowledgement {
                component: property.component.and_then(|component| component.plain()),
                name: "target",
                value: property.value.raw(),
                status: pnp::APPLIED,
                version,
                description: "warming up",
            };
            let patch = acknowledgement.write(&mut buffer).unwrap();
            // A full queue is an answer too: the next wish acknowledges this one as well.
            let _ = world.command(0, |link, now| link.report(patch, now));
        }
    }
}

#[test]
fn the_latest_wish_is_acknowledged_with_its_version_whatever_happens() {
    seeds(40, |seed| {
        let mut world = with_model(seed);
        world.start();
        let mut taken = 0;
        for round in 0..30 {
            disturb(&mut world);
            world.desire(0, &json!({"thermo": {"__t": "c", "target": round}}), round % 5 == 0);
            pause(&mut world);
            obey(&mut world, &mut taken);
        }
        world.hub_up(0);
        for round in 0..3 {
            world.run_for(hours(12));
            world.run_until_up();
            world.run_for(hours(1));
            obey(&mut world, &mut taken);
            if round == 0 {
                // The notification before may have been the one that was lost.
                world.desire(0, &json!({"thermo": {"__t": "c", "target": 99}}), false);
            }
        }
        let twin = world.twin(0);
        let expected = json!({"value": 99, "ac": 200, "av": twin.desired_version, "ad": "warming up"});
        assert_eq!(twin.reported["thermo"]["target"], expected, "seed {seed}");
        assert_eq!(twin.reported["thermo"]["__t"], "c");
    });
}

#[test]
fn a_component_s_command_and_telemetry_carry_its_name() {
    let mut world = with_model(4);
    world.start();
    world.run_until_up();
    world.run_for(mins(1));
    world.call(0, "thermo*reboot", "7", b"{}");
    world.publish_as(0, Message::telemetry("%24.sub=thermo", b"20")).unwrap();
    world.run_until_delivered();
    world.run_for(secs(5));
    let called =
        world.told().iter().filter(|(_, told)| matches!(told, Told::Call { name, .. } if name == "thermo*reboot"));
    assert_eq!(called.count(), 1);
    assert!(world.hub(0).receipts()[0].topic.contains("%24.sub=thermo"));
}

#[test]
fn a_failover_of_iot_central_takes_its_devices_along_whether_the_old_hub_refuses_or_is_gone() {
    seeds(20, |seed| {
        let mut world = with_model(seed);
        world.start();
        world.run_until_up();
        world.run_for(mins(10));
        let refuses = seed % 2 == 0;
        if refuses {
            world.move_device(0, 1);
        } else {
            world.move_device(0, 1);
            world.hub_down(0);
        }
        let began = world.now_ms();
        world.publish_many(10);
        world.run_until_delivered();
        let took = Duration::from_millis(world.now_ms() - began);
        let longest = if refuses { mins(3) } else { mins(45) };
        assert!(took <= longest, "seed {seed}: {took:?}");
        assert_eq!(world.registrations().len(), 2);
        assert_eq!(world.count(|event| matches!(event, Event::Provisioned { migrated: true })), 1);
    });
}

#[test]
fn a_device_that_an_operator_of_iot_central_blocks_asks_ever_less_often_and_returns_when_it_may() {
    let mut world = with_model(6);
    world.start();
    world.run_until_up();
    world.run_for(mins(10));
    world.publish_many(3);
    world.run_until_delivered();
    world.set_enabled(0, false);
    world.dps_mut().fault = DpsFault::Disabled;
    world.publish_many(3);
    world.run_for(hours(48));
    let registrations = world.registrations().len();
    assert!(
        registrations <= 80,
        "{registrations} registrations in two days: at most one in half an hour and the first"
    );
    world.set_enabled(0, true);
    world.dps_mut().fault = DpsFault::None;
    world.run_until_delivered();
}

#[test]
fn a_command_that_waited_for_a_device_of_iot_central_comes_as_a_message_once_it_is_back() {
    let mut world = with_model(7);
    world.start();
    world.run_until_up();
    world.run_for(mins(1));
    world.hub_down(0);
    world.send_with(0, "%24.mid=c1&method-name=thermo%3Areboot", "{}");
    world.run_for(mins(30));
    world.hub_up(0);
    world.run_until_up();
    world.run_for(mins(1));
    let came: Vec<_> = world.inbound().iter().map(|one| one.topic.rsplit('/').next().unwrap()).collect();
    assert_eq!(came.iter().filter(|bag| bag.contains("method-name=thermo%3Areboot")).count(), 1, "{came:?}");
}
