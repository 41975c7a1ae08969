//! What the simulated network asks of a device, whatever policy it follows.

use crate::dice::Dice;
use steadfast_core::ServiceKind;

/// What a device does next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    /// It opens a connection.
    pub(crate) connect: Option<ServiceKind>,
    /// It sends the provisioning service a registration, or a question for the state of one.
    pub(crate) request: Option<Request>,
    /// It came up.
    pub(crate) up: bool,
    /// It was up and left.
    pub(crate) down: bool,
    /// When it wants to be woken.
    pub(crate) deadline: Option<u32>,
}

/// A request to the provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Registers; billed.
    Register,
    /// Asks for the state of the registration.
    Poll,
}

/// How a connection or an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Before TLS was up.
    Unreachable,
    /// Closed by the service without a reason.
    Closed,
    /// Nothing came for too long while it was up.
    Silent,
    /// CONNACK 5: the hub does not know the device.
    Unknown,
}

/// What the provisioning service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 202: ask again in a while.
    Assigning,
    /// 200: the hub of this number.
    Assigned(u8),
    /// 429: come back later.
    Throttled,
}

/// One device.
pub(crate) trait Client {
    /// A deadline is due.
    fn wake(&mut self, now: u32, dice: &mut Dice) -> Ask;

    /// TLS is up and CONNECT is sent; says when the device gives up waiting for CONNACK.
    fn ready(&mut self, now: u32) -> Option<u32>;

    /// The service accepted CONNECT.
    fn accept(&mut self, now: u32, dice: &mut Dice) -> Ask;

    /// The attempt or the connection ended.
    fn end(&mut self, how: End, now: u32, dice: &mut Dice) -> Ask;

    /// The provisioning service answered.
    fn answer(&mut self, answer: Answer, now: u32, dice: &mut Dice) -> Ask;
}
