//! The two devices that meet the same faults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use steadfast::{Device, Dps, Subscriptions, Telemetry, Tls};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};

/// How a device gets to its hub.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) hub: String,
    pub(crate) device: String,
    pub(crate) key: String,
    pub(crate) second_key: Option<String>,
    /// The id scope of the provisioning service, where the device was provisioned by it.
    pub(crate) scope: Option<String>,
    pub(crate) ca: PathBuf,
}

/// What the application was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) connected: bool,
    /// Of each message, by its number: that it arrived, or the error.
    pub(crate) messages: BTreeMap<u64, Option<String>>,
    /// The latest version of desired properties.
    pub(crate) desired: u64,
}

pub(crate) type Shared = Arc<Mutex<Told>>;

/// A device under test.
pub(crate) enum Peer {
    Ours { device: Device, told: Shared, next: u64 },
    Python { child: Box<Child>, input: ChildStdin, told: Shared, next: u64 },
}

fn note(told: &Shared, change: impl FnOnce(&mut Told)) {
    change(&mut told.lock().unwrap_or_else(PoisonError::into_inner));
}

impl Peer {
    /// Starts this SDK's device, with its defaults.
    pub(crate) fn ours(setup: &Setup, ca_pem: &str) -> Self {
        let builder = Device::builder().tls(Tls::without_system_roots().and_pem(ca_pem));
        let builder = builder.subscriptions(Subscriptions::TWIN);
        let builder = builder.outbox(1000, 1 << 20);
        let builder = match &setup.scope {
            Some(scope) => builder.provision_with(Dps::new(scope, &setup.device)),
            None => builder.hub(&setup.hub, &setup.device),
        };
        let builder = match &setup.second_key {
            Some(second) => builder.shared_keys(&setup.key, second),
            None => builder.shared_key(&setup.key),
        };
        let (device, driver) = builder.build().expect("a complete device");
        tokio::spawn(driver);
        let told = Shared::default();
        let (listener, listening) = (device.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            let mut changes = listener.twin().desired();
            while let Some(desired) = changes.next().await {
                note(&listening, |told| {
                    told.desired = desired.version();
                    told.connected = true;
                });
            }
        });
        Self::Ours { device, told, next: 0 }
    }

    /// Starts a device on the official Python SDK, with its defaults.
    pub(crate) async fn python(python: &Path, setup: &Setup) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let mut input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let text = json!({"hub": setup.hub, "device": setup.device, "key": setup.key, "ca": setup.ca});
        input.write_all(format!("{text}\n").as_bytes()).await.expect("python listens");
        let told = Shared::default();
        let listening = Arc::clone(&told);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
                note(&listening, |told| match said["step"].as_str() {
                    Some("connected") => told.connected = true,
                    Some("desired") => told.desired = said["version"].as_u64().unwrap_or(0),
                    Some("told") => {
                        let number = said["number"].as_u64().unwrap_or(0);
                        told.messages.insert(number, said["error"].as_str().map(str::to_owned));
                    }
                    _ => {}
                });
            }
        });
        Self::Python { child: Box::new(child), input, told, next: 0 }
    }

    pub(crate) fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        let (Self::Ours { told, .. } | Self::Python { told, .. }) = self;
        look(&told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands so many more messages to the SDK.
    pub(crate) async fn send(&mut self, count: u64) {
        match self {
            Self::Ours { device, told, next } => {
                for number in *next..*next + count {
                    let telemetry = Telemetry::new(number.to_string()).message_id(&format!("msg-{number}"));
                    let receipt = device.send(telemetry.expect("a good id")).await.expect("room in the outbox");
                    let told = Arc::clone(told);
                    tokio::spawn(async move {
                        let error = receipt.delivered().await.err().map(|error| error.to_string());
                        note(&told, |told| _ = told.messages.insert(number, error));
                    });
                }
                *next += count;
            }
            Self::Python { input, next, .. } => {
                let text = json!({ "send": count });
                input.write_all(format!("{text}\n").as_bytes()).await.expect("python listens");
                *next += count;
            }
        }
    }

    /// Waits until `wished`, at most for `limit`; returns how long that took.
    pub(crate) async fn wait(&self, limit: Duration, wished: impl Fn(&Told) -> bool) -> Option<Duration> {
        let start = Instant::now();
        while !self.told(&wished) {
            if start.elapsed() >= limit {
                return None;
            }
            sleep(Duration::from_millis(20)).await;
        }
        Some(start.elapsed())
    }

    /// Ends the device.
    pub(crate) async fn end(self) {
        match self {
            Self::Ours { device, .. } => _ = device.stop(Duration::ZERO).await,
            Self::Python { mut child, .. } => {
                // It may hang in a reconnection; it is this process's own child.
                let _ = child.kill().await;
            }
        }
    }
}
