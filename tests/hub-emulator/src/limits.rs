//! Limits for connections whose CONNECT has not been accepted, so that they never use up the descriptors.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// The descriptors of a process where its limit cannot be read.
const DESCRIPTORS: usize = 1024;
/// Least time between two lines of the same kind on standard error.
const QUIET: Duration = Duration::from_secs(10);
/// The pause after `accept` fails.
const PAUSE: Duration = Duration::from_millis(20);

/// Limits for connections whose CONNECT has not been accepted, HTTPS and control connections included.
///
/// A new connection always gets in: beyond a limit, the oldest of these connections is closed with
/// [`CloseReason::TooManyUnauthenticated`](crate::CloseReason::TooManyUnauthenticated).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ConnectionLimits {
    pub(crate) per_peer: usize,
    pub(crate) total: usize,
    pub(crate) handshake: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        let descriptors = descriptors();
        Self { per_peer: descriptors / 2, total: descriptors / 4 * 3, handshake: Duration::from_secs(60) }
    }
}

impl ConnectionLimits {
    /// Sets how many connections one peer address may have, at least 1; half of the process's descriptors by default.
    /// The addresses of one IPv6 network (/64) count as one.
    pub fn per_peer(self, per_peer: usize) -> Self {
        Self { per_peer: per_peer.max(1), ..self }
    }

    /// Sets how many connections all peers together may have, at least 1; three quarters of the process's descriptors by
    /// default. Beyond it, the peer that has the most loses its oldest.
    pub fn total(self, total: usize) -> Self {
        Self { total: total.max(1), ..self }
    }

    /// Sets the time from TCP's accept (over WebSockets: from the upgrade) to a complete CONNECT; 60 s by default.
    pub fn handshake_timeout(self, timeout: Duration) -> Self {
        Self { handshake: timeout, ..self }
    }
}

/// Returns how many descriptors the process may have open.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(DESCRIPTORS)
}

/// The unauthenticated connections.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    limits: ConnectionLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    /// By peer, oldest first.
    peers: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>>,
    next: u64,
    closed: Notice,
    failed: Notice,
}

/// A kind of line on standard error that is not repeated within [`QUIET`].
#[derive(Debug, Default)]
struct Notice {
    last: Option<Instant>,
    /// Occurrences since the last line.
    count: u64,
}

impl Notice {
    /// Counts an occurrence; returns the count when a line is due.
    fn count(&mut self) -> Option<u64> {
        self.count += 1;
        let now = Instant::now();
        let is_due = self.last.is_none_or(|last| now >= last + QUIET);
        is_due.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.count)
        })
    }
}

