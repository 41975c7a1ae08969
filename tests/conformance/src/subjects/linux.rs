//! `steadfast` on tokio's paused clock. Its sockets are real, on an address of this machine that no other test has; what
//! is at their other end is the cloud.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::{Device, Dps, Inbound, MethodCall, Seed, Subscriptions};
use steadfast_core::{Ledger, Message, State};
use steadfast_sim::EPOCH_SECS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{self, sleep_until};

use crate::cloud::{DEVICE, HOSTS, KEY_BASE64, SCOPE, Shared};
use crate::plan::{BYTES, PACKET, Plan, SERVICE_BYTES, SLOTS};
use crate::{Seen, Subject};

/// Numbers the addresses of this process.
static ADDRESSES: AtomicU32 = AtomicU32::new(1);

/// The sockets of the cloud.
struct Place {
    cloud: Shared,
    /// When the cloud's time was 0.
    origin: time::Instant,
    /// The scenario has changed the cloud.
    changed: Notify,
}

impl Place {
    /// Sets the cloud's time to the runtime's.
    fn tick(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.cloud.borrow_mut().now = now;
    }

    async fn listen(self: Rc<Self>, listener: TcpListener, host: &'static str) {
        while let Ok((stream, _)) = listener.accept().await {
            self.tick();
            let Some(id) = self.cloud.borrow_mut().open(host) else { continue };
            tokio::task::spawn_local(Rc::clone(&self).serve(stream, id));
        }
    }

    /// Carries bytes between a socket and the cloud until either ends.
    async fn serve(self: Rc<Self>, mut stream: TcpStream, id: u64) {
        let _ = stream.set_nodelay(true);
        let mut bytes = vec![0; PACKET];
        loop {
            self.tick();
            let arrived = self.cloud.borrow_mut().read(id, usize::MAX);
            match arrived {
                Some(bytes) if bytes.is_empty() => break,
                Some(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        break;
                    }
                    continue;
                }
                None => {}
            }
            let arrival = self.cloud.borrow().arrival(id).map(Duration::from_millis);
            tokio::select! {
                biased;
                read = stream.read(&mut bytes) => match read {
                    Ok(len) if len > 0 => {
                        self.tick();
                        if !self.cloud.borrow_mut().write(id, &bytes[..len]) {
                            break;
                        }
                    }
                    Ok(_) | Err(_) => break,
                },
                () = sleep_until(self.origin + arrival.unwrap_or_default()), if arrival.is_some() => {}
                () = self.changed.notified() => {}
            }
        }
        self.tick();
        self.cloud.borrow_mut().leave(id);
    }
}

/// What the application holds of calls and messages.
#[derive(Default)]
struct Held {
    handles: u64,
    calls: BTreeMap<u64, MethodCall>,
    messages: BTreeMap<u64, Inbound>,
}

/// `steadfast`.
pub struct Linux {
    place: Rc<Place>,
    address: Ipv4Addr,
    ports: Vec<u16>,
    listeners: RefCell<Vec<Option<JoinHandle<()>>>>,
    device: Device,
    driver: Option<steadfast::Driver>,
    events: steadfast::Events,
    desired: steadfast::DesiredProperties,
    held: Held,
    // Dropped last: what is above belongs to it.
    local: LocalSet,
    runtime: Runtime,
}

impl Linux {
    /// Opens the sockets of hosts that can be reached, and closes those of hosts that cannot.
    fn sync(&self) {
        let mut listeners = self.listeners.borrow_mut();
        for (number, host) in HOSTS.into_iter().enumerate() {
            let reachable = self.place.cloud.borrow().is_reachable(host);
            match listeners[number].take() {
                Some(task) if reachable => listeners[number] = Some(task),
                Some(task) => {
                    task.abort();
                    // Its socket is closed when it has ended.
                    let _ = self.local.block_on(&self.runtime, task);
                }
                None if reachable => {
                    let address = SocketAddr::from((self.address, self.ports[number]));
                    let listener = self.local.block_on(&self.runtime, TcpListener::bind(address));
                    let listener = listener.expect("a port that was bound before");
                    let listen = Rc::clone(&self.place).listen(listener, host);
                    listeners[number] = Some(self.local.spawn_local(listen));
                }
                None => {}
            }
        }
        self.place.changed.notify_waiters();
    }
}

/// An address of this machine that nobody else uses.
fn address() -> Ipv4Addr {
    let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
    let [.., a, b] = std::process::id().to_be_bytes();
    let [.., c] = number.to_be_bytes();
    Ipv4Addr::new(127, a | 0x80, b, c)
}

