//! The certification authority, the certificates of the services and of devices.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SignatureVerificationAlgorithm, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};

use crate::Error;

const CA_NAME: &str = "Hub Emulator CA";

/// A certification authority: signs the certificates of the services and, on request, of devices.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// A certificate and its private key.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeviceCertificate {
    /// The certificate as PEM.
    pub certificate_pem: String,
    /// The private key as PEM (PKCS#8).
    pub key_pem: String,
    /// SHA-256 of the certificate in lower-case hexadecimal.
    pub thumbprint: String,
}

impl fmt::Debug for DeviceCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCertificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// A defect of a service certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flaw {
    /// It expired in 2020.
    Expired,
    /// It is valid from 3000.
    NotYetValid,
    /// It is for another host name.
    WrongName,
    /// It is self-signed.
    SelfSigned,
    /// It is signed by an unknown authority.
    UnknownIssuer,
}

impl Authority {
    /// Creates an authority with a new key.
    ///
    /// # Errors
    /// [`Error::Certificate`] when the machine's randomness fails.
    pub fn new() -> Result<Self, Error> {
        Self::named(CA_NAME)
    }

    fn named(name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let params = ca_params(name);
        let certificate = params.self_signed(&key).map_err(certificate_error)?;
        let inner = Inner {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Loads an authority that [`Authority::new`] created in an earlier run.
    ///
    /// # Errors
    /// [`Error::Certificate`] when a text is not PEM, or the two do not belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| Error::Certificate(error.to_string()))?;
        let key = KeyPair::from_pem(key_pem).map_err(certificate_error)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| Error::Certificate(error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(Error::Certificate("the CA key does not belong to the CA certificate".to_owned()));
        }
        if common_name(&der).as_deref() != Some(CA_NAME) {
            return Err(Error::Certificate(format!("the CA certificate must have the common name {CA_NAME:?}")));
        }
        let inner = Inner {
            pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            der,
            issuer: Issuer::new(ca_params(CA_NAME), key),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the CA certificate as PEM, which clients must trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.inner.pem
    }

    /// Returns the private key of the CA as PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.inner.key_pem
    }

    /// Issues a client certificate with `common_name`, which must be the device or registration id.
    ///
    /// # Errors
    /// [`Error::Certificate`] when `common_name` cannot stand in a certificate.
    pub fn device_certificate(&self, common_name: &str) -> Result<DeviceCertificate, Error> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.inner.issuer).map_err(certificate_error)?;
        Ok(DeviceCertificate {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            thumbprint: thumbprint(certificate.der()),
        })
    }

    /// Returns the revocation list as DER: it is empty and valid until 3000.
    pub(crate) fn revocation_list(&self) -> Result<Vec<u8>, Error> {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(3000, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.inner.issuer).map_err(certificate_error)?.der().to_vec())
    }

    /// `revocations` is the address of the revocation list.
    fn service_certificate(
        &self,
        names: &[String],
        flaw: Option<Flaw>,
        revocations: Option<&str>,
    ) -> Result<CertifiedKey, Error> {
        let key = KeyPair::generate().map_err(certificate_error)?;
        let names = match flaw {
            Some(Flaw::WrongName) => vec!["another-name.invalid".to_owned()],
            _ => names.to_vec(),
        };
        let mut params = CertificateParams::new(names.clone()).map_err(certificate_error)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("localhost", String::as_str));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let point = |address: &str| CrlDistributionPoint { uris: vec![address.to_owned()] };
        params.crl_distribution_points = revocations.map(point).into_iter().collect();
        match flaw {
            Some(Flaw::Expired) => params.not_after = date_time_ymd(2020, 1, 1),
            Some(Flaw::NotYetValid) => params.not_before = date_time_ymd(3000, 1, 1),
            _ => {}
        }
        let (certificate, issuer) = match flaw {
            Some(Flaw::SelfSigned) => (params.self_signed(&key), None),
            Some(Flaw::UnknownIssuer) => {
                let unknown = Self::named("an authority nobody knows")?;
                (params.signed_by(&key, &unknown.inner.issuer), Some(unknown.inner.der.clone()))
            }
            _ => (params.signed_by(&key, &self.inner.issuer), Some(self.inner.der.clone())),
        };
        let mut chain = vec![certificate.map_err(certificate_error)?.der().clone()];
        chain.extend(issuer);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key =
            provider().key_provider.load_private_key(key).map_err(|error| Error::Certificate(error.to_string()))?;
        Ok(CertifiedKey::new(chain, key))
    }
}

