//! The simulated cloud of the programs: a local hub and DPS, and the faults they inject.

mod edge_module;
mod file_upload;
mod gateway_leaf;
mod methods;
mod telemetry;
mod twin_thermostat;
mod x509;

use std::path::PathBuf;
use std::time::Duration;

use hub_emulator::{
    Config, DeviceAuth, DeviceCertificate, DeviceHandle, DpsConfig, Emulator, Enrollment, Hub, HubConfig, Key,
    Ledger as HubLedger, LedgerMode,
};
use steadfast::{Builder, Device, Environment, Ledger, RetryPolicy, Tls, Variable};
use tempfile::TempDir;

use crate::place::{CertificateFiles, Identity};
use crate::{Outcome, say};

pub use edge_module::edge_module;
pub use file_upload::file_upload;
pub use gateway_leaf::gateway_leaf;
pub use methods::methods;
pub use telemetry::telemetry;
pub use twin_thermostat::twin_thermostat;
pub use x509::x509;

const HUB: &str = "plant.azure-devices.net";
const DEVICE: &str = "example-1";
const MODULE: &str = "example-1/filter";
const GENERATION: &str = "638000000000000001";
const GATEWAY: &str = "gateway.plant.local";
const STORAGE: &str = "plant.blob.core.windows.net";

/// Timeout of each expected result.
const PATIENCE: Duration = Duration::from_secs(20);

/// A local hub and DPS that know one device.
pub struct Local {
    emulator: Emulator,
    /// The identity that the program has.
    name: &'static str,
    /// For the files a real device would have from its maker.
    directory: TempDir,
}

impl Local {
    pub(crate) async fn start() -> Outcome<Self> {
        let config = Config::new()
            // A separate port, which is closed while the hub is down.
            .hub_with(HubConfig::new(HUB).port(0))
            .dps(DpsConfig::new().assigning_polls(0))
            .enroll(Enrollment::individual(DEVICE, key()))
            .gateway_name(GATEWAY)
            .https_port(0)
            .storage_host(STORAGE)
            .ledger(LedgerMode::Full);
        Ok(Self { emulator: Emulator::start(config).await?, name: DEVICE, directory: tempfile::tempdir()? })
    }

    /// Resolves a device's names to this hub, and shortens its delays.
    pub(crate) fn reach(&self, builder: Builder) -> Builder {
        let builder = self.lead(builder).tls(Tls::without_system_roots().and_pem(self.emulator.ca_pem()));
        match self.emulator.https_addr() {
            Some(https) => builder.resolve_https(HUB, [https]).resolve_https(STORAGE, [https]),
            None => builder,
        }
    }

    /// Describes the module as the Edge agent does, and leads it here.
    pub(crate) fn module(&self) -> Builder {
        let uri = format!("unix://{}", self.socket().display());
        let (device_id, module_id) = MODULE.split_once('/').unwrap_or_default();
        let values = [
            (Variable::HubHostName, HUB),
            (Variable::DeviceId, device_id),
            (Variable::ModuleId, module_id),
            (Variable::GenerationId, GENERATION),
            (Variable::GatewayHostName, GATEWAY),
            (Variable::WorkloadUri, &uri),
        ];
        let value = |wanted| values.iter().find(|(variable, _)| *variable == wanted).map(|(_, value)| *value);
        let environment = Environment::read(value).expect("the variables above are those of a module");
        self.lead(Device::builder().edge(&environment))
    }

    fn lead(&self, builder: Builder) -> Builder {
        builder
            .resolve(&self.emulator.dps().host(), [self.emulator.dps().addr()])
            .resolve(HUB, [self.hub().addr()])
            .resolve(GATEWAY, [self.emulator.tls_addr()])
            .retry(RetryPolicy::DEFAULT.divided_by(10))
    }

    /// Names the device as DPS knows it.
    pub(crate) fn provisioned(&self) -> Identity {
        let (id_scope, registration_id) = (self.emulator.dps().id_scope(), DEVICE.to_owned());
        Identity::Provisioned { id_scope, registration_id, key: Some(key().to_base64()) }
    }

