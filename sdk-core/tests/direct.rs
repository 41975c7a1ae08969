//! Links to one kind of service.

use steadfast_core::{
    Broker, Config, ConfigError, Credential, Instant, IotHub, Link, Provisioned, RamOutbox, Seed, Service,
};

static HUB: Config<&str> =
    Config::new(Service::Hub { host: "contoso.azure-devices.net", device_id: "pump-7" }, Credential::Certificate);

static PROVISIONED: Config<&str> = Config::new(
    Service::Provisioned {
        host: "global.azure-devices-provisioning.net",
        id_scope: "0ne00000000",
        registration_id: "pump-7",
    },
    Credential::Certificate,
);

static BROKER: Config<&str> =
    Config::new(Service::Broker { host: "broker.example", client_id: "pump-7" }, Credential::Certificate);

#[test]
fn a_profile_takes_the_service_it_is_for_and_no_other() {
    for config in [&HUB, &PROVISIONED, &BROKER] {
        let (outbox, seed) = (RamOutbox::<1, 16>::new(), Seed::from_number(1));
        let errors = [
            Link::new(IotHub::new(config), outbox.clone(), seed, Instant::ORIGIN).err(),
            Link::new(Provisioned::new(config), outbox.clone(), seed, Instant::ORIGIN).err(),
            Link::new(Broker::new(config, [0; 16]), outbox, seed, Instant::ORIGIN).err(),
        ];
        let taken = errors.iter().filter(|error| error.is_none()).count();
        let refused = errors.iter().filter(|error| **error == Some(ConfigError::ServiceNotForProfile)).count();
        assert_eq!((taken, refused), (1, 2), "{config:?}");
    }
}

#[test]
fn a_link_to_a_fixed_hub_is_smaller_by_what_an_assignment_takes() {
    let (outbox, seed) = (RamOutbox::<1, 16>::new(), Seed::from_number(1));
    let fixed = Link::new(IotHub::new(&HUB), outbox.clone(), seed, Instant::ORIGIN).unwrap();
    let whole = Link::new(Provisioned::new(&PROVISIONED), outbox, seed, Instant::ORIGIN).unwrap();
    assert!(size_of_val(&fixed) + 380 <= size_of_val(&whole));
}
