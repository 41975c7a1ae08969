//! Verification of shared access signatures.

use steadfast_core::azure::sas::{Resource, SymmetricKey, token_expiry};

/// Why a password is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadToken {
    /// It is none, or not signed with this key for this resource.
    Forged,
    /// Its time is over.
    Expired,
}

/// Returns the expiry of a good token.
pub(super) fn verify(
    password: &str,
    resource: Resource<'_>,
    key: &SymmetricKey,
    unix_secs: u64,
) -> Result<u64, BadToken> {
    let expiry = token_expiry(password).ok_or(BadToken::Forged)?;
    let signature = key.sign(&resource.string_to_sign(expiry));
    if resource.token(&signature, expiry).to_string() != password {
        return Err(BadToken::Forged);
    }
    if expiry <= unix_secs { Err(BadToken::Expired) } else { Ok(expiry) }
}
