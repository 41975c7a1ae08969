//! Uploads of files to the storage account that a hub names.
//!
//! The hub returns a short-lived SAS URI; blocks are uploaded there one after the other; at the end, on success and
//! failure, the hub gets an upload notification, since it counts open uploads. [`Upload`] is one upload as a state
//! machine without I/O: it returns the next request ([`Output::Request`]) or the next part of the file to read
//! ([`Output::Read`]), and takes the result ([`Input`]). It is independent of the [`Link`], whether that is up or not,
//! and needs from it only the name of the hub.
//!
//! | Situation | Reaction |
//! |---|---|
//! | no answer, or 408, 429, 5xx | the same request again, with the delays of the [back-off](crate::retry) |
//! | an answer with retry-after | the same, not before that time |
//! | the hub has too many uploads of the device open (403006) | as 429: each of them ends with its SAS URI at the latest |
//! | the hub refuses the credential (401) | another credential, twice at most |
//! | the storage refuses the SAS URI (401, 403, 404) | notifies the hub, and requests a new SAS URI; stored blocks are kept |
//! | three SAS URIs in a row are refused | ends |
//! | the new SAS URI is for another blob, or the device moved to another hub | starts again at the start of the file there |
//! | the storage has dropped blocks (400 for their list) | begins at the start of the file, once |
//! | the hub rejects the notification of success (400, 404) | requests one more SAS URI for the same blob and notifies again |
//! | the device reboots | continues from a stored [`Checkpoint`], without one at the start of the file |
//! | no progress for [`Options::give_up_after`] | notifies the hub, and ends |
//!
//! The frontend's loop around it:
//!
//! ```
//! use core::time::Duration;
//! use steadfast_core::upload::{Input, Options, Output, Upload};
//! use steadfast_core::{Instant, RetryPolicy, Seed};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let file = b"21.5\n21.6\n";
//! let policy = RetryPolicy::DEFAULT;
//! let mut upload = Upload::new("today.txt", Options::DEFAULT, policy, Seed::from_number(7), [0; 1024], Instant::ORIGIN)?;
//! let mut told = Vec::new();
//! let report = loop {
//!     let now = Instant::ORIGIN; // of the frontend's clock
//!     let input = match upload.poll_output() {
//!         Output::Home => Input::Home { hub: "hub.example", device_id: "pump-7" },
//!         // The block is kept until the next `Read`.
//!         Output::Read { offset, len } => Input::Read { len: file.len().min(len) },
//!         Output::Request(request) => {
//!             told.push(format!("{} {}", request.method.as_str(), request.body.len()));
//!             let hub = request.identity.is_some();
//!             let status = if hub { 200 } else { 201 };
//!             let body: &[u8] = if told.len() > 1 { b"" } else {
//!                 br#"{"correlationId":"c","hostName":"s.example","containerName":"f","blobName":"pump-7/today.txt","sasToken":"?sig=x"}"#
//!             };
//!             Input::Answer { attempt: request.attempt, status, retry_after_secs: None, body }
//!         }
//!         Output::Wait(_at) => { upload.handle_timeout(now); continue }
//!         Output::Progress(_progress) => continue,
//!         Output::Done(result) => break result?,
//!         _ => continue,
//!     };
//!     upload.handle_input(input, now);
//! };
//! assert_eq!((report.bytes, upload.blob()), (10, "pump-7/today.txt"));
//! assert_eq!(told, ["POST 24", "PUT 10", "POST 84"]);
//! # Ok(())
//! # }
//! ```
//!
//! Sources: azure-docs `iot-hub/iot-hub-devguide-file-upload.md` for the hub; Azure Storage REST, *Put Blob*, *Put Block* and
//! *Put Block List* for the storage.

use core::fmt;
use core::time::Duration;

use crate::failure::Failure;
use crate::io::Attempt;
use crate::iothub::{HubProfile, Residence};
use crate::link::Link;
use crate::outbox::Outbox;
use crate::time::Instant;

mod checkpoint;
mod document;
mod machine;
mod request;
mod sas_uri;

pub use checkpoint::Checkpoint;
pub use document::Document;
pub use machine::Upload;
pub use request::{Body, Identity, Method, Request, Uri};

