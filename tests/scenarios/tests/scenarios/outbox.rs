//! The queue is bounded, and nothing leaves it without a word.

use scenarios::{hours, mins, secs};
use steadfast_core::iothub::topics::{MESSAGE_ID_SIZE, TELEMETRY_MAX};
use steadfast_core::{
    Config, Credential, Destination, DropReason, Entry, Instant, IotHub, Link, Message, MessageId, Outbox, Overflow,
    PublishError, RamOutbox, Seed, Service,
};
use steadfast_sim::service::PublishFault;
use steadfast_sim::{HeapOutbox, World, outbox_contract};

#[test]
fn outboxes_in_ram_keep_the_contract() {
    outbox_contract(RamOutbox::<1, 16>::new);
    outbox_contract(RamOutbox::<2, 64>::new);
    outbox_contract(RamOutbox::<8, 100>::new);
    outbox_contract(RamOutbox::<64, 4096>::new);
    outbox_contract(|| HeapOutbox::new(16, 1000));
}

#[test]
fn a_full_outbox_refuses_the_newest_and_says_so() {
    let mut world = World::builder().build_with(|_| RamOutbox::<4, 64>::new());
    let ids: Vec<_> = (0..4).map(|number| world.publish(&format!("{number}"))).collect();
    assert_eq!(world.try_publish(b"more", None), Err(PublishError::Full));
    assert_eq!((world.ledger().accepted, world.ledger().refused), (4, 1));
    world.start();
    world.run_until_delivered();
    assert_eq!(world.delivered(), ids);
}

#[test]
fn a_full_outbox_that_drops_the_oldest_reports_each() {
    let builder = World::builder().configure(|config| config.session.overflow = Overflow::DropOldest);
    let mut world = builder.build_with(|_| RamOutbox::<4, 64>::new());
    let ids = world.publish_many(10);
    let evicted: Vec<_> = ids[..6].iter().map(|id| (*id, DropReason::Evicted)).collect();
    assert_eq!(world.dropped(), evicted);
    world.start();
    world.run_until_delivered();
    assert_eq!(world.delivered(), &ids[6..]);
    assert_eq!((world.ledger().evicted, world.ledger().delivered), (6, 4));
}

#[test]
fn what_is_in_flight_is_never_evicted() {
    let builder = World::builder().assigned().configure(|config| {
        config.session.overflow = Overflow::DropOldest;
        config.session.window = 2;
    });
    let mut world = builder.build_with(|_| RamOutbox::<4, 64>::new());
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.publish = PublishFault::AckLate(5_000);
    let ids = world.publish_many(6);
    assert_eq!(world.dropped(), [(ids[2], DropReason::Evicted), (ids[3], DropReason::Evicted)]);
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["0", "1", "4", "5"]);
}

#[test]
fn a_message_whose_time_runs_out_while_the_link_is_down_is_reported_in_time() {
    let mut world = World::builder().build();
    let short = world.try_publish(b"short", Some(secs(30))).unwrap();
    let long = world.publish("long");
    world.run_for(secs(31));
    assert_eq!(world.dropped(), [(short, DropReason::Expired)]);
    world.start();
    world.run_until_delivered();
    assert_eq!(world.delivered(), [long]);
    assert_eq!(world.ledger().expired, 1);
}

#[test]
fn a_default_expiry_ends_every_message_and_leaves_none_immortal() {
    let mut world = World::builder().configure(|config| config.session.expiry = Some(mins(10))).build();
    world.network().set_all(Some(steadfast_sim::Reach::Unresolved));
    world.start();
    for _ in 0..30 {
        let _ = world.try_publish(b"x", None);
        world.run_for(mins(1));
    }
    world.run_for(mins(11));
    assert_eq!((world.ledger().expired, world.ledger().queued), (30, 0));
}

#[test]
fn a_suspended_device_drops_what_expired_and_no_more() {
    let mut world = World::builder().assigned().build();
    world.start();
    world.run_until_up();
    world.hub_down(0);
    world.run_for(secs(1));
    let expired = world.try_publish(b"day", Some(hours(4))).unwrap();
    let kept = world.try_publish(b"week", Some(hours(40))).unwrap();
    world.suspend(hours(8));
    world.run_for(hours(8));
    world.hub_up(0);
    world.run_until_delivered();
    assert_eq!(world.dropped(), [(expired, DropReason::Expired)]);
    assert_eq!(world.delivered(), [kept]);
}

#[test]
fn a_message_in_flight_ends_by_its_acknowledgement_not_by_its_expiry() {
    let mut world = World::builder().assigned().build();
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.publish = PublishFault::AckLate(60_000);
    let id = world.try_publish(b"x", Some(secs(10))).unwrap();
    world.run_until_delivered();
    assert_eq!(world.delivered(), [id]);
}

