//! Starting, listening, stopping.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::config::{Config, is_host_name};
use crate::control::Control;
use crate::dps::Dps;
use crate::fault::Plan;
use crate::ledger::Entries;
use crate::limits::{Slot, Unauthenticated};
use crate::pki::{Authority, Certificates};
use crate::serve::{Via, serve};
use crate::storage::Storage;
use crate::world::{Addresses, Hub, Shared, World};

/// Connections the kernel queues for a listener; many clients may connect at the same time.
const BACKLOG: u32 = 4096;

/// A running emulator. It stops with [`Emulator::stop`], or when dropped.
///
/// All methods of [`Control`] are available through `Deref`.
#[derive(Debug)]
pub struct Emulator {
    control: Control,
    /// Closed when the last task is gone.
    tasks: mpsc::Receiver<()>,
}

impl Deref for Emulator {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.control.shared.stop.send_replace(true);
    }
}

impl Emulator {
    /// Starts the services in the current tokio runtime; they listen when this returns.
    ///
    /// # Errors
    /// [`Error::HubName`], [`Error::NoSuchHub`] when an enrollment names an unknown hub, [`Error::Listen`] when
    /// a port is taken, [`Error::Certificate`], [`Error::Write`].
    pub async fn start(config: Config) -> Result<Self, Error> {
        let authority = config.authority.clone().map_or_else(Authority::new, Ok)?;
        let certificates = Certificates::new(authority, &config.names, config.revocation_list.clone())?;
        let mut hubs = BTreeMap::new();
        for hub in &config.hubs {
            if !is_host_name(&hub.host) || hubs.insert(hub.host.clone(), Hub::new(hub.clone())).is_some() {
                return Err(Error::HubName(hub.host.clone()));
            }
            certificates.add(&hub.host, hub.flaw)?;
        }
        for enrollment in &config.enrollments {
            if let Some(hub) = &enrollment.hub
                && !hubs.contains_key(hub)
            {
                return Err(Error::NoSuchHub(hub.clone()));
            }
        }
        certificates.add(&config.dps.host, None)?;
        certificates.add(&config.storage_host, None)?;
        if let Some(path) = &config.ca_file {
            std::fs::write(path, certificates.authority().pem()).map_err(|error| Error::Write(path.clone(), error))?;
        }
        let mut gateways = vec!["localhost".to_owned()];
        gateways.extend(config.names.iter().cloned());
        let tls = certificates.server_config()?;
        let world = World {
            hubs,
            dps: Dps::new(config.dps.clone(), config.enrollments.clone()),
            faults: Plan::default(),
            entries: Entries::new(config.ledger, config.connection_log),
            clock: config.clock.clone(),
            storage: Storage::new(&config.storage_host),
            first_hub: config.hubs.first().map(|hub| hub.host.clone()),
            gateways,
        };
        let shared = Arc::new(Shared::new(
            world,
            certificates,
            tls,
            config.largest_frame,
            Unauthenticated::new(config.connection_limits),
        ));
        Self::listen(&config, shared).await
    }

