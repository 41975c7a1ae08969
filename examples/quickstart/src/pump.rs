//! One device and its work.

use std::time::Duration;

use hub_emulator::{Emulator, Key};
use steadfast::{
    BuildError, Device, Dps, Events, Ledger, MessageId, Reprovisioning, RetryPolicy, Seed, Telemetry, Tls,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::Options;
use crate::narrator::Narrator;

/// Name of the enrollment group, and of the seed of its key.
pub(crate) const GROUP: &str = "pumps";

/// The outcome of a message, and its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) id: MessageId,
    pub(crate) delivered: bool,
    /// Since the service started.
    pub(crate) at: Duration,
}

/// A device that sends readings until it is stopped.
pub(crate) struct Pump {
    pub(crate) name: String,
    pub(crate) device: Device,
    driver: JoinHandle<()>,
    sender: JoinHandle<u64>,
    receipts: JoinHandle<Vec<Told>>,
    stop: watch::Sender<bool>,
}

/// A device's final report.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) ledger: Ledger,
    pub(crate) sent: u64,
    pub(crate) told: Vec<Told>,
    pub(crate) attempts: u32,
    pub(crate) registrations: u32,
}

impl Pump {
    /// Builds the device with a key derived from the group's, and sets it to work.
    pub(crate) fn start(
        number: u16,
        options: &Options,
        service: &Emulator,
        narrator: Option<Narrator>,
    ) -> Result<Self, BuildError> {
        let name = format!("pump-{number}");
        let dps = service.dps();
        let mut builder = Device::builder()
            .provision_with(Dps::new(&dps.id_scope(), &name).host(&dps.host()))
            .group_key(&Key::from_seed(GROUP).to_base64())
            // The service runs on this machine: its names resolve to it, and its own CA is trusted.
            .resolve(&dps.host(), [dps.addr()])
            .tls(Tls::without_system_roots().and_pem(service.ca_pem()))
            .retry(RetryPolicy::DEFAULT.divided_by(options.speed))
            .reprovisioning(Reprovisioning::DEFAULT.divided_by(options.speed))
            .seed(Seed::from_number(options.seed));
        for host in service.hubs() {
            builder = builder.resolve(&host, [service.hub(&host).addr()]);
        }
        let (device, driver) = builder.build()?;
        if let Some(narrator) = narrator {
            tokio::spawn(narrate(narrator, name.clone(), device.clone(), device.events()));
        }
        let driver = tokio::spawn(async move {
            // The ledger and the events show the end of the link.
            let _ = driver.await;
        });
        let (stop, stopped) = watch::channel(false);
        let (to_receipts, from_sender) = mpsc::unbounded_channel();
        let period = Duration::from_secs(1) / u32::from(options.rate);
        let sender = tokio::spawn(send(device.clone(), period, to_receipts, stopped));
        let receipts = tokio::spawn(await_receipts(service.control(), from_sender));
        Ok(Self { name, device, driver, sender, receipts, stop })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.device.status().state == steadfast::State::Up
    }

    /// Stops sending; queued messages are still delivered.
    pub(crate) fn stop_sending(&self) {
        self.stop.send_replace(true);
    }

    /// Stops the link and returns the report.
    pub(crate) async fn account(self, drain: Duration) -> Account {
        let sent = self.sender.await.unwrap_or(0);
        let look = self.device.status();
        let ledger = self.device.stop(drain).await;
        let told = self.receipts.await.unwrap_or_default();
        let _ = self.driver.await;
        Account { name: self.name, ledger, sent, told, attempts: look.attempt.get(), registrations: look.registrations }
    }
}

/// Sends numbered readings; a full outbox makes it wait, which is all that it notices of the network.
async fn send(
    device: Device,
    period: Duration,
    receipts: mpsc::UnboundedSender<steadfast::Receipt>,
    stopped: watch::Receiver<bool>,
) -> u64 {
    let mut ticks = tokio::time::interval(period);
    let mut number = 0_u64;
    while !*stopped.borrow() {
        ticks.tick().await;
        let body = format!("{{\"celsius\":{}}}", 20 + number % 5);
        let Ok(reading) = Telemetry::json(body).property("seq", &number.to_string()) else { break };
        let Ok(receipt) = device.send(&reading).await else { break };
        number += 1;
        if receipts.send(receipt).is_err() {
            break;
        }
    }
    number
}

async fn await_receipts(
    service: hub_emulator::Control,
    mut receipts: mpsc::UnboundedReceiver<steadfast::Receipt>,
) -> Vec<Told> {
    let mut told = Vec::new();
    while let Some(mut receipt) = receipts.recv().await {
        let delivered = (&mut receipt).await.is_ok();
        told.push(Told { id: receipt.id(), delivered, at: service.now() });
    }
    told
}

async fn narrate(narrator: Narrator, name: String, device: Device, mut events: Events) {
    while let Some(event) = events.next().await {
        narrator.tell(&name, &device, event);
    }
}
