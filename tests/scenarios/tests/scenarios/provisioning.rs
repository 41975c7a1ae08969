//! The dialogue with the Device Provisioning Service.

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{Failure, ProvisioningFailure, ServiceKind, State};
use steadfast_sim::World;
use steadfast_sim::service::DpsFault;

fn failing(fault: DpsFault, seed: u64) -> World {
    let mut world = World::builder().seed(seed).build();
    world.dps_mut().fault = fault;
    world.start();
    world.publish("21.5");
    world
}

#[test]
fn assigning_is_polled_at_the_pace_the_service_names() {
    seeds(20, |seed| {
        let fault = DpsFault::Assigning { polls: 4, retry_after_secs: Some(7) };
        let mut world = failing(fault, seed);
        world.run_until_delivered();
        let mut asked = world.registrations();
        asked.extend_from_slice(world.dps().polls());
        assert_eq!(asked.len(), 5);
        for pair in asked.windows(2) {
            assert!((7_000..8_900).contains(&(pair[1] - pair[0])), "{asked:?}");
        }
        assert_eq!(world.registrations().len(), 1);
    });
}

#[test]
fn unassigned_and_a_changed_operation_are_polled_on() {
    for fault in [DpsFault::Unassigned(3), DpsFault::OtherOperation(3)] {
        let mut world = failing(fault, 1);
        world.run_until_delivered();
        assert_eq!((world.registrations().len(), world.dps().polls().len()), (1, 3));
    }
}

#[test]
fn a_throttled_service_is_left_alone_for_its_retry_after_and_some_jitter() {
    let mut delays: Vec<u64> = Vec::new();
    seeds(30, |seed| {
        let fault = DpsFault::Status { status: 429, retry_after_secs: Some(120) };
        let mut world = failing(fault, seed);
        world.run_for(secs(30));
        delays.extend(world.delays_ms().last().copied());
        world.dps_mut().fault = DpsFault::None;
        world.run_until_delivered();
    });
    assert!(delays.iter().all(|delay| (120_000..=180_000).contains(delay)), "{delays:?}");
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 25, "{delays:?}");
}

#[test]
fn each_answer_of_the_service_has_its_name() {
    let unavailable = |status, retry_after_secs| ProvisioningFailure::Unavailable { status, retry_after_secs };
    let table = [
        (DpsFault::Status { status: 429, retry_after_secs: None }, unavailable(429, None)),
        (DpsFault::Status { status: 503, retry_after_secs: Some(30) }, unavailable(503, Some(30))),
        (DpsFault::Refuse { status: 401, code: 401_002 }, ProvisioningFailure::Refused { status: 401, code: 401_002 }),
        (DpsFault::Refuse { status: 404, code: 404_201 }, ProvisioningFailure::Refused { status: 404, code: 404_201 }),
        (DpsFault::Failed(400_207), ProvisioningFailure::Failed { code: 400_207 }),
        (DpsFault::Disabled, ProvisioningFailure::Disabled),
        (DpsFault::Silence, ProvisioningFailure::NoAnswer),
        (DpsFault::WrongRequest, ProvisioningFailure::NoAnswer),
        (DpsFault::Assigning { polls: 10_000, retry_after_secs: None }, ProvisioningFailure::TooSlow),
        (DpsFault::Profile("mqttv5".into()), ProvisioningFailure::UnsupportedProfile),
        (DpsFault::Body("not JSON".into()), ProvisioningFailure::BadAnswer),
        (DpsFault::Body("{\"status\":\"assigned\"}".into()), ProvisioningFailure::BadAnswer),
        (DpsFault::DeviceId("pump/7".into()), ProvisioningFailure::BadDeviceId),
        (DpsFault::DeviceId("pump#".into()), ProvisioningFailure::BadDeviceId),
        (DpsFault::DeviceId("pump+".into()), ProvisioningFailure::BadDeviceId),
    ];
    for (fault, failure) in table {
        let mut world = failing(fault.clone(), 3);
        world.run_until("failed", mins(11), |world| world.status().last_failure.is_some());
        assert_eq!(world.status().last_failure, Some(Failure::Provisioning(failure)), "{fault:?}");
        assert_ne!(world.state(), State::Stopped);
        world.dps_mut().fault = DpsFault::None;
        world.run_until_delivered();
    }
}

#[test]
fn refused_connects_and_silence_of_the_service_are_tried_again() {
    for fault in [DpsFault::Connack(5), DpsFault::Connack(3), DpsFault::ConnackSilence, DpsFault::Close] {
        let mut world = failing(fault, 4);
        world.run_for(mins(5));
        world.dps_mut().fault = DpsFault::None;
        world.run_until_delivered();
    }
}

