//! Files on their way to the hub's storage, across everything that can happen to them.

use core::time::Duration;

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::upload::{Obstacle, Options, Stage, Upload, UploadError};
use steadfast_core::{Instant, RetryPolicy, Seed};
use steadfast_sim::uploads::{Purpose, UploadFault, Uploads};

use Purpose::{Block, Initiate, List, Notify, Whole};

#[test]
fn a_file_goes_block_by_block_and_the_hub_is_told() {
    let mut world = Uploads::new(1, 2_500);
    let report = world.run().unwrap();
    assert_eq!((report.bytes, report.blocks, report.failures), (2_500, 3, 0));
    assert_eq!(world.purposes(), [Initiate, Block(0), Block(1), Block(2), List, Notify]);
    assert_eq!(world.upload().unwrap().blob(), "pump-7/logs/day 1.txt");
    assert_eq!((world.hubs[0].successes(), world.waits_ms()), (1, vec![]));
}

#[test]
fn lengths_around_a_block_all_arrive_whole() {
    for (len, expected) in [
        (0, vec![Initiate, Whole, Notify]),
        (999, vec![Initiate, Whole, Notify]),
        (1_000, vec![Initiate, Block(0), List, Notify]),
        (1_001, vec![Initiate, Block(0), Block(1), List, Notify]),
    ] {
        let mut world = Uploads::new(1, len);
        world.run().unwrap();
        assert_eq!(world.purposes(), expected, "{len}");
        assert!(world.is_whole(0));
    }
}

#[test]
fn an_outage_in_the_middle_costs_no_block_that_the_storage_has() {
    seeds(20, |seed| {
        let mut world =
            Uploads::new(seed, 9_500).with(|options| options.give_up_after = hours(6)).fault_from(5, UploadFault::Lost);
        world.run_for(hours(2));
        assert_eq!(world.done(), None, "the outage is shorter than patience");
        world.mend();
        let report = world.run().unwrap();
        assert!(report.failures > 5, "{report:?}");
        assert_eq!(world.hubs[0].blocks_taken(), 10, "each block went once");
        // The grant has expired meanwhile, and the hub is told so before it gives another.
        assert_eq!((world.hubs[0].grants(), world.hubs[0].successes()), (2, 1));
    });
}

#[test]
fn waits_in_an_outage_are_drawn_from_the_seed() {
    let waits = |seed| {
        let mut world = Uploads::new(seed, 1_500).fault_from(1, UploadFault::Lost);
        world.run().unwrap_err();
        world.waits_ms()
    };
    assert_eq!(waits(1), waits(1));
    assert_ne!(waits(1), waits(2));
    assert!(waits(1).iter().all(|wait| (500..=120_000).contains(wait)), "{:?}", waits(1));
}

#[test]
fn an_expired_grant_is_replaced_and_the_storage_keeps_what_it_has() {
    for at in 1..=4 {
        let mut world = Uploads::new(1, 2_500).fault(at, UploadFault::GrantOver);
        let report = world.run().unwrap();
        assert_eq!((report.failures, world.hubs[0].blocks_taken()), (0, 3));
        let told: Vec<_> =
            world.hubs[0].notices().iter().map(|notice| (notice.grant, notice.success, notice.status)).collect();
        assert_eq!(told, [(0, false, 403), (1, true, 200)]);
    }
}

#[test]
fn a_grant_that_is_shorter_than_the_upload_is_replaced_as_often_as_it_takes() {
    let mut world = Uploads::new(1, 60_500);
    world.latency_ms = 3_000;
    world.hubs[0].grant_secs = 20;
    world.run().unwrap();
    assert!(world.hubs[0].grants() > 8, "{}", world.hubs[0].grants());
    assert_eq!((world.hubs[0].blocks_taken(), world.hubs[0].successes()), (61, 1));
}

#[test]
fn a_throttled_service_is_left_alone_for_its_retry_after_and_some_jitter() {
    for (at, status) in [(0, 429), (0, 503), (1, 503), (2, 503), (4, 429), (5, 429)] {
        let mut delays = Vec::new();
        seeds(30, |seed| {
            let mut world = Uploads::new(seed, 2_500).fault(at, UploadFault::Status(status, Some(40)));
            assert_eq!(world.run().unwrap().failures, 1);
            delays.extend(world.waits_ms());
        });
        assert!(delays.iter().all(|delay| (40_000..=60_000).contains(delay)), "{delays:?}");
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 25, "{delays:?}");
    }
}

