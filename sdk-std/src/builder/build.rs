//! From the settings to the device: checks, files, randomness.

use std::sync::Arc;

use steadfast_core::{
    AnyProfile, Assignment, BackoffSnapshot, Credential, HubLink, Link, Seed, Service, Settings, Subscriptions,
};

use super::{Builder, MOST_METHOD_CALLS};
use crate::assignment_file::AssignmentFile;
use crate::backoff_file::BackoffFile;
use crate::build_error::BuildError;
use crate::clock;
use crate::connector::Setup;
use crate::context::Context;
use crate::device::Device;
use crate::driver::Driver;
use crate::memory_outbox::MemoryOutbox;
use crate::shared::{Rooms, Shared, SharedConfig};
use crate::tls::{self, TlsError};

/// Bytes for the texts of a broker's filters, all together.
const FILTERS: usize = 4096;

impl Builder {
    /// Makes the device and spawns its driver on tokio's runtime. [`Device::stop`] ends it.
    ///
    /// ```no_run
    /// use steadfast::{Device, Telemetry};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let text = std::env::var("DEVICE_CONNECTION_STRING")?;
    /// let device = Device::builder().connection_string(&text).spawn()?;
    /// device.send(Telemetry::json(r#"{"celsius":21.5}"#)).await?.delivered().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`build`](Self::build); also [`BuildError::NoRuntime`] outside a runtime.
    pub fn spawn(self) -> Result<Device, BuildError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let (device, driver) = self.build()?;
        drop(runtime.spawn(driver));
        Ok(device)
    }

    /// Makes the device and its driver, to be spawned or polled beside other work; [`spawn`](Self::spawn) does so.
    ///
    /// Reads the named files, and the operating system's roots unless this process has read them already; waits at most
    /// 10 s for a disk that does not answer.
    ///
    /// # Errors
    /// [`BuildError`] for the first missing or wrong setting; nothing has been sent.
    pub fn build(mut self) -> Result<(Device, Driver), BuildError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if !self.placed {
            return Err(BuildError::NoService);
        }
        if !self.proven {
            return Err(BuildError::NoCredential);
        }
        self.config.port = self.port.unwrap_or_else(|| self.transport.port());
        // Its words are those for a host name with scheme or port.
        self.check_hosts()?;
        self.config.check()?;
        if self.outbox.messages == 0 || self.outbox.bytes == 0 {
            return Err(BuildError::NoOutbox);
        }
        let proven = self.proof()?;
        #[cfg(feature = "edge")]
        let asked = proven.workload.is_some();
        #[cfg(not(feature = "edge"))]
        let asked = false;
        let tls = if self.plaintext {
            self.check_plaintext()?;
            None
        } else {
            let tls = self.tls.take().unwrap_or_default();
            if !asked {
                read_now(self.context, &tls, proven.certificate.as_ref()).map_err(BuildError::Tls)?;
            }
            Some(tls)
        };
        let seed = match self.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        let backoff_file = self.backoff_source()?;
        let assignment = self.assignment_source()?;
        #[cfg(feature = "tpm")]
        let registrar = self.registrar()?;
        let setup = Setup {
            context: self.context,
            name: name(&self.config.service).into(),
            tls,
            certificate: proven.certificate,
            overrides: (!self.overrides.is_empty()).then(|| Box::new(self.overrides)),
            authenticator: proven.authenticator,
            assignment,
            backoff_file,
            loopback: !matches!(self.config.credential, Credential::Anonymous),
            proxy: self.proxy.take().map(Box::new),
            patience: self.config.session.timeouts.connect,
            #[cfg(feature = "_requests")]
            signing: self.config.session.timeouts.sign,
            #[cfg(feature = "_requests")]
            token: if let Credential::Token(token) = &self.config.credential {
                Some(zeroize::Zeroizing::new(String::from(&**token)))
            } else {
                None
            },
            #[cfg(feature = "_https")]
            https: Box::new(self.https_overrides),
            #[cfg(feature = "edge")]
            workload: proven.workload,
            #[cfg(feature = "tpm")]
            registrar: registrar.map(Box::new),
            #[cfg(feature = "upload")]
            uploads: Arc::new(tokio::sync::Semaphore::new(steadfast_core::upload::AT_ONCE_MAX)),
            #[cfg(feature = "websocket")]
            broker: matches!(self.config.service, Service::Broker { .. }),
            #[cfg(feature = "websocket")]
            web_sockets: self.transport.is_web_sockets(),
            #[cfg(feature = "rumqttc")]
            client: self.over_rumqttc.then_some(crate::rumqttc::Limits {
                window: self.config.session.window,
                inbound: self.config.session.max_inbound,
                outbound: self.config.session.max_outbound,
            }),
        };
        let method_calls = self.method_calls.clamp(1, MOST_METHOD_CALLS);
        let now = clock::now();
        let config = SharedConfig::new(self.config);
        let rooms = Rooms { reports: self.reports, answers: self.answers, calls: method_calls };
        let wanted = config.config().subscriptions;
        let followed = wanted.contains(Subscriptions::TWIN_RESPONSES);
        let reports = if followed { rooms.for_reports() } else { Box::default() };
        let (answers, calls) =
            if wanted.contains(Subscriptions::METHODS) { rooms.for_calls() } else { Default::default() };
        let broker = matches!(config.config().service, Service::Broker { .. });
        let filters = vec![0; if broker { FILTERS } else { 0 }].into_boxed_slice();
        let link = Link::new(AnyProfile::new(config, filters), MemoryOutbox::new(self.outbox), seed, now)?;
        let mut link = HubLink::with_calls(link, reports, answers, calls);
        link.allow_operator_commands(self.orders);
        link.set_wall_clock(clock::unix_secs(), now);
        let setup = Arc::new(setup);
        let (assignment, backoff) = kept(&setup);
        if let Some(kept) = assignment {
            link.restore_assignment(kept);
        }
        if let Some(kept) = backoff {
            link.restore_backoff(kept, now);
        }
        let shared = Arc::new(Shared::new(link, rooms));
        let driver = Driver::new(Arc::clone(&shared), Arc::clone(&setup));
        #[cfg(feature = "_requests")]
        return Ok((Device::new(shared, setup), driver));
        #[cfg(not(feature = "_requests"))]
        Ok((Device::new(shared), driver))
    }

    /// Who registers over HTTPS, if anybody.
    #[cfg(feature = "tpm")]
    fn registrar(&mut self) -> Result<Option<crate::dps_https::Registrar>, BuildError> {
        if !self.config.https_registration {
            return Ok(None);
        }
        let Service::Provisioned { id_scope, registration_id, .. } = &self.config.service else {
            return Err(BuildError::HttpsWithoutProvisioning);
        };
        let (id_scope, registration_id) = (id_scope.clone(), registration_id.clone());
        Ok(Some(crate::dps_https::Registrar { id_scope, registration_id, tpm: self.tpm.take() }))
    }

    fn assignment_source(&mut self) -> Result<Option<Box<AssignmentFile>>, BuildError> {
        let Some(path) = self.assignment.take() else { return Ok(None) };
        let Service::Provisioned { id_scope, registration_id, .. } = &self.config.service else {
            return Err(BuildError::AssignmentWithoutProvisioning);
        };
        if path.file_name().is_none() {
            return Err(BuildError::AssignmentPath(path));
        }
        Ok(Some(Box::new(AssignmentFile::new(path, id_scope, registration_id))))
    }

    fn backoff_source(&mut self) -> Result<Option<Box<BackoffFile>>, BuildError> {
        let beside = || {
            let path = self.assignment.as_ref()?;
            let mut name = path.file_name()?.to_owned();
            name.push(".back-off");
            Some(path.with_file_name(name))
        };
        let Some(path) = self.memory.take().or_else(beside) else { return Ok(None) };
        if path.file_name().is_none() {
            return Err(BuildError::BackoffPath(path));
        }
        let owner = match &self.config.service {
            Service::Hub { host, device_id } => {
                format!("{host} {device_id} {}", self.config.module_id.as_deref().unwrap_or_default())
            }
            Service::Provisioned { id_scope, registration_id, .. } => format!("{id_scope} {registration_id}"),
            Service::Broker { host, client_id } => format!("{host} {client_id}"),
            _ => String::new(),
        };
        Ok(Some(Box::new(BackoffFile::new(path, &owner))))
    }
}

