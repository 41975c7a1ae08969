//! A full outbox, waiting for room, and futures dropped at any point.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use steadfast::{Builder, DeliveryError, Device, Message, Overflow, SendError, State};
use support::{Server, soon};

/// A device without a server, whose driver nobody polls.
fn offline(change: impl FnOnce(Builder) -> Builder) -> (Device, steadfast::Driver) {
    let builder = Device::builder().broker("localhost", "c").anonymous().plaintext_unprotected();
    change(builder).build().unwrap()
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn message(payload: &[u8]) -> Message<'_> {
    Message::to_topic("t", payload)
}

#[tokio::test]
async fn a_full_outbox_makes_send_wait_and_try_send_say_so() {
    let server = Server::start().await;
    let (device, driver) = server.client().outbox(2, 1000).build().unwrap();
    let _driver = tokio::spawn(driver);
    let first = device.try_send(message(b"1")).unwrap();
    let _second = device.try_send(message(b"2")).unwrap();
    assert_eq!(device.try_send(message(b"3")).unwrap_err(), SendError::Full);
    let mut waiting = pin!(device.send(message(b"3")));
    assert!(poll_once(waiting.as_mut()).is_pending());
    let mut peer = server.welcome(false).await;
    let publish = peer.publish().await;
    peer.publish().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(poll_once(waiting.as_mut()).is_pending());
    peer.ack(&publish).await;
    let _third = soon(waiting).await.unwrap();
    soon(first.delivered()).await.unwrap();
    let ledger = device.ledger();
    assert!(ledger.balances());
    // The wait was none of the refusals.
    assert_eq!((ledger.accepted, ledger.refused), (3, 1));
}

#[tokio::test]
async fn room_is_given_in_the_order_of_asking_whatever_is_dropped_meanwhile() {
    let server = Server::start().await;
    let (device, driver) = server.client().outbox(1, 1000).window(1).build().unwrap();
    let _driver = tokio::spawn(driver);
    let _first = device.send(message(b"0")).await.unwrap();
    let mut waiting = Vec::new();
    for number in 1..=6_u8 {
        let device = device.clone();
        let (started, begun) = tokio::sync::oneshot::channel();
        waiting.push(tokio::spawn(async move {
            let payload = [b'0' + number];
            let mut sending = pin!(device.send(message(&payload)));
            assert!(poll_once(sending.as_mut()).is_pending());
            started.send(()).unwrap();
            drop(sending.await.unwrap());
        }));
        soon(begun).await.unwrap();
    }
    // Nobody overtakes those who wait.
    assert_eq!(device.try_send(message(b"x")).unwrap_err(), SendError::Full);
    waiting[0].abort();
    waiting[3].abort();
    let mut peer = server.welcome(false).await;
    for expected in ["0", "2", "3", "5", "6"] {
        let publish = peer.publish().await;
        assert_eq!(publish.payload, expected);
        peer.ack(&publish).await;
    }
}

#[tokio::test]
async fn a_wait_that_is_dropped_once_woken_hands_its_turn_on() {
    let server = Server::start().await;
    let (device, driver) = server.client().outbox(1, 1000).build().unwrap();
    let mut driver = pin!(driver);
    let _first = device.try_send(message(b"0")).unwrap();
    let mut gone = Box::pin(device.send(message(b"gone")));
    assert!(poll_once(gone.as_mut()).is_pending());
    let next = tokio::spawn({
        let device = device.clone();
        async move { device.send(message(b"next")).await.map(drop) }
    });
    let mut peer = tokio::select! {
        peer = server.welcome(false) => peer,
        _ = &mut driver => unreachable!("the driver goes on"),
    };
    tokio::select! {
        publish = peer.publish() => peer.ack(&publish).await,
        _ = &mut driver => unreachable!("the driver goes on"),
    }
    // The driver takes the acknowledgement and wakes the first in the queue, which is dropped before it is polled.
    let delivered = async {
        while device.ledger().delivered == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = delivered => {}
        _ = &mut driver => unreachable!("the driver goes on"),
    }
    drop(gone);
    tokio::select! {
        next = soon(next) => next.unwrap().unwrap(),
        _ = &mut driver => unreachable!("the driver goes on"),
    }
}

