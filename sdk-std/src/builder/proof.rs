//! The builder's settings of how the device proves who it is.

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

/// What the device proves itself with.
pub(super) enum Proof {
    Nothing,
    Authenticator(Authenticator),
    /// The keys of an enrollment group, in base64, until the registration id is known for certain.
    Group(Zeroizing<String>, Option<Zeroizing<String>>),
    Certificate(ClientCertificate),
    /// The workload API, once the timeouts are known for certain.
    #[cfg(feature = "edge")]
    Workload(EdgeModule),
}

/// What the driver proves the device with.
#[derive(Default)]
pub(super) struct Authentication {
    pub(super) authenticator: Option<Authenticator>,
    pub(super) certificate: Option<Arc<CertificateSource>>,
    /// Who is asked for the roots, unless the application names them.
    #[cfg(feature = "edge")]
    pub(super) workload: Option<Arc<Workload>>,
}

impl Builder {
    /// Proves the device with its symmetric key, in base64.
    pub fn shared_key(self, key: &str) -> Self {
        match SharedKey::from_base64(key) {
            Ok(key) => self.signer(key),
            Err(error) => self.fail(BuildError::Key(error)),
        }
    }

    /// Proves the device with either of its symmetric keys, in base64: when one is refused, the other is tried at the
    /// next attempt, and the one that was taken is kept to. So keys can be exchanged one after the other.
    pub fn shared_keys(self, primary: &str, secondary: &str) -> Self {
        match (SharedKey::from_base64(primary), SharedKey::from_base64(secondary)) {
            (Ok(primary), Ok(secondary)) => self.signer(KeyPair::new(primary, secondary)),
            (Err(error), _) | (_, Err(error)) => self.fail(BuildError::Key(error)),
        }
    }

    /// Proves the device with the key derived for its registration id from its enrollment group's key, in base64.
    pub fn group_key(mut self, key: &str) -> Self {
        self.proof = Proof::Group(Zeroizing::new(key.to_owned()), None);
        self.prove(Credential::SharedKey)
    }

    /// Like [`group_key`](Self::group_key) with both keys of the enrollment group: when one is refused, the other is
    /// tried at the next attempt.
    pub fn group_keys(mut self, primary: &str, secondary: &str) -> Self {
        self.proof = Proof::Group(Zeroizing::new(primary.to_owned()), Some(Zeroizing::new(secondary.to_owned())));
        self.prove(Credential::SharedKey)
    }

    /// Proves the device with signatures of a key held elsewhere.
    pub fn signer(mut self, signer: impl Signer) -> Self {
        self.proof = Proof::Authenticator(Authenticator::Signer(Arc::new(signer)));
        self.prove(Credential::SharedKey)
    }

    /// Proves the device with shared access signatures that are made elsewhere, such as by a service of the plant that
    /// holds the keys. Each is asked for when it is needed and renewed before its own expiry.
    pub fn tokens_from(mut self, source: impl TokenSource) -> Self {
        self.proof = Proof::Authenticator(Authenticator::Tokens(Arc::new(source)));
        self.prove(Credential::SharedKey)
    }

    /// Proves the device to its hub with a finished shared access signature. Nobody can renew it: once it has expired,
    /// the hub refuses the device. Prefer the key.
    pub fn token(mut self, token: &str) -> Self {
        self.proof = Proof::Nothing;
        self.prove(Credential::Token(token.into()))
    }

    /// Proves the device with a certificate.
    pub fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.proof = Proof::Certificate(certificate);
        self.prove(Credential::Certificate)
    }

    /// Proves the device to a broker with a user name and a password.
    pub fn password(mut self, user_name: &str, password: &str) -> Self {
        self.proof = Proof::Nothing;
        self.prove(Credential::Password { user_name: user_name.into(), password: password.into() })
    }

    /// Proves nothing, for a broker that asks for nothing.
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

    /// Makes what the driver proves the device with.
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
