//! What a microcontroller has, on this machine.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hub_emulator::Key;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::{Failure, SignRequest};
use steadfast_esp32::Board;

/// TLS that trusts one authority.
pub(crate) fn trust(ca_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(tls.with_root_certificates(roots).with_no_client_auth())
}

/// A thread with a clock and a key.
pub(crate) struct Host {
    pub(crate) began: Instant,
    key: SymmetricKey,
}

impl Host {
    pub(crate) fn new(key: &Key) -> Self {
        Self { began: Instant::now(), key: SymmetricKey::from_base64(&key.to_base64()).unwrap() }
    }
}

impl Board for Host {
    fn now(&self) -> steadfast_core::Instant {
        steadfast_core::Instant::ORIGIN.after(self.began.elapsed())
    }

    fn unix_secs(&self) -> Option<u64> {
        SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
    }

    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        Ok(self.key.sign(&request.text))
    }

    fn sleep(&mut self, span: Duration) {
        std::thread::sleep(span);
    }
}
