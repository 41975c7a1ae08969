//! What a device makes of an HTTP proxy that does not let it out. That one does is seen end to end.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use steadfast::{
    Advice, BuildError, Builder, Device, Failure, FailureClass, LocalFailure, Proxy, ProxyError, Status, Timeouts,
};
use support::{hasty, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HUB: &str = "hub.example";

/// A device that goes out through a proxy at `address`.
fn behind(address: SocketAddr) -> Builder {
    let mut timeouts = Timeouts::DEFAULT;
    timeouts.connect = Duration::from_secs(2);
    Device::builder()
        .hub(HUB, "pump-7")
        .shared_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        .proxy(Proxy::http("proxy.example", address.port()).basic_auth("user", "wet secret"))
        .resolve("proxy.example", [address])
        .retry(hasty())
        .timeouts(timeouts)
}

/// Reads a request to its end.
async fn request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(soon(stream.read_buf(&mut request)).await.unwrap() > 0, "the request ends");
    }
    String::from_utf8(request).unwrap()
}

/// Builds the device, lets it run and waits for its first failure.
async fn first_failure(builder: Builder) -> Status {
    let (device, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver);
    let mut status = device.status_changes();
    let failed = soon(status.wait_for(|status| status.last_failure.is_some())).await.unwrap().clone();
    device.stop(Duration::ZERO).await;
    soon(driver).await.unwrap();
    failed
}

/// Answers every request with `answer` and closes, and returns what the device made of it.
async fn answered(answer: &'static str) -> Failure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let status = first_failure(behind(address)).await;
    server.abort();
    let failure = status.last_failure.unwrap();
    if failure.class() == FailureClass::Local {
        assert_eq!(status.advice(), Advice::CheckProxy);
    }
    failure
}

#[tokio::test]
async fn each_answer_of_a_proxy_has_its_own_meaning() {
    let local = Failure::Local;
    let table = [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
            local(LocalFailure::ProxyAuthentication),
        ),
        ("HTTP/1.0 403 Forbidden\r\n\r\n<html>no</html>", local(LocalFailure::ProxyRefused(403))),
        ("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", local(LocalFailure::ProxyRefused(301))),
        ("SSH-2.0-OpenSSH_9\r\n\r\n", local(LocalFailure::ProxyRefused(0))),
        ("HTTP/1.1 200 OK\r\n\r\nbytes of nobody", local(LocalFailure::ProxyRefused(0))),
        ("HTTP/1.1 200", local(LocalFailure::ProxySilent)),
        ("", local(LocalFailure::ProxySilent)),
        // The proxy is fine, and says that the hub is out of reach.
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", Failure::Network),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Failure::Network),
        ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", Failure::Network),
    ];
    for (answer, failure) in table {
        assert_eq!(answered(answer).await, failure, "{answer}");
    }
}

#[tokio::test]
async fn the_proxy_is_asked_for_the_name_and_given_the_login() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (device, driver) = behind(listener.local_addr().unwrap()).build().unwrap();
    let driver = tokio::spawn(driver);
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(
        request(&mut stream).await,
        "CONNECT hub.example:8883 HTTP/1.1\r\nHost: hub.example:8883\r\n\
         Proxy-Authorization: Basic dXNlcjp3ZXQgc2VjcmV0\r\n\r\n"
    );
    device.stop(Duration::ZERO).await;
    soon(driver).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_stalls_is_not_held_against_the_hub() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let failure = first_failure(behind(listener.local_addr().unwrap())).await.last_failure;
    assert_eq!(failure, Some(Failure::Local(LocalFailure::ProxySilent)));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_not_held_against_the_hub() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = first_failure(behind(unused)).await.last_failure;
    assert_eq!(failure, Some(Failure::Local(LocalFailure::ProxyUnreachable)));
}

#[tokio::test]
async fn an_answer_without_an_end_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n").await.map(|()| 0_usize);
        while let Ok(bytes) = sent {
            sent = stream.write_all(b"X-Filler: x\r\n").await.map(|()| bytes + 13);
            if bytes > 64 << 20 {
                break;
            }
        }
        sent.is_err()
    });
    let failure = first_failure(behind(address)).await.last_failure;
    assert_eq!(failure, Some(Failure::Local(LocalFailure::ProxyRefused(0))));
    assert!(soon(server).await.unwrap(), "the device stops reading");
}

#[tokio::test]
async fn an_exception_is_connected_to_directly() {
    let hub = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::http("127.0.0.1", unused.port()).except("example");
    let builder = behind(unused).proxy(proxy).resolve(HUB, [hub.local_addr().unwrap()]);
    let (device, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver);
    let (mut stream, _) = soon(hub.accept()).await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), 22, "a TLS handshake begins");
    device.stop(Duration::ZERO).await;
    soon(driver).await.unwrap();
}

#[test]
fn a_proxy_without_tls_or_without_a_name_is_refused_at_once() {
    let client = || Device::builder().broker("localhost", "c").anonymous();
    let proxy = Proxy::http("proxy.example", 3128);
    let plain = client().plaintext_unprotected().proxy(proxy).build().unwrap_err();
    assert_eq!(plain, BuildError::Proxy(ProxyError::WithoutTls));
    let nameless = client().proxy(Proxy::http("http://proxy", 3128)).build().unwrap_err();
    assert_eq!(nameless, BuildError::Proxy(ProxyError::Host));
}

#[test]
fn the_password_is_not_shown() {
    let proxy = Proxy::http("proxy.example", 3128).basic_auth("user", "wet secret");
    let shown = format!("{proxy:?} {:?}", Device::builder().proxy(proxy.clone()));
    assert!(!shown.contains("wet") && !shown.contains("d2V0") && !shown.contains("dXNlcjp"), "{shown}");
}
