//! One upload in virtual time: hubs that give grants, their storage, a network that fails on request, and an oracle that
//! looks at every request.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;
use steadfast_core::upload::{Body, Checkpoint, Input, Method, Options, Output, Report, Request, Upload, UploadError};
use steadfast_core::{Failure, Instant, RetryPolicy, Seed};

mod cloud;

pub use cloud::{CloudHub, Notice};

/// The device's id, and its folder.
pub const DEVICE: &str = "pump-7";

/// The name of the file.
pub const FILE: &str = "logs/day 1.txt";

/// Most steps of a run, so that a livelock fails instead of hanging.
const STEPS: u32 = 200_000;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadFault {
    /// It does not arrive.
    Lost,
    /// It is carried out, and its answer does not arrive for two minutes.
    AnswerLost,
    /// It is answered with a status, and perhaps with a retry-after in seconds.
    Status(u16, Option<u32>),
    /// A request for a place is answered with 200 and something that is no document.
    Garbage,
    /// The storage has lost the blocks when it arrives.
    BlocksDropped,
    /// The grant expires before it arrives.
    GrantOver,
    /// The device is moved to the other hub while it is under way, and the old one does not know it any more.
    Moved,
    /// The device is moved to the other hub while it is under way, and the old one is gone.
    HubGone,
}

impl UploadFault {
    /// All that can happen to a request, for tests that try everything.
    pub const ALL: [Self; 14] = [
        Self::Lost,
        Self::AnswerLost,
        Self::Status(401, None),
        Self::Status(403, None),
        Self::Status(404, None),
        Self::Status(400, None),
        Self::Status(429, Some(30)),
        Self::Status(503, Some(7)),
        Self::Status(500, None),
        Self::Garbage,
        Self::BlocksDropped,
        Self::GrantOver,
        Self::Moved,
        Self::HubGone,
    ];
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Purpose {
    /// A place for the file.
    Initiate,
    /// The file in one piece.
    Whole,
    /// A block of this number.
    Block(u32),
    /// The list of blocks.
    List,
    /// How it went.
    Notify,
}

/// A request that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Made {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What for.
    pub purpose: Purpose,
    /// To the hub of this number, or its storage.
    pub hub: usize,
    /// Status of the answer; 0 without one.
    pub status: u16,
}

/// A device that uploads one file, its hubs, and what lies between.
#[derive(Debug)]
pub struct Uploads {
    /// Told with every failure, so that it can be replayed.
    seed: u64,
    now_ms: u64,
    /// The hubs; the file of each lies in a storage of its own.
    pub hubs: [CloudHub; 2],
    /// At which of them the device is, if it is assigned.
    pub home: Option<usize>,
    /// How long a request takes, in milliseconds.
    pub latency_ms: u64,
    /// What happens to requests by their number, from 0.
    faults: BTreeMap<usize, UploadFault>,
    /// What happens to every request from a number on.
    lasting: Option<(usize, UploadFault)>,
    file: Vec<u8>,
    /// Bytes of memory for the grant.
    room: usize,
    options: Options,
    policy: RetryPolicy,
    upload: Option<Upload<&'static str, Vec<u8>>>,
    /// What the frontend has read.
    block: Vec<u8>,
    /// The source fails from this offset on.
    pub broken_at: Option<u64>,
    checkpoint: Option<Checkpoint>,
    made: Vec<Made>,
    waits: VecDeque<u64>,
    boots: u64,
    done: Option<Result<Report, UploadError>>,
    /// Grants of which the device never heard, or that it forgot in a reboot.
    pub orphans: u32,
}

impl Uploads {
    /// A device at the first hub, and a file of `len` bytes that goes in blocks of 1,000.
    #[must_use]
    pub fn new(seed: u64, len: usize) -> Self {
        let mut options = Options::DEFAULT;
        options.block_len = 1_000;
        let file = (0..len).map(|at| at.wrapping_mul(31).to_le_bytes()[0] ^ seed.to_le_bytes()[0]).collect();
        Self {
            seed,
            now_ms: 1_000,
            hubs: [CloudHub::new(0), CloudHub::new(1)],
            home: Some(0),
            latency_ms: 150,
            faults: BTreeMap::new(),
            lasting: None,
            file,
            room: 512,
            options,
            policy: RetryPolicy::DEFAULT,
            upload: None,
            block: Vec::new(),
            broken_at: None,
            checkpoint: None,
            made: Vec::new(),
            waits: VecDeque::new(),
            boots: 0,
            done: None,
            orphans: 0,
        }
    }

