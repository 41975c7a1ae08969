//! Uploads of files to the storage account of the device's hub.
//!
//! [`steadfast_core::upload`] has the rules; this module reads the file from a [`Source`], makes the requests with an
//! [`Http`] client, and signs for the hub with the [`Board`]. Firmware without uploads contains none of it.
//!
//! [`Upload::poll`] makes one request at most, so that a loop looks after its device in between; a block takes as long as
//! the network needs for it, which [`Options::block_len`] bounds:
//!
//! ```no_run
//! use core::time::Duration;
//! use steadfast_core::upload::{self, Options, Report, UploadError};
//! use steadfast_core::{Config, Provisioned, RamOutbox, Seed};
//! use steadfast_esp32::upload::{Http, Poll, Upload, UploadBuffers};
//! use steadfast_esp32::{Board, Connect, Device};
//!
//! type Settings = &'static Config<&'static str>;
//!
//! fn upload<B: Board, C: Connect>(
//!     device: &mut Device<'_, B, C, RamOutbox<8, 2048>, Provisioned<Settings>>,
//!     config: Settings,
//!     http: &mut impl Http,
//!     log: &[u8],
//!     seed: Seed,
//! ) -> Result<Report, UploadError> {
//!     let (mut grant, mut block, mut scratch) = ([0; 1024], [0; 4096], [0; 2048]);
//!     let buffers = UploadBuffers { grant: &mut grant, block: &mut block, scratch: &mut scratch };
//!     let mut upload = Upload::new("log.txt", Options::DEFAULT, config, seed, buffers, device.board().now())?;
//!     loop {
//!         // The device's own events go where they always go.
//!         drop(device.poll(Duration::from_millis(10)));
//!         match upload.poll(device.board_mut(), &mut &log[..], http) {
//!             Poll::Home => upload.at_home(upload::home(device.link()), device.board().now()),
//!             Poll::Progress(_) | Poll::Requested | Poll::Wait(_) => {}
//!             Poll::Done(result) => return result,
//!             _ => {}
//!         }
//!     }
//! }
//! ```
//!
//! `embedded_svc::Client` (feature `embedded-svc`) is an [`Http`] over the HTTP client of that crate. What proves the device is taken
//! from the configuration: a shared key signs by [`Board::sign`] and wants a wall clock, a certificate is shown to the hub
//! and never to the storage. After a reboot the application uploads the file again, from its start or from a
//! [`Checkpoint`] that it kept; the hub counts the grant from before until it expires.

use core::fmt;
use core::time::Duration;

use steadfast_core::upload::{
    self, Body, Checkpoint, Input, Method, Options, Output, Progress, Report, Request, UploadError,
};
use steadfast_core::{Attempt, Config, Credential, Failure, Instant, LocalFailure, Seed, ServiceKind, SignRequest};

use crate::board::Board;
use crate::commands::STEPS;

#[cfg(feature = "embedded-svc")]
pub mod embedded_svc;

/// Lifetime of a token for one request.
const TOKEN_SECS: u64 = 600;

/// Timeout of a request, including its body and its answer.
const LIMIT: Duration = Duration::from_secs(120);

/// The source of a file's bytes.
///
/// A slice is a source, and so is what reads flash or an SD card at an offset.
pub trait Source {
    /// Copies bytes that begin at `offset` into `buffer` and returns how many, 0 only at the end of the file. It may be
    /// asked for any byte again.
    ///
    /// # Errors
    /// [`SourceFailed`] ends the upload.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceFailed>;
}

impl Source for &[u8] {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceFailed> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let mut read = 0;
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
            read += 1;
        }
        Ok(read)
    }
}

/// A [`Source`] cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "that it failed, and nothing else")]
pub struct SourceFailed;

impl fmt::Display for SourceFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the file cannot be read")
    }
}

impl core::error::Error for SourceFailed {}

/// Memory of an upload.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is built by the caller")]
pub struct UploadBuffers<'b> {
    /// Buffer for the SAS URI: some 600 bytes for a short name.
    pub grant: &'b mut [u8],
    /// Holds one block; a shorter one than [`Options::block_len`] makes the blocks as short. A file has at most 50,000 of
    /// them: 4 KiB are enough for 195 MiB.
    pub block: &'b mut [u8],
    /// Holds the token and the URL of a request, and then its answer, of which the hub's with the grant is the longest: 2
    /// KiB are enough for a short name.
    pub scratch: &'b mut [u8],
}

