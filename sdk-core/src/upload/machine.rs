//! The rules of one upload.

use core::fmt;

mod notification;

use self::notification::Notification;
use super::document::{Content, Document};
use super::request::{Body, Identity, Method, Piece, Request, Target, Uri};
use super::sas_uri::{Field, SasUri, error_code};
use super::{
    BLOCK_MAX, BLOCKS_MAX, Checkpoint, Input, Obstacle, Options, Output, Progress, Report, Stage, TOO_MANY_OPEN,
    UploadError, check_name,
};
use crate::failure::{Failure, ProvisioningFailure};
use crate::io::{Assignment, Attempt};
use crate::retry::{Backoff, RetryPolicy};
use crate::rng::{Rng, Seed};
use crate::time::{Instant, short_millis};

/// SAS URIs in a row that the storage may refuse before the upload gives up.
const REFUSED_GRANTS: u8 = 3;

/// Other credentials that are tried after a refusal.
const RENEWALS: u8 = 2;

/// The status that servers log for a client that has disconnected.
const CLIENT_GONE: u16 = 499;

/// The status in the notification of a failure without an answer.
const NO_STATUS: u16 = 500;

/// One upload; see the [module](super).
///
/// `name` is the file's name in the device's folder. `memory` stores the SAS URI: the name with the device's id, the
/// hub's correlation id and the query with the signature, some 600 bytes for a short name. It is zeroed afterwards.
///
/// # The driving contract
/// After each call, [`poll_output`](Self::poll_output) returns the next step; it never blocks. Inputs may arrive in any
/// order: one without a matching request, such as of an older [`Attempt`], has no effect.
pub struct Upload<N, M: AsRef<[u8]> + AsMut<[u8]>> {
    name: N,
    options: Options,
    policy: RetryPolicy,
    backoff: Backoff,
    rng: Rng,
    /// When something last went forward.
    since: Instant,
    step: Step,
    /// No step before this time.
    wait: Option<Instant>,
    attempt: Attempt,
    /// The hub of the latest SAS URI.
    home: Option<Assignment>,
    grant: SasUri<M>,
    /// The blob of the blocks.
    place: Option<u64>,
    /// The block that was read and is not in the storage yet.
    held: Option<Held>,
    progress: Progress,
    told: bool,
    /// The most blocks the storage had when it refused a SAS URI: after a restart only more blocks count as progress.
    before: u32,
    refused_grants: u8,
    /// Refusals of the credential in a row, of the SAS URI request and of the notification.
    refusals: u8,
    notice_refusals: u8,
    /// It started again because the storage had dropped blocks.
    anew: bool,
    /// The file is complete in the storage.
    stored: bool,
    /// A further SAS URI was requested only for the notification of the success.
    told_anew: bool,
    untold: u32,
}

#[derive(Clone, Copy)]
struct Held {
    len: usize,
    last: bool,
}

/// The next step.
#[derive(Clone, Copy)]
enum Step {
    /// Finds the device's assigned hub, and requests a SAS URI there.
    Home,
    /// Checks whether the device is still assigned to the hub that rejected the upload notification.
    Moved(Option<UploadError>),
    Initiate,
    Read,
    /// Uploads the block that was read.
    Put(Piece),
    Notify,
    Notification(Notification),
    Done(Result<Report, UploadError>),
}

impl<N: AsRef<str>, M: AsRef<[u8]> + AsMut<[u8]>> Upload<N, M> {
    /// Begins an upload. The seed must differ from device to device and from upload to upload, so that waits do.
    ///
    /// # Errors
    /// [`UploadError::Name`].
    pub fn new(
        name: N,
        options: Options,
        policy: RetryPolicy,
        seed: Seed,
        memory: M,
        now: Instant,
    ) -> Result<Self, UploadError> {
        check_name(name.as_ref())?;
        let rng = Rng::new(seed, name.as_ref());
        Ok(Self {
            name,
            options: Options { block_len: options.block_len.clamp(1, BLOCK_MAX), ..options },
            policy,
            backoff: Backoff::new(now),
            rng,
            since: now,
            step: Step::Home,
            wait: None,
            attempt: Attempt::default().next(),
            home: None,
            grant: SasUri::new(memory),
            place: None,
            held: None,
            progress: Progress::default(),
            told: true,
            before: 0,
            refused_grants: 0,
            refusals: 0,
            notice_refusals: 0,
            anew: false,
            stored: false,
            told_anew: false,
            untold: 0,
        })
    }

