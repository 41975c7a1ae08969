//! Modules of an IoT Edge device: identity from the environment, signatures and roots from the workload API, the gateway
//! over real TLS, and methods of others.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use e2e::{Actor, DEVICE, HUB_A, Pipe, Scene, key, on_every_pipe, policy, soon, timeouts, until};
use hub_emulator::{Authority, Config, Emulator, HubConfig, Key, MessageToDevice, WorkloadApi};
use steadfast::{
    BuildError, Builder, CallError, Device, Environment, EnvironmentError, Failure, InvokeError, LinkEvent as Event,
    LocalFailure, MethodAnswer, Methods, Subscriptions, TlsFailure, Transport, Variable,
};
use tempfile::TempDir;

on_every_pipe!(
    a_module_is_who_its_edge_device_says,
    a_module_that_starts_before_its_edge_device_waits_for_it,
    a_workload_api_that_is_busy_is_asked_again_at_once,
    a_workload_api_that_refuses_is_told_and_outlasted,
    a_key_made_anew_is_signed_with_at_the_next_attempt,
    a_module_is_debugged_with_a_connection_string_and_a_file_of_roots,
);

const MODULE: &str = "pump-7/filter";
const OTHER: &str = "pump-7/valve";
const GATEWAY: &str = "edge-1";
const GENERATION: &str = "638000000000000001";

/// An Edge device: its workload API, when it is up, lies in the folder.
struct Edge {
    scene: Scene,
    folder: TempDir,
    key: Key,
}

impl Edge {
    async fn start() -> Self {
        let key = Key::from_seed("the module's own key");
        let hub =
            HubConfig::new(HUB_A).device(DEVICE, e2e::key()).device(MODULE, key.clone()).device(OTHER, e2e::key());
        let config = Config::new().hub_with(hub).gateway_name(GATEWAY).https_port(0);
        let mut scene = Scene::start(config).await;
        scene.keep_secret(&key);
        Self { scene, folder: tempfile::tempdir().unwrap(), key }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("workload.sock")
    }

    fn workload_api(&self) -> WorkloadApi {
        WorkloadApi::start(self.socket(), "filter", GENERATION, self.key.clone(), self.scene.emulator.ca_pem()).unwrap()
    }

    fn builder(&self, pipe: Pipe) -> Builder {
        let builder = module_at(self.scene.emulator.tls_addr(), &format!("unix://{}", self.socket().display()));
        pipe.carry(builder.resolve_https(GATEWAY, self.scene.emulator.https_addr()))
    }

    fn run(&self, pipe: Pipe) -> Actor {
        Actor::start(&self.scene, MODULE, self.builder(pipe), 10)
    }
}

/// Describes a module by the variables that the Edge agent sets.
fn module_at(gateway: SocketAddr, workload_uri: &str) -> Builder {
    let value = |variable| {
        let values = [
            (Variable::HubHostName, HUB_A),
            (Variable::DeviceId, DEVICE),
            (Variable::ModuleId, "filter"),
            (Variable::GenerationId, GENERATION),
            (Variable::GatewayHostName, GATEWAY),
            (Variable::WorkloadUri, workload_uri),
            (Variable::ApiVersion, "2020-07-07"),
            (Variable::AuthScheme, "sasToken"),
        ];
        values.into_iter().find(|(one, _)| *one == variable).map(|(_, value)| value)
    };
    let environment = Environment::read(value).unwrap();
    Device::builder().edge(&environment).resolve(GATEWAY, [gateway]).retry(policy()).timeouts(timeouts())
}

