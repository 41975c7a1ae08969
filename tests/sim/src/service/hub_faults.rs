//! What goes wrong at a simulated hub.

use std::collections::VecDeque;

/// How the hub answers CONNECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Greeting {
    /// As the credential deserves.
    #[default]
    Judge,
    /// With this return code.
    Code(u8),
    /// Not at all.
    Silence,
    /// As the credential deserves, after so many milliseconds.
    Late(u64),
    /// It closes the connection.
    Close,
    /// With these bytes.
    Bytes(Vec<u8>),
}

/// What the hub does with a publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishFault {
    /// It stores and acknowledges it.
    #[default]
    None,
    /// It closes the connection and stores nothing.
    CloseBeforeStore,
    /// It stores it and closes the connection without an acknowledgement.
    CloseAfterStore,
    /// It stores it and never acknowledges it.
    Withhold,
    /// It acknowledges it twice.
    AckTwice,
    /// It acknowledges this packet id first, and then the publish.
    AckUnknown(u16),
    /// It acknowledges it after so many milliseconds.
    AckLate(u64),
    /// It stores it and answers with these bytes instead.
    Bytes(Vec<u8>),
}

/// How the hub answers SUBSCRIBE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeFault {
    /// It grants it.
    #[default]
    None,
    /// It refuses it with 0x80.
    Refuse,
    /// It does not answer.
    Silence,
    /// It answers with two codes.
    TwoCodes,
    /// It answers twice.
    Twice,
    /// It answers another packet id.
    OtherId,
}

/// In which order the hub acknowledges publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acks {
    /// As they came, as the standard demands.
    #[default]
    InOrder,
    /// It collects so many and acknowledges the latest first.
    Reversed(usize),
}

/// What goes wrong at a hub; by default nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HubFaults {
    /// Answers to the next CONNECTs, first things first.
    pub next_greetings: VecDeque<Greeting>,
    /// Answer to every other CONNECT.
    pub greeting: Greeting,
    /// What happens to the next publishes.
    pub next_publishes: VecDeque<PublishFault>,
    /// What happens to every other publish.
    pub publish: PublishFault,
    /// Answer to SUBSCRIBE.
    pub subscribe: SubscribeFault,
    /// Order of acknowledgements.
    pub acks: Acks,
    /// It keeps no sessions.
    pub forget_sessions: bool,
    /// It claims to have kept a session whatever it knows.
    pub claim_session: bool,
    /// It does not answer pings.
    pub mute: bool,
    /// It closes each connection so many milliseconds after it has accepted it.
    pub close_after_ms: Option<u64>,
    /// It closes the connection on a message with this payload, without storing it.
    pub poison: Option<Vec<u8>>,
}
