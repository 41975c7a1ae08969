//! Requests by the HTTP client of `embedded-svc`, such as esp-idf-svc's `EspHttpConnection`.

use ::embedded_svc::http::Method;
use ::embedded_svc::http::client::{Connection, asynch};
use embedded_io::ErrorKind;
use heapless::String;
use steadfast_core::text::{Part, Text};
use steadfast_core::{Failure, upload};

use super::{AsyncHttp, Http, HttpAnswer, HttpRequest};
use crate::board::HOST_BYTES;

/// Most of a body that is composed at a time.
const PIECE: usize = 256;

/// Headers of a request: those of the upload, its proof, and its length.
const HEADERS: usize = 4;

/// Makes connections.
pub trait Connections {
    /// A connection for requests one after the other. Dropping it closes it.
    type Connection: Connection;

    /// Makes a connection for requests like this one, over TLS with the certificate verified. It follows no redirections,
    /// waits [`limit`](HttpRequest::limit) at most, and shows the device's certificate when the request says so.
    ///
    /// For `EspHttpConnection`: `timeout` is the limit, and `buffer_size_tx` has to hold the first lines of a request, URL
    /// and token, for which its default of 512 bytes is too short.
    ///
    /// # Errors
    /// Why it cannot.
    fn open(&mut self, request: &HttpRequest<'_>) -> Result<Self::Connection, Failure>;
}

/// Makes asynchronous connections.
#[expect(async_fn_in_trait, reason = "executors of microcontrollers have one thread: no Send bound is wanted")]
pub trait AsyncConnections {
    /// A connection for requests one after the other. Dropping it closes it, also in the middle of a request.
    type Connection: asynch::Connection;

    /// Does what [`Connections::open`] does.
    ///
    /// # Errors
    /// Why it cannot.
    async fn open(&mut self, request: &HttpRequest<'_>) -> Result<Self::Connection, Failure>;
}

/// An [`Http`] over connections of `embedded-svc`.
///
/// The connection to the storage is kept from one block to the next; each request to the hub has its own, since clients
/// like esp-idf-svc's keep headers from one request to the next, and the hub's has the device's token.
#[derive(Debug)]
pub struct Client<F, C> {
    connections: F,
    /// The connection to the storage, and its host.
    kept: Option<(String<HOST_BYTES>, C)>,
}

impl<F, C> Client<F, C> {
    /// Makes requests over what `connections` opens.
    pub const fn new(connections: F) -> Self {
        Self { connections, kept: None }
    }

    /// Returns what opens the connections, to change it.
    pub const fn connections_mut(&mut self) -> &mut F {
        &mut self.connections
    }

    /// Takes the connection to the storage, if it is for this request.
    fn take(&mut self, request: &HttpRequest<'_>) -> Option<C> {
        let (host, connection) = self.kept.take()?;
        (!request.to_hub && host == request.host).then_some(connection)
    }

