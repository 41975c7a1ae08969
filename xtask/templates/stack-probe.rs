//! The set-up and the main loop of examples that need a board: what they take of the stack, apart from what the board's
//! own clock, key, TCP and TLS take. Nothing runs it.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::pin::{Pin, pin};
use core::task::{Context, Waker};
use core::time::Duration;

use static_cell::ConstStaticCell;
use steadfast_core::{Checked, Config, Credential, Failure, Instant, Message, Provisioned, RamOutbox, Seed, Service};
use steadfast_esp32::nonblocking::{self, Dialler, Timer};
use steadfast_esp32::{Board, Buffers, Connect, Device, Dial, OwnedDial, Poll, Stream};

const fn config(size: usize) -> Checked {
    let host = steadfast_core::dps::topics::GLOBAL_HOST;
    let service = Service::Provisioned { host, id_scope: "0ne00ABCDEF", registration_id: "pump-7" };
    let mut config = Config::new(service, Credential::SharedKey);
    (config.session.max_inbound, config.session.max_outbound) = (size, size);
    config.checked()
}

struct Machine;

impl Board for Machine {
    fn now(&self) -> Instant {
        Instant::from_millis(black_box(0))
    }

    fn unix_secs(&self) -> Option<u64> {
        black_box(None)
    }

    fn sleep(&mut self, span: Duration) {
        black_box(span);
    }
}

struct Line;

impl embedded_io::ErrorType for Line {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        black_box(buffer);
        black_box(Ok(0))
    }
}

impl embedded_io::Write for Line {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Self::Error> {
        black_box(buffer);
        black_box(Ok(0))
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        black_box(Ok(()))
    }
}

impl Stream for Line {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, Self::Error> {
        black_box(limit);
        black_box(Ok(true))
    }
}

impl embedded_io_async::Read for Line {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        embedded_io::Read::read(self, buffer)
    }
}

impl embedded_io_async::Write for Line {
    async fn write(&mut self, buffer: &[u8]) -> Result<usize, Self::Error> {
        embedded_io::Write::write(self, buffer)
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        black_box(Ok(()))
    }
}

struct Network;

impl Connect for Network {
    type Stream = Line;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Line, Failure> {
        black_box(dial);
        black_box(Ok(Line))
    }
}

struct Clock;

impl Timer for Clock {
    async fn wait_until(&mut self, at: Instant) {
        black_box(at);
    }
}

/// As `examples/esp32-idf` and the README do.
macro_rules! blocking {
    ($name:ident, $messages:literal, $bytes:literal, $size:literal) => {
        #[inline(never)]
        fn $name(seed: [u8; 16]) {
            static CONFIG: Checked = config($size);
            static RX: ConstStaticCell<[u8; $size]> = ConstStaticCell::new([0; $size]);
            static TX: ConstStaticCell<[u8; $size]> = ConstStaticCell::new([0; $size]);
            static OUTBOX: ConstStaticCell<RamOutbox<$messages, $bytes>> = ConstStaticCell::new(RamOutbox::new());
            let buffers = Buffers { rx: RX.take(), tx: TX.take() };
            let profile = Provisioned::new(&CONFIG);
            let Ok(mut device) = Device::new(Machine, Network, profile, OUTBOX.take(), Seed::new(seed), buffers) else {
                return;
            };
            device.start();
            loop {
                let _ = black_box(device.send(Message::telemetry("", black_box(b"{\"celsius\":21.5}"))));
                match device.poll(black_box(Duration::from_secs(5))) {
                    Poll::Message(message) => {
                        let ack = message.ack;
                        device.acknowledge(ack);
                    }
                    other => {
                        black_box(other);
                    }
                }
            }
        }
    };
}

blocking!(readme, 16, 4096, 2048);
blocking!(idf, 32, 16384, 4096);

/// As `examples/esp32-c3` does; its task is static there, and lies in this frame here.
#[inline(never)]
fn bare(seed: [u8; 16]) {
    let task = pin!(task(seed));
    go(task);
}

/// The stack that the executor's call of the task takes.
#[inline(never)]
fn go(mut task: Pin<&mut impl Future<Output = ()>>) {
    while task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
}

async fn task(seed: [u8; 16]) {
    static CONFIG: Checked = config(2048);
    static RX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static TX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static OUTBOX: ConstStaticCell<RamOutbox<16, 4096>> = ConstStaticCell::new(RamOutbox::new());
    let buffers = Buffers { rx: RX.take(), tx: TX.take() };
    let room = pin!(None);
    let dialler = Dialler::new(|to: &OwnedDial| { black_box(to); async { black_box(Ok(Line)) } }, room);
    let profile = Provisioned::new(&CONFIG);
    let made = nonblocking::Device::new(Machine, dialler, Clock, profile, OUTBOX.take(), Seed::new(seed), buffers);
    let Ok(mut device) = made else { return };
    device.start();
    loop {
        let _ = black_box(device.send(Message::telemetry("", black_box(b"{\"celsius\":21.5}"))));
        match device.poll(black_box(Duration::from_secs(5))).await {
            Poll::Message(message) => {
                let ack = message.ack;
                device.acknowledge(ack);
            }
            other => {
                        black_box(other);
                    }
        }
    }
}

/// Where the linker starts.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    loop {
        readme(black_box([0; 16]));
        idf(black_box([0; 16]));
        bare(black_box([0; 16]));
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
