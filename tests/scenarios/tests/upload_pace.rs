//! No answer of a service makes an upload ask in a hot loop.

use core::time::Duration;

use steadfast_core::upload::{Input, Method, Options, Output, Upload};
use steadfast_core::{Instant, RetryPolicy, Seed};

const FILE: usize = 2_500;
const BLOCK: usize = 1_000;
/// The requests of an upload without a failure, three times over: as often as it begins anew for one.
const BURST: usize = 3 * 6;

/// What a service answers to one kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Good,
    /// Good, and each grant is for a place of its own.
    Elsewhere,
    /// The first block of each grant is good, the next request is answered with this.
    Once(u16),
    /// Good and this in turn.
    Turns(u16),
    Status(u16),
    TooManyOpen,
}

#[derive(Clone, Copy, Debug)]
struct Service {
    initiate: Answer,
    block: Answer,
    list: Answer,
    notify: Answer,
    retry_after_secs: Option<u32>,
}

impl Answer {
    /// The status of an answer after so many of its kind, so many of them to this grant.
    fn status(self, before: usize, of_grant: usize) -> u16 {
        match self {
            Self::Good | Self::Elsewhere => 200,
            Self::Once(status) => {
                if of_grant == 0 {
                    200
                } else {
                    status
                }
            }
            Self::Turns(status) => {
                if before.is_multiple_of(2) {
                    status
                } else {
                    200
                }
            }
            Self::Status(status) => status,
            Self::TooManyOpen => 403,
        }
    }
}

/// Runs an upload over a network without delay, and returns when each request was made, in milliseconds.
fn requests(service: Service, seed: u64, limit: Duration) -> Vec<u64> {
    let mut options = Options::DEFAULT;
    options.block_len = BLOCK;
    let mut now = Instant::ORIGIN;
    let mut upload =
        Upload::new("f", options, RetryPolicy::DEFAULT, Seed::from_number(seed), [0; 1024], now).expect("a good name");
    let (mut times, mut counts, mut of_grant) = (Vec::new(), [0_usize; 4], 0);
    while now.since(Instant::ORIGIN) < limit && times.len() < 5_000 {
        let mut body = String::new();
        let input = match upload.poll_output() {
            Output::Home => Input::Home { hub: "h.example", device_id: "d" },
            Output::Read { offset, len } => {
                Input::Read { len: len.min(FILE.saturating_sub(usize::try_from(offset).expect("a short file"))) }
            }
            Output::Request(request) => {
                times.push(now.as_millis());
                let mut room = [0; 512];
                let uri = request.uri.to_str(&mut room).expect("room enough");
                let (kind, answer) = match request.method {
                    Method::Put if uri.contains("comp=blocklist") => (2, service.list),
                    Method::Put => (1, service.block),
                    _ if uri.contains("notifications") => (3, service.notify),
                    Method::Post | _ => (0, service.initiate),
                };
                let status = answer.status(counts[kind], of_grant);
                counts[kind] += 1;
                of_grant = if kind == 0 { 0 } else { of_grant + usize::from(kind == 1) };
                if kind == 0 && status == 200 {
                    let place = if answer == Answer::Elsewhere { counts[0] } else { 0 };
                    body = format!(
                        r#"{{"correlationId":"c","hostName":"s.example","containerName":"f","blobName":"d/{place}","sasToken":"?sig=x"}}"#
                    );
                } else if answer == Answer::TooManyOpen {
                    body = r#"{"Message":"ErrorCode:403006;too many"}"#.to_owned();
                }
                let attempt = request.attempt;
                Input::Answer { attempt, status, retry_after_secs: service.retry_after_secs, body: body.as_bytes() }
            }
            Output::Wait(at) => {
                now = at;
                upload.handle_timeout(now);
                continue;
            }
            Output::Done(_) => break,
            Output::Progress(_) | _ => continue,
        };
        upload.handle_input(input, now);
    }
    times
}

fn services() -> Vec<Service> {
    use Answer::{Elsewhere, Good, Once, Status, TooManyOpen, Turns};
    let refusals = [400, 401, 403, 404, 429, 503];
    let statuses = || refusals.into_iter().map(Status);
    let blocks: Vec<_> = statuses().chain(refusals.map(Once)).chain(refusals.map(Turns)).chain([Good]).collect();
    let mut all = Vec::new();
    for initiate in statuses().chain([Good, Elsewhere, TooManyOpen, Turns(503)]) {
        for &block in &blocks {
            for list in statuses().chain([Good, Turns(400), Turns(403)]) {
                for notify in statuses().chain([Good, Turns(400), Turns(503)]) {
                    for retry_after_secs in [None, Some(0)] {
                        all.push(Service { initiate, block, list, notify, retry_after_secs });
                    }
                }
            }
        }
    }
    all
}

#[test]
fn whatever_a_service_answers_an_upload_makes_few_requests_in_a_minute() {
    let mut most = 0;
    for service in services() {
        let times = requests(service, 7, Duration::from_secs(600));
        let in_a_minute = |from: &u64| times.iter().filter(|at| (*from..from + 60_000).contains(at)).count();
        let count = times.iter().map(in_a_minute).max().unwrap_or_default();
        assert!(count <= 3 * BURST, "{count} requests in a minute of {service:?}");
        most = most.max(count);
    }
    println!("at most {most} requests in a minute");
}

#[test]
fn a_retry_after_of_nothing_is_a_wait_that_differs_from_device_to_device() {
    for (initiate, notify) in [(Answer::Status(429), Answer::Good), (Answer::Good, Answer::Status(503))] {
        let service = Service { initiate, block: Answer::Good, list: Answer::Good, notify, retry_after_secs: Some(0) };
        let mut first = Vec::new();
        for seed in 0..50 {
            let mut times = requests(service, seed, Duration::from_secs(3_600));
            times.retain(|at| *at > 0);
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.min().unwrap() >= 1_000 && times[0] >= 1_000, "{times:?}");
            first.push(times[0]);
        }
        first.sort_unstable();
        first.dedup();
        assert!(first.len() > 40, "only {} different waits of 50 devices", first.len());
    }
}

#[test]
fn a_device_without_a_hub_asks_for_it_at_a_pace_of_its_own() {
    let mut first = Vec::new();
    for seed in 0..50 {
        let now = Instant::ORIGIN;
        let policy = RetryPolicy::DEFAULT;
        let mut upload =
            Upload::new("f", Options::DEFAULT, policy, Seed::from_number(seed), [0; 1024], now).expect("a good name");
        upload.handle_input(Input::Unassigned, now);
        let Output::Wait(at) = upload.poll_output() else { panic!("no wait") };
        assert!((policy.min_delay..=2 * policy.min_delay).contains(&at.since(now)));
        first.push(at.as_millis());
    }
    first.sort_unstable();
    first.dedup();
    assert!(first.len() > 40, "only {} different waits of 50 devices", first.len());
}