    async fn listen(config: &Config, shared: Arc<Shared>) -> Result<Self, Error> {
        let (running, tasks) = mpsc::channel(1);
        let always = shared.listening.subscribe();
        let dps_listening = shared.lock().dps.listening.subscribe();
        let mut ports = Vec::new();
        let tls = open(config.bind, config.tls_port, "the shared TLS port")?;
        let tls_address = address_of(&tls, "the shared TLS port")?;
        ports.push((tls, Via { secure: true, web: false, own: None }, always.clone()));
        let mut plain_address = None;
        if let Some(port) = config.plain_port {
            let plain = open(config.bind, port, "the plain port")?;
            plain_address = Some(address_of(&plain, "the plain port")?);
            ports.push((plain, Via { secure: false, web: false, own: None }, always.clone()));
        }
        let mut https_address = None;
        if let Some(port) = config.https_port {
            let https = open(config.bind, port, "the HTTPS port")?;
            let address = address_of(&https, "the HTTPS port")?;
            https_address = Some(address);
            shared.lock().storage.port = address.port();
            ports.push((https, Via { secure: true, web: true, own: None }, always.clone()));
        }
        let mut own = HashMap::new();
        let mut wanted: Vec<_> = config.hubs.iter().filter_map(|hub| Some((hub.host.clone(), hub.port?))).collect();
        wanted.extend(config.dps.port.map(|port| (config.dps.host.clone(), port)));
        for (host, port) in wanted {
            let listener = open(config.bind, port, &host)?;
            own.insert(host.clone(), address_of(&listener, &host)?);
            let (secure, listening) = match shared.lock().hubs.get(&host) {
                Some(hub) => (!hub.config.plain, Some(hub.listening.subscribe())),
                None => (true, Some(dps_listening.clone())),
            };
            let via = Via { secure, web: false, own: Some(host) };
            ports.push((listener, via, listening.unwrap_or_else(|| always.clone())));
        }
        let addresses = Addresses { tls: tls_address, plain: plain_address, https: https_address, own };
        shared.addresses.set(addresses).expect("set only here, once for each emulator");
        for (listener, via, listening) in ports {
            let port = PortListener { shared: Arc::clone(&shared), via, running: running.clone() };
            tokio::spawn(port.run(listener, listening));
        }
        Ok(Self { control: Control { shared }, tasks })
    }

    /// Returns a handle that does not stop the emulator when dropped.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Closes all listeners and connections, and waits at most five seconds until they have ended.
    pub async fn stop(mut self) {
        self.control.shared.stop.send_replace(true);
        // Tasks only read, write and wait; a task that still hangs ends with the runtime.
        let _ = timeout(Duration::from_secs(5), self.tasks.recv()).await;
    }
}

/// A listening port.
struct PortListener {
    shared: Arc<Shared>,
    via: Via,
    /// Held by every task, so that `stop` can wait for all of them.
    running: mpsc::Sender<()>,
}

impl PortListener {
    async fn run(self, listener: TcpListener, mut listening: watch::Receiver<bool>) {
        let mut stop = self.shared.stop.subscribe();
        let Ok(address) = listener.local_addr() else { return };
        let mut listener = Some(listener);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                (stream, slot) = self.accept(listener.as_ref(), address) => {
                    let task = serve(Arc::clone(&self.shared), stream, self.via.clone(), slot);
                    tokio::spawn(hold(self.running.clone(), task));
                }
                () = changed(&mut listening) => {}
            }
            if !*listening.borrow() {
                listener = None;
            }
            // Another process may have taken the port meanwhile; try again until it is free.
            while listener.is_none() && *listening.borrow() && !*stop.borrow() {
                listener = open(address.ip(), address.port(), "").ok();
                if listener.is_none() {
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn accept(&self, listener: Option<&TcpListener>, address: SocketAddr) -> (TcpStream, Slot) {
        match listener {
            Some(listener) => accept(&self.shared.unauthenticated, listener, address).await,
            None => std::future::pending().await,
        }
    }
}

async fn changed(listening: &mut watch::Receiver<bool>) {
    if listening.changed().await.is_err() {
        // Without a sender, the value no longer changes.
        std::future::pending::<()>().await;
    }
}

/// Waits until the emulator stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender, the emulator has ended too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits for the next connection to `address`, whatever fails meanwhile.
pub(crate) async fn accept(
    unauthenticated: &Arc<Unauthenticated>,
    listener: &TcpListener,
    address: SocketAddr,
) -> (TcpStream, Slot) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, unauthenticated.enter(peer.ip())),
            Err(error) => unauthenticated.accept_failed(&address.to_string(), &error).await,
        }
    }
}

async fn hold(running: mpsc::Sender<()>, task: impl Future<Output = ()>) {
    task.await;
    drop(running);
}

fn open(address: IpAddr, port: u16, what: &str) -> Result<TcpListener, Error> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(address, port))?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| Error::Listen(format!("{address}:{port} for {what}"), error))
}

fn address_of(listener: &TcpListener, what: &str) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|error| Error::Listen(what.to_owned(), error))
}
