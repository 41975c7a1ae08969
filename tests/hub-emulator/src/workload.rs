//! The workload API of an IoT Edge device: signatures and trusted roots for a module.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::http_message::{Conversation, Head, Response};
use crate::{Error, Key, percent_decode};

/// Versions of the interface (`Azure/iotedge`, `edgelet/edgelet-http/src/lib.rs`).
const VERSIONS: [&str; 8] =
    ["2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2020-10-10", "2021-12-07", "2022-08-03"];

/// Connections served at a time; more are closed.
const AT_ONCE: usize = 10;

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of recorded requests.
const REMEMBERED: usize = 1000;

/// The workload API of one module of an IoT Edge device, on its own Unix socket. Dropping it stops it and removes the
/// socket.
///
/// It holds the module's key, as the Edge device does: give the hub the same key. Errors are those of the real API: 403
/// for another module, 400 for an unknown api-version, 404 for another generation or path, 405, 422. It serves 10
/// connections at a time and closes more.
#[derive(Debug)]
pub struct WorkloadApi {
    shared: Arc<Shared>,
    path: PathBuf,
    task: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    serving: AtomicUsize,
}

struct State {
    module_id: String,
    generation_id: String,
    key: Key,
    trust_bundle: String,
    /// Connections still to be closed without an answer.
    closing: usize,
    /// A status for every response.
    refusal: Option<u16>,
    /// The delay of each response.
    delay: Duration,
    requests: VecDeque<String>,
    closed: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl WorkloadApi {
    /// Creates a socket at `path` and serves the module `module_id` with this generation of its identity and its key.
    /// `trust_bundle` is the PEM text of the trusted roots.
    ///
    /// # Errors
    /// [`Error::Listen`] when the socket cannot be created.
    pub fn start(
        path: impl Into<PathBuf>,
        module_id: &str,
        generation_id: &str,
        key: Key,
        trust_bundle: &str,
    ) -> Result<Self, Error> {
        let path = path.into();
        // A relative path does not make a valid URI.
        let path = std::path::absolute(&path).unwrap_or(path);
        let listen_error = |error| Error::Listen(path.display().to_string(), error);
        // Removes the socket of a process that was killed.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(listen_error)?;
        let state = State {
            module_id: module_id.to_owned(),
            generation_id: generation_id.to_owned(),
            key,
            trust_bundle: trust_bundle.to_owned(),
            closing: 0,
            refusal: None,
            delay: Duration::ZERO,
            requests: VecDeque::new(),
            closed: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), serving: AtomicUsize::new(0) });
        let task = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { shared, path, task })
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the value of `IOTEDGE_WORKLOADURI`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Replaces the key of the module, as after its identity was recreated.
    pub fn set_key(&self, key: Key) {
        self.shared.lock().key = key;
    }

    /// Replaces the trusted roots.
    pub fn set_trust_bundle(&self, pem: &str) {
        pem.clone_into(&mut self.shared.lock().trust_bundle);
    }

    /// Closes the next `connections` connections without a response, as a busy service does.
    pub fn close_next(&self, connections: usize) {
        self.shared.lock().closing = connections;
    }

    /// Answers every request with this status; `None` ends it.
    pub fn refuse(&self, status: Option<u16>) {
        self.shared.lock().refusal = status;
    }

    /// Delays each response by this time.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Returns methods and paths of the latest requests, up to 1,000, the oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.iter().cloned().collect()
    }

    /// Returns how many connections were closed without an answer.
    #[must_use]
    pub fn closed(&self) -> usize {
        self.shared.lock().closed
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.task.abort();
        // Who listens there later has its own.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let busy = shared.serving.load(Ordering::SeqCst) >= AT_ONCE;
        {
            let mut state = shared.lock();
            if busy || state.closing > 0 {
                state.closing = state.closing.saturating_sub(1);
                state.closed += 1;
                continue;
            }
        }
        shared.serving.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            serve(Conversation::new(stream), &shared).await;
            shared.serving.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(mut conversation: Conversation<UnixStream>, shared: &Shared) {
    loop {
        let Ok(Ok(Some(head))) = timeout(REQUEST_TIMEOUT, conversation.head()).await else { return };
        let Ok(Ok(Some(body))) = timeout(REQUEST_TIMEOUT, conversation.body(&head, None)).await else { return };
        let (response, delay) = {
            let mut state = shared.lock();
            if state.requests.len() == REMEMBERED {
                state.requests.pop_front();
            }
            state.requests.push_back(format!("{} {}", head.method, head.path));
            (state.answer(&head, &body), state.delay)
        };
        sleep(delay).await;
        if conversation.answer(&response).await.is_err() || !head.stays_open() {
            return;
        }
    }
}

impl State {
    fn answer(&self, head: &Head, body: &[u8]) -> Response {
        if let Some(status) = self.refusal {
            return error(status, "set by a test");
        }
        let segments: Vec<String> = head.path.split('/').skip(1).map(percent_decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match head.query.get("api-version") {
            None => return error(400, "api-version not specified"),
            Some(version) if !VERSIONS.contains(&version.as_str()) => return error(400, "invalid api-version"),
            Some(_) => {}
        }
        match (head.method.as_str(), segments.as_slice()) {
            ("GET", ["trust-bundle"]) => Response::json(200, &json!({ "certificate": self.trust_bundle })),
            ("POST", ["modules", module, "genid", generation, "sign"]) => self.sign(module, generation, body),
            (_, ["trust-bundle"] | ["modules", _, "genid", _, "sign"]) => error(405, "method not allowed"),
            _ => error(404, "not found"),
        }
    }

    fn sign(&self, module: &str, generation: &str, body: &[u8]) -> Response {
        if module != self.module_id {
            return error(403, "forbidden");
        }
        if generation != self.generation_id {
            return error(404, "module identity not found");
        }
        let Ok(request) = serde_json::from_slice::<Value>(body) else { return error(422, "the body is not JSON") };
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        if text("keyId") != Some("primary") || text("algo") != Some("HMACSHA256") {
            return error(400, "unknown key or algorithm");
        }
        match text("data").map(|data| STANDARD.decode(data)) {
            Some(Ok(data)) => Response::json(200, &json!({ "digest": STANDARD.encode(self.key.sign(&data)) })),
            Some(Err(_)) | None => error(400, "the data is not base64"),
        }
    }
}

fn error(status: u16, message: &str) -> Response {
    Response::json(status, &json!({ "message": message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SIGN: &str = "/modules/filter/genid/1/sign?api-version=2020-07-07";

    async fn ask(api: &WorkloadApi, method: &str, target: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(api.path()).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        // Closing a connection with unread bytes resets it.
        let _ = stream.read_to_string(&mut answer).await;
        let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        let body = answer.split_once("\r\n\r\n").map_or(Value::Null, |(_, body)| serde_json::from_str(body).unwrap());
        (status, body)
    }

    #[tokio::test]
    async fn it_signs_only_for_its_module_and_returns_the_roots() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::from_seed("module");
        let api = WorkloadApi::start(folder.path().join("w.sock"), "filter", "1", key.clone(), "PEM").unwrap();
        let body = json!({"keyId": "primary", "algo": "HMACSHA256", "data": STANDARD.encode("text")}).to_string();
        let digest = STANDARD.encode(key.sign(b"text"));
        assert_eq!(ask(&api, "POST", SIGN, &body).await, (200, json!({ "digest": digest })));
        let bundle = ask(&api, "GET", "/trust-bundle?api-version=2018-06-28", "").await;
        assert_eq!(bundle, (200, json!({"certificate": "PEM"})));
        let table = [
            ("POST", "/modules/other/genid/1/sign?api-version=2020-07-07", body.as_str(), 403),
            ("POST", "/modules/filter/genid/2/sign?api-version=2020-07-07", &body, 404),
            ("POST", "/modules/filter/genid/1/sign?api-version=2017-01-01", &body, 400),
            ("POST", "/modules/filter/genid/1/sign", &body, 400),
            ("GET", SIGN, "", 405),
            ("GET", "/secrets?api-version=2020-07-07", "", 404),
            ("POST", SIGN, "{", 422),
            ("POST", SIGN, "{}", 400),
        ];
        for (method, target, body, status) in table {
            assert_eq!(ask(&api, method, target, body).await.0, status, "{method} {target} {body}");
        }
        assert_eq!(api.requests().len(), 10);
        api.refuse(Some(500));
        assert_eq!(ask(&api, "POST", SIGN, &body).await.0, 500);
        api.close_next(1);
        assert_eq!(ask(&api, "POST", SIGN, &body).await, (0, Value::Null));
        let path = api.path().to_owned();
        drop(api);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn it_closes_connections_beyond_ten_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::from_seed("module");
        let api = Arc::new(WorkloadApi::start(folder.path().join("w.sock"), "filter", "1", key, "PEM").unwrap());
        api.set_delay(Duration::from_millis(500));
        let many: Vec<_> = (0..15)
            .map(|_| {
                let api = Arc::clone(&api);
                tokio::spawn(async move { ask(&api, "GET", "/trust-bundle?api-version=2018-06-28", "").await.0 })
            })
            .collect();
        let mut answered = 0;
        for one in many {
            answered += usize::from(one.await.is_ok_and(|status| status == 200));
        }
        assert_eq!((answered, api.closed()), (10, 5));
    }
}
