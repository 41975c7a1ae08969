//! What ended a connection, or kept one from coming about, is told as what it was, with advice that fits.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use steadfast::{Advice, Builder, Device, Event, Failure, LinkEvent, State, Status, Tls, TlsFailure};
use support::{Log, Peer, Server, hasty, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const HOST: &str = "hub.example";

/// A server for [`HOST`] with a certificate of its own, and a device that trusts it.
async fn secured() -> (TcpListener, Arc<ServerConfig>, Builder) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
    serving(&certificate.pem(), &certificate.pem(), &key.serialize_pem()).await
}

async fn serving(roots: &str, chain: &str, key: &str) -> (TcpListener, Arc<ServerConfig>, Builder) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let builder = Device::builder()
        .broker(HOST, "c")
        .resolve(HOST, [listener.local_addr().unwrap()])
        .tls(Tls::without_system_roots().and_pem(roots))
        .anonymous()
        .retry(hasty());
    (listener, Arc::new(config), builder)
}

/// Closes with a reset, as a firewall does, or a service that was killed.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

/// What the device says after its first failure, and what it logged.
async fn first_failure(device: &Device, log: &Log) -> (Status, String) {
    let mut status = device.status_changes();
    let status = soon(status.wait_for(|status| status.failures > 0)).await.unwrap().clone();
    let mut events = device.events();
    while !log.text().contains("trying again") {
        let _ = soon(events.next()).await;
    }
    (status, log.text())
}

#[tokio::test]
async fn a_reset_is_told_as_one_and_logged() {
    let (log, _guard) = Log::begin();
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let mut events = device.events();
    let _driver = tokio::spawn(driver);
    let peer = server.welcome(false).await;
    soon(device.status_changes().wait_for(|status| status.state == State::Up)).await.unwrap();
    reset(peer.stream);
    loop {
        let event = soon(events.next()).await.unwrap();
        if let Event::Link(LinkEvent::Down(failure)) = event {
            assert_eq!(failure, Failure::Reset);
            break;
        }
    }
    let (status, log) = first_failure(&device, &log).await;
    assert_eq!(status.advice(), Advice::CheckNetwork);
    assert!(status.to_string().contains("the connection was reset"), "{status}");
    assert!(log.contains("the connection broke") && log.contains("reset by peer"), "{log}");
}

/// Runs `work` against a device that trusts the server, and returns the failure, the advice and the log.
async fn after(work: impl AsyncFnOnce(TcpStream, Arc<ServerConfig>)) -> (Failure, Advice, String) {
    let (log, _guard) = Log::begin();
    let (listener, config, builder) = secured().await;
    let (device, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver);
    let (stream, _) = soon(listener.accept()).await.unwrap();
    work(stream, config).await;
    let (status, log) = first_failure(&device, &log).await;
    driver.abort();
    (status.last_failure.unwrap(), status.advice(), log)
}

/// Makes the server's side of TLS end with an alert, by a record that does not verify.
async fn alert(stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let (mut stream, mut tls) = stream.into_inner();
    let mut record: &[u8] = &[
        23, 3, 3, 0, 32, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    ];
    tls.read_tls(&mut record).unwrap();
    tls.process_new_packets().unwrap_err();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    // Until the device has gone.
    let _ = stream.read_to_end(&mut bytes).await;
}

#[tokio::test]
async fn what_ends_tls_after_the_handshake_is_told_and_logged() {
    // RFC 8446, section 6: bad_record_mac is 20.
    let (failure, advice, log) = after(async |stream, config| {
        let mut peer = Peer::new(soon(TlsAcceptor::from(config).accept(stream)).await.unwrap());
        peer.welcome(false).await;
        alert(peer.stream).await;
    })
    .await;
    assert_eq!((failure, advice), (Failure::Tls(TlsFailure::Alert(20)), Advice::CheckService));
    assert!(log.contains("the connection broke") && log.contains("BadRecordMac"), "{log}");

    let (failure, advice, log) = after(async |stream, config| {
        let mut peer = Peer::new(soon(TlsAcceptor::from(config).accept(stream)).await.unwrap());
        peer.welcome(false).await;
        let (mut stream, _tls) = peer.stream.into_inner();
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!((failure, advice), (Failure::Tls(TlsFailure::Garbled), Advice::CheckService));
    assert!(log.contains("the connection broke"), "{log}");
}

#[tokio::test]
async fn each_answer_that_is_no_handshake_has_its_cause_its_advice_and_the_host_in_the_log() {
    // RFC 8446, section 6: a fatal alert, protocol_version (70), handshake_failure (40) and internal_error (80).
    let table: [(&[u8], TlsFailure, Advice); 5] = [
        (&[21, 3, 3, 0, 2, 2, 70], TlsFailure::Incompatible, Advice::CheckTls),
        (&[21, 3, 3, 0, 2, 2, 40], TlsFailure::Incompatible, Advice::CheckTls),
        (&[21, 3, 3, 0, 2, 2, 80], TlsFailure::Alert(80), Advice::CheckService),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", TlsFailure::Garbled, Advice::CheckService),
        (b"", TlsFailure::Handshake, Advice::CheckService),
    ];
    for (answer, failure, advice) in table {
        let (found, advised, log) = after(async |mut stream, _| {
            stream.read_u8().await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        assert_eq!((found, advised), (Failure::Tls(failure), advice));
        let told = log.lines().find(|line| line.contains("not connected; trying again")).unwrap();
        assert!(told.contains(HOST) && told.contains(&advice.to_string()), "{told}");
    }
}

#[tokio::test]
async fn a_weak_key_in_the_chain_is_no_unknown_issuer() {
    let (log, _guard) = Log::begin();
    let chain = include_str!("data/signed-by-rsa-1024.pem");
    let (listener, config, builder) = serving(include_str!("data/rsa-1024-root.pem"), chain, chain).await;
    let (device, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver);
    let (stream, _) = soon(listener.accept()).await.unwrap();
    assert!(soon(TlsAcceptor::from(config).accept(stream)).await.is_err());
    let (status, _) = first_failure(&device, &log).await;
    assert_eq!(status.last_failure, Some(Failure::Tls(TlsFailure::BadSignature)));
    assert_eq!(status.advice(), Advice::ReplaceCertificate);
    assert!(status.to_string().contains("a weak key"), "{status}");
    driver.abort();
}
