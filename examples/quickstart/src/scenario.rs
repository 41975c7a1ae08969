//! The chapters in order.

use std::error::Error;
use std::time::Duration;

use hub_emulator::{Config, DpsConfig, Emulator, Enrollment, Fault, HubConfig, Injection, Key, Rate};

use crate::Options;
use crate::narrator::Narrator;
use crate::pump::{GROUP, Pump};
use crate::verdict;

/// Longest wait for all devices to be up again in a chapter, with the default speed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Default of `--speed`.
pub(crate) const DEFAULT_SPEED: u32 = 30;

/// How many devices are printed line by line.
const NARRATED: u16 = 3;

/// Runs the scenario and returns whether it succeeded.
pub(crate) async fn tell(options: &Options) -> Result<bool, Box<dyn Error>> {
    let devices = u32::from(options.devices);
    // A hub of this scenario admits fewer connections in a second than there are devices, as a real one does.
    let admission = Rate::new(f64::from(options.devices), 2 * devices, 1);
    let service = Emulator::start(
        Config::new()
            .hub_with(HubConfig::new("hub-a").port(0).admission(admission))
            .hub_with(HubConfig::new("hub-b").port(0))
            .dps(DpsConfig::new().retry_after(1).assigning_polls(1))
            .enroll(Enrollment::group(GROUP, Key::from_seed(GROUP))),
    )
    .await?;
    let narrator = Narrator::new(service.control());
    println!(
        "{devices} devices, {} messages a second each; IoT hubs hub-a and hub-b and a provisioning service on {}, over TLS.",
        options.rate,
        service.tls_addr().ip(),
    );
    println!("Waits of the default policy are divided by {}; seed {}.", options.speed, options.seed);

    narrator.chapter("1. First boot", "The devices know only their enrollment: DPS names the hub.");
    let mut pumps = Vec::new();
    for number in 1..=options.devices {
        let narrator = (number <= NARRATED).then(|| narrator.clone());
        pumps.push(Pump::start(number, options, &service, narrator)?);
    }
    all_up(&pumps, &narrator, options).await?;
    pause(4).await;

    narrator.chapter(
        "2. Cut between PUBLISH and PUBACK",
        "hub-a stores a message and drops the connection before it acknowledges it.",
    );
    let hub = service.hub("hub-a");
    let fault = Injection::times(Fault::DropAfterStoreBeforePuback, devices);
    hub.inject(fault);
    narrator.say("hub-a", "drops each device's connection once");
    pause(1).await;
    all_up(&pumps, &narrator, options).await?;
    pause(3).await;

    narrator.chapter("3. Outage", "hub-a is down for 6 seconds; the devices continue measuring.");
    hub.down()?;
    narrator.say("hub-a", "is down");
    pause(6).await;
    hub.up()?;
    narrator.say("hub-a", "is back");
    all_up(&pumps, &narrator, options).await?;
    pause(3).await;

    narrator.chapter(
        "4. Throttled hub",
        "hub-a is overloaded: it closes every connection, and then accepts a few at a time.",
    );
    let refusing = hub.inject(Injection::until_cleared(Fault::CloseAfterConnack));
    hub.disconnect_all(true)?;
    narrator.say("hub-a", "accepts and closes");
    pause(3).await;
    let _ = service.clear_fault(refusing);
    narrator.say("hub-a", "accepts devices again");
    all_up(&pumps, &narrator, options).await?;
    pause(3).await;

    narrator.chapter(
        "5. Another hub",
        "The operator moves all devices to hub-b. The devices are not notified: hub-a just refuses them.",
    );
    service.move_all("hub-a", "hub-b")?;
    narrator.say("operator", "moved everything to hub-b");
    pause(1).await;
    all_up(&pumps, &narrator, options).await?;
    pause(3).await;

    narrator.chapter("6. The ledgers", "The devices stop sending, deliver their queues, and disconnect.");
    for pump in &pumps {
        pump.stop_sending();
    }
    let mut accounts = Vec::new();
    for pump in pumps {
        accounts.push(pump.account(PATIENCE).await);
    }
    let well = verdict::judge(&accounts, &service.ledger(), options);
    service.stop().await;
    Ok(well)
}

/// Waits until all devices are up.
async fn all_up(pumps: &[Pump], narrator: &Narrator, options: &Options) -> Result<(), Box<dyn Error>> {
    let patience = PATIENCE * DEFAULT_SPEED / options.speed.min(DEFAULT_SPEED);
    let begun = narrator.now();
    while !pumps.iter().all(Pump::is_up) {
        if narrator.now() > begun + patience {
            let missing = pumps.iter().filter(|pump| !pump.is_up()).map(|pump| pump.name.as_str());
            return Err(format!("not up after {patience:?}: {}", missing.collect::<Vec<_>>().join(", ")).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    narrator.say("all", &format!("{} of {} devices are up", pumps.len(), pumps.len()));
    Ok(())
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
