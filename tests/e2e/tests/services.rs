//! Twin, methods and cloud-to-device messages over real TLS, across connections that break.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{Actor, DEVICE, HUB_A, HUB_B, Pipe, Scene, on_every_pipe, soon, until};
use hub_emulator::DeviceHandle;
use serde_json::{Value, json};
use steadfast::{
    Desired, Device, MethodAnswer, Methods, OperatorCommand, OperatorCommands, ReportError, RespondError, State,
    Subscriptions, TwinError,
};

on_every_pipe!(
    desired_properties_changed_while_away_are_told_once,
    each_change_of_a_burst_is_told_in_order,
    the_whole_twin_is_there_for_the_asking,
    reported_properties_wait_and_arrive_merged,
    reported_properties_follow_a_device_to_another_hub,
    methods_are_answered_each_by_its_handler,
    typed_handlers_read_and_write_json,
    an_answer_that_cannot_be_sent_is_told_to_the_caller_and_takes_no_place,
    an_answer_that_comes_after_its_connection_is_dropped,
    messages_to_the_device_come_until_they_are_acknowledged,
    a_message_dropped_unread_holds_up_no_other_of_a_full_queue,
    a_message_whose_acknowledgement_was_lost_is_known_again,
    an_operator_orders_a_spread_and_a_registration,
);

fn run(scene: &Scene, pipe: Pipe) -> (Actor, DeviceHandle) {
    let actor = Actor::start(scene, DEVICE, scene.device(pipe).subscriptions(Subscriptions::ALL), 10);
    (actor, scene.emulator.hub(HUB_A).device(DEVICE))
}

/// Has the connection cut, and waits until the link knows.
async fn cut(actor: &Actor, cloud: &DeviceHandle) {
    cloud.disconnect(true).unwrap();
    actor.status("down", |status| status.state != State::Up).await;
}

