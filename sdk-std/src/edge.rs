//! Azure IoT Edge modules: identity, signatures and trusted roots.

use std::env;
use std::fmt;
use std::sync::Arc;

use steadfast_core::edge::{Environment, Module, Variable, WorkloadUri};
use steadfast_core::{RetryPolicy, Timeouts};

use crate::build_error::BuildError;
use crate::builder::Builder;
use crate::device::Device;
use crate::tls::Tls;

mod calls;
mod workload;

pub use calls::{InvokeError, ModuleCall, ModuleCallAnswer};
pub(crate) use workload::Workload;
use workload::{Place, WorkloadSigner};

impl Device {
    /// Makes a builder for the IoT Edge module of this process, from its environment.
    ///
    /// Under the Edge agent it reads the variables `IOTEDGE_*`: the module connects to the Edge hub, its gateway,
    /// authenticates with signatures of the workload API, and trusts the roots from that API. Outside a container, for
    /// debugging, it reads `EdgeHubConnectionString` and the file `EdgeModuleCACertificateFile`. A missing or invalid
    /// variable is an error of [`Builder::build`] that names it.
    ///
    /// The parts of an Edge device start in any order. If the workload API or the gateway is not up yet, the module
    /// retries with the link's back-off, with
    /// [`LocalFailure::WorkloadUnreachable`](crate::LocalFailure::WorkloadUnreachable) in its status, and accepts
    /// messages meanwhile. It reconnects within 20 s after any outage of its gateway ([`RetryPolicy::EDGE`];
    /// [`Builder::retry`] sets another policy). It reads the roots again once an hour, and whenever the gateway's
    /// certificate is not trusted, so that a renewed device certificate needs no restart of its modules.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use steadfast::{Device, Telemetry};
    ///
    /// let (module, driver) = Device::from_edge_environment().build()?;
    /// tokio::spawn(driver);
    /// let mut messages = module.messages();
    /// while let Some(message) = messages.next().await {
    ///     module.send(&Telemetry::new(message.payload()).output_name("filtered")?).await?;
    ///     message.acknowledge();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_edge_environment() -> Builder {
        let values = Variable::ALL.map(|variable| (variable, env::var(variable.name()).ok()));
        let value = |wanted| values.iter().find(|(one, _)| *one == wanted).and_then(|(_, value)| value.as_deref());
        match Environment::read(value) {
            Ok(environment) => Self::builder().edge(&environment),
            Err(error) => Self::builder().fail(BuildError::Edge(error)),
        }
    }
}

impl Builder {
    /// Sets the module of `environment`, as [`Device::from_edge_environment`] does with the variables of the process.
    ///
    /// It sets hub, module, gateway, credential and, unless [`tls`](Self::tls) does, the trusted roots. Without a
    /// gateway the module connects to the IoT hub and trusts the operating system's roots. Behind a gateway, which
    /// serves only a few modules, its back-off is [`RetryPolicy::EDGE`] unless [`retry`](Self::retry) has set another
    /// one than the default before.
    pub fn edge(mut self, environment: &Environment<'_>) -> Self {
        match environment {
            Environment::Module(module) => {
                self = self.hub(module.hub_host_name, module.device_id).module_id(module.module_id);
                self.config.gateway = module.gateway_host_name.map(Into::into);
                if self.config.gateway.is_some() && self.config.session.retry == RetryPolicy::DEFAULT {
                    self.config.session.retry = RetryPolicy::EDGE;
                }
                self.by_workload(EdgeModule::of(module))
            }
            Environment::Debug { connection_string, ca_file } => {
                self = self.connection_string(connection_string);
                match ca_file {
                    Some(path) => self.tls(Tls::without_system_roots().and_file(path)),
                    None => self,
                }
            }
            _ => self.fail(BuildError::NoService),
        }
    }
}

/// The workload API's settings, kept until the rest of the configuration is known.
#[derive(Clone)]
pub(crate) struct EdgeModule {
    place: Place,
    sign: String,
    trust_bundle: String,
}

impl EdgeModule {
    fn of(module: &Module<'_>) -> Self {
        let place = match module.workload_uri {
            WorkloadUri::Http { authority, .. } => Place::Tcp(authority.into()),
            WorkloadUri::Unix(path) => Place::Unix(path.into()),
            _ => Place::Unix(Box::default()),
        };
        Self { place, sign: module.sign_path().to_string(), trust_bundle: module.trust_bundle_path().to_string() }
    }

    /// Checks that this operating system has the sockets needed.
    pub(crate) const fn check(&self) -> Result<(), BuildError> {
        match self.place {
            Place::Unix(_) if cfg!(not(unix)) => Err(BuildError::NoUnixSockets),
            Place::Unix(_) | Place::Tcp(_) => Ok(()),
        }
    }

    /// Returns the workload API, and the signer that uses it.
    pub(crate) fn workload(self, timeouts: &Timeouts) -> (Arc<Workload>, WorkloadSigner) {
        let workload = Arc::new(Workload::new(self, timeouts));
        (Arc::clone(&workload), WorkloadSigner(workload))
    }
}

impl fmt::Debug for EdgeModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdgeModule({})", self.place)
    }
}