    /// Changes how the file is uploaded.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Gives the upload so many bytes for the grant.
    #[must_use]
    pub const fn with_room(mut self, room: usize) -> Self {
        self.room = room;
        self
    }

    /// Has `fault` happen to the request of this number.
    #[must_use]
    pub fn fault(mut self, number: usize, fault: UploadFault) -> Self {
        self.faults.insert(number, fault);
        self
    }

    /// Has `fault` happen to every request from this number on.
    #[must_use]
    pub const fn fault_from(mut self, number: usize, fault: UploadFault) -> Self {
        self.lasting = Some((number, fault));
        self
    }

    /// Ends what [`fault_from`](Self::fault_from) began.
    pub const fn mend(&mut self) {
        self.lasting = None;
    }

    /// Returns the time in milliseconds.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Returns what was requested.
    #[must_use]
    pub fn made(&self) -> &[Made] {
        &self.made
    }

    /// Returns what the requests were for.
    #[must_use]
    pub fn purposes(&self) -> Vec<Purpose> {
        self.made.iter().map(|made| made.purpose).collect()
    }

    /// Returns how long the device waited each time, in milliseconds.
    #[must_use]
    pub fn waits_ms(&self) -> Vec<u64> {
        self.waits.iter().copied().collect()
    }

    /// Returns what the upload came to, once it is over.
    #[must_use]
    pub const fn done(&self) -> Option<Result<Report, UploadError>> {
        self.done
    }

