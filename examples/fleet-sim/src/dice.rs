//! The chance of the simulated world; the links draw from their own generators.

/// `SplitMix64` (Steele, Lea, Flood 2014): small, fast, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn long(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws from 0 to 1, without 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.long() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws from `low..=high`.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low + (((self.long() >> 32) * span) >> 32) as u32
    }

    /// Draws from the first to the second.
    pub(crate) fn span(&mut self, (low, high): (u32, u32)) -> u32 {
        self.between(low, high)
    }

    /// Draws 16 bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.long().to_le_bytes());
        bytes[8..].copy_from_slice(&self.long().to_le_bytes());
        bytes
    }
}
