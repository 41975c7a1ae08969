//! An Edge device for official SDKs: its gateway, the workload APIs of its modules, and a module of this SDK to call.

use std::time::Duration;

use hub_emulator::{Config, DpsConfig, Emulator, HubConfig, Key, WorkloadApi};
use serde_json::{Map, Value, json};
use steadfast::{Device, Environment, MethodAnswer, Methods, State, Subscriptions, Variable};
use tempfile::TempDir;

use crate::sdk::{DPS, HUB};
use crate::soon;

const GENERATION: &str = "638000000000000001";
const VALVE: &str = "valve";

/// An Edge device on the ports that official SDKs dial. Its gateway is `localhost`, so that the gateway's name and the
/// hub's cannot be taken for each other.
pub struct EdgePlace {
    /// Gateway and hub.
    pub emulator: Emulator,
    device: &'static str,
    files: TempDir,
    key: Key,
    /// Answers the method `open` with 207 and what it was given.
    valve: Device,
    _valve_api: WorkloadApi,
}

impl EdgePlace {
    /// Starts an Edge device with these modules, and one more.
    ///
    /// # Panics
    /// When a port is taken.
    pub async fn start(device: &'static str, modules: &[&str]) -> Self {
        let key = Key::from_seed("module");
        let mut hub = HubConfig::new(HUB).device(device, Key::from_seed("device"));
        for module in modules.iter().chain(&[VALVE]) {
            hub = hub.device(&format!("{device}/{module}"), key.clone());
        }
        let config = Config::new().hub_with(hub).dps(DpsConfig::new().host(DPS)).tls_port(8883).https_port(443);
        let emulator = Emulator::start(config).await.expect("ports 8883 and 443 are free in a new namespace");
        let files = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(files.path().join("ca.pem"), emulator.ca_pem()).expect("the file is written");
        let api = workload_api(&files, &emulator, VALVE, &key);
        let values = variables(device, VALVE, &api);
        let value = |wanted| values.iter().find(|(one, _)| *one == wanted).map(|(_, value)| value.as_str());
        let told = Environment::read(value).expect("a module's environment");
        let builder = Device::builder().edge(&told).subscriptions(Subscriptions::METHODS);
        let (valve, driver) = builder.build().expect("a complete module");
        tokio::spawn(driver);
        let serving = valve.clone();
        tokio::spawn(async move {
            Methods::new().on("open", |body| async { MethodAnswer::new(207, body) }).serve(&serving).await;
        });
        let mut status = valve.status_changes();
        soon(status.wait_for(|status| status.state == State::Up)).await.expect("the device holds the sender");
        drop(status);
        Self { emulator, device, files, key, valve, _valve_api: api }
    }

    /// Starts the workload API of a module.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn workload_api(&self, module: &str) -> WorkloadApi {
        workload_api(&self.files, &self.emulator, module, &self.key)
    }

    /// Returns what the script of an SDK is told that is to be this module: the environment, and whom to call.
    #[must_use]
    pub fn setup(&self, module: &str, websockets: bool, api: &WorkloadApi) -> Value {
        let variables = variables(self.device, module, api);
        let variables: Map<String, Value> =
            variables.into_iter().map(|(variable, value)| (variable.name().to_owned(), value.into())).collect();
        let method = json!({
            "methodName": "open",
            "payload": {"by": 3},
            "connectTimeoutInSeconds": 5,
            "responseTimeoutInSeconds": 30,
        });
        let answer = json!({"status": 207, "payload": {"by": 3}});
        let call = json!({"method": method, "device": self.device, "module": VALVE, "answer": answer});
        let ca = self.files.path().join("ca.pem");
        json!({"ca": ca, "websockets": websockets, "environment": variables, "call": call})
    }

    /// Checks that the module was signed for, and asked whom to trust.
    ///
    /// # Panics
    /// When it did not.
    pub fn check(module: &str, api: &WorkloadApi) {
        let requests = api.requests();
        for wanted in [format!("POST /modules/{module}/genid/{GENERATION}/sign"), "GET /trust-bundle".to_owned()] {
            assert!(requests.contains(&wanted), "{requests:?}");
        }
    }

    /// Stops everything.
    pub async fn stop(self) {
        soon(self.valve.stop(Duration::from_secs(5))).await;
        self.emulator.stop().await;
    }
}

fn workload_api(files: &TempDir, emulator: &Emulator, module: &str, key: &Key) -> WorkloadApi {
    let path = files.path().join(format!("{module}.sock"));
    WorkloadApi::start(path, module, GENERATION, key.clone(), emulator.ca_pem()).expect("it listens")
}

/// Returns what the Edge agent sets.
fn variables(device: &str, module: &str, api: &WorkloadApi) -> [(Variable, String); 8] {
    [
        (Variable::HubHostName, HUB.to_owned()),
        (Variable::DeviceId, device.to_owned()),
        (Variable::ModuleId, module.to_owned()),
        (Variable::GenerationId, GENERATION.to_owned()),
        (Variable::GatewayHostName, "localhost".to_owned()),
        (Variable::WorkloadUri, api.uri()),
        (Variable::ApiVersion, "2020-07-07".to_owned()),
        (Variable::AuthScheme, "sasToken".to_owned()),
    ]
}
