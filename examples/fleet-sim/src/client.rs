//! The interface of a device to the simulated network, for every policy.

use crate::dice::Dice;
use steadfast_core::ServiceKind;

/// The next step of a device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    /// It opens a connection.
    pub(crate) connect: Option<ServiceKind>,
    /// It sends the provisioning service a registration, or a question for the state of one.
    pub(crate) request: Option<Request>,
    /// It came up.
    pub(crate) up: bool,
    /// It was up and disconnected.
    pub(crate) down: bool,
    /// Its next deadline.
    pub(crate) deadline: Option<u32>,
}

/// A request to the provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Registers; billed.
    Register,
    /// Polls the registration.
    Poll,
}

/// How a connection or an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Before TLS was up.
    Unreachable,
    /// Closed by the service without a reason.
    Closed,
    /// It was up and the keep-alive timed out.
    Silent,
    /// CONNACK 5: the hub does not know the device.
    Unknown,
}

/// Answers of the provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 202: poll again later.
    Assigning,
    /// 200: the hub of this number.
    Assigned(u8),
    /// 429: retry later.
    Throttled,
}

/// One device.
pub(crate) trait Client {
    /// A deadline is due.
    fn wake(&mut self, now: u32, dice: &mut Dice) -> Ask;

    /// TLS is up and CONNECT is sent; returns when the device stops waiting for CONNACK.
    fn ready(&mut self, now: u32) -> Option<u32>;

    /// The service accepted CONNECT.
    fn accept(&mut self, now: u32, dice: &mut Dice) -> Ask;

    /// The attempt or the connection ended.
    fn end(&mut self, how: End, now: u32, dice: &mut Dice) -> Ask;

    /// The provisioning service answered.
    fn answer(&mut self, answer: Answer, now: u32, dice: &mut Dice) -> Ask;
}
