//! The two keys that a TPM derives from its own seeds: endorsement key and storage root key.

use super::error::{HANDLE, Tpm2Error};
use super::transport::Line;
use super::wire::{Command, Parameters, Reader};

/// `TPM_RH_OWNER`.
const OWNER: u32 = 0x4000_0001;
/// `TPM_RH_ENDORSEMENT`.
pub(super) const ENDORSEMENT: u32 = 0x4000_000b;

/// `TPM_ALG_RSA`, `TPM_ALG_AES`, `TPM_ALG_SHA256`, `TPM_ALG_NULL`, `TPM_ALG_CFB` (part 2, section 6.3).
const RSA: u16 = 0x0001;
const AES: u16 = 0x0006;
pub(super) const SHA256: u16 = 0x000b;
pub(super) const NULL: u16 = 0x0010;
const CFB: u16 = 0x0043;

/// `restricted` and `decrypt` of `TPMA_OBJECT` (part 2, section 8.3): for the wrapping of other keys.
const STORAGE: u32 = 0x0003_0000;

/// The policy of an endorsement key, `PolicySecret(TPM_RH_ENDORSEMENT)` (TCG EK Credential Profile, "PolicyA").
const POLICY_A: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7,
    0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Primary {
    Endorsement,
    StorageRoot,
}

/// Appends `TPMT_SYM_DEF_OBJECT` of AES in the mode CFB, with so many bits.
pub(super) fn aes(bits: u16, parameters: Parameters) -> Parameters {
    parameters.short(AES).short(bits).short(CFB)
}

impl Primary {
    /// Returns the key's template: template L-1 of the TCG EK Credential Profile, so that it is the key that the
    /// manufacturer certified, and azure-iot-sdk-csharp's template of a storage root key (`SecurityProviderTpmHsm.cs`),
    /// both RSA with 2,048 bits.
    fn template(self) -> Parameters {
        // fixedTPM, fixedParent, sensitiveDataOrigin; then adminWithPolicy, or userWithAuth and noDA.
        let (attributes, policy) = match self {
            Self::Endorsement => (STORAGE | 0x00b2, &POLICY_A[..]),
            Self::StorageRoot => (STORAGE | 0x0472, &[][..]),
        };
        let head = Parameters::new().short(RSA).short(SHA256).long(attributes).sized(policy);
        aes(128, head).short(NULL).short(2048).long(0).sized(&[0; 256])
    }

    /// Returns the public part (`TPM2B_PUBLIC`) of the key at a persistent handle, and makes the key if there is none.
    pub(super) fn at(self, handle: u32, line: &mut Line) -> Result<Vec<u8>, Tpm2Error> {
        let public = match read_public(handle, line) {
            Err(error) if error.is(HANDLE) => {
                self.make(handle, line).map_err(|error| {
                    if let Tpm2Error::Refused { code, .. } = error {
                        Tpm2Error::NoPrimaryKey { handle, code }
                    } else {
                        error
                    }
                })?;
                read_public(handle, line)?
            }
            other => other?,
        };
        if !wraps_keys(Reader(&public)) {
            return Err(Tpm2Error::KindOfKey(handle));
        }
        Ok(Parameters::new().sized(&public).bytes().to_vec())
    }

    fn make(self, handle: u32, line: &mut Line) -> Result<(), Tpm2Error> {
        let hierarchy = if self == Self::Endorsement { ENDORSEMENT } else { OWNER };
        // Neither a password nor data of the caller's; no outside info, no PCRs.
        let wanted = Parameters::new().sized(&[0; 4]).sized(self.template().bytes()).sized(&[]).long(0);
        let made = line.ask(Command::CreatePrimary, &[hierarchy], &[None], &wanted)?;
        line.and_flush(made.handle, |line| {
            let keep = Parameters::new().long(handle);
            line.ask(Command::EvictControl, &[OWNER, made.handle], &[None], &keep).map(|_| ())
        })
    }
}

fn read_public(handle: u32, line: &mut Line) -> Result<Vec<u8>, Tpm2Error> {
    let answer = line.ask(Command::ReadPublic, &[handle], &[], &Parameters::new())?;
    answer.first().map(<[u8]>::to_vec)
}

/// Whether this public area is that of a key the service can wrap keys for.
fn wraps_keys(mut public: Reader<'_>) -> bool {
    let head = [public.short(), public.short()] == [Some(RSA), Some(SHA256)];
    let [high, low] = [public.short(), public.short()].map(Option::unwrap_or_default);
    let attributes = (u32::from(high) << 16) | u32::from(low);
    let policy = public.sized().is_some();
    let symmetric = [public.short(), public.short(), public.short()] == [Some(AES), Some(128), Some(CFB)];
    let sizes = [public.short(), public.short()] == [Some(NULL), Some(2048)];
    head && attributes & STORAGE == STORAGE && policy && symmetric && sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_keys_that_wrap_keys_and_nothing_less_is() {
        for primary in [Primary::Endorsement, Primary::StorageRoot] {
            let template = primary.template();
            assert!(wraps_keys(Reader(template.bytes())), "{primary:?}");
            for at in [0, 3, 5] {
                let mut other = template.bytes().to_vec();
                other[at] ^= 3;
                assert!(!wraps_keys(Reader(&other)), "{primary:?}, byte {at}");
            }
            assert!(!wraps_keys(Reader(&template.bytes()[..19])), "the end is missing");
        }
    }
}
