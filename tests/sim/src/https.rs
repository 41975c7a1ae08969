//! Registration over HTTPS: the frontend's side, which follows the core's rules, and the TPM of a device.

use steadfast_core::azure::sas::Resource;
use steadfast_core::dps::https::{self, Attestation, Step};
use steadfast_core::text::Text;
use steadfast_core::{Attempt, Failure, LocalFailure, Outbox, ProvisioningFailure, RegistrationRequest, ServiceKind};

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

/// What a link asks for.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// The registration whose state is asked for; none for a registration.
    operation: Option<String>,
    body: String,
    token: Option<String>,
}

impl Asking {
    pub(crate) fn of(request: &RegistrationRequest<'_>) -> Self {
        Self {
            operation: request.operation_id().map(str::to_owned),
            body: request.body().to_string(),
            token: request.token().map(|token| token.to_string()).filter(|token| !token.is_empty()),
        }
    }
}

/// What a frontend knows of a registration under way.
#[derive(Debug, Default)]
pub(crate) struct Dialogue {
    attestation: Attestation,
    asking: Asking,
}

impl<O: Outbox> World<O> {
    /// Asks what the link asks, as a frontend that registers over HTTPS does.
    pub(crate) fn register(&mut self, number: usize, attempt: Attempt, asking: Asking) {
        let Some((id, connection)) =
            self.own(number, attempt).and_then(|id| self.connections.get_mut(&id).map(|known| (id, known)))
        else {
            self.fail(number, &format!("{asking:?} is asked on attempt {attempt}, which has no connection"));
        };
        if !connection.https || !connection.ready {
            self.fail(number, &format!("{asking:?} is asked where HTTPS is not spoken, or not yet"));
        }
        let dialogue = &mut connection.dialogue;
        if asking.operation.is_none() {
            dialogue.attestation.begin();
        }
        // The token of an attestation, which the TPM signed, is kept for the questions for the state.
        let token = dialogue.asking.token.take().filter(|_| dialogue.attestation.has_token()).or(asking.token);
        dialogue.asking = Asking { token, ..asking };
        self.ask(id);
    }

    /// Makes the request that the dialogue has come to.
    fn ask(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (device, dialogue) = (&self.devices[connection.device], &connection.dialogue);
        let chip = device.chip.as_ref();
        let authorization =
            dialogue.asking.token.clone().filter(|_| chip.is_none() || dialogue.attestation.has_token());
        let request = if let Some(operation) = &dialogue.asking.operation {
            let path = https::operation_path(ID_SCOPE, &device.id, operation).to_string();
            HttpRequest { method: "GET", path, authorization, body: String::new() }
        } else {
            let body = chip.map_or_else(
                || dialogue.asking.body.clone(),
                |chip| https::tpm_body(&dialogue.asking.body, &chip.endorsement_key, "U1JL").to_string(),
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
        let (device, dialogue) = (&mut self.devices[number], &mut connection.dialogue);
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
                        Ok(signature) => dialogue.asking.token = Some(resource.token(&signature, expiry).to_string()),
                        Err(why) => failure = Some(why),
                    }
                }
                Step::TakeHubKey(wrapped) => failure = chip.activate(ServiceKind::Hub, wrapped).err(),
                Step::Answer => {}
            }
        }
        let what = match failure {
            Some(failure) => Arrival::Failed(failure),
            None if again => return self.ask(id),
            None => Arrival::Registered(answer.clone()),
        };
        self.schedule(self.now, Item::Input { device: number, attempt, connection: id, what });
    }

    /// Returns whose connection it is, if anything passes on it.
    fn passing(&self, id: ConnectionId) -> Option<usize> {
        self.connections.get(&id).filter(|known| known.there && !known.frozen).map(|known| known.device)
    }
}
