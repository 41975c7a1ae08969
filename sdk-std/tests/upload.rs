//! Uploads, against a scripted hub and storage behind TLS.
#![cfg(feature = "upload")]
#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use steadfast::{Builder, Device, Driver, Tls, UploadError, UploadProgress, UploadSource, UploadStep};
use support::{hasty, soon};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const HUB: &str = "hub.example";
const STORAGE: &str = "storage.example";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "HxAREhMUFRYXGBkaGxwdHgABAgMEBQYHCAkKCwwNDg8=";

struct Request {
    line: String,
    authorization: String,
    body: Vec<u8>,
}

impl Request {
    fn is_initiation(&self) -> bool {
        self.line.starts_with("POST /devices/pump-7/files?")
    }

    fn is_notice(&self) -> bool {
        self.line.starts_with("POST /devices/pump-7/files/notifications?")
    }

    fn block(&self) -> Option<String> {
        let (_, id) = self.line.split_once("comp=block&blockid=")?;
        id.split('&').next().map(str::to_owned)
    }
}

enum Reaction {
    Answer(String),
    Cut,
}

fn answer(status: &str, headers: &str, body: &str) -> Reaction {
    Reaction::Answer(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()))
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    grants: usize,
    container: String,
    blocks: HashMap<String, Vec<u8>>,
    file: Option<Vec<u8>>,
    notices: Vec<Value>,
    tokens: HashSet<String>,
}

impl State {
    fn react(&mut self, request: &Request) -> Reaction {
        let grant = format!("sig=grant%2B{}", self.grants);
        if request.is_initiation() {
            self.grants += 1;
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let container = if self.container.is_empty() { "files" } else { &self.container };
            let place = json!({
                "correlationId": format!("c-{}", self.grants),
                "hostName": STORAGE,
                "containerName": container,
                "blobName": format!("pump-7/{}", body["blobName"].as_str().unwrap()),
                "sasToken": format!("?sv=2021-06-08&sig=grant%2B{}", self.grants),
            });
            return answer("200 OK", "", &place.to_string());
        }
        if request.is_notice() {
            self.notices.push(serde_json::from_slice(&request.body).unwrap());
            return answer("204 No Content", "", "");
        }
        assert!(request.authorization.is_empty(), "the device's token is not for the storage");
        if !request.line.contains(&grant) {
            return answer("403 Forbidden", "", "<Error/>");
        }
        if let Some(id) = request.block() {
            self.blocks.insert(id, request.body.clone());
        } else if request.line.contains("comp=blocklist") {
            let list = String::from_utf8(request.body.clone()).unwrap();
            let ids = list.split("<Latest>").skip(1).map(|part| part.split("</Latest>").next().unwrap());
            self.file = Some(ids.flat_map(|id| self.blocks[id].clone()).collect());
        } else {
            self.file = Some(request.body.clone());
        }
        answer("201 Created", "", "")
    }

    fn successes(&self) -> Vec<bool> {
        self.notices.iter().map(|notice| notice["isSuccess"].as_bool().unwrap()).collect()
    }
}

type Script = Box<dyn FnMut(&Request, &mut State) -> Option<Reaction> + Send>;

struct Fake {
    address: SocketAddr,
    ca_pem: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// Starts a hub and a storage, which do what `script` says where it says anything.
    async fn start(script: impl FnMut(&Request, &mut State) -> Option<Reaction> + Send + 'static) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "An authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = [HUB, STORAGE].map(str::to_owned);
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state, script) = (acceptor.clone(), Arc::clone(&shared), Arc::clone(&script));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut bytes = Vec::new();
                    while let Some(request) = read(&mut stream, &mut bytes).await {
                        let reaction = {
                            let mut state = state.lock().unwrap();
                            state.lines.push(request.line.clone());
                            if !request.authorization.is_empty() {
                                state.tokens.insert(request.authorization.clone());
                            }
                            let said = script.lock().unwrap()(&request, &mut state);
                            said.unwrap_or_else(|| state.react(&request))
                        };
                        let Reaction::Answer(text) = reaction else { return };
                        if stream.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, ca_pem: authority.pem(), state }
    }

    fn device_with(&self, change: impl FnOnce(Builder) -> Builder) -> (Device, Driver) {
        let builder = Device::builder()
            .hub(HUB, "pump-7")
            .shared_key(KEY)
            .tls(Tls::without_system_roots().and_pem(self.ca_pem.as_bytes()))
            .resolve_https(HUB, [self.address])
            .resolve_https(STORAGE, [self.address])
            .retry(hasty());
        change(builder).build().unwrap()
    }

    fn device(&self) -> (Device, Driver) {
        self.device_with(|builder| builder)
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }
}

