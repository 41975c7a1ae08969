//! The services' end of the connections.

use rumqttc::mqttbytes::v4;
use steadfast_core::{Failure, Outbox, ServiceKind};

use crate::device::Feed;
use crate::drive::{Arrival, Item, SERVICE_LIMIT, message_key};
use crate::service::{ConnectionId, Delivery, Reaction, Reply};
use crate::world::World;

impl<O: Outbox> World<O> {
    pub(crate) fn serve(&mut self, id: ConnectionId, bytes: &[u8]) {
        let (unix_secs, now) = (self.unix_secs(), self.now);
        let Some(connection) = self.connections.get_mut(&id).filter(|known| known.there && !known.frozen) else {
            return;
        };
        let (number, role) = (connection.device, connection.role);
        connection.stream.extend_from_slice(bytes);
        while let Some(connection) = self.connections.get_mut(&id).filter(|known| known.there && !known.deaf) {
            let packet = match v4::Packet::read(&mut connection.stream, SERVICE_LIMIT) {
                Ok(packet) => packet,
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => return,
                Err(error) => self.fail(number, &format!("the service cannot read what came: {error}")),
            };
            let host = connection.host.clone();
            let reactions = if role == ServiceKind::Provisioning {
                let reactions = self.dps.packet(id, packet, unix_secs, now);
                self.object(number, self.dps.objections());
                reactions
            } else {
                self.serve_hub(number, id, &host, packet)
            };
            for reaction in reactions {
                if reaction.after_ms == 0 && matches!(reaction.reply, Reply::Close) {
                    self.deafen(reaction.connection);
                }
                self.schedule(now + reaction.after_ms, Item::React(reaction));
            }
        }
    }

    /// A service that is about to close a connection reads no more from it.
    fn deafen(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.deaf = true;
        }
    }

    fn serve_hub(&mut self, number: usize, id: ConnectionId, host: &str, packet: v4::Packet) -> Vec<Reaction> {
        let (unix_secs, now) = (self.unix_secs(), self.now);
        let host = self.network.hub_behind(host);
        let Some(place) = self.hubs.iter().position(|hub| hub.name() == host) else { return Vec::new() };
        if matches!(packet, v4::Packet::Publish(_)) {
            let wanted = self.devices[number].link.link().profile().config().subscriptions;
            let wanted = [
                steadfast_core::Subscriptions::CLOUD_TO_DEVICE,
                steadfast_core::Subscriptions::METHODS,
                steadfast_core::Subscriptions::TWIN_RESPONSES,
                steadfast_core::Subscriptions::TWIN_DESIRED,
                steadfast_core::Subscriptions::INPUTS,
            ]
            .into_iter()
            .filter(|one| wanted.contains(*one));
            let filters = self.hubs[place].filters(&self.client_id(number));
            if filters.is_some_and(|filters| filters.len() < wanted.count()) {
                self.fail(number, "a publish came before the subscriptions");
            }
        }
        let hub = &mut self.hubs[place];
        let reactions = hub.packet(id, packet, unix_secs, now);
        for delivery in hub.take_deliveries() {
            let oracle = &mut self.devices[number].oracle;
            let result = match delivery {
                Delivery::Stored => hub
                    .receipts()
                    .last()
                    .map_or(Ok(()), |receipt| oracle.stored(&message_key(&receipt.topic), &receipt.payload)),
                Delivery::Acknowledged(topic) => {
                    oracle.acknowledges(&message_key(&topic));
                    Ok(())
                }
            };
            if let Err(broken) = result {
                self.fail(number, &broken);
            }
        }
        self.object(number, self.hubs[place].objections());
        reactions
    }

    pub(crate) fn object(&self, number: usize, objections: &[String]) {
        if let Some(first) = objections.first() {
            self.fail(number, &format!("the service objects: {first}"));
        }
    }

    pub(crate) fn react(&mut self, reaction: Reaction) {
        let id = reaction.connection;
        let latency = self.network.draw(&mut self.rng);
        let Some(connection) = self.connections.get_mut(&id).filter(|known| known.there) else { return };
        let (number, attempt, role) = (connection.device, connection.attempt, connection.role);
        let at = (self.now + latency).max(connection.last_to_device);
        connection.last_to_device = at;
        let frozen = connection.frozen;
        let mut bytes = match reaction.reply {
            Reply::Packet(packet) => {
                let mut stream = bytes::BytesMut::new();
                packet.write(&mut stream, SERVICE_LIMIT).expect("services write good packets");
                stream.to_vec()
            }
            Reply::Bytes(bytes) => bytes,
            Reply::Close => {
                connection.there = false;
                self.tell_service(role, id);
                if !frozen {
                    let what = Arrival::Failed(Failure::Lost);
                    self.schedule(at, Item::Input { device: number, attempt, connection: id, what });
                }
                return;
            }
        };
        if frozen {
            return;
        }
        let cut = role == ServiceKind::Hub && self.cut(1, &mut bytes);
        for piece in self.pieces(number, bytes) {
            let what = Arrival::Bytes(piece);
            self.schedule(at, Item::Input { device: number, attempt, connection: id, what });
        }
        if cut {
            self.react(Reaction { connection: id, after_ms: 0, reply: Reply::Close });
        }
    }

    /// Cuts bytes as the device gets them.
    fn pieces(&mut self, number: usize, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let len = match self.devices[number].feed {
                Feed::Whole | Feed::Packets => bytes.len(),
                Feed::Bytes => 1,
                Feed::Pieces => 1 + self.rng.index(bytes.len().min(9)),
            };
            let rest = bytes.split_off(len.min(bytes.len()));
            pieces.push(core::mem::replace(&mut bytes, rest));
        }
        pieces
    }

    /// The service learns that a connection is gone.
    pub(crate) fn tell_service(&mut self, role: ServiceKind, id: ConnectionId) {
        if role == ServiceKind::Provisioning {
            self.dps.closed(id);
        } else {
            self.hubs.iter_mut().for_each(|hub| hub.closed(id));
        }
    }

    pub(crate) fn client_gone(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id)
            && !connection.frozen
        {
            self.tell_service(connection.role, id);
        }
    }
}
