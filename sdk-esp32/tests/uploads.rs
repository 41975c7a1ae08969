//! Uploads by an HTTP client of `embedded-svc`, blocking and asynchronous, against a model of the hub and its storage.
#![cfg(feature = "embedded-svc")]
#![expect(clippy::unwrap_used, reason = "a failure of what a test sets up fails the test")]

#[path = "support/https.rs"]
mod https;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll as Ready, Waker};

use https::{HUB, Line, Net, Trouble};
use steadfast_core::upload::{Checkpoint, Input, Obstacle, Options, Report, Stage, UploadError};
use steadfast_core::{Config, Credential, Failure, LocalFailure, Seed, Service};
use steadfast_esp32::Board as _;
use steadfast_esp32::upload::embedded_svc::Client;
use steadfast_esp32::upload::{HttpRequest, Poll, Source, SourceFailed, Upload, UploadBuffers};
use steadfast_sim::uploads::DEVICE;

static SHARED_KEY: Config<&str> = Config::new(Service::Hub { host: HUB, device_id: DEVICE }, Credential::SharedKey);
static CERTIFICATE: Config<&str> = Config::new(Service::Hub { host: HUB, device_id: DEVICE }, Credential::Certificate);

/// What is given to an upload.
struct Setting {
    config: &'static Config<&'static str>,
    grant: usize,
    block: usize,
    scratch: usize,
}

const USUAL: Setting = Setting { config: &SHARED_KEY, grant: 256, block: 300, scratch: 700 };

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| at.wrapping_mul(31).to_le_bytes()[0]).collect()
}

/// Finishes a future that never waits.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Ready::Ready(result) => result,
        Ready::Pending => panic!("nothing here waits"),
    }
}

fn run(net: &Net, setting: &Setting, mut source: impl Source, asynchronous: bool) -> Result<Report, UploadError> {
    let (mut grant, mut block, mut scratch) =
        (vec![0; setting.grant], vec![0; setting.block], vec![0; setting.scratch]);
    let buffers = UploadBuffers { grant: &mut grant, block: &mut block, scratch: &mut scratch };
    let mut board = net.clone();
    let seed = Seed::from_number(7);
    let mut upload = Upload::new("log.txt", Options::DEFAULT, setting.config, seed, buffers, board.now()).unwrap();
    let mut client = Client::new(net.clone());
    for _ in 0..5_000 {
        let poll = match asynchronous {
            true => at_once(upload.poll_async(&mut board, &mut source, &mut client)),
            false => upload.poll(&mut board, &mut source, &mut client),
        };
        match poll {
            Poll::Home => upload.at_home(Input::Home { hub: HUB, device_id: DEVICE }, board.now()),
            Poll::Wait(at) => board.sleep(at.since(board.now())),
            Poll::Done(result) => {
                assert!(result.is_err() || upload.blob() == "pump-7/log.txt");
                return result;
            }
            Poll::Progress(_) | Poll::Requested | _ => {}
        }
    }
    panic!("the upload does not come to an end");
}

/// Uploads in both forms, which have to come to the same.
fn both(trouble: &[(usize, Trouble)], setting: &Setting, len: usize) -> (Net, Result<Report, UploadError>) {
    let content = payload(len);
    let outcomes = [false, true].map(|asynchronous| {
        let net = Net::new(trouble.iter().copied());
        let result = run(&net, setting, content.as_slice(), asynchronous);
        assert_eq!(net.look(|state| state.cloud.content("log.txt") == Some(&content)), result.is_ok(), "{result:?}");
        (net, result)
    });
    let [(net, result), (other, same)] = outcomes;
    assert_eq!(result, same);
    assert_eq!(net.look(|state| state.requests.clone()), other.look(|state| state.requests.clone()));
    (net, result)
}

