//! A client of a real broker that is killed and restarted: what it subscribed to comes back, and nothing it owes is lost.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{BROKER, Broker, Gate, Pipe, on_every_pipe, policy, soon, timeouts, until};
use steadfast::{Device, Event, LinkEvent, Message, QoS, State};

on_every_pipe!(
    a_broker_with_memory_gives_subscriptions_and_unacknowledged_messages_back,
    a_killed_broker_without_memory_is_subscribed_to_again,
);

/// What the device sends to itself.
const TOPIC: &str = "pumps/7/orders";

fn device(pipe: Pipe, gate: &Gate) -> Device {
    let builder = Device::builder()
        .broker(BROKER, "pump-7")
        .resolve(BROKER, [gate.address()])
        .anonymous()
        .plaintext_unprotected()
        .retry(policy())
        .timeouts(timeouts());
    let (device, driver) = pipe.carry(builder).build().unwrap();
    tokio::spawn(driver);
    device
}

async fn granted(events: &mut steadfast::Events) {
    soon(async {
        loop {
            if let Event::Link(LinkEvent::Subscribed { qos: QoS::AtLeastOnce, .. }) = events.next().await.unwrap() {
                break;
            }
        }
    })
    .await;
}

async fn publish(device: &Device, text: &str) {
    let receipt = soon(device.send(Message::to_topic(TOPIC, text.as_bytes()))).await.unwrap();
    soon(receipt.delivered()).await.unwrap();
}

/// Takes the next message with this text, whatever is repeated before it.
async fn take(device: &Device, text: &str) -> steadfast::Inbound {
    soon(async {
        loop {
            let message = device.messages().next().await.unwrap();
            assert_eq!(message.topic(), TOPIC);
            if message.payload() == text.as_bytes() {
                return message;
            }
            message.acknowledge();
        }
    })
    .await
}

async fn kill(broker: &mut Broker, gate: &Gate, device: &Device) {
    broker.kill().await;
    gate.close();
    until("lost", || device.status().state != State::Up).await;
    broker.run().await;
    gate.open();
}

async fn a_broker_with_memory_gives_subscriptions_and_unacknowledged_messages_back(pipe: Pipe) {
    let mut broker = Broker::start(true).await;
    let gate = Gate::to(broker.plain).await;
    let device = device(pipe, &gate);
    let mut events = device.events();
    device.subscribe("pumps/+/orders", QoS::AtLeastOnce).unwrap();
    granted(&mut events).await;
    publish(&device, "handled").await;
    assert!(take(&device, "handled").await.acknowledge());
    publish(&device, "owed").await;
    let owed = take(&device, "owed").await;
    // In order, since a killed one forgets what it has not saved.
    broker.end().await;
    gate.close();
    until("lost", || device.status().state != State::Up).await;
    broker.run().await;
    gate.open();
    assert!(!owed.acknowledge(), "its connection is gone");
    until("up again", || device.status().state == State::Up).await;
    assert!(take(&device, "owed").await.acknowledge(), "it comes again");
    publish(&device, "after").await;
    assert!(take(&device, "after").await.acknowledge(), "the subscription is there");
    kill(&mut broker, &gate, &device).await;
    until("up again", || device.status().state == State::Up).await;
    publish(&device, "after a kill").await;
    assert!(take(&device, "after a kill").await.acknowledge(), "whatever the broker had saved");
    assert!(device.unsubscribe("pumps/+/orders").is_some());
    assert!(soon(device.stop(Duration::from_secs(5))).await.balances());
}

async fn a_killed_broker_without_memory_is_subscribed_to_again(pipe: Pipe) {
    let mut broker = Broker::start(false).await;
    let gate = Gate::to(broker.plain).await;
    let device = device(pipe, &gate);
    let mut events = device.events();
    device.subscribe(TOPIC, QoS::AtLeastOnce).unwrap();
    granted(&mut events).await;
    for number in 0..3 {
        let text = format!("before {number}");
        publish(&device, &text).await;
        assert!(take(&device, &text).await.acknowledge());
        kill(&mut broker, &gate, &device).await;
        // What is sent while it is away waits for it, and for the subscription.
        granted(&mut events).await;
        until("up again", || device.status().state == State::Up).await;
        let text = format!("after {number}");
        publish(&device, &text).await;
        assert!(take(&device, &text).await.acknowledge());
    }
    let books = soon(device.stop(Duration::from_secs(5))).await;
    assert!(books.balances() && books.delivered == 6, "{books:?}");
}
