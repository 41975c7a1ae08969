//! A device that waits does nothing.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet, Publish};
use steadfast::{
    Device, Dps, Driver, Ledger, Message, RetryPolicy, SignRequest, Signer, Signing, Subscriptions, Timeouts, Tls,
};
use support::{Server, soon};
use tokio::task::JoinHandle;

/// How long each phase is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// The link's waits that pass without ending the phase are shorter.
const SHORT: Duration = Duration::from_millis(300);

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Most polls in a minute: a few attempts to connect, or a ping.
#[cfg(feature = "_virtual-time")]
const MOST_IN_A_MINUTE: usize = 30;

/// Most polls until a phase is reached.
#[cfg(feature = "_virtual-time")]
const MOST_AT_FIRST: usize = 100;

/// Polls of a driver before it counts as one that spins, which would keep a paused clock from going on.
const SPINNING: usize = 5_000;

/// Counts how often the driver is polled.
struct Counted {
    driver: Driver,
    polls: Arc<AtomicUsize>,
}

impl Future for Counted {
    type Output = Ledger;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ledger> {
        let polls = self.polls.fetch_add(1, Ordering::Relaxed);
        assert!(polls < SPINNING, "the driver spins");
        Pin::new(&mut self.driver).poll(cx)
    }
}

/// A device in a phase, and all that keeps it there.
struct Phase {
    name: &'static str,
    polls: Arc<AtomicUsize>,
    driver: JoinHandle<Ledger>,
    _kept: Box<dyn std::any::Any>,
}

fn run(driver: Driver) -> (JoinHandle<Ledger>, Arc<AtomicUsize>) {
    let polls = Arc::new(AtomicUsize::new(0));
    (tokio::spawn(Counted { driver, polls: Arc::clone(&polls) }), polls)
}

fn phase(
    name: &'static str,
    (driver, polls): (JoinHandle<Ledger>, Arc<AtomicUsize>),
    kept: impl std::any::Any,
) -> Phase {
    Phase { name, polls, driver, _kept: Box::new(kept) }
}

/// A key holder that never answers.
struct Silent;

impl Signer for Silent {
    fn sign(&self, _: SignRequest<'_>) -> Signing {
        Box::pin(std::future::pending())
    }
}

