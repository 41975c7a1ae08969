//! Handles of a device: each subscribes when it is used, before the connection or while it is up.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{Actor, DEVICE, HUB_A, Pipe, Scene, on_every_pipe, soon};
use futures_util::StreamExt as _;
use hub_emulator::{DeviceHandle, MessageToDevice};
use serde_json::{Value, json};
use steadfast::{Desired, DesiredProperties, State};

on_every_pipe!(
    a_handle_that_is_used_while_the_link_is_up_subscribes_by_itself,
    a_handle_that_is_used_before_the_first_connection_is_served_by_it,
    what_was_opened_is_subscribed_to_again_after_a_lost_session,
    two_streams_of_one_twin_get_every_change_each,
    a_component_has_its_properties_and_commands_to_itself,
    a_stream_of_any_kind_ends_with_the_device,
);

/// A device that was built without any subscription.
fn bare(scene: &Scene, pipe: Pipe) -> (Actor, DeviceHandle) {
    let actor = Actor::start(scene, DEVICE, scene.device(pipe), 10);
    (actor, scene.emulator.hub(HUB_A).device(DEVICE))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

async fn full(desired: &mut DesiredProperties) -> Value {
    let Some(Desired::Full(twin)) = soon(desired.next()).await else { panic!("a stream begins with all of them") };
    parsed(&twin.desired)
}

async fn patch(desired: &mut DesiredProperties) -> Value {
    let Some(Desired::Patch { patch, .. }) = soon(desired.next()).await else { panic!("a change") };
    parsed(&patch)
}

async fn uses_everything(actor: &Actor, cloud: &DeviceHandle) {
    let device = &actor.device;
    let (mut desired, mut calls, mut messages) = (device.twin().desired(), device.direct_methods(), device.messages());
    assert_eq!(full(&mut desired).await["$version"], json!(1));
    cloud.set_desired(&json!({"target": 21})).unwrap();
    assert_eq!(patch(&mut desired).await["target"], json!(21));
    soon(device.twin().report(r#"{"applied":true}"#).unwrap().accepted()).await.unwrap();
    assert_eq!(soon(device.twin().get()).await.unwrap().desired_version, 2);

    let caller = cloud.clone();
    let call = tokio::spawn(async move { caller.invoke("flush", &json!(null), Duration::from_secs(20)).await });
    soon(calls.next()).await.unwrap().respond(200, b"1").unwrap();
    assert_eq!(soon(call).await.unwrap().unwrap().status, 200);

    cloud.send_message(MessageToDevice::new("hello")).unwrap();
    let message = soon(messages.next()).await.unwrap();
    assert_eq!(message.payload(), b"hello");
    assert!(message.acknowledge());
}

async fn a_handle_that_is_used_while_the_link_is_up_subscribes_by_itself(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = bare(&scene, pipe);
    actor.up().await;
    uses_everything(&actor, &cloud).await;
    assert_eq!(actor.device.status().failures, 0, "all of it on the first connection");
    actor.finish(&scene).await;
}

async fn a_handle_that_is_used_before_the_first_connection_is_served_by_it(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).down().unwrap();
    let (actor, cloud) = bare(&scene, pipe);
    let mut desired = actor.device.twin().desired();
    scene.emulator.hub(HUB_A).up().unwrap();
    full(&mut desired).await;
    drop(desired);
    uses_everything(&actor, &cloud).await;
    actor.finish(&scene).await;
}

async fn what_was_opened_is_subscribed_to_again_after_a_lost_session(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = bare(&scene, pipe);
    let mut desired = actor.device.twin().desired();
    let mut calls = actor.device.direct_methods();
    full(&mut desired).await;
    cloud.forget_session().unwrap();
    cloud.disconnect(true).unwrap();
    actor.status("down", |status| status.state != State::Up).await;
    actor.up().await;
    cloud.set_desired(&json!({"target": 22})).unwrap();
    let change = soon(desired.next()).await.unwrap();
    assert_eq!(change.version(), 2);
    let caller = cloud.clone();
    let call = tokio::spawn(async move { caller.invoke("flush", &json!(null), Duration::from_secs(20)).await });
    soon(calls.next()).await.unwrap().respond(200, b"").unwrap();
    assert_eq!(soon(call).await.unwrap().unwrap().status, 200);
    actor.finish(&scene).await;
}

async fn two_streams_of_one_twin_get_every_change_each(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = bare(&scene, pipe);
    let mut first = actor.device.twin().desired();
    full(&mut first).await;
    for target in 0..3 {
        cloud.set_desired(&json!({"target": target})).unwrap();
        assert_eq!(patch(&mut first).await["target"], json!(target));
    }
    // A later one begins with all there is, and from then on both follow.
    let mut second = actor.device.twin().desired();
    assert_eq!(full(&mut second).await["target"], json!(2));
    cloud.set_desired(&json!({"target": 3})).unwrap();
    assert_eq!(patch(&mut first).await["target"], json!(3));
    assert_eq!(patch(&mut second).await["target"], json!(3));
    drop(first);
    cloud.set_desired(&json!({"target": 4})).unwrap();
    assert_eq!(patch(&mut second).await["target"], json!(4));
    actor.finish(&scene).await;
}

async fn a_component_has_its_properties_and_commands_to_itself(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, cloud) = bare(&scene, pipe);
    let boiler = actor.device.component("boiler");
    let (mut wishes, mut commands) = (boiler.desired(), boiler.commands());
    let mut others = actor.device.direct_methods();
    assert_eq!(full(&mut wishes).await, json!({}));
    cloud.set_desired(&json!({"mode": "eco"})).unwrap();
    cloud.set_desired(&json!({"boiler": {"__t": "c", "pressure": 2}})).unwrap();
    assert_eq!(patch(&mut wishes).await, json!({"__t": "c", "pressure": 2}));

    let report = boiler.report(r#"{"pressure":2}"#).unwrap();
    soon(report.accepted()).await.unwrap();
    assert_eq!(cloud.twin().unwrap()["reported"]["boiler"], json!({"__t": "c", "pressure": 2}));
    soon(boiler.report("{}").unwrap().accepted()).await.unwrap();
    assert!(boiler.report("[1]").is_err() && boiler.report("pressure").is_err());

    let invoke = |name: &'static str| {
        let caller = cloud.clone();
        tokio::spawn(async move { caller.invoke(name, &json!(null), Duration::from_secs(20)).await })
    };
    let (command, method) = (invoke("boiler*flush"), invoke("reboot"));
    let call = soon(commands.next()).await.unwrap();
    assert_eq!(call.name(), "boiler*flush");
    call.respond(200, b"").unwrap();
    let call = soon(others.next()).await.unwrap();
    assert_eq!(call.name(), "reboot");
    call.respond(202, b"").unwrap();
    assert_eq!(soon(command).await.unwrap().unwrap().status, 200);
    assert_eq!(soon(method).await.unwrap().unwrap().status, 202);
    // Once nobody takes them apart any more, its commands are methods as all others.
    drop(commands);
    let command = invoke("boiler*flush");
    soon(others.next()).await.unwrap().respond(200, b"").unwrap();
    assert_eq!(soon(command).await.unwrap().unwrap().status, 200);
    actor.finish(&scene).await;
}

async fn a_stream_of_any_kind_ends_with_the_device(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (actor, _) = bare(&scene, pipe);
    let device = actor.device.clone();
    let desired = device.twin().desired().map(|_| ()).collect::<Vec<_>>();
    let calls = device.direct_methods().map(|_| ()).collect::<Vec<_>>();
    let messages = device.messages().map(|_| ()).collect::<Vec<_>>();
    let waiting = tokio::spawn(async move { tokio::join!(desired, calls, messages) });
    actor.up().await;
    actor.finish(&scene).await;
    let (_, calls, messages) = soon(waiting).await.unwrap();
    assert_eq!((calls.len(), messages.len()), (0, 0));
}
