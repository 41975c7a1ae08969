//! Azure IoT Edge modules: who the module is, who signs for it, and whom it trusts.

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
    /// Begins to describe the module of Azure IoT Edge that this process is, as its environment says.
    ///
    /// Under the Edge agent it is the variables `IOTEDGE_*`: the module connects to the Edge hub, its gateway, proves
    /// itself with signatures of the workload API, and trusts the roots that API names. Outside a container, for
    /// debugging, it is `EdgeHubConnectionString` and the file `EdgeModuleCACertificateFile`. What is missing or wrong is
    /// an error of [`Builder::build`], with the name of the variable.
    ///
    /// The parts of an Edge device start in any order. When workload API or gateway is not up yet, the module waits for it
    /// at the link's pace, with [`LocalFailure::WorkloadUnreachable`](crate::LocalFailure::WorkloadUnreachable) in its
    /// status, and takes messages meanwhile. It is back within 20 s of any outage of its gateway
    /// ([`RetryPolicy::EDGE`]; [`Builder::retry`] sets another pace). The roots are asked for again once an hour, and whenever the gateway's
    /// certificate is not trusted, so that a renewed device certificate needs no restart of its modules.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use steadfast::{Device, Subscriptions, Telemetry};
    ///
    /// let (module, driver) = Device::from_edge_environment().subscriptions(Subscriptions::MODULE).build()?;
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
    /// Makes the identity the module that `environment` tells of, as [`Device::from_edge_environment`] does with the
    /// variables of the process.
    ///
    /// It sets hub, module, gateway, credential and, unless [`tls`](Self::tls) does, whom to trust. A module that is not
    /// told of a gateway connects to the IoT hub and trusts the operating system's roots. One behind a gateway is among a
    /// few on a service of their own: its back-off is [`RetryPolicy::EDGE`] when [`retry`](Self::retry) set no other
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

/// What a module asks the workload API, kept until the rest of the description is known.
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

    /// Checks what this operating system lacks.
    pub(crate) const fn check(&self) -> Result<(), BuildError> {
        match self.place {
            Place::Unix(_) if cfg!(not(unix)) => Err(BuildError::NoUnixSockets),
            Place::Unix(_) | Place::Tcp(_) => Ok(()),
        }
    }

    /// Returns the one to ask, and the one who signs through it.
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