/// Longest block in every version of the storage's interface that hubs use, in bytes (Azure Storage, *Put Block*: 100
/// MiB from version 2016-05-31 on).
pub const BLOCK_MAX: usize = 100 << 20;

/// Limit of blocks per file (Azure Storage, *Put Block List*).
pub const BLOCKS_MAX: u32 = 50_000;

/// Longest name of a file, in bytes (Azure Storage, *Naming containers, blobs and metadata*: 1,024 characters).
pub const NAME_MAX: usize = 1024;

/// Most uploads of a device that a hub allows at a time (azure-docs `iot-hub/iot-hub-devguide-file-upload.md`).
pub const AT_ONCE_MAX: usize = 10;

/// Error code of a hub that has as many open uploads of the device as it allows.
pub const TOO_MANY_OPEN: u32 = 403_006;

/// How to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long a block is, in bytes, 1 to [`BLOCK_MAX`]; other values count as the nearest of these. A block is sent again
    /// as a whole, and a file has [`BLOCKS_MAX`] of them at most. Default 1 MiB.
    pub block_len: usize,
    /// How long to go on without any progress. Default 1 h.
    pub give_up_after: Duration,
    /// Whether the file can be read again from its start, for an [`Output::Read`] with offset 0. Default true.
    pub rereadable: bool,
}

impl Options {
    /// The default options.
    pub const DEFAULT: Self = Self { block_len: 1 << 20, give_up_after: Duration::from_secs(3600), rereadable: true };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A frontend's input to an [`Upload`].
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Answers [`Output::Home`]: the device's assigned hub, and its id there.
    Home {
        /// Host name of the hub.
        hub: &'a str,
        /// Device id.
        device_id: &'a str,
    },
    /// Answers [`Output::Home`]: the device has no hub yet. The upload repeats the query after once to twice
    /// [`RetryPolicy::min_delay`](crate::RetryPolicy::min_delay).
    Unassigned,
    /// Answers [`Output::Home`]: the device never has a hub, such as at a plain broker.
    NoHub,
    /// Answers [`Output::Read`]: this many bytes were read. Fewer than requested mean the end of the file.
    Read {
        /// Length in bytes, limited to the requested length.
        len: usize,
    },
    /// Answers [`Output::Request`]: the service answered.
    Answer {
        /// The request's.
        attempt: Attempt,
        /// HTTP status.
        status: u16,
        /// The header Retry-After, parsed by [`retry_after_secs`].
        retry_after_secs: Option<u32>,
        /// The body of a hub's answer; not used for the storage. A truncated one counts as unparseable.
        body: &'a [u8],
    },
    /// Answers [`Output::Request`]: there was no answer, or no request, because the device could not sign.
    Failed {
        /// The request's.
        attempt: Attempt,
        /// Why; it decides how long to wait.
        failure: Failure,
    },
}

/// The next step.
///
/// [`Upload::poll_output`] returns the same one again until it is answered.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// Return the assigned hub: [`Input::Home`], [`Input::Unassigned`] or [`Input::NoHub`].
    Home,
    /// Read a block of the file into memory and keep it there until the next one: [`Input::Read`], or [`Upload::fail`] with
    /// [`UploadError::Source`].
    Read {
        /// Its offset: the end of the previous block, or 0 for the start of the file.
        offset: u64,
        /// Its length in bytes; shorter at the end of the file, where it may be empty.
        len: usize,
    },
    /// Make a request and wait for its answer: [`Input::Answer`] or [`Input::Failed`].
    Request(Request<'a>),
    /// Progress or a failure, reported once.
    Progress(Progress),
    /// Nothing until this time, then [`Upload::handle_timeout`].
    Wait(Instant),
    /// The upload is over.
    Done(Result<Report, UploadError>),
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that the storage has.
    pub bytes: u64,
    /// Blocks that the storage has.
    pub blocks: u32,
    /// Failures so far, each of which was followed by another try.
    pub failures: u32,
}

/// The result of an upload; [`Upload::blob`] has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The file's length.
    pub bytes: u64,
    /// In how many blocks it went.
    pub blocks: u32,
    /// The number of failures, each followed by a retry.
    pub failures: u32,
}

/// The request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The SAS URI request to the hub.
    Initiate,
    /// The storage was given a block or the list of blocks.
    Store,
    /// The notification of success to the hub; the file is in the storage.
    Notify,
}

