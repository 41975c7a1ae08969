//! Every fault at every request of an upload, alone, in pairs and for good, and long random histories.
//!
//! The oracle of the world looks at every request: a hub is told of a success only when the file is whole in its storage,
//! and of every grant the hub is told how it ended, or the upload counts it as one that it could not tell of. At the end
//! the file is whole, or the caller was told. `STEADFAST_SEEDS=100000` runs more histories, `STEADFAST_SEED=42` only the
//! one of that seed.

use std::time::Duration;

use steadfast_sim::Rng;
use steadfast_sim::uploads::{UploadFault, Uploads};

/// Length of the file: two blocks and a half.
const LEN: usize = 2_500;

/// Requests of an upload without faults, and one more that can be made after them.
const REQUESTS: usize = 7;

/// Ways to upload, each of which has to keep the promises.
fn scenes(seed: u64) -> [Uploads; 3] {
    [
        Uploads::new(seed, LEN),
        Uploads::new(seed, LEN).with(|options| options.rereadable = false),
        Uploads::new(seed, LEN).with(|options| options.block_len = 4_000),
    ]
}

#[test]
fn one_fault_at_any_request_is_survived_or_told() {
    let mut survived = 0;
    let mut runs = 0;
    for number in 0..REQUESTS {
        for fault in UploadFault::ALL {
            for world in scenes(7) {
                runs += 1;
                survived += u32::from(world.fault(number, fault).run().is_ok());
            }
        }
    }
    // What a request for a place, a block or word of success cannot survive: 400, 403, 404 and the like from a hub.
    assert!(survived * 100 >= runs * 75, "{survived} of {runs}");
}

#[test]
fn two_faults_at_any_requests_are_survived_or_told() {
    for first in 0..REQUESTS {
        for second in first + 1..REQUESTS + 4 {
            for one in UploadFault::ALL {
                for other in UploadFault::ALL {
                    for world in scenes(11) {
                        let _ = world.fault(first, one).fault(second, other).run();
                    }
                }
            }
        }
    }
}

#[test]
fn a_fault_that_lasts_ends_in_patience_and_is_told() {
    for number in 0..REQUESTS {
        for fault in UploadFault::ALL {
            for mut world in scenes(13) {
                world = world.fault_from(number, fault);
                let result = world.run();
                let days = Duration::from_millis(world.now_ms()).as_secs() / 86_400;
                assert!(days < 1, "{fault:?} from {number}: {result:?} after {days} days");
            }
        }
    }
}

#[test]
fn whenever_it_is_cancelled_moved_or_rebooted_it_is_whole_or_told() {
    for at in 0..REQUESTS {
        for fault in UploadFault::ALL {
            for what in 0..4 {
                for world in scenes(17) {
                    let mut world = world.fault(at, fault);
                    world.run_until_made(at + 1);
                    match what {
                        0 => world.cancel(),
                        1 => world.home = Some(1),
                        2 => world.reboot_with_checkpoint(),
                        _ => world.reboot(),
                    }
                    let cancelled = what == 0;
                    let succeeded = world.run().is_ok();
                    assert!(!cancelled || !succeeded || at + 1 >= REQUESTS - 4, "a cancelled upload goes on");
                }
            }
        }
    }
}

fn history(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xf11e);
    let len = [0, 10, 999, 1_000, 3_456, 20_000][rng.index(6)];
    let mut world = Uploads::new(seed, len);
    let percent = rng.between(0, 60);
    for number in 0..400 {
        if rng.chance(percent) {
            world = world.fault(number, UploadFault::ALL[rng.index(UploadFault::ALL.len())]);
        }
    }
    let (block_len, rereadable, short) = (rng.between(1, 6_000), rng.chance(70), rng.chance(20));
    world = world.with(|options| {
        options.block_len = usize::try_from(block_len).unwrap_or(1_000).max(len / 300);
        options.rereadable = rereadable;
        if short {
            options.give_up_after = Duration::from_secs(90);
        }
    });
    world.latency_ms = rng.between(1, 20_000);
    for hub in &mut world.hubs {
        hub.grant_secs = rng.between(10, 7_200);
    }
    for _ in 0..rng.between(0, 3) {
        world.run_for(Duration::from_secs(rng.between(0, 600)));
        if world.done().is_some() {
            break;
        }
        match rng.between(0, 4) {
            0 => world.home = Some(rng.index(2)),
            1 => world.home = None,
            2 => world.reboot(),
            3 => world.reboot_with_checkpoint(),
            _ => {}
        }
        world.run_for(Duration::from_secs(rng.between(0, 60)));
        world.home = world.home.or(Some(0));
    }
    let _ = world.run();
}

#[test]
fn whatever_happens_the_file_is_whole_or_the_caller_was_told() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("STEADFAST_SEED") {
        Some(seed) => history(seed),
        None => (1..=number("STEADFAST_SEEDS").unwrap_or(2_000)).for_each(history),
    }
}
