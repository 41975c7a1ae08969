//! The hub's part in an upload (azure-docs `iot-hub/iot-hub-devguide-file-upload.md`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use steadfast_core::azure::sas::Resource;
use steadfast_core::{Failure, LocalFailure, Role};
use tokio::runtime::Handle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::clock;
use crate::http::{Answer, Request, Way};
use crate::setup::Setup;
use crate::tokens::Proof;

/// Version of the interface.
const API: &str = "api-version=2021-04-12";

/// The hub has as many open uploads of the device as it allows.
pub(super) const TOO_MANY: u32 = 403_006;

/// Lifetime of a token for one request.
const TOKEN_SECS: u64 = 600;

/// Tries to tell the hub of a failure.
const FAREWELLS: u32 = 3;

/// Who the device is at its hub.
#[derive(Clone)]
pub(super) struct Home {
    pub(super) hub: String,
    pub(super) device_id: String,
    pub(super) module_id: Option<String>,
}

impl Home {
    /// Asks for a place for a file.
    pub(super) async fn initiate(&self, setup: &Arc<Setup>, refusals: u8, name: &str) -> Result<Answer, Failure> {
        self.post(setup, refusals, "files", &json!({ "blobName": name })).await
    }

    async fn post(&self, setup: &Arc<Setup>, refusals: u8, what: &str, body: &Value) -> Result<Answer, Failure> {
        let uri = format!("/devices/{}/{what}?{API}", encoded(&self.device_id, ""));
        let mut request = Request::new(Method::POST, uri).header("content-type", "application/json; charset=utf-8");
        if let Some(token) = self.token(setup, refusals).await? {
            request = request.header("authorization", token.as_str());
        }
        let mut way = Way::to(&self.hub).ok_or(Failure::Unresolved)?;
        way.send(setup, setup.certificate.is_some(), &request, &Bytes::from(body.to_string())).await
    }

    /// Makes a token; `None` for a device that proves itself with its certificate.
    async fn token(&self, setup: &Setup, refusals: u8) -> Result<Option<Zeroizing<String>>, Failure> {
        if let Some(token) = &setup.token {
            return Ok(Some(Zeroizing::new(token.to_string())));
        }
        let Some(prover) = &setup.prover else { return Ok(None) };
        let resource =
            Resource::Device { hub: &self.hub, device_id: &self.device_id, module_id: self.module_id.as_deref() };
        let expiry = clock::unix_secs() + TOKEN_SECS;
        let text = resource.string_to_sign(expiry).to_string();
        let proof = match timeout(setup.signing, prover.prove(Role::Hub, refusals, &text)).await {
            Ok(Ok(proof)) => proof,
            Ok(Err(error)) => {
                tracing::error!(device = %setup.name, %error, "no token can be made");
                return Err(Failure::Local(LocalFailure::Signing));
            }
            Err(_) => return Err(Failure::Local(LocalFailure::SigningTimeout)),
        };
        Ok(Some(match proof {
            Proof::Signature(signature) => Zeroizing::new(resource.token(&signature, expiry).to_string()),
            Proof::Token(token) => token,
        }))
    }
}

/// A place in the storage and the right to write there.
pub(super) struct Grant {
    pub(super) correlation_id: String,
    pub(super) host: String,
    container: String,
    pub(super) blob: String,
    /// The query that grants access.
    token: Zeroizing<String>,
}

impl Grant {
    pub(super) fn read(answer: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(answer).ok()?;
        let text = |name: &str| document.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self {
            correlation_id: text("correlationId")?,
            host: text("hostName")?,
            container: text("containerName")?,
            blob: text("blobName")?,
            token: Zeroizing::new(text("sasToken")?.trim_start_matches('?').to_owned()),
        })
    }

    /// Names the place without the right.
    pub(super) fn place(&self) -> String {
        format!("{}/{}/{}", self.host, self.container, self.blob)
    }

    /// Returns the path and the query with `more` before the grant.
    pub(super) fn uri(&self, more: &str) -> String {
        let divider = if more.is_empty() { "" } else { "&" };
        let (container, blob) = (encoded(&self.container, ""), encoded(&self.blob, "/"));
        format!("/{container}/{blob}?{more}{divider}{}", *self.token)
    }
}

/// What is owed to the hub for a place it gave: word of how it went. Dropped before that, it says that nothing comes.
pub(super) struct Notice {
    setup: Arc<Setup>,
    home: Home,
    correlation_id: String,
    refusals: u8,
    told: bool,
    /// Dropped before it was told, it has somebody else tell.
    owed: bool,
}

impl Notice {
    pub(super) const fn new(setup: Arc<Setup>, home: Home, correlation_id: String) -> Self {
        Self { setup, home, correlation_id, refusals: 0, told: false, owed: true }
    }

    /// Tells the hub how it went.
    pub(super) async fn tell(&mut self, success: bool, status: u16) -> Result<Answer, Failure> {
        let description = if success { "stored" } else { "not stored" };
        let body = json!({
            "correlationId": self.correlation_id,
            "isSuccess": success,
            "statusCode": status,
            "statusDescription": description,
        });
        let answer = self.home.post(&self.setup, self.refusals, "files/notifications", &body).await?;
        self.told |= (200..300).contains(&answer.status);
        Ok(answer)
    }

    /// Has another credential used the next time, twice at most.
    pub(super) const fn renew(&mut self) -> bool {
        self.refusals += 1;
        self.refusals <= 2
    }

    /// Tells the hub of a failure, and does not insist.
    pub(super) async fn tell_failure(&mut self, status: u16) {
        for wait_secs in 0..FAREWELLS {
            tokio::time::sleep(Duration::from_secs(wait_secs.into())).await;
            match self.tell(false, status).await {
                Ok(answer) if answer.status == 401 && self.renew() => {}
                Ok(answer) if !matches!(answer.status, 408 | 429 | 500..=599) => break,
                Ok(_) | Err(_) => {}
            }
        }
        if !self.told {
            tracing::warn!(device = %self.setup.name, "the hub was not told that an upload failed");
            self.told = true;
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if self.told || !self.owed {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let mut again = Self::new(Arc::clone(&self.setup), self.home.clone(), self.correlation_id.clone());
        again.owed = false;
        // 499 is what servers log when a client goes away.
        runtime.spawn(async move { again.tell_failure(499).await });
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3) and those of `kept`.
fn encoded(text: &str, kept: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        let letter = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(letter) || kept.contains(letter) {
            encoded.push(letter);
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(|half| char::from(b"0123456789ABCDEF"[usize::from(half)])));
        }
        encoded
    })
}
