//! An upload under any history of answers, failures, moves and times.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast_core::upload::{Body, Checkpoint, Input, Options, Output, Upload, UploadError};
use steadfast_core::{Attempt, Failure, Instant, RetryPolicy, Seed};

use crate::source::Source;

/// Length of the file.
const FILE: usize = 700;

/// Plays `data` as a history: the first bytes choose name and options, then each byte what comes next.
///
/// # Panics
/// When a request has a line break in it or goes to a host that is none, a list names other blocks than those that make
/// the file whole, success is told before the storage took everything, or the upload does not come to an end when it is
/// cancelled.
pub fn target(data: &[u8]) {
    let mut source = Source::new(data);
    let choice = source.byte();
    let name = if choice & 1 == 0 { "logs/day 1.txt" } else { source.text() };
    let mut options = Options::DEFAULT;
    options.block_len = usize::from(source.byte()).saturating_mul(4);
    options.rereadable = choice & 2 == 0;
    options.give_up_after = Duration::from_secs(u64::from(source.number()));
    let room = if choice & 4 == 0 { 600 } else { usize::from(source.byte()) };
    let seed = Seed::from_number(u64::from(choice));
    let upload = Upload::new(name, options, RetryPolicy::DEFAULT, seed, vec![0; room], Instant::ORIGIN);
    let Ok(mut upload) = upload else {
        let bad = name.is_empty() || name.len() > 1_024 || name.chars().any(char::is_control);
        assert!(bad, "{name:?} is a name");
        return;
    };
    if choice & 8 != 0 {
        // Of another place: nothing of this file is there.
        let mut bytes = [0; Checkpoint::LEN];
        let [high, low] = u16::try_from(options.block_len).unwrap_or(0).to_be_bytes();
        (bytes[0], bytes[12], bytes[15], bytes[16]) = (1, source.byte(), high, low);
        let checkpoint = Checkpoint::from_bytes(bytes).expect("the form is known");
        upload.resume(checkpoint);
    }
    let mut player = Player {
        upload,
        now: 0,
        stored: 0,
        committed: false,
        end: None,
        blocks: BTreeMap::new(),
        hub: 0,
        last: Attempt::default(),
    };
    for _ in 0..512 {
        if source.is_empty() || player.is_done() {
            break;
        }
        player.step(&mut source);
        let _ = (format!("{:?}", player.upload), player.upload.untold(), player.upload.progress());
    }
    player.end();
}

struct Player<'n> {
    upload: Upload<&'n str, Vec<u8>>,
    now: u64,
    /// Bytes that the storage took since the start of the file.
    stored: usize,
    /// It took the whole file.
    committed: bool,
    /// Where the file ended.
    end: Option<usize>,
    /// Start and length of blocks by host and id.
    blocks: BTreeMap<(String, String), (usize, usize)>,
    hub: u8,
    last: Attempt,
}

