//! Uploads of files to the storage that the hub names.
//!
//! [`steadfast_core::upload`] has the rules; this module reads the source, makes the requests and waits.

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
    /// It uses the device's hub, credential, trusted roots and proxy, and runs independently of the link, whether that
    /// is up or not. It bypasses a gateway, since gateways do not forward files. At most ten uploads of a device run at
    /// a time, the hub's limit; further ones wait.
    ///
    /// It retries through outages with the link's back-off: the storage keeps the blocks it has, and an expired SAS URI
    /// is replaced. It gives up only after [`give_up_after`](Upload::give_up_after) without progress.
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

/// The source of an upload's bytes.
pub struct UploadSource(Source);

enum Source {
    File(PathBuf),
    Bytes(Bytes),
    Reader(Pin<Box<dyn AsyncRead + Send>>),
}

impl UploadSource {
    /// Uploads a file. If the file grows meanwhile, the upload ends where the file ends when that is reached.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Uploads bytes in memory.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Source::Bytes(Bytes::from(bytes.into())))
    }

    /// Uploads everything that `reader` returns. It cannot be read twice: if the device moves to another hub during the
    /// upload, or the storage loses blocks, the upload ends with [`UploadError::SourceSpent`].
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

/// The result of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadReport {
    /// The file's name in the storage, the device's folder included.
    pub blob: String,
    /// Its length.
    pub bytes: u64,
    /// In how many blocks it went.
    pub blocks: u32,
    /// The number of failures, each followed by a retry.
    pub failures: u32,
}

type Listener = Box<dyn FnMut(UploadProgress) + Send>;

/// An upload that starts when it is awaited. Made by [`Device::upload`].
///
/// If the future is dropped early, the hub is notified of the failed upload, if possible.
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

    /// Sets the time without progress after which the upload gives up. Default 1 h. A wait that would exceed it is not
    /// started: retries of an overloaded hub or storage are a minute apart, so with a shorter time the first overload
    /// ends the upload.
    pub fn give_up_after(mut self, patience: Duration) -> Self {
        self.options.give_up_after = patience;
        self
    }

    /// Calls `listener` after each block and each failure.
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

/// Why an upload failed. It contains neither token nor SAS URI.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadError {
    /// The name is empty, longer than 1,024 bytes, or has control characters in it.
    Name,
    /// The device has no hub: it uses a plain broker, or was stopped before it was assigned.
    NoHub,
    /// The source cannot be read.
    Source(String),
    /// The source has more than 50,000 blocks: use larger blocks.
    TooLong,
    /// The device has moved to another hub, or the storage has dropped blocks, and the source cannot be read again.
    SourceSpent,
    /// The hub's answer cannot be parsed.
    Answer,
    /// The service refused.
    Refused {
        /// The request that it refused.
        step: UploadStep,
        /// HTTP status of the answer.
        status: u16,
        /// The hub's error code, such as 403006; 0 when there was none.
        code: u32,
    },
    /// There was no progress for too long; the text has the latest failure.
    GaveUp(String),
}

impl UploadError {
    /// Converts the core's error; `source` is the error of the source, if it failed.
    fn of(error: core_upload::UploadError, source: Option<String>) -> Self {
        match error {
            core_upload::UploadError::Name => Self::Name,
            core_upload::UploadError::NoHub => Self::NoHub,
            core_upload::UploadError::Source => Self::Source(source.unwrap_or_default()),
            core_upload::UploadError::TooLong => Self::TooLong,
            core_upload::UploadError::SourceSpent => Self::SourceSpent,
            core_upload::UploadError::Refused { stage, status, code } => Self::Refused { step: stage, status, code },
            core_upload::UploadError::GaveUp(obstacle) => Self::GaveUp(obstacle.to_string()),
            // The buffer holds every SAS URI that fits an answer, and an upload that is awaited is not cancelled.
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
            Self::NoHub => f.write_str("the device has no hub, and only a hub accepts files"),
            Self::Source(problem) => write!(f, "the source cannot be read: {problem}"),
            Self::TooLong => write!(f, "the source has more than {BLOCKS_MAX} blocks; use larger blocks"),
            Self::SourceSpent => f.write_str("the upload must start again, but the source cannot be read twice"),
            Self::Answer => f.write_str("the hub's answer cannot be parsed"),
            Self::Refused { step, status, code } => {
                core_upload::UploadError::Refused { stage: *step, status: *status, code: *code }.fmt(f)
            }
            Self::GaveUp(problem) => write!(f, "no progress for too long; latest failure: {problem}"),
        }
    }
}

impl std::error::Error for UploadError {}
