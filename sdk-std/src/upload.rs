//! Uploads of files to the storage that the hub names.
//!
//! The hub gives a place and a short-lived grant for it; blocks go there one after the other, each kept in memory until
//! the storage has it; at the end, good or bad, the hub is told, since it counts open uploads.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use steadfast_core::retry::Backoff;
use steadfast_core::{Failure, ProvisioningFailure, RetryPolicy, Service, Settings};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep;

use crate::device::Device;
use crate::http::{Answer, Request, Way};
use crate::setup::Setup;
use crate::shared::Shared;
use crate::{clock, tls};

mod hub;

use self::hub::{Grant, Home, Notice};

/// Blocks are this long unless the application says otherwise.
const BLOCK: usize = 1 << 20;

/// Longest block that the storage takes in every version of its interface that hubs give grants for.
const BLOCK_LONGEST: usize = 100 << 20;

/// Most blocks in a file (Azure Storage, `Put Block List`).
const BLOCKS: u32 = 50_000;

/// Longest name of a file in the storage (Azure Storage, naming of blobs).
const NAME_LONGEST: usize = 1024;

/// How long an upload goes on without any progress unless the application says otherwise.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Most uploads of a device that the hub allows at a time (azure-docs `iot-hub/iot-hub-devguide-file-upload.md`).
pub(crate) const AT_ONCE: usize = 10;

/// Grants in a row that the storage refuses before an upload is given up.
const REFUSED_GRANTS: u32 = 3;

impl Device {
    /// Begins to upload a file to the storage account of the device's hub, under this name in the device's folder. It
    /// runs when it is awaited.
    ///
    /// It takes the hub, the credential, the trust and the proxy of the device, and runs beside the link, whether that is
    /// up or not; a gateway is not used, since gateways do not pass files on. At most ten uploads of a device run at a
    /// time, as the hub allows; more wait for their turn.
    ///
    /// Outages are survived at the pace of the link's back-off: the storage keeps the blocks that it has, and a grant
    /// that has expired is replaced. Only when nothing has gone forward for
    /// [`give_up_after`](Upload::give_up_after) does it end.
    ///
    /// ```no_run
    /// # async fn example(device: steadfast::Device) -> Result<(), steadfast::UploadError> {
    /// use steadfast::UploadSource;
    ///
    /// let report = device.upload("logs/today.txt", UploadSource::file("/var/log/pump.log")).await?;
    /// println!("{} bytes", report.bytes);
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload(&self, name: &str, source: UploadSource) -> Upload {
        Upload {
            shared: Arc::clone(self.shared()),
            setup: Arc::clone(self.setup()),
            name: name.into(),
            source,
            block: BLOCK,
            patience: PATIENCE,
            progress: None,
        }
    }
}

/// Where the bytes of an upload come from.
pub struct UploadSource(Source);

enum Source {
    File(PathBuf),
    Bytes(Bytes),
    Reader(Pin<Box<dyn AsyncRead + Send>>),
}

impl UploadSource {
    /// Takes the bytes of a file. A file that grows is taken as far as it goes when its end is reached.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Takes bytes in memory.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Source::Bytes(Bytes::from(bytes.into())))
    }

    /// Takes what `reader` gives until its end. It cannot be read twice: when the device moves to another hub in the
    /// middle, or the storage loses blocks, the upload ends with [`UploadError::SourceSpent`].
    #[must_use]
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self(Source::Reader(Box::pin(reader)))
    }
}

impl fmt::Debug for UploadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => write!(f, "UploadSource({})", path.display()),
            Source::Bytes(bytes) => write!(f, "UploadSource({} bytes)", bytes.len()),
            Source::Reader(_) => f.write_str("UploadSource(reader)"),
        }
    }
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadProgress {
    /// Bytes that the storage has.
    pub bytes: u64,
    /// Blocks that the storage has.
    pub blocks: u32,
    /// Failures so far, each of which was followed by another try.
    pub failures: u32,
}

/// What an upload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadReport {
    /// The file's name in the storage, the device's folder included.
    pub blob: String,
    /// Its length.
    pub bytes: u64,
    /// In how many blocks it went.
    pub blocks: u32,
    /// Failures on the way, each of which was followed by another try.
    pub failures: u32,
}

