//! From `send` to the receipt, over plain TCP against a scripted server.
#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::time::Duration;

use steadfast::{DeliveryError, Message, State};
use support::{Server, soon};

fn text(publish: &rumqttc::mqttbytes::v4::Publish) -> String {
    String::from_utf8(publish.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn a_receipt_resolves_at_the_acknowledgement_and_not_before() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let driver = tokio::spawn(driver);
    let mut receipt = device.send(Message::to_topic("pumps/7", b"21.5")).await.unwrap();
    let mut peer = server.welcome(false).await;
    let publish = peer.publish().await;
    assert_eq!((publish.topic.as_str(), text(&publish), publish.dup), ("pumps/7", String::from("21.5"), false));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(receipt.outcome(), None);
    peer.ack(&publish).await;
    soon(&mut receipt).await.unwrap();
    soon(receipt.delivered()).await.unwrap();
    let ledger = device.ledger();
    assert!(ledger.balances());
    assert_eq!((ledger.accepted, ledger.delivered), (1, 1));
    let stopping = tokio::spawn(async move { device.stop(Duration::from_secs(1)).await });
    assert!(peer.serve().await.1, "the connection ends with DISCONNECT");
    drop(peer);
    assert_eq!(soon(stopping).await.unwrap(), soon(driver).await.unwrap());
}

#[tokio::test]
async fn a_cut_between_publish_and_acknowledgement_sends_the_same_packet_again_with_dup() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let _driver = tokio::spawn(driver);
    let mut receipts = Vec::new();
    for number in 0..3_u8 {
        receipts.push(device.send(Message::to_topic("t", &[b'0' + number])).await.unwrap());
    }
    let mut peer = server.welcome(false).await;
    let first: Vec<_> = [peer.publish().await, peer.publish().await, peer.publish().await].into();
    peer.ack(&first[0]).await;
    soon(&mut receipts[0]).await.unwrap();
    drop(peer);
    let mut peer = server.welcome(true).await;
    for sent in &first[1..] {
        let again = peer.publish().await;
        assert_eq!((again.pkid, &again.payload, again.dup), (sent.pkid, &sent.payload, true));
        peer.ack(&again).await;
    }
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    // A session that was forgotten is a new one: nothing is a duplicate in it.
    let receipt = device.send(Message::to_topic("t", b"x")).await.unwrap();
    let sent = peer.publish().await;
    drop(peer);
    let mut peer = server.welcome(false).await;
    let again = peer.publish().await;
    assert_eq!((&again.payload, again.dup), (&sent.payload, false));
    peer.ack(&again).await;
    soon(receipt.delivered()).await.unwrap();
}

#[tokio::test]
async fn stop_drains_what_is_queued_and_then_says_goodbye() {
    let server = Server::start().await;
    let (device, driver) = server.client().window(2).build().unwrap();
    let driver = tokio::spawn(driver);
    let mut receipts = Vec::new();
    for number in 0..20_u8 {
        receipts.push(device.send(Message::to_topic("t", &[number])).await.unwrap());
    }
    let mut peer = server.welcome(false).await;
    let mut status = device.status_changes();
    soon(status.wait_for(|status| status.state == State::Up)).await.unwrap();
    let stopping = tokio::spawn(async move { device.stop(Duration::from_secs(10)).await });
    let (all, goodbye) = peer.serve().await;
    assert!(goodbye);
    drop(peer);
    assert_eq!(all.iter().map(|publish| publish.payload[0]).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    let ledger = soon(stopping).await.unwrap();
    assert_eq!((ledger.delivered, ledger.queued), (20, 0));
    assert_eq!(soon(driver).await.unwrap(), ledger);
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    soon(status.wait_for(|status| status.state == State::Stopped)).await.unwrap();
}

#[tokio::test]
async fn what_the_drain_leaves_over_is_told_and_can_be_read() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let driver = tokio::spawn(driver);
    let receipt = device.send(Message::to_topic("t", b"kept")).await.unwrap();
    let mut peer = server.welcome(false).await;
    peer.publish().await;
    let ledger = soon(device.stop(Duration::from_millis(100))).await;
    assert_eq!((ledger.queued, ledger.delivered), (1, 0));
    assert_eq!(soon(receipt.delivered()).await, Err(DeliveryError::StillQueued));
    let queued = device.queued();
    assert_eq!((queued.len(), &*queued[0].payload, &*queued[0].address), (1, &b"kept"[..], "t"));
    drop(peer);
    soon(driver).await.unwrap();
    assert_eq!(device.send(Message::to_topic("t", b"late")).await.unwrap_err(), steadfast::SendError::Stopped);
}