    /// Returns the upload, while there is one.
    #[must_use]
    pub const fn upload(&self) -> Option<&Upload<&'static str, Vec<u8>>> {
        self.upload.as_ref()
    }

    /// Whether the storage of a hub has the whole file.
    #[must_use]
    pub fn is_whole(&self, hub: usize) -> bool {
        self.hubs[hub].content(FILE) == Some(self.file.as_slice())
    }

    /// Takes the device's memory away in the middle; the application uploads the file again.
    pub fn reboot(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.orphans += 1 + upload.untold();
        }
        self.done = None;
        self.block.clear();
    }

    /// Takes the device's memory away but for the checkpoint; the application uploads the file again from there.
    pub fn reboot_with_checkpoint(&mut self) {
        let kept = self.upload.as_ref().and_then(Upload::checkpoint);
        self.reboot();
        self.checkpoint = kept.and_then(|kept| Checkpoint::from_bytes(kept.to_bytes()));
    }

    /// Cancels the upload.
    pub fn cancel(&mut self) {
        let now = Instant::from_millis(self.now_ms);
        self.begin();
        if let Some(upload) = &mut self.upload {
            upload.cancel(now);
        }
    }

    /// Goes on for `span`, or until the upload is over.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now_ms + u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2);
        while self.done.is_none() && self.now_ms < end {
            self.step(Some(end));
        }
    }

    /// Goes on until so many requests have been made, or until the upload is over.
    pub fn run_until_made(&mut self, requests: usize) {
        for _ in 0..STEPS {
            if self.done.is_some() || self.made.len() >= requests {
                return;
            }
            self.step(None);
        }
        self.demand(false, "the upload does not get that far");
    }

    /// Goes on until the upload is over, and returns what it came to.
    pub fn run(&mut self) -> Result<Report, UploadError> {
        for _ in 0..STEPS {
            if let Some(result) = self.done {
                self.check_end(result);
                return result;
            }
            self.step(None);
        }
        self.demand(false, "the upload does not come to an end");
        Err(UploadError::Cancelled)
    }

    fn demand(&self, holds: bool, what: &str) {
        assert!(holds, "seed {}: {what}\n  at {} ms, after {:?}", self.seed, self.now_ms, self.made);
    }

    fn begin(&mut self) {
        if self.upload.is_some() {
            return;
        }
        self.boots += 1;
        let seed = Seed::from_number(self.seed ^ (self.boots << 32));
        let now = Instant::from_millis(self.now_ms);
        match Upload::new(FILE, self.options, self.policy, seed, vec![0; self.room], now) {
            Ok(mut upload) => {
                let resumed = self.checkpoint.take().map(|checkpoint| upload.resume(checkpoint));
                self.demand(
                    resumed != Some(!self.options.rereadable),
                    "a checkpoint of a file that can be read is taken",
                );
                self.upload = Some(upload);
            }
            Err(error) => self.done = Some(Err(error)),
        }
    }

    /// Does what comes next; a wait goes up to `end` at most.
    fn step(&mut self, end: Option<u64>) {
        self.begin();
        let Some(mut upload) = self.upload.take() else { return };
        let now = Instant::from_millis(self.now_ms);
        match upload.poll_output() {
            Output::Home => {
                let hub = self.home.map(|home| self.hubs[home].host.clone());
                let input = match &hub {
                    Some(hub) => Input::Home { hub, device_id: DEVICE },
                    None => Input::Unassigned,
                };
                upload.handle_input(input, now);
            }
            Output::Read { offset, .. } if self.broken_at.is_some_and(|at| offset >= at) => {
                upload.fail(UploadError::Source, now);
            }
            Output::Read { offset, len } => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.file.len());
                let block = self.file[start..].iter().take(len);
                self.block = block.copied().collect();
                upload.handle_input(Input::Read { len: self.block.len() }, now);
            }
            Output::Request(request) => {
                let attempt = request.attempt;
                let (answer, stale) = self.carry(&request);
                let now = Instant::from_millis(self.now_ms);
                let same = matches!(upload.poll_output(), Output::Request(again) if again.attempt == attempt);
                self.demand(same, "a request is asked for until it is answered");
                // What belongs to an older request changes nothing.
                if let Some(stale) = stale {
                    upload.handle_input(Input::Failed { attempt: stale, failure: Failure::Lost }, now);
                }
                match &answer {
                    Some((status, retry_after_secs, body)) => {
                        let (status, retry_after_secs) = (*status, *retry_after_secs);
                        upload.handle_input(Input::Answer { attempt, status, retry_after_secs, body }, now);
                    }
                    None => upload.handle_input(Input::Failed { attempt, failure: Failure::Network }, now),
                }
            }
            Output::Wait(at) => {
                let until = at.as_millis().min(end.unwrap_or(u64::MAX)).max(self.now_ms);
                self.waits.push_back(at.as_millis().saturating_sub(self.now_ms));
                self.now_ms = until;
                upload.handle_timeout(Instant::from_millis(until));
            }
            Output::Progress(progress) => {
                let len = u64::try_from(self.file.len()).unwrap_or(u64::MAX);
                self.demand(progress.bytes <= len, "the storage has no more than the file");
            }
            Output::Done(result) => self.done = Some(result),
            _ => self.demand(false, "an output that is not known"),
        }
        self.upload = Some(upload);
    }

    /// Brings a request to its service; returns status, retry-after and body of the answer, and an older attempt.
    fn carry(&mut self, request: &Request<'_>) -> (Option<cloud::Answer>, Option<steadfast_core::Attempt>) {
        let number = self.made.len();
        let lasting = self.lasting.filter(|(from, _)| number >= *from).map(|(_, fault)| fault);
        let fault = self.faults.get(&number).copied().or(lasting);
        let (hub, purpose, content) = self.read(request);
        self.made.push(Made { at_ms: self.now_ms, purpose, hub, status: 0 });
        self.now_ms += self.latency_ms;
        let now_secs = self.now_ms / 1_000;
        match fault {
            Some(UploadFault::BlocksDropped) => self.hubs[hub].drop_blocks(),
            Some(UploadFault::GrantOver) => self.hubs[hub].end_grants(),
            Some(UploadFault::Moved) => {
                self.hubs[hub].knows_device = false;
                self.hubs[1 - hub].knows_device = true;
                self.home = Some(1 - hub);
            }
            Some(UploadFault::HubGone) => {
                self.hubs[hub].reachable = false;
                self.home = Some(1 - hub);
            }
            _ => {}
        }
        let answer = match fault {
            Some(UploadFault::Lost) => None,
            Some(UploadFault::Status(status, retry_after_secs)) => Some((status, retry_after_secs, Vec::new())),
            Some(UploadFault::Garbage) if purpose == Purpose::Initiate => Some((200, None, b"<html>".to_vec())),
            _ if purpose_is_of_hub(purpose) && !self.hubs[hub].reachable => None,
            _ => Some(self.hubs[hub].answer(purpose, &content, &cloud::path_of(request), now_secs)),
        };
        if purpose == Purpose::Notify && answer.as_ref().is_some_and(|(status, ..)| *status == 204) {
            self.check_notice(hub, &content);
        }
        let stale = self.made.len().is_multiple_of(3).then(steadfast_core::Attempt::default);
        if fault == Some(UploadFault::AnswerLost) || answer.is_none() {
            self.now_ms += 120_000;
            let given = purpose == Purpose::Initiate && answer.is_some_and(|(status, ..)| status == 200);
            self.orphans += u32::from(given);
            return (None, stale);
        }
        if let (Some(made), Some((status, ..))) = (self.made.last_mut(), &answer) {
            made.status = *status;
        }
        (answer, stale)
    }

    /// Reads a request as its service does; checks what no service may be sent.
    fn read(&self, request: &Request<'_>) -> (usize, Purpose, Vec<u8>) {
        let found = self.hubs.iter().position(|hub| hub.host == request.host || hub.storage == request.host);
        self.demand(found.is_some(), "a host that nobody named");
        let hub = found.unwrap_or(0);
        let to_hub = self.hubs[hub].host == request.host;
        self.demand(request.identity.is_some() == to_hub, "the device proves itself to its hub and to nobody else");
        let expected = if to_hub { Method::Post } else { Method::Put };
        self.demand(request.method == expected, "the method of the service");
        let content = match request.body {
            Body::Block { len } => {
                self.demand(len == self.block.len(), "a block is what was read");
                self.block.clone()
            }
            Body::Document(document) => {
                let mut content = Vec::new();
                let mut piece = [0; 48];
                loop {
                    let read = document.read(content.len(), &mut piece);
                    if read == 0 {
                        break;
                    }
                    content.extend_from_slice(&piece[..read]);
                }
                self.demand(content.len() == document.len(), "a document has the length it says");
                content
            }
            _ => Vec::new(),
        };
        let purpose = cloud::purpose_of(&cloud::path_of(request));
        self.demand(purpose.is_some(), "a request that no service knows");
        (hub, purpose.unwrap_or(Purpose::Notify), content)
    }

    /// A hub is told of a success only when the file is there, whole.
    fn check_notice(&self, hub: usize, content: &[u8]) {
        let notice: Value = serde_json::from_slice(content).unwrap_or_default();
        if notice["isSuccess"] == true {
            self.demand(self.is_whole(hub), "a success was told, and the file is not whole");
        }
    }

    /// What holds at every end: the file is whole and the hub knows, or the caller is told; and every grant was closed, or
    /// is counted as one that was not.
    fn check_end(&self, result: Result<Report, UploadError>) {
        let succeeded: Vec<usize> = (0..2).filter(|hub| self.hubs[*hub].successes() > 0).collect();
        if let Ok(report) = result {
            self.demand(!succeeded.is_empty(), "the upload succeeded and no hub was told");
            self.demand(
                succeeded.iter().all(|hub| self.is_whole(*hub)),
                "the upload succeeded and the file is not whole",
            );
            let len = u64::try_from(self.file.len()).unwrap_or(u64::MAX);
            self.demand(report.bytes == len, "the report has another length");
        }
        let open: u32 = self.hubs.iter().map(CloudHub::unclosed).sum();
        let excused = self.orphans + self.upload.as_ref().map_or(0, Upload::untold);
        let last = u32::from(matches!(
            result,
            Err(UploadError::GaveUp(_) | UploadError::Refused { .. } | UploadError::Answer)
        ));
        self.demand(open <= excused + last, "an open grant that the device has forgotten");
    }
}

const fn purpose_is_of_hub(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Initiate | Purpose::Notify)
}
