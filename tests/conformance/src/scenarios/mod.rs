//! The scenarios. Each is generic over its [`Subject`](crate::Subject), and its name says what is expected.

pub mod connecting;
pub mod delivery;
pub mod services;
pub mod stopping;

use std::time::Duration;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn mins(mins: u64) -> Duration {
    secs(mins * 60)
}

/// Makes a test of every scenario for one subject.
#[macro_export]
macro_rules! scenarios {
    ($subject:ty) => {
        $crate::scenarios! { $subject, connecting:
            a_new_device_registers_once_and_comes_up
            a_device_whose_hub_is_away_tries_ever_less_often_and_comes_back
            a_refused_device_registers_again_rarely_and_comes_back_once_it_is_enabled
            a_token_is_renewed_without_losing_a_message
            the_end_of_a_connection_is_noticed_when_it_comes
            a_dead_connection_is_found_by_its_keep_alive
            an_overloaded_hub_is_tried_again_and_never_left_for_a_registration
            a_throttled_registration_is_tried_again_no_sooner_than_the_service_asks
            a_hub_that_does_not_answer_connect_is_left_and_tried_again
            a_restarted_device_goes_straight_to_its_hub
            a_device_that_loses_power_in_an_outage_goes_on_waiting
        }
        $crate::scenarios! { $subject, delivery:
            messages_queued_before_the_start_arrive_once_and_in_order
            a_cut_with_a_session_that_was_kept_repeats_in_order_and_marks_what_was_sent_before
            a_cut_with_a_session_that_was_lost_repeats_in_order_and_marks_nothing
            a_message_whose_acknowledgement_was_lost_comes_again_under_its_id
            a_full_outbox_refuses_the_newest
            a_full_outbox_drops_the_oldest_when_configured
            a_full_outbox_makes_room_for_an_urgent_message_when_configured
            a_message_that_expires_in_an_outage_is_reported_and_never_sent
            an_urgent_message_leaves_before_the_normal_ones
            a_device_moves_to_another_hub_with_its_queue
            a_poison_message_is_set_aside_and_the_others_arrive
            late_acknowledgements_limit_what_is_in_flight_and_lose_nothing
            an_acknowledgement_that_comes_twice_counts_once
        }
        $crate::scenarios! { $subject, services:
            desired_properties_are_seen_without_a_gap_or_a_repetition
            properties_reported_in_an_outage_arrive_merged
            a_throttled_report_is_sent_again_later
            a_method_call_is_answered_once
            an_answer_to_a_call_whose_connection_has_ended_is_refused
            an_acknowledged_message_to_the_device_does_not_come_again
            a_message_to_the_device_comes_again_until_it_is_acknowledged
            a_slow_application_gets_every_message_to_the_device_once_and_in_order
        }
        $crate::scenarios! { $subject, stopping:
            a_stop_sends_what_is_queued_and_leaves
            a_stop_in_the_middle_of_an_attempt_ends_it
            a_stop_while_the_hub_is_away_keeps_what_is_queued
            a_drain_that_the_hub_does_not_answer_ends_in_time
        }
    };
    ($subject:ty, $chapter:ident: $($scenario:ident)*) => {
        mod $chapter {
            use super::super::*;
            $(#[test] fn $scenario() { $crate::scenarios::$chapter::$scenario::<$subject>(); })*
        }
    };
}