impl Subject for Linux {
    fn new(cloud: &Shared, plan: &Plan) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let (address, ports) = (address(), 18_001..18_004);
        let ports: Vec<u16> = ports.collect();
        let now = Duration::from_millis(cloud.borrow().now);
        let entered = runtime.enter();
        let origin = time::Instant::now().checked_sub(now).expect("an instant before");
        steadfast::follow_tokio_clock(origin, EPOCH_SECS);
        let place = Rc::new(Place { cloud: Rc::clone(cloud), origin, changed: Notify::new() });
        let mut builder = Device::builder()
            .provision_with(Dps::new(SCOPE, DEVICE))
            .shared_key(KEY_BASE64)
            .plaintext_unprotected()
            .subscriptions(Subscriptions::ALL)
            .outbox(SLOTS, BYTES)
            .service_room(SERVICE_BYTES, SERVICE_BYTES)
            .overflow(plan.overflow)
            .window(plan.window)
            .keep_alive(plan.keep_alive)
            .seed(Seed::from_number(7));
        for (host, port) in HOSTS.into_iter().zip(&ports) {
            builder = builder.resolve(host, [SocketAddr::from((address, *port))]);
        }
        if let Some(expiry) = plan.expiry {
            builder = builder.expiry(expiry);
        }
        if let Some(connections) = plan.poison_threshold {
            builder = builder.poison_threshold(connections);
        }
        if plan.keeps {
            builder = builder.assignment_file(cloud.borrow().kept.directory.path().join("assignment"));
        }
        let (device, driver) = builder.build().expect("a good set-up");
        let (events, desired) = (device.events(), device.twin().desired());
        let listeners = RefCell::new(HOSTS.map(|_| None).into());
        let (driver, held, local) = (Some(driver), Held::default(), LocalSet::new());
        drop(entered);
        Self { place, address, ports, listeners, device, driver, events, desired, held, local, runtime }
    }

    fn start(&mut self) {
        if let Some(driver) = self.driver.take() {
            self.local.spawn_local(driver);
        }
    }

    fn stop(&mut self, drain: Duration) {
        let device = self.device.clone();
        self.local.spawn_local(async move { device.stop(drain).await });
    }

    fn publish(&mut self, message: Message<'_>) -> Option<u64> {
        let _entered = self.runtime.enter();
        match self.device.try_send(message) {
            Ok(receipt) => Some(receipt.id().get()),
            Err(steadfast::SendError::Full) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn report(&mut self, patch: &str) {
        let _entered = self.runtime.enter();
        drop(self.device.twin().report(patch).expect("room for reported properties"));
    }

    fn respond(&mut self, call: u64, status: u16, body: &str) -> bool {
        let _entered = self.runtime.enter();
        self.held.calls.remove(&call).expect("a call").respond(status, body.as_bytes()).is_ok()
    }

    fn acknowledge(&mut self, message: u64) -> bool {
        let _entered = self.runtime.enter();
        self.held.messages.remove(&message).expect("a message").acknowledge()
    }

    fn poll(&mut self, limit: Duration) -> Option<Seen> {
        self.sync();
        let Self { device, events, desired, held, local, runtime, place, .. } = self;
        held.handles += 1;
        let handle = held.handles;
        let (mut calls, mut messages) = {
            let _entered = runtime.enter();
            (device.direct_methods(), device.messages())
        };
        let seen = local.block_on(runtime, async {
            let limit = time::Instant::now() + limit;
            tokio::select! {
                biased;
                Some(event) = events.next() => Some(Seen::from(&event)),
                Some(change) = desired.next() => Some(match change {
                    steadfast::Desired::Full(twin) => Seen::twin(&twin.desired, twin.desired_version),
                    steadfast::Desired::Patch { version, patch } => Seen::desired(&patch, version),
                    _ => Seen::Other,
                }),
                Some(call) = calls.next() => {
                    let payload = String::from_utf8_lossy(call.payload()).into_owned();
                    let seen = Seen::Call { handle, name: call.name().to_owned(), payload };
                    held.calls.insert(handle, call);
                    Some(seen)
                }
                Some(message) = messages.next() => {
                    let payload = String::from_utf8_lossy(message.payload()).into_owned();
                    let seen = Seen::Message { handle, payload, duplicate: message.is_duplicate() };
                    held.messages.insert(handle, message);
                    Some(seen)
                }
                () = sleep_until(limit) => None,
            }
        });
        let _entered = runtime.enter();
        place.tick();
        seen
    }

    fn ledger(&self) -> Ledger {
        self.device.ledger()
    }

    fn state(&self) -> State {
        self.device.status().state
    }

    fn power_off(self) {
        drop(self.local);
        drop(self.runtime);
        self.place.cloud.borrow_mut().leave_all();
    }
}
