//! Handles to a running emulator: cheap to clone, usable from any task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Bucket, Rate};
use crate::config::{DeviceAuth, HubConfig, hub_host, is_host_name};
use crate::connections::CloseReason;
use crate::device::{Device, Push};
use crate::device_handle::DeviceHandle;
use crate::dps_handle::DpsHandle;
use crate::fault::{Fault, FaultId, Injection, Scope};
use crate::ledger::Ledger;
use crate::pki::{DeviceCertificate, Flaw};
use crate::world::{HubState, Shared, World};
use crate::{Clock, Error};

/// A handle to a running emulator. Clones control the same emulator; dropping them does not stop it.
#[derive(Clone, Debug)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
}

/// The response of a device to a method call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodAnswer {
    /// The status of the response.
    pub status: i64,
    /// The body of the response.
    pub payload: Vec<u8>,
}

impl Control {
    /// Returns the shared TLS address of all services.
    #[must_use]
    pub fn tls_addr(&self) -> SocketAddr {
        self.addresses().tls
    }

    /// Returns the address without TLS, if there is one.
    #[must_use]
    pub fn plain_addr(&self) -> Option<SocketAddr> {
        self.addresses().plain
    }

    /// Returns the address of HTTPS and WebSockets, if there is one.
    #[must_use]
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.addresses().https
    }

    /// Closes the shared ports (TLS, plain, HTTPS), so that TCP to every service on them is refused, or opens them again.
    /// Existing connections stay open.
    pub fn set_listening(&self, listens: bool) {
        self.shared.listening.send_replace(listens);
    }

    /// Returns the content of the latest completed upload of a device under this name.
    #[must_use]
    pub fn uploaded(&self, device: &str, name: &str) -> Option<Vec<u8>> {
        self.world(|world| world.storage.content(device, name)).map(|content| content.to_vec())
    }

    /// Returns the certificate of the emulator's CA as PEM, which clients must trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.shared.certificates.authority().pem()
    }

    /// Returns the revocation list of the emulator's CA as DER; it is empty.
    ///
    /// # Errors
    /// [`Error::Certificate`] when the list cannot be signed.
    pub fn revocation_list(&self) -> Result<Vec<u8>, Error> {
        self.shared.certificates.authority().revocation_list()
    }

    /// Issues a client certificate from the emulator's CA; `common_name` must be the device or registration id.
    ///
    /// # Errors
    /// [`Error::Certificate`] when `common_name` cannot stand in a certificate.
    pub fn device_certificate(&self, common_name: &str) -> Result<DeviceCertificate, Error> {
        self.shared.certificates.authority().device_certificate(common_name)
    }

    /// Returns the ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger { shared: Arc::clone(&self.shared) }
    }

    /// Returns the wall clock for checking tokens.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.clock.clone()
    }

    /// Returns the time since the emulator started: the scale of all times in the ledger.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Waits until the emulator is stopped.
    pub async fn stopped(&self) {
        crate::emulator::stopped(&mut self.shared.stop.subscribe()).await;
    }

    /// Returns a hub by its full or short name. An unknown hub is reported by the calls on the handle.
    #[must_use]
    pub fn hub(&self, name: &str) -> Hub {
        Hub { shared: Arc::clone(&self.shared), host: hub_host(name) }
    }

    /// Returns the host names of all hubs, sorted.
    #[must_use]
    pub fn hubs(&self) -> Vec<String> {
        self.world(|world| world.hubs.keys().cloned().collect())
    }

    /// Adds a hub on the shared ports; it gets no port of its own.
    ///
    /// # Errors
    /// [`Error::HubName`] when the name is not a host name or already in use; [`Error::Certificate`].
    pub fn add_hub(&self, config: HubConfig) -> Result<Hub, Error> {
        let host = config.host.clone();
        if !is_host_name(&host) || self.world(|world| world.hubs.contains_key(&host)) {
            return Err(Error::HubName(host));
        }
        self.shared.certificates.add(&host, config.flaw)?;
        self.world(|world| world.hubs.insert(host.clone(), crate::world::Hub::new(config)));
        Ok(self.hub(&host))
    }

    /// Returns DPS.
    #[must_use]
    pub fn dps(&self) -> DpsHandle {
        DpsHandle { shared: Arc::clone(&self.shared) }
    }

    /// Injects a fault for every device on every service.
    pub fn inject(&self, fault: impl Into<Injection<Fault>>) -> FaultId {
        inject(&self.shared, Scope::default(), fault.into())
    }

    /// Clears all faults, including those of DPS, and releases everything they held back.
    pub fn clear_faults(&self) {
        self.world(|world| world.dps.faults.clear(&Scope::default()));
        clear(&self.shared, &Scope::default());
    }

    /// Clears one fault; false when it was used up or already cleared.
    #[must_use = "returns whether the fault existed"]
    pub fn clear_fault(&self, id: FaultId) -> bool {
        self.world(|world| {
            let removed = world.faults.remove(id) || world.dps.faults.remove(id);
            world.announce_faults(&Scope::default(), true);
            removed
        })
    }

    /// Moves a device to another hub: its enrollment points to `to`, its identity on `from` is deleted and its
    /// connection closed. The next registration creates its identity on `to` and moves its twin.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`] or [`Error::NoSuchDevice`].
    pub fn move_device(&self, device: &str, from: &str, to: &str) -> Result<(), Error> {
        let (from, to) = (hub_host(from), hub_host(to));
        self.world(|world| {
            world.hub(&to)?;
            world.device(&from, device)?;
            world.dps.repoint_device(device, &to);
            expel(world, &from, device);
            Ok(())
        })
    }

    /// Moves all devices of a hub to another one, as [`Control::move_device`] does, and all enrollments with them.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn move_all(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from, to) = (hub_host(from), hub_host(to));
        self.world(|world| {
            world.hub(&to)?;
            let devices: Vec<String> = world.hub(&from)?.devices.keys().cloned().collect();
            world.dps.repoint_hub(&from, &to, world.first_hub.as_deref());
            for device in devices {
                expel(world, &from, &device);
            }
            Ok(())
        })
    }

    pub(crate) fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.shared.lock())
    }

    fn addresses(&self) -> &crate::world::Addresses {
        self.shared.addresses.get().expect("set before the first handle exists")
    }
}

