//! Credentials that are tokens: signed with the device's key, or obtained ready-made.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use steadfast_core::azure::sas;
use steadfast_core::text::Text;
#[cfg(feature = "_requests")]
use steadfast_core::{Failure, LocalFailure, azure::sas::Resource};
use steadfast_core::{ServiceKind, SignRequest};
#[cfg(feature = "_requests")]
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::clock;
#[cfg(feature = "_requests")]
use crate::connector::Setup;
use crate::signer::{SignError, Signer};

/// Lifetime in seconds of a token for one request.
#[cfg(feature = "_requests")]
const TOKEN_SECS: u64 = 600;

/// What a [`TokenSource`] returns.
pub type Obtaining = Pin<Box<dyn Future<Output = Result<String, SignError>> + Send>>;

/// Obtains ready-made shared access signatures from an external source, such as a key service of the plant.
///
/// It is called for each connection attempt, and before a token expires: a device that is up reconnects with the new
/// one between 75 % and 90 % of the old one's remaining lifetime. A failure is logged with the text of its
/// [`SignError`], and the status is [`LocalFailure::Signing`](crate::LocalFailure::Signing); an answer after
/// [`Timeouts::sign`](crate::Timeouts::sign) is too late
/// ([`LocalFailure::SigningTimeout`](crate::LocalFailure::SigningTimeout)). Both are retried with the back-off of an
/// unreachable service.
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a token `SharedAccessSignature sr=...&sig=...&se=...` that is valid for `request`, and for at least some
    /// minutes.
    ///
    /// The future may be dropped: see above.
    fn token(&self, request: TokenRequest) -> Obtaining;
}

/// A request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The service: DPS needs the enrollment's token (with `skn=registration`), the hub the device's.
    pub role: ServiceKind,
    /// The resource, not encoded, such as `contoso.azure-devices.net/devices/pump-7`.
    pub resource: String,
    /// How often in a row that service has refused the device: above 0 a token from a cache is no use.
    pub refusals: u8,
}

/// The source of the token.
#[derive(Clone)]
pub(crate) enum Authenticator {
    Signer(Arc<dyn Signer>),
    Tokens(Arc<dyn TokenSource>),
}

/// Its result.
pub(crate) enum Proof {
    Signature(Zeroizing<[u8; 32]>),
    Token(Zeroizing<String>),
}

/// The pending call.
pub(crate) type Proving = Pin<Box<dyn Future<Output = Result<Proof, SignError>> + Send>>;

impl Authenticator {
    /// Obtains a signature or token for `text`, the string to sign.
    pub(crate) fn prove(&self, role: ServiceKind, refusals: u8, text: &str) -> Proving {
        match self {
            Self::Signer(signer) => {
                let signing = signer.sign(SignRequest::new(role, refusals, Text::from(text)));
                Box::pin(async { signing.await.map(|signature| Proof::Signature(Zeroizing::new(signature))) })
            }
            Self::Tokens(source) => {
                let encoded = text.split('\n').next().unwrap_or_default();
                let request = TokenRequest { role, resource: decoded(encoded), refusals };
                let obtaining = source.token(request);
                Box::pin(async { check(Zeroizing::new(obtaining.await?)).map(Proof::Token) })
            }
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signer(_) => "Signer",
            Self::Tokens(_) => "Tokens",
        })
    }
}

/// Makes a token for one HTTPS request; `None` for a device that authenticates with its certificate.
#[cfg(feature = "_requests")]
pub(crate) async fn for_request(
    setup: &Setup,
    resource: &Resource<'_>,
    refusals: u8,
) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(token) = &setup.token {
        return Ok(Some(Zeroizing::new(token.to_string())));
    }
    let Some(authenticator) = &setup.authenticator else { return Ok(None) };
    let expiry = clock::unix_secs() + TOKEN_SECS;
    let text = resource.string_to_sign(expiry).to_string();
    let proof = match timeout(setup.signing, authenticator.prove(ServiceKind::Hub, refusals, &text)).await {
        Ok(Ok(proof)) => proof,
        Ok(Err(error)) => {
            tracing::error!(device = %setup.name, %error, "no token can be made");
            return Err(error.failure());
        }
        Err(_) => return Err(Failure::Local(LocalFailure::SigningTimeout)),
    };
    Ok(Some(match proof {
        Proof::Signature(signature) => written(&resource.token(&signature, expiry)),
        Proof::Token(token) => token,
    }))
}

/// Writes a token in one piece: a string that grows leaves copies behind.
#[cfg(feature = "_https")]
pub(crate) fn written(token: &Text<'_>) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(vec![0; token.len()]);
    Zeroizing::new(token.to_str(&mut bytes).unwrap_or_default().to_owned())
}

/// Checks a token, since the service's refusal would not name the reason.
fn check(token: Zeroizing<String>) -> Result<Zeroizing<String>, SignError> {
    let expiry = sas::token_expiry(&token).filter(|_| token.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    let expiry = expiry.ok_or_else(|| SignError::new("the source did not return a shared access signature"))?;
    match Some(clock::unix_secs()).filter(|now| *now >= expiry) {
        Some(now) => Err(SignError::new(format!("the token had expired {} s before it came", now - expiry))),
        None => Ok(token),
    }
}

/// Decodes percent-encoding; the link's own is never wrong.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).unwrap_or_default();
        if byte == b'%' {
            let value = digit(rest.next()) * 16 + digit(rest.next());
            bytes.push(u8::try_from(value).unwrap_or_default());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