/// The latest failure of an upload that gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// The device was assigned to no hub.
    Unassigned,
    /// There was no answer.
    Silent(Failure),
    /// The answer was this HTTP status.
    Busy(u16),
    /// The hub has as many uploads of the device open as it allows.
    TooManyOpen,
    /// The hub refused the credential, and there was no time for another.
    Unauthorized,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unassigned => f.write_str("the device was assigned to no hub"),
            Self::Silent(failure) => failure.fmt(f),
            Self::Busy(status) => write!(f, "the answer was {status}"),
            Self::TooManyOpen => f.write_str("the hub has too many uploads of the device open"),
            Self::Unauthorized => f.write_str("the hub refused the credential"),
        }
    }
}

/// Why an upload failed. It contains neither token nor SAS URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadError {
    /// The name is empty, longer than [`NAME_MAX`], or has control characters in it.
    Name,
    /// The device has no hub: it uses a plain broker, or was stopped before it was assigned.
    NoHub,
    /// The file cannot be read.
    Source,
    /// The file has more than [`BLOCKS_MAX`] blocks: use larger blocks.
    TooLong,
    /// The device has moved to another hub, or the storage has dropped blocks, and the file cannot be read again.
    SourceSpent,
    /// The hub's answer cannot be parsed.
    Answer,
    /// A buffer of the upload is too short for the SAS URI, a request or an answer.
    NoRoom {
        /// The needed length in bytes; one more than available if the exact length is unknown.
        needed: usize,
        /// The available length.
        room: usize,
    },
    /// The service refused.
    Refused {
        /// The request that was refused.
        stage: Stage,
        /// HTTP status of the answer.
        status: u16,
        /// The hub's error code, such as 403006; 0 if there was none.
        code: u32,
    },
    /// No progress for [`Options::give_up_after`].
    GaveUp(Obstacle),
    /// [`Upload::cancel`] was called.
    Cancelled,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => {
                write!(f, "the name of a file has 1 to {NAME_MAX} bytes and no control characters")
            }
            Self::NoHub => f.write_str("the device has no hub"),
            Self::Source => f.write_str("the file cannot be read"),
            Self::TooLong => write!(f, "the file has more than {BLOCKS_MAX} blocks; use larger blocks"),
            Self::SourceSpent => f.write_str("the upload must start again, but the file cannot be read twice"),
            Self::Answer => f.write_str("the hub's answer cannot be parsed"),
            Self::NoRoom { needed, room } => {
                write!(f, "the upload needs {needed} bytes; its buffer has {room}")
            }
            Self::Refused { stage, status, code } => {
                let who = match stage {
                    Stage::Initiate => "the hub refused the upload",
                    Stage::Store => "the storage refused the upload",
                    Stage::Notify => "the file is in the storage, but the hub rejected the upload notification",
                };
                write!(f, "{who}: status {status}, error code {code}")
            }
            Self::GaveUp(obstacle) => write!(f, "no progress for too long; latest failure: {obstacle}"),
            Self::Cancelled => f.write_str("the upload was cancelled"),
        }
    }
}

impl core::error::Error for UploadError {}

/// Returns the assigned hub of `link`, as the answer to [`Output::Home`]. A link that was stopped before it had a hub
/// counts as unassigned.
pub fn home<O: Outbox, P: HubProfile>(link: &Link<O, P>) -> Input<'_> {
    match link.profile().residence() {
        Residence::Hub { hub, device_id } => Input::Home { hub, device_id },
        Residence::Unassigned => Input::Unassigned,
        Residence::NoHub => Input::NoHub,
    }
}

/// Checks the name of a file.
///
/// # Errors
/// [`UploadError::Name`] for one that is empty, longer than [`NAME_MAX`] or has control characters in it.
pub fn check_name(name: &str) -> Result<(), UploadError> {
    let bad = name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control);
    if bad { Err(UploadError::Name) } else { Ok(()) }
}

/// Parses the header Retry-After in seconds; a date is ignored (RFC 9110, section 10.2.3).
#[must_use]
pub fn retry_after_secs(value: &str) -> Option<u32> {
    value.trim_ascii().parse().ok()
}