type Listener = Box<dyn FnMut(UploadProgress) + Send>;

/// An upload that begins when it is awaited. Made by [`Device::upload`].
///
/// A future that is dropped before its end tells the hub, if it still can, that nothing comes.
#[must_use = "an upload begins when it is awaited"]
pub struct Upload {
    shared: Arc<Shared>,
    setup: Arc<Setup>,
    name: Box<str>,
    source: UploadSource,
    block: usize,
    patience: Duration,
    progress: Option<Listener>,
}

impl Upload {
    /// Sets how long a block is, 1 byte to 100 MiB: one is in memory at a time, and is sent again as a whole. A file has
    /// 50,000 blocks at most. Default 1 MiB.
    pub fn block_size(self, bytes: usize) -> Self {
        Self { block: bytes.clamp(1, BLOCK_LONGEST), ..self }
    }

    /// Sets after how long without any progress to give up. Default 1 h.
    pub fn give_up_after(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Tells `listener` after each block and each failure.
    pub fn on_progress(self, listener: impl FnMut(UploadProgress) + Send + 'static) -> Self {
        Self { progress: Some(Box::new(listener)), ..self }
    }

    async fn run(self) -> Result<UploadReport, UploadError> {
        if self.name.is_empty() || self.name.len() > NAME_LONGEST || self.name.chars().any(char::is_control) {
            return Err(UploadError::Name);
        }
        let Ok(_place) = Arc::clone(&self.setup.uploads).acquire_owned().await else {
            return Err(UploadError::GaveUp(String::from("the device is gone")));
        };
        let pace = Pace {
            policy: self.shared.lock().link.settings().config().retry,
            backoff: Backoff::new(clock::now()),
            patience: self.patience,
            since: tokio::time::Instant::now(),
        };
        let mut transfer = Transfer {
            shared: self.shared,
            setup: self.setup,
            name: self.name,
            source: self.source,
            open: None,
            block: self.block,
            pace,
            listener: self.progress,
            progress: UploadProgress::default(),
            place: None,
            waiting: None,
            refusals: 0,
            anew: false,
        };
        transfer.run().await
    }
}

impl IntoFuture for Upload {
    type Output = Result<UploadReport, UploadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("name", &self.name).field("source", &self.source).finish_non_exhaustive()
    }
}

/// The pace of tries.
struct Pace {
    policy: RetryPolicy,
    backoff: Backoff,
    patience: Duration,
    /// When something last went forward.
    since: tokio::time::Instant,
}

impl Pace {
    fn forward(&mut self) {
        self.backoff.reset(clock::now());
        self.since = tokio::time::Instant::now();
    }

    /// Waits before another try after `problem`, unless there were too many.
    async fn rest(&mut self, problem: &Problem) -> Result<(), UploadError> {
        let mut random = [0; 4];
        let drawn = tls::provider().secure_random.fill(&mut random);
        drawn.map_err(|_| UploadError::GaveUp(String::from("the operating system gave no randomness")))?;
        let word = u32::from_le_bytes(random);
        let delay = self.backoff.failed(problem.kind(), false, &self.policy, word, clock::now());
        if self.since.elapsed() + delay > self.patience {
            return Err(UploadError::GaveUp(problem.to_string()));
        }
        tracing::debug!(%problem, ?delay, "trying again");
        sleep(delay).await;
        Ok(())
    }
}

/// What another try may mend.
enum Problem {
    /// There was no answer.
    Silent(Failure),
    /// There was one, and it asks for patience.
    Busy(u16, Option<u32>),
}

impl Problem {
    const fn kind(&self) -> Failure {
        match *self {
            Self::Silent(failure) => failure,
            Self::Busy(status, retry_after_secs) => {
                Failure::Provisioning(ProvisioningFailure::Unavailable { status, retry_after_secs })
            }
        }
    }

