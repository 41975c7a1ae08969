//! Registration over HTTPS: the frontend's side, which follows the core's rules, and the TPM of a device.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode};
use steadfast_core::azure::sas::Resource;
use steadfast_core::dps::https::{self, Attestation, Request, Step};
use steadfast_core::iothub::property_bag::Encoded;
use steadfast_core::text::Text;
use steadfast_core::{Failure, LocalFailure, Outbox, ProvisioningFailure, ServiceKind};

use crate::builder::ID_SCOPE;
use crate::drive::{Arrival, Item};
use crate::service::{self, ConnectionId, HttpAnswer, HttpRequest, HttpsFault, Key, Reaction, Reply};
use crate::world::World;

/// The TPM of a device.
#[derive(Clone, Debug)]
pub struct Chip {
    pub(crate) endorsement_key: String,
    /// For the registration and for the hub.
    keys: [Option<Key>; 2],
    taken: Vec<ServiceKind>,
    /// Why it does nothing, if it does nothing.
    pub broken: Option<LocalFailure>,
}

impl Chip {
    pub(crate) fn new(endorsement_key: String) -> Self {
        Self { endorsement_key, keys: [None, None], taken: Vec::new(), broken: None }
    }

    /// Forgets its keys.
    pub fn clear(&mut self) {
        self.keys = [None, None];
    }

    /// Returns which keys it took, in order.
    #[must_use]
    pub fn taken(&self) -> &[ServiceKind] {
        &self.taken
    }

    pub(crate) fn keep(&mut self, role: ServiceKind, key: Key) {
        self.keys[usize::from(role == ServiceKind::Hub)] = Some(key);
    }

    fn activate(&mut self, role: ServiceKind, wrapped: &str) -> Result<(), Failure> {
        if !wrapped.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Failure::Provisioning(ProvisioningFailure::BadAnswer));
        }
        let key = service::unwrap(&self.endorsement_key, wrapped).filter(|_| self.broken.is_none());
        let why = self.broken.unwrap_or(LocalFailure::Signing);
        self.keep(role, key.ok_or(Failure::Local(why))?);
        self.taken.push(role);
        Ok(())
    }

    pub(crate) fn sign(&self, role: ServiceKind, text: &Text<'_>) -> Result<[u8; 32], LocalFailure> {
        let key = self.keys[usize::from(role == ServiceKind::Hub)].as_ref();
        match self.broken {
            Some(why) => Err(why),
            None => key.map(|key| key.sign(text)).ok_or(LocalFailure::NoKey),
        }
    }
}

/// What a frontend knows of a registration under way.
#[derive(Debug, Default)]
pub(crate) struct Dialogue {
    token: Option<String>,
    attestation: Attestation,
    request_id: u32,
    /// The operation that is asked for; none for a registration.
    operation: Option<String>,
    body: String,
}

