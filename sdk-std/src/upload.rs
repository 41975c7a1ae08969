//! Uploads of files to the storage that the hub names.
//!
//! The rules are the core's ([`steadfast_core::upload`]); this reads the source, makes the requests and waits.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use steadfast_core::upload::{self as core_upload, BLOCK_MAX, BLOCKS_MAX, NAME_MAX, Options};
use tokio::io::AsyncRead;

use crate::connector::Setup;
use crate::device::Device;
use crate::shared::Shared;

mod transfer;

use self::transfer::{Guard, Transfer};

pub use steadfast_core::upload::{Progress as UploadProgress, Stage as UploadStep};

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
            options: Options::DEFAULT,
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
    options: Options,
    progress: Option<Listener>,
}

impl Upload {
    /// Sets how long a block is, 1 byte to 100 MiB: one is in memory at a time, and is sent again as a whole. A file has
    /// 50,000 blocks at most. Default 1 MiB.
    pub fn block_size(mut self, bytes: usize) -> Self {
        self.options.block_len = bytes.clamp(1, BLOCK_MAX);
        self
    }

    /// Sets after how long without any progress to give up. Default 1 h. A wait that would end later than that is not
    /// begun: a hub or storage that is overloaded has tries a minute apart, and less patience than that ends at the first.
    pub fn give_up_after(mut self, patience: Duration) -> Self {
        self.options.give_up_after = patience;
        self
    }

    /// Tells `listener` after each block and each failure.
    pub fn on_progress(self, listener: impl FnMut(UploadProgress) + Send + 'static) -> Self {
        Self { progress: Some(Box::new(listener)), ..self }
    }

    async fn run(self) -> Result<UploadReport, UploadError> {
        core_upload::check_name(&self.name).map_err(|error| UploadError::of(error, None))?;
        let Ok(_place) = Arc::clone(&self.setup.uploads).acquire_owned().await else {
            return Err(UploadError::GaveUp(String::from("the device is gone")));
        };
        let mut guard = Guard::new(Transfer::new(self)?);
        guard.run().await
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

impl UploadError {
    /// Names what the core says; `source` is what failed about the source, if it was that.
    fn of(error: core_upload::UploadError, source: Option<String>) -> Self {
        match error {
            core_upload::UploadError::Name => Self::Name,
            core_upload::UploadError::NoHub => Self::NoHub,
            core_upload::UploadError::Source => Self::Source(source.unwrap_or_default()),
            core_upload::UploadError::TooLong => Self::TooLong,
            core_upload::UploadError::SourceSpent => Self::SourceSpent,
            core_upload::UploadError::Refused { stage, status, code } => Self::Refused { step: stage, status, code },
            core_upload::UploadError::GaveUp(obstacle) => Self::GaveUp(obstacle.to_string()),
            // The memory holds every grant that fits an answer, and nobody cancels an upload that is awaited.
            core_upload::UploadError::Answer
            | core_upload::UploadError::NoRoom { .. }
            | core_upload::UploadError::Cancelled
            | _ => Self::Answer,
        }
    }
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(f, "a file's name has 1 to {NAME_MAX} bytes and no control characters"),
            Self::NoHub => f.write_str("the device belongs to no hub, and only a hub takes files"),
            Self::Source(problem) => write!(f, "the source cannot be read: {problem}"),
            Self::TooLong => write!(f, "the source is longer than {BLOCKS_MAX} blocks; make them longer"),
            Self::SourceSpent => {
                f.write_str("the upload would have to begin anew, and the source cannot be read again")
            }
            Self::Answer => f.write_str("the hub's answer cannot be understood"),
            Self::Refused { step, status, code } => {
                core_upload::UploadError::Refused { stage: *step, status: *status, code: *code }.fmt(f)
            }
            Self::GaveUp(problem) => write!(f, "nothing went forward for too long; at last {problem}"),
        }
    }
}

impl std::error::Error for UploadError {}