    /// Whether `answer` asks for another try (RFC 9110, sections 15.5.9 and 15.6; RFC 6585, section 4).
    fn of(answer: &Answer) -> Option<Self> {
        let busy = matches!(answer.status, 408 | 429 | 500..=599);
        busy.then_some(Self::Busy(answer.status, answer.retry_after_secs))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(failure) => failure.fmt(f),
            Self::Busy(status, _) => write!(f, "the answer was {status}"),
        }
    }
}

/// How a try at the storage ended short of success.
enum Halt {
    /// The grant is of no more use.
    Expired(u16),
    Failed(UploadError),
}

impl From<UploadError> for Halt {
    fn from(error: UploadError) -> Self {
        Self::Failed(error)
    }
}

/// An upload under way.
struct Transfer {
    shared: Arc<Shared>,
    setup: Arc<Setup>,
    name: Box<str>,
    source: UploadSource,
    /// What is read from.
    open: Option<Pin<Box<dyn AsyncRead + Send>>>,
    block: usize,
    pace: Pace,
    listener: Option<Listener>,
    progress: UploadProgress,
    /// Where the blocks are.
    place: Option<String>,
    /// What was read and is not in the storage yet, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    /// Refusals of the device's credential in a row.
    refusals: u8,
    /// It began anew because the storage had dropped blocks.
    anew: bool,
}

impl Transfer {
    async fn run(&mut self) -> Result<UploadReport, UploadError> {
        let mut refused = 0;
        loop {
            let home = self.home().await?;
            let grant = self.initiate(&home).await?;
            let mut notice = Notice::new(Arc::clone(&self.setup), home, grant.correlation_id.clone());
            let before = self.progress.blocks;
            match self.store(&grant).await {
                Ok(()) => {
                    self.report_success(&mut notice).await?;
                    let UploadProgress { bytes, blocks, failures } = self.progress;
                    return Ok(UploadReport { blob: grant.blob, bytes, blocks, failures });
                }
                Err(Halt::Expired(status)) => {
                    notice.tell_failure(status).await;
                    refused = if self.progress.blocks > before { 0 } else { refused + 1 };
                    if refused >= REFUSED_GRANTS {
                        return Err(UploadError::Refused { step: UploadStep::Store, status, code: 0 });
                    }
                }
                Err(Halt::Failed(error)) => {
                    let status = if let UploadError::Refused { status, .. } = error { status } else { 500 };
                    notice.tell_failure(status).await;
                    return Err(error);
                }
            }
        }
    }

    /// Waits until the device has a hub, and returns who it is there.
    async fn home(&mut self) -> Result<Home, UploadError> {
        loop {
            {
                let inner = self.shared.lock();
                let config = inner.link.settings().config();
                let module_id = config.module_id.as_deref().map(str::to_owned);
                match (&config.service, inner.link.assignment()) {
                    (Service::Hub { host, device_id }, _) => {
                        return Ok(Home { hub: host.to_string(), device_id: device_id.to_string(), module_id });
                    }
                    (Service::Provisioned { .. }, Some(assignment)) => {
                        let (hub, device_id) = (assignment.hub().to_owned(), assignment.device_id().to_owned());
                        return Ok(Home { hub, device_id, module_id });
                    }
                    (Service::Provisioned { .. }, None) if inner.end.is_none() => {}
                    _ => return Err(UploadError::NoHub),
                }
            }
            if self.pace.since.elapsed() > self.pace.patience {
                return Err(UploadError::GaveUp(String::from("the device was assigned to no hub")));
            }
            sleep(self.pace.policy.floor).await;
        }
    }

    /// Asks the hub for a place.
    async fn initiate(&mut self, home: &Home) -> Result<Grant, UploadError> {
        loop {
            let problem = match home.initiate(&self.setup, self.refusals, &self.name).await {
                Err(failure) => Problem::Silent(failure),
                Ok(answer) if answer.status == 200 => {
                    self.refusals = 0;
                    self.pace.backoff.reset(clock::now());
                    return Grant::read(&answer.body).ok_or(UploadError::Answer);
                }
                Ok(answer) => match (Problem::of(&answer), answer.status, answer.code()) {
                    (Some(problem), ..) => problem,
                    // Too many uploads are open; each closes when its grant expires at the latest (azure-docs
                    // `iot-hub/iot-hub-devguide-file-upload.md`).
                    (None, 403, hub::TOO_MANY) => Problem::Busy(429, answer.retry_after_secs),
                    (None, 401, _) if self.refusals < 2 => {
                        self.refusals += 1;
                        Problem::Silent(Failure::Network)
                    }
                    (None, status, code) => {
                        return Err(UploadError::Refused { step: UploadStep::Initiate, status, code });
                    }
                },
            };
            self.failed(&problem).await?;
        }
    }