impl<O: Outbox> World<O> {
    /// Takes a packet of the link, as a frontend that registers over HTTPS does.
    pub(crate) fn translate(&mut self, id: ConnectionId, packet: Packet) -> Vec<Reaction> {
        let Some(dialogue) = self.connections.get_mut(&id).and_then(|known| known.dialogue.as_mut()) else {
            return Vec::new();
        };
        let answer = |packet| vec![Reaction::now(id, Reply::Packet(packet))];
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is what only a server sends")]
        match packet {
            Packet::Connect(connect) => {
                dialogue.token = connect.login.map(|login| login.password).filter(|token| !token.is_empty());
                answer(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false)))
            }
            Packet::Subscribe(subscribe) => {
                let granted = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
                answer(Packet::SubAck(SubAck::new(subscribe.pkid, granted)))
            }
            Packet::PingReq => answer(Packet::PingResp),
            Packet::Publish(publish) => {
                if let Some(request) = Request::parse(&publish.topic) {
                    dialogue.attestation.begin(&request);
                    (dialogue.request_id, dialogue.operation) = match request {
                        Request::Register { request_id } => (request_id, None),
                        Request::Poll { request_id, operation_id } => {
                            let operation: Vec<u8> = Encoded::new(operation_id).bytes().collect();
                            (request_id, Some(String::from_utf8_lossy(&operation).into_owned()))
                        }
                    };
                    dialogue.body = String::from_utf8_lossy(&publish.payload).into_owned();
                    self.ask(id);
                }
                answer(Packet::PubAck(PubAck::new(publish.pkid)))
            }
            _ => vec![Reaction::now(id, Reply::Close)],
        }
    }

    /// Makes the request that the dialogue has come to.
    fn ask(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (device, Some(dialogue)) = (&self.devices[connection.device], &connection.dialogue) else { return };
        let chip = device.chip.as_ref();
        let authorization = dialogue.token.clone().filter(|_| chip.is_none() || dialogue.attestation.has_token());
        let request = if let Some(operation) = &dialogue.operation {
            let path = https::operation_path(ID_SCOPE, &device.id, operation).to_string();
            HttpRequest { method: "GET", path, authorization, body: String::new() }
        } else {
            let body = chip.map_or_else(
                || dialogue.body.clone(),
                |chip| https::tpm_body(&dialogue.body, &chip.endorsement_key, "U1JL").to_string(),
            );
            let path = https::register_path(ID_SCOPE, &device.id).to_string();
            HttpRequest { method: "PUT", path, authorization, body }
        };
        let fault = self.dps.made(&request);
        let at = self.now + self.network.draw(&mut self.rng);
        match fault {
            Some(HttpsFault::Lost) => self.schedule(at, Item::React(Reaction::now(id, Reply::Close))),
            Some(HttpsFault::Silence) => {}
            fault => self.schedule(at, Item::Request { connection: id, request, fault }),
        }
    }

    /// The service's side of a request.
    pub(crate) fn requested(&mut self, id: ConnectionId, request: &HttpRequest, fault: Option<HttpsFault>) {
        let (unix_secs, now) = (self.unix_secs(), self.now);
        let Some(number) = self.passing(id) else { return };
        let answer = if let Some(HttpsFault::Status(status, retry_after_secs)) = fault {
            Some(HttpAnswer::refused(status, retry_after_secs))
        } else {
            let (answer, change) = self.dps.https(id, request, unix_secs, now);
            if let Some((device, host, key)) = change
                && let Some(hub) = self.hubs.iter_mut().find(|hub| hub.name() == host)
            {
                hub.add(&device, Some(key));
            }
            answer
        };
        self.object(number, self.dps.objections());
        let at = now + self.network.draw(&mut self.rng);
        let answer = match (fault, answer) {
            (Some(HttpsFault::AnswerLost), _) => {
                self.schedule(at, Item::React(Reaction::now(id, Reply::Close)));
                return;
            }
            (Some(HttpsFault::Body(body)), Some(answer)) => Some(HttpAnswer { body: body.into(), ..answer }),
            (_, answer) => answer,
        };
        if let Some(answer) = answer {
            self.schedule(at, Item::Answered { connection: id, answer });
        }
    }

    /// The frontend's side of an answer.
    pub(crate) fn answered(&mut self, id: ConnectionId, answer: &HttpAnswer) {
        let (Some(number), unix_secs) = (self.passing(id), self.unix_secs()) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let attempt = connection.attempt;
        let (device, Some(dialogue)) = (&mut self.devices[number], &mut connection.dialogue) else { return };
        let mut again = false;
        let mut failure = None;
        if let Some(chip) = &mut device.chip {
            match dialogue.attestation.judge(answer.status, answer.body.as_bytes()) {
                Step::RegisterAgain(wrapped) => {
                    again = true;
                    let resource = Resource::Registration { id_scope: ID_SCOPE, registration_id: &device.id };
                    let expiry = unix_secs + https::TOKEN_LIFETIME.as_secs();
                    let text = resource.string_to_sign(expiry);
                    let signed = chip
                        .activate(ServiceKind::Provisioning, wrapped)
                        .and_then(|()| chip.sign(ServiceKind::Provisioning, &text).map_err(Failure::Local));
                    match signed {
                        Ok(signature) => dialogue.token = Some(resource.token(&signature, expiry).to_string()),
                        Err(why) => failure = Some(why),
                    }
                }
                Step::TakeHubKey(wrapped) => failure = chip.activate(ServiceKind::Hub, wrapped).err(),
                Step::Answer => {}
            }
        }
        if let Some(failure) = failure {
            let what = Arrival::Failed(failure);
            self.schedule(self.now, Item::Input { device: number, attempt, connection: id, what });
        } else if again {
            self.ask(id);
        } else {
            let topic = https::response_topic(answer.status, dialogue.request_id, answer.retry_after_secs);
            let publish = Publish::new(topic.to_string(), QoS::AtMostOnce, answer.body.clone());
            self.react(Reaction::now(id, Reply::Packet(Packet::Publish(publish))));
        }
    }

    /// Returns whose connection it is, if anything passes on it.
    fn passing(&self, id: ConnectionId) -> Option<usize> {
        self.connections.get(&id).filter(|known| known.there && !known.frozen).map(|known| known.device)
    }
}
