//! Bursts while nobody asks for events: what lives is decided by the outbox and its policy alone.

use std::time::Duration;

use scenarios::secs;
use steadfast_core::{
    AnyProfile, Config, Credential, DropReason, Dropped, Event, Instant, Link, Message, MessageId, Outbox, Output,
    Overflow, PublishError, Seed, Service,
};
use steadfast_sim::{HeapOutbox, World};

type Alone = Link<HeapOutbox, AnyProfile<Config<&'static str>>>;

/// A link that was never started, and whose outputs nobody polls.
fn alone(messages: usize, bytes: usize, overflow: Overflow) -> Alone {
    let service = Service::Broker { host: "broker.example", client_id: "pump-7" };
    let mut config = Config::new(service, Credential::Anonymous);
    config.session.overflow = overflow;
    let outbox = HeapOutbox::new(messages, bytes);
    Link::new(AnyProfile::new(config, [0; 256]), outbox, Seed::from_number(7), Instant::ORIGIN)
        .expect("a good configuration")
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn publish(link: &mut Alone, len: usize, now: Instant) -> Result<MessageId, PublishError> {
    link.publish(Message::to_topic("t", &vec![b'x'; len - 1]), now)
}

fn dropped(link: &mut Alone) -> Vec<Dropped> {
    let mut all = Vec::new();
    while let Output::Event(event) = link.poll_output() {
        if let Event::Dropped(dropped) = event {
            all.push(dropped);
        }
    }
    all
}

#[test]
fn the_oldest_make_room_for_a_large_message_however_many_it_takes() {
    for overflow in [Overflow::DropOldest, Overflow::DropForUrgent] {
        let mut link = alone(10_000, 100_000, overflow);
        let ids: Vec<_> = (0..1_000).map(|_| publish(&mut link, 100, at(0)).unwrap()).collect();
        let large = vec![b'x'; 1_099];
        let alarm = link.publish(Message::to_topic("t", &large).urgent(), at(1)).unwrap();
        assert_eq!(link.outbox().first(), Some(alarm));
        assert_eq!((link.ledger().evicted, link.ledger().refused), (11, 0));
        if overflow == Overflow::DropOldest {
            let later = publish(&mut link, 1_100, at(2)).unwrap();
            assert_eq!((link.outbox().last(), link.ledger().evicted), (Some(later), 22));
        } else {
            assert_eq!(publish(&mut link, 1_100, at(2)), Err(PublishError::Full));
        }
        let evicted = link.ledger().evicted;
        let (first, last) = (ids[0], ids[usize::try_from(evicted).unwrap() - 1]);
        let told = dropped(&mut link);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].reason, u64::from(told[0].count)), (DropReason::Evicted, evicted));
        assert_eq!((told[0].first, told[0].last), (first, last));
        assert!(link.ledger().balances());
    }
}

#[test]
fn a_burst_into_a_full_outbox_is_taken_whole_and_the_ledger_counts_no_refusal() {
    let mut link = alone(100, 1 << 20, Overflow::DropOldest);
    for number in 0..2_000 {
        // Sizes differ, and nobody listens.
        publish(&mut link, 1 + number % 700, at(0)).unwrap();
    }
    let ledger = link.ledger();
    assert_eq!((ledger.accepted, ledger.queued, ledger.evicted, ledger.refused), (2_000, 100, 1_900, 0));
    assert_eq!(dropped(&mut link).iter().map(|dropped| dropped.count).sum::<u32>(), 1_900);
}

#[test]
fn a_sender_that_waits_for_room_is_not_counted_as_refused() {
    let mut link = alone(1, 100, Overflow::RejectNewest);
    publish(&mut link, 10, at(0)).unwrap();
    for _ in 0..20 {
        assert_eq!(link.offer(Message::to_topic("t", b"x"), at(1)), Ok(None));
    }
    assert_eq!(link.ledger().refused, 0);
    assert_eq!(publish(&mut link, 10, at(2)), Err(PublishError::Full));
    assert_eq!(link.ledger().refused, 1);
}

#[test]
fn expired_messages_leave_at_once_and_together() {
    let mut link = alone(1_000, 1 << 20, Overflow::RejectNewest);
    for _ in 0..1_000 {
        let message = Message::to_topic("t", b"x").expires_after(Duration::from_secs(2));
        link.publish(message, at(0)).unwrap();
    }
    while let Output::Event(_) = link.poll_output() {}
    link.handle_timeout(at(2_001));
    let ledger = link.ledger();
    assert_eq!((ledger.queued, ledger.expired), (0, 1_000));
    let told = dropped(&mut link);
    assert_eq!((told.len(), told[0].reason, told[0].count), (1, DropReason::Expired, 1_000));
}

#[test]
fn what_has_expired_makes_room_for_fresh_messages() {
    // A hundred messages a second that are good for 2 s, into a thousand places, while the hub is away.
    let mut link = alone(1_000, 1 << 20, Overflow::RejectNewest);
    for number in 0..6_000 {
        let now = at(number * 10);
        let message = Message::to_topic("t", b"x").expires_after(Duration::from_secs(2));
        link.publish(message, now).unwrap_or_else(|error| panic!("message {number}: {error}"));
        if link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            link.handle_timeout(now);
        }
    }
    assert!(link.ledger().queued <= 251, "{:?}", link.ledger());
    assert!(link.ledger().balances());
}

#[test]
fn a_message_that_expired_an_instant_ago_is_no_reason_to_refuse_another() {
    let mut link = alone(2, 100, Overflow::RejectNewest);
    for millis in [100, 5_000] {
        let message = Message::to_topic("t", b"x").expires_after(Duration::from_millis(millis));
        link.publish(message, at(0)).unwrap();
    }
    // No timeout was handled in between.
    publish(&mut link, 5, at(101)).unwrap();
    assert_eq!((link.ledger().expired, link.ledger().refused), (1, 0));
}

#[test]
fn every_acknowledgement_of_a_burst_ends_its_message() {
    let builder = World::builder().assigned().configure(|config| config.session.window = 1_000);
    let mut world = builder.build_with(|_| HeapOutbox::new(1_000, 1 << 20));
    world.start();
    world.run_until_up();
    world.publish_many(1_000);
    world.run_until_delivered();
    world.run_for(secs(10));
    assert_eq!((world.ledger().delivered, world.ledger().resent), (1_000, 0));
}