/// One hub. Clones control the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    host: String,
}

impl Hub {
    /// Returns the host name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the address of the hub's own port, if it has one, else of the shared TLS port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        let addresses = self.shared.addresses.get().expect("set before the first handle exists");
        addresses.own.get(&self.host).copied().unwrap_or(addresses.tls)
    }

    /// Returns a device or module by its id. An unknown id is reported by the calls on the handle.
    #[must_use]
    pub fn device(&self, id: &str) -> DeviceHandle {
        DeviceHandle { shared: Arc::clone(&self.shared), host: self.host.clone(), id: id.to_owned() }
    }

    /// Registers a device (`pump-7`) or module (`pump-7/filter`), or gives it other credentials.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn add_device(&self, id: &str, auth: impl Into<DeviceAuth>) -> Result<DeviceHandle, Error> {
        let auth = auth.into();
        self.hub(|hub| {
            let device = hub.devices.entry(id.to_owned()).or_insert_with(|| Device::new(auth.clone()));
            device.auth.clone_from(&auth);
        })?;
        Ok(self.device(id))
    }

    /// Returns the ids of all identities, sorted.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn devices(&self) -> Result<Vec<String>, Error> {
        let mut ids: Vec<String> = self.hub(|hub| hub.devices.keys().cloned().collect())?;
        ids.sort();
        Ok(ids)
    }

    /// Returns the ids of the connected identities, sorted.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn connected(&self) -> Result<Vec<String>, Error> {
        let mut ids: Vec<String> = self.hub(|hub| {
            let connected = hub.devices.iter().filter(|(_, device)| device.live.is_some());
            connected.map(|(id, _)| id.clone()).collect()
        })?;
        ids.sort();
        Ok(ids)
    }

    /// Injects a fault for every device of this hub.
    pub fn inject(&self, fault: impl Into<Injection<Fault>>) -> FaultId {
        inject(&self.shared, self.scope(), fault.into())
    }

    /// Clears the faults of this hub and its devices, and releases everything they held back.
    pub fn clear_faults(&self) {
        clear(&self.shared, &self.scope());
    }

    /// Takes the hub down: connections are reset, its own port is closed, and on the shared port TCP is closed before
    /// TLS (at CONNECT when the client used a gateway name or the plain port).
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn down(&self) -> Result<(), Error> {
        self.hub(|hub| {
            hub.state = HubState::Down;
            hub.listening.send_replace(false);
            hub.close_all(&CloseReason::HubDown);
        })
    }

    /// Brings the hub up again.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn up(&self) -> Result<(), Error> {
        self.hub(|hub| {
            hub.state = HubState::Up;
            hub.listening.send_replace(true);
        })
    }

    /// Changes the rate of new connections, or removes the limit; see [`HubConfig::admission`].
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn set_admission(&self, rate: Option<Rate>) -> Result<(), Error> {
        self.hub(|hub| hub.admission = rate.map(Bucket::new))
    }

    /// Fails the hub over: connections are closed, sessions and cloud-to-device messages are lost, and new connections
    /// are closed without a CONNACK for `downtime`.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn fail_over(&self, downtime: Duration) -> Result<(), Error> {
        let until = self.shared.now().saturating_add(downtime);
        self.hub(|hub| {
            hub.state = HubState::FailingOver(until);
            hub.close_all(&CloseReason::HubDown);
            hub.forget_sessions();
        })?;
        let now = self.shared.now();
        let mut world = self.shared.lock();
        let ids: Vec<String> = world.hub(&self.host)?.devices.keys().cloned().collect();
        for id in ids {
            world.with_device(&self.host, &id, now, |device, notes| device.inbox.purge(notes))?;
        }
        Ok(())
    }

    /// Uses up the daily message quota: the hub closes all connections, and closes new ones right after accepting them,
    /// until midnight UTC by the emulator's clock.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn exhaust_quota(&self) -> Result<(), Error> {
        let unix = self.shared.clock.unix();
        self.hub(|hub| {
            hub.quota.exhaust(unix);
            hub.close_all(&CloseReason::QuotaExceeded);
        })
    }

    /// Routes messages of the module `from` on `output` (`*` for any) to `input` of the module `to`, as IoT Edge does.
    /// Both names are `device/module`.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn route(&self, from: &str, output: &str, to: &str, input: &str) -> Result<(), Error> {
        let [from, output, to, input] = [from, output, to, input].map(str::to_owned);
        self.hub(|hub| hub.routes.push(crate::world::Route { from, output, to, input }))
    }

    /// Deletes all MQTT sessions: the next CONNACK says `session_present` 0.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn forget_sessions(&self) -> Result<(), Error> {
        self.hub(crate::world::Hub::forget_sessions)
    }

    /// Closes all connections, with a TCP reset if `reset` is true.
    ///
    /// # Errors
    /// [`Error::NoSuchHub`].
    pub fn disconnect_all(&self, reset: bool) -> Result<(), Error> {
        self.hub(|hub| {
            for device in hub.devices.values_mut() {
                device.push(Push::Close { reason: CloseReason::Control, reset });
            }
        })
    }

    /// Gives the hub a certificate that clients must reject, or a valid one again.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn set_certificate_flaw(&self, flaw: Option<Flaw>) -> Result<(), Error> {
        self.shared.certificates.add(&self.host, flaw)
    }

    fn hub<T>(&self, change: impl FnOnce(&mut crate::world::Hub) -> T) -> Result<T, Error> {
        Ok(change(self.shared.lock().hub(&self.host)?))
    }

    fn scope(&self) -> Scope {
        Scope { service: Some(self.host.clone()), device: None }
    }
}

pub(crate) fn inject(shared: &Shared, scope: Scope, injection: Injection<Fault>) -> FaultId {
    let id = shared.next_fault();
    let mut world = shared.lock();
    world.faults.add(id, scope.clone(), injection);
    world.announce_faults(&scope, false);
    id
}

pub(crate) fn clear(shared: &Shared, scope: &Scope) {
    let mut world = shared.lock();
    world.faults.clear(scope);
    world.announce_faults(scope, true);
}

fn expel(world: &mut World, host: &str, id: &str) {
    let Ok(hub) = world.hub(host) else { return };
    if let Some(mut device) = hub.devices.remove(id) {
        device.cut(CloseReason::IdentityChanged);
        world.dps.luggage.insert(id.to_owned(), device.twin);
    }
}