#[test]
fn a_hub_that_cannot_be_one_is_refused_and_never_connected_to() {
    for evil in [
        "hub@evil.com",
        "127.0.0.1",
        "hub.azure-devices.net:443",
        "hub.azure-devices.net/x",
        "hub azure-devices.net",
        "xn--hub-9ta.azure-devices.net",
        "hub.azure-devices.net\\u0000",
        "",
    ] {
        let mut world = failing(DpsFault::Hub(evil.into()), 5);
        world.run_for(mins(3));
        assert!(world.attempts().iter().all(|attempt| attempt.role == ServiceKind::Provisioning), "{evil:?}");
        assert!(world.status().last_failure.is_some(), "{evil:?}");
    }
}

#[test]
fn a_hub_outside_the_allowed_domain_is_refused() {
    for evil in ["evil.com", "hub.azure-devices.net.evil.com", "evil-azure-devices.net"] {
        let builder = World::builder().configure(|config| config.hub_suffix = Some("azure-devices.net".into()));
        let mut world = builder.build();
        world.dps_mut().next_faults.push_back(DpsFault::Hub(evil.into()));
        world.start();
        world.run_for(secs(20));
        let failure = Failure::Provisioning(ProvisioningFailure::BadHubName);
        assert_eq!(world.status().last_failure, Some(failure), "{evil}");
        world.run_until_up();
    }
}

#[test]
fn a_hub_that_is_not_azure_s_is_refused_by_default() {
    for evil in ["evil.example.com", "localhost", "hub", "global.azure-devices-provisioning.net"] {
        let mut world = failing(DpsFault::Hub(evil.into()), 5);
        world.run_for(mins(3));
        assert!(world.attempts().iter().all(|attempt| attempt.role == ServiceKind::Provisioning), "{evil:?}");
        let failure = Failure::Provisioning(ProvisioningFailure::BadHubName);
        assert_eq!(world.status().last_failure, Some(failure), "{evil}");
    }
}

#[test]
fn the_assigned_device_id_is_the_one_used_and_saved() {
    let mut world = World::builder().certificate().build();
    world.dps_mut().fault = DpsFault::DeviceId("line-3.pump".into());
    world.hub_mut(0).add("line-3.pump", None);
    world.start();
    world.publish("21.5");
    world.run_until_delivered();
    assert_eq!(world.saved().unwrap().device_id(), "line-3.pump");
    assert!(world.hub(0).receipts()[0].topic.starts_with("devices/line-3.pump/messages/events/"));
}

#[test]
fn a_payload_goes_out_with_every_registration() {
    let payload = "{\"site\":\"north\"}";
    let builder =
        World::builder().configure(|config| config.provisioning_payload = Some("{\"site\":\"north\"}".into()));
    let mut world = builder.build();
    world.start();
    world.run_until_up();
    assert!(world.dps().payloads()[0].contains(&format!("\"payload\":{payload}")));
    let mut modelled = World::builder().configure(|config| config.model_id = Some("dtmi:com:pump;1".into())).build();
    modelled.start();
    modelled.run_until_up();
    assert!(modelled.dps().payloads()[0].contains("\"modelId\":\"dtmi:com:pump;1\""));
}

#[test]
fn an_answer_s_payload_reaches_the_application() {
    let hub = "hub-a.azure-devices.net";
    let body = format!(
        "{{\"operationId\":\"4.d\",\"status\":\"assigned\",\"registrationState\":{{\"assignedHub\":\"{hub}\",\
         \"deviceId\":\"pump-7\",\"payload\":{{\"spread\":55}}}}}}"
    );
    let mut world = World::builder().build();
    world.dps_mut().fault = DpsFault::Body(body);
    world.start();
    world.run_until_up();
    assert_eq!(world.inbound()[0].payload, b"{\"spread\":55}");
}

#[test]
fn a_service_out_of_reach_is_tried_ever_more_slowly_and_found_when_it_returns() {
    let mut world = failing(DpsFault::None, 6);
    world.network().set(steadfast_core::dps::topics::GLOBAL_HOST, steadfast_sim::Reach::BlackHole);
    world.run_for(hours(5));
    assert!(world.attempts().len() < 300, "{}", world.attempts().len());
    world.network().set(steadfast_core::dps::topics::GLOBAL_HOST, steadfast_sim::Reach::Open);
    let took = world.run_until_delivered();
    assert!(took < secs(150), "{took:?}");
}

