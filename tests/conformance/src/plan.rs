//! How a scenario wants its device.

use std::time::Duration;

use steadfast_core::dps::topics::GLOBAL_HOST;
use steadfast_core::{Config, Credential, Overflow, Service, Subscriptions};

use crate::cloud::{DEVICE, SCOPE};

/// Most messages in the outbox of every device.
pub(crate) const SLOTS: usize = 8;
/// Most bytes in the outbox of every device.
pub(crate) const BYTES: usize = 2048;
/// Room for reported properties that wait, and for answers.
pub(crate) const SERVICE_BYTES: usize = 1024;
/// Largest packet in either direction.
pub(crate) const PACKET: usize = 2048;

/// The settings that scenarios change.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "scenarios make it from the default")]
pub struct Plan {
    /// What happens when the outbox is full.
    pub overflow: Overflow,
    /// How long a message lives that does not say so.
    pub expiry: Option<Duration>,
    /// Most publishes without acknowledgement.
    pub window: u16,
    /// The keep-alive interval.
    pub keep_alive: Duration,
    /// After how many connections a poison message is set aside.
    pub poison_threshold: Option<u8>,
    /// The device keeps its assignment and memory over restarts.
    pub keeps: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            overflow: Overflow::RejectNewest,
            expiry: None,
            window: 4,
            keep_alive: Duration::from_secs(240),
            poison_threshold: None,
            keeps: false,
        }
    }
}

impl Plan {
    /// Returns the configuration of the core, for as long as the test runs.
    #[must_use]
    pub fn config(&self) -> &'static Config<&'static str> {
        let service = Service::Provisioned { host: GLOBAL_HOST, id_scope: SCOPE, registration_id: DEVICE };
        let mut config = Config::new(service, Credential::SharedKey);
        config.subscriptions = Subscriptions::ALL;
        config.session.max_inbound = PACKET;
        config.session.max_outbound = PACKET;
        config.session.overflow = self.overflow;
        config.session.expiry = self.expiry;
        config.session.window = self.window;
        config.session.keep_alive = self.keep_alive;
        config.session.poison_threshold = self.poison_threshold;
        Box::leak(Box::new(config))
    }
}
