//! Links to one kind of service.

use std::time::Duration;

use steadfast_core::{
    AnyProfile, Broker, Checked, Config, ConfigError, Credential, Instant, IotHub, Link, Provisioned, RamOutbox, Seed,
    Service, Subscriptions,
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

#[test]
fn a_configuration_that_was_checked_by_the_compiler_makes_a_link_and_fits_its_profile_only() {
    static CONFIG: Checked =
        Config::new(Service::Hub { host: "hub.example", device_id: "pump-7" }, Credential::SharedKey).checked();
    let outbox = RamOutbox::<2, 64>::new();
    assert!(Link::new(IotHub::new(&CONFIG), outbox.clone(), Seed::from_number(1), Instant::ORIGIN).is_ok());
    let other = Link::new(Provisioned::new(&CONFIG), outbox, Seed::from_number(1), Instant::ORIGIN);
    assert_eq!(other.err(), Some(ConfigError::ServiceNotForProfile));
}

#[test]
fn a_check_by_the_compiler_finds_what_a_link_finds() {
    let hub = Service::Hub { host: "hub.example", device_id: "pump-7" };
    let provisioned = |id_scope| Service::Provisioned { host: "dps.example", id_scope, registration_id: "pump-7" };
    let broker = Service::Broker { host: "broker.example", client_id: "" };
    let mut module = Config::new(hub, Credential::SharedKey);
    module.module_id = Some("a/b");
    let mut model = Config::new(hub, Credential::SharedKey);
    model.model_id = Some("dtmi:com:example;0");
    let mut slow = Config::new(hub, Credential::SharedKey);
    slow.session.keep_alive = Duration::from_secs(1200);
    let mut inputs = Config::new(hub, Credential::SharedKey);
    inputs.subscriptions = Subscriptions::INPUTS;
    for config in [
        Config::new(provisioned("0ne-0"), Credential::SharedKey),
        Config::new(provisioned("0ne0"), Credential::Token("SharedAccessSignature")),
        Config::new(Service::Hub { host: "10.0.0.1", device_id: "pump-7" }, Credential::SharedKey),
        Config::new(hub, Credential::Anonymous),
        Config::new(broker, Credential::Anonymous),
        module,
        model,
        slow,
        inputs,
    ] {
        let profile = AnyProfile::new(config, [0; 16]);
        let link = Link::new(profile, RamOutbox::<2, 64>::new(), Seed::from_number(1), Instant::ORIGIN);
        assert!(link.is_err(), "{config:?}");
        let checked = std::panic::catch_unwind(|| config.checked());
        assert!(checked.is_err(), "{config:?}");
    }
}
