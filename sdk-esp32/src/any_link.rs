//! What a device drives: a link alone, or one with the services of a hub.

use core::ops::Range;
use core::time::Duration;

use steadfast_core::azure::property_bag::Encoded;
use steadfast_core::mqtt::PacketId;
use steadfast_core::{
    Attempt, CallId, Deadline, HubLink, Input, Instant, Link, Outbox, Output, Provisioned, Received, Settings, Taken,
};

use crate::engine::{Ack, CloudToDevice, ModuleInput, Poll, Twin, place_of};

/// A [`Link`] or a [`WithServices`]: what the last parameter of a device stands for.
///
/// Firmware whose device is a plain link has no code of the services in it.
pub trait AnyLink<O, S>: sealed::Driven<O, S> {}

impl<O: Outbox, S: Settings> AnyLink<O, S> for Link<O, S> {}

impl<O: Outbox, S: Settings> AnyLink<O, S> for WithServices<'_, O, S> {}

/// A link with the services of a hub, working in the application's memory: the last parameter of the type of a device
/// that [`with_services`](crate::Device::with_services) returns.
pub type WithServices<'b, O, S> = HubLink<O, S, Provisioned, &'b mut [u8]>;

/// Where in the receive buffer something of a service lies.
#[derive(Clone, Debug)]
pub enum Service {
    Twin { desired: Range<usize>, desired_version: u64, reported: Range<usize>, reported_version: u64, reset: bool },
    Desired { version: u64, patch: Range<usize> },
    Call { call: CallId, name: Range<usize>, payload: Range<usize> },
    CloudToDevice { properties: Range<usize>, payload: Range<usize>, dup: bool, duplicate: bool, ack: Ack },
    Input { name: Range<usize>, properties: Range<usize>, payload: Range<usize>, dup: bool, ack: Ack },
}

pub(crate) mod sealed {
    use super::{Attempt, Deadline, Duration, Input, Instant, Link, Output, PacketId, Poll, Received, Taken};

    pub trait Driven<O, S> {
        /// Where something of a service lies; nothing can for a link without services.
        type Service: Clone;

        fn core(&self) -> &Link<O, S>;
        fn core_mut(&mut self) -> &mut Link<O, S>;
        fn handle_input<'b>(&mut self, input: Input<'b>, attempt: Attempt, now: Instant) -> Taken<'b>;
        fn handle_timeout(&mut self, now: Instant);
        fn poll_output_within(&mut self, room: usize) -> Output<'_>;
        fn next_deadline(&self) -> Option<Deadline>;
        fn acknowledge(&mut self, packet_id: PacketId, attempt: Attempt, now: Instant) -> bool;
        fn find(received: &Received<'_>, rx: &[u8], attempt: Attempt) -> Option<Self::Service>;
        fn show<'a>(service: &Self::Service, rx: &'a [u8]) -> Poll<'a>;

        /// How long there is for what was asked for last.
        fn patience(&self, now: Instant) -> Duration {
            self.next_deadline().map_or(Duration::MAX, |deadline| deadline.at.since(now))
        }
    }
}

/// The methods that both have under the same names.
macro_rules! driven {
    () => {
        fn handle_input<'b>(&mut self, input: Input<'b>, attempt: Attempt, now: Instant) -> Taken<'b> {
            self.handle_input(input, attempt, now)
        }

        fn handle_timeout(&mut self, now: Instant) {
            self.handle_timeout(now);
        }

        fn poll_output_within(&mut self, room: usize) -> Output<'_> {
            self.poll_output_within(room)
        }

        fn next_deadline(&self) -> Option<Deadline> {
            self.next_deadline()
        }

        fn acknowledge(&mut self, packet_id: PacketId, attempt: Attempt, now: Instant) -> bool {
            self.acknowledge(packet_id, attempt, now)
        }
    };
}

impl<O: Outbox, S: Settings> sealed::Driven<O, S> for Link<O, S> {
    type Service = core::convert::Infallible;

    driven!();

    fn core(&self) -> &Self {
        self
    }

    fn core_mut(&mut self) -> &mut Self {
        self
    }

    fn find(_: &Received<'_>, _: &[u8], _: Attempt) -> Option<Self::Service> {
        None
    }

    fn show<'a>(service: &Self::Service, _: &'a [u8]) -> Poll<'a> {
        match *service {}
    }
}

impl<O: Outbox, S: Settings> sealed::Driven<O, S> for WithServices<'_, O, S> {
    type Service = Service;

    driven!();

    fn core(&self) -> &Link<O, S> {
        self
    }

    fn core_mut(&mut self) -> &mut Link<O, S> {
        self
    }

    fn find(received: &Received<'_>, rx: &[u8], attempt: Attempt) -> Option<Service> {
        let at = |part: &[u8]| place_of(part, rx);
        let text = |part: &str| place_of(part.as_bytes(), rx);
        let service = match *received {
            Received::Twin(twin) => Service::Twin {
                desired: text(twin.desired),
                desired_version: twin.desired_version,
                reported: text(twin.reported),
                reported_version: twin.reported_version,
                reset: twin.reset,
            },
            Received::Desired { version, patch } => Service::Desired { version, patch: text(patch) },
            Received::Call { call, name, payload } => {
                Service::Call { call, name: text(name.raw()), payload: at(payload) }
            }
            Received::CloudToDevice { properties, payload, packet_id, dup, duplicate } => {
                let ack = Ack { packet_id, attempt };
                Service::CloudToDevice { properties: text(properties), payload: at(payload), dup, duplicate, ack }
            }
            Received::Input { name, properties, payload, packet_id, dup } => {
                let (name, properties, payload) = (text(name.raw()), text(properties), at(payload));
                Service::Input { name, properties, payload, dup, ack: Ack { packet_id, attempt } }
            }
            Received::Message { .. } | Received::ProvisioningPayload(_) | _ => return None,
        };
        Some(service)
    }

    fn show<'a>(service: &Service, rx: &'a [u8]) -> Poll<'a> {
        let at = |place: &Range<usize>| rx.get(place.clone()).unwrap_or_default();
        // The link has checked the encoding.
        let text = |place: &Range<usize>| core::str::from_utf8(at(place)).unwrap_or_default();
        // A section that the service left out lies nowhere.
        let section = |place: &Range<usize>| Some(text(place)).filter(|text| !text.is_empty()).unwrap_or("{}");
        match *service {
            Service::Twin { ref desired, desired_version, ref reported, reported_version, reset } => {
                let (desired, reported) = (section(desired), section(reported));
                Poll::Twin(Twin { desired, desired_version, reported, reported_version, reset })
            }
            Service::Desired { version, ref patch } => Poll::Desired { version, patch: text(patch) },
            Service::Call { call, ref name, ref payload } => {
                Poll::Call { call, name: Encoded::new(text(name)), payload: at(payload) }
            }
            Service::CloudToDevice { ref properties, ref payload, dup, duplicate, ack } => {
                Poll::CloudToDevice(CloudToDevice {
                    properties: text(properties),
                    payload: at(payload),
                    dup,
                    duplicate,
                    ack,
                })
            }
            Service::Input { ref name, ref properties, ref payload, dup, ack } => {
                let (name, properties, payload) = (Encoded::new(text(name)), text(properties), at(payload));
                Poll::Input(ModuleInput { name, properties, payload, dup, ack })
            }
        }
    }
}