/// Reads the certificates and keys for TLS, within a bounded time.
fn read_now(
    context: &'static Context,
    tls: &tls::Tls,
    certificate: Option<&Arc<tls::CertificateSource>>,
) -> Result<(), TlsError> {
    let (trust, source) = (tls.clone(), certificate.map(Arc::clone));
    let read = context.readers.wait(context.reading, move || trust.config(source.as_deref()).map(drop));
    read.unwrap_or_else(|error| {
        Err(TlsError::Silent { files: tls.files(certificate.map(|one| &**one)), problem: error.to_string() })
    })
}

/// Reads the stored assignment and back-off state, within a bounded time.
fn kept(setup: &Arc<Setup>) -> (Option<Assignment>, Option<BackoffSnapshot>) {
    if setup.assignment.is_none() && setup.backoff_file.is_none() {
        return (None, None);
    }
    let theirs = Arc::clone(setup);
    let read = setup.context.readers.wait(setup.context.reading, move || {
        let assignment = theirs.assignment.as_ref().and_then(|file| file.load());
        (assignment, theirs.backoff_file.as_ref().and_then(|file| file.load()))
    });
    read.unwrap_or_else(|error| {
        tracing::warn!(device = %setup.name, %error, "the stored state cannot be read; starting without it");
        (None, None)
    })
}

fn name(service: &Service<Box<str>>) -> &str {
    match service {
        Service::Hub { device_id, .. } => device_id,
        Service::Provisioned { registration_id, .. } => registration_id,
        Service::Broker { client_id, .. } => client_id,
        _ => "",
    }
}

fn random_seed() -> Result<Seed, BuildError> {
    let mut entropy = [0; 16];
    tls::provider().secure_random.fill(&mut entropy).map_err(|_| BuildError::NoRandomness)?;
    Ok(Seed::new(entropy))
}
