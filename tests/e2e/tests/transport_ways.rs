//! The ways to the services beside port 8883: WebSockets, HTTP proxies, and both.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{
    Actor, BROKER, Broker, ConnectProxy, DEVICE, DPS_HOST, Gate, HUB_A, HUB_B, Pipe, Scene, WebSocketFront, key,
    on_every_pipe, soon,
};
use hub_emulator::{Authority, Config, DeviceAuth, HubConfig};
use steadfast::{
    Advice, Builder, ClientCertificate, Device, Event, Failure, LinkEvent, LocalFailure, Message, Proxy, Tls, Transport,
};

on_every_pipe!(
    a_device_registers_and_delivers_over_websockets,
    a_cut_websocket_costs_no_message,
    a_device_registers_and_delivers_through_a_proxy,
    a_device_goes_through_a_proxy_over_websockets,
    a_proxy_that_asks_for_another_password_stops_the_device_until_it_does_not,
    a_broker_with_websockets_takes_everything,
    the_emulator_s_websockets_take_keys_and_certificates,
);

/// `user` and `wet secret`, as a proxy sees them.
const LOGIN: &str = "dXNlcjp3ZXQgc2VjcmV0";

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Has all services reached by WebSockets at `address`.
fn over_websockets(builder: Builder, front: &WebSocketFront, address: SocketAddr) -> Builder {
    [HUB_A, HUB_B, DPS_HOST]
        .into_iter()
        .fold(builder, |builder, host| builder.resolve(host, [address]))
        .tls(Tls::without_system_roots().and_pem(front.ca_pem.as_bytes()))
        .transport(Transport::WebSockets)
}

/// Takes away every address, so that only a proxy can lead to the services.
fn only_through(builder: Builder, proxy: &ConnectProxy) -> Builder {
    [HUB_A, HUB_B, DPS_HOST]
        .into_iter()
        .fold(builder, |builder, host| builder.resolve(host, [nowhere()]))
        .resolve("proxy.example", [proxy.address])
        .proxy(Proxy::http("proxy.example", 3128).basic_auth("user", "wet secret"))
}

/// A proxy that knows the services of `scene`.
async fn proxy_of(scene: &mut Scene) -> ConnectProxy {
    scene.secrets.extend([LOGIN.to_owned(), "wet secret".to_owned()]);
    let hubs = scene.emulator.hubs();
    let hubs = hubs.iter().map(|hub| (format!("{hub}:8883"), scene.emulator.hub(hub).addr()));
    let dps = (format!("{DPS_HOST}:8883"), scene.emulator.dps().addr());
    ConnectProxy::start(hubs.chain([dps]), LOGIN).await
}

async fn a_device_registers_and_delivers_over_websockets(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let front = WebSocketFront::of(&scene).await;
    let builder = over_websockets(scene.member(pipe), &front, front.address);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(200).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    let expected =
        [format!("{DPS_HOST}/$iothub/websocket"), format!("{HUB_A}/$iothub/websocket?iothub-no-client-cert=true")];
    assert_eq!(front.paths(), expected);
}

async fn the_emulator_s_websockets_take_keys_and_certificates(pipe: Pipe) {
    let certificate = Authority::new().unwrap().device_certificate(DEVICE).unwrap();
    let by_thumbprint = DeviceAuth::Thumbprint { primary: certificate.thumbprint.clone(), secondary: None };
    for auth in [DeviceAuth::from(key()), by_thumbprint] {
        let with_key = matches!(auth, DeviceAuth::Keys { .. });
        // Packets come in pieces of three bytes.
        let config =
            Config::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, auth)).https_port(0).websocket_frame(3);
        let scene = Scene::start(config).await;
        let shown = ClientCertificate::from_pem(certificate.certificate_pem.clone(), certificate.key_pem.clone());
        let builder = if with_key {
            scene.device(pipe)
        } else {
            scene.builder(pipe).hub(HUB_A, DEVICE).client_certificate(shown)
        };
        let builder = builder.resolve(HUB_A, [scene.emulator.https_addr().unwrap()]).transport(Transport::WebSockets);
        let mut actor = Actor::start(&scene, DEVICE, builder, 10);
        actor.send(100).await;
        let verdict = actor.finish(&scene).await;
        assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    }
}