/// A request to be made.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct HttpRequest<'a> {
    /// Its method.
    pub method: Method,
    /// Host name, with a port behind a colon when it is not 443; also the name to verify the certificate against.
    pub host: &'a str,
    /// It goes to the hub. A connection that has served the hub must not serve the storage: neither the token nor the
    /// certificate of the device are for it.
    pub to_hub: bool,
    /// Whether to present the device's certificate in the TLS handshake.
    pub client_certificate: bool,
    /// How long it may take, its answer included.
    pub limit: Duration,
    request: Request<'a>,
    authorization: Option<&'a str>,
    block: &'a [u8],
}

impl HttpRequest<'_> {
    /// Writes the whole URL into `buffer` and returns it, or `None` when it does not fit. It may have a grant in it: it is
    /// not for a log.
    pub fn url<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b str> {
        self.request.url(buffer)
    }

    /// Lists names and values of the headers. `Host` and `Content-Length` are not among them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let proof = self.authorization.map(|token| ("Authorization", token));
        self.request.headers().iter().copied().chain(proof)
    }

    /// Returns the length of the body.
    #[must_use]
    pub fn len(&self) -> usize {
        self.request.body.len()
    }

    /// Returns true when there is no body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a piece of the body that begins at `from`, and nothing at its end; `buffer` is for what is composed.
    #[must_use]
    pub fn piece<'p>(&'p self, from: usize, buffer: &'p mut [u8]) -> &'p [u8] {
        if let Body::Document(document) = self.request.body {
            let len = document.read(from, buffer);
            return buffer.get(..len).unwrap_or_default();
        }
        self.block.get(from..).unwrap_or_default()
    }
}

impl fmt::Debug for HttpRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// What [`upload::retry_after_secs`] reads in its header Retry-After.
    pub retry_after_secs: Option<u32>,
    /// Length of the body in the buffer.
    pub len: usize,
    /// The body is longer than the buffer.
    pub cut: bool,
}

impl HttpAnswer {
    /// Makes an answer without retry-after, whose body has so many bytes in the buffer.
    #[must_use]
    pub const fn new(status: u16, len: usize) -> Self {
        Self { status, retry_after_secs: None, len, cut: false }
    }
}

/// Makes requests over HTTPS.
pub trait Http {
    /// Makes a request and writes the body of its answer to the front of `buffer`, which may be used before that, such as
    /// for the URL.
    ///
    /// # Errors
    /// Why there was no answer, as exactly as it is known: it decides how long the upload waits.
    fn exchange(&mut self, request: &HttpRequest<'_>, buffer: &mut [u8]) -> Result<HttpAnswer, Failure>;
}

/// Makes asynchronous requests over HTTPS.
#[expect(async_fn_in_trait, reason = "executors of microcontrollers have one thread: no Send bound is wanted")]
pub trait AsyncHttp {
    /// Does what [`Http::exchange`] does. Dropped unfinished, it is called again with the same request, for which another
    /// connection is wanted.
    ///
    /// # Errors
    /// As [`Http::exchange`].
    async fn exchange(&mut self, request: &HttpRequest<'_>, buffer: &mut [u8]) -> Result<HttpAnswer, Failure>;
}

/// What a call of [`Upload::poll`] did.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Poll {
    /// Nothing: call [`Upload::at_home`] with the assigned hub.
    Home,
    /// Something went forward, or failed.
    Progress(Progress),
    /// It made a request; call again.
    Requested,
    /// Nothing to do until this time; earlier calls do no harm.
    Wait(Instant),
    /// The upload is over.
    Done(Result<Report, UploadError>),
}

/// One upload of a file.
pub struct Upload<'b, T> {
    core: upload::Upload<&'b str, &'b mut [u8]>,
    config: &'b Config<T>,
    block: &'b mut [u8],
    scratch: &'b mut [u8],
}

/// The next step.
enum Next {
    Return(Poll),
    /// A request, whose token is at the front of the scratch buffer and has this length, if it has one.
    Request(Option<usize>),
}

