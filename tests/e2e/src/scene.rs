//! The emulator, and the settings of devices that are to meet it.

use std::time::Duration;

use hub_emulator::{Config, DpsConfig, Emulator, Enrollment, HubConfig, Key};
use steadfast::{Builder, Device, Dps, Reprovisioning, RetryPolicy, Timeouts, Tls};

use crate::{Actor, Logs, Pipe};

/// The hub of most scenes.
pub const HUB_A: &str = "hub-a.azure-devices.net";

/// The hub a device moves to.
pub const HUB_B: &str = "hub-b.azure-devices.net";

/// The Device Provisioning Service.
pub const DPS_HOST: &str = "global.azure-devices-provisioning.net";

/// The device of most scenes.
pub const DEVICE: &str = "pump-7";

/// The enrollment group of scenes with the Device Provisioning Service.
pub const GROUP: &str = "line-1";

/// Returns the key of everybody's choice.
#[must_use]
pub fn key() -> Key {
    Key::from_seed("an end-to-end key")
}

/// Returns the default back-off, two hundred times as fast; a poll of the provisioning service waits 50 ms.
#[must_use]
pub fn policy() -> RetryPolicy {
    let mut policy = RetryPolicy::DEFAULT.divided_by(200);
    policy.retry_after_cap = Duration::from_millis(50);
    policy
}

/// Returns patience that suits a loaded machine and still ends within a test.
#[must_use]
pub fn timeouts() -> Timeouts {
    let mut timeouts = Timeouts::DEFAULT;
    timeouts.connect = Duration::from_secs(10);
    timeouts.connack = Duration::from_secs(10);
    timeouts.suback = Duration::from_secs(10);
    timeouts.puback = Duration::from_secs(10);
    timeouts.provisioning_answer = Duration::from_secs(5);
    timeouts
}

/// Returns rules that lead to the provisioning service within a second.
#[must_use]
pub fn reprovisioning() -> Reprovisioning {
    let mut rules = Reprovisioning::DEFAULT.divided_by(4000);
    rules.spread = Duration::from_millis(50);
    rules
}

/// An emulator, and the log of what happens in front of it.
#[derive(Debug)]
pub struct Scene {
    /// The services.
    pub emulator: Emulator,
    /// What the device logs.
    pub logs: Logs,
    /// What must not be in the log.
    pub secrets: Vec<String>,
}

impl Scene {
    /// Starts the emulator.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(config: Config) -> Self {
        let logs = Logs::collect();
        let emulator = Emulator::start(config).await.expect("the emulator starts");
        let secrets = ["sig=", "SharedAccessSignature", "PRIVATE KEY"].map(str::to_owned).into();
        let mut scene = Self { emulator, logs, secrets };
        scene.keep_secret(&key());
        scene.keep_secret(&key().derive(DEVICE));
        scene
    }

    /// Starts one hub that knows [`DEVICE`] by [`key`].
    pub async fn at_hub() -> Self {
        Self::start(Config::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, key()))).await
    }

    /// Starts two hubs, and a provisioning service with [`GROUP`], whose key is [`key`] and whose hub is [`HUB_A`].
    pub async fn provisioned() -> Self {
        Self::start(Self::with_dps()).await
    }

    /// The settings of [`Scene::provisioned`], to change.
    pub fn with_dps() -> Config {
        let dps = DpsConfig::new().assigning_polls(0).polls_per_ten_seconds(1000);
        Config::new().hub(HUB_A).hub(HUB_B).dps(dps).enroll(Enrollment::group(GROUP, key()).hub(HUB_A))
    }

    /// Adds a key to what must not be in the log.
    pub fn keep_secret(&mut self, key: &Key) {
        self.secrets.push(key.to_base64());
    }

    /// Returns a builder that reaches all services of this scene, trusts them, and is in a hurry.
    pub fn builder(&self, pipe: Pipe) -> Builder {
        let mut builder = Device::builder()
            .tls(Tls::without_system_roots().and_pem(self.emulator.ca_pem()))
            .resolve(DPS_HOST, [self.emulator.dps().addr()])
            .retry(policy())
            .timeouts(timeouts())
            .reprovisioning(reprovisioning());
        for hub in self.emulator.hubs() {
            builder = builder.resolve(&hub, [self.emulator.hub(&hub).addr()]);
        }
        pipe.carry(builder)
    }

    /// Returns the builder of [`DEVICE`] at [`HUB_A`], with its key.
    pub fn device(&self, pipe: Pipe) -> Builder {
        self.builder(pipe).hub(HUB_A, DEVICE).shared_key(&key().to_base64())
    }

    /// Returns the builder of [`DEVICE`] in [`GROUP`].
    pub fn member(&self, pipe: Pipe) -> Builder {
        let dps = Dps::new(&self.emulator.dps().id_scope(), DEVICE);
        self.builder(pipe).provision_with(dps).group_key(&key().to_base64())
    }

    /// Starts [`Scene::device`] with a window of ten messages.
    pub fn run_device(&self, pipe: Pipe) -> Actor {
        Actor::start(self, DEVICE, self.device(pipe), 10)
    }

    /// Starts [`Scene::member`] with a window of ten messages.
    pub fn run_member(&self, pipe: Pipe) -> Actor {
        Actor::start(self, DEVICE, self.member(pipe), 10)
    }
}
