//! One HTTP request after the other, over any stream or over the device's TLS and proxy.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request as HttpRequest, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use steadfast_core::{Failure, upload as core_upload};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::connection::Stream;
use crate::connector::Setup;
use crate::proxy::authority;

/// Port of HTTPS (RFC 9110, section 4.2.2).
const PORT: u16 = 443;

/// Longest answer that is read, in bytes, unless somebody says otherwise.
pub(crate) const ANSWER: usize = 64 * 1024;

/// How long a request may take, its body and its answer included, unless somebody says otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request without its body, which can be sent again.
pub(crate) struct Request {
    method: Method,
    /// Path and query; may have a grant in it.
    uri: Zeroizing<String>,
    headers: Vec<(&'static str, Zeroizing<String>)>,
}

impl Request {
    pub(crate) fn new(method: Method, uri: impl Into<String>) -> Self {
        Self { method, uri: Zeroizing::new(uri.into()), headers: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, Zeroizing::new(value.into())));
        self
    }
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after_secs: Option<u32>,
    pub(crate) body: Bytes,
}

/// A host that is asked by HTTP, with at most one connection to it.
pub(crate) struct HttpConnection {
    host: String,
    port: u16,
    patience: Duration,
    longest: usize,
    open: Option<Open>,
}

/// A connection that HTTP is spoken on.
pub(crate) struct Open {
    requests: SendRequest<Full<Bytes>>,
    work: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl HttpConnection {
    /// Takes a host, and a port if one is named.
    pub(crate) fn to(address: &str) -> Option<Self> {
        let address: hyper::http::uri::Authority = address.parse().ok()?;
        let host = address.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = address.port_u16().unwrap_or(PORT);
        let named = rustls::pki_types::ServerName::try_from(host.as_str()).is_ok() && !address.as_str().contains('@');
        named.then_some(Self { host, port, patience: PATIENCE, longest: ANSWER, open: None })
    }

    /// Sets how long a request may take, and its answer be.
    #[cfg(feature = "edge")]
    pub(crate) fn within(self, patience: Duration, longest: usize) -> Self {
        Self { patience, longest, ..self }
    }

    /// Connects by TCP, so that what stands in the way is known before anything is asked.
    #[cfg(feature = "tpm")]
    pub(crate) async fn reach(&self, setup: &Arc<Setup>, shown: bool) -> Result<Reached, Failure> {
        Reached::to(setup, &self.host, self.port, shown).await
    }

    /// Completes TLS.
    #[cfg(feature = "tpm")]
    pub(crate) async fn open(&mut self, setup: &Arc<Setup>, shown: bool, reached: Reached) -> Result<(), Failure> {
        self.open = Some(reached.open(setup, &self.host, shown).await?);
        Ok(())
    }

    /// Sends a request and returns the answer. `shown`: with the device's certificate.
    pub(crate) async fn send(
        &mut self,
        setup: &Arc<Setup>,
        shown: bool,
        request: &Request,
        body: &Bytes,
    ) -> Result<Answer, Failure> {
        let answer = timeout(self.patience, self.exchange(setup, shown, request, body)).await.unwrap_or_else(|_| {
            tracing::debug!(host = self.host, "no answer in time");
            Err(Failure::Network)
        });
        if answer.is_err() {
            self.open = None;
        }
        answer
    }

    async fn exchange(
        &mut self,
        setup: &Arc<Setup>,
        shown: bool,
        request: &Request,
        body: &Bytes,
    ) -> Result<Answer, Failure> {
        let mut kept = self.open.take();
        if let Some(open) = &mut kept
            && open.requests.ready().await.is_err()
        {
            kept = None;
        }
        let mut open = match kept {
            Some(open) => open,
            None => Reached::to(setup, &self.host, self.port, shown).await?.open(setup, &self.host, shown).await?,
        };
        let name = authority(&self.host, self.port);
        let name = if self.port == PORT { name.trim_end_matches(":443") } else { &name };
        let answer = open.ask(name, request, body, self.longest).await?;
        self.open = Some(open);
        Ok(answer)
    }
}

/// A TCP connection on which TLS has not begun.
pub(crate) struct Reached {
    stream: TcpStream,
    tls: Option<Arc<ClientConfig>>,
}

impl Reached {
    async fn to(setup: &Arc<Setup>, host: &str, port: u16, shown: bool) -> Result<Self, Failure> {
        let tls = setup.tls_config(shown).await?;
        Ok(Self { stream: setup.reach_https(host, port).await?, tls })
    }

    async fn open(self, setup: &Arc<Setup>, host: &str, shown: bool) -> Result<Open, Failure> {
        let stream = match self.tls {
            Some(config) => setup.secure(self.stream, host, config, shown).await?,
            None => Stream::Plain(self.stream),
        };
        Open::over(stream).await
    }
}

impl Open {
    /// Begins HTTP on a stream.
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, Failure> {
        let (requests, work) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let work = tokio::spawn(async move {
            if let Err(error) = work.await {
                tracing::debug!(%error, "the connection ended");
            }
        });
        Ok(Self { requests, work })
    }

    /// Sends a request to `host` and returns the answer, of `longest` bytes at most.
    pub(crate) async fn ask(
        &mut self,
        host: &str,
        request: &Request,
        body: &Bytes,
        longest: usize,
    ) -> Result<Answer, Failure> {
        let uri: Uri = request.uri.parse().map_err(|error| broken(&error))?;
        let mut message = HttpRequest::builder().method(&request.method).uri(uri).header(header::HOST, host);
        for (name, value) in &request.headers {
            let mut value = header::HeaderValue::from_str(value).map_err(|error| broken(&error))?;
            value.set_sensitive(true);
            message = message.header(*name, value);
        }
        let message = message.body(Full::new(body.clone())).map_err(|error| broken(&error))?;
        let answer = self.requests.send_request(message).await.map_err(|error| broken(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, longest).collect().await.map_err(|error| broken(&error))?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), retry_after_secs: retry_after(&head.headers), body })
    }
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    tracing::debug!(%error, "the exchange broke off");
    Failure::Network
}

/// Reads the seconds of Retry-After; a date counts as none (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<u32> {
    core_upload::retry_after_secs(headers.get(header::RETRY_AFTER)?.to_str().ok()?)
}