#[test]
fn an_enrollment_that_stays_disabled_costs_fewer_and_fewer_registrations() {
    for fault in [DpsFault::Disabled, DpsFault::Refuse { status: 401, code: 401_002 }, DpsFault::Failed(400_209)] {
        let mut world = failing(fault, 7);
        world.run_for(hours(24));
        let registrations = world.registrations();
        assert!(registrations.len() < 45, "{}", registrations.len());
        let last = registrations.len() - 1;
        assert!(registrations[last] - registrations[last - 1] >= 30 * 60_000, "{registrations:?}");
        world.dps_mut().fault = DpsFault::None;
        let took = world.run_until_delivered();
        assert!(took <= mins(61), "{took:?}");
    }
}

#[test]
fn a_refused_poll_keeps_the_registration_and_is_asked_again() {
    for (tpm, status, retry_after_secs) in
        [(false, 429, Some(5)), (false, 503, None), (false, 500, Some(0)), (true, 429, Some(5)), (true, 503, None)]
    {
        let builder = World::builder().seed(8).devices(60);
        // Over HTTPS a device with a TPM registers twice.
        let (builder, once) = if tpm { (builder.tpm(), 120) } else { (builder, 60) };
        let mut world = builder.build();
        world.dps_mut().fault = DpsFault::RefusedPolls { polls: 3, status, retry_after_secs };
        world.start();
        world.run_for(mins(3));
        assert_eq!(world.registrations().len(), once, "{status}");
        assert_eq!(world.dps().polls().len(), 60 * 6, "{status}");
        assert!((0..60).all(|number| world.state_of(number) == State::Up), "{status}");
    }
}

#[test]
fn polls_that_stay_refused_come_ever_more_slowly_and_end_with_the_registration() {
    let mut world = failing(DpsFault::NoPolls { status: 429, retry_after_secs: Some(0) }, 9);
    world.run_until("given up", mins(12), |world| world.status().last_failure.is_some());
    assert_eq!(world.status().last_failure, Some(Failure::Provisioning(ProvisioningFailure::TooSlow)));
    assert_eq!(world.registrations().len(), 1);
    assert!((5..30).contains(&world.dps().polls().len()), "{}", world.dps().polls().len());
    world.dps_mut().fault = DpsFault::None;
    world.run_until_delivered();
}

#[test]
fn no_answer_makes_a_device_ask_without_a_pause() {
    for retry_after_secs in [Some(0), Some(1), None] {
        let mut world = failing(DpsFault::Assigning { polls: 10_000, retry_after_secs }, 10);
        world.run_for(secs(20));
        let polls = world.dps().polls();
        assert!((5..=10).contains(&polls.len()), "{retry_after_secs:?}: {}", polls.len());
        let mut gaps: Vec<u64> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= 2_000), "{gaps:?}");
        gaps.dedup();
        assert!(gaps.len() > 2, "{gaps:?}");
    }
    let mut world = failing(DpsFault::Status { status: 429, retry_after_secs: Some(0) }, 10);
    world.run_for(mins(1));
    let registrations = world.registrations();
    assert!(registrations.len() < 20, "{}", registrations.len());
    assert!(registrations.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "{registrations:?}");
}

#[test]
fn a_wait_beyond_the_time_of_a_registration_is_kept_and_the_registration_with_it() {
    for retry_after_secs in [400, 700, 3_600] {
        let mut world = failing(DpsFault::Assigning { polls: 3, retry_after_secs: Some(retry_after_secs) }, 11);
        world.run_until_up_within(hours(5));
        assert_eq!((world.registrations().len(), world.dps().polls().len()), (1, 3), "{retry_after_secs}");
    }
}

#[test]
fn a_wait_beyond_the_time_of_a_registration_does_not_keep_a_device_from_the_hub_it_has() {
    let mut world = World::builder().assigned().build();
    world.dps_mut().fault = DpsFault::Assigning { polls: 10_000, retry_after_secs: Some(3_600) };
    world.start();
    world.run_until_up();
    world.reprovision();
    world.publish("21.5");
    world.run_until_up_within(hours(2));
    assert_eq!((world.registrations().len(), world.dps().polls().len()), (1, 1));
}

#[test]
fn an_answer_that_is_not_understood_is_paced_as_a_refusal() {
    let bodies = ["not JSON", "{\"status\":\"assigned\"}", "[]", "{\"operationId\":\"4.d\",\"status\":\"pondering\"}"];
    for fault in bodies.map(|body| DpsFault::Body(body.into())).into_iter().chain([DpsFault::Garbage]) {
        let mut world = failing(fault.clone(), 12);
        world.run_for(hours(24));
        let registrations = world.registrations().len();
        assert!((24..45).contains(&registrations), "{fault:?}: {registrations}");
        assert_eq!(world.status().advice(), steadfast_core::Advice::CheckService);
        world.dps_mut().fault = DpsFault::None;
        world.run_until_delivered();
    }
}
