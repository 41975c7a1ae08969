//! A device without operating system and heap, on QEMU's riscv32 machine: it provisions, sends telemetry through an
//! outage and a move to another hub, takes a message, and says how much memory that took.
#![no_std]
#![no_main]

mod machine;
mod net;

use core::cell::RefCell;
use core::fmt::Write as _;
use core::time::Duration;

use machine::{Card, Serial};
use net::{Dialler, Stack};
use smoltcp::iface::SocketStorage;
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::text::Text;
use steadfast_core::{
    Config, Credential, Event, Failure, Instant, Message, RamOutbox, RetryPolicy, Role, Seed, Service, Subscriptions,
};
use steadfast_esp32::{Board, Buffers, Device, Poll};

/// What the judge enrolled: 32 bytes 0x07 in base64.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Pause between two messages.
const PACE: Duration = Duration::from_millis(50);

/// The story must end by then.
const PATIENCE_MS: u64 = 90_000;

const RX: usize = 2048;
const TX: usize = 2048;

type Outbox = RamOutbox<8, 2048>;

struct Machine<'s, 'a> {
    stack: &'s RefCell<Stack<'a>>,
    key: SymmetricKey,
}

impl Board for Machine<'_, '_> {
    fn now(&self) -> Instant {
        Instant::from_millis(machine::millis())
    }

    fn unix_secs(&self) -> Option<u64> {
        Some(machine::unix_secs())
    }

    fn sign(&mut self, _: Role, text: &Text<'_>) -> Result<[u8; 32], Failure> {
        Ok(self.key.sign(text))
    }

    fn sleep(&mut self, span: Duration) {
        let until = self.now().after(span);
        while self.now() < until {
            self.stack.borrow_mut().poll();
        }
    }
}

macro_rules! say {
    ($($part:tt)*) => { let _ = writeln!(Serial, $($part)*); };
}

#[expect(unsafe_code, reason = "the start-up code calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let passed = story();
    let (used, size) = machine::stack();
    say!("memory: stack {used} of {size}, variables {}", machine::variables());
    machine::exit(passed)
}

fn story() -> bool {
    let orders = machine::orders();
    let Some(card) = Card::find() else {
        say!("there is no network card");
        return false;
    };
    let Ok(key) = SymmetricKey::from_base64(KEY) else { return false };
    let (mut storage, mut tcp_rx, mut tcp_tx) = ([SocketStorage::EMPTY; 1], [0; 2048], [0; 2048]);
    let stack = RefCell::new(Stack::new(card, &mut storage, &mut tcp_rx, &mut tcp_tx, orders.seed));

    let service = Service::Provisioned {
        host: steadfast_core::azure::dps::GLOBAL_HOST,
        id_scope: "0ne00EMULATOR",
        registration_id: "pump-7",
    };
    let mut config = Config::new(service, Credential::SharedKey);
    config.max_inbound = RX;
    config.max_outbound = TX;
    config.subscriptions = Subscriptions::CLOUD_TO_DEVICE;
    // A test does not wait for minutes; the shape of the back-off stays.
    config.retry = RetryPolicy::DEFAULT.divided_by(20);
    config.reprovisioning.spread = Duration::from_secs(1);

    let (mut rx, mut tx) = ([0; RX], [0; TX]);
    let buffers = Buffers { rx: &mut rx, tx: &mut tx };
    let board = Machine { stack: &stack, key };
    let dialler = Dialler { stack: &stack, port: orders.port };
    let seed = Seed::from_number(orders.seed);
    let mut device = match Device::new(board, dialler, &config, Outbox::new(), seed, buffers) {
        Ok(device) => device,
        Err(error) => {
            say!("{error}");
            return false;
        }
    };
    say!("device: {} bytes with its buffers", size(&device) + RX + TX);

    device.start();
    let (mut sent, mut received, mut moves, mut stopping) = (0, 0, 0, false);
    let mut next_at = 0;
    while machine::millis() < PATIENCE_MS {
        match device.poll(PACE) {
            Poll::Event(Event::Stopped) => {
                let ledger = device.link().ledger();
                say!("accepted {} delivered {} received {received} moves {moves}", ledger.accepted, ledger.delivered);
                return ledger.balances() && ledger.delivered == ledger.accepted && ledger.queued == 0;
            }
            Poll::Event(Event::Provisioned { migrated }) => {
                moves += u32::from(migrated);
                say!("provisioned, migrated: {migrated}");
            }
            Poll::Event(Event::Up { session_present }) => {
                say!("up, session present: {session_present}");
            }
            Poll::Event(Event::Down(failure)) => {
                say!("down: {failure}");
            }
            Poll::Event(_) | Poll::Idle => {}
            Poll::Message(message) => {
                let (ack, len) = (message.ack, message.payload.len());
                received += 1;
                say!("message of {len} bytes, acknowledged: {}", device.acknowledge(ack));
            }
            _ => {}
        }
        let now = machine::millis();
        if sent < orders.messages && now >= next_at {
            let mut text = [0; 48];
            let body = number(sent, &mut text);
            // A full outbox is no error here: the measurement is tried again.
            if let Ok(id) = device.send(Message::telemetry("", body)) {
                say!("accepted {id}");
                sent += 1;
                next_at = now + PACE.as_millis() as u64;
            }
        }
        let done = sent == orders.messages && device.link().ledger().queued == 0 && received > 0 && moves > 0;
        if done && !stopping {
            stopping = true;
            device.stop(Duration::from_secs(5));
        }
    }
    say!("no end: {}", device.link().status());
    false
}

fn size<T>(_: &T) -> usize {
    size_of::<T>()
}

/// Writes `{"n":<number>}`.
fn number(number: u32, buffer: &mut [u8]) -> &[u8] {
    let text = Text::of([
        steadfast_core::text::Part::Plain("{\"n\":"),
        steadfast_core::text::Part::Number(u64::from(number)),
        steadfast_core::text::Part::Plain("}"),
    ]);
    text.to_str(buffer).unwrap_or_default().as_bytes()
}
