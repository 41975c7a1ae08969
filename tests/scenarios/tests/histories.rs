//! Long random histories: a device lives through hundreds of faults, and at the end, when all is well again, nothing
//! has been lost.
//!
//! The oracle of the world checks every step. `STEADFAST_SEEDS=1000` runs more histories, `STEADFAST_SEED=42` only the
//! one of that seed.

use std::time::Duration;

use steadfast_core::{Config, LocalFailure, Message, Overflow, Priority, State, Subscriptions};
use steadfast_sim::service::{Acks, DpsFault, Greeting, HubFaults, PublishFault, SubscribeFault};
use steadfast_sim::{Builder, Feed, HeapOutbox, Reach, Rng, Signing, World};

/// Changes of the configuration, of which each history draws some.
const CHANGES: [fn(&mut Config<String>); 10] = [
    |config| config.session.window = 1,
    |config| config.session.window = 3,
    |config| config.subscriptions = Subscriptions::ALL,
    |config| config.session.overflow = Overflow::DropOldest,
    |config| config.session.overflow = Overflow::DropForUrgent,
    |config| config.stamp_creation_time = true,
    |config| config.session.expiry = Some(Duration::from_secs(1_800)),
    |config| config.session.clean_session = true,
    |config| config.session.keep_alive = Duration::from_secs(30),
    |config| config.session.poison_threshold = Some(4),
];

fn set_up(seed: u64, rng: &mut Rng) -> (World<HeapOutbox>, bool) {
    let feed = [Feed::Whole, Feed::Pieces, Feed::Bytes, Feed::Packets][rng.index(4)];
    let mut builder: Builder = World::builder().seed(seed).feed(feed).start_at_ms(rng.between(0, 1 << 33));
    let fixed = rng.chance(20);
    if fixed {
        builder = builder.fixed_hub();
    }
    if rng.chance(30) {
        builder = builder.certificate();
    }
    if rng.chance(30) {
        builder = builder.assigned();
    }
    for change in CHANGES {
        if rng.chance(25) {
            builder = builder.configure(change);
        }
    }
    let messages = [1, 2, 5, 30, 200][rng.index(5)];
    (builder.build_with(|_| HeapOutbox::new(messages, 4096)), fixed)
}