impl<'b, T: AsRef<str>> Upload<'b, T> {
    /// Begins to upload a file under `name` in the device's folder. `config` is the device's, and its
    /// [`retry`](steadfast_core::SessionConfig::retry) the pace; the seed must differ from device to device and from upload to upload.
    ///
    /// # Errors
    /// [`UploadError::Name`].
    pub fn new(
        name: &'b str,
        mut options: Options,
        config: &'b Config<T>,
        seed: Seed,
        buffers: UploadBuffers<'b>,
        now: Instant,
    ) -> Result<Self, UploadError> {
        let UploadBuffers { grant, block, scratch } = buffers;
        options.block_len = options.block_len.min(block.len());
        let core = upload::Upload::new(name, options, config.session.retry, seed, grant, now)?;
        Ok(Self { core, config, block, scratch })
    }

    /// Returns where a later upload of the same file can go on, to be kept over reboots after a [`Poll::Progress`].
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.core.checkpoint()
    }

    /// Goes on where an upload of the same file under the same name, in blocks of the same length, was before a reboot.
    /// Returns false, and begins at the start, when that cannot be done. To be called before the first
    /// [`poll`](Self::poll).
    pub fn resume(&mut self, checkpoint: Checkpoint) -> bool {
        self.core.resume(checkpoint)
    }

    /// Answers [`Poll::Home`], by [`upload::home`] in most cases.
    pub fn at_home(&mut self, home: Input<'_>, now: Instant) {
        self.core.handle_input(home, now);
    }

    /// Ends the upload as soon as the hub is told; further calls of [`poll`](Self::poll) do that.
    pub fn cancel(&mut self, now: Instant) {
        self.core.cancel(now);
    }

    /// Returns how far the upload is.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.core.progress()
    }

    /// Returns the file's name in the storage, including the device's folder; empty without a SAS URI.
    #[must_use]
    pub fn blob(&self) -> &str {
        self.core.blob()
    }

    /// Returns the number of uploads that the hub counts as open until their SAS URI expires, because a notification
    /// failed.
    #[must_use]
    pub const fn untold(&self) -> u32 {
        self.core.untold()
    }

    /// Does what comes next, with one request at most.
    pub fn poll<B: Board>(&mut self, board: &mut B, source: &mut impl Source, http: &mut impl Http) -> Poll {
        match self.next(board, source) {
            Next::Return(poll) => poll,
            Next::Request(token) => {
                let Self { core, config, block, scratch } = self;
                let Some((attempt, request, room)) = request(core, config, block, scratch, token) else {
                    return Poll::Requested;
                };
                let answer = http.exchange(&request, room);
                finish(core, attempt, answer, room, board.now())
            }
        }
    }

    /// Does what comes next, with one request at most, during which other tasks run. Dropped unfinished, it makes the
    /// request again.
    pub async fn poll_async<B: Board>(
        &mut self,
        board: &mut B,
        source: &mut impl Source,
        http: &mut impl AsyncHttp,
    ) -> Poll {
        match self.next(board, source) {
            Next::Return(poll) => poll,
            Next::Request(token) => {
                let Self { core, config, block, scratch } = self;
                let Some((attempt, request, room)) = request(core, config, block, scratch, token) else {
                    return Poll::Requested;
                };
                let answer = http.exchange(&request, room).await;
                finish(core, attempt, answer, room, board.now())
            }
        }
    }

    /// Does the work before the next request.
    fn next<B: Board>(&mut self, board: &mut B, source: &mut impl Source) -> Next {
        for _ in 0..STEPS {
            let now = board.now();
            match self.core.poll_output() {
                Output::Home => return Next::Return(Poll::Home),
                Output::Progress(progress) => return Next::Return(Poll::Progress(progress)),
                Output::Done(result) => return Next::Return(Poll::Done(result)),
                Output::Wait(at) if at > now => return Next::Return(Poll::Wait(at)),
                Output::Wait(_) => self.core.handle_timeout(now),
                // Nothing would ever be read into it.
                Output::Read { .. } if self.block.is_empty() => self.core.fail(UploadError::TooLong, now),
                Output::Read { offset, len } => match fill(source, offset, self.block, len) {
                    Ok(len) => self.core.handle_input(Input::Read { len }, now),
                    Err(SourceFailed) => self.core.fail(UploadError::Source, now),
                },
                Output::Request(request) => {
                    let attempt = request.attempt;
                    match token(&request, self.config, self.scratch, board) {
                        Ok(token) => {
                            let url = "https://".len() + request.host.len() + request.uri.len();
                            let (needed, room) = (token.unwrap_or(0) + url, self.scratch.len());
                            if needed <= room {
                                return Next::Request(token);
                            }
                            self.core.fail(UploadError::NoRoom { needed, room }, now);
                            // Word to the hub is not given up by that.
                            let failure = Failure::Local(LocalFailure::Buffer);
                            self.core.handle_input(Input::Failed { attempt, failure }, now);
                        }
                        Err(failure) => self.core.handle_input(Input::Failed { attempt, failure }, now),
                    }
                }
                _ => break,
            }
        }
        Next::Return(Poll::Requested)
    }
}

