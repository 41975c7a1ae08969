//! A real broker, killed and restarted under load; independent subscribers tell what arrived.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::{BROKER, Broker, Collector, Gate, Pipe, on_every_pipe, policy, soon, timeouts, until};
use steadfast::{Builder, Device, Ledger, Message, Queued, Receipt, State, Tls};
use tokio::task::JoinHandle;

on_every_pipe!(
    a_killed_broker_gets_every_message_in_order,
    a_killed_broker_behind_tls_gets_every_message_in_order,
    a_broker_that_ends_in_order_keeps_what_nobody_has_fetched_yet,
    a_broker_without_memory_gets_everything_it_has_not_acknowledged,
    a_password_is_shown_to_the_broker_and_to_nobody_else,
);

const TOPIC: &str = "pumps/7/telemetry";
const WINDOW: u16 = 20;

/// A device that sends numbers as fast as every millisecond until it is told to end.
struct Load {
    device: Device,
    over: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Receipt>>,
}

impl Load {
    fn start(builder: Builder) -> Self {
        let (device, driver) = builder.window(WINDOW).build().unwrap();
        tokio::spawn(driver);
        let over = Arc::new(AtomicBool::new(false));
        let (sending, ends) = (device.clone(), Arc::clone(&over));
        let sender = tokio::spawn(async move {
            let mut receipts = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let number = receipts.len().to_string();
                receipts.push(sending.send(Message::to_topic(TOPIC, number.as_bytes())).await.unwrap());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            receipts
        });
        Self { device, over, sender }
    }

    /// Waits until that many more messages are acknowledged.
    async fn progress(&self, more: u64) {
        let goal = self.device.ledger().delivered + more;
        until("messages flow", || self.device.ledger().delivered >= goal).await;
    }

    /// Sends no more, waits until all is acknowledged, and stops. Returns the books.
    async fn end(self) -> Ledger {
        self.over.store(true, Ordering::Relaxed);
        let receipts = soon(self.sender).await.unwrap();
        let count = receipts.len() as u64;
        for receipt in receipts {
            soon(receipt.delivered()).await.unwrap();
        }
        let books = soon(self.device.stop(Duration::from_secs(5))).await;
        assert!(books.balances(), "{books:?}");
        assert_eq!((books.accepted, books.delivered), (count, count));
        books
    }
}

fn builder(pipe: Pipe, gate: &Gate) -> Builder {
    let builder = Device::builder()
        .broker(BROKER, "pump-7")
        .resolve(BROKER, [gate.address()])
        .anonymous()
        .retry(policy())
        .timeouts(timeouts());
    pipe.carry(builder)
}

/// Kills the broker three times under load and checks that everything arrived in order.
///
/// A killed broker forgets what it has acknowledged and not saved, which is no client's fault; nor is it that a
/// subscriber gives up what it has not read when its own acknowledgement cannot be sent. So the device is let in only
/// once the subscriber is there, and before a kill the subscriber gets to read what is acknowledged, while a part of the
/// window is held on its way.
async fn kill_under_load(mut broker: Broker, gate: Gate, collector: Collector, builder: Builder) {
    collector.subscribed(1).await;
    let load = Load::start(builder);
    for _ in 0..3 {
        load.progress(60).await;
        gate.hold();
        collector.caught_up(|| load.device.ledger().delivered).await;
        assert!(load.device.status().in_flight > 0, "under load");
        let before = collector.subscriptions();
        broker.kill().await;
        gate.close();
        broker.run().await;
        collector.subscribed(before + 1).await;
        gate.open();
    }
    load.progress(60).await;
    let books = load.end().await;
    let count = usize::try_from(books.accepted).unwrap();
    let arrived = collector.settled(count).await;
    assert_eq!(arrived, (0..books.accepted).collect::<Vec<_>>());
    assert!(books.resent <= 3 * u64::from(WINDOW), "{books:?}");
}

async fn a_killed_broker_gets_every_message_in_order(pipe: Pipe) {
    let broker = Broker::start(true).await;
    let gate = Gate::to(broker.plain).await;
    let collector = Collector::mosquitto_sub(broker.plain, TOPIC);
    let builder = builder(pipe, &gate).plaintext_unprotected();
    kill_under_load(broker, gate, collector, builder).await;
}

