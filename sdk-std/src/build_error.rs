//! Errors in a device's configuration.

use std::fmt;
use std::path::PathBuf;

use steadfast_core::ConfigError;
use steadfast_core::azure::connection_string::ConnectionStringError;
use steadfast_core::azure::sas::KeyError;
#[cfg(feature = "edge")]
use steadfast_core::edge::EnvironmentError;

use crate::proxy::ProxyError;
use crate::tls::TlsError;

/// Why [`crate::Builder::build`] failed. Its text names the remedy and contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// No service was named.
    NoService,
    /// No credential was given.
    NoCredential,
    /// [`Builder::spawn`](crate::Builder::spawn) was called outside a runtime of tokio.
    NoRuntime,
    /// The connection string is not usable.
    ConnectionString(ConnectionStringError),
    /// The key is not usable.
    Key(KeyError),
    /// A key of an enrollment group was given to a device without a registration.
    GroupKeyWithoutProvisioning,
    /// A setting of the link is not usable.
    Config(ConfigError),
    /// The host name is invalid.
    Host(Box<str>),
    /// A host was given an empty list of addresses.
    NoAddress(Box<str>),
    /// The outbox has no room.
    NoOutbox,
    /// An assignment file was named for a device without a registration.
    AssignmentWithoutProvisioning,
    /// The assignment path does not name a file.
    AssignmentPath(PathBuf),
    /// The back-off path does not name a file.
    BackoffPath(PathBuf),
    /// The settings of TLS are not usable.
    Tls(TlsError),
    /// A key or a password would travel unprotected to this host.
    CredentialWithoutTls(Box<str>),
    /// A client certificate needs TLS.
    CertificateWithoutTls,
    /// The proxy is not usable.
    Proxy(ProxyError),
    /// The environment is not that of an IoT Edge module.
    #[cfg(feature = "edge")]
    Edge(EnvironmentError),
    /// The workload API listens on a Unix socket, which this operating system does not have.
    #[cfg(feature = "edge")]
    NoUnixSockets,
    /// A registration over HTTPS, or a TPM, without the Device Provisioning Service.
    #[cfg(feature = "tpm")]
    HttpsWithoutProvisioning,
    /// The operating system gave no randomness.
    NoRandomness,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => {
                f.write_str("name the service: connection_string, hub, provision_with or broker")
            }
            Self::NoCredential => f.write_str(
                "give the device a credential: shared_key, group_key, signer, client_certificate, password or anonymous",
            ),
            Self::NoRuntime => f.write_str("spawn() needs a runtime of tokio: call it in async code, or use build() and spawn the driver"),
            Self::ConnectionString(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::GroupKeyWithoutProvisioning => {
                f.write_str("an enrollment group's key needs provision_with; a hub needs the device's own key")
            }
            Self::Config(error) => error.fmt(f),
            Self::Host(host) => write!(f, "{host:?} is neither a host name nor an address; leave out scheme and port"),
            Self::NoAddress(host) => write!(f, "resolve names no address for {host}; name one or leave it out"),
            Self::NoOutbox => f.write_str("the outbox needs room for at least one message and one byte"),
            Self::AssignmentWithoutProvisioning => {
                f.write_str("an assignment file needs provision_with; a configured hub is not assigned")
            }
            Self::AssignmentPath(path) => write!(f, "{} cannot be a file; name the assignment file", path.display()),
            Self::BackoffPath(path) => write!(f, "{} cannot be a file; name the back-off file", path.display()),
            Self::Tls(error) => error.fmt(f),
            Self::CredentialWithoutTls(host) => write!(
                f,
                "without TLS the key's token or the password would be readable on the network to {host}; use TLS, or a host on this machine"
            ),
            Self::CertificateWithoutTls => f.write_str("a client certificate needs TLS; use TLS"),
            Self::Proxy(error) => error.fmt(f),
            #[cfg(feature = "edge")]
            Self::Edge(error) => error.fmt(f),
            #[cfg(feature = "edge")]
            Self::NoUnixSockets => {
                f.write_str("IOTEDGE_WORKLOADURI names a Unix socket, which this operating system does not have")
            }
            #[cfg(feature = "tpm")]
            Self::HttpsWithoutProvisioning => {
                f.write_str("register_over_https and tpm need provision_with; a configured hub is not registered with")
            }
            Self::NoRandomness => f.write_str("the operating system gave no randomness for the jitter"),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<ConfigError> for BuildError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