async fn a_cut_websocket_costs_no_message(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let front = WebSocketFront::of(&scene).await;
    let gate = Gate::to(front.address).await;
    let mut actor = Actor::start(&scene, DEVICE, over_websockets(scene.device(pipe), &front, gate.address()), 10);
    for _ in 0..3 {
        actor.up().await;
        actor.send(50).await;
        gate.close();
        actor.status("down", |status| status.failures > 0).await;
        gate.open();
    }
    actor.finish(&scene).await;
}

async fn a_device_registers_and_delivers_through_a_proxy(pipe: Pipe) {
    let mut scene = Scene::provisioned().await;
    let proxy = proxy_of(&mut scene).await;
    let mut actor = Actor::start(&scene, DEVICE, only_through(scene.member(pipe), &proxy), 10);
    actor.send(50).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    assert_eq!(proxy.asked(), [format!("{DPS_HOST}:8883"), format!("{HUB_A}:8883")]);
}

async fn a_device_goes_through_a_proxy_over_websockets(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let front = WebSocketFront::of(&scene).await;
    let targets = [HUB_A, DPS_HOST].map(|host| (format!("{host}:443"), front.address));
    let proxy = ConnectProxy::start(targets, LOGIN).await;
    let builder = only_through(over_websockets(scene.member(pipe), &front, front.address), &proxy);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(50).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    assert_eq!(proxy.asked(), [format!("{DPS_HOST}:443"), format!("{HUB_A}:443")]);
}

async fn a_proxy_that_asks_for_another_password_stops_the_device_until_it_does_not(pipe: Pipe) {
    let mut scene = Scene::provisioned().await;
    let proxy = proxy_of(&mut scene).await;
    proxy.set_login("c29tZWJvZHk6ZWxzZQ==");
    let mut actor = Actor::start(&scene, DEVICE, only_through(scene.member(pipe), &proxy), 10);
    actor.send(10).await;
    let refused = Failure::Local(LocalFailure::ProxyAuthentication);
    let status = actor.failed(refused).await;
    assert_eq!(status.advice(), Advice::CheckProxy);
    assert!(status.to_string().contains("the proxy requires another user or password (407)"), "{status}");
    actor.status("refused again", |status| status.failures > 3).await;
    proxy.set_login(LOGIN);
    actor.delivered().await;
    // Only what is said of the services leads to another registration.
    assert_eq!(actor.device.status().registrations, 1);
    assert!(actor.failures().iter().all(|failure| *failure == refused), "{:?}", actor.failures());
    actor.finish(&scene).await;
}

async fn a_broker_with_websockets_takes_everything(pipe: Pipe) {
    let broker = Broker::start(false).await;
    let builder = Device::builder()
        .broker(BROKER, "pump-7")
        .anonymous()
        .resolve(BROKER, [broker.web])
        .tls(Tls::without_system_roots().and_pem(broker.ca_pem().as_bytes()))
        .transport(Transport::WebSockets);
    let (device, driver) = pipe.carry(builder).build().unwrap();
    let mut events = device.events();
    let driver = tokio::spawn(driver);
    let mut receipts = Vec::new();
    for number in 0..100_u32 {
        let payload = number.to_string().repeat(500);
        receipts.push(soon(device.send(Message::to_topic("plant/pump-7", payload.as_bytes()))).await.unwrap());
    }
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    let books = soon(device.stop(Duration::from_secs(5))).await;
    assert_eq!((books.delivered, books.queued), (100, 0));
    assert_eq!(soon(driver).await.unwrap(), books);
    drop(device);
    while let Some(event) = soon(events.next()).await {
        assert!(!matches!(event, Event::Link(LinkEvent::Down(_) | LinkEvent::Retrying { .. })), "{event:?}");
    }
}
