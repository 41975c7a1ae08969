//! What a device drives: a link alone, or one with the services of a hub.

use core::ops::Range;
use core::time::Duration;

use steadfast_core::mqtt::{PacketId, QoS};
use steadfast_core::{
    Assignment, Attempt, BackoffSnapshot, Deadline, HubLink, HubProfile, Input, Instant, Link, Message, MessageId,
    Outbox, Output, Profile, PublishError, Received, SubscribeError, SubscriptionId, Taken, iothub,
};

use crate::engine::{self, Ack, CloudToDevice, ModuleInput, Poll};

/// A [`Link`] or a [`WithServices`]: what the last parameter of a device stands for.
///
/// Firmware whose device is a plain link has no code of the services in it.
pub trait AnyLink<O, P>: sealed::Driven<O, P> {}

impl<O: Outbox, P: Profile> AnyLink<O, P> for Link<O, P> {}

impl<O: Outbox, P: HubProfile> AnyLink<O, P> for WithServices<'_, O, P> {}

/// A link with the services of a hub, working in the application's memory: the last parameter of the type of a device
/// that [`with_services`](crate::Device::with_services) returns.
pub type WithServices<'b, O, P> = HubLink<O, P, &'b mut [u8]>;

/// A place in the receive buffer.
pub(crate) type Place = Range<usize>;

pub(crate) mod sealed {
    use super::{
        Assignment, Attempt, BackoffSnapshot, Deadline, Duration, Input, Instant, Link, Message, MessageId, Output,
        PacketId, Place, Poll, PublishError, QoS, SubscribeError, SubscriptionId, Taken, iothub,
    };

    pub trait Driven<O, P> {
        /// What it reports.
        type Event: Into<iothub::Event>;

        /// What it receives.
        type Received<T, B>;

        fn core(&self) -> &Link<O, P>;
        fn start(&mut self, now: Instant);
        fn wake(&mut self, now: Instant);
        fn stop(&mut self, drain: Duration, now: Instant);
        fn restore_assignment(&mut self, assignment: Assignment);
        fn restore_backoff(&mut self, memory: BackoffSnapshot, now: Instant);
        fn reprovision(&mut self, now: Instant);
        fn set_wall_clock(&mut self, unix_secs: u64, now: Instant);
        fn publish(&mut self, message: Message<'_>, now: Instant) -> Result<MessageId, PublishError>;
        fn handle_input<'b>(
            &mut self,
            input: Input<'b>,
            attempt: Attempt,
            now: Instant,
        ) -> Taken<Self::Received<&'b str, &'b [u8]>>;
        fn handle_timeout(&mut self, now: Instant);
        fn poll_output_within(&mut self, room: usize) -> Output<'_, Self::Event>;
        fn next_deadline(&self) -> Option<Deadline>;
        fn acknowledge(&mut self, packet_id: PacketId, attempt: Attempt, now: Instant) -> bool;
        fn abandon(&mut self, packet_id: PacketId, attempt: Attempt) -> bool;
        fn subscribe(&mut self, filter: &str, qos: QoS, now: Instant) -> Result<SubscriptionId, SubscribeError>;
        fn unsubscribe(&mut self, filter: &str, now: Instant) -> Option<SubscriptionId>;

        /// Finds out where in the receive buffer something lies.
        fn find<'b>(
            received: Self::Received<&'b str, &'b [u8]>,
            place: impl Fn(&[u8]) -> Place,
        ) -> Self::Received<Place, Place>;

        /// Shows what lies in the receive buffer, which came during `attempt`.
        fn show<'a>(received: &Self::Received<Place, Place>, attempt: Attempt, rx: &'a [u8]) -> Poll<'a>;

        /// How long there is for what was asked for last.
        fn patience(&self, now: Instant) -> Duration {
            self.next_deadline().map_or(Duration::MAX, |deadline| deadline.at.since(now))
        }
    }
}

