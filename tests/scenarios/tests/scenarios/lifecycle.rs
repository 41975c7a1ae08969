//! From start to stop.

use scenarios::{mins, secs, seeds};
use steadfast_core::{Event, ServiceKind, State};
use steadfast_sim::{Feed, World};

#[test]
fn a_new_device_provisions_connects_and_delivers() {
    seeds(20, |seed| {
        let mut world = World::builder().seed(seed).build();
        assert_eq!(world.state(), State::Idle);
        world.start();
        let ids = world.publish_many(3);
        world.run_until_up();
        world.run_until_delivered();
        assert_eq!(world.delivered(), ids);
        let roles: Vec<ServiceKind> = world.attempts().iter().map(|attempt| attempt.role).collect();
        assert_eq!(roles, [ServiceKind::Provisioning, ServiceKind::Hub]);
        assert_eq!(world.saved().map(|saved| saved.hub().to_owned()), Some(world.hub(0).name().to_owned()));
        assert_eq!(world.count(|event| matches!(event, Event::Provisioned { migrated: false })), 1);
        assert_eq!(world.registrations().len(), 1);
    });
}

#[test]
fn every_way_of_feeding_bytes_gives_the_same_history() {
    let scenario = |feed| {
        let mut world = World::builder().seed(5).feed(feed).build();
        world.start();
        world.publish_many(20);
        world.run_until_delivered();
        world.run_for(mins(30));
        world.reset_all();
        world.run_for(mins(30));
        world.ledger()
    };
    let whole = scenario(Feed::Whole);
    assert_eq!(whole.delivered, 20);
    for feed in [Feed::Pieces, Feed::Bytes, Feed::Packets] {
        assert_eq!(scenario(feed), whole, "{feed:?}");
    }
}

#[test]
fn a_reboot_goes_straight_to_the_hub() {
    let mut world = World::builder().assigned().build();
    world.start();
    let took = world.run_until_up();
    assert!(took < secs(4), "{took:?}");
    assert!(world.registrations().is_empty());
}