async fn a_killed_broker_behind_tls_gets_every_message_in_order(pipe: Pipe) {
    let broker = Broker::start(true).await;
    let gate = Gate::to(broker.secured).await;
    let collector = Collector::rumqttc(broker.plain, TOPIC);
    let builder = builder(pipe, &gate).tls(Tls::without_system_roots().and_pem(broker.ca_pem()));
    kill_under_load(broker, gate, collector, builder).await;
}

async fn a_broker_that_ends_in_order_keeps_what_nobody_has_fetched_yet(pipe: Pipe) {
    let mut broker = Broker::start(true).await;
    let gate = Gate::to(broker.plain).await;
    let collector = Collector::rumqttc(broker.plain, TOPIC);
    collector.subscribed(1).await;
    drop(collector);
    let load = Load::start(builder(pipe, &gate).plaintext_unprotected());
    for _ in 0..3 {
        load.progress(60).await;
        broker.end().await;
        broker.run().await;
    }
    load.progress(60).await;
    let books = load.end().await;
    let collector = Collector::rumqttc(broker.plain, TOPIC);
    let arrived = collector.settled(usize::try_from(books.accepted).unwrap()).await;
    assert_eq!(arrived, (0..books.accepted).collect::<Vec<_>>());
    let repeated = collector.all().len() - arrived.len();
    assert!(repeated <= usize::from(WINDOW) * 3, "{repeated} repetitions");
}

async fn a_broker_without_memory_gets_everything_it_has_not_acknowledged(pipe: Pipe) {
    let mut broker = Broker::start(false).await;
    let gate = Gate::to(broker.plain).await;
    let collector = Collector::rumqttc(broker.plain, TOPIC);
    collector.subscribed(1).await;
    let load = Load::start(builder(pipe, &gate).plaintext_unprotected());
    let mut open_at_kill = HashSet::new();
    for _ in 0..3 {
        load.progress(60).await;
        // What was open at an earlier kill is acknowledged now: it is not to go down with the subscriber's connection.
        until("they have arrived", || open_at_kill.is_subset(&collector.all().into_iter().collect())).await;
        broker.kill().await;
        gate.close();
        // The last acknowledgements are read before the end of the connection is noticed.
        until("lost", || load.device.status().state != State::Up).await;
        let number = |queued: &Queued| String::from_utf8(queued.payload.clone()).unwrap().parse::<u64>().unwrap();
        open_at_kill.extend(load.device.queued().iter().map(number));
        let before = collector.subscriptions();
        tokio::time::sleep(Duration::from_millis(100)).await;
        broker.run().await;
        collector.subscribed(before + 1).await;
        gate.open();
    }
    load.progress(60).await;
    let books = load.end().await;
    let arrived = collector.settled(usize::try_from(books.accepted).unwrap()).await;
    assert!(arrived.is_sorted(), "{arrived:?}");
    let arrived: HashSet<u64> = arrived.into_iter().collect();
    let lost: Vec<_> = open_at_kill.difference(&arrived).collect();
    assert!(!open_at_kill.is_empty() && lost.is_empty(), "not acknowledged and lost: {lost:?}");
}

async fn a_password_is_shown_to_the_broker_and_to_nobody_else(pipe: Pipe) {
    let logs = e2e::Logs::collect();
    let broker = Broker::start(false).await;
    let gate = Gate::to(broker.secured).await;
    let collector = Collector::rumqttc(broker.plain, TOPIC);
    collector.subscribed(1).await;
    let builder = builder(pipe, &gate)
        .password("pump-7", "a very long-lived secret")
        .tls(Tls::without_system_roots().and_pem(broker.ca_pem()));
    let shown = format!("{builder:?}");
    let load = Load::start(builder);
    load.progress(20).await;
    let books = load.end().await;
    assert_eq!(collector.settled(usize::try_from(books.accepted).unwrap()).await.len() as u64, books.accepted);
    for text in [logs.text(), shown] {
        assert!(!text.contains("long-lived"), "{text}");
    }
}