#[test]
fn a_file_goes_block_by_block_in_the_callers_buffers() {
    let (net, result) = both(&[], &USUAL, 1_000);
    let report = result.unwrap();
    assert_eq!((report.bytes, report.blocks, report.failures), (1_000, 4, 0));
    net.look(|state| {
        assert_eq!(state.requests[0], "Post /devices/pump-7/files");
        assert_eq!(state.requests[1..6], ["Put /files/pump-7/log.txt"; 5]);
        assert_eq!(state.requests[6], "Post /devices/pump-7/files/notifications");
        // One for each word to the hub, one for all blocks.
        assert_eq!((state.opened, state.cloud.successes()), (3, 1));
        assert!(state.tokens[0].starts_with("SharedAccessSignature sr=hub-a.example%2Fdevices%2Fpump-7&sig="));
    });
}

#[test]
fn files_of_any_length_arrive_whole() {
    for len in [0, 1, 299, 300, 301, 600, 20_000] {
        both(&[], &USUAL, len).1.unwrap();
    }
}

#[test]
fn a_device_with_a_certificate_shows_it_to_the_hub_alone() {
    let setting = Setting { config: &CERTIFICATE, ..USUAL };
    let (net, result) = both(&[], &setting, 1_000);
    result.unwrap();
    assert!(net.look(|state| state.tokens.is_empty()));
}

#[test]
fn every_trouble_at_any_request_is_survived() {
    let troubles = [
        Trouble::Refused,
        Trouble::BreaksWhileWriting,
        Trouble::BreaksBeforeAnswer,
        Trouble::BreaksWhileReading,
        Trouble::Busy(503, "7"),
        Trouble::Busy(429, "Fri, 31 Dec 2027 23:59:59 GMT"),
        Trouble::Wordy(500),
    ];
    for number in 0..7 {
        for trouble in troubles {
            let (_, result) = both(&[(number, trouble)], &USUAL, 1_000);
            // A connection that is kept is not refused.
            let report = result.unwrap();
            assert!(report.failures == 1 || trouble == Trouble::Refused, "{trouble:?} at {number}: {report:?}");
        }
    }
}

#[test]
fn an_answer_with_retry_after_is_waited_for() {
    let (net, result) = both(&[(2, Trouble::Busy(503, "100"))], &USUAL, 1_000);
    result.unwrap();
    assert!((100_000..=160_000).contains(&net.look(|state| state.now_ms)));
}

#[test]
fn buffers_that_are_too_short_are_told_with_what_it_takes() {
    let (net, result) = both(&[], &Setting { grant: 40, ..USUAL }, 1_000);
    assert!(matches!(result, Err(UploadError::NoRoom { needed, room: 40 }) if needed > 40), "{result:?}");
    assert_eq!(net.look(|state| state.cloud.unclosed()), 0, "the hub was told");
    // The grant does not fit the room for an answer, or a URL with a grant that for URLs.
    for scratch in [230, 100, 20, 0] {
        let (_, result) = both(&[], &Setting { scratch, ..USUAL }, 1_000);
        match result {
            Err(UploadError::NoRoom { needed, room }) => assert!(needed > room && room <= scratch),
            other => panic!("{scratch}: {other:?}"),
        }
    }
    // Whatever fits and does not, it comes to an end.
    for scratch in (0..700).step_by(3) {
        let (_, result) = both(&[], &Setting { scratch, ..USUAL }, 1_000);
        assert!(matches!(result, Ok(_) | Err(UploadError::NoRoom { .. })), "{scratch}: {result:?}");
        let (_, result) = both(&[], &Setting { scratch, config: &CERTIFICATE, ..USUAL }, 1_000);
        assert!(matches!(result, Ok(_) | Err(UploadError::NoRoom { .. })), "{scratch}: {result:?}");
    }
    let (_, result) = both(&[], &Setting { block: 0, ..USUAL }, 1_000);
    assert_eq!(result.unwrap_err(), UploadError::TooLong);
}

#[test]
fn a_long_answer_of_the_storage_does_no_harm() {
    let (_, result) = both(&[(1, Trouble::Wordy(409))], &USUAL, 1_000);
    assert_eq!(result.unwrap_err(), UploadError::Refused { stage: Stage::Store, status: 409, code: 0 });
}

