//! Room in the outbox: a `send` waits no longer than its policy says, whatever frees the room.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use steadfast::{Builder, DeliveryError, Device, Message, Overflow, SendError};
use support::{Server, soon};

const SHORT: Duration = Duration::from_millis(50);

/// A device without a server, whose driver nobody polls.
fn offline(change: impl FnOnce(Builder) -> Builder) -> (Device, steadfast::Driver) {
    let builder = Device::builder().broker("localhost", "c").anonymous().plaintext_unprotected();
    change(builder).build().unwrap()
}

/// Counts how often a future was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A message whose topic is one byte.
fn message(payload: &[u8]) -> Message<'_> {
    Message::to_topic("t", payload)
}

fn short_lived(payload: &[u8]) -> Message<'_> {
    message(payload).expires_after(SHORT)
}

/// Sends in a task of its own that is known to wait.
async fn waits(device: &Device, size: usize, urgent: bool) -> tokio::task::JoinHandle<()> {
    let device = device.clone();
    let (started, begun) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let body = vec![b'w'; size];
        let message = if urgent { message(&body).urgent() } else { message(&body) };
        let mut sending = pin!(device.send(message));
        assert!(Arc::new(Woken::default()).poll(sending.as_mut()).is_pending());
        started.send(()).unwrap();
        drop(sending.await.unwrap());
    });
    soon(begun).await.unwrap();
    task
}

#[tokio::test]
async fn while_the_hub_is_away_every_sender_that_waits_gets_in_when_messages_expire() {
    let (device, driver) = offline(|builder| builder.outbox(40, 2_000).overflow(Overflow::RejectNewest));
    // Each expires at a time of its own, and each is smaller than what waits.
    for number in 0..40 {
        let spoken_for = message(&[0; 49]).expires_after(SHORT + Duration::from_millis(number * 10));
        drop(device.try_send(spoken_for).unwrap());
    }
    let _driver = tokio::spawn(driver);
    let mut tasks = Vec::new();
    for (number, size) in [10, 400, 1, 0, 300, 60, 500, 20].into_iter().enumerate() {
        tasks.push(waits(&device, size, number % 3 == 2).await);
    }
    for task in tasks {
        soon(task).await.unwrap();
    }
    let ledger = device.ledger();
    assert!(ledger.balances());
    assert_eq!((ledger.accepted, ledger.refused, ledger.evicted, ledger.delivered), (48, 0, 0, 0));
}

#[tokio::test]
async fn messages_in_flight_make_room_as_soon_as_their_connection_has_ended() {
    for (overflow, urgent) in
        [(Overflow::DropOldest, false), (Overflow::DropOldest, true), (Overflow::DropForUrgent, true)]
    {
        let server = Server::start().await;
        let (device, driver) = server.client().outbox(2, 1_000).overflow(overflow).build().unwrap();
        let _driver = tokio::spawn(driver);
        let mut oldest = device.try_send(message(b"1")).unwrap();
        let mut younger = device.try_send(message(b"2")).unwrap();
        let mut peer = server.welcome(false).await;
        peer.publish().await;
        peer.publish().await;
        // Both are in flight, and may have arrived: the policy does not drop them.
        let waiting = waits(&device, 1, urgent).await;
        let behind = waits(&device, 996, urgent).await;
        assert_eq!((oldest.outcome(), younger.outcome()), (None, None));
        // From here on the broker is away.
        drop((peer, server));
        soon(waiting).await.unwrap();
        soon(behind).await.unwrap();
        assert_eq!(soon(oldest.delivered()).await, Err(DeliveryError::Evicted));
        assert_eq!(soon(younger.delivered()).await, Err(DeliveryError::Evicted));
        assert!(device.ledger().balances());
    }
}