#[test]
fn a_service_that_is_busy_for_long_is_asked_ever_more_rarely() {
    let mut world = Uploads::new(3, 1_500).fault_from(0, UploadFault::Status(500, None));
    let error = world.run().unwrap_err();
    assert_eq!(error, UploadError::GaveUp(Obstacle::Busy(500)));
    assert!(world.made().len() < 20, "{:?}", world.made());
    assert!(world.now_ms() <= 3_601_000 + 150, "{}", world.now_ms());
}

#[test]
fn a_device_that_is_moved_in_the_middle_brings_the_file_to_its_new_hub() {
    for fault in [UploadFault::Moved, UploadFault::HubGone] {
        for at in 0..=5 {
            let mut world = Uploads::new(1, 2_500).fault(at, fault);
            world.run().unwrap();
            assert_eq!((world.hubs[0].successes(), world.hubs[1].successes()), (0, 1), "{fault:?} at {at}");
            assert!(world.is_whole(1));
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_again_says_so_after_a_move() {
    // The old storage takes the rest, but no hub takes word of it.
    let mut world = Uploads::new(1, 2_500).with(|options| options.rereadable = false).fault(2, UploadFault::Moved);
    let error = world.run().unwrap_err();
    assert_eq!(error, UploadError::Refused { stage: Stage::Notify, status: 401, code: 401_002 });
    // The grant was over with the move: the new hub's is for another place.
    let world = Uploads::new(1, 2_500).with(|options| options.rereadable = false);
    let mut world = world.fault(2, UploadFault::GrantOver).fault(3, UploadFault::Moved);
    assert_eq!(world.run().unwrap_err(), UploadError::SourceSpent);
}

#[test]
fn a_device_without_a_hub_waits_for_its_assignment() {
    let mut world = Uploads::new(1, 1_500);
    world.home = None;
    world.run_for(mins(30));
    assert_eq!((world.done(), world.made().len()), (None, 0));
    world.home = Some(1);
    world.run().unwrap();
    assert!(world.is_whole(1));
    let mut world = Uploads::new(1, 1_500);
    world.home = None;
    assert_eq!(world.run().unwrap_err(), UploadError::GaveUp(Obstacle::Unassigned));
}

#[test]
fn a_device_that_reboots_uploads_again_and_the_file_is_whole() {
    for at in 1..=6 {
        let mut world = Uploads::new(1, 2_500);
        world.run_until_made(at);
        world.reboot();
        world.run().unwrap();
        assert!(world.is_whole(0));
        assert!(world.hubs[0].unclosed() <= 1, "the grant from before ends by itself");
    }
}

#[test]
fn a_device_that_keeps_a_checkpoint_goes_on_where_it_was() {
    for at in 1..=6 {
        let mut world = Uploads::new(1, 3_500);
        world.run_until_made(at);
        world.reboot_with_checkpoint();
        let report = world.run().unwrap();
        assert_eq!((report.bytes, report.blocks), (3_500, 4));
        // The short one at the end comes again.
        assert_eq!(world.hubs[0].blocks_taken(), if at > 4 { 5 } else { 4 }, "rebooted after {at}");
    }
    // Blocks that are gone, or in another place, are brought again.
    for fault in [UploadFault::BlocksDropped, UploadFault::Moved] {
        let mut world = Uploads::new(1, 3_500).fault(3, fault);
        world.run_until_made(3);
        world.reboot_with_checkpoint();
        world.run().unwrap();
        assert!(world.is_whole(0) || world.is_whole(1));
    }
}

#[test]
fn a_checkpoint_of_another_file_is_not_taken() {
    let mut world = Uploads::new(1, 3_500);
    world.run_until_made(3);
    let kept = world.upload().unwrap().checkpoint().unwrap();
    for change in [|options: &mut Options| options.block_len = 999, |options: &mut Options| options.rereadable = false]
    {
        let mut options = Options::DEFAULT;
        options.block_len = 1_000;
        change(&mut options);
        let now = Instant::ORIGIN;
        let mut upload = Upload::new("f", options, RetryPolicy::DEFAULT, Seed::from_number(1), [0; 9], now).unwrap();
        assert!(!upload.resume(kept));
        assert_eq!(upload.progress().blocks, 0);
    }
    let mut begun = Uploads::new(1, 3_500);
    begun.run_until_made(1);
    assert_eq!(begun.upload().unwrap().checkpoint(), None, "the storage has nothing yet");
}

#[test]
fn a_lost_answer_to_the_list_commits_the_same_file_and_tells_once() {
    let mut world = Uploads::new(1, 2_500).fault(4, UploadFault::AnswerLost);
    assert_eq!(world.run().unwrap().failures, 1);
    assert_eq!((world.hubs[0].blocks_taken(), world.hubs[0].successes(), world.hubs[0].notices().len()), (3, 1, 1));
}

#[test]
fn a_lost_answer_to_the_word_of_success_is_told_again_and_nothing_is_sent_again() {
    seeds(10, |seed| {
        for len in [500, 2_500] {
            let notify = if len > 1_000 { 5 } else { 2 };
            let mut world = Uploads::new(seed, len).fault(notify, UploadFault::AnswerLost);
            assert_eq!(world.run().unwrap().failures, 1);
            // The hub counts the first as over, whether it had heard of it or it had expired.
            assert_eq!(world.purposes()[notify..], [Notify, Notify, Initiate, Notify]);
        }
    });
}

#[test]
fn word_that_never_arrived_is_told_even_after_the_grant_is_over() {
    let mut world = Uploads::new(1, 2_500).fault(5, UploadFault::Lost).fault(6, UploadFault::Status(400, None));
    assert_eq!(world.run().unwrap().bytes, 2_500);
    assert_eq!((world.hubs[0].blocks_taken(), world.hubs[0].successes()), (3, 1));
}

#[test]
fn a_hub_that_refuses_word_it_never_had_is_told_about() {
    let world = Uploads::new(1, 500).fault(2, UploadFault::Status(400, None));
    let mut world = world.fault(4, UploadFault::Status(400, None));
    let error = world.run().unwrap_err();
    assert_eq!(error, UploadError::Refused { stage: Stage::Notify, status: 400, code: 0 });
    assert_eq!(world.upload().unwrap().untold(), 2);
}

#[test]
fn blocks_that_the_storage_dropped_are_brought_again_once() {
    let mut world = Uploads::new(1, 2_500).fault(4, UploadFault::BlocksDropped);
    assert_eq!((world.run().unwrap().blocks, world.hubs[0].blocks_taken()), (3, 6));
    let world = Uploads::new(1, 2_500).fault(4, UploadFault::BlocksDropped);
    let error = world.fault(8, UploadFault::BlocksDropped).run().unwrap_err();
    assert_eq!(error, UploadError::Refused { stage: Stage::Store, status: 400, code: 0 });
}

#[test]
fn an_upload_that_is_cancelled_tells_the_hub() {
    for at in 1..=4 {
        let mut world = Uploads::new(1, 2_500);
        world.run_until_made(at);
        world.cancel();
        assert_eq!(world.run().unwrap_err(), UploadError::Cancelled);
        let notices = world.hubs[0].notices();
        assert_eq!((notices.len(), notices[0].success, notices[0].status), (1, false, 499));
    }
    // The file is in the storage: that is what the hub is told.
    let mut world = Uploads::new(1, 2_500);
    world.run_until_made(5);
    world.cancel();
    assert_eq!(world.run().unwrap_err(), UploadError::Cancelled);
    assert_eq!(world.hubs[0].successes(), 1);
    // Nothing was asked for yet.
    let mut world = Uploads::new(1, 2_500);
    world.cancel();
    assert_eq!((world.run().unwrap_err(), world.made().len()), (UploadError::Cancelled, 0));
}

#[test]
fn a_cancelled_upload_ends_even_when_the_hub_is_gone() {
    let mut world = Uploads::new(1, 2_500).fault_from(3, UploadFault::Lost);
    world.run_until_made(3);
    world.cancel();
    assert_eq!(world.run().unwrap_err(), UploadError::Cancelled);
    assert_eq!((world.made().len(), world.upload().unwrap().untold()), (6, 1));
}

#[test]
fn more_open_uploads_than_the_hub_allows_are_waited_for() {
    seeds(10, |seed| {
        let mut world = Uploads::new(seed, 500);
        // Left over from before; the first ends in a quarter of an hour.
        world.hubs[0].open(10, 900);
        world.orphans = 10;
        let report = world.run().unwrap();
        assert!(report.failures > 0 && world.now_ms() > 900_000, "{report:?}");
        assert!(world.made().len() < 20, "{:?}", world.made());
    });
}

#[test]
fn patience_ends_and_the_hub_is_told() {
    seeds(10, |seed| {
        let world = Uploads::new(seed, 2_500).with(|options| options.give_up_after = secs(100));
        let busy = UploadFault::Status(503, Some(50));
        let mut world = world.fault(2, busy).fault(3, busy);
        assert_eq!(world.run().unwrap_err(), UploadError::GaveUp(Obstacle::Busy(503)));
        assert_eq!(world.purposes(), [Initiate, Block(0), Block(1), Block(1), Notify]);
        let notice = &world.hubs[0].notices()[0];
        assert_eq!((notice.success, notice.status, world.upload().unwrap().untold()), (false, 500, 0));
    });
}

#[test]
fn progress_renews_patience() {
    let mut world = Uploads::new(1, 30_500).with(|options| options.give_up_after = mins(2));
    world.latency_ms = 60_000;
    world.run().unwrap();
    assert!(world.now_ms() > 1_800_000);
}

#[test]
fn grants_that_are_never_good_come_to_an_end() {
    let world = Uploads::new(1, 500).fault(1, UploadFault::GrantOver).fault(4, UploadFault::GrantOver);
    let mut world = world.fault(7, UploadFault::GrantOver);
    let refused = UploadError::Refused { stage: Stage::Store, status: 403, code: 0 };
    assert_eq!(world.run().unwrap_err(), refused);
    assert_eq!((world.hubs[0].grants(), world.hubs[0].unclosed()), (3, 0));
}

#[test]
fn a_refused_credential_is_replaced_twice_and_then_told() {
    for (refusals, works) in [(1, true), (2, true), (3, false)] {
        let mut world = Uploads::new(1, 500);
        for number in 0..refusals {
            world = world.fault(number, UploadFault::Status(401, None));
        }
        let result = world.run();
        assert_eq!(result.is_ok(), works, "{result:?}");
        assert!(world.waits_ms().iter().all(|wait| *wait < 2_000));
    }
}

#[test]
fn a_source_that_fails_is_told_to_the_hub() {
    let mut world = Uploads::new(1, 2_500);
    world.broken_at = Some(2_000);
    assert_eq!(world.run().unwrap_err(), UploadError::Source);
    assert_eq!(world.hubs[0].notices().iter().map(|notice| notice.success).collect::<Vec<_>>(), [false]);
}

#[test]
fn a_file_of_more_blocks_than_the_storage_takes_is_told() {
    let mut world = Uploads::new(1, 50_001).with(|options| options.block_len = 1);
    world.latency_ms = 1;
    assert_eq!(world.run().unwrap_err(), UploadError::TooLong);
    assert_eq!(world.hubs[0].unclosed(), 0);
}

#[test]
fn a_grant_that_does_not_fit_is_told_and_closed() {
    let mut world = Uploads::new(1, 500).with_room(60);
    let error = world.run().unwrap_err();
    assert!(matches!(error, UploadError::NoRoom { needed, room: 60 } if needed > 60), "{error}");
    assert_eq!(world.hubs[0].unclosed(), 0, "the hub was told");
}

#[test]
fn an_answer_that_is_no_grant_is_told() {
    let mut world = Uploads::new(1, 500).fault(0, UploadFault::Garbage);
    assert_eq!(world.run().unwrap_err(), UploadError::Answer);
    assert_eq!(Duration::from_millis(world.now_ms()), secs(1) + Duration::from_millis(150));
}
