//! Both forms of `steadfast-esp32`, on streams of the cloud.

use std::collections::BTreeMap;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll as Turn, Waker};
use std::time::Duration;

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use steadfast_core::{
    AnyProfile, Assignment, BackoffSnapshot, CallId, Config, Failure, Instant, Ledger, Message, RamOutbox, Seed,
    SignRequest, State,
};
use steadfast_esp32::{
    Ack, Board, Buffers, Connect, Device, Dial, OwnedDial, Poll, ServiceBuffers, Stream, WithServices, nonblocking,
};

use crate::cloud::{Shared, key};
use crate::plan::{BYTES, PACKET, Plan, SERVICE_BYTES, SLOTS};
use crate::{Seen, Subject};

struct CloudBoard(Shared);

impl Board for CloudBoard {
    fn now(&self) -> Instant {
        Instant::from_millis(self.0.borrow().now)
    }

    fn unix_secs(&self) -> Option<u64> {
        Some(self.0.borrow().unix_secs())
    }

    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        Ok(key().sign(&request.text))
    }

    fn save(&mut self, assignment: &Assignment) {
        self.0.borrow_mut().kept.assignment = Some(assignment.clone());
    }

    fn save_backoff(&mut self, memory: BackoffSnapshot) {
        self.0.borrow_mut().kept.memory = Some(memory);
    }

    fn sleep(&mut self, span: Duration) {
        self.0.borrow_mut().now += millis(span).max(1);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Connects to the cloud.
struct Dialler(Shared);

/// A connection; dropping it closes it.
struct Pipe {
    cloud: Shared,
    id: u64,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.cloud.borrow_mut().leave(self.id);
    }
}

impl Pipe {
    fn open(cloud: &Shared, dial: &Dial<'_>) -> Result<Self, Failure> {
        let id = cloud.borrow_mut().open(dial.host).ok_or(Failure::ConnectionRefused)?;
        Ok(Self { cloud: Rc::clone(cloud), id })
    }

    /// Reads what has arrived; `None` when nothing has.
    fn take(&self, buffer: &mut [u8]) -> Option<usize> {
        let bytes = self.cloud.borrow_mut().read(self.id, buffer.len())?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Some(bytes.len())
    }

    fn put(&self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        if self.cloud.borrow_mut().write(self.id, bytes) { Ok(bytes.len()) } else { Err(ErrorKind::ConnectionReset) }
    }
}

impl ErrorType for Pipe {
    type Error = ErrorKind;
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.take(buffer).ok_or(ErrorKind::TimedOut)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.put(bytes)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Stream for Pipe {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        let mut cloud = self.cloud.borrow_mut();
        let until = cloud.now.saturating_add(millis(limit));
        let arrival = cloud.arrival(self.id).filter(|at| *at <= until);
        cloud.now = cloud.now.max(arrival.unwrap_or(until));
        Ok(arrival.is_some())
    }
}

impl Connect for Dialler {
    type Stream = Pipe;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Pipe, Failure> {
        Pipe::open(&self.0, dial)
    }
}

/// The asynchronous face of a [`Pipe`].
struct AsyncPipe(Pipe);

impl ErrorType for AsyncPipe {
    type Error = ErrorKind;
}

impl embedded_io_async::Read for AsyncPipe {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        poll_fn(|_| self.0.take(buffer).map_or(Turn::Pending, |len| Turn::Ready(Ok(len)))).await
    }
}

impl embedded_io_async::Write for AsyncPipe {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.put(bytes)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

struct AsyncDialler(Shared);

impl nonblocking::Connect for AsyncDialler {
    type Stream = AsyncPipe;
    type Dialling = Ready<Result<AsyncPipe, Failure>>;

    fn connect(&mut self, dial: &OwnedDial) -> Result<Self::Dialling, Failure> {
        Ok(ready(Pipe::open(&self.0, &dial.get()).map(AsyncPipe)))
    }
}

/// Lets virtual time pass when the task has nothing else to wait for.
struct Clock(Shared);

impl nonblocking::Timer for Clock {
    async fn wait_until(&mut self, at: Instant) {
        poll_fn(|_| {
            let mut cloud = self.0.borrow_mut();
            let at = at.as_millis();
            if cloud.now >= at {
                return Turn::Ready(());
            }
            // Not further than to what wakes a read.
            let next = cloud.next_arrival().unwrap_or(at);
            cloud.now = at.min(next.max(cloud.now + 1));
            Turn::Pending
        })
        .await;
    }
}

/// Runs a future whose waker is never called.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Turn::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
    }
    panic!("a poll without end");
}

type Outbox = RamOutbox<SLOTS, BYTES>;
type Settings = AnyProfile<&'static Config<&'static str>>;
type Services = WithServices<'static, Outbox, Settings>;