#[tokio::test]
async fn an_alarm_overtakes_those_who_wait_and_drops_what_is_queued_for_it() {
    let (device, driver) = offline(|builder| builder.outbox(3, 300).overflow(Overflow::DropForUrgent));
    let _driver = tokio::spawn(driver);
    for _ in 0..3 {
        drop(device.try_send(message(&[0; 99])).unwrap());
    }
    let normal = waits(&device, 99, false).await;
    let large = waits(&device, 250, false).await;
    // As large as all that is queued.
    drop(soon(device.send(message(&[0; 299]).urgent())).await.unwrap());
    assert_eq!((device.ledger().evicted, device.ledger().queued), (3, 1));
    assert!(!normal.is_finished() && !large.is_finished());
    // There is nothing left that may be dropped for it.
    assert_eq!(device.try_send(message(b"x").urgent()).unwrap_err(), SendError::Full);
    let alarm = waits(&device, 99, true).await;
    tokio::time::sleep(SHORT).await;
    assert!(!alarm.is_finished());
}

#[tokio::test]
async fn what_makes_room_is_told_at_once_though_nobody_polls_the_driver() {
    let (device, _driver) = offline(|builder| builder.outbox(2, 1_000).overflow(Overflow::DropOldest));
    let mut first = device.try_send(message(b"1")).unwrap();
    let mut second = device.try_send(message(b"2")).unwrap();
    let woken = Arc::new(Woken::default());
    assert!(woken.poll(pin!(&mut first)).is_pending());
    let mut third = device.try_send(message(b"3")).unwrap();
    assert_eq!((woken.count(), first.outcome()), (1, Some(Err(DeliveryError::Evicted))));
    let fourth = pin!(device.send(message(b"4")));
    assert!(woken.poll(fourth).is_ready());
    assert_eq!((second.outcome(), third.outcome()), (Some(Err(DeliveryError::Evicted)), None));
}

#[tokio::test]
async fn room_that_an_alarm_leaves_over_goes_to_those_who_wait() {
    let (device, _driver) = offline(|builder| builder.outbox(3, 1_000).overflow(Overflow::RejectNewest));
    for _ in 0..3 {
        drop(device.try_send(short_lived(b"1")).unwrap());
    }
    let woken = Arc::new(Woken::default());
    let mut normal = pin!(device.send(message(b"2")));
    assert!(woken.poll(normal.as_mut()).is_pending());
    tokio::time::sleep(SHORT * 2).await;
    // All three have expired, which nobody has looked for yet.
    let _alarm = device.try_send(message(b"3").urgent()).unwrap();
    assert_eq!(woken.count(), 1);
    assert!(woken.poll(normal.as_mut()).is_ready());
    assert_eq!(device.ledger().queued, 2);
}

#[tokio::test]
async fn what_can_never_be_accepted_does_not_wait_behind_others() {
    let (device, _driver) = offline(|builder| builder.outbox(1, 100));
    let _first = device.try_send(message(b"1")).unwrap();
    let woken = Arc::new(Woken::default());
    let mut waiting = pin!(device.send(message(b"2")));
    assert!(woken.poll(waiting.as_mut()).is_pending());
    let refused = device.ledger().refused;
    let too_large = SendError::TooLarge { size: 201, limit: 100 };
    let large = [0; 200];
    assert_eq!(soon(device.send(message(&large))).await.unwrap_err(), too_large);
    assert_eq!(soon(device.send(message(&large).urgent())).await.unwrap_err(), too_large);
    let wild = device.try_send(Message::to_topic("a/#", b"")).unwrap_err();
    assert_eq!(wild, SendError::InvalidTopic);
    assert_eq!(device.ledger().refused, refused + 3);
}

#[tokio::test]
async fn a_large_message_at_the_front_gets_in_once_enough_has_expired_and_those_behind_it_follow() {
    let (device, driver) = offline(|builder| builder.outbox(100, 1_000).overflow(Overflow::RejectNewest));
    for number in 0..10 {
        let of_use = SHORT + Duration::from_millis(number * 20);
        drop(device.try_send(message(&[0; 99]).expires_after(of_use)).unwrap());
    }
    let _driver = tokio::spawn(driver);
    let whole = waits(&device, 999, false).await;
    let behind = waits(&device, 0, false).await;
    soon(whole).await.unwrap();
    // The outbox is full to the last byte.
    tokio::time::sleep(SHORT).await;
    assert!(!behind.is_finished());
    assert_eq!(device.ledger().expired, 10);
}
