//! The handle to one identity of a hub.

use std::sync::Arc;

use crate::Error;
use crate::config::DeviceAuth;
use crate::connections::CloseReason;
use crate::control::{clear, inject};
use crate::device::{Device, Push};
use crate::fault::{Fault, FaultId, Injection, Scope};
use crate::world::Shared;

/// One device or module of one hub. Clones control the same identity.
#[derive(Clone, Debug)]
pub struct DeviceHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) host: String,
    pub(crate) id: String,
}

impl DeviceHandle {
    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns whether the identity exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.change(|_| ()).is_ok()
    }

    /// Returns whether the identity is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.change(|device| device.live.is_some()).unwrap_or(false)
    }

    /// Injects a fault for this identity on its hub.
    pub fn inject(&self, fault: impl Into<Injection<Fault>>) -> FaultId {
        inject(&self.shared, self.scope(), fault.into())
    }

    /// Clears the faults of this identity, and releases everything they held back.
    pub fn clear_faults(&self) {
        clear(&self.shared, &self.scope());
    }

    /// Closes the connection, with a TCP reset if `reset` is true.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`], or [`Error::NotListening`] when it is not connected.
    pub fn disconnect(&self, reset: bool) -> Result<(), Error> {
        let closed = self.change(|device| device.push(Push::Close { reason: CloseReason::Control, reset }))?;
        if closed { Ok(()) } else { Err(Error::NotListening(self.id.clone())) }
    }

    /// Disables the identity: its connection is closed, CONNECT is refused.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn disable(&self) -> Result<(), Error> {
        self.change(|device| {
            device.enabled = false;
            device.cut(CloseReason::IdentityChanged);
        })
    }

    /// Enables the identity again.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn enable(&self) -> Result<(), Error> {
        self.change(|device| device.enabled = true)
    }

    /// Deletes the identity and closes its connection.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn delete(&self) -> Result<(), Error> {
        let mut world = self.shared.lock();
        world.device(&self.host, &self.id)?.cut(CloseReason::IdentityChanged);
        world.hub(&self.host)?.devices.remove(&self.id);
        Ok(())
    }

    /// Replaces the credentials of the identity and closes its connection.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn set_auth(&self, auth: impl Into<DeviceAuth>) -> Result<(), Error> {
        let auth = auth.into();
        self.change(|device| {
            device.auth = auth;
            device.cut(CloseReason::IdentityChanged);
        })
    }

    /// Makes the primary key the secondary and `key` the primary. Tokens of both are valid; the current connection
    /// stays open.
    ///
    /// # Errors
    /// [`Error::Request`] when the identity has no keys; [`Error::NoSuchDevice`].
    pub fn rotate_key(&self, key: crate::Key) -> Result<(), Error> {
        self.change(|device| {
            let DeviceAuth::Keys { primary, secondary } = &mut device.auth else {
                return Err(Error::Request(format!("{:?} has no keys to rotate", self.id)));
            };
            *secondary = Some(std::mem::replace(primary, key));
            Ok(())
        })?
    }

    /// Deletes the MQTT session: the next CONNACK says `session_present` 0.
    ///
    /// # Errors
    /// [`Error::NoSuchDevice`].
    pub fn forget_session(&self) -> Result<(), Error> {
        self.change(Device::forget_session)
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Device) -> T) -> Result<T, Error> {
        Ok(change(self.shared.lock().device(&self.host, &self.id)?))
    }

    fn scope(&self) -> Scope {
        Scope { service: Some(self.host.clone()), device: Some(self.id.clone()) }
    }
}