/// Checks that a client certificate was signed by the CA of `pem` and is valid at `unix` seconds.
pub(crate) fn is_signed_by(chain: &[CertificateDer<'static>], pem: &str, unix: u64) -> bool {
    let Some((leaf, intermediates)) = chain.split_first() else { return false };
    let Ok(root) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let mut roots = RootCertStore::empty();
    if roots.add(root).is_err() {
        return false;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(unix));
    verifier.is_ok_and(|verifier| verifier.verify_client_cert(leaf, intermediates, now).is_ok())
        || is_plain_and_signed_by(leaf, pem, unix)
}

/// Checks a version 1 certificate: signed directly by the CA, and valid. OpenSSL creates them when no extensions are
/// set, and the chain verifier rejects them.
fn is_plain_and_signed_by(leaf: &CertificateDer<'_>, pem: &str, unix: u64) -> bool {
    let Ok(root) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let (Ok((_, leaf)), Ok((_, root))) = (X509Certificate::from_der(leaf), X509Certificate::from_der(&root)) else {
        return false;
    };
    let valid = i64::try_from(unix).ok().and_then(|unix| ASN1Time::from_timestamp(unix).ok());
    let key = &root.public_key().subject_public_key.data;
    let signed = |algorithm: &&dyn SignatureVerificationAlgorithm| {
        algorithm.verify_signature(key, leaf.tbs_certificate.as_ref(), &leaf.signature_value.data).is_ok()
    };
    leaf.version() == X509Version::V1
        && leaf.issuer() == root.subject()
        && valid.is_some_and(|now| leaf.validity().is_valid_at(now))
        && provider().signature_verification_algorithms.all.iter().any(signed)
}

/// Returns the SHA-256 thumbprint of a certificate in lower-case hexadecimal.
pub(crate) fn thumbprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the common name of a certificate's subject.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of all services, created when a service is added and selected by the name in the ClientHello.
#[derive(Debug)]
pub(crate) struct Certificates {
    authority: Authority,
    /// The address of the revocation list, if set.
    revocations: Option<String>,
    named: Mutex<Named>,
}

#[derive(Debug)]
struct Named {
    /// Gateway names and addresses, valid for every service.
    gateways: Vec<String>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// The certificate with all names, for clients without SNI such as older SDKs. None until it is needed.
    nameless: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// `gateways` are names that are valid for every service.
    pub(crate) fn new(
        authority: Authority,
        gateways: &[String],
        revocations: Option<String>,
    ) -> Result<Arc<Self>, Error> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend_from_slice(gateways);
        let gateway = Arc::new(authority.service_certificate(&names, None, revocations.as_deref())?);
        let by_name = names.iter().map(|name| (name.clone(), Arc::clone(&gateway))).collect();
        let named = Named { gateways: names, by_name, nameless: None };
        Ok(Arc::new(Self { authority, revocations, named: Mutex::new(named) }))
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Creates or recreates the certificate of a service.
    pub(crate) fn add(&self, host: &str, flaw: Option<Flaw>) -> Result<(), Error> {
        let names = [host.to_owned()];
        let certificate = Arc::new(self.authority.service_certificate(&names, flaw, self.revocations.as_deref())?);
        let mut named = self.lock();
        named.by_name.insert(host.to_owned(), certificate);
        named.nameless = None;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nameless(&self) -> Option<Arc<CertifiedKey>> {
        let mut named = self.lock();
        if named.nameless.is_none() {
            let mut names = named.gateways.clone();
            names.extend(named.by_name.keys().filter(|name| !named.gateways.contains(name)).cloned());
            let made = self.authority.service_certificate(&names, None, self.revocations.as_deref());
            named.nameless = made.ok().map(Arc::new);
        }
        named.nameless.clone()
    }

    /// Returns the TLS settings of all listeners: TLS 1.2 and 1.3; a client certificate is requested but optional.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, Error> {
        let provider = provider();
        let verifier = AnyClientCertificate { provider: Arc::clone(&provider) };
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
            .map_err(|error| Error::Certificate(error.to_string()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else { return self.nameless() };
        self.lock().by_name.get(&name.to_ascii_lowercase()).cloned()
    }
}

/// Accepts any client certificate whose key the client holds. As at the real service, CONNECT checks the identity.
#[derive(Debug)]
struct AnyClientCertificate {
    provider: Arc<CryptoProvider>,
}

impl AnyClientCertificate {
    /// Verifies a signature by the key of a version 1 certificate.
    fn verify_plain(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Option<HandshakeSignatureValid> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let key = &parsed.public_key().subject_public_key.data;
        let mapping = self.provider.signature_verification_algorithms.mapping;
        let (_, algorithms) = mapping.iter().find(|(scheme, _)| *scheme == signature.scheme)?;
        let signed = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            algorithm.verify_signature(key, message, signature.signature()).is_ok()
        };
        let valid = parsed.version() == X509Version::V1 && algorithms.iter().any(signed);
        valid.then(HandshakeSignatureValid::assertion)
    }
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
            .or_else(|error| self.verify_plain(message, certificate, signature).ok_or(error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
            .or_else(|error| self.verify_plain(message, certificate, signature).ok_or(error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that `map_err` requires")]
fn certificate_error(error: rcgen::Error) -> Error {
    Error::Certificate(error.to_string())
}