impl<T> fmt::Debug for Upload<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

/// Reads a block of `len` bytes, or what there is of it.
fn fill(source: &mut impl Source, offset: u64, block: &mut [u8], len: usize) -> Result<usize, SourceFailed> {
    let mut filled = 0;
    while let Some(room) = block.get_mut(filled..len).filter(|room| !room.is_empty()) {
        let before = u64::try_from(filled).unwrap_or(u64::MAX);
        let read = source.read(offset.saturating_add(before), room)?.min(room.len());
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(filled)
}

/// Writes the token for a request to the front of `scratch`, if it fits, and returns its length, if it needs one.
fn token<B: Board, T: AsRef<str>>(
    request: &Request<'_>,
    config: &Config<T>,
    scratch: &mut [u8],
    board: &mut B,
) -> Result<Option<usize>, Failure> {
    let Some(identity) = &request.identity else { return Ok(None) };
    match &config.credential {
        Credential::SharedKey => {
            let clock = board.unix_secs().ok_or(Failure::Local(LocalFailure::ClockUnset))?;
            let expiry = clock.saturating_add(TOKEN_SECS);
            let resource = identity.resource(config.module_id.as_ref().map(AsRef::as_ref));
            let signature =
                board.sign(SignRequest::new(ServiceKind::Hub, identity.refusals, resource.string_to_sign(expiry)))?;
            let token = resource.token(&signature, expiry);
            Ok(Some(token.to_str(scratch).map_or_else(|| token.len(), str::len)))
        }
        Credential::Token(token) => {
            let token = token.as_ref().as_bytes();
            for (to, from) in scratch.iter_mut().zip(token) {
                *to = *from;
            }
            Ok(Some(token.len()))
        }
        Credential::Certificate | Credential::Password { .. } | Credential::Anonymous | _ => Ok(None),
    }
}

type Parts<'c, 's> = (Attempt, HttpRequest<'c>, &'s mut [u8]);

/// Returns the request that comes next, and the room for its answer.
fn request<'c, 's: 'c, T>(
    core: &'c mut upload::Upload<&str, &mut [u8]>,
    config: &Config<T>,
    block: &'c [u8],
    scratch: &'s mut [u8],
    token: Option<usize>,
) -> Option<Parts<'c, 's>> {
    let Output::Request(request) = core.poll_output() else { return None };
    let (text, room) = scratch.split_at_mut_checked(token.unwrap_or(0))?;
    let authorization = core::str::from_utf8(text).ok().filter(|_| token.is_some());
    let to_hub = request.identity.is_some();
    let block = if let Body::Block { len } = request.body { block.get(..len).unwrap_or_default() } else { &[] };
    let http = HttpRequest {
        method: request.method,
        host: request.host,
        to_hub,
        client_certificate: to_hub && matches!(config.credential, Credential::Certificate),
        limit: LIMIT,
        request,
        authorization,
        block,
    };
    Some((request.attempt, http, room))
}

fn finish(
    core: &mut upload::Upload<&str, &mut [u8]>,
    attempt: Attempt,
    answer: Result<HttpAnswer, Failure>,
    body: &[u8],
    now: Instant,
) -> Poll {
    match answer {
        Ok(HttpAnswer { status: 200, cut: true, .. }) if core.blob().is_empty() => {
            let room = body.len();
            core.fail(UploadError::NoRoom { needed: room.saturating_add(1), room }, now);
        }
        Ok(HttpAnswer { status, retry_after_secs, len, .. }) => {
            let body = body.get(..len).unwrap_or_default();
            core.handle_input(Input::Answer { attempt, status, retry_after_secs, body }, now);
        }
        Err(failure) => core.handle_input(Input::Failed { attempt, failure }, now),
    }
    Poll::Requested
}
