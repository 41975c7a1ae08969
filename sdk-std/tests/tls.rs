//! Certificates: which are taken, which are not, and that nothing is said to a server that has none of the former.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use steadfast::{Builder, ClientCertificate, Device, Failure, Message, Tls, TlsFailure};
use support::{Peer, hasty, soon};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Issuer = CertifiedIssuer<'static, KeyPair>;

const HOST: &str = "hub.example";

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A key and a certificate for it, signed by `issuer` or by the key itself.
fn certificate(
    issuer: Option<&Issuer>,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| String::from(*name)).collect::<Vec<_>>()).unwrap();
    change(&mut params);
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    (certificate, key)
}

fn server_config(pair: &(Certificate, KeyPair), clients: Option<&Issuer>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(issuer) => {
            let mut roots = RootCertStore::empty();
            roots.add(issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(pair.1.serialize_pem().as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![CertificateDer::from(pair.0.der().to_vec())], key).unwrap())
}

fn device(address: SocketAddr, roots: &str) -> Builder {
    Device::builder()
        .broker(HOST, "c")
        .resolve(HOST, [address])
        .tls(Tls::without_system_roots().and_pem(roots))
        .retry(hasty())
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Runs a server until the first handshake is over; returns how many bytes came after it, if it succeeded.
async fn bytes_after_handshake(listener: &TcpListener, config: Arc<ServerConfig>) -> usize {
    let (stream, _) = soon(listener.accept()).await.unwrap();
    match soon(TlsAcceptor::from(config).accept(stream)).await {
        Err(_) => 0,
        Ok(stream) => {
            let mut peer = Peer::new(stream);
            let _ = peer.next().await;
            peer.received
        }
    }
}

#[tokio::test]
async fn a_message_goes_over_tls_to_a_server_with_a_good_certificate() {
    let root = authority("root");
    let config = server_config(&certificate(Some(&root), &[HOST], |_| {}), None);
    let (listener, address) = listen().await;
    let (device, driver) = device(address, &root.pem()).anonymous().build().unwrap();
    let driver = tokio::spawn(driver);
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer::new(TlsAcceptor::from(config).accept(stream).await.unwrap());
        peer.welcome(false).await;
        peer.serve().await
    });
    let large = vec![7; 200_000];
    let mut receipts = Vec::new();
    for payload in [&large[..], b"small", &large[..], b"small"] {
        receipts.push(device.send(Message::to_topic("t", payload)).await.unwrap());
    }
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    soon(device.stop(Duration::from_secs(1))).await;
    let (received, goodbye) = soon(serving).await.unwrap();
    assert_eq!((received.len(), received[2].payload.len(), goodbye), (4, 200_000, true));
    soon(driver).await.unwrap();
    assert!(rustls::crypto::CryptoProvider::get_default().is_none(), "the process-wide choice is the application's");
}