async fn a_module_is_who_its_edge_device_says(pipe: Pipe) {
    let edge = Edge::start().await;
    let api = edge.workload_api();
    let mut actor = Actor::start(&edge.scene, MODULE, edge.builder(pipe).subscriptions(Subscriptions::MODULE), 10);
    actor.send(5).await;
    actor.delivered().await;
    let record = edge.scene.emulator.ledger().connections().remove(0);
    assert_eq!(record.server_name.as_deref(), Some(GATEWAY));
    assert!(record.user_name.unwrap().starts_with(&format!("{HUB_A}/{MODULE}/?api-version=")));
    let sign = format!("POST /modules/filter/genid/{GENERATION}/sign");
    assert_eq!(api.requests(), [sign, "GET /trust-bundle".to_owned()]);
    let cloud = edge.scene.emulator.hub(HUB_A).device(MODULE);
    cloud.send_to_input("raw", MessageToDevice::new("21")).unwrap();
    let message = soon(actor.device.messages().next()).await.unwrap();
    assert_eq!((message.input(), message.payload()), (Some("raw"), &b"21"[..]));
    assert!(message.acknowledge());
    assert_eq!(actor.failures(), []);
    actor.finish(&edge.scene).await;
}

async fn a_module_that_starts_before_its_edge_device_waits_for_it(pipe: Pipe) {
    let edge = Edge::start().await;
    edge.scene.emulator.set_listening(false);
    let mut actor = edge.run(pipe);
    actor.send(5).await;
    let status = actor.failed(Failure::Local(LocalFailure::WorkloadUnreachable)).await;
    assert!(status.to_string().contains("IoT Edge's workload API was not reached"), "{status}");
    // First the socket file, with nobody behind it.
    drop(std::os::unix::net::UnixListener::bind(edge.socket()).unwrap());
    until("tried again", || actor.failures().len() >= 3).await;
    let _api = edge.workload_api();
    actor.failed(Failure::ConnectionRefused).await;
    edge.scene.emulator.set_listening(true);
    actor.delivered().await;
    actor.finish(&edge.scene).await;
}

async fn a_workload_api_that_is_busy_is_asked_again_at_once(pipe: Pipe) {
    let edge = Edge::start().await;
    let api = edge.workload_api();
    api.close_next(3);
    let mut actor = edge.run(pipe);
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!((actor.failures(), api.closed()), (Vec::new(), 3));
    actor.finish(&edge.scene).await;
}

async fn a_workload_api_that_refuses_is_told_and_outlasted(pipe: Pipe) {
    let edge = Edge::start().await;
    let api = edge.workload_api();
    let mut actor = edge.run(pipe);
    for status in [403, 404, 500, 503] {
        api.refuse(Some(status));
        actor.failed(Failure::Local(LocalFailure::WorkloadRefused(status))).await;
    }
    actor.send(5).await;
    api.refuse(None);
    actor.delivered().await;
    let alarms = edge.scene.logs.alarms().join("\n");
    assert!(alarms.contains("answered 403: the socket is another module's"), "{alarms}");
    actor.finish(&edge.scene).await;
}

async fn a_key_made_anew_is_signed_with_at_the_next_attempt(pipe: Pipe) {
    let edge = Edge::start().await;
    let api = edge.workload_api();
    let mut actor = edge.run(pipe);
    actor.send(5).await;
    actor.delivered().await;
    let anew = Key::from_seed("the module's key, made anew");
    edge.scene.emulator.hub(HUB_A).device(MODULE).set_auth(anew.clone()).unwrap();
    actor.send(5).await;
    actor.failed(Failure::ConnectRefused(5)).await;
    api.set_key(anew);
    actor.delivered().await;
    actor.finish(&edge.scene).await;
}

async fn a_module_is_debugged_with_a_connection_string_and_a_file_of_roots(pipe: Pipe) {
    let edge = Edge::start().await;
    let file = edge.folder.path().join("ca.pem");
    std::fs::write(&file, edge.scene.emulator.ca_pem()).unwrap();
    let key = edge.key.to_base64();
    let text =
        format!("HostName={HUB_A};DeviceId={DEVICE};ModuleId=filter;SharedAccessKey={key};GatewayHostName={GATEWAY}");
    let values = [(Variable::ConnectionString, text.as_str()), (Variable::CaFile, file.to_str().unwrap())];
    let value = |variable| values.iter().find(|(one, _)| *one == variable).map(|(_, value)| *value);
    let environment = Environment::read(value).unwrap();
    let gateway = edge.scene.emulator.tls_addr();
    let builder = Device::builder().edge(&environment).resolve(GATEWAY, [gateway]).retry(policy());
    let mut actor = Actor::start(&edge.scene, MODULE, pipe.carry(builder.timeouts(timeouts())), 10);
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!(actor.failures(), []);
    actor.finish(&edge.scene).await;
}

