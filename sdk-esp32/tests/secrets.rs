//! What becomes of passwords and tokens in a configuration.
#![expect(clippy::unwrap_used, reason = "a failure of what a test sets up fails the test")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use steadfast_core::{AnyProfile, Config, Credential, Failure, Instant, RamOutbox, Seed, Service};
use steadfast_esp32::{Board, Buffers, Connect, Device, Dial, Stream};

const SECRET: &str = "hunter2-and-more";

const BROKER: Service<&str> = Service::Broker { host: "broker.example", client_id: "pump-7" };

static WITH_PASSWORD: Config<&str> = Config::new(BROKER, Credential::Password { user_name: "pump", password: SECRET });

static WITH_TOKEN: Config<&str> =
    Config::new(Service::Hub { host: "contoso.azure-devices.net", device_id: "pump-7" }, Credential::Token(SECRET));

/// A board whose clock goes on by itself, and which dials.
#[derive(Clone, Debug, Default)]
struct Lab {
    now: Rc<Cell<u64>>,
    /// Most bytes its streams take in all.
    takes: usize,
}

impl Board for Lab {
    fn now(&self) -> Instant {
        self.now.set(self.now.get() + 1);
        Instant::from_millis(self.now.get())
    }

    fn unix_secs(&self) -> Option<u64> {
        Some(1_780_000_000)
    }

    fn sleep(&mut self, span: Duration) {
        self.now.set(self.now.get() + u64::try_from(span.as_millis()).unwrap());
    }
}

impl Connect for Lab {
    type Stream = Line;

    fn connect(&mut self, _: &Dial<'_>) -> Result<Line, Failure> {
        Ok(Line { lab: self.clone(), takes: self.takes })
    }
}

/// A stream on which nothing ever comes.
#[derive(Debug)]
struct Line {
    lab: Lab,
    takes: usize,
}

impl ErrorType for Line {
    type Error = ErrorKind;
}

impl Read for Line {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, ErrorKind> {
        Err(ErrorKind::TimedOut)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let len = bytes.len().min(self.takes).min(5);
        self.takes -= len;
        if len == 0 { Err(ErrorKind::TimedOut) } else { Ok(len) }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Stream for Line {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        self.lab.sleep(limit);
        Ok(false)
    }
}

fn holds(text: &[u8], secret: &[u8]) -> bool {
    text.windows(secret.len()).any(|part| part == secret)
}

/// Runs a device for a while on streams that take `takes` bytes; returns what is in the send buffer while it runs, and
/// whether its debug output shows the secret.
fn run(config: &'static Config<&'static str>, takes: usize) -> (Vec<u8>, bool) {
    let (mut rx, mut tx) = (vec![0; config.session.max_inbound], vec![0; config.session.max_outbound.max(2048)]);
    let lab = Lab { takes, ..Lab::default() };
    let buffers = Buffers { rx: &mut rx, tx: &mut tx };
    let mut shown = format!("{buffers:?}");
    let outbox = RamOutbox::<2, 64>::new();
    let mut device =
        Device::new(lab.clone(), lab, AnyProfile::new(config, [0; 256]), outbox, Seed::from_number(7), buffers)
            .unwrap();
    device.start();
    for _ in 0..8 {
        device.poll(Duration::from_secs(1));
        shown.push_str(&format!("{device:?}"));
    }
    let numbers: Vec<String> = SECRET.bytes().map(|byte| byte.to_string()).collect();
    let shows = shown.contains(SECRET) || shown.contains(&numbers[..4].join(", "));
    drop(device);
    (tx, shows)
}

#[test]
fn a_device_shows_no_password_and_no_token() {
    for config in [&WITH_PASSWORD, &WITH_TOKEN] {
        let (sent, shows) = run(config, 0);
        assert!(holds(&sent, SECRET.as_bytes()), "the CONNECT waits to be written");
        assert!(!shows);
    }
}

#[test]
fn a_password_that_was_written_is_gone_from_the_buffer() {
    for config in [&WITH_PASSWORD, &WITH_TOKEN] {
        let (sent, shows) = run(config, usize::MAX);
        assert!(!shows);
        for part in SECRET.as_bytes().windows(4) {
            assert!(!holds(&sent, part), "left in the buffer");
        }
    }
}