impl Unauthenticated {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.limits.handshake
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new connection in; closes an old one when a limit is exceeded.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr) -> Slot {
        let peer = network_of(peer);
        let (sender, closed) = oneshot::channel();
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.count += 1;
        let of_peer = state.peers.entry(peer).or_default();
        of_peer.insert(number, sender);
        let ConnectionLimits { per_peer, total, .. } = self.limits;
        let (loser, what) = if of_peer.len() > per_peer {
            (Some(peer), format!("{per_peer} per peer address"))
        } else if state.count > total {
            (state.peer_with_most(), format!("{total} in total"))
        } else {
            (None, String::new())
        };
        if let Some(loser) = loser {
            state.close_oldest(loser);
            if let Some(count) = state.closed.count() {
                report(&format!(
                    "more connections without an accepted CONNECT than {what}: closed {count}, oldest first, the last \
                     one of {loser}"
                ));
            }
        }
        drop(state);
        Slot { all: Arc::clone(self), peer, number, closed: Mutex::new(Some(closed)) }
    }

    /// Makes room after `accept` failed, and waits so that a lasting failure does not spin.
    pub(crate) async fn accept_failed(&self, port: &str, error: &io::Error) {
        {
            let mut state = self.lock();
            let most = is_out_of_descriptors(error).then(|| state.peer_with_most()).flatten();
            if let Some(peer) = most {
                state.close_oldest(peer);
            }
            if let Some(count) = state.failed.count() {
                let advice = match most {
                    Some(peer) => format!("; closed the oldest connection without an accepted CONNECT, of {peer}"),
                    None if is_out_of_descriptors(error) => "; raise the limit of open files (ulimit -n)".to_owned(),
                    None => String::new(),
                };
                report(&format!("cannot accept a connection on {port} ({count} attempts): {error}{advice}"));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn leave(&self, peer: IpAddr, number: u64) {
        self.lock().remove(peer, number);
    }
}

impl State {
    fn peer_with_most(&self) -> Option<IpAddr> {
        let oldest = |all: &BTreeMap<u64, _>| std::cmp::Reverse(all.keys().next().copied());
        self.peers.iter().max_by_key(|(_, all)| (all.len(), oldest(all))).map(|(peer, _)| *peer)
    }

    fn close_oldest(&mut self, peer: IpAddr) {
        let oldest = self.peers.get(&peer).and_then(|all| all.keys().next().copied());
        if let Some(sender) = oldest.and_then(|number| self.remove(peer, number)) {
            // Without a receiver, the connection has ended already.
            let _ = sender.send(());
        }
    }

    fn remove(&mut self, peer: IpAddr, number: u64) -> Option<oneshot::Sender<()>> {
        let all = self.peers.get_mut(&peer)?;
        let sender = all.remove(&number)?;
        if all.is_empty() {
            self.peers.remove(&peer);
        }
        self.count -= 1;
        Some(sender)
    }
}

/// A connection's place among the unauthenticated ones, until it is dropped or authenticated.
#[derive(Debug)]
pub(crate) struct Slot {
    all: Arc<Unauthenticated>,
    peer: IpAddr,
    number: u64,
    closed: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Slot {
    /// Gives the place back: CONNECT was accepted.
    pub(crate) fn authenticated(&self) {
        self.all.leave(self.peer, self.number);
    }

    /// Waits until the connection must end because of a limit.
    pub(crate) async fn closed(&self) {
        let receiver = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_closed = match receiver {
            Some(receiver) => receiver.await.is_ok(),
            None => false,
        };
        if !is_closed {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.authenticated();
    }
}

/// Returns the address that stands for all addresses of a peer.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE, the same numbers on every Unix.
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn report(text: &str) {
    eprintln!("hub-emulator: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_closed(slot: &Slot) -> bool {
        slot.closed.lock().unwrap().as_mut().is_some_and(|closed| closed.try_recv().is_ok())
    }

    #[test]
    fn beyond_the_limit_of_a_peer_its_oldest_connection_ends() {
        let all = Arc::new(Unauthenticated::new(ConnectionLimits::default().per_peer(2).total(100)));
        let other = all.enter(peer(9));
        let slots: Vec<Slot> = (0..3).map(|_| all.enter(peer(1))).collect();
        assert_eq!(slots.iter().map(is_closed).collect::<Vec<_>>(), [true, false, false]);
        slots[1].authenticated();
        let next = all.enter(peer(1));
        assert!(!is_closed(&slots[2]) && !is_closed(&next) && !is_closed(&other));
    }

    #[test]
    fn beyond_the_total_the_peer_with_the_most_loses_its_oldest() {
        let all = Arc::new(Unauthenticated::new(ConnectionLimits::default().per_peer(100).total(5)));
        let honest = [all.enter(peer(1)), all.enter(peer(2))];
        let idle: Vec<Slot> = (0..50).map(|_| all.enter(peer(3))).collect();
        assert!(!honest.iter().any(is_closed));
        assert_eq!(idle.iter().filter(|slot| is_closed(slot)).count(), 47);
        assert_eq!(all.lock().count, 5);
        drop((honest, idle));
        assert_eq!(all.lock().count, 0);
        assert!(all.lock().peers.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer() {
        let all = Arc::new(Unauthenticated::new(ConnectionLimits::default().per_peer(1).total(100)));
        let first = all.enter("2001:db8::1".parse().unwrap());
        let second = all.enter("2001:db8::ffff:2".parse().unwrap());
        let elsewhere = all.enter("2001:db8:0:1::1".parse().unwrap());
        assert_eq!([&first, &second, &elsewhere].map(is_closed), [true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_descriptors_an_unauthenticated_connection_makes_room_and_nothing_spins() {
        let all = Arc::new(Unauthenticated::new(ConnectionLimits::default()));
        let slots = [all.enter(peer(1)), all.enter(peer(1))];
        let start = Instant::now();
        for _ in 0..50 {
            all.accept_failed("a port", &io::Error::from_raw_os_error(24)).await;
        }
        assert_eq!(start.elapsed(), 50 * PAUSE);
        assert!(slots.iter().all(is_closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_not_repeated_within_ten_seconds() {
        let mut notice = Notice::default();
        assert_eq!(notice.count(), Some(1));
        for _ in 0..5 {
            assert_eq!(notice.count(), None);
        }
        tokio::time::advance(QUIET).await;
        assert_eq!(notice.count(), Some(6));
    }
}