#[tokio::test]
async fn a_gateway_that_comes_back_with_another_root_is_trusted_once_the_workload_api_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = Key::from_seed("the module's own key");
    let config = |port| {
        let hub = HubConfig::new(HUB_A).device(DEVICE, key()).device(MODULE, own.clone());
        Config::new().hub_with(hub).gateway_name(GATEWAY).tls_port(port).authority(Authority::new().unwrap())
    };
    let scene = Scene::start(config(0)).await;
    let gateway = scene.emulator.tls_addr();
    let socket = folder.path().join("w.sock");
    let api = WorkloadApi::start(&socket, "filter", GENERATION, own.clone(), scene.emulator.ca_pem()).unwrap();
    let mut actor = Actor::start(&scene, MODULE, module_at(gateway, &api.uri()), 10);
    actor.send(5).await;
    actor.delivered().await;
    let Scene { emulator, .. } = scene;
    assert_eq!(emulator.ledger().counts(MODULE).distinct, 5);
    emulator.stop().await;

    actor.send(5).await;
    actor.failed(Failure::ConnectionRefused).await;
    let renewed = Emulator::start(config(gateway.port())).await.unwrap();
    actor.failed(Failure::Tls(TlsFailure::BadSignature)).await;
    let asked = || api.requests().iter().filter(|request| request.starts_with("GET")).count();
    until("asked for the roots again", || asked() > 1).await;
    api.set_trust_bundle(renewed.ca_pem());
    actor.delivered().await;
    let messages = renewed.ledger().messages(MODULE);
    let bodies: Vec<&[u8]> = messages.iter().map(|message| &message.payload[..]).collect();
    assert_eq!(bodies, [b"5", b"6", b"7", b"8", b"9"]);
    let asked_by_then = asked();

    // As long as the certificate is trusted, a new connection is no reason to ask.
    renewed.hub(HUB_A).device(MODULE).disconnect(true).unwrap();
    let ups = || actor.events().iter().filter(|(_, event)| matches!(event, Event::Up { .. })).count();
    let ups_by_then = ups();
    until("up again", || ups() > ups_by_then).await;
    assert_eq!(asked(), asked_by_then);
    let books = soon(actor.device.stop(Duration::from_secs(5))).await;
    assert!(books.balances() && books.delivered == 10, "{books:?}");
    renewed.stop().await;
}

#[tokio::test]
async fn one_root_of_no_use_does_not_spoil_the_others() {
    let edge = Edge::start().await;
    let api = edge.workload_api();
    let useless = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    api.set_trust_bundle(&[useless, edge.scene.emulator.ca_pem(), useless].concat());
    let mut actor = edge.run(Pipe::Bytes);
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!(actor.failures(), []);
    actor.finish(&edge.scene).await;
}

#[tokio::test]
async fn a_crowd_that_starts_at_once_gets_all_its_signatures() {
    let edge = Edge::start().await;
    let api = edge.workload_api();
    api.set_delay(Duration::from_millis(20));
    edge.scene.emulator.set_listening(false);
    let crowd: Vec<_> = (0..30)
        .map(|_| {
            let (device, driver) = edge.builder(Pipe::Bytes).build().unwrap();
            (device, tokio::spawn(driver))
        })
        .collect();
    for (device, driver) in crowd {
        let mut status = device.status_changes();
        let failed = soon(status.wait_for(|status| status.last_failure.is_some())).await.unwrap().clone();
        // They came as far as the gateway, which is away.
        assert_eq!(failed.first_failure, Some(Failure::ConnectionRefused));
        soon(device.stop(Duration::ZERO)).await;
        soon(driver).await.unwrap();
    }
    assert!(api.closed() > 0, "more than ten asked at a time");
}