struct Life {
    world: World<HeapOutbox>,
    rng: Rng,
    hub: usize,
    fixed: bool,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let (mut world, fixed) = set_up(seed, &mut rng);
        world.start();
        Self { world, rng, hub: 0, fixed }
    }

    fn wait(&mut self) {
        let longest = [1_000, 30_000, 300_000, 3_600_000, 20_000_000][self.rng.index(5)];
        self.world.run_for(Duration::from_millis(self.rng.between(0, longest)));
    }

    fn publish(&mut self) {
        for _ in 0..self.rng.between(1, 12) {
            let len = usize::try_from(self.rng.between(0, 40)).unwrap_or(0);
            let expires_after = self.rng.chance(15).then(|| Duration::from_secs(self.rng.between(1, 4_000)));
            let priority = if self.rng.chance(20) { Priority::Urgent } else { Priority::Normal };
            let body = vec![b'x'; len];
            let _ = self.world.publish_as(0, Message { expires_after, priority, ..Message::telemetry("", &body) });
        }
    }

    fn greeting(&mut self) -> Greeting {
        match self.rng.index(7) {
            0 => Greeting::Code(3),
            1 => Greeting::Code(5),
            2 => Greeting::Silence,
            3 => Greeting::Late(self.rng.between(0, 100_000)),
            4 => Greeting::Close,
            5 => Greeting::Bytes(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
            _ => Greeting::Judge,
        }
    }

    fn publish_fault(&mut self) -> PublishFault {
        match self.rng.index(8) {
            0 => PublishFault::CloseBeforeStore,
            1 => PublishFault::CloseAfterStore,
            2 => PublishFault::Withhold,
            3 => PublishFault::AckTwice,
            4 => PublishFault::AckUnknown(0xf000),
            5 => PublishFault::AckLate(self.rng.between(0, 100_000)),
            6 => PublishFault::Bytes(vec![0x40, 2, 0, 0]),
            _ => PublishFault::None,
        }
    }

    fn dps_fault(&mut self) -> DpsFault {
        match self.rng.index(10) {
            0 => DpsFault::Assigning { polls: 3, retry_after_secs: Some(5) },
            1 => DpsFault::Status { status: 429, retry_after_secs: Some(60) },
            2 => DpsFault::Status { status: 500, retry_after_secs: None },
            3 => DpsFault::Refuse { status: 401, code: 401_002 },
            4 => DpsFault::Failed(400_207),
            5 => DpsFault::Silence,
            6 => DpsFault::Hub("hub@evil".into()),
            7 => DpsFault::ConnackSilence,
            8 => DpsFault::Close,
            _ => DpsFault::None,
        }
    }

    fn reach(&mut self) -> Reach {
        let all = [
            Reach::Refused,
            Reach::BlackHole,
            Reach::Unresolved,
            Reach::NoRoute,
            Reach::TlsStalls,
            Reach::ClosedAfterTls,
            Reach::Tls(steadfast_core::TlsFailure::Handshake),
        ];
        all[self.rng.index(all.len())]
    }

    fn step(&mut self) {
        let hub = self.hub;
        match self.rng.index(25) {
            0..=3 => self.publish(),
            4 | 5 => self.world.reset_all(),
            6 => self.world.freeze(),
            7 => {
                let greeting = self.greeting();
                self.world.hub_mut(hub).faults.next_greetings.push_back(greeting);
            }
            8 => self.world.hub_mut(hub).faults.greeting = self.greeting(),
            9 => {
                let fault = self.publish_fault();
                self.world.hub_mut(hub).faults.next_publishes.push_back(fault);
            }
            10 => self.world.hub_mut(hub).faults.publish = self.publish_fault(),
            11 => {
                let reach = self.rng.chance(60).then(|| self.reach());
                self.world.network().set_all(reach);
            }
            12 => self.world.hub_mut(hub).forget_sessions(),
            13 => self.world.hub_mut(hub).faults.forget_sessions = self.rng.chance(50),
            14 => self.world.hub_mut(hub).faults.mute = self.rng.chance(50),
            15 => {
                let lasts = self.rng.chance(40).then(|| self.rng.between(0, 200_000));
                self.world.hub_mut(hub).faults.close_after_ms = lasts;
            }
            16 => {
                let batch = 1 + self.rng.index(4);
                self.world.hub_mut(hub).faults.acks = Acks::Reversed(batch);
            }
            17 => {
                let all = [SubscribeFault::None, SubscribeFault::Refuse, SubscribeFault::Silence];
                self.world.hub_mut(hub).faults.subscribe = all[self.rng.index(3)];
            }
            18 => self.world.dps_mut().fault = self.dps_fault(),
            19 => {
                let bytes = self.rng.index(300);
                if self.rng.chance(50) { self.world.cut_to_service(bytes) } else { self.world.cut_to_device(bytes) }
            }
            20 => self.world.suspend(Duration::from_secs(self.rng.between(0, 40_000))),
            21 => {
                let all =
                    [Signing::Prompt, Signing::After(3_000), Signing::Never, Signing::Fails(LocalFailure::Signing)];
                self.world.set_signing(all[self.rng.index(4)]);
                self.world.set_timer_lag_ms(self.rng.between(0, 3_000));
            }
            22 if !self.fixed => {
                self.world.move_device(hub, 1 - hub);
                self.hub = 1 - hub;
            }
            22 => self.world.set_enabled(0, self.rng.chance(50)),
            23 => {
                self.world.send_to_device(hub, "to the device", self.rng.chance(70));
                self.world.set_acknowledging(self.rng.chance(80));
            }
            _ => self.command(),
        }
        if self.rng.chance(70) {
            self.wait();
        }
    }

    fn command(&mut self) {
        match self.rng.index(4) {
            0 => self.world.reprovision(),
            1 => self.world.set_clock(if self.rng.chance(50) { 0 } else { -7_000 }),
            2 => self.world.stop(Duration::from_secs(self.rng.between(0, 20))),
            _ => self.world.start(),
        }
    }

    /// Makes everything well and demands what was promised.
    fn end(mut self) {
        for hub in 0..2 {
            self.world.hub_mut(hub).faults = HubFaults::default();
        }
        self.world.network().set_all(None);
        self.world.dps_mut().fault = DpsFault::None;
        self.world.set_signing(Signing::Prompt);
        self.world.set_timer_lag_ms(0);
        self.world.set_acknowledging(true);
        self.world.set_clock(0);
        self.world.set_enabled(self.hub, true);
        self.world.run_for(Duration::from_secs(60));
        self.world.start();
        // The wait after overload is half its age, and no more than the whole of this life.
        self.world.run_until_delivered();
        self.world.run_until("up", Duration::from_secs(864_000), |world| world.state() == State::Up);
        self.world.run_for(Duration::from_secs(300));
        let ledger = self.world.ledger();
        assert!(ledger.balances() && ledger.queued == 0, "{ledger:?}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_life_however_hard_loses_a_message() {
    let seeds = match number("STEADFAST_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("STEADFAST_SEEDS").unwrap_or(300),
    };
    let mut totals = [0; 3];
    for seed in seeds.clone() {
        let mut life = Life::new(seed);
        for _ in 0..150 {
            life.step();
        }
        totals[0] += life.world.ledger().accepted;
        totals[1] += life.world.attempts().len() as u64;
        totals[2] += life.world.duplicates();
        life.end();
    }
    let [accepted, attempts, duplicates] = totals;
    println!("seeds {seeds:?}: {accepted} messages, {attempts} attempts, {duplicates} duplicates, none lost");
}
