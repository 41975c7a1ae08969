//! The devices.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hub_emulator::{Control, Key};
use steadfast::{Device, Ledger, Receipt, RetryPolicy, Seed, State, Telemetry};
use tokio::task::JoinHandle;

/// A device at work, and when it came up.
#[derive(Debug)]
struct Member {
    device: Device,
    driver: JoinHandle<Ledger>,
    watcher: JoinHandle<()>,
    ups: Arc<Mutex<Vec<Instant>>>,
    receipts: Vec<Receipt>,
}

/// Devices that share nothing but their hub.
#[derive(Debug)]
pub struct Flock {
    members: Vec<Member>,
}

impl Flock {
    /// Starts `count` devices without TLS at `host`, which the hub knows by their [`name`](Self::name) and `key`.
    ///
    /// # Errors
    /// What is wrong with the settings of a device.
    pub fn start(
        count: usize,
        host: &str,
        address: SocketAddr,
        key: &Key,
        retry: RetryPolicy,
    ) -> Result<Self, steadfast::BuildError> {
        let mut members = Vec::with_capacity(count);
        for number in 0..count {
            let (device, driver) = Device::builder()
                .hub(host, &Self::name(number))
                .shared_key(&key.to_base64())
                .plaintext_unprotected()
                .resolve(host, [address])
                .keep_alive(Duration::from_secs(1_177))
                .retry(retry)
                .seed(Seed::from_number(number as u64))
                .build()?;
            let ups = Arc::<Mutex<Vec<Instant>>>::default();
            let (mut status, noted) = (device.status_changes(), Arc::clone(&ups));
            let watcher = tokio::spawn(async move {
                // Ends with the device.
                while status.wait_for(|status| status.state == State::Up).await.is_some() {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                    if status.wait_for(|status| status.state != State::Up).await.is_none() {
                        return;
                    }
                }
            });
            members.push(Member { device, driver: tokio::spawn(driver), watcher, ups, receipts: Vec::new() });
        }
        Ok(Self { members })
    }

    /// Returns the name of a device.
    #[must_use]
    pub fn name(number: usize) -> String {
        format!("sheep-{number}")
    }

    /// Has every device accept `count` messages more.
    ///
    /// # Errors
    /// The first refusal.
    pub fn send(&mut self, count: usize) -> Result<(), steadfast::SendError> {
        for member in &mut self.members {
            for _ in 0..count {
                let text = format!(r#"{{"number":{}}}"#, member.receipts.len());
                let receipt = member.device.try_send(&Telemetry::json(text))?;
                member.receipts.push(receipt);
            }
        }
        Ok(())
    }

    /// Returns how many devices are up.
    #[must_use]
    pub fn up(&self) -> usize {
        self.members.iter().filter(|member| member.device.status().state == State::Up).count()
    }

    /// Returns how many messages wait for their acknowledgement.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.members.iter().map(|member| member.device.ledger().queued).sum()
    }

    /// Returns for each device how long after `since` it came up and stayed, in ascending order; those that did not are
    /// missing.
    #[must_use]
    pub fn returns(&self, since: Instant) -> Vec<Duration> {
        let last = |member: &Member| {
            let ups = member.ups.lock().unwrap_or_else(PoisonError::into_inner);
            ups.last().filter(|up| **up >= since).map(|up| up.duration_since(since))
        };
        let mut returns: Vec<Duration> = self.members.iter().filter_map(last).collect();
        returns.sort_unstable();
        returns
    }

    /// Stops all devices and returns what is wrong with their books and with those of the service, a sentence each.
    pub async fn audit(self, service: &Control) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, mut member) in self.members.into_iter().enumerate() {
            let name = Self::name(number);
            let books = member.device.stop(Duration::from_secs(5)).await;
            let accepted = member.receipts.len() as u64;
            if !books.balances() || books.accepted != accepted || books.delivered != accepted {
                wrong.push(format!("{name}: {accepted} messages were accepted; {books:?}"));
            }
            let ids: Vec<String> = member.receipts.iter().map(|receipt| receipt.id().to_string()).collect();
            for receipt in &mut member.receipts {
                if let Err(error) = (&mut *receipt).await {
                    wrong.push(format!("{name}: {}: {error}", receipt.id()));
                }
            }
            let report = service.ledger().check(&name, ids);
            if !report.is_complete() {
                wrong.push(format!("{name}: {report}"));
            }
            member.watcher.abort();
            if let Err(error) = member.driver.await {
                wrong.push(format!("{name}: {error}"));
            }
        }
        wrong
    }
}