/// What the application holds of calls and messages.
#[derive(Default)]
struct Held {
    handles: u64,
    calls: BTreeMap<u64, CallId>,
    messages: BTreeMap<u64, Ack>,
}

impl Held {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no scenario asks for the rest")]
    fn seen(&mut self, poll: Poll<'_>) -> Option<Seen> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.handles += 1;
        let handle = self.handles;
        match poll {
            Poll::Event(event) => Some(Seen::from(&event)),
            Poll::Twin(twin) => Some(Seen::twin(twin.desired, twin.desired_version)),
            Poll::Desired { version, patch } => Some(Seen::desired(patch, version)),
            Poll::Call { call, name, payload } => {
                self.calls.insert(handle, call);
                Some(Seen::Call { handle, name: name.raw().to_owned(), payload: text(payload) })
            }
            Poll::CloudToDevice(message) => {
                self.messages.insert(handle, message.ack);
                Some(Seen::Message { handle, payload: text(message.payload), duplicate: message.duplicate })
            }
            Poll::ProvisioningPayload(_) => Some(Seen::Other),
            _ => None,
        }
    }
}

/// The blocking form of `steadfast-esp32`.
pub struct Blocking {
    device: Device<'static, CloudBoard, Dialler, Outbox, Settings, Services>,
    held: Held,
}

/// The asynchronous form of `steadfast-esp32`.
pub struct Asynchronous {
    device: nonblocking::Device<'static, CloudBoard, AsyncDialler, Clock, Outbox, Settings, Services>,
    held: Held,
}

fn buffers() -> Buffers<'static> {
    Buffers { rx: vec![0; PACKET].leak(), tx: vec![0; 2 * PACKET].leak() }
}

fn memory() -> ServiceBuffers<'static> {
    ServiceBuffers { reports: vec![0; SERVICE_BYTES].leak(), answers: vec![0; SERVICE_BYTES].leak() }
}

macro_rules! commands {
    () => {
        fn start(&mut self) {
            self.device.start();
        }

        fn stop(&mut self, drain: Duration) {
            self.device.stop(drain);
        }

        fn publish(&mut self, message: Message<'_>) -> Option<u64> {
            self.device.send(message).ok().map(|id| id.get())
        }

        fn report(&mut self, patch: &str) {
            self.device.report(patch.as_bytes()).expect("room for reported properties");
        }

        fn respond(&mut self, call: u64, status: u16, body: &str) -> bool {
            self.device.respond(self.held.calls[&call], status, body.as_bytes()).is_ok()
        }

        fn acknowledge(&mut self, message: u64) -> bool {
            self.device.acknowledge(self.held.messages[&message])
        }

        fn ledger(&self) -> Ledger {
            self.device.link().ledger()
        }

        fn state(&self) -> State {
            self.device.link().state()
        }

        fn power_off(self) {}
    };
}

macro_rules! restore {
    ($device:ident, $cloud:ident, $plan:ident) => {
        if $plan.keeps {
            let (assignment, memory) = ($cloud.borrow().kept.assignment.clone(), $cloud.borrow().kept.memory);
            if let Some(assignment) = assignment {
                $device.restore_assignment(assignment);
            }
            if let Some(memory) = memory {
                $device.restore_backoff(memory);
            }
        }
    };
}

impl Subject for Blocking {
    fn new(cloud: &Shared, plan: &Plan) -> Self {
        let (board, dialler) = (CloudBoard(Rc::clone(cloud)), Dialler(Rc::clone(cloud)));
        let (outbox, seed) = (Outbox::new(), Seed::from_number(7));
        let device = Device::new(board, dialler, AnyProfile::new(plan.config(), [0; 256]), outbox, seed, buffers())
            .expect("a good set-up");
        let mut device = device.with_services(memory());
        restore!(device, cloud, plan);
        Self { device, held: Held::default() }
    }

    fn poll(&mut self, limit: Duration) -> Option<Seen> {
        self.held.seen(self.device.poll(limit))
    }

    commands!();
}

impl Subject for Asynchronous {
    fn new(cloud: &Shared, plan: &Plan) -> Self {
        let (board, dialler) = (CloudBoard(Rc::clone(cloud)), AsyncDialler(Rc::clone(cloud)));
        let (clock, outbox, seed) = (Clock(Rc::clone(cloud)), Outbox::new(), Seed::from_number(7));
        let room = Pin::static_mut(Box::leak(Box::new(None)));
        let device = nonblocking::Device::new(
            board,
            nonblocking::Dialler::new(dialler, room),
            clock,
            AnyProfile::new(plan.config(), [0; 256]),
            outbox,
            seed,
            buffers(),
        );
        let mut device = device.expect("a good set-up").with_services(memory());
        restore!(device, cloud, plan);
        Self { device, held: Held::default() }
    }

    fn poll(&mut self, limit: Duration) -> Option<Seen> {
        run(async { self.held.seen(self.device.poll(limit).await) })
    }

    commands!();
}
