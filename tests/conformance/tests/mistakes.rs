//! The scenarios notice a frontend that makes a mistake, each of a table of mistakes in each frontend.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use conformance::scenarios::{connecting, delivery, services, stopping};
use conformance::{Asynchronous, Blocking, Core, Linux, Plan, Seen, Shared, Subject};
use steadfast_core::{Ledger, Message, Priority, State};

const LOSES_A_MESSAGE: u8 = 1;
const REPORTS_DELIVERY_EARLY: u8 = 2;
const FORGETS_URGENCY: u8 = 3;
const ACKNOWLEDGES_BY_ITSELF: u8 = 4;
const ANSWERS_FOR_THE_APPLICATION: u8 = 5;
const STOPS_WITHOUT_DRAINING: u8 = 6;
const KEEPS_NOTHING: u8 = 7;
const KEEPS_REPORTS_APART: u8 = 8;

/// A frontend with a mistake in it.
struct Mistaken<S, const MISTAKE: u8> {
    inner: S,
    published: usize,
    early: VecDeque<Seen>,
}

impl<S: Subject, const MISTAKE: u8> Subject for Mistaken<S, MISTAKE> {
    fn new(cloud: &Shared, plan: &Plan) -> Self {
        let plan = Plan { keeps: plan.keeps && MISTAKE != KEEPS_NOTHING, ..*plan };
        Self { inner: S::new(cloud, &plan), published: 0, early: VecDeque::new() }
    }

    fn start(&mut self) {
        self.inner.start();
    }

    fn stop(&mut self, drain: Duration) {
        self.inner.stop(if MISTAKE == STOPS_WITHOUT_DRAINING { Duration::ZERO } else { drain });
    }

    fn publish(&mut self, mut message: Message<'_>) -> Option<u64> {
        self.published += 1;
        if MISTAKE == LOSES_A_MESSAGE && self.published == 5 {
            return Some(5);
        }
        if MISTAKE == FORGETS_URGENCY {
            message.priority = Priority::Normal;
        }
        let id = self.inner.publish(message);
        if MISTAKE == REPORTS_DELIVERY_EARLY {
            self.early.extend(id.map(Seen::Delivered));
        }
        id
    }

    fn report(&mut self, patch: &str) {
        // Of several only the first.
        if MISTAKE != KEEPS_REPORTS_APART || self.published == 0 {
            self.inner.report(patch);
        }
        self.published += 1;
    }

    fn respond(&mut self, call: u64, status: u16, body: &str) -> bool {
        self.inner.respond(call, if MISTAKE == ANSWERS_FOR_THE_APPLICATION { 500 } else { status }, body)
    }

    fn acknowledge(&mut self, message: u64) -> bool {
        self.inner.acknowledge(message)
    }

    fn poll(&mut self, limit: Duration) -> Option<Seen> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        let seen = self.inner.poll(limit);
        if let Some(Seen::Message { handle, .. }) = &seen
            && MISTAKE == ACKNOWLEDGES_BY_ITSELF
        {
            self.inner.acknowledge(*handle);
        }
        seen
    }

    fn ledger(&self) -> Ledger {
        self.inner.ledger()
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn power_off(self) {
        self.inner.power_off();
    }
}

/// Makes each mistake in one frontend, and runs the scenario that is about it.
fn every_mistake_is_noticed<S: Subject>() {
    type M<S, const MISTAKE: u8> = Mistaken<S, MISTAKE>;
    let table: [(&str, fn()); 8] = [
        ("a lost message", delivery::a_full_outbox_refuses_the_newest::<M<S, LOSES_A_MESSAGE>>),
        (
            "an early delivery",
            delivery::messages_queued_before_the_start_arrive_once_and_in_order::<M<S, REPORTS_DELIVERY_EARLY>>,
        ),
        ("no urgency", delivery::an_urgent_message_leaves_before_the_normal_ones::<M<S, FORGETS_URGENCY>>),
        (
            "an acknowledgement of its own",
            services::a_message_to_the_device_comes_again_until_it_is_acknowledged::<M<S, ACKNOWLEDGES_BY_ITSELF>>,
        ),
        ("another answer", services::a_method_call_is_answered_once::<M<S, ANSWERS_FOR_THE_APPLICATION>>),
        ("no drain", stopping::a_stop_sends_what_is_queued_and_leaves::<M<S, STOPS_WITHOUT_DRAINING>>),
        ("nothing kept", connecting::a_restarted_device_goes_straight_to_its_hub::<M<S, KEEPS_NOTHING>>),
        ("a report left out", services::properties_reported_in_an_outage_arrive_merged::<M<S, KEEPS_REPORTS_APART>>),
    ];
    delivery::messages_queued_before_the_start_arrive_once_and_in_order::<M<S, 0>>();
    let unnoticed: Vec<&str> = table
        .into_iter()
        .filter(|(_, scenario)| catch_unwind(AssertUnwindSafe(scenario)).is_ok())
        .map(|(mistake, _)| mistake)
        .collect();
    assert_eq!(unnoticed, [""; 0]);
}

#[test]
fn every_mistake_in_the_core_is_noticed() {
    every_mistake_is_noticed::<Core>();
}

#[test]
fn every_mistake_in_the_linux_frontend_is_noticed() {
    every_mistake_is_noticed::<Linux>();
}

#[test]
fn every_mistake_in_the_blocking_esp32_frontend_is_noticed() {
    every_mistake_is_noticed::<Blocking>();
}

#[test]
fn every_mistake_in_the_asynchronous_esp32_frontend_is_noticed() {
    every_mistake_is_noticed::<Asynchronous>();
}