#[tokio::test]
async fn each_bad_certificate_has_its_cause_and_hears_no_byte_of_mqtt() {
    let (root, stranger) = (authority("root"), authority("stranger"));
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let table = [
        (
            "expired",
            certificate(Some(&root), &[HOST], |params| {
                params.not_before = (now - 3 * day).into();
                params.not_after = (now - day).into();
            }),
            TlsFailure::Expired,
        ),
        (
            "not valid yet",
            certificate(Some(&root), &[HOST], |params| {
                params.not_before = (now + day).into();
                params.not_after = (now + 3 * day).into();
            }),
            TlsFailure::NotYetValid,
        ),
        ("another name", certificate(Some(&root), &["other.example"], |_| {}), TlsFailure::WrongName),
        ("self-signed", certificate(None, &[HOST], |_| {}), TlsFailure::UnknownIssuer),
        ("unknown authority", certificate(Some(&stranger), &[HOST], |_| {}), TlsFailure::UnknownIssuer),
        (
            "a name without alternative",
            certificate(Some(&root), &[], |params| params.distinguished_name.push(DnType::CommonName, HOST)),
            TlsFailure::WrongName,
        ),
        ("too wide a wildcard", certificate(Some(&root), &["*.example.org"], |_| {}), TlsFailure::WrongName),
        (
            "for clients only",
            certificate(Some(&root), &[HOST], |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            TlsFailure::BadCertificate,
        ),
    ];
    for (what, pair, cause) in table {
        let (listener, address) = listen().await;
        let (device, driver) = device(address, &root.pem()).password("user", "secret").build().unwrap();
        let driver = tokio::spawn(driver);
        assert_eq!(bytes_after_handshake(&listener, server_config(&pair, None)).await, 0, "{what}");
        let mut status = device.status_changes();
        let status = soon(status.wait_for(|status| status.failures > 0)).await.unwrap().clone();
        assert_eq!(status.last_failure, Some(Failure::Tls(cause)), "{what}");
        driver.abort();
    }
}

#[tokio::test]
async fn a_server_that_breaks_the_handshake_is_no_bad_certificate() {
    let root = authority("root");
    let (listener, address) = listen().await;
    let (device, driver) = device(address, &root.pem()).anonymous().build().unwrap();
    let _driver = tokio::spawn(driver);
    drop(soon(listener.accept()).await.unwrap());
    let mut status = device.status_changes();
    let status = soon(status.wait_for(|status| status.failures > 0)).await.unwrap().clone();
    assert_eq!(status.last_failure, Some(Failure::Tls(TlsFailure::Handshake)));
}

#[tokio::test]
async fn a_certificate_that_is_refused_is_known_as_such_and_replaced_from_disk() {
    let (root, clients, stranger) = (authority("root"), authority("clients"), authority("stranger"));
    let config = server_config(&certificate(Some(&root), &[HOST], |_| {}), Some(&clients));
    let directory = tempfile::tempdir().unwrap();
    let (chain_path, key_path) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    let put = |pair: &(Certificate, KeyPair)| {
        std::fs::write(&chain_path, pair.0.pem()).unwrap();
        std::fs::write(&key_path, pair.1.serialize_pem()).unwrap();
    };
    put(&certificate(Some(&stranger), &["device"], |_| {}));
    let (listener, address) = listen().await;
    let (device, driver) = device(address, &root.pem())
        .client_certificate(ClientCertificate::from_files(&chain_path, &key_path))
        .build()
        .unwrap();
    let _driver = tokio::spawn(driver);
    let mut status = device.status_changes();
    // With TLS 1.3 the device has sent its CONNECT by the time the refusal arrives.
    let (stream, _) = soon(listener.accept()).await.unwrap();
    assert!(soon(TlsAcceptor::from(Arc::clone(&config)).accept(stream)).await.is_err());
    let then = soon(status.wait_for(|status| status.failures == 1)).await.unwrap().clone();
    assert_eq!(then.last_failure, Some(Failure::Tls(TlsFailure::ClientCertificateRefused)));

    // Half a pair is none: the one before stays in use until there is a whole one.
    std::fs::remove_file(&chain_path).unwrap();
    let (stream, _) = soon(listener.accept()).await.unwrap();
    assert!(soon(TlsAcceptor::from(Arc::clone(&config)).accept(stream)).await.is_err());
    let then = soon(status.wait_for(|status| status.failures == 2)).await.unwrap().clone();
    assert_eq!(then.last_failure, Some(Failure::Tls(TlsFailure::ClientCertificateRefused)));
    put(&certificate(Some(&clients), &["device"], |_| {}));
    let stream = loop {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        if let Ok(stream) = soon(TlsAcceptor::from(Arc::clone(&config)).accept(stream)).await {
            break stream;
        }
    };
    Peer::new(stream).welcome(false).await;
}

#[tokio::test]
async fn a_root_is_exchanged_while_the_device_runs() {
    let (old, new) = (authority("old"), authority("new"));
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, old.pem()).unwrap();
    let (listener, address) = listen().await;
    let (device, driver) = Device::builder()
        .broker(HOST, "c")
        .resolve(HOST, [address])
        .tls(Tls::without_system_roots().and_file(&roots))
        .retry(hasty())
        .anonymous()
        .build()
        .unwrap();
    let _driver = tokio::spawn(driver);
    let config = server_config(&certificate(Some(&new), &[HOST], |_| {}), None);
    assert_eq!(bytes_after_handshake(&listener, Arc::clone(&config)).await, 0);
    let mut status = device.status_changes();
    let then = soon(status.wait_for(|status| status.failures > 0)).await.unwrap().clone();
    assert_eq!(then.last_failure, Some(Failure::Tls(TlsFailure::UnknownIssuer)));
    std::fs::write(&roots, old.pem() + &new.pem()).unwrap();
    while bytes_after_handshake(&listener, Arc::clone(&config)).await == 0 {}
}
