//! Telemetry messages.

use crate::iothub::property_bag;
use crate::link::Message;
use crate::outbox::Destination;

impl<'a> Message<'a> {
    /// Makes a telemetry message with an encoded property bag, which may be empty.
    #[must_use]
    pub const fn telemetry(properties: &'a str, payload: &'a [u8]) -> Self {
        Self::to(Destination::Telemetry(properties), payload)
    }

    /// Makes a telemetry message whose body is JSON in UTF-8, with the content type and encoding that message routing
    /// on the body needs.
    #[must_use]
    pub const fn json(payload: &'a [u8]) -> Self {
        Self::telemetry(property_bag::JSON, payload)
    }

    /// Makes a telemetry message whose body is CBOR, with that content type.
    #[must_use]
    pub const fn cbor(payload: &'a [u8]) -> Self {
        Self::telemetry(property_bag::CBOR, payload)
    }
}
