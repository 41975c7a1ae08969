//! The small generator that draws the jitter.

use core::fmt;

use rand::SeedableRng;
use rand::rand_core::Rng as _;
use rand::rngs::Xoshiro128PlusPlus;

/// Entropy that must differ from device to device.
///
/// It has no default: a fleet with one seed would reconnect in the same second. The link mixes the device's identity
/// into it, so that devices differ even if a hardware generator returns a constant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 16]);

impl Seed {
    /// Makes a seed from 16 bytes of the operating system's or the chip's random number generator.
    #[must_use]
    pub const fn new(entropy: [u8; 16]) -> Self {
        Self(entropy)
    }

    /// Expands a number to a seed, for tests and simulations that number their devices.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(number);
        let mut entropy = [0; 16];
        rng.fill_bytes(&mut entropy);
        Self(entropy)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The same stream on 32- and 64-bit targets, so that recordings and snapshots replay anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(Xoshiro128PlusPlus);

impl Rng {
    /// Mixes `identity` into `seed`.
    pub(crate) fn new(seed: Seed, identity: &str) -> Self {
        let mut bytes = seed.0;
        // FNV-1a, 64 bits: offset basis and prime of its definition.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in identity.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for (byte, mixed) in bytes.iter_mut().zip(hash.to_le_bytes()) {
            *byte ^= mixed;
        }
        Self(Xoshiro128PlusPlus::from_seed(bytes))
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) fn long(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Draws from `low..=high` with one 32-bit word.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        scale(self.word(), low, high)
    }
}

/// Maps a 32-bit word onto `low..=high`; returns `low` when `high` is not above it.
#[cfg_attr(target_pointer_width = "32", inline(never))]
pub(crate) fn scale(word: u32, low: u32, high: u32) -> u32 {
    let values = u64::from(high.saturating_sub(low)).wrapping_add(1);
    // The upper half of the product is below `values`.
    let [b0, b1, b2, b3, ..] = u64::from(word).wrapping_mul(values).to_be_bytes();
    low.saturating_add(u32::from_be_bytes([b0, b1, b2, b3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_inside_their_bounds_and_reach_both_ends() {
        assert_eq!(scale(0, 5, 9), 5);
        assert_eq!(scale(u32::MAX, 5, 9), 9);
        assert_eq!(scale(u32::MAX, 9, 5), 9);
        assert_eq!(scale(u32::MAX, 0, u32::MAX), u32::MAX);
        let mut rng = Rng::new(Seed::from_number(7), "pump");
        assert!((0..1000).all(|_| (10..=20).contains(&rng.between(10, 20))));
    }

    #[test]
    fn one_seed_gives_two_devices_two_streams() {
        let seed = Seed::new([0; 16]);
        assert_ne!(Rng::new(seed, "pump-1").word(), Rng::new(seed, "pump-2").word());
        assert_eq!(Rng::new(seed, "pump-1").word(), Rng::new(seed, "pump-1").word());
    }
}
