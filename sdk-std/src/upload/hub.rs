//! What proves the device to its hub in a request.

use steadfast_core::files::Identity;
use steadfast_core::{Failure, LocalFailure, Role};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::clock;
use crate::setup::Setup;
use crate::tokens::Proof;

/// Lifetime of a token for one request.
const TOKEN_SECS: u64 = 600;

/// Makes a token; `None` for a device that proves itself with its certificate.
pub(super) async fn token(
    setup: &Setup,
    identity: &Identity<'_>,
    module_id: Option<&str>,
) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(token) = &setup.token {
        return Ok(Some(Zeroizing::new(token.to_string())));
    }
    let Some(prover) = &setup.prover else { return Ok(None) };
    let resource = identity.resource(module_id);
    let expiry = clock::unix_secs() + TOKEN_SECS;
    let text = resource.string_to_sign(expiry).to_string();
    let proof = match timeout(setup.signing, prover.prove(Role::Hub, identity.refusals, &text)).await {
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
