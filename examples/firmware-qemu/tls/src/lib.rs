//! Who the server of a TLS 1.3 connection is, checked without a heap.
//!
//! embedded-tls speaks TLS 1.3 and leaves to a verifier who the other side is. Its own verifier does not look whether a
//! certificate may sign others or stand for a server, and its handshake ends well when a server shows no certificate at
//! all, since then nothing is verified. So the rules come from webpki here, which rustls uses on Linux, and whoever opens
//! a connection asks [`Provider::verdict`] afterwards: it says yes only when a certificate came, leads to the authority,
//! is for this name and this time and for servers, and the server has proved that it holds the key.
//!
//! Keys and signatures are ECDSA on P-256 with SHA-256, the only ones here. Revocation is not looked at.
#![no_std]

mod memory;

use core::time::Duration;

use embedded_tls::blocking::{
    Aes128GcmSha256, CertificateEntryRef, CertificateRef, CertificateVerifyRef, CryptoProvider, TlsError, TlsVerifier,
};
use embedded_tls::{CryptoRngCore, SignatureScheme};
pub use memory::{Loan, Pool};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{DerSignature, Signature, VerifyingKey};
pub use rand_chacha::ChaCha20Rng;
pub use rand_core::SeedableRng;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime, alg_id,
};
use sha2::{Digest as _, Sha256};
use steadfast_core::{Failure, TlsFailure};
use webpki::{EndEntityCert, Error, KeyUsage};

/// Bytes of the longest certificate of a server that is taken.
pub const CERTIFICATE_BYTES: usize = 2048;

/// Certificates between the server's and the authority's that are looked at.
const INTERMEDIATES: usize = 4;

/// What a server's proof is for, as RFC 8446, section 4.4.3, spells it.
const PURPOSE: &[u8; 34] = b"TLS 1.3, server CertificateVerify\0";

/// What one handshake draws on: randomness, and the check of the server.
#[derive(Debug)]
pub struct Provider<'a> {
    random: &'a mut ChaCha20Rng,
    verifier: Verifier<'a>,
}

impl<'a> Provider<'a> {
    /// Prepares a handshake with the server `host`, whose certificate must lead to `authority` (a certificate as DER) and
    /// be valid at `unix_secs`. Each handshake wants a provider of its own. `random` must have been seeded from a
    /// hardware generator. The server's certificate is kept in `certificate`.
    ///
    /// # Errors
    /// [`TlsFailure::BadCertificate`] when `authority` is no certificate, [`TlsFailure::WrongName`] when `host` is no name.
    pub fn new(
        host: &'a str,
        authority: &'a CertificateDer<'a>,
        unix_secs: u64,
        random: &'a mut ChaCha20Rng,
        certificate: &'a mut [u8; CERTIFICATE_BYTES],
    ) -> Result<Self, TlsFailure> {
        let anchor = webpki::anchor_from_trusted_cert(authority).map_err(|_| TlsFailure::BadCertificate)?;
        let name = ServerName::try_from(host).map_err(|_| TlsFailure::WrongName)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_secs));
        Ok(Self { random, verifier: Verifier { anchor, name, now, certificate, state: State::Unseen } })
    }

    /// Returns what the handshake has shown: whether the server is who it should be. To be asked when the handshake has
    /// ended, however it ended.
    ///
    /// # Errors
    /// Why it is not; [`TlsFailure::Handshake`] when the server has not shown or not proved anything.
    pub fn verdict(&self) -> Result<(), TlsFailure> {
        match self.verifier.state {
            State::Proved => Ok(()),
            State::Refused(why) => Err(why),
            State::Unseen | State::Shown { .. } => Err(TlsFailure::Handshake),
        }
    }

    /// Returns what a handshake that ended with `error` tells the link.
    #[must_use]
    pub fn failure(&self, error: &TlsError) -> Failure {
        match (&self.verifier.state, error) {
            (State::Refused(why), _) => Failure::Tls(*why),
            (_, TlsError::Io(_) | TlsError::IoError | TlsError::ConnectionClosed) => Failure::Lost,
            (_, TlsError::InvalidCipherSuite | TlsError::InvalidSupportedVersions | TlsError::InvalidKeyShare) => {
                Failure::Tls(TlsFailure::Incompatible)
            }
            _ => Failure::Tls(TlsFailure::Handshake),
        }
    }
}

impl CryptoProvider for Provider<'_> {
    type CipherSuite = Aes128GcmSha256;
    type Signature = DerSignature;

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut *self.random
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(&mut self.verifier)
    }
}

#[derive(Debug)]
struct Verifier<'a> {
    anchor: TrustAnchor<'a>,
    name: ServerName<'a>,
    now: UnixTime,
    certificate: &'a mut [u8; CERTIFICATE_BYTES],
    state: State,
}