#[test]
fn what_the_service_can_never_take_is_refused_by_the_call() {
    let mut world = World::builder().build_with(|_| HeapOutbox::new(4, 1 << 20));
    let largest = vec![b'x'; TELEMETRY_MAX - MESSAGE_ID_SIZE];
    assert!(world.try_publish(&largest, None).is_ok());
    let refused = world.try_publish(&vec![b'x'; TELEMETRY_MAX - MESSAGE_ID_SIZE + 1], None);
    assert_eq!(refused, Err(PublishError::TooLarge { size: TELEMETRY_MAX + 1, limit: TELEMETRY_MAX }));
    world.start();
    world.run_until_delivered();
    let mut broker = World::builder().broker().build();
    for topic in ["", "a/+", "#", "a\0b"] {
        let publish = |link: &mut steadfast_sim::DeviceLink<_>, now| link.publish(Message::to_topic(topic, b""), now);
        assert_eq!(broker.command(0, publish), Err(PublishError::BadTopic), "{topic:?}");
    }
}

#[test]
fn an_outbox_of_any_size_works_to_its_brim() {
    fn scenario<const SLOTS: usize, const BYTES: usize>() {
        let mut world = World::builder().assigned().build_with(|_| RamOutbox::<SLOTS, BYTES>::new());
        world.start();
        let mut taken = 0;
        for _ in 0..200 {
            taken += u64::from(world.try_publish(b"abc", None).is_ok());
            world.run_for(secs(1));
        }
        world.run_until_delivered();
        assert_eq!(world.ledger().delivered, taken);
    }
    scenario::<1, 3>();
    scenario::<2, 3>();
    scenario::<3, 7>();
    scenario::<7, 300>();
    let mut none = World::builder().build_with(|_| RamOutbox::<1, 0>::new());
    assert_eq!(none.try_publish(b"x", None), Err(PublishError::TooLarge { size: 1, limit: 0 }));
}

#[test]
fn messages_from_before_a_reboot_are_delivered_first_under_their_ids() {
    let old = [MessageId::new(41), MessageId::new(42)];
    let make = |_| {
        let mut outbox = RamOutbox::<8, 64>::new();
        for id in old {
            outbox.push(old_entry(id, None)).unwrap();
        }
        outbox
    };
    let mut world = World::builder().build_with(make);
    let new = world.publish("after");
    world.start();
    world.run_until_delivered();
    assert_eq!(world.delivered(), [old[0], old[1], new]);
    assert_eq!(world.ledger().accepted, 3);
}

/// A message of before a reboot.
fn old_entry(id: MessageId, expires: Option<Instant>) -> Entry<'static> {
    Entry { expires, ..Entry::new(id, Destination::Telemetry(""), b"before") }
}

#[test]
fn a_broker_takes_messages_to_topics() {
    let mut world = World::builder().broker().build();
    world.start();
    let ids = world.publish_many(30);
    world.run_for(secs(3));
    world.reset_all();
    world.run_until_delivered();
    assert_eq!(world.delivered().len(), ids.len());
}

#[test]
fn a_message_from_before_a_reboot_expires_in_time_while_the_link_is_down() {
    let make = |_| {
        let mut outbox = RamOutbox::<8, 64>::new();
        let expires = Some(Instant::from_millis(60_000));
        outbox.push(old_entry(MessageId::new(41), expires)).unwrap();
        outbox
    };
    let mut world = World::builder().build_with(make);
    world.network().set_all(Some(steadfast_sim::Reach::Unresolved));
    world.start();
    world.run_for(secs(62));
    assert_eq!(world.dropped(), [(MessageId::new(41), DropReason::Expired)]);
}

#[test]
fn an_outbox_that_cannot_make_enough_room_evicts_nothing() {
    let service = Service::Hub { host: "hub.example", device_id: "pump-7" };
    let mut config = Config::new(service, Credential::SharedKey);
    config.session.overflow = Overflow::DropOldest;
    let outbox = RamOutbox::<40, 200>::new();
    let mut link = Link::new(IotHub::new(config), outbox, Seed::from_number(1), Instant::ORIGIN).unwrap();
    for _ in 0..20 {
        link.publish(Message::telemetry("", b"12345").urgent(), Instant::ORIGIN).unwrap();
        link.publish(Message::telemetry("", b"12345"), Instant::ORIGIN).unwrap();
    }
    // Urgent messages do not make room for a normal one, and all others together are too few.
    let refused = link.publish(Message::telemetry("", &[0; 150]), Instant::ORIGIN);
    assert_eq!((refused, link.ledger().evicted), (Err(PublishError::Full), 0));
    assert!(link.publish(Message::telemetry("", &[0; 40]), Instant::ORIGIN).is_ok());
    assert_eq!(link.ledger().evicted, 8);
}
