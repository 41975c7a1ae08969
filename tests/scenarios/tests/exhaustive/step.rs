//! What can happen.

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The application publishes, in either priority.
    Publish,
    Urgent,
    /// The time of the next deadline comes.
    Deadline,
    /// The transport is up.
    Ready,
    /// CONNACK: a new session, a kept one, or a refusal.
    Fresh,
    Resumed,
    Refused,
    /// SUBACK.
    Granted,
    /// PUBACK of the oldest, or the newest, publish on the connection that has none.
    AckOldest,
    AckNewest,
    /// PUBACK of a message that is not in flight, or once more.
    AckAgain,
    /// The connection, or the attempt, fails.
    Lost,
    /// PUBACK and CONNACK of an older attempt.
    Late,
    /// The application stops, or starts.
    Stop,
    Start,
    /// An operator orders a registration.
    Order,
    /// The provisioning service names the same hub, or another, or is throttled.
    Same,
    Other,
    Throttled,
}

pub(crate) const AT_HUB: [Step; 15] = [
    Step::Publish,
    Step::Urgent,
    Step::Deadline,
    Step::Ready,
    Step::Fresh,
    Step::Resumed,
    Step::Refused,
    Step::Granted,
    Step::AckOldest,
    Step::AckNewest,
    Step::AckAgain,
    Step::Lost,
    Step::Late,
    Step::Stop,
    Step::Start,
];

pub(crate) const MOVING: [Step; 12] = [
    Step::Publish,
    Step::Deadline,
    Step::Ready,
    Step::Fresh,
    Step::Resumed,
    Step::Refused,
    Step::AckOldest,
    Step::Lost,
    Step::Order,
    Step::Same,
    Step::Other,
    Step::Throttled,
];
