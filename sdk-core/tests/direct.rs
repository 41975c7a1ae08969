//! Links without room for an assignment.

use steadfast_core::{Config, ConfigError, Credential, Instant, Link, RamOutbox, Seed, Service};

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

#[test]
fn a_direct_link_takes_a_configured_hub_and_no_provisioning() {
    let make = |config| Link::direct(config, RamOutbox::<1, 16>::new(), Seed::from_number(1), Instant::ORIGIN);
    assert!(make(&HUB).is_ok());
    assert_eq!(make(&PROVISIONED).err(), Some(ConfigError::NeedsProvisioning));
}

#[test]
fn a_direct_link_is_smaller_by_what_an_assignment_takes() {
    let direct = Link::direct(&HUB, RamOutbox::<1, 16>::new(), Seed::from_number(1), Instant::ORIGIN).unwrap();
    let whole = Link::new(&HUB, RamOutbox::<1, 16>::new(), Seed::from_number(1), Instant::ORIGIN).unwrap();
    assert!(size_of_val(&direct) + 380 <= size_of_val(&whole));
}
