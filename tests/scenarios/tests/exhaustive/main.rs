//! Every short history of a tiny link: an outbox of two messages, a window of two, and all that a service, a network,
//! an application and the time can do to it in a few steps.
//!
//! After each step the link's promises are checked (safety). From every state that is reached, a service that is well
//! from then on brings the link up and gets every message (liveness).

#![expect(clippy::unwrap_used, reason = "what the scene itself set up is there")]

mod line;
mod scene;
mod step;

use std::collections::HashSet;

use steadfast_core::{Config, Credential, Service, Subscriptions};

use self::scene::Scene;
use self::step::{AT_HUB, MOVING, Step};

static HUB: Config<&str> = {
    let mut config = Config::new(Service::Hub { host: "hub-a.example", device_id: "pump-7" }, Credential::Certificate);
    config.session.window = 2;
    config.subscriptions = Subscriptions::METHODS;
    config
};

static PROVISIONED: Config<&str> = {
    let service = Service::Provisioned { host: "dps.example", id_scope: "0ne00ABCDEF", registration_id: "pump-7" };
    let mut config = Config::new(service, Credential::Certificate);
    config.session.window = 2;
    config
};

/// What was explored.
#[derive(Default)]
struct Explored {
    histories: u64,
    outlines: HashSet<u64>,
    recoveries: u64,
}

impl Explored {
    fn explore(&mut self, scene: &Scene, steps: &[Step], depth: u32) {
        self.histories += 1;
        let outline = {
            use core::hash::{BuildHasher as _, BuildHasherDefault};
            let hasher = BuildHasherDefault::<std::hash::DefaultHasher>::default();
            hasher.hash_one(scene.outline())
        };
        if self.outlines.insert(outline) {
            self.recoveries += 1;
            scene.clone().must_recover();
        }
        if depth == 0 {
            return;
        }
        for step in steps {
            let mut next = scene.clone();
            if next.take(*step) {
                self.explore(&next, steps, depth - 1);
            }
        }
    }
}

fn after(config: &'static Config<&'static str>, steps: &[Step]) -> Scene {
    let mut scene = Scene::new(config);
    scene.drain();
    for step in steps {
        assert!(scene.take(*step), "{step:?} does not fit after {:?}", scene.path);
    }
    scene
}

fn explore(
    name: &str,
    config: &'static Config<&'static str>,
    starts: &[&[Step]],
    steps: &[Step],
    depth: u32,
) -> String {
    let depth = std::env::var("STEADFAST_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(depth);
    let mut explored = Explored::default();
    for start in starts {
        explored.explore(&after(config, start), steps, depth);
    }
    let Explored { histories, outlines, recoveries } = explored;
    format!("{name}: {histories} histories of {depth} steps, {} states, {recoveries} recoveries", outlines.len())
}

#[test]
fn every_short_history_at_a_hub_keeps_the_promises() {
    use Step::{Deadline, Fresh, Granted, Lost, Publish, Ready, Resumed, Urgent};
    let starts: [&[Step]; 5] = [
        &[],
        &[Publish, Publish, Deadline, Ready, Fresh, Granted],
        &[Publish, Publish, Deadline, Ready, Fresh, Granted, Lost, Deadline, Ready],
        &[Publish, Urgent, Deadline, Ready, Fresh, Granted, Lost, Deadline, Ready],
        &[Publish, Publish, Deadline, Ready, Fresh, Granted, Lost, Deadline, Ready, Resumed, Lost],
    ];
    println!("{}", explore("at a hub", &HUB, &starts, &AT_HUB, 7));
}

#[test]
fn every_short_history_of_a_move_keeps_the_promises() {
    use Step::{Deadline, Fresh, Order, Publish, Ready, Refused};
    let starts: [&[Step]; 3] = [
        &[Publish, Deadline, Ready, Fresh],
        &[Publish, Publish, Deadline, Ready, Refused, Deadline, Ready, Refused, Deadline],
        &[Publish, Publish, Order, Deadline, Ready],
    ];
    println!("{}", explore("moving", &PROVISIONED, &starts, &MOVING, 8));
}