    /// Brings all blocks to the place of the grant and makes a file of them.
    async fn store(&mut self, grant: &Grant) -> Result<(), Halt> {
        let place = grant.place();
        if self.place.as_ref().is_some_and(|known| *known != place) && self.progress.blocks > 0 {
            self.begin_again()?;
        }
        self.place = Some(place);
        let mut way = Way::to(&grant.host).ok_or(UploadError::Answer)?;
        loop {
            let (block, last) = match self.waiting.take() {
                Some(read) => read,
                None => self.read().await?,
            };
            if last && self.progress.blocks == 0 {
                let request = Request::new(Method::PUT, grant.uri("")).header("x-ms-blob-type", "BlockBlob");
                self.put(&mut way, request, block, last).await?;
                return Ok(());
            }
            if !block.is_empty() {
                if self.progress.blocks >= BLOCKS {
                    return Err(UploadError::TooLong.into());
                }
                let id = block_id(self.progress.blocks);
                let request = Request::new(Method::PUT, grant.uri(&format!("comp=block&blockid={id}")));
                self.put(&mut way, request, block, last).await?;
            }
            if last {
                let ids = (0..self.progress.blocks).map(block_id);
                let list =
                    ids.fold(String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>"), |list, id| {
                        list + "<Latest>" + &id + "</Latest>"
                    }) + "</BlockList>";
                // If this try is cut short, the next one finds nothing left to read and begins here.
                self.waiting = Some((Bytes::new(), true));
                let request = Request::new(Method::PUT, grant.uri("comp=blocklist"));
                match self.try_put(&mut way, &request, &Bytes::from(list)).await {
                    // The storage has dropped blocks, as when another upload of this name was completed meanwhile.
                    Err(Halt::Failed(UploadError::Refused { status: 400, .. })) if !self.anew => {
                        self.anew = true;
                        self.begin_again()?;
                    }
                    result => return result,
                }
            }
        }
    }

    /// Puts a block; one that does not arrive stays for the next grant.
    async fn put(&mut self, way: &mut Way, request: Request, block: Bytes, last: bool) -> Result<(), Halt> {
        let result = self.try_put(way, &request, &block).await;
        if result.is_err() {
            self.waiting = Some((block, last));
            return result;
        }
        self.progress.bytes += u64::try_from(block.len()).unwrap_or(u64::MAX);
        self.progress.blocks += 1;
        self.tell();
        Ok(())
    }

    async fn try_put(&mut self, way: &mut Way, request: &Request, body: &Bytes) -> Result<(), Halt> {
        loop {
            let problem = match way.send(&self.setup, false, request, body).await {
                Err(failure) => Problem::Silent(failure),
                Ok(answer) if (200..300).contains(&answer.status) => {
                    self.pace.forward();
                    return Ok(());
                }
                Ok(answer) => match (Problem::of(&answer), answer.status) {
                    (Some(problem), _) => problem,
                    // A grant that has expired is refused so; a place that is gone is not found.
                    (None, 401 | 403 | 404) => return Err(Halt::Expired(answer.status)),
                    (None, status) => {
                        return Err(UploadError::Refused { step: UploadStep::Store, status, code: 0 }.into());
                    }
                },
            };
            self.failed(&problem).await?;
        }
    }

    /// Tells the hub of the success until it knows.
    async fn report_success(&mut self, notice: &mut Notice) -> Result<(), UploadError> {
        loop {
            let problem = match notice.tell(true, 200).await {
                Err(failure) => Problem::Silent(failure),
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(()),
                Ok(answer) => match (Problem::of(&answer), answer.status, answer.code()) {
                    (Some(problem), ..) => problem,
                    (None, 401, _) if notice.renew() => Problem::Silent(Failure::Network),
                    (None, status, code) => {
                        return Err(UploadError::Refused { step: UploadStep::Notify, status, code });
                    }
                },
            };
            self.failed(&problem).await?;
        }
    }

    async fn failed(&mut self, problem: &Problem) -> Result<(), UploadError> {
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.tell();
        self.pace.rest(problem).await
    }

    fn tell(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener(self.progress);
        }
    }

    /// Begins at the start of the source, for another place.
    fn begin_again(&mut self) -> Result<(), UploadError> {
        if matches!(self.source.0, Source::Reader(_)) {
            return Err(UploadError::SourceSpent);
        }
        self.open = None;
        self.waiting = None;
        self.progress.bytes = 0;
        self.progress.blocks = 0;
        Ok(())
    }

    /// Reads a block, and whether it is the last.
    async fn read(&mut self) -> Result<(Bytes, bool), UploadError> {
        let reader = match (&mut self.open, &mut self.source.0) {
            (Some(open), _) | (None, Source::Reader(open)) => open,
            (open @ None, Source::File(path)) => {
                let file = File::open(path).await.map_err(|error| UploadError::Source(error.to_string()))?;
                open.insert(Box::pin(file))
            }
            (open @ None, Source::Bytes(bytes)) => open.insert(Box::pin(std::io::Cursor::new(bytes.clone()))),
        };
        let longest = u64::try_from(self.block).unwrap_or(u64::MAX);
        let mut block = Vec::new();
        let read = reader.as_mut().take(longest).read_to_end(&mut block).await;
        read.map_err(|error| UploadError::Source(error.to_string()))?;
        let last = block.len() < self.block;
        Ok((Bytes::from(block), last))
    }
}