    /// Returns the next step.
    pub fn poll_output(&mut self) -> Output<'_> {
        if !self.told {
            self.told = true;
            return Output::Progress(self.progress);
        }
        if let Some(at) = self.wait {
            return Output::Wait(at);
        }
        match self.step {
            Step::Home | Step::Moved(_) => Output::Home,
            Step::Read => Output::Read { offset: self.progress.bytes, len: self.options.block_len },
            Step::Initiate => {
                self.to_hub(|device_id| Target::Initiate { device_id }, Content::Initiate(self.name.as_ref()))
            }
            Step::Notify => self.notice(true, 200),
            Step::Notification(Notification { success, status, .. }) => self.notice(success, status),
            Step::Put(part) => {
                let [host, container, blob, token] =
                    [Field::Host, Field::Container, Field::Blob, Field::Token].map(|field| self.grant.get(field));
                let body = match part {
                    Piece::List => Body::Document(Document(Content::List(self.progress.blocks))),
                    Piece::Whole | Piece::Block(_) => Body::Block { len: self.held.map_or(0, |held| held.len) },
                };
                Output::Request(Request {
                    attempt: self.attempt,
                    method: Method::Put,
                    host,
                    uri: Uri(Target::Storage { container, blob, token, part }),
                    identity: None,
                    body,
                })
            }
            Step::Done(result) => Output::Done(result),
        }
    }

    fn notice(&self, success: bool, status: u16) -> Output<'_> {
        let correlation_id = self.grant.get(Field::CorrelationId);
        self.to_hub(|device_id| Target::Notify { device_id }, Content::Notice { correlation_id, success, status })
    }

    fn to_hub<'a>(&'a self, target: impl FnOnce(&'a str) -> Target<'a>, content: Content<'a>) -> Output<'a> {
        let (hub, device_id) = self.home.as_ref().map_or(("", ""), |home| (home.hub(), home.device_id()));
        let refusals = if matches!(self.step, Step::Initiate) { self.refusals } else { self.notice_refusals };
        Output::Request(Request {
            attempt: self.attempt,
            method: Method::Post,
            host: hub,
            uri: Uri(target(device_id)),
            identity: Some(Identity { hub, device_id, refusals }),
            body: Body::Document(Document(content)),
        })
    }

    /// Passes the result of an output to the upload.
    pub fn handle_input(&mut self, input: Input<'_>, now: Instant) {
        if self.wait.is_some() {
            return;
        }
        match (input, self.step) {
            (Input::Home { hub, device_id }, Step::Home) => match Assignment::new(hub, device_id) {
                Ok(home) => {
                    if self.home.as_ref().is_none_or(|before| before.hub() != hub) {
                        self.before = 0;
                    }
                    self.home = Some(home);
                    self.step = Step::Initiate;
                }
                Err(_) => self.end(Err(UploadError::NoHub)),
            },
            (Input::Unassigned, Step::Home) => {
                if now.since(self.since) > self.options.give_up_after {
                    self.end(Err(UploadError::GaveUp(Obstacle::Unassigned)));
                } else {
                    let least = short_millis(self.policy.min_delay);
                    let pause = self.rng.between(least, least.saturating_mul(2));
                    self.wait = Some(now.after_millis(pause));
                }
            }
            (Input::NoHub, Step::Home) => self.end(Err(UploadError::NoHub)),
            (Input::Home { hub, device_id }, Step::Moved(refusal)) => {
                let same = self.home.as_ref().is_some_and(|home| home.hub() == hub && home.device_id() == device_id);
                if same { self.stay(refusal) } else { self.follow(refusal) }
            }
            (Input::Unassigned | Input::NoHub, Step::Moved(refusal)) => self.stay(refusal),
            (Input::Read { len }, Step::Read) => {
                let len = len.min(self.options.block_len);
                self.hold(Held { len, last: len < self.options.block_len }, now);
            }
            (Input::Answer { attempt, status, retry_after_secs, body }, step) if attempt == self.attempt => {
                self.attempt = attempt.next();
                match step {
                    Step::Initiate => self.initiated(status, retry_after_secs, body, now),
                    Step::Put(part) => self.put(part, status, retry_after_secs, now),
                    Step::Notify => self.notified(status, retry_after_secs, body, now),
                    Step::Notification(notification) => self.parted(notification, Some(status), now),
                    Step::Home | Step::Moved(_) | Step::Read | Step::Done(_) => {}
                }
            }
            (Input::Failed { attempt, failure }, step) if attempt == self.attempt => {
                self.attempt = attempt.next();
                match step {
                    Step::Initiate | Step::Put(_) | Step::Notify => self.failed(Obstacle::Silent(failure), None, now),
                    Step::Notification(notification) => self.parted(notification, None, now),
                    Step::Home | Step::Moved(_) | Step::Read | Step::Done(_) => {}
                }
            }
            _ => {}
        }
    }

    /// Continues the upload after a wait; harmless if early.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.wait.is_some_and(|at| at <= now) {
            self.wait = None;
        }
    }

    /// Ends the upload with `error` after notifying the hub, such as [`UploadError::Source`] for a file that cannot be
    /// read. Without effect on an upload that has ended or whose file is in the storage.
    pub fn fail(&mut self, error: UploadError, now: Instant) {
        match self.step {
            Step::Home | Step::Initiate | Step::Read | Step::Put(_) => {
                let status = if let UploadError::Refused { status, .. } = error { status } else { NO_STATUS };
                self.part(false, status, Some(error), now);
            }
            Step::Notification(_) | Step::Moved(_) | Step::Notify | Step::Done(_) => {}
        }
    }

    /// Ends the upload with [`UploadError::Cancelled`] after notifying the hub, which takes at most three requests.
    /// Without effect on an upload that has ended.
    pub fn cancel(&mut self, now: Instant) {
        let error = Some(UploadError::Cancelled);
        match self.step {
            Step::Home | Step::Initiate | Step::Read | Step::Put(_) => self.part(false, CLIENT_GONE, error, now),
            // The file is in the storage.
            Step::Notify | Step::Moved(_) => self.part(true, 200, error, now),
            Step::Notification(notification) => {
                let end = notification.end.or(error);
                self.step = Step::Notification(Notification { end, ..notification });
            }
            Step::Done(_) => {}
        }
    }

    /// Returns the checkpoint from which a later upload of the same file can continue, once the storage has a whole
    /// block.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let block_len = u32::try_from(self.options.block_len).ok()?;
        let Progress { bytes, blocks, .. } = self.progress;
        // The last block may be short, and must be read again to find the end of the file.
        let short = bytes < u64::from(blocks).saturating_mul(u64::from(block_len));
        let blocks = blocks.saturating_sub(u32::from(short));
        if blocks == 0 { None } else { Some(Checkpoint { place: self.place?, blocks, block_len }) }
    }

    /// Continues an upload of the same file under the same name from before a reboot. The caller must ensure that it is
    /// the same file: the part before the checkpoint is not read again unless the upload must start again.
    ///
    /// Returns false, and begins at the start, when the checkpoint is of another length of blocks, the file cannot be read
    /// again, or the upload has begun.
    pub fn resume(&mut self, checkpoint: Checkpoint) -> bool {
        let Checkpoint { place, blocks, block_len } = checkpoint;
        let fits = usize::try_from(block_len) == Ok(self.options.block_len) && (1..=BLOCKS_MAX).contains(&blocks);
        if self.home.is_some() || !self.options.rereadable || !fits {
            return false;
        }
        self.place = Some(place);
        self.progress.blocks = blocks;
        self.progress.bytes = u64::from(blocks).saturating_mul(u64::from(block_len));
        true
    }

    /// Returns how far the upload is.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// Returns the file's name in the storage, including the device's folder; empty without a SAS URI.
    #[must_use]
    pub fn blob(&self) -> &str {
        self.grant.get(Field::Blob)
    }

    /// Returns the number of uploads that the hub counts as open until their SAS URI expires, because a notification
    /// failed.
    #[must_use]
    pub const fn untold(&self) -> u32 {
        self.untold
    }

    /// Takes the hub's answer to the SAS URI request.
    fn initiated(&mut self, status: u16, retry_after_secs: Option<u32>, body: &[u8], now: Instant) {
        // At the hub that is assigned then.
        self.step = Step::Home;
        if status == 200 {
            self.refusals = 0;
            self.backoff.reset(now);
            self.take_grant(body, now);
            return;
        }
        let code = error_code(body);
        if is_busy(status) {
            self.failed(Obstacle::Busy(status), retry_after_secs, now);
        } else if status == 403 && code == TOO_MANY_OPEN {
            self.failed(Obstacle::TooManyOpen, retry_after_secs, now);
        } else if status == 401 && self.refusals < RENEWALS {
            self.refusals = self.refusals.saturating_add(1);
            self.failed(Obstacle::Unauthorized, None, now);
        } else {
            self.end(Err(UploadError::Refused { stage: Stage::Initiate, status, code }));
        }
    }

    fn take_grant(&mut self, body: &[u8], now: Instant) {
        self.notice_refusals = 0;
        if let Err(error) = self.grant.read(body) {
            self.part(false, NO_STATUS, Some(error), now);
            return;
        }
        let place = Some(self.grant.place());
        let moved = self.place.is_some() && self.place != place && self.progress.blocks > 0;
        self.place = place;
        if moved && !self.begin_again(now) {
            return;
        }
        match self.held {
            _ if self.stored => self.step = Step::Notify,
            Some(held) => self.hold(held, now),
            None => self.step = Step::Read,
        }
    }

    /// Takes a block that was read.
    fn hold(&mut self, held: Held, now: Instant) {
        self.held = Some(held);
        self.step = match (held, self.progress.blocks) {
            (Held { last: true, .. }, 0) => Step::Put(Piece::Whole),
            (Held { len: 0, .. }, _) => Step::Put(Piece::List),
            (_, BLOCKS_MAX..) => return self.part(false, NO_STATUS, Some(UploadError::TooLong), now),
            (_, blocks) => Step::Put(Piece::Block(blocks)),
        };
    }

    /// Takes the storage's answer.
    fn put(&mut self, part: Piece, status: u16, retry_after_secs: Option<u32>, now: Instant) {
        match status {
            200..=299 => self.stored(part, now),
            _ if is_busy(status) => self.failed(Obstacle::Busy(status), retry_after_secs, now),
            // An expired SAS URI is refused with these; a deleted container is not found.
            401 | 403 | 404 => {
                let forward = self.progress.blocks > self.before;
                self.before = self.before.max(self.progress.blocks);
                self.refused_grants = if forward { 0 } else { self.refused_grants.saturating_add(1) };
                let refused = UploadError::Refused { stage: Stage::Store, status, code: 0 };
                self.part(false, status, Some(refused).filter(|_| self.refused_grants >= REFUSED_GRANTS), now);
            }
            // The storage has dropped blocks, for example after another upload of this name was completed.
            400 if part == Piece::List && !self.anew => {
                self.anew = true;
                if self.begin_again(now) {
                    self.step = Step::Read;
                }
            }
            _ => self.fail(UploadError::Refused { stage: Stage::Store, status, code: 0 }, now),
        }
    }

    fn stored(&mut self, part: Piece, now: Instant) {
        self.backoff.reset(now);
        self.since = now;
        self.step = Step::Notify;
        self.stored = part != Piece::Block(self.progress.blocks);
        if part == Piece::List {
            return;
        }
        let Held { len, last } = self.held.take().unwrap_or(Held { len: 0, last: true });
        self.progress.bytes = self.progress.bytes.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        self.progress.blocks = self.progress.blocks.saturating_add(1);
        self.told = false;
        match (part, last) {
            (Piece::Whole, _) => {}
            // If the block list does not arrive with this SAS URI, the next one has nothing left to read and continues
            // there.
            (_, true) => self.hold(Held { len: 0, last: true }, now),
            (_, false) => self.step = Step::Read,
        }
    }

    /// Waits before a retry, unless the upload gives up before.
    fn failed(&mut self, obstacle: Obstacle, retry_after_secs: Option<u32>, now: Instant) {
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.told = false;
        let failure = match obstacle {
            Obstacle::Silent(failure) => failure,
            Obstacle::Busy(status) => {
                Failure::Provisioning(ProvisioningFailure::Unavailable { status, retry_after_secs })
            }
            Obstacle::TooManyOpen => {
                Failure::Provisioning(ProvisioningFailure::Unavailable { status: 429, retry_after_secs })
            }
            Obstacle::Unauthorized | Obstacle::Unassigned => Failure::Network,
        };
        let delay = self.backoff.failed(failure, false, &self.policy, self.rng.word(), now);
        if now.since(self.since).saturating_add(delay) <= self.options.give_up_after {
            if matches!(self.step, Step::Notify) {
                self.step = Step::Moved(None);
            } else if matches!(self.step, Step::Initiate) {
                // At the hub that is assigned then.
                self.step = Step::Home;
            }
            self.wait = Some(now.after(delay));
            return;
        }
        let error = UploadError::GaveUp(obstacle);
        if matches!(self.step, Step::Notify) { self.leave(error) } else { self.fail(error, now) }
    }

    /// Starts again at the start of the file, or ends if that is impossible.
    fn begin_again(&mut self, now: Instant) -> bool {
        if !self.options.rereadable {
            self.part(false, NO_STATUS, Some(UploadError::SourceSpent), now);
            return false;
        }
        self.rewind();
        true
    }

    fn rewind(&mut self) {
        self.held = None;
        self.stored = false;
        self.progress.bytes = 0;
        self.progress.blocks = 0;
    }

    fn end(&mut self, result: Result<Report, UploadError>) {
        self.wait = None;
        self.step = Step::Done(result);
    }
}

impl<N: AsRef<str>, M: AsRef<[u8]> + AsMut<[u8]>> fmt::Debug for Upload<N, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("name", &self.name.as_ref())
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// Whether an answer allows a retry (RFC 9110, sections 15.5.9 and 15.6; RFC 6585, section 4).
const fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}
