//! The conformance set: scenarios that every frontend must pass, against one model of the services.
//!
//! A [scenario](mod@scenarios) says what the application does, what the services do, and what both must see. It is written once,
//! against [`Subject`]; the services are those of `steadfast-sim` behind [connections of bytes](cloud), in virtual
//! time. Four subjects exist: [`Core`] alone, [`Linux`] (`steadfast`, on tokio's paused clock), and the two forms of
//! `steadfast-esp32`, [`Blocking`] and [`Asynchronous`].
//!
//! A new frontend implements [`Subject`] and lists itself in `tests/conformance.rs`; [`every_scenario`] makes a test of each
//! scenario for it.

pub mod cloud;
mod plan;
mod run;
pub mod scenarios;
mod seen;
mod subjects;

use std::time::Duration;

use steadfast_core::{Ledger, Message, State};

pub use cloud::{Cloud, Shared};
pub use plan::Plan;
pub use run::Run;
pub use seen::Seen;
pub use subjects::{Asynchronous, Blocking, Core, Linux};

/// A frontend under test, as its application uses it. Time passes in [`poll`](Self::poll) alone.
pub trait Subject: Sized {
    /// Sets a device up. With [`Plan::keeps`] it finds what an earlier device of this cloud has kept.
    fn new(cloud: &Shared, plan: &Plan) -> Self;

    /// Starts bringing the link up.
    fn start(&mut self);

    /// Stops the link after sending what is queued, for `drain` at most.
    fn stop(&mut self, drain: Duration);

    /// Queues a message; returns its id, or `None` when there is no room.
    fn publish(&mut self, message: Message<'_>) -> Option<u64>;

    /// Queues reported properties.
    fn report(&mut self, patch: &str);

    /// Answers a method call; returns false when the answer cannot be sent.
    fn respond(&mut self, call: u64, status: u16, body: &str) -> bool;

    /// Acknowledges a cloud-to-device message; returns false when that no longer counts.
    fn acknowledge(&mut self, message: u64) -> bool;

    /// Lets time pass until the device shows something, `limit` at most.
    fn poll(&mut self, limit: Duration) -> Option<Seen>;

    /// Returns the device's ledger.
    fn ledger(&self) -> Ledger;

    /// Returns the state of the link.
    fn state(&self) -> State;

    /// The device loses power: connections end, nothing more is kept.
    fn power_off(self);
}

/// Makes a test of every scenario for each subject: a module named after it.
#[macro_export]
macro_rules! every_scenario {
    ($($module:ident: $subject:ty),+ $(,)?) => {
        $(mod $module {
            $crate::scenarios!($subject);
        })+
    };
}
