//! How a world is set up.

use std::rc::Rc;

use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::{
    AnyProfile, Assignment, Config, Credential, HubLink, Instant, Link, Outbox, Seed, Service, ServiceKind,
};

use crate::device::{Device, Feed, Shared};
use crate::https::Chip;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::recorded::Recorded;
use crate::rng::Rng;
use crate::service::{Dps, Hub, key_of};
use crate::world::{DefaultOutbox, World};
use crate::{EPOCH_SECS, world};

pub(crate) const ID_SCOPE: &str = "0ne00ABCDEF";
const DPS_HOST: &str = steadfast_core::dps::topics::GLOBAL_HOST;

/// Sets up a [`World`]; by default one device with a shared key, two hubs and a provisioning service that assigns the
/// first one.
#[derive(Debug)]
pub struct Builder {
    seed: u64,
    devices: usize,
    hubs: usize,
    kind: Kind,
    certificate: bool,
    https: bool,
    tpm: bool,
    restored: bool,
    start_ms: u64,
    clock_offset_secs: Option<i64>,
    one_seed: bool,
    feed: Feed,
    configure: Vec<fn(&mut Config<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Provisioned,
    Hub,
    Broker,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            seed: 1,
            devices: 1,
            hubs: 2,
            kind: Kind::Provisioned,
            certificate: false,
            https: false,
            tpm: false,
            restored: false,
            start_ms: 0,
            clock_offset_secs: Some(0),
            one_seed: false,
            feed: Feed::Whole,
            configure: Vec::new(),
        }
    }

    /// Sets the seed of the world and, mixed with their numbers, of its devices. Default 1.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number of devices. Default 1.
    #[must_use]
    pub const fn devices(mut self, devices: usize) -> Self {
        self.devices = devices;
        self
    }

    /// Configures one hub for good, without the provisioning service.
    #[must_use]
    pub const fn fixed_hub(mut self) -> Self {
        self.kind = Kind::Hub;
        self
    }

    /// Makes the service a broker that takes anyone.
    #[must_use]
    pub const fn broker(mut self) -> Self {
        self.kind = Kind::Broker;
        self
    }

    /// Gives devices a client certificate instead of a shared key.
    #[must_use]
    pub const fn certificate(mut self) -> Self {
        self.certificate = true;
        self
    }

    /// Has devices register over HTTPS.
    #[must_use]
    pub const fn over_https(mut self) -> Self {
        self.https = true;
        self
    }

    /// Gives devices a TPM instead of a shared key. They register over HTTPS.
    #[must_use]
    pub const fn tpm(mut self) -> Self {
        self.tpm = true;
        self.over_https()
    }

    /// Gives devices the assignment to the first hub, as after a reboot.
    #[must_use]
    pub const fn assigned(mut self) -> Self {
        self.restored = true;
        self
    }

    /// Begins monotonic time at so many milliseconds.
    #[must_use]
    pub const fn start_at_ms(mut self, start_ms: u64) -> Self {
        self.start_ms = start_ms;
        self
    }

    /// Sets the devices' wall clocks wrong by so many seconds; `None` leaves them unset.
    #[must_use]
    pub const fn clock_offset_secs(mut self, offset: Option<i64>) -> Self {
        self.clock_offset_secs = offset;
        self
    }

    /// Gives all devices one constant seed, as a broken random number generator does.
    #[must_use]
    pub const fn constant_seed(mut self) -> Self {
        self.one_seed = true;
        self
    }

    /// Sets how bytes from a service reach the links. Default as they were sent.
    #[must_use]
    pub const fn feed(mut self, feed: Feed) -> Self {
        self.feed = feed;
        self
    }

    /// Changes the configuration of the devices.
    #[must_use]
    pub fn configure(mut self, change: fn(&mut Config<String>)) -> Self {
        self.configure.push(change);
        self
    }

    /// Makes the world, with an outbox of 64 messages and 16 KiB for each device.
    #[must_use]
    pub fn build(self) -> World<DefaultOutbox> {
        self.build_with(|_| DefaultOutbox::new())
    }

    /// Makes the world with outboxes of your own; `make` is given the device's number.
    ///
    /// # Panics
    /// When the configuration cannot work.
    #[must_use]
    pub fn build_with<O: Outbox>(self, make: impl Fn(usize) -> O) -> World<O> {
        let names = (0..self.hubs).map(world::hub_name);
        let mut hubs: Vec<Hub> = match self.kind {
            Kind::Broker => names.map(|name| Hub::broker(&name)).collect(),
            Kind::Provisioned | Kind::Hub => names.map(|name| Hub::new(&name)).collect(),
        };
        let mut dps = Dps::new(ID_SCOPE);
        let now = Instant::from_millis(self.start_ms);
        let mut devices = Vec::new();
        for number in 0..self.devices {
            let id = format!("pump-{}", number + 7);
            let key = (!self.certificate && !self.tpm).then(|| {
                let master = SymmetricKey::from_bytes(b"the key of the enrollment group!").expect("a good length");
                Rc::new(master.derive(&id))
            });
            dps.enroll(&id, key.clone(), hubs[0].name(), EPOCH_SECS);
            let mut chip = self.tpm.then(|| Chip::new(format!("RUsg{number:04}")));
            if let Some(chip) = &mut chip {
                dps.enroll_tpm(&id, &chip.endorsement_key);
                if self.restored {
                    let kept = key_of(b"a key that outlived the reboot!!");
                    chip.keep(ServiceKind::Hub, Rc::clone(&kept));
                    hubs[0].add(&id, Some(kept));
                }
            } else {
                hubs[0].add(&id, key.clone());
            }
            let mut config = self.config(&id);
            config.https_registration = self.https;
            let config = Rc::new(config);
            let seed = if self.one_seed { 0 } else { self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64) };
            let outbox = Recorded::new(make(number));
            let mut oracle = Oracle::new(usize::from(config.session.window));
            let mut next = outbox.first();
            while let Some(entry) = next.and_then(|id| outbox.get(id)) {
                let key = if let steadfast_core::Destination::Topic(topic) = entry.destination {
                    topic.to_owned()
                } else {
                    entry.id.to_string()
                };
                oracle.restored(entry.id, key, entry.payload.to_vec());
                next = outbox.next(entry.id.next());
            }
            let busy = !oracle.open.is_empty();
            let link = Link::new(AnyProfile::new(Shared(config), [0; 256]), outbox, Seed::from_number(seed), now)
                .expect("the configuration of a world works");
            let mut link = HubLink::new(link, vec![0; 4096].into(), vec![0; 4096].into());
            if self.restored {
                link.restore_assignment(Assignment::new(hubs[0].name(), &id).expect("good names"));
            }
            if let Some(offset) = self.clock_offset_secs {
                link.set_wall_clock(EPOCH_SECS.saturating_add_signed(offset), now);
            }
            devices.push(Device {
                id,
                link,
                key,
                second_key: None,
                choices: Default::default(),
                chip,
                feed: self.feed,
                signing: Default::default(),
                uplink: None,
                timer_lag_ms: 0,
                acknowledges: true,
                asleep_until: 0,
                armed: None,
                spins: (0, 0),
                last_hub: String::new(),
                events: Vec::new(),
                service_events: Vec::new(),
                attempts: Vec::new(),
                inbound: Vec::new(),
                told: Vec::new(),
                saved: None,
                memory: None,
                oracle,
                published: 0,
                up: false,
                busy,
            });
        }
        World::new(self.seed, self.start_ms, Rng::new(self.seed), Network::new(), hubs, dps, devices)
    }

    fn config(&self, id: &str) -> Config<String> {
        let hub = world::hub_name(0);
        let service = match self.kind {
            Kind::Provisioned => {
                Service::Provisioned { host: DPS_HOST.into(), id_scope: ID_SCOPE.into(), registration_id: id.into() }
            }
            Kind::Hub => Service::Hub { host: hub, device_id: id.into() },
            Kind::Broker => Service::Broker { host: hub, client_id: id.into() },
        };
        let credential = match self.kind {
            Kind::Broker => Credential::Anonymous,
            Kind::Provisioned | Kind::Hub if self.certificate => Credential::Certificate,
            Kind::Provisioned | Kind::Hub => Credential::SharedKey,
        };
        let mut config = Config::new(service, credential);
        for change in &self.configure {
            change(&mut config);
        }
        config
    }
}
