//! What a link remembers of its troubles across a reboot.

/// The back-off in a few words, for storage that survives a reboot.
///
/// A device that loses power in an outage must not come back as if nothing had happened. The link says when it is worth
/// writing ([`crate::Action::SaveMemory`]: each time the outage has grown older by a quarter, 20 times in an hour and
/// 45 times in a week at most), [`crate::Link::memory`] gives the latest at any time, and
/// [`crate::Link::restore_memory`] takes it after the reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Seconds since 1970 when this was made, 0 when the clock was not set.
    pub(crate) saved_unix_secs: u64,
    /// Seconds since the service was lost.
    pub(crate) away_secs: u32,
    /// Seconds since the first evidence of overload, when there was some.
    pub(crate) overloaded_secs: Option<u32>,
    /// The hint in seconds, 0 for none.
    pub(crate) spread_secs: u32,
    /// Refusals in a row.
    pub(crate) refusals: u8,
    /// Registrations since the last stable connection.
    pub(crate) fruitless: u8,
}

/// First byte of the present layout.
const LAYOUT: u8 = 1;

impl Memory {
    /// Bytes of it.
    pub const LEN: usize = 24;

    /// A device that is back within this time has not been off long enough for an outage to be over, however young that was.
    pub(crate) const REBOOT_SECS: u64 = 60;

    /// Longest time off that counts, in seconds: a week.
    pub(crate) const LONGEST_OFF_SECS: u64 = 7 * 86_400;

    /// Returns it as bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [a0, a1, a2, a3] = self.away_secs.to_le_bytes();
        let [o0, o1, o2, o3] = match self.overloaded_secs {
            Some(secs) => secs.to_le_bytes(),
            None => [0; 4],
        };
        let [s0, s1, s2, s3] = self.spread_secs.to_le_bytes();
        let [t0, t1, t2, t3, t4, t5, t6, t7] = self.saved_unix_secs.to_le_bytes();
        let overloaded = self.overloaded_secs.is_some() as u8;
        [
            LAYOUT,
            overloaded,
            self.refusals,
            self.fruitless,
            a0,
            a1,
            a2,
            a3,
            o0,
            o1,
            o2,
            o3,
            s0,
            s1,
            s2,
            s3,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
        ]
    }

    /// Makes it from bytes that [`Memory::to_bytes`] gave; `None` when they are of another layout.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [
            layout,
            overloaded,
            refusals,
            fruitless,
            a0,
            a1,
            a2,
            a3,
            o0,
            o1,
            o2,
            o3,
            s0,
            s1,
            s2,
            s3,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
        ] = bytes;
        if layout != LAYOUT || overloaded > 1 {
            return None;
        }
        let overloaded_secs = if overloaded == 1 { Some(u32::from_le_bytes([o0, o1, o2, o3])) } else { None };
        Some(Self {
            saved_unix_secs: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            away_secs: u32::from_le_bytes([a0, a1, a2, a3]),
            overloaded_secs,
            spread_secs: u32::from_le_bytes([s0, s1, s2, s3]),
            refusals,
            fruitless,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_give_the_same_memory_back_and_others_none() {
        let memory = Memory {
            saved_unix_secs: 1_800_000_000,
            away_secs: 7_200,
            overloaded_secs: Some(3_600),
            spread_secs: 1_100,
            refusals: 2,
            fruitless: 1,
        };
        assert_eq!(Memory::from_bytes(memory.to_bytes()), Some(memory));
        let calm = Memory { overloaded_secs: None, ..memory };
        assert_eq!(Memory::from_bytes(calm.to_bytes()), Some(calm));
        for strange in [[0; 24], [0xff; 24]] {
            assert_eq!(Memory::from_bytes(strange), None);
        }
    }
}
