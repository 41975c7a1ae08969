//! Whole sessions on every way to the services, with a logger for everything that anything in the process logs: the SDK,
//! and what it is built of.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use e2e::{ConnectProxy, DEVICE, DPS_HOST, HUB_A, HUB_B, Pipe, Scene, key, soon};
use hub_emulator::{Config, HubConfig};
use steadfast::{Builder, Message, Proxy, Transport, UploadSource};

#[path = "../../../sdk-std/tests/support/forms.rs"]
mod forms;

const STORAGE: &str = "emulator.blob.core.windows.net";

/// `user` and [`PASSWORD`], as a proxy sees them.
const LOGIN: &str = "dXNlcjp3ZXQgc2VjcmV0IG9mIHByb3hpZXM=";
const PASSWORD: &str = "wet secret of proxies";

/// What was logged outside the services' threads.
static LOGGED: Mutex<String> = Mutex::new(String::new());

thread_local! {
    /// This thread is of the services, which have libraries in common with the device and may log what they like.
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

struct Everything;

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if !SERVES.get() {
            let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(logged, "{} {}: {}", record.level(), record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

impl io::Write for Everything {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs the services of a scene on a thread of their own until the other end of the channel is gone; returns what `make`
/// says of them.
fn services<T: Send + 'static>(
    config: Config,
    until: Receiver<()>,
    make: impl AsyncFnOnce(&mut Scene) -> T + Send + 'static,
) -> (T, thread::JoinHandle<()>) {
    let (tell, told) = channel();
    let serving = thread::spawn(move || {
        SERVES.set(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut scene = Scene::start(config).await;
            tell.send(make(&mut scene).await).ok().unwrap();
            while until.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    (told.recv().unwrap(), serving)
}

async fn session(builder: Builder, upload: bool) {
    let (device, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver);
    for number in 0..3_u8 {
        let receipt = soon(device.send(Message::telemetry("", &[number]))).await.unwrap();
        soon(receipt.delivered()).await.unwrap();
    }
    if upload {
        soon(device.upload("day", UploadSource::bytes(vec![7; 100_000])).into_future()).await.unwrap();
    }
    soon(device.stop(Duration::from_secs(5))).await;
    soon(driver).await.unwrap();
}

/// Has all services reached through the proxy alone.
fn only_through(builder: Builder, proxy: SocketAddr) -> Builder {
    [HUB_A, HUB_B, DPS_HOST]
        .into_iter()
        .fold(builder, |builder, host| builder.resolve(host, ["127.0.0.1:1".parse().unwrap()]))
        .resolve("proxy.example", [proxy])
        .proxy(Proxy::http("proxy.example", 3128).basic_auth("user", PASSWORD))
}

#[tokio::test]
async fn no_way_to_the_services_logs_a_secret_whatever_it_is_built_of() {
    log::set_logger(&Everything).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(|| Everything)
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    type Way = (&'static str, bool, Pipe);
    let ways: [Way; 6] = [
        ("mqtt", false, Pipe::Bytes),
        ("mqtt", false, Pipe::Rumqttc),
        ("websockets", true, Pipe::Bytes),
        ("proxy", false, Pipe::Bytes),
        ("uploads", true, Pipe::Bytes),
        ("registration", true, Pipe::Bytes),
    ];
    for (way, https, pipe) in ways {
        let config = match way {
            "websockets" | "uploads" => Config::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, key())),
            _ => Scene::with_dps(),
        };
        let config = if https { config.https_port(0) } else { config };
        let (end, until) = channel();
        let (builder, serving) = services(config, until, async move |scene| {
            let https = scene.emulator.https_addr();
            match way {
                "websockets" => scene.device(pipe).resolve(HUB_A, [https.unwrap()]).transport(Transport::WebSockets),
                "uploads" => {
                    let https = [https.unwrap()];
                    scene.device(pipe).resolve_https(HUB_A, https).resolve_https(STORAGE, https)
                }
                "registration" => scene.member(pipe).register_over_https().resolve_https(DPS_HOST, [https.unwrap()]),
                "proxy" => {
                    let hubs = scene.emulator.hubs();
                    let hubs = hubs.iter().map(|hub| (format!("{hub}:8883"), scene.emulator.hub(hub).addr()));
                    let dps = (format!("{DPS_HOST}:8883"), scene.emulator.dps().addr());
                    let proxy = ConnectProxy::start(hubs.chain([dps]), LOGIN).await;
                    let builder = only_through(scene.member(pipe), proxy.address);
                    std::mem::forget(proxy);
                    builder
                }
                _ => scene.member(pipe),
            }
        });
        let before = LOGGED.lock().unwrap().len();
        session(builder, way == "uploads").await;
        drop(end);
        serving.join().unwrap();
        let logged = LOGGED.lock().unwrap()[before..].to_owned();
        assert!(logged.contains("TRACE") && logged.contains("connecting"), "{way} is logged");
        let derived = key().derive(DEVICE);
        let secrets = [
            key().to_base64().into_bytes(),
            derived.to_base64().into_bytes(),
            PASSWORD.into(),
            LOGIN.into(),
            b"SharedAccessSignature".into(),
            b"&sig=".into(),
        ];
        for form in secrets.iter().flat_map(|secret| forms::forms(secret)).filter(|form| form.len() >= 5) {
            let line = logged.lines().find(|line| line.contains(&form));
            assert_eq!(line, None, "over {way} {form:?} is logged");
        }
    }
}
