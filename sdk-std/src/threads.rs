//! Work that blocks, on threads of this crate's own.
//!
//! A runtime's blocking threads belong to the application, delay its shutdown, and panic if the system can create no
//! more. These threads are few, and end with the process.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// How long an idle thread is kept.
const LINGER: Duration = Duration::from_secs(5);

/// Length of the queue from which cancelled work is removed.
const SWEEP: usize = 64;

/// A piece of work.
pub(crate) trait Job: Send {
    /// Whether anybody waits for it.
    fn is_wanted(&self) -> bool;

    fn run(self: Box<Self>);
}

/// Threads for work of one kind: a limited number, created when needed and ended when idle.
pub(crate) struct Threads {
    name: &'static str,
    most: usize,
    state: Mutex<State>,
    work: Condvar,
    make: &'static Make,
}

/// Creates a thread.
pub(crate) type Make = dyn Fn(thread::Builder, &'static Threads) -> io::Result<()> + Sync;

struct State {
    queue: VecDeque<Box<dyn Job>>,
    sweep_at: usize,
    threads: usize,
    idle: usize,
}

impl Threads {
    pub(crate) const fn new(name: &'static str, most: usize) -> Self {
        Self::made_by(&make, name, most)
    }

    pub(crate) const fn made_by(make: &'static Make, name: &'static str, most: usize) -> Self {
        let state = State { queue: VecDeque::new(), sweep_at: SWEEP, threads: 0, idle: 0 };
        Self { name, most, state: Mutex::new(state), work: Condvar::new(), make }
    }

    /// Runs `work` as soon as a thread is free, unless the receiver is dropped by then.
    ///
    /// # Errors
    /// There is no thread, and none can be created.
    pub(crate) async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (sender, done) = oneshot::channel();
        self.submit(Box::new(Task { work, sender, always: false }))?;
        done.await.map_err(|_| panicked())
    }

    /// Like [`run`](Self::run), but also runs if the receiver is dropped.
    pub(crate) async fn run_always<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (sender, done) = oneshot::channel();
        self.submit(Box::new(Task { work, sender, always: true }))?;
        done.await.map_err(|_| panicked())
    }

    /// Runs `work` and blocks until it is done, for at most `patience`. Without a thread it runs on the caller's.
    pub(crate) fn wait<T: Send + 'static>(
        &'static self,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (sender, done) = sync_channel(1);
        let slot = std::sync::Arc::new(Mutex::new(Some(work)));
        let theirs = std::sync::Arc::clone(&slot);
        let take = |slot: &Mutex<Option<_>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (unwatched, _) = oneshot::channel();
        let work = move || {
            if let Some(work) = take(&theirs) {
                let _ = sender.send(work());
            }
        };
        if self.submit(Box::new(Task { work, sender: unwatched, always: true })).is_err() {
            return take(&slot).map(|work| work()).ok_or_else(panicked);
        }
        done.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                // Prevents a late start without a receiver.
                take(&slot);
                io::ErrorKind::TimedOut.into()
            }
            RecvTimeoutError::Disconnected => panicked(),
        })
    }

    /// Queues work for the next free thread, unless its receiver is dropped by then.
    ///
    /// # Errors
    /// There is no thread, and none can be created.
    pub(crate) fn submit(&'static self, job: Box<dyn Job>) -> io::Result<()> {
        #[cfg(feature = "_virtual-time")]
        if crate::clock::is_followed() {
            // A paused clock does not wait for other threads.
            job.run();
            return Ok(());
        }
        let mut state = self.lock();
        if state.queue.len() >= state.sweep_at {
            state.queue.retain(|job| job.is_wanted());
            state.sweep_at = state.queue.len().saturating_mul(2).max(SWEEP);
        }
        state.queue.push_back(job);
        if state.queue.len() > state.idle && state.threads < self.most {
            state.threads += 1;
            if let Err(error) = (self.make)(thread::Builder::new().name(self.name.into()), self) {
                state.threads -= 1;
                if state.threads == 0 {
                    state.queue.pop_back();
                    tracing::error!(%error, threads = self.name, "no thread can be created");
                    return Err(error);
                }
            }
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                // After a panic the receiver sees the end of the channel.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    if job.is_wanted() {
                        job.run();
                    }
                }));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (woken, waited) = self.work.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(thread: thread::Builder, threads: &'static Threads) -> io::Result<()> {
    thread.spawn(|| threads.work()).map(drop)
}

