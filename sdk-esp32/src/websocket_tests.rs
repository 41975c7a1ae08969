//! Opening WebSockets, and what becomes of their frames when a stream fails.

use super::*;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::rc::Rc;
use std::string::{String, ToString as _};
use std::vec::Vec;
use steadfast_core::ServiceKind;

use crate::fake_service::Service;

const DIAL: Dial<'_> = Dial {
    host: "contoso.azure-devices.net",
    port: 443,
    role: ServiceKind::Hub,
    client_certificate: false,
    limit: Duration::from_secs(30),
};

fn blocking(mut service: Service, dial: &Dial<'_>) -> (Result<(), Failure>, u64) {
    let clock = Rc::clone(&service.clock);
    let now = || Instant::from_millis(clock.get());
    let seed = Seed::from_number(1);
    let opened = open::<_, 131>(&mut service, dial, opening(dial), seed, now, Duration::from_secs(28));
    (opened.map(drop), clock.get())
}

fn asynchronous(answer: &str) -> Result<(), Failure> {
    let mut service = Service::new(answer, true);
    let work = pin!(open_async::<_, 131>(&mut service, &DIAL, opening(&DIAL), Seed::from_number(1)));
    match work.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(opened) => opened.map(drop),
        Poll::Pending => panic!("the service never waits"),
    }
}

#[test]
fn a_service_that_refuses_breaks_off_or_says_nothing_is_told_as_such() {
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 9\r\n\r\n";
    let refused = Err(Failure::UpgradeRefused { status: 503, retry_after_secs: Some(9) });
    assert_eq!(blocking(Service::new(busy, false), &DIAL).0, refused);
    assert_eq!(asynchronous(busy), refused);
    for (answer, ends, expected) in [
        ("HTTP/1.1 10", true, Failure::Lost),
        ("", true, Failure::Lost),
        ("HTTP/1.1 10", false, Failure::ConnectTimeout),
        ("", false, Failure::ConnectTimeout),
        ("SSH-2.0", false, Failure::UpgradeRefused { status: 0, retry_after_secs: None }),
    ] {
        let (opened, at) = blocking(Service::new(answer, ends), &DIAL);
        assert_eq!(opened, Err(expected), "{answer:?}");
        assert!(at <= 28_000, "{at}");
    }
    assert_eq!(asynchronous("HTTP/1.1 10"), Err(Failure::Lost));
}

#[test]
fn a_service_that_takes_nothing_is_given_up_in_time() {
    let mut service = Service::new("", false);
    service.takes = false;
    assert_eq!(blocking(service, &DIAL), (Err(Failure::ConnectTimeout), 28_000));
}

#[test]
fn a_name_that_does_not_fit_is_an_error_before_anything_is_sent() {
    let host = String::from_utf8(std::vec![b'x'; REQUEST_MAX]).unwrap();
    let dial = Dial { host: &host, ..DIAL };
    let mut service = Service::new("", true);
    let clock = || Instant::ORIGIN;
    let seed = Seed::from_number(1);
    let opened = open::<_, 131>(&mut service, &dial, opening(&dial), seed, clock, Duration::from_secs(1));
    assert_eq!(opened.map(drop), Err(Failure::Local(LocalFailure::Buffer)));
    assert!(service.written.is_empty());
}

#[test]
fn what_went_out_is_overwritten_and_nothing_of_it_is_shown() {
    let mut service = Service::new("", false);
    let mut web = WebSocket::<_, 131>::new(&mut service, Upgrade::new(Seed::from_number(1)));
    let secret = [b's'; 300];
    let mut rest = &secret[..];
    while !rest.is_empty() {
        let len = embedded_io::Write::write(&mut web, rest).unwrap();
        rest = &rest[len..];
    }
    embedded_io::Write::flush(&mut web).unwrap();
    assert_eq!(web.out, [0; 131]);
    assert!(WebSocketError::<ErrorKind>::Frame(FrameError::Text).to_string().contains("frame of text"));
    assert_eq!(service.written.len(), 300 + 3 * 6);
}

#[test]
fn what_a_service_said_before_it_went_is_read_all_the_same() {
    let mut service = Service::new("", true);
    // A ping, data, and the end; and nothing is taken any more.
    service.answer = [0x89, 0, 0x82, 2, b'n', b'o'].into_iter().rev().collect();
    let mut web = WebSocket::<_, 131>::new(Broken(service), Upgrade::new(Seed::from_number(1)));
    let (mut said, mut buffer) = (Vec::new(), [0; 8]);
    loop {
        assert_eq!(web.wait_readable(Duration::from_secs(1)), Ok(true));
        match embedded_io::Read::read(&mut web, &mut buffer) {
            Ok(0) => break,
            Ok(len) => said.extend_from_slice(&buffer[..len]),
            Err(error) => assert_eq!(error, WebSocketError::NoData),
        }
    }
    assert_eq!(said, b"no");
    assert_eq!(embedded_io::Write::flush(&mut web), Err(WebSocketError::Stream(ErrorKind::BrokenPipe)));
}

/// A stream of which only the reading is left.
struct Broken(Service);

impl embedded_io::ErrorType for Broken {
    type Error = ErrorKind;
}

impl embedded_io::Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.take(buffer)
    }
}

impl embedded_io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> Result<usize, ErrorKind> {
        Err(ErrorKind::BrokenPipe)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Err(ErrorKind::BrokenPipe)
    }
}

impl Stream for Broken {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        self.0.wait_readable(limit)
    }
}

#[test]
fn the_ram_of_a_websocket_is_its_frame_and_little_else() {
    assert!(size_of::<WebSocket<(), 512>>() - 512 <= 256, "{}", size_of::<WebSocket<(), 512>>());
}