impl Player<'_> {
    fn now(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    fn is_done(&mut self) -> bool {
        matches!(self.upload.poll_output(), Output::Done(_))
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        match choice % 16 {
            0 => self.now = self.now.saturating_add(u64::from(source.number()) * 100),
            1 => self.hub = source.byte() % 3,
            2 if source.byte() == 0 => self.upload.cancel(self.now()),
            3 if source.byte() == 0 => self.upload.fail(UploadError::Source, self.now()),
            4 => {
                // An answer that nobody waits for.
                let attempt = self.last;
                let body = source.bytes();
                let input = Input::Answer { attempt, status: source.number(), retry_after_secs: None, body };
                if !matches!(self.upload.poll_output(), Output::Request(request) if request.attempt == attempt) {
                    self.upload.handle_input(input, self.now());
                }
            }
            _ => self.go_on(choice, source),
        }
    }

    /// Does what the upload asks for.
    fn go_on(&mut self, choice: u8, source: &mut Source<'_>) {
        let now = self.now();
        match self.upload.poll_output() {
            Output::Home => {
                let input = match self.hub {
                    0 => Input::Home { hub: "hub-a.example", device_id: "pump-7" },
                    1 => Input::Home { hub: "hub-b.example", device_id: "pump-7" },
                    _ => Input::Unassigned,
                };
                self.upload.handle_input(input, now);
            }
            Output::Read { offset, len } => {
                let offset = usize::try_from(offset).expect("the offset is within the file");
                assert!(offset <= FILE && len > 0, "{offset} {len}");
                self.stored = offset;
                self.committed = false;
                let asked = len;
                let len = if choice & 16 == 0 {
                    len.min(FILE - offset)
                } else {
                    usize::from(source.byte()).min(FILE - offset)
                };
                self.end = (len < asked).then_some(offset + len);
                self.upload.handle_input(Input::Read { len }, now);
            }
            Output::Wait(at) => {
                self.now = at.as_millis().max(self.now);
                self.upload.handle_timeout(self.now());
            }
            Output::Request(_) => self.answer(choice, source),
            Output::Progress(_) => {}
            Output::Done(_) => {}
            _ => panic!("an output that is not known"),
        }
    }

    fn answer(&mut self, choice: u8, source: &mut Source<'_>) {
        let now = self.now();
        let (stored, committed) = (self.stored, self.committed);
        let Output::Request(request) = self.upload.poll_output() else { return };
        let attempt = request.attempt;
        self.last = attempt;
        let mut buffer = [0; 4096];
        let uri = request.uri.to_str(&mut buffer).expect("a URI of this name fits");
        assert!(uri.starts_with('/') && uri.bytes().all(|byte| byte.is_ascii_graphic()), "{uri}");
        assert!(!request.host.is_empty() && !request.host.contains(['/', '@', ' ', '?', '#']), "{}", request.host);
        let hub = request.identity.is_some();
        let (list, notify) = (uri.contains("comp=blocklist&"), hub && uri.contains("/notifications?"));
        let mut content = Vec::new();
        let mut taken = 0;
        match request.body {
            Body::Block { len } => taken = len,
            Body::Document(document) => {
                let mut piece = [0; 37];
                loop {
                    let read = document.read(content.len(), &mut piece);
                    if read == 0 {
                        break;
                    }
                    content.extend_from_slice(&piece[..read]);
                }
                assert_eq!(content.len(), document.len());
                let text = std::str::from_utf8(&content).expect("a document is text");
                assert!(!notify || !text.contains("\"isSuccess\":true") || committed, "told too early: {text}");
            }
            _ => panic!("a body that is not known"),
        }
        let whole = !hub && !list && !uri.contains("comp=block&");
        let good = if hub && !notify { 200 } else { 201 };
        let statuses = [good, good, good, good, good, good, 401, 403, 404, 400, 429, 500, 503, 408];
        let status = match choice >> 4 {
            15 => source.number(),
            14 => {
                self.upload.handle_input(Input::Failed { attempt, failure: Failure::Lost }, now);
                return;
            }
            kind => statuses[usize::from(kind)],
        };
        let place = if choice & 1 == 0 { "a" } else { "b" };
        let told;
        let body = match source.byte() % 4 {
            0 => source.bytes(),
            _ => {
                told = format!(
                    r#"{{"correlationId":"c\u0022","hostName":"s-{place}.example","containerName":"f","blobName":"pump-7/x","sasToken":"?sig=%2B","errorCode":403006}}"#
                );
                told.as_bytes()
            }
        };
        let host = request.host.to_owned();
        if !hub && (200..300).contains(&status) {
            if let Some((_, rest)) = uri.split_once("blockid=") {
                let id = rest.split('&').next().unwrap_or_default().to_owned();
                self.blocks.insert((host, id), (stored, taken));
            } else if list {
                let text = String::from_utf8_lossy(&content);
                let mut end = 0;
                for part in text.split("<Latest>").skip(1) {
                    let id = part.split('<').next().unwrap_or_default().to_owned();
                    let block = self.blocks.get(&(host.clone(), id));
                    let (start, len) = block.expect("the list names blocks that the storage took");
                    assert_eq!(*start, end, "the blocks follow one another");
                    end += len;
                }
                assert_eq!(Some(end), self.end, "the list is the whole file");
            }
            self.committed = list || whole;
        }
        let retry_after_secs = (choice & 2 == 0).then(|| u32::from(source.byte()));
        self.upload.handle_input(Input::Answer { attempt, status, retry_after_secs, body }, now);
    }

    /// Cancels what is left, with all services silent.
    fn end(&mut self) {
        self.upload.cancel(self.now());
        for _ in 0..32 {
            let now = self.now();
            match self.upload.poll_output() {
                Output::Done(result) => {
                    let report = result.map(|report| report.bytes);
                    assert!(report.is_err() || self.committed, "a success without a file");
                    return;
                }
                Output::Wait(at) => {
                    self.now = at.as_millis().max(self.now);
                    self.upload.handle_timeout(self.now());
                }
                Output::Request(request) => {
                    let attempt = request.attempt;
                    self.upload.handle_input(Input::Failed { attempt, failure: Failure::Network }, now);
                }
                Output::Progress(_) => {}
                Output::Home | Output::Read { .. } | _ => panic!("a cancelled upload goes on"),
            }
        }
        panic!("a cancelled upload does not come to an end");
    }
}