#[tokio::test]
async fn futures_dropped_after_any_number_of_polls_lose_nothing() {
    let server = Server::start().await;
    let (device, driver) = server.client().outbox(4, 1000).build().unwrap();
    let _driver = tokio::spawn(driver);
    let serving = tokio::spawn(async move {
        let mut peer = server.welcome(false).await;
        peer.serve().await
    });
    let mut accepted = 0;
    for polls in 0..40 {
        let payload = [polls];
        let mut sending = Box::pin(device.send(message(&payload)));
        let mut receipt = None;
        for _ in 0..polls % 5 {
            if let Poll::Ready(result) = poll_once(sending.as_mut()) {
                accepted += 1;
                receipt = Some(result.unwrap());
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(sending);
        if let Some(mut receipt) = receipt {
            for _ in 0..polls % 3 {
                if poll_once(std::pin::Pin::new(&mut receipt)).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            // The receipt still knows, however often the wait for it was dropped.
            if polls % 2 == 0 {
                soon(receipt.delivered()).await.unwrap();
            }
        }
        let mut messages = device.messages();
        let mut receiving = Box::pin(messages.next());
        assert!(poll_once(receiving.as_mut()).is_pending());
    }
    let mut stopping = Box::pin(device.stop(Duration::from_secs(10)));
    assert!(poll_once(stopping.as_mut()).is_pending());
    drop(stopping);
    let ledger = soon(device.stop(Duration::from_secs(10))).await;
    assert!(ledger.balances());
    assert_eq!((ledger.accepted, ledger.delivered), (accepted, accepted));
    let (received, goodbye) = soon(serving).await.unwrap();
    assert!(goodbye);
    assert_eq!(received.len() as u64, accepted);
    assert!(soon(device.messages().next()).await.is_none());
}

#[tokio::test]
async fn each_overflow_has_its_receipt() {
    let (device, driver) = offline(|builder| builder.outbox(2, 1000).overflow(Overflow::DropOldest));
    let evicted = device.try_send(message(b"1")).unwrap();
    let _kept = device.try_send(message(b"2")).unwrap();
    let mut late = device.try_send(message(b"3")).unwrap();
    let driver = tokio::spawn(driver);
    assert_eq!(soon(evicted.delivered()).await, Err(DeliveryError::Evicted));
    assert_eq!(late.outcome(), None);
    let expiring =
        device.send(Message { expires_after: Some(Duration::from_millis(20)), ..message(b"4") }).await.unwrap();
    assert_eq!(soon(expiring.delivered()).await, Err(DeliveryError::Expired));
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    assert_eq!(soon(late.delivered()).await, Err(DeliveryError::DriverDropped));
    assert_eq!(device.queued().len(), 1);
    assert_eq!(device.send(message(b"5")).await.unwrap_err(), SendError::Stopped);
    assert!(device.ledger().balances());
}

#[tokio::test]
async fn many_evictions_at_once_all_find_room() {
    let (device, driver) = offline(|builder| builder.outbox(1, 1000).overflow(Overflow::DropOldest));
    let _driver = tokio::spawn(driver);
    for number in 0..200_u8 {
        drop(soon(device.send(message(&[number]))).await.unwrap());
    }
    let ledger = device.ledger();
    assert!(ledger.balances());
    assert_eq!((ledger.accepted, ledger.queued), (200, 1));
}

#[tokio::test]
async fn what_can_never_be_accepted_is_refused_at_once() {
    let (device, _driver) = offline(|builder| builder.outbox(1, 100));
    let too_large = device.send(message(&[0; 200])).await.unwrap_err();
    assert_eq!(too_large, SendError::TooLarge { size: 201, limit: 100 });
    let wild = device.try_send(Message::to_topic("a/#", b"")).unwrap_err();
    assert_eq!(wild, SendError::InvalidTopic);
    let telemetry = device.try_send(&steadfast::Telemetry::new("x")).unwrap_err();
    assert_eq!(telemetry, SendError::NoTelemetryEndpoint);
}

#[tokio::test]
async fn a_device_that_never_ran_can_be_stopped() {
    let (device, driver) = offline(|builder| builder);
    let receipt = device.try_send(message(b"1")).unwrap();
    assert_eq!(soon(device.stop(Duration::from_secs(5))).await.queued, 1);
    assert_eq!(soon(receipt.delivered()).await, Err(DeliveryError::StillQueued));
    assert_eq!(soon(driver).await.queued, 1);
    assert_eq!(device.status().state, State::Stopped);
}

#[tokio::test]
async fn the_oldest_make_room_for_a_large_message_and_for_an_alarm_while_nobody_listens() {
    let (device, driver) = offline(|builder| builder.outbox(10_000, 100_000).overflow(Overflow::DropOldest));
    let _driver = tokio::spawn(driver);
    let body = vec![b'x'; 99];
    let mut receipts = Vec::new();
    for _ in 0..1_000 {
        receipts.push(soon(device.send(message(&body))).await.unwrap());
    }
    let large = vec![b'x'; 1_099];
    let mut last = soon(device.send(message(&large))).await.unwrap();
    let mut alarm = soon(device.send(message(&large).urgent())).await.unwrap();
    let mut evicted = 0;
    for receipt in &mut receipts[..22] {
        assert_eq!(soon(receipt).await, Err(DeliveryError::Evicted));
        evicted += 1;
    }
    assert_eq!((receipts[22].outcome(), last.outcome(), alarm.outcome()), (None, None, None));
    assert_eq!((device.ledger().evicted, device.ledger().refused), (evicted, 0));
}

#[tokio::test]
async fn a_burst_of_messages_evicts_as_many_as_it_takes_and_every_receipt_tells() {
    let (device, driver) = offline(|builder| builder.outbox(100, 1 << 20).overflow(Overflow::DropOldest));
    let mut receipts: Vec<_> = (0..2_000).map(|_| device.try_send(message(b"x")).unwrap()).collect();
    let _driver = tokio::spawn(driver);
    for receipt in &mut receipts[..1_900] {
        assert_eq!(soon(receipt).await, Err(DeliveryError::Evicted));
    }
    assert!(receipts[1_900..].iter_mut().all(|receipt| receipt.outcome().is_none()));
    let ledger = device.ledger();
    assert_eq!((ledger.accepted, ledger.queued, ledger.refused), (2_000, 100, 0));
}
