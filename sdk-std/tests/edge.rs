//! What a module makes of a workload API that answers badly, late or not at all. How it works with a good one is seen
//! end to end.
#![cfg(all(unix, feature = "edge"))]
#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use steadfast::{
    Advice, BuildError, Builder, Device, Environment, EnvironmentError, Failure, LocalFailure, Status, Timeouts,
    Variable,
};
use support::{hasty, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const DIGEST: &str = r#"{"digest":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}"#;

fn module(uri: &str) -> Builder {
    let values = [
        (Variable::HubHostName, "hub.example"),
        (Variable::DeviceId, "line-7"),
        (Variable::ModuleId, "filter"),
        (Variable::GenerationId, "1"),
        (Variable::GatewayHostName, "gateway.example"),
        (Variable::WorkloadUri, uri),
    ];
    let value = |wanted| values.iter().find(|(variable, _)| *variable == wanted).map(|(_, value)| *value);
    let mut timeouts = Timeouts::DEFAULT;
    (timeouts.sign, timeouts.connect) = (Duration::from_secs(2), Duration::from_secs(2));
    let builder = Device::builder().edge(&Environment::read(value).unwrap()).retry(hasty()).timeouts(timeouts);
    builder.resolve("gateway.example", ["127.0.0.1:9".parse().unwrap()])
}

/// Builds the module, lets it run and waits for its first failure; returns how many had been asked by then.
async fn first_failure(builder: Builder, asked: &AtomicUsize) -> (Status, usize) {
    let (device, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver);
    let mut status = device.status_changes();
    let failed = soon(status.wait_for(|status| status.last_failure.is_some())).await.unwrap().clone();
    let asked = asked.load(Ordering::SeqCst);
    device.stop(Duration::ZERO).await;
    soon(driver).await.unwrap();
    (failed, asked)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers each path with what `answer` says, `None` for silence, and returns what a module made of it, and after how
/// many requests.
async fn answered(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> (Failure, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("workload.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counter = Arc::clone(&asked);
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = Vec::new();
                // The body comes with its head, or is of no interest.
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                match answer(request.split(' ').nth(1).unwrap_or_default()) {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => std::future::pending().await,
                }
            });
        }
    });
    let (status, asked) = first_failure(module(&format!("unix://{}", path.display())), &asked).await;
    server.abort();
    let failure = status.last_failure.unwrap();
    if matches!(failure, Failure::Local(_)) {
        assert_eq!(status.advice(), Advice::CheckDevice);
    }
    (failure, asked)
}

#[tokio::test]
async fn each_answer_of_a_workload_api_to_sign_has_its_own_meaning() {
    let refused = |status| Failure::Local(LocalFailure::WorkloadRefused(status));
    let away = Failure::Local(LocalFailure::WorkloadUnreachable);
    let table: [(String, Failure, usize); 10] = [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 23\r\n\r\n{\"message\":\"Forbidden\"}".into(), refused(403), 1),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".into(), refused(500), 1),
        // Busy, so it is asked again at once.
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into(), refused(503), 6),
        ("HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".into(), refused(301), 1),
        (ok("{}"), refused(0), 1),
        (ok("<html>"), refused(0), 1),
        (ok(r#"{"digest":"AAAA"}"#), refused(0), 1),
        // It breaks off, or speaks another language.
        ("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{".into(), away, 6),
        ("SSH-2.0-OpenSSH_9\r\n".into(), away, 6),
        (String::new(), away, 6),
    ];
    for (answer, failure, requests) in table {
        let said = answer.clone();
        let made = answered(move |_| Some(said.clone())).await;
        assert_eq!(made, (failure, requests), "{answer:?}");
    }
    assert_eq!(answered(|_| None).await.0, away);
    let huge = format!(r#"{{"digest":"{}"}}"#, "A".repeat(300 * 1024));
    assert_eq!(answered(move |_| Some(ok(&huge))).await.0, away);
}

#[tokio::test]
async fn roots_that_are_refused_or_of_no_use_are_told() {
    let refused = |status| Failure::Local(LocalFailure::WorkloadRefused(status));
    let bundle = |answer: &'static str| {
        answered(move |path| Some(if path.starts_with("/trust-bundle") { answer.into() } else { ok(DIGEST) }))
    };
    assert_eq!(bundle("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.0, refused(403));
    assert_eq!(bundle("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.0, refused(0));
    let nonsense = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"certificate\":\"wood\"}";
    assert_eq!(bundle(nonsense).await.0, refused(0));
    let silent = answered(|path| (!path.starts_with("/trust-bundle")).then(|| ok(DIGEST))).await;
    assert_eq!(silent.0, Failure::Local(LocalFailure::WorkloadUnreachable));
    // Without roots of its own the gateway counts as a public service, and is dialled.
    let none =
        answered(|path| Some(ok(if path.starts_with("/trust") { r#"{"certificate":""}"# } else { DIGEST }))).await;
    assert_eq!(none.0, Failure::ConnectionRefused);
}

#[tokio::test]
async fn a_workload_api_on_a_tcp_port_is_asked_by_its_prefix() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(request).unwrap()
    });
    let (status, _) = first_failure(module(&format!("http://{address}/base/")), &AtomicUsize::new(0)).await;
    assert_eq!(status.first_failure, Some(Failure::Local(LocalFailure::WorkloadRefused(403))));
    let request = soon(server).await.unwrap();
    let line = "POST /base/modules/filter/genid/1/sign?api-version=2018-06-28 HTTP/1.1\r\n";
    assert!(request.starts_with(line) && request.contains(&format!("host: {address}\r\n")), "{request}");
}

#[test]
fn an_environment_that_is_none_of_a_module_fails_the_build_and_hides_the_key() {
    let text = format!("HostName=h.net;DeviceId=d;SharedAccessKey={KEY}");
    let read = Environment::read(|variable| (variable == Variable::ConnectionString).then_some(text.as_str()));
    let error = BuildError::Edge(read.unwrap_err());
    assert_eq!(error, BuildError::Edge(EnvironmentError::NoModule(Variable::ConnectionString)));
    assert!(!error.to_string().contains(KEY) && error.to_string().starts_with("EdgeHubConnectionString"), "{error}");
    assert!(!format!("{:?}", module("unix:///w.sock").shared_key(KEY)).contains(KEY));
    // What is said later counts.
    assert!(module("unix:///w.sock").shared_key(KEY).plaintext_unprotected().gateway("localhost").build().is_ok());
}
