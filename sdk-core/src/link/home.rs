//! What a link keeps for the Device Provisioning Service, or does without.

use core::fmt;

use heapless::String;

use crate::azure::names::OPERATION_ID_MAX;
use crate::io::Assignment;
use crate::retry::Backoff;
use crate::time::Instant;

/// What a link keeps for the Device Provisioning Service: [`Provisioned`], or [`Direct`] to save its room.
pub trait Home: Clone + Default + fmt::Debug + sealed::Sealed {
    /// Whether there is room at all. Where there is none the dialogue with the service is not linked.
    const ROOM: bool;

    /// Returns the assignment.
    fn assignment(&self) -> Option<&Assignment>;

    /// Takes an assignment.
    fn assign(&mut self, assignment: Assignment);

    /// Returns what names the registration, empty before the service has taken the request.
    fn operation_id(&self) -> &str;

    /// Takes what names the registration, and returns whether it fits.
    fn set_operation(&mut self, operation_id: &str) -> bool;

    /// Returns the back-off of the service.
    fn backoff(&self) -> Option<&Backoff>;

    /// Returns the back-off of the service, to change it.
    fn backoff_mut(&mut self) -> Option<&mut Backoff>;
}

/// Room for an assignment, a registration and its back-off.
#[derive(Clone, Debug)]
pub struct Provisioned {
    assignment: Option<Assignment>,
    operation_id: String<OPERATION_ID_MAX, u8>,
    backoff: Backoff,
}

impl Default for Provisioned {
    fn default() -> Self {
        Self { assignment: None, operation_id: String::new(), backoff: Backoff::new(Instant::ORIGIN) }
    }
}

impl Home for Provisioned {
    const ROOM: bool = true;

    fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    fn assign(&mut self, assignment: Assignment) {
        self.assignment = Some(assignment);
    }

    fn operation_id(&self) -> &str {
        &self.operation_id
    }

    fn set_operation(&mut self, operation_id: &str) -> bool {
        self.operation_id.clear();
        self.operation_id.push_str(operation_id).is_ok()
    }

    fn backoff(&self) -> Option<&Backoff> {
        Some(&self.backoff)
    }

    fn backoff_mut(&mut self) -> Option<&mut Backoff> {
        Some(&mut self.backoff)
    }
}

/// No room: the hub or the broker is configured, as [`crate::Link::direct`] checks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct(());

impl Home for Direct {
    const ROOM: bool = false;

    fn assignment(&self) -> Option<&Assignment> {
        None
    }

    fn assign(&mut self, _: Assignment) {}

    fn operation_id(&self) -> &str {
        ""
    }

    fn set_operation(&mut self, operation_id: &str) -> bool {
        operation_id.is_empty()
    }

    fn backoff(&self) -> Option<&Backoff> {
        None
    }

    fn backoff_mut(&mut self) -> Option<&mut Backoff> {
        None
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Provisioned {}

    impl Sealed for super::Direct {}
}
