//! What is measured, peers interleaved.

use crate::child::Peer;
use crate::order::{Mode, Order};
use crate::report::{Metric, Report, Series};
use crate::sink::Sink;
use crate::tls::Identity;
use std::time::{Duration, Instant};

/// The longest any single run may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rounds: usize,
    /// Milliseconds of each throughput measurement.
    pub(crate) measure: u64,
    /// Clients of each idle measurement.
    pub(crate) clients: usize,
    /// Outages of each peer.
    pub(crate) outages: u32,
    /// Mean length of an outage.
    pub(crate) outage: Duration,
}

impl Size {
    /// What published figures are taken with.
    pub(crate) const FULL: Self =
        Self { rounds: 5, measure: 500, clients: 1000, outages: 15, outage: Duration::from_secs(5) };

    /// Enough to see that everything works.
    pub(crate) const QUICK: Self =
        Self { rounds: 1, measure: 150, clients: 50, outages: 1, outage: Duration::from_millis(1500) };
}

/// Publishes as fast as windows of 1, 10 and 100 allow.
///
/// With a window of 1 client and sink take turns, so they share one processor: what is measured is then their work and
/// not how long the system takes to wake another processor, which differs tenfold from one second to the next.
pub(crate) fn throughput(size: Size, peers: &[Peer], identity: Option<&Identity>, report: &mut Report) {
    for _ in 0..size.rounds {
        on_one_processor(|| throughput_round(1, size, peers, identity, report));
        throughput_round(10, size, peers, identity, report);
        throughput_round(100, size, peers, identity, report);
    }
}

fn throughput_round(window: u16, size: Size, peers: &[Peer], identity: Option<&Identity>, report: &mut Report) {
    let sink = match Sink::start_anywhere(identity.map(|identity| identity.server.clone())) {
        Ok(sink) => sink,
        Err(error) => return report.miss(format!("throughput: no sink: {error}")),
    };
    let tls = identity.is_some();
    for peer in peers {
        let order = Order { window, measure: size.measure, ..order(Mode::Throughput, sink.port(), identity) };
        match peer.run(&order, LIMIT) {
            Ok(answer) if answer.acked > 0 => {
                let (peer, payload) = (peer.name, Some(order.payload));
                let key = |metric| Series { metric, peer, window: Some(window), payload, tls, values: Vec::new() };
                let acked = answer.acked as f64;
                report.add(key(Metric::Rate), acked / answer.seconds);
                report.add(key(Metric::Cpu), answer.cpu_us / acked);
            }
            Ok(_) => report.miss(format!("{}, window {window}: no message was acknowledged", peer.name)),
            Err(why) => report.miss(format!("{}, window {window}: {why}", peer.name)),
        }
    }
}

/// Runs `what` in a thread that may use one processor only, which threads and processes it starts inherit.
fn on_one_processor(what: impl FnOnce() + Send) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Ok(allowed) = sched_getaffinity(None)
                && let Some(last) = (0..CpuSet::MAX_CPU).rev().find(|processor| allowed.is_set(*processor))
            {
                let mut one = CpuSet::new();
                one.set(last);
                // Where it is not allowed, the figures are only less steady.
                let _ = sched_setaffinity(None, &one);
            }
            what();
        });
    });
}

/// Lets many clients of one process idle. Each peer comes with its window, which sizes what it keeps per client.
pub(crate) fn idle(size: Size, peers: &[(Peer, u16)], identity: Option<&Identity>, report: &mut Report) {
    for (peer, window) in peers {
        // A sink for each, so that its threads of one peer are gone before the next comes.
        let sink = match Sink::start_anywhere(identity.map(|identity| identity.server.clone())) {
            Ok(sink) => sink,
            Err(error) => return report.miss(format!("idle: no sink: {error}")),
        };
        let order = Order { window: *window, clients: size.clients, ..order(Mode::Idle, sink.port(), identity) };
        match peer.run(&order, LIMIT) {
            Ok(answer) => {
                let (peer, tls) = (peer.name, identity.is_some());
                let key =
                    Series { metric: Metric::IdleMemory, peer, window: None, payload: None, tls, values: Vec::new() };
                report.add(key, answer.bytes_per_client - answer.queue_bytes);
            }
            Err(why) => report.miss(format!("{}, idle: {why}", peer.name)),
        }
    }
}

/// Takes the listener away for a while. Each peer comes with its pause after an error, in milliseconds.
///
/// Outages of one call run side by side, each against a sink of its own. Their lengths are spread over one second
/// around the ordered one, so that no peer's figure depends on how its period happens to fall.
pub(crate) fn outage(size: Size, peers: &[(Peer, u64)], report: &mut Report) {
    let runs = peers.iter().flat_map(|(peer, pause)| (0..size.outages).map(move |number| (peer, *pause, number)));
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = runs
            .map(|(peer, pause, number)| {
                let spread = Duration::from_millis(500) * (2 * number + 1) / size.outages;
                let length = size.outage - Duration::from_millis(500) + spread;
                (peer.name, scope.spawn(move || one_outage(peer, pause, length)))
            })
            .collect();
        let join =
            |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|_| Err("panicked".into()));
        threads.into_iter().map(|(name, thread)| (name, join(thread))).collect()
    });
    for (peer, result) in found {
        let key = |metric| Series { metric, peer, window: None, payload: None, tls: false, values: Vec::new() };
        match result {
            Ok(outage) => {
                report.add(key(Metric::FirstAck), outage.first_ack);
                report.add(key(Metric::Attempts), outage.attempts as f64);
                report.add(key(Metric::OutageCpu), outage.cpu_share * 100.0);
            }
            Err(why) => report.miss(format!("{peer}, outage: {why}")),
        }
    }
}

struct Outage {
    /// Seconds from the return of the listener to the first PUBACK.
    first_ack: f64,
    attempts: u64,
    cpu_share: f64,
}

fn one_outage(peer: &Peer, pause: u64, length: Duration) -> Result<Outage, String> {
    let sink = Sink::start_anywhere(None).map_err(|error| format!("no sink: {error}"))?;
    let port = sink.port();
    let running = peer.start(&Order { window: 10, pause, ..order(Mode::Outage, port, None) })?;
    first_ack(&sink)?;
    // Let it publish for a while, as a device does that was well.
    std::thread::sleep(Duration::from_millis(500));
    drop(sink);
    let (gone, cpu) = (Instant::now(), running.cpu_time());
    std::thread::sleep(length);
    let cpu_share = (running.cpu_time().saturating_sub(cpu)).as_secs_f64() / gone.elapsed().as_secs_f64();
    let sink = Sink::start(port, None).map_err(|error| format!("the listener does not return: {error}"))?;
    let first_ack = first_ack(&sink)?;
    let answer = running.answer(LIMIT)?;
    Ok(Outage { first_ack, attempts: answer.attempts, cpu_share })
}

fn first_ack(sink: &Sink) -> Result<f64, String> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(seconds) = sink.first_ack_seconds() {
            return Ok(seconds);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(format!("no message was acknowledged within {LIMIT:?}"))
}

fn order(mode: Mode, port: u16, identity: Option<&Identity>) -> Order {
    Order {
        mode,
        port,
        window: 1,
        payload: 100,
        warm_up: 150,
        measure: 500,
        clients: 1000,
        pause: 0,
        ca: identity.map(|identity| identity.ca.clone()),
    }
}