#[tokio::test]
async fn a_module_reaches_its_gateway_over_web_sockets_too() {
    let edge = Edge::start().await;
    let _api = edge.workload_api();
    let https = edge.scene.emulator.https_addr().unwrap();
    let builder = edge.builder(Pipe::Bytes).transport(Transport::WebSockets).resolve(GATEWAY, [https]);
    let mut actor = Actor::start(&edge.scene, MODULE, builder, 10);
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!(actor.failures(), []);
    actor.finish(&edge.scene).await;
}

/// Another module, with a key of its own, which answers the method `flush`.
fn start_valve(edge: &Edge) -> Actor {
    let valve = edge.scene.builder(Pipe::Bytes).hub(HUB_A, DEVICE).module_id("valve").shared_key(&key().to_base64());
    let valve = Actor::start(&edge.scene, OTHER, valve.subscriptions(Subscriptions::METHODS), 10);
    let serving = valve.device.clone();
    tokio::spawn(async move {
        let methods = Methods::new().on("flush", |body| async { MethodAnswer::new(207, body) });
        methods.serve(&serving).await;
    });
    valve
}

#[tokio::test]
async fn a_module_calls_methods_of_others_through_its_gateway() {
    let edge = Edge::start().await;
    let _api = edge.workload_api();
    let caller = edge.run(Pipe::Bytes);
    let valve = start_valve(&edge);
    valve.up().await;

    let call = || caller.device.invoke_method(DEVICE, "flush", r#"{"litres":2}"#);
    let answer = soon(call().of_module("valve").into_future()).await.unwrap();
    assert_eq!((answer.status, answer.payload.as_str()), (207, r#"{"litres":2}"#));
    let refused = soon(call().into_future()).await.unwrap_err();
    assert!(matches!(&refused, InvokeError::Refused { status: 404, message, .. } if message.contains("not connected")));
    let unfit = soon(call().answer_wait(Duration::from_secs(1)).into_future()).await.unwrap_err();
    assert_eq!(unfit, InvokeError::Unfit(CallError::Wait));
    let no_gateway = soon(valve.device.invoke_method(DEVICE, "flush", "").into_future()).await.unwrap_err();
    assert_eq!(no_gateway, InvokeError::NoModule);

    // The gateway waits for the one called, when it is asked to.
    soon(valve.device.stop(Duration::ZERO)).await;
    let away = soon(call().of_module("valve").into_future()).await.unwrap_err();
    assert!(matches!(away, InvokeError::Refused { status: 404, .. }), "{away}");
    let waiting = call().of_module("valve").connect_wait(Duration::from_secs(20));
    let waiting = tokio::spawn(waiting.into_future());
    let valve = start_valve(&edge);
    assert_eq!(soon(waiting).await.unwrap().unwrap().status, 207);

    edge.scene.emulator.set_listening(false);
    let failed = soon(call().of_module("valve").into_future()).await.unwrap_err();
    assert_eq!(failed, InvokeError::Failed(Failure::ConnectionRefused));
    edge.scene.emulator.set_listening(true);
    edge.scene.emulator.hub(HUB_A).device(MODULE).set_auth(Key::from_seed("another key")).unwrap();
    until("the port is open again", || std::net::TcpStream::connect(edge.scene.emulator.https_addr().unwrap()).is_ok())
        .await;
    let refused = soon(call().of_module("valve").into_future()).await.unwrap_err();
    assert!(matches!(refused, InvokeError::Refused { status: 401, .. }), "{refused}");
    for actor in [caller, valve] {
        soon(actor.device.stop(Duration::ZERO)).await;
    }
    for secret in &edge.scene.secrets {
        assert!(!edge.scene.logs.text().contains(secret.as_str()), "a secret is in the log");
    }
}

#[test]
fn a_process_that_is_no_module_is_told_which_variable_is_missing() {
    let error = Device::from_edge_environment().build().map(drop).unwrap_err();
    assert_eq!(error, BuildError::Edge(EnvironmentError::Missing(Variable::WorkloadUri)));
    let text = "IOTEDGE_WORKLOADURI is not set, nor is EdgeHubConnectionString; run as a module of IoT Edge, or set it";
    assert_eq!(error.to_string(), text);
}