async fn whole(desired: &mut steadfast::DesiredProperties) -> steadfast::TwinDocument {
    let Desired::Full(twin) = soon(desired.next()).await.unwrap() else { panic!("a change came before the whole") };
    twin
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

async fn desired_properties_changed_while_away_are_told_once(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    let mut desired = actor.device.twin().desired();
    let first = whole(&mut desired).await;
    cut(&actor, &cloud).await;
    cloud.set_desired(&json!({"mode": "eco"})).unwrap();
    let last = cloud.set_desired(&json!({"target": 21})).unwrap();
    let twin = whole(&mut desired).await;
    assert_eq!((twin.desired_version, twin.reset), (last, false));
    assert_eq!(parsed(&twin.desired), json!({"mode": "eco", "target": 21, "$version": last}));
    assert!(twin.desired_version > first.desired_version);
    // Coming back without a change tells nothing again.
    cut(&actor, &cloud).await;
    actor.up().await;
    let next = cloud.set_desired(&json!({"mode": null})).unwrap();
    assert_eq!(soon(desired.next()).await.unwrap().version(), next);
    actor.finish(&scene).await;
}

async fn each_change_of_a_burst_is_told_in_order(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    let mut desired = actor.device.twin().desired();
    let mut known = whole(&mut desired).await.desired_version;
    for target in 0..10 {
        cloud.set_desired(&json!({"target": target})).unwrap();
    }
    for target in 0..10 {
        let change = soon(desired.next()).await.unwrap();
        known += 1;
        let Desired::Patch { version, patch } = change else { panic!("the whole twin without need") };
        assert_eq!((version, &parsed(&patch)["target"]), (known, &json!(target)));
    }
    // An application that lags behind is told all of it at last.
    for target in 0..40 {
        cloud.set_desired(&json!({"target": target})).unwrap();
        if target % 10 == 9 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let last = known + 40;
    let mut told = known;
    while told < last {
        let change = soon(desired.next()).await.unwrap();
        assert!(change.version() > told, "{change:?} after {told}");
        told = change.version();
    }
    actor.finish(&scene).await;
}

async fn the_whole_twin_is_there_for_the_asking(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    let twin = soon(actor.device.twin().get()).await.unwrap();
    assert_eq!(soon(actor.device.twin().get()).await.unwrap(), twin);
    // Asked for while away, it comes with the next connection.
    cut(&actor, &cloud).await;
    let version = cloud.set_desired(&json!({"a": 1})).unwrap();
    assert_eq!(soon(actor.device.twin().get()).await.unwrap().desired_version, version);
    let device = actor.device.clone();
    actor.finish(&scene).await;
    assert_eq!(device.twin().get().await, Err(TwinError::Stopped));

    let broker = Device::builder().broker("localhost", "pump-7").anonymous().plaintext_unprotected().build().unwrap();
    let (broker, _driver) = broker;
    assert_eq!(broker.twin().get().await, Err(TwinError::NoTwin));
    assert_eq!(broker.twin().report("{}").unwrap_err(), ReportError::NotSubscribed);
    assert_eq!(broker.twin().desired().next().await, None);
    assert!(broker.direct_methods().next().await.is_none());
}

async fn reported_properties_wait_and_arrive_merged(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    soon(actor.device.twin().report(r#"{"old":1,"kept":1}"#).unwrap().accepted()).await.unwrap();
    scene.emulator.hub(HUB_A).down().unwrap();
    actor.status("down", |status| status.state != State::Up).await;
    let claims: Vec<_> = [r#"{"a":1}"#, r#"{"b":{"x":1}}"#, r#"{"a":2,"b":{"y":2}}"#, r#"{"old":null}"#]
        .map(|patch| actor.device.twin().report(patch).unwrap())
        .into();
    assert!(matches!(actor.device.twin().report("[]"), Err(ReportError::NotAnObject)));
    scene.emulator.hub(HUB_A).up().unwrap();
    for claim in &claims {
        soon(claim.accepted()).await.unwrap();
    }
    let version = cloud.twin().unwrap()["reported"]["$version"].clone();
    let expected = json!({"kept": 1, "a": 2, "b": {"x": 1, "y": 2}, "$version": version});
    assert_eq!(cloud.twin().unwrap()["reported"], expected);
    actor.finish(&scene).await;
}

async fn reported_properties_follow_a_device_to_another_hub(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let builder = scene.member(pipe).subscriptions(Subscriptions::ALL);
    let actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.up().await;
    scene.emulator.hub(HUB_A).device(DEVICE).disconnect(true).unwrap();
    actor.status("down", |status| status.state != State::Up).await;
    let claim = actor.device.twin().report(r#"{"place":"cellar"}"#).unwrap();
    scene.emulator.control().move_device(DEVICE, HUB_A, HUB_B).unwrap();
    soon(claim.accepted()).await.unwrap();
    let twin = scene.emulator.hub(HUB_B).device(DEVICE).twin().unwrap();
    assert_eq!(twin["reported"]["place"], json!("cellar"));
    actor.finish(&scene).await;
}

async fn methods_are_answered_each_by_its_handler(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    actor.up().await;
    let device = actor.device.clone();
    let serving = tokio::spawn(async move {
        let methods = Methods::new()
            .on("echo", |body| async { MethodAnswer::ok(body) })
            .on("slow*echo", |body| async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                MethodAnswer::new(202, body)
            })
            .on("stuck", |_| std::future::pending())
            .on("broken", |_| async { panic!("a handler that panics") })
            .patience(Duration::from_millis(400));
        methods.serve(&device).await;
    });
    let limit = Duration::from_secs(20);
    let [two, one, three] = [json!(2), json!(1), json!(null)];
    let (slow, quick, unknown, stuck, broken) = tokio::join!(
        cloud.invoke("slow*echo", &two, limit),
        cloud.invoke("echo", &one, limit),
        cloud.invoke("reboot", &three, limit),
        cloud.invoke("stuck", &three, limit),
        cloud.invoke("broken", &three, limit),
    );
    let told = |answer: Result<hub_emulator::MethodAnswer, _>| {
        let answer = answer.unwrap();
        (answer.status, String::from_utf8(answer.payload).unwrap())
    };
    assert_eq!(told(slow), (202, two.to_string()));
    assert_eq!(told(quick), (200, one.to_string()));
    assert_eq!(told(unknown).0, 404);
    assert_eq!(told(stuck).0, 504);
    assert_eq!(told(broken).0, 500);
    actor.finish(&scene).await;
    soon(serving).await.unwrap();
}

async fn typed_handlers_read_and_write_json(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    actor.up().await;
    let device = actor.device.clone();
    let serving = tokio::spawn(async move {
        let methods = Methods::new()
            .on_json("double", |number: u32| async move {
                number.checked_mul(2).ok_or_else(|| MethodAnswer::json_of(422, "too large"))
            })
            .on_json("now", |(): ()| async { Ok([1, 2]) });
        methods.serve(&device).await;
    });
    let limit = Duration::from_secs(20);
    let call = async |method, payload: &Value| {
        let answer = cloud.invoke(method, payload, limit).await.unwrap();
        (answer.status, serde_json::from_slice::<Value>(&answer.payload).unwrap())
    };
    assert_eq!(call("double", &json!(21)).await, (200, json!(42)));
    assert_eq!(call("double", &json!(u32::MAX)).await, (422, json!("too large")));
    assert_eq!(call("now", &Value::Null).await, (200, json!([1, 2])));
    let (status, reason) = call("double", &json!("x")).await;
    assert_eq!(status, 400);
    assert!(reason["error"].as_str().unwrap().contains("expected u32"), "{reason}");
    actor.finish(&scene).await;
    soon(serving).await.unwrap();
}

async fn an_answer_that_cannot_be_sent_is_told_to_the_caller_and_takes_no_place(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    actor.up().await;
    let device = actor.device.clone();
    let serving = tokio::spawn(async move {
        let methods = Methods::new()
            .on("text", |_| async { MethodAnswer::ok("done") })
            .on("huge", |_| async { MethodAnswer::ok(vec![b'1'; 200_000]) })
            .on("echo", |body| async { MethodAnswer::ok(body) });
        methods.serve(&device).await;
    });
    let limit = Duration::from_secs(20);
    for _ in 0..5 {
        for method in ["text", "huge"] {
            assert_eq!(cloud.invoke(method, &json!(1), limit).await.unwrap().status, 500, "{method}");
        }
    }
    assert_eq!(cloud.invoke("echo", &json!(1), limit).await.unwrap().status, 200);
    actor.finish(&scene).await;
    soon(serving).await.unwrap();
}

async fn an_answer_that_comes_after_its_connection_is_dropped(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    actor.up().await;
    let caller = cloud.clone();
    let call = tokio::spawn(async move { caller.invoke("echo", &json!(1), Duration::from_secs(20)).await });
    let open = soon(actor.device.direct_methods().next()).await.unwrap();
    cut(&actor, &cloud).await;
    actor.up().await;
    assert_eq!(open.respond(200, b"1"), Err(RespondError::ConnectionLost));
    assert!(soon(call).await.unwrap().is_err());
    // The next call gets its own answer.
    let caller = cloud.clone();
    let call = tokio::spawn(async move { caller.invoke("echo", &json!(2), Duration::from_secs(20)).await });
    let open = soon(actor.device.direct_methods().next()).await.unwrap();
    assert_eq!((open.name(), open.payload()), ("echo", &b"2"[..]));
    open.respond(200, b"2").unwrap();
    assert_eq!(soon(call).await.unwrap().unwrap().payload, b"2");
    actor.finish(&scene).await;
}

async fn messages_to_the_device_come_until_they_are_acknowledged(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    actor.up().await;
    cloud.send(&[("$.mid", "one"), ("$.cid", "c/1"), ("note", "a b&c=d/é"), ("k", "")], b"open").unwrap();
    let message = soon(actor.device.messages().next()).await.unwrap();
    assert_eq!(message.payload(), b"open");
    assert_eq!((message.message_id().unwrap(), message.correlation_id().unwrap()), ("one".into(), "c/1".into()));
    assert_eq!(message.property("note").unwrap(), "a b&c=d/é");
    drop(message);
    cut(&actor, &cloud).await;
    // Nobody said it was done, so it comes again and is not called known.
    let message = soon(actor.device.messages().next()).await.unwrap();
    assert_eq!((message.message_id().unwrap().as_str(), message.is_duplicate()), ("one", false));
    assert!(message.acknowledge());
    until("the queue is empty", || cloud.waiting().unwrap() == 0).await;
    actor.finish(&scene).await;
}

async fn a_message_dropped_unread_holds_up_no_other_of_a_full_queue(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    actor.up().await;
    scene.emulator.hub(HUB_A).down().unwrap();
    actor.status("down", |status| status.state != State::Up).await;
    for number in 0..50 {
        cloud.send(&[], number.to_string().as_bytes()).unwrap();
    }
    scene.emulator.hub(HUB_A).up().unwrap();
    drop(soon(actor.device.messages().next()).await.unwrap());
    for number in 1..50 {
        let message = soon(actor.device.messages().next()).await.unwrap();
        assert_eq!(message.payload(), number.to_string().as_bytes());
        assert!(message.acknowledge());
    }
    until("only the dropped one waits", || cloud.waiting().unwrap() == 1).await;
    cut(&actor, &cloud).await;
    assert!(soon(actor.device.messages().next()).await.unwrap().acknowledge());
    actor.finish(&scene).await;
}

async fn a_message_whose_acknowledgement_was_lost_is_known_again(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = run(&scene, pipe);
    actor.up().await;
    cloud.send(&[("$.mid", "open-the-valve")], b"1").unwrap();
    let message = soon(actor.device.messages().next()).await.unwrap();
    cut(&actor, &cloud).await;
    actor.up().await;
    assert!(!message.acknowledge(), "its connection is gone");
    let again = soon(actor.device.messages().next()).await.unwrap();
    assert!(again.is_duplicate());
    assert!(again.acknowledge());
    until("the queue is empty", || cloud.waiting().unwrap() == 0).await;
    actor.finish(&scene).await;
}

async fn an_operator_orders_a_spread_and_a_registration(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let builder = scene.member(pipe).subscriptions(Subscriptions::ALL).allow_operator_commands(OperatorCommands::ALL);
    let actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.up().await;
    let cloud = scene.emulator.hub(HUB_A).device(DEVICE);
    soon(actor.device.twin().get()).await.unwrap();
    let version = cloud.set_desired(&json!({"steadfast": {"__t": "c", "spread": 900}})).unwrap();
    let wished = json!({"__t": "c", "spread": {"value": 900, "ac": 200, "av": version}});
    // It waits for an application that was busy when it came.
    until("the order is acknowledged", || cloud.twin().unwrap()["reported"]["steadfast"] == wished).await;

    assert_eq!(
        soon(actor.device.next_operator_command()).await,
        Some(OperatorCommand::Spread(Duration::from_secs(900)))
    );
    let registrations = actor.device.status().registrations;
    let answer = cloud.invoke("steadfast*reprovision", &json!({"spread": 0}), Duration::from_secs(20)).await.unwrap();
    assert_eq!(answer.status, 202);
    actor.status("registered again", |status| status.registrations > registrations && status.state == State::Up).await;
    actor.finish(&scene).await;
}
