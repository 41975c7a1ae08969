//! The handle to a running DPS.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::Error;
use crate::config::hub_host;
use crate::control::{clear, inject};
use crate::dps::Registration;
use crate::enrollment::{Attestation, Enrollment};
use crate::fault::{DpsFault, Fault, FaultId, Injection, Scope};
use crate::sas::Key;
use crate::world::Shared;

/// DPS. Clones control the same service.
#[derive(Clone, Debug)]
pub struct DpsHandle {
    pub(crate) shared: Arc<Shared>,
}

impl DpsHandle {
    /// Returns the host name.
    #[must_use]
    pub fn host(&self) -> String {
        self.shared.lock().dps.config.host.clone()
    }

    /// Returns the id scope.
    #[must_use]
    pub fn id_scope(&self) -> String {
        self.shared.lock().dps.config.id_scope.clone()
    }

    /// Returns the service's own TLS address, if it has one, else the shared one.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        let addresses = self.shared.addresses.get().expect("set before the first handle is given out");
        addresses.own.get(&self.host()).copied().unwrap_or(addresses.tls)
    }

    /// Adds an enrollment, or replaces the one with the same name.
    pub fn enroll(&self, enrollment: Enrollment) {
        self.shared.lock().dps.enroll(enrollment);
    }

    /// Points an enrollment to another hub; devices move there when they register again.
    ///
    /// # Errors
    /// [`Error::NoSuchEnrollment`] or [`Error::NoSuchHub`].
    pub fn repoint(&self, enrollment: &str, hub: &str) -> Result<(), Error> {
        let hub = hub_host(hub);
        let mut world = self.shared.lock();
        world.hub(&hub)?;
        world.dps.enrollment(enrollment)?.hub = Some(hub);
        Ok(())
    }

    /// Enables or disables an enrollment.
    ///
    /// # Errors
    /// [`Error::NoSuchEnrollment`].
    pub fn set_enabled(&self, enrollment: &str, enabled: bool) -> Result<(), Error> {
        self.shared.lock().dps.enrollment(enrollment)?.enabled = enabled;
        Ok(())
    }

    /// Replaces the key of an enrollment.
    ///
    /// # Errors
    /// [`Error::NoSuchEnrollment`].
    pub fn set_key(&self, enrollment: &str, key: Key) -> Result<(), Error> {
        let attestation = Attestation::Symmetric { primary: key, secondary: None };
        self.shared.lock().dps.enrollment(enrollment)?.attestation = attestation;
        Ok(())
    }

    /// Removes an enrollment; devices already assigned keep their identities.
    ///
    /// # Errors
    /// [`Error::NoSuchEnrollment`].
    pub fn remove(&self, enrollment: &str) -> Result<(), Error> {
        let mut world = self.shared.lock();
        world.dps.enrollment(enrollment)?;
        world.dps.remove(enrollment);
        Ok(())
    }

    /// Takes DPS down: its own port refuses TCP; on a shared port, which other services need, TCP is closed before TLS
    /// (at CONNECT when the client used a gateway name or the plain port). Open connections end.
    pub fn down(&self) {
        self.set_available(true, false);
    }

    /// Makes DPS accept TCP on every port and close it before TLS. Open connections end.
    pub fn close_what_comes(&self) {
        self.set_available(true, true);
    }

    /// Brings DPS up again.
    pub fn up(&self) {
        self.set_available(false, true);
    }

    fn set_available(&self, down: bool, listens: bool) {
        let mut world = self.shared.lock();
        world.dps.down = down;
        world.dps.listening.send_replace(listens);
    }

    /// Injects a fault into the responses to every device.
    pub fn inject(&self, fault: impl Into<Injection<DpsFault>>) -> FaultId {
        self.inject_into(Scope::default(), fault.into())
    }

    /// Injects a fault into the responses to one registration id.
    pub fn inject_for(&self, registration_id: &str, fault: impl Into<Injection<DpsFault>>) -> FaultId {
        self.inject_into(Scope { service: None, device: Some(registration_id.to_owned()) }, fault.into())
    }

    /// Injects a fault into connections to DPS.
    pub fn inject_connection(&self, fault: impl Into<Injection<Fault>>) -> FaultId {
        inject(&self.shared, Scope { service: Some(self.host()), device: None }, fault.into())
    }

    /// Clears the faults of DPS, including those of its connections.
    pub fn clear_faults(&self) {
        self.shared.lock().dps.faults.clear(&Scope::default());
        clear(&self.shared, &Scope { service: Some(self.host()), device: None });
    }

    /// Returns all registration requests, oldest first.
    #[must_use]
    pub fn registrations(&self) -> Vec<Registration> {
        self.shared.lock().dps.log.clone()
    }

    /// Returns how many registration requests a device sent.
    #[must_use]
    pub fn registration_count(&self, registration_id: &str) -> usize {
        let world = self.shared.lock();
        world.dps.log.iter().filter(|entry| entry.registration_id == registration_id).count()
    }

    fn inject_into(&self, scope: Scope, injection: Injection<DpsFault>) -> FaultId {
        let id = self.shared.next_fault();
        self.shared.lock().dps.faults.add(id, scope, injection);
        id
    }
}