/// The methods that both have under the same names.
macro_rules! driven {
    () => {
        fn start(&mut self, now: Instant) {
            self.start(now);
        }

        fn wake(&mut self, now: Instant) {
            self.wake(now);
        }

        fn stop(&mut self, drain: Duration, now: Instant) {
            self.stop(drain, now);
        }

        fn restore_assignment(&mut self, assignment: Assignment) {
            self.restore_assignment(assignment);
        }

        fn restore_backoff(&mut self, memory: BackoffSnapshot, now: Instant) {
            self.restore_backoff(memory, now);
        }

        fn reprovision(&mut self, now: Instant) {
            self.reprovision(now);
        }

        fn set_wall_clock(&mut self, unix_secs: u64, now: Instant) {
            self.set_wall_clock(unix_secs, now);
        }

        fn publish(&mut self, message: Message<'_>, now: Instant) -> Result<MessageId, PublishError> {
            self.publish(message, now)
        }

        fn handle_input<'b>(
            &mut self,
            input: Input<'b>,
            attempt: Attempt,
            now: Instant,
        ) -> Taken<Self::Received<&'b str, &'b [u8]>> {
            self.handle_input(input, attempt, now)
        }

        fn handle_timeout(&mut self, now: Instant) {
            self.handle_timeout(now);
        }

        fn poll_output_within(&mut self, room: usize) -> Output<'_, Self::Event> {
            self.poll_output_within(room)
        }

        fn next_deadline(&self) -> Option<Deadline> {
            self.next_deadline()
        }

        fn acknowledge(&mut self, packet_id: PacketId, attempt: Attempt, now: Instant) -> bool {
            self.acknowledge(packet_id, attempt, now)
        }

        fn abandon(&mut self, packet_id: PacketId, attempt: Attempt) -> bool {
            self.abandon(packet_id, attempt)
        }

        fn subscribe(&mut self, filter: &str, qos: QoS, now: Instant) -> Result<SubscriptionId, SubscribeError> {
            self.subscribe(filter, qos, now)
        }

        fn unsubscribe(&mut self, filter: &str, now: Instant) -> Option<SubscriptionId> {
            self.unsubscribe(filter, now)
        }

        fn find<'b>(
            received: Self::Received<&'b str, &'b [u8]>,
            place: impl Fn(&[u8]) -> Place,
        ) -> Self::Received<Place, Place> {
            received.map(|text| place(text.as_bytes()), &place)
        }
    };
}

impl<O: Outbox, P: Profile> sealed::Driven<O, P> for Link<O, P> {
    type Event = steadfast_core::Event;
    type Received<T, B> = Received<T, B>;

    driven!();

    fn core(&self) -> &Self {
        self
    }

    fn show<'a>(received: &Received<Place, Place>, attempt: Attempt, rx: &'a [u8]) -> Poll<'a> {
        show(received.clone().map(|place| text(rx, place), |place| bytes(rx, place)), attempt)
    }
}

impl<O: Outbox, P: HubProfile> sealed::Driven<O, P> for WithServices<'_, O, P> {
    type Event = iothub::Event;
    type Received<T, B> = iothub::Received<T, B>;

    driven!();

    fn core(&self) -> &Link<O, P> {
        self.link()
    }

    fn show<'a>(received: &iothub::Received<Place, Place>, attempt: Attempt, rx: &'a [u8]) -> Poll<'a> {
        match received.clone().map(|place| text(rx, place), |place| bytes(rx, place)) {
            iothub::Received::Link(received) => show(received, attempt),
            iothub::Received::Twin(twin) => Poll::Twin(twin.map(section)),
            iothub::Received::Desired { version, patch } => Poll::Desired { version, patch },
            iothub::Received::Call { call, name, payload } => Poll::Call { call, name, payload },
            iothub::Received::CloudToDevice { properties, payload, packet_id, dup, duplicate } => {
                let ack = Ack { packet_id, attempt };
                Poll::CloudToDevice(CloudToDevice { properties, payload, dup, duplicate, ack })
            }
            iothub::Received::Input { name, properties, payload, packet_id, dup } => {
                Poll::Input(ModuleInput { name, properties, payload, dup, ack: Ack { packet_id, attempt } })
            }
            _ => Poll::Idle,
        }
    }
}

fn show<'a>(received: Received<&'a str, &'a [u8]>, attempt: Attempt) -> Poll<'a> {
    match received {
        Received::Message { topic, payload, packet_id, dup } => {
            Poll::Message(engine::Message { topic, payload, dup, ack: Ack { packet_id, attempt } })
        }
        Received::ProvisioningPayload(json) => Poll::ProvisioningPayload(json),
        _ => Poll::Idle,
    }
}

fn bytes(rx: &[u8], place: Place) -> &[u8] {
    rx.get(place).unwrap_or_default()
}

/// The link has checked the encoding.
fn text(rx: &[u8], place: Place) -> &str {
    core::str::from_utf8(bytes(rx, place)).unwrap_or_default()
}

/// A section that the service left out lies nowhere.
fn section(text: &str) -> &str {
    if text.is_empty() { "{}" } else { text }
}
