//! A device without operating system and heap, on QEMU's riscv32 machine: it provisions, sends telemetry through an
//! outage and a move to another hub, takes a message, and says how much memory that took.
#![no_std]
#![no_main]

/// Writes a line to the serial line.
macro_rules! say {
    ($($part:tt)*) => {{
        use core::fmt::Write as _;
        let _ = writeln!($crate::machine::Serial, $($part)*);
    }};
}

mod machine;
mod net;
#[cfg(feature = "tls")]
mod tls;

use core::cell::RefCell;
use core::mem::MaybeUninit;
use core::time::Duration;

use machine::{Card, Orders, Slot};
use net::{Shared, Stack};
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::text::Text;
use steadfast_core::{
    Checked, Config, Credential, Event, Failure, Instant, Message, Provisioned, RamOutbox, RetryPolicy, Seed, Service,
    SignRequest, Subscriptions, iothub,
};
use steadfast_esp32::{Board, Buffers, Device, Poll};

/// What the judge enrolled: 32 bytes 0x07 in base64.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Pause between two messages.
const PACE: Duration = Duration::from_millis(50);

/// The scenario must end by then.
const PATIENCE_MS: u64 = 90_000;

const RX: usize = 2048;
const TX: usize = 2048;

type Outbox = RamOutbox<8, 2048>;

struct Machine {
    stack: &'static Shared,
    key: SymmetricKey,
}

impl Board for Machine {
    fn now(&self) -> Instant {
        Instant::from_millis(machine::millis())
    }

    fn unix_secs(&self) -> Option<u64> {
        Some(machine::unix_secs())
    }

    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        Ok(self.key.sign(&request.text))
    }

    fn sleep(&mut self, span: Duration) {
        let until = self.now().after(span);
        while self.now() < until {
            self.stack.borrow_mut().poll();
        }
    }
}

#[expect(unsafe_code, reason = "the start-up code calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let passed = run().unwrap_or_else(|why| {
        say!("{why}");
        false
    });
    let (used, size) = machine::stack();
    say!("memory: stack {used} of {size}, variables {}", machine::variables());
    machine::exit(passed)
}

#[cfg(not(feature = "tls"))]
type Line = net::Dialler;
#[cfg(feature = "tls")]
type Line = tls::Dialler;

type Pump = Device<'static, Machine, Line, &'static mut Outbox, Provisioned<&'static Checked>>;

// What is large lies here, and what makes it returns before anything else is called: on the stack it would lie several
// times, once for each move, below everything that runs later.
static STACK: Slot<MaybeUninit<Shared>> = Slot::empty();
static LINE: Slot<Option<Line>> = Slot::new(None);
static CONFIG: Checked = config().checked();
static RECEIVED: Slot<[u8; RX]> = Slot::new([0; RX]);
static TO_SEND: Slot<[u8; TX]> = Slot::new([0; TX]);
static OUTBOX: Slot<Outbox> = Slot::new(Outbox::new());
static PUMP: Slot<MaybeUninit<Pump>> = Slot::empty();

const TWICE: &str = "set up twice";

/// Random bytes, one part for each use: no two may see the same.
struct Entropy {
    network: [u8; 8],
    device: [u8; 16],
    #[cfg(feature = "tls")]
    tls: [u8; 32],
}

fn run() -> Result<bool, &'static str> {
    let no_entropy = "there is no source of entropy";
    let bytes = machine::entropy::<56>().ok_or(no_entropy)?;
    let entropy = Entropy {
        network: *bytes.first_chunk().ok_or(no_entropy)?,
        device: *bytes.get(8..).and_then(|rest| rest.first_chunk()).ok_or(no_entropy)?,
        #[cfg(feature = "tls")]
        tls: *bytes.last_chunk().ok_or(no_entropy)?,
    };
    let orders = machine::orders();
    let stack = network(&entropy)?;
    let line = LINE.take().ok_or(TWICE)?;
    dialler(stack, orders, &entropy, line)?;
    #[cfg(feature = "tls")]
    line.as_mut().ok_or(TWICE)?.try_strangers(orders.nobody);
    let device = device(stack, line.take().ok_or(TWICE)?, &entropy)?;
    say!("device: {} bytes with its buffers", Pump::ram(RX, TX));
    Ok(scenario(device, orders.messages))
}

