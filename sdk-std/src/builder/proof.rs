//! The builder's settings of the credential.

use std::sync::Arc;

use steadfast_core::{Credential, Service};
use zeroize::Zeroizing;

use super::Builder;
use crate::build_error::BuildError;
#[cfg(feature = "edge")]
use crate::edge::{EdgeModule, Workload};
use crate::signer::{KeyPair, SharedKey, Signer};
use crate::tls::{CertificateSource, ClientCertificate};
use crate::tokens::{Authenticator, TokenSource};

/// The credential as configured.
pub(super) enum Proof {
    Nothing,
    Authenticator(Authenticator),
    /// The keys of an enrollment group, in base64, until the registration id is final.
    Group(Zeroizing<String>, Option<Zeroizing<String>>),
    Certificate(ClientCertificate),
    /// The workload API, once the timeouts are final.
    #[cfg(feature = "edge")]
    Workload(EdgeModule),
}

/// The credential as the driver uses it.
#[derive(Default)]
pub(super) struct Authentication {
    pub(super) authenticator: Option<Authenticator>,
    pub(super) certificate: Option<Arc<CertificateSource>>,
    /// The workload API that supplies the roots, unless the application names them.
    #[cfg(feature = "edge")]
    pub(super) workload: Option<Arc<Workload>>,
}

impl Builder {
    /// Authenticates with the device's symmetric key, in base64.
    pub fn shared_key(self, key: &str) -> Self {
        match SharedKey::from_base64(key) {
            Ok(key) => self.signer(key),
            Err(error) => self.fail(BuildError::Key(error)),
        }
    }

    /// Authenticates with either of the device's symmetric keys, in base64: if one is refused, the next attempt uses
    /// the other, and the accepted one stays in use. So keys can be rotated one after the other.
    pub fn shared_keys(self, primary: &str, secondary: &str) -> Self {
        match (SharedKey::from_base64(primary), SharedKey::from_base64(secondary)) {
            (Ok(primary), Ok(secondary)) => self.signer(KeyPair::new(primary, secondary)),
            (Err(error), _) | (_, Err(error)) => self.fail(BuildError::Key(error)),
        }
    }

    /// Authenticates with the key derived for the registration id from the enrollment group's key, in base64.
    pub fn group_key(mut self, key: &str) -> Self {
        self.proof = Proof::Group(Zeroizing::new(key.to_owned()), None);
        self.prove(Credential::SharedKey)
    }

    /// Like [`group_key`](Self::group_key) with both keys of the enrollment group: if one is refused, the next attempt
    /// uses the other.
    pub fn group_keys(mut self, primary: &str, secondary: &str) -> Self {
        self.proof = Proof::Group(Zeroizing::new(primary.to_owned()), Some(Zeroizing::new(secondary.to_owned())));
        self.prove(Credential::SharedKey)
    }

    /// Authenticates with signatures of an external key.
    pub fn signer(mut self, signer: impl Signer) -> Self {
        self.proof = Proof::Authenticator(Authenticator::Signer(Arc::new(signer)));
        self.prove(Credential::SharedKey)
    }

    /// Authenticates with shared access signatures from an external source, such as a key service of the plant. Each is
    /// requested when it is needed, and renewed before it expires.
    pub fn tokens_from(mut self, source: impl TokenSource) -> Self {
        self.proof = Proof::Authenticator(Authenticator::Tokens(Arc::new(source)));
        self.prove(Credential::SharedKey)
    }

    /// Authenticates to the hub with a ready-made shared access signature. It cannot be renewed: once it has expired,
    /// the hub refuses the device. Prefer the key.
    pub fn token(mut self, token: &str) -> Self {
        self.proof = Proof::Nothing;
        self.prove(Credential::Token(token.into()))
    }

    /// Authenticates with a client certificate.
    pub fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.proof = Proof::Certificate(certificate);
        self.prove(Credential::Certificate)
    }

    /// Authenticates to a broker with a user name and a password.
    pub fn password(mut self, user_name: &str, password: &str) -> Self {
        self.proof = Proof::Nothing;
        self.prove(Credential::Password { user_name: user_name.into(), password: password.into() })
    }

    /// Connects without a credential, for a broker that requires none.
    pub fn anonymous(mut self) -> Self {
        self.proof = Proof::Nothing;
        self.prove(Credential::Anonymous)
    }

    #[cfg(feature = "edge")]
    pub(crate) fn by_workload(mut self, module: EdgeModule) -> Self {
        self.proof = Proof::Workload(module);
        self.prove(Credential::SharedKey)
    }

    fn prove(mut self, credential: Credential<Box<str>>) -> Self {
        self.config.credential = credential;
        self.proven = true;
        self
    }

    /// Makes the driver's credential.
    pub(super) fn proof(&mut self) -> Result<Authentication, BuildError> {
        match std::mem::replace(&mut self.proof, Proof::Nothing) {
            Proof::Nothing => Ok(Authentication::default()),
            Proof::Authenticator(authenticator) => {
                Ok(Authentication { authenticator: Some(authenticator), ..Authentication::default() })
            }
            Proof::Certificate(certificate) => {
                let certificate = Some(Arc::new(CertificateSource::new(certificate)));
                Ok(Authentication { certificate, ..Authentication::default() })
            }
            Proof::Group(key, other) => {
                let Service::Provisioned { registration_id, .. } = &self.config.service else {
                    return Err(BuildError::GroupKeyWithoutProvisioning);
                };
                let derived = |key: &str| SharedKey::of_group(key, registration_id).map_err(BuildError::Key);
                let key = derived(&key)?;
                let signer: Arc<dyn Signer> = match other {
                    None => Arc::new(key),
                    Some(other) => Arc::new(KeyPair::new(key, derived(&other)?)),
                };
                Ok(Authentication { authenticator: Some(Authenticator::Signer(signer)), ..Authentication::default() })
            }
            #[cfg(feature = "edge")]
            Proof::Workload(module) => {
                module.check()?;
                let (workload, signer) = module.workload(&self.config.session.timeouts);
                let authenticator = Some(Authenticator::Signer(Arc::new(signer)));
                // Without a gateway it is the IoT hub's own certificate.
                let asked = self.tls.is_none() && !self.plaintext && self.config.gateway.is_some();
                Ok(Authentication { authenticator, workload: asked.then_some(workload), ..Authentication::default() })
            }
        }
    }
}
