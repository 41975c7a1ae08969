//! The device's hub: the one that the environment names, or a local one.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use steadfast::{Builder, Device, Dps, Ledger, Variable};

use crate::local::Local;
use crate::{Outcome, say};

/// Time limit of the local scenario.
const LIMIT: Duration = Duration::from_secs(60);

/// A device's service and credential.
pub struct Place {
    identity: Identity,
    local: Option<Local>,
    /// How long to run at a real hub; without it until Ctrl-C.
    span: Option<Duration>,
}

/// The hub of the environment, or the local hub.
pub(crate) enum Identity {
    ConnectionString(String),
    /// A module of IoT Edge.
    Module,
    /// Without a key the device has a certificate.
    Provisioned {
        id_scope: String,
        registration_id: String,
        key: Option<String>,
    },
}

/// The files of a device's certificate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The chain, the device's own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Place {
    /// Takes a device with a symmetric key: `IOTHUB_DEVICE_CONNECTION_STRING`, or `DPS_ID_SCOPE`, `DPS_REGISTRATION_ID`
    /// and `DPS_KEY`.
    ///
    /// # Errors
    /// When only some of the variables are there, or the local hub does not start.
    pub async fn with_key() -> Outcome<Self> {
        match identity(true)? {
            Some(identity) => Self::cloud(identity),
            None => {
                let local = Local::start().await?;
                Self::at(local.provisioned(), local)
            }
        }
    }

    /// Takes a device with a certificate: a connection string with `x509=true`, or `DPS_ID_SCOPE` and
    /// `DPS_REGISTRATION_ID`; and the PEM files `DEVICE_CERTIFICATE` and `DEVICE_CERTIFICATE_KEY`.
    ///
    /// # Errors
    /// When only some of the variables are there, or the local hub does not start.
    pub async fn with_certificate() -> Outcome<(Self, CertificateFiles)> {
        match identity(false)? {
            Some(identity) => {
                let (chain, key) = (required("DEVICE_CERTIFICATE")?.into(), required("DEVICE_CERTIFICATE_KEY")?.into());
                Ok((Self::cloud(identity)?, CertificateFiles { chain, key }))
            }
            None => {
                let local = Local::start().await?;
                let connection_string = local.register_certificate()?;
                let files = local.certificate_files();
                Ok((Self::at(Identity::ConnectionString(connection_string), local)?, files))
            }
        }
    }

    /// Takes a device behind a gateway: a connection string that ends with `;GatewayHostName=`, and the PEM file
    /// `GATEWAY_ROOTS` with the roots of the gateway's certificate. DPS cannot be reached through a gateway.
    ///
    /// # Errors
    /// When only one of the variables is there, or the local hub does not start.
    pub async fn behind_gateway() -> Outcome<(Self, PathBuf)> {
        match variable("IOTHUB_DEVICE_CONNECTION_STRING") {
            Some(text) => Ok((Self::cloud(Identity::ConnectionString(text))?, required("GATEWAY_ROOTS")?.into())),
            None => {
                let local = Local::start().await?;
                let connection_string = local.register_leaf()?;
                let roots = local.roots_file()?;
                Ok((Self::at(Identity::ConnectionString(connection_string), local)?, roots))
            }
        }
    }

    /// Takes an IoT Edge module: the Edge agent's variables, or `EdgeHubConnectionString` and
    /// `EdgeModuleCACertificateFile`.
    ///
    /// # Errors
    /// When the local hub does not start.
    pub async fn of_module() -> Outcome<Self> {
        let names = [Variable::WorkloadUri, Variable::ConnectionString].map(Variable::name);
        if names.into_iter().any(|name| variable(name).is_some()) {
            return Self::cloud(Identity::Module);
        }
        let mut local = Local::start().await?;
        local.register_module()?;
        Self::at(Identity::Module, local)
    }

    fn cloud(identity: Identity) -> Outcome<Self> {
        let span = span()?;
        say("cloud", "the hub that the environment names; Ctrl-C ends the program");
        Ok(Self { identity, local: None, span })
    }

    fn at(identity: Identity, local: Local) -> Outcome<Self> {
        if span()?.is_some() {
            return Err("--for is for a real hub, and the environment names none".into());
        }
        say("cloud", "a local IoT hub and DPS, over TLS, in this process; the back-off's waits are divided by 10");
        Ok(Self { identity, local: Some(local), span: None })
    }

    /// Returns the device's builder, with its service and its key.
    pub fn builder(&self) -> Builder {
        self.builder_with(None)
    }

    /// Like [`builder`](Self::builder); a registration with DPS sends this JSON object.
    pub fn builder_announcing(&self, payload: &str) -> Builder {
        self.builder_with(Some(payload))
    }

    fn builder_with(&self, payload: Option<&str>) -> Builder {
        let builder = match &self.identity {
            Identity::Module => {
                return self.local.as_ref().map_or_else(Device::from_edge_environment, Local::module);
            }
            Identity::ConnectionString(text) => Device::builder().connection_string(text),
            Identity::Provisioned { id_scope, registration_id, key } => {
                let dps = Dps::new(id_scope, registration_id);
                let dps = match payload {
                    Some(payload) => dps.payload(payload),
                    None => dps,
                };
                let builder = Device::builder().provision_with(dps);
                match key {
                    Some(key) => builder.shared_key(key),
                    None => builder,
                }
            }
        };
        match &self.local {
            Some(local) => local.reach(builder),
            None => builder,
        }
    }

    /// Runs the device until Ctrl-C or `--for` at a real hub, or until the end of `scenario`, the simulated cloud, at
    /// the local one.
    ///
    /// # Errors
    /// An error of either part.
    pub async fn run(
        &self,
        work: impl Future<Output = Outcome>,
        scenario: impl AsyncFnOnce(&Local) -> Outcome,
    ) -> Outcome {
        let end = async {
            match (&self.local, self.span) {
                (Some(local), _) => match tokio::time::timeout(LIMIT, scenario(local)).await {
                    Ok(told) => told,
                    Err(_) => Err(format!("the cloud's part did not end within {} s", LIMIT.as_secs()).into()),
                },
                (None, Some(span)) => {
                    tokio::time::sleep(span).await;
                    Ok(())
                }
                (None, None) => Ok(tokio::signal::ctrl_c().await?),
            }
        };
        tokio::pin!(end);
        tokio::select! {
            done = work => match (done, &self.local) {
                (Ok(()), Some(_)) => end.await,
                (done, _) => done,
            },
            done = &mut end => done,
        }
    }

    /// Prints the device's ledger; at the local hub, compares it with the hub's.
    ///
    /// # Errors
    /// When a message is lost or unaccounted for.
    pub fn check(&self, books: &Ledger) -> Outcome {
        let Ledger { accepted, delivered, expired, queued, .. } = *books;
        let line = format!("{accepted} messages accepted, {delivered} delivered, {expired} expired, {queued} queued");
        say("books", line);
        if queued > 0 {
            return Err(format!("{queued} messages are still queued, and end with this process").into());
        }
        if !books.balances() || accepted != delivered + expired {
            return Err("a message is lost".into());
        }
        match &self.local {
            Some(local) => local.check(books),
            None => Ok(()),
        }
    }
}

/// Reads the device's identity; `None` if the environment names no hub.
fn identity(with_key: bool) -> Outcome<Option<Identity>> {
    if let Some(text) = variable("IOTHUB_DEVICE_CONNECTION_STRING") {
        return Ok(Some(Identity::ConnectionString(text)));
    }
    let Some(id_scope) = variable("DPS_ID_SCOPE") else { return Ok(None) };
    let registration_id = required("DPS_REGISTRATION_ID")?;
    let key = if with_key { Some(required("DPS_KEY")?) } else { None };
    Ok(Some(Identity::Provisioned { id_scope, registration_id, key }))
}

/// Reads how long to work at a real hub.
fn span() -> Outcome<Option<Duration>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        ["--for", seconds] => {
            let seconds = seconds.parse().map_err(|_| format!("--for takes whole seconds, and not {seconds:?}"))?;
            Ok(Some(Duration::from_secs(seconds)))
        }
        _ => Err("the only option is --for SECONDS; the environment names the hub".into()),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn required(name: &str) -> Outcome<String> {
    variable(name).ok_or_else(|| format!("the environment variable {name} is missing").into())
}