/// The id of a block: ids of a file have one length, and this one's digits need no escape in base64 or in a URI.
fn block_id(number: u32) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("{number:09}"))
}

/// What an upload was about when it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadStep {
    /// The hub was asked for a place.
    Initiate,
    /// The storage was given a block or the list of blocks.
    Store,
    /// The hub was told of the success; the file is in the storage.
    Notify,
}

/// Why an upload came to nothing. It holds neither token nor grant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadError {
    /// The name is empty, longer than 1,024 bytes, or has control characters in it.
    Name,
    /// A device at a plain broker has no hub, and a stopped one that was never assigned has none either.
    NoHub,
    /// The source cannot be read.
    Source(String),
    /// The source is longer than 50,000 blocks: make them longer.
    TooLong,
    /// The device has moved to another hub, or the storage has dropped blocks, and the source cannot be read again.
    SourceSpent,
    /// The hub's answer cannot be understood.
    Answer,
    /// The service refused.
    Refused {
        /// What it was about.
        step: UploadStep,
        /// HTTP status of the answer.
        status: u16,
        /// The hub's error code, such as 403006; 0 when there was none.
        code: u32,
    },
    /// Nothing went forward for too long; the text says what failed last.
    GaveUp(String),
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(f, "a file's name has 1 to {NAME_LONGEST} bytes and no control characters"),
            Self::NoHub => f.write_str("the device belongs to no hub, and only a hub takes files"),
            Self::Source(problem) => write!(f, "the source cannot be read: {problem}"),
            Self::TooLong => write!(f, "the source is longer than {BLOCKS} blocks; make them longer"),
            Self::SourceSpent => {
                f.write_str("the upload would have to begin anew, and the source cannot be read again")
            }
            Self::Answer => f.write_str("the hub's answer cannot be understood"),
            Self::Refused { step, status, code } => {
                let who = match step {
                    UploadStep::Initiate => "the hub refused the upload",
                    UploadStep::Store => "the storage refused the upload",
                    UploadStep::Notify => "the file is in the storage, but the hub refused to take note of it",
                };
                write!(f, "{who}: status {status}, error code {code}")
            }
            Self::GaveUp(problem) => write!(f, "nothing went forward for too long; at last {problem}"),
        }
    }
}

impl std::error::Error for UploadError {}