/// How far the server is. It only goes forward: nothing that comes again or out of turn is looked at.
enum State {
    Unseen,
    /// A good certificate of this length; the transcript up to it is what the server must sign.
    Shown {
        len: usize,
        transcript: Sha256,
    },
    Proved,
    Refused(TlsFailure),
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unseen => "Unseen",
            Self::Shown { .. } => "Shown",
            Self::Proved => "Proved",
            Self::Refused(_) => "Refused",
        })
    }
}

impl Verifier<'_> {
    /// Checks the path to the authority, the time, the purpose and the name; returns the length of the certificate.
    fn look(&mut self, shown: &CertificateRef<'_>) -> Result<usize, TlsFailure> {
        let mut entries = shown.entries.iter().map(|entry| match entry {
            CertificateEntryRef::X509(der) => Ok(CertificateDer::from(*der)),
            CertificateEntryRef::RawPublicKey(_) => Err(TlsFailure::BadCertificate),
        });
        let leaf = entries.next().ok_or(TlsFailure::BadCertificate)??;
        let mut intermediates = [const { CertificateDer::from_slice(&[]) }; INTERMEDIATES];
        let mut count = 0;
        for (place, entry) in intermediates.iter_mut().zip(entries) {
            *place = entry?;
            count += 1;
        }
        let certificate = EndEntityCert::try_from(&leaf).map_err(reason)?;
        let intermediates = intermediates.get(..count).unwrap_or_default();
        let anchors = core::slice::from_ref(&self.anchor);
        let usage = KeyUsage::server_auth();
        certificate.verify_for_usage(&[&P256], anchors, intermediates, self.now, usage, None, None).map_err(reason)?;
        certificate.verify_is_valid_for_subject_name(&self.name).map_err(reason)?;
        let place = self.certificate.get_mut(..leaf.len()).ok_or(TlsFailure::BadCertificate)?;
        place.copy_from_slice(&leaf);
        Ok(leaf.len())
    }

    /// Checks that the server holds the key of the certificate that it showed.
    fn prove(&self, proof: &CertificateVerifyRef<'_>) -> Result<(), TlsFailure> {
        let State::Shown { len, transcript } = &self.state else { return Err(TlsFailure::Handshake) };
        if proof.signature_scheme != SignatureScheme::EcdsaSecp256r1Sha256 {
            return Err(TlsFailure::Incompatible);
        }
        let leaf = CertificateDer::from(self.certificate.get(..*len).unwrap_or_default());
        let certificate = EndEntityCert::try_from(&leaf).map_err(reason)?;
        // RFC 8446, section 4.4.3: 64 spaces, what it is for, a zero, the hash of the transcript.
        let mut signed = [b' '; 64 + PURPOSE.len() + 32];
        let (purpose, hash) = signed[64..].split_at_mut(PURPOSE.len());
        purpose.copy_from_slice(PURPOSE);
        hash.copy_from_slice(&transcript.clone().finalize());
        certificate.verify_signature(&P256, &signed, proof.signature).map_err(reason)
    }

    fn refuse(&mut self, why: TlsFailure, error: TlsError) -> Result<(), TlsError> {
        self.state = State::Refused(why);
        Err(error)
    }
}

impl TlsVerifier<Aes128GcmSha256> for Verifier<'_> {
    fn set_hostname_verification(&mut self, _: &str) -> Result<(), TlsError> {
        Ok(())
    }

    fn verify_certificate(&mut self, transcript: &Sha256, shown: CertificateRef<'_>) -> Result<(), TlsError> {
        if !matches!(self.state, State::Unseen) {
            return self.refuse(TlsFailure::Handshake, TlsError::InvalidHandshake);
        }
        match self.look(&shown) {
            Ok(len) => {
                self.state = State::Shown { len, transcript: transcript.clone() };
                Ok(())
            }
            Err(why) => self.refuse(why, TlsError::InvalidCertificate),
        }
    }

    fn verify_signature(&mut self, proof: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        match self.prove(&proof) {
            Ok(()) => {
                self.state = State::Proved;
                Ok(())
            }
            Err(why) => self.refuse(why, TlsError::InvalidSignature),
        }
    }
}

fn reason(error: Error) -> TlsFailure {
    match error {
        Error::CertExpired { .. } => TlsFailure::Expired,
        Error::CertNotValidYet { .. } => TlsFailure::NotYetValid,
        Error::CertNotValidForName(_) => TlsFailure::WrongName,
        // An authority of the same name whose key is another one is another authority.
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => TlsFailure::UnknownIssuer,
        Error::CertRevoked => TlsFailure::Revoked,
        _ => TlsFailure::BadCertificate,
    }
}

/// ECDSA on P-256 with SHA-256.
#[derive(Debug)]
struct P256;

impl SignatureVerificationAlgorithm for P256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}
