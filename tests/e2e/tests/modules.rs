//! Modules, Plug and Play and IoT Central's way in, over real TLS.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{Actor, DEVICE, HUB_A, HUB_B, Pipe, Scene, key, on_every_pipe, soon, until};
use hub_emulator::{Config, HubConfig, Key, MessageToDevice};
use serde_json::json;
use steadfast::{BuildError, ConfigError, Desired, Subscriptions, Telemetry, pnp};

on_every_pipe!(
    a_module_has_its_own_twin_methods_inputs_and_outputs,
    a_model_is_announced_and_a_writable_property_acknowledged,
    a_device_of_iot_central_follows_its_application_to_another_hub,
    a_message_the_hub_finds_too_large_is_refused_before_it_is_sent,
);

const MODULE: &str = "pump-7/filter";
const MODEL: &str = "dtmi:com:example:Thermostat;1";

async fn a_module_has_its_own_twin_methods_inputs_and_outputs(pipe: Pipe) {
    let own = Key::from_seed("a module's key");
    let hub = HubConfig::new(HUB_A).device(DEVICE, key()).device(MODULE, own.clone());
    let scene = Scene::start(Config::new().hub_with(hub)).await;
    let module = || scene.builder(pipe).hub(HUB_A, DEVICE).module_id("filter").shared_key(&own.to_base64());
    let actor = Actor::start(&scene, MODULE, module().subscriptions(Subscriptions::MODULE), 10);
    let cloud = scene.emulator.hub(HUB_A).device(MODULE);
    let mut desired = actor.device.twin().desired();
    assert!(matches!(soon(desired.next()).await, Some(Desired::Full(_))));

    soon(actor.device.twin().report(r#"{"level":3}"#).unwrap().accepted()).await.unwrap();
    assert_eq!(cloud.twin().unwrap()["reported"]["level"], json!(3));
    let device = scene.emulator.hub(HUB_A).device(DEVICE);
    assert_eq!(device.twin().unwrap()["reported"]["level"], json!(null), "the device's twin is another");

    let caller = cloud.clone();
    let call = tokio::spawn(async move { caller.invoke("flush", &json!(null), Duration::from_secs(20)).await });
    let open = soon(actor.device.direct_methods().next()).await.unwrap();
    open.respond(200, b"1").unwrap();
    assert_eq!(soon(call).await.unwrap().unwrap().status, 200);

    cloud.send_to_input("raw 1", MessageToDevice::new("21").id("in-1").property("k", "v")).unwrap();
    let message = soon(actor.device.messages().next()).await.unwrap();
    assert_eq!((message.input(), message.payload()), (Some("raw 1"), &b"21"[..]));
    assert_eq!((message.message_id().as_deref(), message.property("k").as_deref()), (Some("in-1"), Some("v")));
    assert!(message.acknowledge());
    let alarm = Telemetry::json("{}").output_name("alarms").unwrap();
    soon(soon(actor.device.send(&alarm)).await.unwrap()).await.unwrap();
    assert_eq!(scene.emulator.ledger().messages(MODULE)[0].output(), Some("alarms"));
    soon(actor.device.stop(Duration::ZERO)).await;

    let wrong = module().subscriptions(Subscriptions::CLOUD_TO_DEVICE).build();
    assert!(matches!(wrong, Err(BuildError::Config(ConfigError::SubscriptionNotForIdentity))));
}

async fn a_model_is_announced_and_a_writable_property_acknowledged(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let builder = scene.device(pipe).model_id(MODEL).subscriptions(Subscriptions::ALL);
    let actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.up().await;
    let cloud = scene.emulator.hub(HUB_A).device(DEVICE);
    assert_eq!(cloud.model_id().unwrap().as_deref(), Some(MODEL));
    let mut desired = actor.device.twin().desired();
    soon(desired.next()).await.unwrap();
    let version = cloud.set_desired(&json!({"thermo": {"__t": "c", "target": 21.5}})).unwrap();
    let Some(Desired::Patch { patch, .. }) = soon(desired.next()).await else { panic!("a change") };
    let property = pnp::properties(&patch).next().unwrap();
    let acknowledgement = pnp::Acknowledgement {
        component: property.component.and_then(|component| component.plain()),
        name: property.name.plain().unwrap(),
        value: property.value.raw(),
        status: pnp::APPLIED,
        version,
        description: "warming up",
    };
    let mut buffer = [0; 256];
    let patch = std::str::from_utf8(acknowledgement.write(&mut buffer).unwrap()).unwrap();
    soon(actor.device.twin().report(patch).unwrap().accepted()).await.unwrap();
    let expected = json!({"__t": "c", "target": {"value": 21.5, "ac": 200, "av": version, "ad": "warming up"}});
    assert_eq!(cloud.twin().unwrap()["reported"]["thermo"], expected);
    let reading = Telemetry::json(r#"{"temperature":20}"#).component("thermo").unwrap();
    soon(soon(actor.device.send(&reading)).await.unwrap()).await.unwrap();
    let message = &scene.emulator.ledger().messages(DEVICE)[0];
    assert_eq!((message.component(), message.content_type()), (Some("thermo"), Some("application/json")));
    soon(actor.device.stop(Duration::ZERO)).await;
}

async fn a_device_of_iot_central_follows_its_application_to_another_hub(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let builder = scene.member(pipe).model_id(MODEL).subscriptions(Subscriptions::ALL);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.up().await;
    actor.send(5).await;
    // A manual failover of the application: the device is disabled at one hub and assigned to another.
    scene.emulator.control().move_device(DEVICE, HUB_A, HUB_B).unwrap();
    actor.send(5).await;
    actor.delivered().await;
    let registrations = scene.emulator.dps().registrations();
    assert_eq!(registrations.len(), 2);
    for registration in registrations {
        assert_eq!(registration.payload, Some(json!({"modelId": MODEL})));
    }
    assert_eq!(scene.emulator.hub(HUB_B).device(DEVICE).model_id().unwrap().as_deref(), Some(MODEL));
    actor.finish(&scene).await;
}

async fn a_message_the_hub_finds_too_large_is_refused_before_it_is_sent(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let actor = scene.run_device(pipe);
    actor.up().await;
    let error = soon(actor.device.send(Telemetry::new(vec![b'x'; 262_144]))).await.unwrap_err();
    assert_eq!(error.to_string(), "the message counts 262160 bytes; the limit is 262144");
    let largest = Telemetry::new(vec![b'x'; 262_144 - 16]);
    soon(soon(actor.device.send(&largest)).await.unwrap()).await.unwrap();
    until("it is there", || scene.emulator.ledger().messages(DEVICE).len() == 1).await;
    assert_eq!(actor.device.ledger().refused, 1);
    soon(actor.device.stop(Duration::ZERO)).await;
}

// rumqttc drops a CONNACK that the end of the connection follows at once, and with it what tells a quota.
#[tokio::test]
async fn a_hub_whose_daily_quota_is_used_up_is_recognised_and_waited_for() {
    let scene = Scene::at_hub().await;
    // The token is still good at midnight.
    let builder = scene.device(Pipe::Bytes).token_lifetime(Duration::from_secs(86_400));
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.delivered().await;
    scene.emulator.hub(HUB_A).exhaust_quota().unwrap();
    actor.send(5).await;
    actor.status("the quota is suspected", |status| status.quota_suspected).await;
    let clock = scene.emulator.clock();
    clock.advance(Duration::from_secs(86_401 - clock.unix() % 86_400));
    actor.delivered().await;
    actor.finish(&scene).await;
}