/// Waits that end a phase are long, those after which it goes on are short.
fn timeouts() -> Timeouts {
    let mut timeouts = Timeouts::DEFAULT;
    timeouts.connect = SHORT;
    timeouts.drain = SHORT;
    timeouts
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// A device in each phase; `policy` paces those that go on by themselves.
async fn phases(policy: RetryPolicy) -> Vec<Phase> {
    let mut all = Vec::new();
    let patient = RetryPolicy::DEFAULT;

    // Waiting for its turn to try again.
    let server = Server::start().await;
    let (device, driver) = server.client().retry(policy).timeouts(timeouts()).build().unwrap();
    let running = run(driver);
    let mut peer = server.accept().await;
    peer.next().await;
    peer.answer(ConnectReturnCode::ServiceUnavailable, false).await;
    let (waiting, driver) = server.client().retry(patient).seed(steadfast::Seed::from_number(3)).build().unwrap();
    all.push(phase("waiting", run(driver), waiting));
    all.push(phase("refused", running, (device, server)));

    // Signing.
    let (device, driver) = Device::builder()
        .hub("localhost", "device-1")
        .signer(Silent)
        .plaintext_unprotected()
        .retry(policy)
        .build()
        .unwrap();
    all.push(phase("signing", run(driver), device));

    // TLS with a server that says nothing.
    let server = Server::start().await;
    let pem = rcgen::generate_simple_self_signed(["broker.test".into()]).unwrap().cert.pem();
    let (device, driver) = Device::builder()
        .broker("broker.test", "client-1")
        .resolve("broker.test", [server.address])
        .anonymous()
        .tls(Tls::without_system_roots().and_pem(pem))
        .retry(policy)
        .build()
        .unwrap();
    let running = run(driver);
    let peer = server.accept().await;
    all.push(phase("connecting", running, (device, server, peer)));

    // No answer to CONNECT.
    let server = Server::start().await;
    let (device, driver) = server.client().retry(policy).timeouts(timeouts()).build().unwrap();
    let running = run(driver);
    let mut peer = server.accept().await;
    peer.next().await;
    all.push(phase("awaiting the answer to CONNECT", running, (device, server, peer)));

    // No answer to SUBSCRIBE.
    let server = Server::start().await;
    let (device, driver) = Device::builder()
        .hub("hub.example", "device-1")
        .resolve("hub.example", [server.address])
        .shared_key(KEY)
        .plaintext_unprotected()
        .subscriptions(Subscriptions::CLOUD_TO_DEVICE)
        .retry(policy)
        .timeouts(timeouts())
        .build()
        .unwrap();
    let running = run(driver);
    let mut peer = server.accept().await;
    peer.welcome(false).await;
    peer.next().await;
    all.push(phase("subscribing", running, (device, server, peer)));

    // No answer to a registration.
    let server = Server::start().await;
    let (device, driver) = Device::builder()
        .provision_with(Dps::new("0ne00AB12CD", "pump-7").host("dps.example"))
        .resolve("dps.example", [server.address])
        .shared_key(KEY)
        .plaintext_unprotected()
        .retry(policy)
        .timeouts(timeouts())
        .build()
        .unwrap();
    let running = run(driver);
    let mut peer = server.accept().await;
    peer.welcome(false).await;
    peer.suback().await;
    peer.next().await;
    all.push(phase("registering", running, (device, server, peer)));

    // Up, with nothing to do, and with an event that nobody takes.
    for (name, listened) in [("up", false), ("up with a listener that does not listen", true)] {
        let server = Server::start().await;
        let (device, driver) = server.client().retry(policy).timeouts(timeouts()).build().unwrap();
        let events = listened.then(|| device.events());
        let running = run(driver);
        let peer = server.welcome(false).await;
        all.push(phase(name, running, (device, server, peer, events)));
    }

    // A full inbox.
    let server = Server::start().await;
    let (device, driver) = server.client().retry(policy).timeouts(timeouts()).build().unwrap();
    let running = run(driver);
    let mut peer = server.welcome(false).await;
    for number in 1..=200_u16 {
        peer.send(Packet::Publish(Publish::new("t", QoS::AtMostOnce, "order"))).await;
        let mut publish = Publish::new("t", QoS::AtLeastOnce, "order");
        publish.pkid = number;
        peer.send(Packet::Publish(publish)).await;
    }
    all.push(phase("up with a full inbox", running, (device, server, peer)));

    // A message that is not acknowledged, then a stop that waits for it.
    for (name, stopped) in [("sending", false), ("draining", true)] {
        let server = Server::start().await;
        let (device, driver) = server.client().retry(policy).timeouts(timeouts()).build().unwrap();
        let running = run(driver);
        let mut peer = server.welcome(false).await;
        drop(device.send(Message::to_topic("t", b"1")).await.unwrap());
        peer.publish().await;
        let stop = {
            let device = device.clone();
            stopped.then(|| tokio::spawn(async move { device.stop(Duration::from_secs(3_600)).await }))
        };
        all.push(phase(name, running, (device, server, peer, stop)));
    }

    // A stop whose DISCONNECT nobody answers, at once and after a drain in vain.
    for (name, drain) in [("leaving", Duration::ZERO), ("leaving after a drain", SHORT)] {
        let server = Server::start().await;
        let (device, driver) = server.client().retry(policy).timeouts(timeouts()).build().unwrap();
        let running = run(driver);
        let mut peer = server.welcome(false).await;
        drop(device.send(Message::to_topic("t", b"1")).await.unwrap());
        peer.publish().await;
        let stopping = device.clone();
        let stop = tokio::spawn(async move { stopping.stop(drain).await });
        all.push(phase(name, running, (device, server, peer, stop)));
    }

    // A service that will never take this device.
    let server = Server::start().await;
    let (device, driver) = server.client().retry(patient).timeouts(timeouts()).build().unwrap();
    let running = run(driver);
    let mut peer = server.accept().await;
    peer.next().await;
    peer.answer(ConnectReturnCode::RefusedProtocolVersion, false).await;
    all.push(phase("given up", running, (device, server, peer)));
    all
}

#[tokio::test]
async fn a_device_that_waits_takes_no_processor_time_whatever_it_waits_for() {
    let mut all = soon(phases(support::hasty())).await;
    tokio::time::sleep(SHORT).await;
    let before: Vec<_> = all.iter().map(|phase| phase.polls.load(Ordering::Relaxed)).collect();
    let used = processor_time();
    tokio::time::sleep(WATCHED).await;
    let used = processor_time() - used;
    for (phase, before) in all.iter_mut().zip(before) {
        let polls = phase.polls.load(Ordering::Relaxed) - before;
        assert!(polls <= 60, "{}: {polls} polls in {WATCHED:?}", phase.name);
        assert!(phase.driver.is_finished() == phase.name.starts_with("leaving"), "{}", phase.name);
    }
    assert!(used < WATCHED / 10, "{used:?} of processor time in {WATCHED:?}");
}

/// On a paused clock, so that a minute of each phase takes no time and every poll counts.
#[cfg(feature = "_virtual-time")]
#[tokio::test(start_paused = true)]
async fn in_a_minute_of_each_phase_the_driver_is_polled_a_few_times() {
    const MINUTE: Duration = Duration::from_secs(60);
    steadfast::follow_tokio_clock(tokio::time::Instant::now(), 1_780_000_000);
    let all = phases(RetryPolicy::DEFAULT).await;
    for minute in 1..=30 {
        tokio::time::sleep(MINUTE).await;
        for phase in &all {
            let polls = phase.polls.load(Ordering::Relaxed);
            assert!(
                polls <= MOST_AT_FIRST + MOST_IN_A_MINUTE * minute,
                "{}: {polls} polls in {minute} minutes",
                phase.name
            );
            // A drain ends with the connection, when the message has not been acknowledged in time.
            let may_end = phase.name.starts_with("leaving") || phase.name == "draining";
            assert!(may_end || !phase.driver.is_finished(), "{}", phase.name);
        }
    }
}
