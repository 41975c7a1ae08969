//! A client of the Edge device's workload API, over its socket.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use steadfast_core::edge::retry::{Next, Outcome, Tries, Trust};
use steadfast_core::edge::workload::{self, ANSWER_MAX};
use steadfast_core::text::{Counter, Sink, SinkFull, Text};
use steadfast_core::{Failure, LocalFailure, SignRequest, Timeouts, TlsFailure};
use tokio::time::{sleep, timeout};

use super::EdgeModule;
use crate::context::Context;
use crate::http::{Answer, Open, Request};
use crate::signer::{SignError, Signer, Signing};
use crate::tls::{self, Tls};
use crate::{clock, connect};

/// Port of HTTP (RFC 9110, section 4.2.1).
const PORT: u16 = 80;

/// The address of a workload API.
#[derive(Clone)]
pub(super) enum Place {
    Unix(Box<str>),
    Tcp(Box<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// The workload API, and the roots it last named.
pub(crate) struct Workload {
    module: EdgeModule,
    /// Timeouts of a signature and of the roots.
    sign_patience: Duration,
    trust_patience: Duration,
    roots: Mutex<Roots>,
    /// One request for the roots at a time.
    asking: tokio::sync::Mutex<()>,
}

/// The roots, and whether they are in doubt.
#[derive(Clone, Default)]
struct Roots {
    /// As they were named, and as they are used.
    known: Option<(Arc<str>, Tls)>,
    trust: Trust,
}

impl Workload {
    pub(super) fn new(module: EdgeModule, timeouts: &Timeouts) -> Self {
        // These deadlines come before the link's own, which would blame the signer or the gateway.
        let (sign_patience, trust_patience) = (timeouts.sign / 10 * 9, timeouts.connect / 2);
        Self { module, sign_patience, trust_patience, roots: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    async fn sign(&self, text: &str) -> Result<[u8; 32], SignError> {
        let body = sign_request(text);
        let answer = self.ask(&Method::POST, &self.module.sign, &body, self.sign_patience).await;
        let answer = answer.map_err(|Unasked { failure, why }| SignError::with_failure(failure, why))?;
        workload::read_digest(&answer)
            .map_err(|error| SignError::with_failure(LocalFailure::WorkloadRefused(0), error.to_string()))
    }

    /// Returns the trusted roots: the cached ones, unless they are old or in doubt.
    pub(crate) async fn trust(&self) -> Result<Tls, Failure> {
        let _turn = self.asking.lock().await;
        let Roots { known, trust } = self.roots().clone();
        if let Some((_, tls)) = &known
            && !trust.is_due(clock::now())
        {
            return Ok(tls.clone());
        }
        let named = self.ask_for_roots().await.and_then(|text| self.take_roots(text, known.clone()));
        match (named, known) {
            (Ok(tls), _) => Ok(tls),
            // Old roots stay valid while the gateway's certificate chains to them.
            (Err(Unasked { why, .. }), Some((_, tls))) if trust.holds() => {
                tracing::warn!(why, "the trusted roots cannot be read; continuing with the cached ones");
                Ok(tls)
            }
            (Err(Unasked { failure, why }), _) => {
                tracing::warn!(why, "the trusted roots are not known");
                Err(Failure::Local(failure))
            }
        }
    }

    /// Records that a certificate of the gateway was not trusted.
    pub(crate) fn doubt(&self, failure: TlsFailure) {
        self.roots().trust.doubt(failure);
    }

    fn take_roots(&self, text: String, known: Option<(Arc<str>, Tls)>) -> Result<Tls, Unasked> {
        let known = match known.filter(|(known, _)| **known == *text) {
            Some(known) => known,
            None => {
                // Without its own roots the gateway has a publicly trusted certificate.
                let tls = if text.is_empty() { Ok(Tls::system()) } else { Tls::of_bundle(text.as_bytes()) };
                let tls = tls.map_err(|_| Unasked {
                    failure: LocalFailure::WorkloadRefused(0),
                    why: String::from("none of the roots from the workload API is usable"),
                })?;
                tracing::info!("the workload API named the roots to trust");
                (text.into(), tls)
            }
        };
        let tls = known.1.clone();
        let mut roots = self.roots();
        roots.known = Some(known);
        roots.trust.named(clock::now());
        Ok(tls)
    }

    async fn ask_for_roots(&self) -> Result<String, Unasked> {
        let path = &self.module.trust_bundle;
        let answer = self.ask(&Method::GET, path, &Bytes::new(), self.trust_patience).await?;
        let mut buffer = vec![0; answer.len()];
        let text = workload::read_trust_bundle(&answer, &mut buffer)
            .map_err(|error| Unasked { failure: LocalFailure::WorkloadRefused(0), why: error.to_string() })?;
        Ok(text.to_owned())
    }

    /// Sends a request, and retries briefly if the service is busy, within `patience`.
    async fn ask(&self, method: &Method, path: &str, body: &Bytes, patience: Duration) -> Result<Bytes, Unasked> {
        let place = &self.module.place;
        let mut tries = Tries::new();
        let mut why = format!("the workload API at {place} did not answer in time");
        let asking = async {
            loop {
                let made = self.ask_once(method, path, body).await;
                let outcome = match &made {
                    Ok(answer) => {
                        why = format!("the workload API at {place} answered {} {}", answer.status, message(answer));
                        Outcome::Answered(answer.status)
                    }
                    Err(Unanswered::Absent(error)) => {
                        why = format!("the workload API at {place} cannot be reached: {error}");
                        Outcome::Absent
                    }
                    Err(Unanswered::CutOff) => {
                        why = format!("the workload API at {place} closes connections without an answer");
                        Outcome::CutOff
                    }
                };
                match (tries.after(outcome, random()), made) {
                    (Next::Read, Ok(answer)) => return Ok(answer.body),
                    (Next::Repeat(pause), _) => sleep(pause).await,
                    (Next::Fail(failure), _) => return Err(failure),
                    _ => return Err(LocalFailure::WorkloadUnreachable),
                }
            }
        };
        let asked = timeout(patience, asking).await;
        asked.unwrap_or_else(|_| Err(tries.overdue())).map_err(|failure| Unasked { failure, why })
    }

    async fn ask_once(&self, method: &Method, path: &str, body: &Bytes) -> Result<Answer, Unanswered> {
        let mut request = Request::new(method.clone(), path).header("connection", "close");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let (mut open, host) = match &self.module.place {
            Place::Unix(path) => (over_socket(path).await?, "localhost"),
            Place::Tcp(authority) => {
                let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
                let (host, port) = port.unwrap_or((authority, PORT));
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let stream = connect::connect(&Context::shared().names, host, port, None, false).await;
                let stream = stream.map_err(|failure| Unanswered::Absent(io::Error::other(failure.to_string())))?;
                (Open::over(stream).await, &**authority)
            }
        };
        match &mut open {
            Ok(open) => open.ask(host, &request, body, ANSWER_MAX).await.map_err(|_| Unanswered::CutOff),
            Err(_) => Err(Unanswered::CutOff),
        }
    }

    fn roots(&self) -> MutexGuard<'_, Roots> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workload({})", self.module.place)
    }
}

/// Why a request failed, for the status and for the log.
struct Unasked {
    failure: LocalFailure,
    why: String,
}

/// Why there was no answer.
enum Unanswered {
    /// Nothing listens on the socket.
    Absent(io::Error),
    /// The connection ended first.
    CutOff,
}

#[cfg(unix)]
async fn over_socket(path: &str) -> Result<Result<Open, Failure>, Unanswered> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(stream) => Ok(Open::over(stream).await),
        // The queue of connections that are not accepted yet is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Unanswered::CutOff),
        Err(error) => Err(Unanswered::Absent(error)),
    }
}

#[cfg(not(unix))]
async fn over_socket(_: &str) -> Result<Result<Open, Failure>, Unanswered> {
    Err(Unanswered::Absent(io::ErrorKind::Unsupported.into()))
}

/// Returns a random number, for a pause.
fn random() -> u32 {
    let mut word = [0; 4];
    // Without randomness the pause is the longest.
    tls::provider().secure_random.fill(&mut word).map_or(u32::MAX, |()| u32::from_le_bytes(word))
}

/// Returns the service's error message.
fn message(answer: &Answer) -> String {
    let message = workload::error_message(&answer.body);
    message.map(|text| text.chars().take(200).filter(|one| !one.is_control()).collect()).unwrap_or_default()
}

fn sign_request(text: &str) -> Bytes {
    let text = Text::from(text);
    let mut count = Counter(0);
    // Neither counting nor a vector is ever full.
    let _ = workload::put_sign_request(&text, &mut count);
    let mut body = Growing(Vec::with_capacity(count.0));
    let _ = workload::put_sign_request(&text, &mut body);
    Bytes::from(body.0)
}

/// Grows as it is written to.
pub(super) struct Growing(pub(super) Vec<u8>);

impl Sink for Growing {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Has the workload API sign for the module.
pub(crate) struct WorkloadSigner(pub(super) Arc<Workload>);

impl Signer for WorkloadSigner {
    fn sign(&self, request: SignRequest<'_>) -> Signing {
        let (workload, text) = (Arc::clone(&self.0), request.text.to_string());
        Box::pin(async move { workload.sign(&text).await })
    }
}
