//! Which of a device's two keys to sign with.

use core::fmt;

use super::sas::SymmetricKey;
use crate::io::{ServiceKind, SignRequest};

/// The choice between the primary and the secondary key of a device; the service accepts either.
///
/// It starts with the primary, switches with each further refusal, and keeps the accepted key. If both keys are refused
/// in a row, the link asks the Device Provisioning Service. Make one for each service, since the two may have different
/// keys.
///
/// ```
/// use steadfast_core::azure::key_choice::KeyChoice;
///
/// let mut choice = KeyChoice::new();
/// assert_eq!(choice.choose(0), 0); // the primary
/// assert_eq!(choice.choose(1), 1); // it was refused
/// assert_eq!(choice.choose(0), 1); // the secondary was accepted, and stays in use
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyChoice {
    secondary: bool,
    /// Refusals at its creation.
    refusals: u8,
}

impl KeyChoice {
    /// Begins with the primary key.
    #[must_use]
    pub const fn new() -> Self {
        Self { secondary: false, refusals: 0 }
    }

    /// Returns the key to sign with, 0 or 1, given the refusals in [`crate::Action::Sign`].
    pub fn choose(&mut self, refusals: u8) -> usize {
        // The count saturates.
        if refusals > self.refusals || refusals == u8::MAX {
            self.secondary = !self.secondary;
        }
        self.refusals = refusals;
        usize::from(self.secondary)
    }
}

/// The two symmetric keys of a device, primary and secondary, in memory.
///
/// It signs with the primary until that is refused, like [`KeyChoice`], separately for each service.
///
/// ```
/// use steadfast_core::azure::key_choice::KeyPair;
/// use steadfast_core::azure::sas::SymmetricKey;
/// use steadfast_core::text::Text;
/// use steadfast_core::{ServiceKind, SignRequest};
///
/// let (primary, secondary) = (SymmetricKey::from_bytes(&[1; 32])?, SymmetricKey::from_bytes(&[2; 32])?);
/// let text = Text::from("contoso.azure-devices.net%2Fdevices%2Fpump-7\n1893456000");
/// let of_secondary = secondary.sign(&text);
/// let mut keys = KeyPair::new(primary, secondary);
/// assert_ne!(keys.sign(&SignRequest::new(ServiceKind::Hub, 0, text)), of_secondary);
/// assert_eq!(keys.sign(&SignRequest::new(ServiceKind::Hub, 1, text)), of_secondary);
/// # Ok::<(), steadfast_core::azure::sas::KeyError>(())
/// ```
pub struct KeyPair {
    keys: [SymmetricKey; 2],
    /// For the Device Provisioning Service and for the hub, which may know different keys.
    choices: [KeyChoice; 2],
}

impl KeyPair {
    /// Takes both keys.
    #[must_use]
    pub const fn new(primary: SymmetricKey, secondary: SymmetricKey) -> Self {
        Self { keys: [primary, secondary], choices: [KeyChoice::new(); 2] }
    }

    /// Signs with the key that is to be offered now.
    pub fn sign(&mut self, request: &SignRequest<'_>) -> [u8; 32] {
        let [provisioning, hub] = &mut self.choices;
        let choice = if request.role == ServiceKind::Hub { hub } else { provisioning };
        let [primary, secondary] = &self.keys;
        let key = if choice.choose(request.refusals) == 0 { primary } else { secondary };
        key.sign(&request.text)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_refusal_changes_over_however_many_there_were() {
        let mut choice = KeyChoice::new();
        let chosen: std::vec::Vec<_> = [0, 0, 1, 2, 3, 0, 0, 1].into_iter().map(|count| choice.choose(count)).collect();
        assert_eq!(chosen, [0, 0, 1, 0, 1, 1, 1, 0]);
        let mut choice = KeyChoice { secondary: false, refusals: u8::MAX - 1 };
        assert_eq!([choice.choose(u8::MAX), choice.choose(u8::MAX), choice.choose(u8::MAX)], [1, 0, 1]);
    }
}
