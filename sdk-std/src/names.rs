//! Looking up host names: one look-up per name at a time, for all devices of the process.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use steadfast_core::{Failure, LocalFailure};
use tokio::sync::Notify;

use crate::connect::lacks_resources;
use crate::threads::{Job, Threads};

/// How long an answer is shared: only among devices that try at the same moment.
const FRESH: Duration = Duration::from_secs(1);

/// How long a look-up can be joined. The resolver's own timeout is shorter, unless it hangs.
const JOINED: Duration = Duration::from_secs(60);

/// The addresses of a name, without ports.
pub(crate) type Found = Result<Arc<[SocketAddr]>, Failure>;

type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks up names.
pub(crate) struct Names {
    threads: &'static Threads,
    resolve: Box<Resolve>,
    flights: Mutex<HashMap<Box<str>, Arc<Flight>>>,
}

/// A look-up, running or just finished.
struct Flight {
    begun: Instant,
    found: OnceLock<(Instant, Found)>,
    landed: Notify,
}

impl Flight {
    fn is_of_use(&self) -> bool {
        match self.found.get() {
            Some((at, _)) => at.elapsed() < FRESH,
            None => self.begun.elapsed() < JOINED,
        }
    }

    fn land(&self, found: Found) {
        let _ = self.found.set((Instant::now(), found));
        self.landed.notify_waiters();
    }
}

impl Names {
    pub(crate) fn new(
        threads: &'static Threads,
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { threads, resolve: Box::new(resolve), flights: Mutex::default() }
    }

    /// Looks up the addresses of `host`; concurrent callers share one look-up.
    ///
    /// Dropping the future does not cancel the look-up for others.
    pub(crate) async fn find(&'static self, host: &str) -> Found {
        let (flight, first) = self.join(host);
        if first {
            let search = Search { names: self, host: host.into(), flight: Arc::clone(&flight) };
            if self.threads.submit(Box::new(search)).is_err() {
                self.forget(host, &flight);
                flight.land(Err(Failure::Local(LocalFailure::Resources)));
            }
        }
        loop {
            let mut landed = pin!(flight.landed.notified());
            landed.as_mut().enable();
            if let Some((_, found)) = flight.found.get() {
                return found.clone();
            }
            landed.await;
        }
    }

    fn join(&self, host: &str) -> (Arc<Flight>, bool) {
        let mut flights = self.lock();
        flights.retain(|_, flight| flight.is_of_use());
        if let Some(flight) = flights.get(host) {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight { begun: Instant::now(), found: OnceLock::new(), landed: Notify::new() });
        flights.insert(host.into(), Arc::clone(&flight));
        (flight, true)
    }

    fn forget(&self, host: &str, flight: &Arc<Flight>) {
        let mut flights = self.lock();
        if flights.get(host).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            flights.remove(host);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Search {
    names: &'static Names,
    host: Box<str>,
    flight: Arc<Flight>,
}

impl Job for Search {
    fn is_wanted(&self) -> bool {
        // The lock prevents another caller from joining it.
        let mut flights = self.names.lock();
        let known = flights.get(&self.host).is_some_and(|known| Arc::ptr_eq(known, &self.flight));
        let wanted = Arc::strong_count(&self.flight) > 1 + usize::from(known);
        if known && !wanted {
            flights.remove(&self.host);
        }
        wanted
    }

    fn run(self: Box<Self>) {
        let found = match (self.names.resolve)(&self.host) {
            Ok(found) if found.is_empty() => Err(Failure::Unresolved),
            Ok(found) => Ok(found.into()),
            Err(error) => {
                tracing::debug!(host = &*self.host, %error, "the host name was not resolved");
                // The resolver does not report a lack of file descriptors.
                let lacks = lacks_resources(&error)
                    || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_err_and(|error| lacks_resources(&error));
                Err(if lacks { Failure::Local(LocalFailure::Resources) } else { Failure::Unresolved })
            }
        };
        self.flight.land(found);
    }
}

impl Drop for Search {
    /// A look-up that panicked has no result.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.flight.land(Err(Failure::Unresolved));
        }
    }
}

/// Asks the operating system.
#[expect(clippy::disallowed_methods, reason = "on a thread that may wait")]
pub(crate) fn system(host: &str) -> io::Result<Vec<SocketAddr>> {
    (host, 0).to_socket_addrs().map(Iterator::collect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::tests as threads;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    fn address() -> SocketAddr {
        "192.0.2.7:0".parse().unwrap()
    }

    fn names(
        threads: &'static Threads,
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> &'static Names {
        Box::leak(Box::new(Names::new(threads, resolve)))
    }

    #[tokio::test]
    async fn ten_thousand_devices_ask_for_a_name_once() {
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let names = names(threads::threads(16), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = gate.lock().unwrap().recv();
            Ok(vec![address()])
        });
        let mut all: Vec<_> = (0..10_000).map(|_| Box::pin(names.find("hub.example"))).collect();
        for one in &mut all {
            assert!(one.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(go);
        for one in all {
            assert_eq!(&*one.await.unwrap(), [address()]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // The next attempt starts its own look-up.
        std::thread::sleep(FRESH);
        names.find("hub.example").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(names.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_look_up_that_all_have_given_up_is_not_begun_and_one_that_some_want_is() {
        let threads = threads::threads(1);
        let jam = threads::jam(threads);
        let (asked, questions) = mpsc::channel();
        let names = names(threads, move |host| {
            asked.send(host.to_owned()).unwrap();
            Err(io::ErrorKind::NotFound.into())
        });
        let mut given_up = Box::pin(names.find("gone.example"));
        let mut wanted = Box::pin(names.find("hub.example"));
        let mut joined = Box::pin(names.find("hub.example"));
        for one in [&mut given_up, &mut wanted, &mut joined] {
            assert!(one.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop((given_up, wanted));
        drop(jam);
        assert_eq!(joined.await, Err(Failure::Unresolved));
        assert_eq!(questions.try_iter().collect::<Vec<_>>(), ["hub.example"]);
        assert_eq!(names.find("gone.example").await, Err(Failure::Unresolved));
    }

    #[tokio::test]
    async fn a_look_up_without_a_thread_is_a_lack_of_this_device_and_succeeds_later() {
        static SCARCE: AtomicBool = AtomicBool::new(true);
        let names = names(threads::scarce(&SCARCE), |_| Ok(vec![address()]));
        assert_eq!(names.find("hub.example").await, Err(Failure::Local(LocalFailure::Resources)));
        SCARCE.store(false, Ordering::SeqCst);
        assert_eq!(&*names.find("hub.example").await.unwrap(), [address()]);
    }

    #[tokio::test]
    async fn a_resolver_that_panics_has_found_nothing() {
        let names = names(threads::threads(1), |_| panic!("a plug-in of the resolver"));
        assert_eq!(names.find("hub.example").await, Err(Failure::Unresolved));
    }
}