#[inline(never)]
fn network(entropy: &Entropy) -> Result<&'static Shared, &'static str> {
    let card = Card::find().ok_or("there is no network card")?;
    let stack = Stack::new(card, u64::from_le_bytes(entropy.network)).ok_or(TWICE)?;
    Ok(STACK.take().ok_or(TWICE)?.write(RefCell::new(stack)))
}

#[inline(never)]
fn dialler(
    stack: &'static Shared,
    orders: Orders,
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "plain TCP keeps no secrets"))]
    entropy: &Entropy,
    line: &mut Option<Line>,
) -> Result<(), &'static str> {
    let tcp = net::Dialler { stack, port: orders.port };
    #[cfg(feature = "tls")]
    let tcp = tls::Dialler::new(tcp, orders.authority, entropy.tls).ok_or(TWICE)?;
    *line = Some(tcp);
    Ok(())
}

#[inline(never)]
fn device(stack: &'static Shared, line: Line, entropy: &Entropy) -> Result<&'static mut Pump, &'static str> {
    let key = SymmetricKey::from_base64(KEY).map_err(|_| "the key is no key")?;
    let board = Machine { stack, key };
    let buffers = Buffers { rx: RECEIVED.take().ok_or(TWICE)?, tx: TO_SEND.take().ok_or(TWICE)? };
    let outbox = OUTBOX.take().ok_or(TWICE)?;
    let place = PUMP.take().ok_or(TWICE)?;
    Device::init(place, board, line, Provisioned::new(&CONFIG), outbox, Seed::new(entropy.device), buffers)
        .map_err(|_| "configuration and buffers do not go together")
}

const fn config() -> Config<&'static str> {
    let service = Service::Provisioned {
        host: steadfast_core::dps::topics::GLOBAL_HOST,
        id_scope: "0ne00EMULATOR",
        registration_id: "pump-7",
    };
    let mut config = Config::new(service, Credential::SharedKey);
    config.session.max_inbound = RX;
    config.session.max_outbound = TX;
    config.subscriptions = Subscriptions::CLOUD_TO_DEVICE;
    // A test does not wait for minutes; the shape of the back-off stays.
    config.session.retry = RetryPolicy::DEFAULT.divided_by(20);
    config.reprovisioning.spread = Duration::from_secs(1);
    config
}

#[inline(never)]
fn scenario(device: &mut Pump, messages: u32) -> bool {
    device.start();
    let (mut sent, mut received, mut moves, mut stopping) = (0, 0, 0, false);
    let mut next_at = 0;
    while machine::millis() < PATIENCE_MS {
        match device.poll(PACE) {
            Poll::Event(iothub::Event::Link(Event::Stopped)) => {
                let ledger = device.link().ledger();
                say!("accepted {} delivered {} received {received} moves {moves}", ledger.accepted, ledger.delivered);
                return ledger.balances() && ledger.delivered == ledger.accepted && ledger.queued == 0;
            }
            Poll::Event(iothub::Event::Link(Event::Provisioned { migrated })) => {
                moves += u32::from(migrated);
                say!("provisioned, migrated: {migrated}");
            }
            Poll::Event(iothub::Event::Link(Event::Up { session_present })) => {
                say!("up, session present: {session_present}");
            }
            Poll::Event(iothub::Event::Link(Event::Down(failure))) => {
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
        if sent < messages && now >= next_at {
            let mut text = [0; 48];
            let body = number(sent, &mut text);
            // A full outbox is no error here: the measurement is tried again.
            if let Ok(id) = device.send(Message::telemetry("", body)) {
                say!("accepted {id}");
                sent += 1;
                next_at = now + PACE.as_millis() as u64;
            }
        }
        let done = sent == messages && device.link().ledger().queued == 0 && received > 0 && moves > 0;
        if done && !stopping {
            stopping = true;
            device.stop(Duration::from_secs(5));
        }
    }
    say!("no end: {}", device.link().status());
    false
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