#[test]
fn a_device_without_a_clock_waits_for_it() {
    let net = Net::new([]);
    net.0.borrow_mut().clock_set = false;
    let error = run(&net, &USUAL, &payload(10)[..], false).unwrap_err();
    assert_eq!(error, UploadError::GaveUp(Obstacle::Silent(Failure::Local(LocalFailure::ClockUnset))));
    assert!(net.look(|state| state.requests.is_empty()));
}

#[test]
fn a_device_that_loses_power_goes_on_from_its_checkpoint() {
    let net = Net::new([]);
    let content = payload(1_000);
    let mut kept = None;
    for boot in 0..2 {
        let (mut grant, mut block, mut scratch) = ([0; 256], [0; 300], [0; 700]);
        let buffers = UploadBuffers { grant: &mut grant, block: &mut block, scratch: &mut scratch };
        let mut board = net.clone();
        let seed = Seed::from_number(boot);
        let mut upload = Upload::new("log.txt", Options::DEFAULT, &SHARED_KEY, seed, buffers, board.now()).unwrap();
        if let Some(bytes) = kept.take() {
            assert!(upload.resume(Checkpoint::from_bytes(bytes).unwrap()));
        }
        let mut client = Client::new(net.clone());
        for _ in 0..1_000 {
            match upload.poll(&mut board, &mut content.as_slice(), &mut client) {
                Poll::Home => upload.at_home(Input::Home { hub: HUB, device_id: DEVICE }, board.now()),
                Poll::Progress(progress) => {
                    kept = upload.checkpoint().map(Checkpoint::to_bytes);
                    if boot == 0 && progress.blocks == 2 {
                        break;
                    }
                }
                Poll::Done(result) => assert_eq!(result.unwrap().bytes, 1_000),
                Poll::Requested | Poll::Wait(_) | _ => {}
            }
        }
    }
    net.look(|state| {
        assert_eq!(state.cloud.content("log.txt"), Some(content.as_slice()));
        assert_eq!((state.cloud.blocks_taken(), state.cloud.successes()), (4, 1));
    });
}

struct Broken;

impl Source for Broken {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceFailed> {
        if offset > 500 { Err(SourceFailed) } else { Ok(buffer.len().min(7)) }
    }
}

#[test]
fn a_source_that_fails_is_told_to_the_hub() {
    let net = Net::new([]);
    assert_eq!(run(&net, &USUAL, Broken, false).unwrap_err(), UploadError::Source);
    assert_eq!(net.look(|state| (state.cloud.unclosed(), state.cloud.successes())), (0, 0));
}

#[test]
fn a_request_that_is_dropped_is_made_again_on_another_connection() {
    let net = Net::new([]);
    let (mut grant, mut block, mut scratch) = ([0; 256], [0; 300], [0; 700]);
    let buffers = UploadBuffers { grant: &mut grant, block: &mut block, scratch: &mut scratch };
    let mut board = net.clone();
    let seed = Seed::from_number(7);
    let mut upload = Upload::new("log.txt", Options::DEFAULT, &SHARED_KEY, seed, buffers, board.now()).unwrap();
    let content = payload(1_000);
    let mut source = content.as_slice();
    let mut client = Client::<_, Line>::new(net.clone());
    for round in 0..1_000 {
        if round % 2 == 0 {
            // Begun, and dropped before it comes to anything.
            let mut never = Never;
            let mut dropped = Box::pin(upload.poll_async(&mut board, &mut source, &mut never));
            if let Ready::Ready(Poll::Done(result)) = dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                assert_eq!(result.unwrap().bytes, 1_000);
                drop(dropped);
                assert_eq!(net.look(|state| state.cloud.successes()), 1);
                return;
            }
        }
        if let Poll::Home = at_once(upload.poll_async(&mut board, &mut source, &mut client)) {
            upload.at_home(Input::Home { hub: HUB, device_id: DEVICE }, board.now());
        }
    }
    panic!("the upload does not come to an end");
}

/// A client that never answers.
struct Never;

impl steadfast_esp32::upload::AsyncHttp for Never {
    async fn exchange(
        &mut self,
        _: &HttpRequest<'_>,
        _: &mut [u8],
    ) -> Result<steadfast_esp32::upload::HttpAnswer, Failure> {
        std::future::pending().await
    }
}
