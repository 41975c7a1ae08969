//! Registration over HTTPS: asks the Device Provisioning Service what the link asks, with a TPM's help where there is one.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use steadfast_core::azure::sas::Resource;
use steadfast_core::dps::https::{self, Attestation, Step};
use steadfast_core::{
    Attempt, Failure, LocalFailure, ProvisioningFailure, RegistrationRequest, ServiceKind, SignRequest,
};
use zeroize::Zeroizing;

use crate::clock;
use crate::connector::Setup;
use crate::driver::Opening;
use crate::http::{Answer, HttpConnection, Request};
use crate::proxy::authority;
use crate::tokens;
use crate::tpm::Tpm;

/// Who registers.
pub(crate) struct Registrar {
    pub(crate) id_scope: Box<str>,
    pub(crate) registration_id: Box<str>,
    pub(crate) tpm: Option<Arc<dyn Tpm>>,
}

/// A request of the link.
pub(crate) struct ToRegister {
    pub(crate) attempt: Attempt,
    operation_id: Option<String>,
    body: String,
    token: Zeroizing<String>,
}

impl ToRegister {
    pub(crate) fn new(attempt: Attempt, request: &RegistrationRequest<'_>) -> Self {
        let token = request.token().as_ref().map_or_else(Zeroizing::default, tokens::written);
        let operation_id = request.operation_id().map(str::to_owned);
        Self { attempt, operation_id, body: request.body().to_string(), token }
    }
}

/// A connection to the Device Provisioning Service over which a device registers.
pub(crate) struct Dialogue {
    setup: Arc<Setup>,
    connection: HttpConnection,
    /// The device presents its certificate.
    shown: bool,
    /// The link's token, or the one the TPM signed.
    token: Zeroizing<String>,
    attestation: Attestation,
}

impl Dialogue {
    /// Reaches the service at `host`; what it returns completes TLS.
    pub(crate) async fn reach(
        setup: Arc<Setup>,
        host: String,
        port: u16,
        shown: bool,
    ) -> Result<Opening<Box<Self>>, Failure> {
        let mut connection = HttpConnection::to(&authority(&host, port)).ok_or(Failure::Unresolved)?;
        let reached = connection.reach(&setup, shown).await?;
        Ok(Box::pin(async move {
            connection.open(&setup, shown, reached).await?;
            let (token, attestation) = (Zeroizing::default(), Attestation::new());
            Ok(Box::new(Self { setup, connection, shown, token, attestation }))
        }))
    }

    /// Asks what the link asks, and gives itself back with the answer. A failure ends it, and its connection and token with
    /// it.
    pub(crate) async fn ask(mut self: Box<Self>, asked: ToRegister) -> Result<(Box<Self>, Answer), Failure> {
        if asked.operation_id.is_none() {
            self.attestation.begin();
        }
        // A token that the TPM signed serves the whole registration.
        if !self.attestation.has_token() {
            self.token = asked.token;
        }
        let answer = match &asked.operation_id {
            Some(operation_id) => self.poll(operation_id).await,
            None => self.register(&asked.body).await,
        };
        let answer = answer.map_err(|failure| {
            tracing::warn!(device = %self.setup.name, %failure, "no answer to the registration");
            // The connection was up, so that its end is the service's.
            let known = matches!(failure, Failure::Local(_) | Failure::Provisioning(_));
            if known { failure } else { Failure::Reset }
        })?;
        Ok((self, answer))
    }

    async fn register(&mut self, body: &str) -> Result<Answer, Failure> {
        let Some(tpm) = self.tpm() else {
            let body = Bytes::copy_from_slice(body.as_bytes());
            return self.put(&body).await;
        };
        let keys = tpm.keys().await.map_err(|error| self.failed(&error))?;
        let [endorsement, storage] = [&keys.endorsement_key, &keys.storage_root_key].map(|key| STANDARD.encode(key));
        let whole = Bytes::from(https::tpm_body(body, &endorsement, &storage).to_string());
        loop {
            let answer = self.put(&whole).await?;
            match self.attestation.judge(answer.status, &answer.body) {
                Step::RegisterAgain(wrapped) => {
                    self.activate(&*tpm, ServiceKind::Provisioning, wrapped).await?;
                    self.token = self.sign(&*tpm).await?;
                }
                Step::TakeHubKey(wrapped) => {
                    self.activate(&*tpm, ServiceKind::Hub, wrapped).await?;
                    return Ok(answer);
                }
                Step::Answer => return Ok(answer),
            }
        }
    }

    async fn poll(&mut self, operation_id: &str) -> Result<Answer, Failure> {
        let Some(Registrar { id_scope, registration_id, .. }) = self.registrar() else {
            return Err(Failure::Local(LocalFailure::Credential));
        };
        let path = https::operation_path(id_scope, registration_id, operation_id).to_string();
        let answer = self.send(Method::GET, path, &Bytes::new()).await?;
        if let Some(tpm) = self.tpm()
            && let Step::TakeHubKey(wrapped) = self.attestation.judge(answer.status, &answer.body)
        {
            // The link goes to its hub when it has the answer, and needs the key then.
            self.activate(&*tpm, ServiceKind::Hub, wrapped).await?;
        }
        Ok(answer)
    }

    async fn put(&mut self, body: &Bytes) -> Result<Answer, Failure> {
        let Some(Registrar { id_scope, registration_id, .. }) = self.registrar() else {
            return Err(Failure::Local(LocalFailure::Credential));
        };
        let path = https::register_path(id_scope, registration_id).to_string();
        self.send(Method::PUT, path, body).await
    }

    async fn send(&mut self, method: Method, path: String, body: &Bytes) -> Result<Answer, Failure> {
        let mut request = Request::new(method, path)
            .header("content-type", "application/json; charset=utf-8")
            .header("accept", "application/json")
            .header("user-agent", concat!("steadfast/", env!("CARGO_PKG_VERSION")));
        let bare = self.tpm().is_some() && !self.attestation.has_token();
        if !bare && !self.token.is_empty() {
            request = request.header("authorization", self.token.as_str());
        }
        self.connection.send(&self.setup, self.shown, &request, body).await
    }

    async fn activate(&self, tpm: &dyn Tpm, role: ServiceKind, wrapped: &str) -> Result<(), Failure> {
        let wrapped = STANDARD.decode(wrapped).map_err(|_| Failure::Provisioning(ProvisioningFailure::BadAnswer))?;
        tpm.activate(role, wrapped).await.map_err(|error| self.failed(&error))
    }

    async fn sign(&self, tpm: &dyn Tpm) -> Result<Zeroizing<String>, Failure> {
        let Some(Registrar { id_scope, registration_id, .. }) = self.registrar() else {
            return Err(Failure::Local(LocalFailure::Credential));
        };
        let resource = Resource::Registration { id_scope, registration_id };
        let expiry = clock::unix_secs() + https::TOKEN_LIFETIME.as_secs();
        let request = SignRequest::new(ServiceKind::Provisioning, 0, resource.string_to_sign(expiry));
        let signature = tpm.sign(request).await.map_err(|error| self.failed(&error))?;
        Ok(tokens::written(&resource.token(&signature, expiry)))
    }

    fn failed(&self, error: &crate::signer::SignError) -> Failure {
        tracing::error!(device = %self.setup.name, %error, "the TPM failed");
        error.failure()
    }

    fn tpm(&self) -> Option<Arc<dyn Tpm>> {
        self.registrar()?.tpm.clone()
    }

    fn registrar(&self) -> Option<&Registrar> {
        self.setup.registrar.as_deref()
    }
}
