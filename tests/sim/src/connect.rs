//! A device's way to a service: the signature, and the connection.

use steadfast_core::{Attempt, Failure, LocalFailure, Outbox, ServiceKind};

use crate::device::{AttemptRecord, Connection, Feed, Signing};
use crate::drive::{Arrival, Item};
use crate::https::Dialogue;
use crate::network::Reach;
use crate::transport::Way;
use crate::world::{World, millis};

impl<O: Outbox> World<O> {
    pub(crate) fn sign(&mut self, number: usize, attempt: Attempt, signature: Result<[u8; 32], LocalFailure>) {
        let signed = match signature {
            Ok(signature) => Arrival::Signed(signature),
            Err(why) => Arrival::Failed(Failure::Local(why)),
        };
        let (after, what) = match self.devices[number].signing {
            Signing::Prompt => (0, signed),
            Signing::After(after) => (after, signed),
            Signing::Never => return,
            Signing::Fails(why) => (0, Arrival::Failed(Failure::Local(why))),
        };
        self.schedule(self.now + after, Item::Input { device: number, attempt, connection: 0, what });
    }

    pub(crate) fn connect(&mut self, number: usize, attempt: Attempt, host: String, role: ServiceKind, https: bool) {
        if self.open.get(&number).is_some_and(|open| !open.is_empty()) {
            self.fail(number, "a second connection is opened before the first is closed");
        }
        let now = self.now;
        let device = &mut self.devices[number];
        if let Err(broken) = device.oracle.attempt(now, role == ServiceKind::Hub && device.last_hub != host) {
            self.fail(number, &broken);
        }
        if role == ServiceKind::Hub {
            device.last_hub.clone_from(&host);
        }
        device.attempts.push(AttemptRecord { at_ms: now, attempt, host: host.clone(), role });
        self.next_connection += 1;
        let connection = self.next_connection;
        let reach = self.network.reach(&host);
        let known = host == steadfast_core::dps::topics::GLOBAL_HOST
            || self.network.is_gateway(&host)
            || self.hubs.iter().any(|hub| hub.name() == host);
        let reach = if known { reach } else { Reach::Unresolved };
        let one_way = self.network.draw(&mut self.rng);
        let settings = self.devices[number].link.link().profile().settings().0.clone();
        let size = if self.devices[number].feed == Feed::Bytes { 1 } else { usize::MAX };
        let tunnel = self.network.tunnel(&host, settings.port, reach, size);
        let before = if let Way::On(trips) = tunnel { trips * 2 * one_way } else { 0 };
        let upgrade = self.network.upgrade();
        let after = if let Way::On(trips) = upgrade { trips * 2 * one_way } else { 0 };
        let connected = now + before + 2 * one_way;
        let secured = connected + 2 * one_way;
        let ready = secured + after;
        let passes = matches!((&tunnel, &upgrade), (Way::On(_), Way::On(_)));
        let there = passes && matches!(reach, Reach::Open | Reach::ClosedAfterTls);
        self.open.entry(number).or_default().push(connection);
        self.connections.insert(
            connection,
            Connection {
                device: number,
                attempt,
                host,
                role,
                here: true,
                ready: false,
                there,
                frozen: false,
                deaf: false,
                received: Vec::new(),
                backlog: Vec::new(),
                ticking: false,
                stream: bytes::BytesMut::new(),
                last_to_service: ready,
                last_to_device: ready,
                sent_connect: false,
                sent_disconnect: false,
                https,
                dialogue: Dialogue::default(),
            },
        );
        let mut arrive = |at, what| self.schedule(at, Item::Input { device: number, attempt, connection, what });
        match tunnel {
            Way::On(_) => {}
            Way::Fails(trips, failure) => return arrive(now + trips * 2 * one_way, Arrival::Failed(failure)),
            Way::Overdue(failure) => {
                let patience = millis(settings.session.timeouts.connect);
                return arrive(now + patience - patience / 16, Arrival::Failed(Failure::Local(failure)));
            }
            Way::Silence => return,
        }
        if matches!(reach, Reach::Open | Reach::ClosedAfterTls) && !passes {
            arrive(connected, Arrival::Connected);
            if let Way::Fails(trips, failure) = upgrade {
                arrive(secured + trips * 2 * one_way, Arrival::Failed(failure));
            }
            return;
        }
        match reach {
            Reach::BlackHole => {}
            Reach::Tls(failure) => {
                arrive(connected, Arrival::Connected);
                arrive(ready, Arrival::Failed(Failure::Tls(failure)));
            }
            Reach::TlsStalls => arrive(connected, Arrival::Connected),
            Reach::Open => {
                arrive(connected, Arrival::Connected);
                arrive(ready, Arrival::Ready);
            }
            Reach::ClosedAfterTls => {
                arrive(connected, Arrival::Connected);
                arrive(ready, Arrival::Ready);
                arrive(ready + one_way, Arrival::Failed(Failure::Lost));
            }
            Reach::Refused | Reach::Unresolved | Reach::NoRoute | Reach::Local(_) => {
                arrive(connected, Arrival::Failed(reach.failure().unwrap_or(Failure::Network)));
            }
        }
    }
}