    /// Keeps a connection whose answer was read to its end.
    fn keep(&mut self, request: &HttpRequest<'_>, answer: &HttpAnswer, connection: C) {
        if let (false, false, Ok(host)) = (request.to_hub, answer.cut, String::try_from(request.host)) {
            self.kept = Some((host, connection));
        }
    }
}

impl<F: Connections> Http for Client<F, F::Connection> {
    fn exchange(&mut self, request: &HttpRequest<'_>, buffer: &mut [u8]) -> Result<HttpAnswer, Failure> {
        let mut connection = match self.take(request) {
            Some(connection) => connection,
            None => self.connections.open(request)?,
        };
        let answer = exchange(&mut connection, request, buffer)?;
        self.keep(request, &answer, connection);
        Ok(answer)
    }
}

impl<F: AsyncConnections> AsyncHttp for Client<F, F::Connection> {
    async fn exchange(&mut self, request: &HttpRequest<'_>, buffer: &mut [u8]) -> Result<HttpAnswer, Failure> {
        let mut connection = match self.take(request) {
            Some(connection) => connection,
            None => self.connections.open(request).await?,
        };
        let answer = exchange_async(&mut connection, request, buffer).await?;
        self.keep(request, &answer, connection);
        Ok(answer)
    }
}

fn exchange<C: Connection>(
    connection: &mut C,
    request: &HttpRequest<'_>,
    buffer: &mut [u8],
) -> Result<HttpAnswer, Failure> {
    let mut digits = [0; 20];
    let headers = Headers::of(request, &mut digits);
    let url = request.url(buffer).ok_or(TOO_LONG)?;
    connection.initiate_request(method(request), url, headers.list()).map_err(failure)?;
    let (mut sent, mut piece) = (0, [0; PIECE]);
    while sent < request.len() {
        match connection.write(request.piece(sent, &mut piece)).map_err(failure)? {
            0 => return Err(Failure::Lost),
            len => sent += len,
        }
    }
    connection.flush().map_err(failure)?;
    connection.initiate_response().map_err(failure)?;
    let mut answer = HttpAnswer::new(connection.status(), 0);
    answer.retry_after_secs = connection.header("Retry-After").and_then(upload::retry_after_secs);
    while let Some(room) = buffer.get_mut(answer.len..).filter(|room| !room.is_empty()) {
        match connection.read(room).map_err(failure)? {
            0 => return Ok(answer),
            len => answer.len += len,
        }
    }
    answer.cut = connection.read(&mut piece).map_err(failure)? > 0;
    Ok(answer)
}

async fn exchange_async<C: asynch::Connection>(
    connection: &mut C,
    request: &HttpRequest<'_>,
    buffer: &mut [u8],
) -> Result<HttpAnswer, Failure> {
    let mut digits = [0; 20];
    let headers = Headers::of(request, &mut digits);
    let url = request.url(buffer).ok_or(TOO_LONG)?;
    connection.initiate_request(method(request), url, headers.list()).await.map_err(failure)?;
    let (mut sent, mut piece) = (0, [0; PIECE]);
    while sent < request.len() {
        match connection.write(request.piece(sent, &mut piece)).await.map_err(failure)? {
            0 => return Err(Failure::Lost),
            len => sent += len,
        }
    }
    connection.flush().await.map_err(failure)?;
    connection.initiate_response().await.map_err(failure)?;
    let mut answer = HttpAnswer::new(connection.status(), 0);
    answer.retry_after_secs = connection.header("Retry-After").and_then(upload::retry_after_secs);
    while let Some(room) = buffer.get_mut(answer.len..).filter(|room| !room.is_empty()) {
        match connection.read(room).await.map_err(failure)? {
            0 => return Ok(answer),
            len => answer.len += len,
        }
    }
    answer.cut = connection.read(&mut piece).await.map_err(failure)? > 0;
    Ok(answer)
}

const TOO_LONG: Failure = Failure::Local(steadfast_core::LocalFailure::Buffer);

/// The headers of a request.
struct Headers<'a> {
    all: [(&'a str, &'a str); HEADERS],
    len: usize,
}

impl<'a> Headers<'a> {
    fn of(request: &'a HttpRequest<'_>, digits: &'a mut [u8]) -> Self {
        let length = u64::try_from(request.len()).unwrap_or(u64::MAX);
        let length = Text::of([Part::Number(length)]).to_str(digits).unwrap_or_default();
        let mut headers = Self { all: [("", ""); HEADERS], len: 0 };
        let given = request.headers().chain([("Content-Length", length)]);
        for (slot, header) in headers.all.iter_mut().zip(given) {
            *slot = header;
            headers.len += 1;
        }
        headers
    }

    fn list(&self) -> &[(&'a str, &'a str)] {
        self.all.get(..self.len).unwrap_or_default()
    }
}

fn method(request: &HttpRequest<'_>) -> Method {
    if request.method == upload::Method::Post { Method::Post } else { Method::Put }
}

fn failure(error: impl embedded_io::Error) -> Failure {
    let kind = error.kind();
    if kind == ErrorKind::ConnectionRefused {
        Failure::ConnectionRefused
    } else if kind == ErrorKind::TimedOut {
        Failure::ConnectTimeout
    } else {
        Failure::Network
    }
}
