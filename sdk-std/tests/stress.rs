//! Many senders on many threads, and a server that keeps cutting connections.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use rumqttc::mqttbytes::v4::Packet;
use steadfast::{Message, RetryPolicy};
use support::{Server, soon};

const SENDERS: u32 = 8;
const EACH: u32 = 400;

/// Serves until the device leaves in order, and cuts every connection after `cut` publishes, the last of them
/// unacknowledged and more perhaps unread, which resets the connection and loses acknowledgements on their way.
/// Returns the payloads in the order of their coming.
async fn serve(server: Server, cut: usize) -> Vec<(u32, u32)> {
    let mut received = Vec::new();
    let mut sessions = 0;
    loop {
        let mut peer = server.welcome(sessions % 3 == 1).await;
        sessions += 1;
        let mut publishes = 0;
        loop {
            match peer.next().await {
                Some(Packet::Publish(publish)) => {
                    let number = |at: usize| u32::from_le_bytes(publish.payload[at..at + 4].try_into().unwrap());
                    received.push((number(0), number(4)));
                    publishes += 1;
                    if publishes == cut {
                        break;
                    }
                    peer.ack(&publish).await;
                }
                Some(Packet::Disconnect) => return received,
                Some(_) => {}
                None => break,
            }
        }
    }
}

async fn storm(outbox: usize, window: u16, cut: usize) {
    let server = Server::start().await;
    // Connections that end soon are no sign of overload here.
    let mut policy = RetryPolicy::DEFAULT.divided_by(1000);
    policy.reset_after = Duration::from_millis(1);
    let (device, driver) = server.client().retry(policy).outbox(outbox, 100_000).window(window).build().unwrap();
    let driver = tokio::spawn(driver);
    let serving = tokio::spawn(serve(server, cut));
    let mut senders = Vec::new();
    for sender in 0..SENDERS {
        let device = device.clone();
        senders.push(tokio::spawn(async move {
            let mut receipts = Vec::new();
            for number in 0..EACH {
                let mut payload = sender.to_le_bytes().to_vec();
                payload.extend(number.to_le_bytes());
                receipts.push(device.send(Message::to_topic("t", &payload)).await.unwrap());
                if number % 3 == 0 {
                    receipts.swap_remove(0).delivered().await.unwrap();
                }
            }
            for receipt in receipts {
                receipt.delivered().await.unwrap();
            }
        }));
    }
    for sender in senders {
        let done = tokio::time::timeout(Duration::from_secs(30), sender).await;
        done.unwrap_or_else(|_| panic!("nobody waits for ever: {:?} {:?}", device.status(), device.ledger())).unwrap();
    }
    let ledger = soon(device.stop(Duration::from_secs(1))).await;
    assert!(ledger.balances());
    assert_eq!((ledger.delivered, ledger.refused), (u64::from(SENDERS * EACH), 0));
    soon(driver).await.unwrap();
    let mut next = HashMap::new();
    for (sender, number) in soon(serving).await.unwrap() {
        let expected = next.entry(sender).or_insert(0);
        assert!(number <= *expected, "message {number} of sender {sender} overtook {expected}");
        *expected = (*expected).max(number + 1);
    }
    assert!((0..SENDERS).all(|sender| next[&sender] == EACH));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_lose_nothing_to_cuts_with_a_small_outbox() {
    storm(3, 100, 150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_lose_nothing_to_cuts_with_a_large_outbox() {
    storm(1000, 50, 220).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_lose_nothing_with_one_message_at_a_time() {
    storm(1, 1, 300).await;
}