    /// Registers a device with a certificate, and writes its first one; returns the connection string.
    pub(crate) fn register_certificate(&self) -> Outcome<String> {
        let thumbprint = self.new_certificate()?.thumbprint;
        self.hub().add_device(DEVICE, DeviceAuth::Thumbprint { primary: thumbprint, secondary: None })?;
        Ok(format!("HostName={HUB};DeviceId={DEVICE};x509=true"))
    }

    /// Registers a device with a key; returns the connection string that leads through the gateway.
    pub(crate) fn register_leaf(&self) -> Outcome<String> {
        self.hub().add_device(DEVICE, key())?;
        let key = key().to_base64();
        Ok(format!("HostName={HUB};DeviceId={DEVICE};SharedAccessKey={key};GatewayHostName={GATEWAY}"))
    }

    /// Registers a module, with a key that the Edge device keeps for it.
    pub(crate) fn register_module(&mut self) -> Outcome {
        self.hub().add_device(DEVICE, key())?;
        self.hub().add_device(MODULE, key())?;
        self.name = MODULE;
        Ok(())
    }

    /// Returns the path of the workload API's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("workload.sock")
    }

    /// Writes the roots a device behind the gateway trusts into a file.
    pub(crate) fn roots_file(&self) -> Outcome<PathBuf> {
        let path = self.directory.path().join("gateway-roots.pem");
        std::fs::write(&path, self.emulator.ca_pem())?;
        Ok(path)
    }

    pub(crate) fn certificate_files(&self) -> CertificateFiles {
        let path = |name| self.directory.path().join(name);
        CertificateFiles { chain: path("chain.pem"), key: path("key.pem") }
    }

    /// Issues a certificate and replaces the previous one, each file by a rename, so that no reader sees half a file.
    fn new_certificate(&self) -> Outcome<DeviceCertificate> {
        let issued = self.emulator.device_certificate(DEVICE)?;
        let files = self.certificate_files();
        for (path, text) in [(files.key, &issued.key_pem), (files.chain, &issued.certificate_pem)] {
            let new = path.with_extension("new");
            write_private(&new, text)?;
            std::fs::rename(&new, &path)?;
        }
        Ok(issued)
    }

    fn hub(&self) -> Hub {
        self.emulator.hub(HUB)
    }

    fn device(&self) -> DeviceHandle {
        self.hub().device(self.name)
    }

    /// Waits until a condition holds; checks it again after each change.
    async fn until(&self, what: &str, holds: impl Fn(&HubLedger) -> bool) -> Outcome {
        if self.emulator.ledger().wait_until(PATIENCE, holds).await {
            return Ok(());
        }
        Err(format!("not within {} s: {what}", PATIENCE.as_secs()).into())
    }

    /// Waits until the hub has that many more messages.
    async fn more_messages(&self, count: u64) -> Outcome {
        let wanted = self.emulator.ledger().counts(self.name).distinct + count;
        self.until("messages arrive", |ledger| ledger.counts(self.name).distinct >= wanted).await
    }

    /// Closes the device's connection without DISCONNECT, like a network failure, and waits until the device has
    /// reconnected.
    async fn cut(&self) -> Outcome {
        let before = self.emulator.ledger().connections_of(self.name).len();
        say("cloud", "cuts the connection");
        self.device().disconnect(true)?;
        self.until("the device comes back", |ledger| {
            ledger.connections_of(self.name).len() > before && self.device().is_connected()
        })
        .await
    }

    /// Compares the device's ledger with the hub's.
    pub(crate) fn check(&self, books: &Ledger) -> Outcome {
        let counts = self.emulator.ledger().counts(self.name);
        say("cloud", format_args!("the hub has {} messages", counts.distinct));
        // One that expired may have arrived all the same, when only its acknowledgement was lost.
        if (books.delivered..=books.delivered + books.expired).contains(&counts.distinct) {
            say("cloud", "nothing was lost");
            return Ok(());
        }
        Err(format!("the device says {} were delivered", books.delivered).into())
    }
}

fn key() -> Key {
    Key::from_seed("an example")
}

/// Writes a file that only its owner can read.
fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// Fails with `why` unless `holds`.
fn ensure(holds: bool, why: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(why.into().into()) }
}