/// Reads a request, or nothing at the end.
async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or_else(String::new, |(_, value)| value.to_owned())
    };
    let length: usize = header("content-length").parse().unwrap_or(0);
    while bytes.len() < length {
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, authorization: header("authorization"), body: bytes.drain(..length).collect() })
}

fn payload(len: u32) -> Vec<u8> {
    (0..len).map(|number| number.wrapping_mul(31).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn a_short_file_goes_in_one_piece() {
    let fake = Fake::start(|_, _| None).await;
    let (device, _driver) = fake.device();
    let report = soon(device.upload("a b/log#1.txt", UploadSource::bytes(payload(500))).into_future()).await.unwrap();
    assert_eq!(
        (report.blob.as_str(), report.bytes, report.blocks, report.failures),
        ("pump-7/a b/log#1.txt", 500, 1, 0)
    );
    fake.look(|state| {
        assert_eq!(state.file.as_deref(), Some(payload(500).as_slice()));
        assert_eq!(state.lines.len(), 3);
        assert!(state.lines[1].starts_with("PUT /files/pump-7/a%20b/log%231.txt?sv="), "{}", state.lines[1]);
        assert_eq!(state.notices[0]["correlationId"], "c-1");
        assert_eq!(state.successes(), [true]);
        let token = state.tokens.iter().next().unwrap();
        assert!(token.starts_with("SharedAccessSignature sr=hub.example%2Fdevices%2Fpump-7&sig="), "{token}");
    });
}

#[tokio::test]
async fn a_long_file_goes_block_by_block_from_a_path() {
    let fake = Fake::start(|_, _| None).await;
    let (device, _driver) = fake.device();
    let directory = tempfile::tempdir().unwrap();
    for len in [0, 1_000, 3_500, 4_000] {
        let path = directory.path().join(len.to_string());
        std::fs::write(&path, payload(len)).unwrap();
        let seen = Arc::<Mutex<Vec<UploadProgress>>>::default();
        let noted = Arc::clone(&seen);
        let upload = device
            .upload("long", UploadSource::file(path))
            .block_size(1_000)
            .on_progress(move |progress| noted.lock().unwrap().push(progress));
        let report = soon(upload.into_future()).await.unwrap();
        assert_eq!(report.bytes, u64::from(len));
        assert_eq!(fake.look(|state| state.file.clone()).unwrap(), payload(len));
        let seen: Vec<_> = seen.lock().unwrap().iter().map(|progress| progress.bytes).collect();
        assert!(seen.is_sorted() && seen.last() == Some(&u64::from(len)), "{seen:?}");
    }
    assert!(fake.look(|state| state.successes().iter().all(|success| *success)));
}

#[tokio::test]
async fn cuts_and_busy_answers_are_survived_block_by_block() {
    let mut count = 0;
    let fake = Fake::start(move |_, _| {
        count += 1;
        match count {
            1 | 4 | 10 => Some(Reaction::Cut),
            2 | 6 => Some(answer("503 Busy", "", "")),
            8 => Some(answer("500 Oh", "Connection: close\r\n", "")),
            _ => None,
        }
    })
    .await;
    let (device, _driver) = fake.device();
    let upload = device.upload("long", UploadSource::reader(std::io::Cursor::new(payload(4_321)))).block_size(1_000);
    let report = soon(upload.into_future()).await.unwrap();
    assert_eq!((report.bytes, report.blocks, report.failures), (4_321, 5, 6));
    fake.look(|state| {
        assert_eq!(state.file.as_deref(), Some(payload(4_321).as_slice()));
        assert_eq!((state.grants, state.successes()), (1, vec![true]));
    });
}

#[tokio::test]
async fn an_expired_grant_is_replaced_and_no_block_goes_twice() {
    let fake = Fake::start(|request, state| {
        // The first grant is good for two blocks.
        let expired = state.grants == 1 && state.blocks.len() == 2 && request.block().is_some();
        expired.then(|| answer("403 Forbidden", "", "<Error><Code>AuthenticationFailed</Code></Error>"))
    })
    .await;
    let (device, _driver) = fake.device();
    let upload = device.upload("long", UploadSource::reader(std::io::Cursor::new(payload(3_500)))).block_size(1_000);
    assert_eq!(soon(upload.into_future()).await.unwrap().blocks, 4);
    fake.look(|state| {
        assert_eq!(state.file.as_deref(), Some(payload(3_500).as_slice()));
        assert_eq!((state.grants, state.successes()), (2, vec![false, true]));
        let blocks = state.lines.iter().filter(|line| line.contains("comp=block&")).count();
        assert_eq!(blocks, 5, "four, and the one that was refused");
    });
}

#[tokio::test]
async fn grants_that_are_never_good_come_to_an_end() {
    let fake = Fake::start(|request, _| request.line.starts_with("PUT").then(|| answer("403 Forbidden", "", ""))).await;
    let (device, _driver) = fake.device();
    let error = soon(device.upload("x", UploadSource::bytes("x")).into_future()).await.unwrap_err();
    assert_eq!(error, UploadError::Refused { step: UploadStep::Store, status: 403, code: 0 });
    assert_eq!(fake.look(State::successes), [false; 3]);
}

#[tokio::test]
async fn another_place_begins_anew_where_that_can_be_done() {
    for rereadable in [true, false] {
        let fake = Fake::start(|request, state| {
            let moved = state.container.is_empty() && state.blocks.len() == 2 && request.block().is_some();
            moved.then(|| {
                state.container = String::from("elsewhere");
                state.blocks.clear();
                answer("404 Not Found", "", "")
            })
        })
        .await;
        let (device, _driver) = fake.device();
        let source = match rereadable {
            true => UploadSource::bytes(payload(3_500)),
            false => UploadSource::reader(std::io::Cursor::new(payload(3_500))),
        };
        let result = soon(device.upload("long", source).block_size(1_000).into_future()).await;
        if rereadable {
            assert_eq!(result.unwrap().bytes, 3_500);
            assert_eq!(fake.look(|state| state.file.clone()).unwrap(), payload(3_500));
            assert_eq!(fake.look(State::successes), [false, true]);
        } else {
            assert_eq!(result.unwrap_err(), UploadError::SourceSpent);
            assert_eq!(fake.look(State::successes), [false, false]);
        }
    }
}

#[tokio::test]
async fn blocks_that_the_storage_has_dropped_are_brought_again_once() {
    for always in [false, true] {
        let mut dropped = false;
        let fake = Fake::start(move |request, state| {
            let now = request.line.contains("comp=blocklist") && (always || !dropped);
            dropped |= now;
            now.then(|| {
                state.blocks.clear();
                answer("400 Bad Request", "", "<Error><Code>InvalidBlockList</Code></Error>")
            })
        })
        .await;
        let (device, _driver) = fake.device();
        let upload = device.upload("long", UploadSource::bytes(payload(2_500))).block_size(1_000);
        let result = soon(upload.into_future()).await;
        if always {
            assert_eq!(result.unwrap_err(), UploadError::Refused { step: UploadStep::Store, status: 400, code: 0 });
        } else {
            assert_eq!((result.unwrap().blocks, fake.look(|state| state.file.clone()).unwrap()), (3, payload(2_500)));
        }
        assert_eq!(fake.look(State::successes), [!always]);
    }
}

#[tokio::test]
async fn what_the_hub_refuses_is_told_and_not_repeated() {
    let table = [
        ("400 Bad Request", r#"{"Message":"ErrorCode:BlobNameInvalid;400023"}"#, 400, 400_023),
        ("404 Not Found", r#"{"errorCode":404001,"message":"no device"}"#, 404, 404_001),
        ("403 Forbidden", r#"{"Message":"ErrorCode:IotHubQuotaExceeded;403002"}"#, 403, 403_002),
        ("412 Precondition Failed", "", 412, 0),
    ];
    for (said, body, status, code) in table {
        let fake = Fake::start(move |request, _| request.is_initiation().then(|| answer(said, "", body))).await;
        let (device, _driver) = fake.device();
        let error = soon(device.upload("x", UploadSource::bytes("x")).into_future()).await.unwrap_err();
        assert_eq!(error, UploadError::Refused { step: UploadStep::Initiate, status, code });
        assert_eq!(fake.look(|state| state.lines.len()), 1);
    }
}

#[tokio::test]
async fn too_many_open_uploads_are_waited_for() {
    let mut refusals = 0;
    let fake = Fake::start(move |request, _| {
        refusals += usize::from(request.is_initiation());
        let body = r#"{"errorCode":403006,"message":"too many"}"#;
        (request.is_initiation() && refusals < 3).then(|| answer("403 Forbidden", "", body))
    })
    .await;
    let (device, _driver) = fake.device();
    let report = soon(device.upload("x", UploadSource::bytes("x")).into_future()).await.unwrap();
    assert_eq!(report.failures, 2);
}

#[tokio::test]
async fn the_other_key_is_tried_after_a_refusal() {
    let fake = Fake::start(|request, state| {
        let first = request.is_initiation() && state.tokens.len() < 2;
        first.then(|| answer("401 Unauthorized", "", r#"{"errorCode":401003}"#))
    })
    .await;
    let (device, _driver) = fake.device_with(|builder| builder.shared_keys(OTHER_KEY, KEY));
    soon(device.upload("x", UploadSource::bytes("x")).into_future()).await.unwrap();
    assert!(fake.look(|state| state.tokens.len()) >= 2);
}

/// Gives some bytes and then fails.
struct Broken(usize);

impl AsyncRead for Broken {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(std::io::Error::other("the disk is gone")));
        }
        let len = buffer.remaining().min(self.0);
        buffer.put_slice(&vec![7; len]);
        self.0 -= len;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_source_that_fails_is_told_to_the_hub_too() {
    let fake = Fake::start(|_, _| None).await;
    let (device, _driver) = fake.device();
    let upload = device.upload("x", UploadSource::reader(Broken(1_500))).block_size(1_000);
    let error = soon(upload.into_future()).await.unwrap_err();
    assert_eq!(error, UploadError::Source(String::from("the disk is gone")));
    assert_eq!(fake.look(State::successes), [false]);
}

/// A source that never gives anything.
struct Endless(Arc<tokio::sync::Notify>);

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.0.notify_one();
        Poll::Pending
    }
}

#[tokio::test]
async fn an_upload_that_is_dropped_tells_the_hub() {
    let fake = Fake::start(|_, _| None).await;
    let (device, _driver) = fake.device();
    // It is read from once the grant has come.
    let read = Arc::new(tokio::sync::Notify::new());
    let upload = device.upload("x", UploadSource::reader(Endless(Arc::clone(&read))));
    let upload = tokio::spawn(upload.into_future());
    soon(read.notified()).await;
    assert_eq!(fake.look(|state| state.grants), 1);
    upload.abort();
    soon(async {
        while fake.look(|state| state.notices.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(fake.look(State::successes), [false]);
}

#[tokio::test]
async fn patience_ends_and_says_why() {
    let fake = Fake::start(|_, _| Some(Reaction::Cut)).await;
    let (device, _driver) = fake.device();
    let upload = device.upload("x", UploadSource::bytes("x")).give_up_after(Duration::from_millis(50));
    let error = soon(upload.into_future()).await.unwrap_err();
    assert!(matches!(error, UploadError::GaveUp(_)), "{error}");
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("sig") && !text.contains("Signature"), "{text}");
    }
}

#[tokio::test]
async fn a_name_or_a_service_that_takes_no_file_is_told_at_once() {
    let fake = Fake::start(|_, _| None).await;
    let (device, _driver) = fake.device();
    for name in ["", "a\nb", &"n".repeat(1_025)] {
        let error = soon(device.upload(name, UploadSource::bytes("x")).into_future()).await.unwrap_err();
        assert_eq!(error, UploadError::Name);
    }
    let (device, _driver) = fake.device_with(|builder| builder.broker("broker.test", "c").anonymous());
    let error = soon(device.upload("x", UploadSource::bytes("x")).into_future()).await.unwrap_err();
    assert_eq!(error, UploadError::NoHub);
    assert_eq!(fake.look(|state| state.lines.len()), 0);
}
