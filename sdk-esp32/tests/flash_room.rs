//! Room in the flash outbox under a link: bursts, mixed sizes and expiry, while nobody asks for events.
#![cfg(feature = "flash")]
#![expect(clippy::unwrap_used, reason = "a failure of what a test sets up fails the test")]

#[path = "support/nor.rs"]
#[allow(dead_code, reason = "no power is cut here")]
mod nor;

use core::time::Duration;

use nor::Nor;
use steadfast_core::{
    Action, AnyProfile, Config, Credential, DropReason, Event, Input, Instant, Link, Message, MessageId, Outbox,
    Output, Overflow, PublishError, Seed, Service,
};
use steadfast_esp32::flash::FlashOutbox;

const SLOTS: usize = 8;
const BYTES: usize = 400;
const PAGES: usize = 8;
type Flash = FlashOutbox<'static, &'static mut Nor, SLOTS, BYTES>;
type Alone = Link<Flash, AnyProfile<Config<&'static str>>>;

fn flash() -> Flash {
    let nor: &'static mut Nor = Box::leak(Box::new(Nor::new(PAGES)));
    let range = nor.range();
    FlashOutbox::open(nor, range, Box::leak(Box::new([0; 256])), None).unwrap()
}

/// A link that was never started.
fn alone(outbox: Flash, overflow: Overflow) -> Alone {
    let service = Service::Broker { host: "broker.example", client_id: "pump-7" };
    let mut config = Config::new(service, Credential::Anonymous);
    config.session.overflow = overflow;
    config.session.window = 2;
    Link::new(AnyProfile::new(config, [0; 256]), outbox, Seed::from_number(7), Instant::ORIGIN).unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn publish(link: &mut Alone, len: usize, now: Instant) -> Result<MessageId, PublishError> {
    link.publish(Message::to_topic("t", &vec![b'x'; len - 1]), now)
}

fn contains(outbox: &Flash, id: MessageId) -> bool {
    outbox.next(id) == Some(id)
}

fn is_last(link: &Alone, id: MessageId) -> bool {
    link.outbox().last() == Some(id)
}

/// The numbers of messages that were dropped, by reason, as the events tell.
fn dropped(link: &mut Alone, reason: DropReason) -> u64 {
    let mut count = 0;
    while let Output::Event(event) = link.poll_output() {
        if let Event::Dropped(dropped) = event
            && dropped.reason == reason
        {
            count += u64::from(dropped.count);
        }
    }
    count
}

#[test]
fn a_burst_of_mixed_sizes_is_taken_whole_and_the_ledger_counts_no_refusal() {
    for spilling in [false, true] {
        let outbox = if spilling { flash().spilling() } else { flash() };
        let mut link = alone(outbox, Overflow::DropOldest);
        for number in 0..2_000 {
            let id =
                publish(&mut link, 1 + number * 37 % 200, at(0)).unwrap_or_else(|error| panic!("{number}: {error}"));
            assert!(is_last(&link, id));
        }
        let ledger = link.ledger();
        assert!(ledger.balances());
        assert_eq!((ledger.accepted, ledger.refused), (2_000, 0));
        let held = link.outbox().usage().messages;
        assert_eq!(ledger.evicted, 2_000 - held as u64);
        let least = if spilling { 10 } else { 3 };
        assert!(held >= least, "only {held} of those that have room are left");
        assert_eq!(dropped(&mut link, DropReason::Evicted), ledger.evicted);
    }
}

#[test]
fn an_alarm_takes_the_room_of_the_oldest_normal_messages() {
    for overflow in [Overflow::DropOldest, Overflow::DropForUrgent] {
        let mut link = alone(flash().spilling(), overflow);
        while link.ledger().evicted == 0 && publish(&mut link, 40, at(0)).is_ok() {}
        let before = link.ledger();
        for _ in 0..5 {
            let alarm = link.publish(Message::to_topic("t", &[b'!'; 200]).urgent(), at(1)).unwrap();
            assert!(contains(link.outbox(), alarm));
        }
        let after = link.ledger();
        assert_eq!(after.refused, before.refused);
        assert!(after.evicted > before.evicted && after.queued > 5, "{after:?}");
    }
}

#[test]
fn messages_that_expired_leave_at_once_wherever_they_lie_and_make_room() {
    for spilling in [false, true] {
        let outbox = if spilling { flash().spilling() } else { flash() };
        let mut link = alone(outbox, Overflow::RejectNewest);
        for round in 0..20 {
            let now = at(round * 10_000);
            let mut queued = 0_u64;
            let publish = |link: &mut Alone, number: u64| {
                let body = vec![b'x'; usize::try_from(number * 7 % 50).unwrap()];
                link.publish(Message::to_topic("t", &body).expires_after(Duration::from_secs(2)), now)
            };
            while publish(&mut link, queued).is_ok() {
                queued += 1;
            }
            assert!(queued >= if spilling { 15 } else { 5 }, "round {round}: {queued}");
            let before = link.ledger().expired;
            link.handle_timeout(at(round * 10_000 + 2_001));
            assert_eq!(link.ledger().expired - before, queued, "round {round}");
            assert_eq!(link.ledger().queued, 0);
            assert_eq!(dropped(&mut link, DropReason::Expired), queued);
        }
    }
}

#[test]
fn what_has_expired_makes_room_for_fresh_messages_without_a_turn_in_between() {
    for spilling in [false, true] {
        let outbox = if spilling { flash().spilling() } else { flash() };
        let mut link = alone(outbox, Overflow::RejectNewest);
        for number in 0..3_000 {
            let message = Message::to_topic("t", b"0123456789").expires_after(Duration::from_millis(500));
            link.publish(message, at(number * 130)).unwrap_or_else(|error| panic!("{number}: {error}"));
        }
        assert!(link.ledger().balances());
    }
}

/// Connects and accepts the session; what is queued goes in flight as far as the window allows.
fn connect(link: &mut Alone) {
    let mut now = at(0);
    link.start(now);
    loop {
        match link.poll_output() {
            Output::Action(Action::Connect { attempt, .. }) => {
                link.handle_input(Input::Connected, attempt, now);
                link.handle_input(Input::Ready, attempt, now);
            }
            Output::Action(Action::Send { attempt, packet }) if packet.name() == "CONNECT" => {
                link.handle_input(Input::Bytes(&[0x20, 2, 0, 0]), attempt, now);
            }
            Output::Wait(deadline) => {
                now = deadline.unwrap().at;
                if link.status().in_flight > 0 {
                    return;
                }
                link.handle_timeout(now);
            }
            Output::Action(_) | Output::Event(_) | _ => {}
        }
    }
}

#[test]
fn where_dropping_the_others_makes_no_room_none_is_dropped() {
    // A page is free only when all that lies on it has left, and pages are used in turn.
    for urgent in [false, true] {
        let mut link = alone(flash().spilling(), Overflow::DropOldest);
        let first = Message::to_topic("t", b"stays");
        link.publish(if urgent { first.urgent() } else { first }, at(0)).unwrap();
        if !urgent {
            connect(&mut link);
            assert_eq!(link.status().in_flight, 1);
        }
        let mut accepted = 1;
        while publish(&mut link, 100, at(1)).is_ok() {
            accepted += 1;
            assert!(accepted < 1_000, "the first message has to stay in its way");
        }
        let held = link.ledger().queued;
        assert!(held > 8, "{:?}", link.ledger());
        for _ in 0..50 {
            assert_eq!(publish(&mut link, 100, at(2)), Err(PublishError::Full));
        }
        assert_eq!(link.ledger().queued, held, "nothing was dropped in vain");
        assert!(link.ledger().balances());
    }
}
