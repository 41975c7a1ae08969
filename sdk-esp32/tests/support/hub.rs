//! What the first hub of a rig does with its services.

use serde_json::Value;
use steadfast_sim::service::Twin;

use crate::rig::{DEVICE, Net};

impl Net {
    /// Sends a message with properties to the device, at the first hub.
    pub(crate) fn send_with(&mut self, properties: &str, payload: &[u8]) {
        let topic = format!("devices/{DEVICE}/messages/devicebound/{properties}");
        let reactions = self.hubs[0].send_to(DEVICE, &topic, payload, true);
        self.react(reactions);
    }

    /// Changes desired properties at the first hub.
    pub(crate) fn desire(&mut self, patch: &Value) {
        let reactions = self.hubs[0].desire(DEVICE, patch, false);
        self.react(reactions);
    }

    /// Calls a method of the device from the first hub.
    pub(crate) fn call(&mut self, method: &str, request: &str, body: &[u8]) {
        let reactions = self.hubs[0].call(DEVICE, method, request, body);
        self.react(reactions);
    }

    /// Returns the device's twin at the first hub.
    pub(crate) fn twin(&mut self) -> Twin {
        self.hubs[0].twin(DEVICE)
    }
}