fn panicked() -> io::Error {
    io::Error::other("the work panicked")
}

struct Task<W, T> {
    work: W,
    sender: oneshot::Sender<T>,
    always: bool,
}

impl<T: Send, W: FnOnce() -> T + Send> Job for Task<W, T> {
    fn is_wanted(&self) -> bool {
        self.always || !self.sender.is_closed()
    }

    fn run(self: Box<Self>) {
        // The receiver may be dropped.
        let _ = self.sender.send((self.work)());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    /// Threads for one test.
    pub(crate) fn threads(most: usize) -> &'static Threads {
        Box::leak(Box::new(Threads::new("test", most)))
    }

    /// Threads that cannot be made until `scarce` is false.
    pub(crate) fn scarce(scarce: &'static AtomicBool) -> &'static Threads {
        let make = move |thread, threads| {
            if scarce.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            make(thread, threads)
        };
        Box::leak(Box::new(Threads::made_by(Box::leak(Box::new(make)), "test", 2)))
    }

    /// Keeps all threads busy until the sender is dropped, like a frozen disk.
    pub(crate) fn jam(threads: &'static Threads) -> Vec<mpsc::Sender<()>> {
        let jammed = (0..threads.most).map(|_| {
            let (thaw, frozen) = mpsc::channel::<()>();
            let (sender, _) = oneshot::channel();
            let work = move || assert!(frozen.recv().is_err(), "nobody sends");
            threads.submit(Box::new(Task { work, sender, always: true })).unwrap();
            thaw
        });
        jammed.collect()
    }

    #[tokio::test]
    async fn work_is_done_by_so_many_threads_at_most_and_a_panic_ends_only_its_own() {
        let threads = threads(3);
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let all: Vec<_> = (0..50_usize)
            .map(|number| {
                tokio::spawn(threads.run(move || {
                    let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
                    thread::sleep(Duration::from_millis(1));
                    RUNNING.fetch_sub(1, Ordering::SeqCst);
                    assert!(number % 10 != 0, "one in ten panics");
                    (number, running)
                }))
            })
            .collect();
        for (number, task) in all.into_iter().enumerate() {
            match task.await.unwrap() {
                Ok((whose, running)) => assert!(whose == number && running <= 3),
                Err(error) => assert!(number % 10 == 0, "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_not_begun_and_does_not_pile_up() {
        let threads = threads(1);
        let jam = jam(threads);
        for _ in 0..10_000 {
            let mut waiting = Box::pin(threads.run(|| panic!("nobody waits")));
            let polled = waiting.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
            assert!(polled.is_pending());
        }
        assert!(threads.lock().queue.len() <= SWEEP + 1);
        let timed_out = threads.wait::<()>(Duration::from_millis(5), || panic!("nobody waits"));
        assert_eq!(timed_out.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(jam);
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn without_a_thread_the_work_is_refused_or_done_in_place_and_later_done() {
        static SCARCE: AtomicBool = AtomicBool::new(true);
        let threads = scarce(&SCARCE);
        assert_eq!(threads.run(|| 7).await.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(threads.wait(Duration::from_secs(10), || 7).unwrap(), 7);
        SCARCE.store(false, Ordering::SeqCst);
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
        assert_eq!(threads.wait(Duration::from_secs(10), || 8).unwrap(), 8);
    }
}
