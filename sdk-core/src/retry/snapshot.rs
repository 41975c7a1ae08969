//! The back-off state that survives a reboot.

/// The back-off in a few words, for storage that survives a reboot.
///
/// It keeps a power failure during an outage from resetting the back-off. [`crate::Action::SaveBackoff`] reports when
/// to store it (each time the outage's age has grown by a quarter, at most 20 times in an hour and 45 times in a week),
/// [`crate::Link::backoff_snapshot`] returns the latest at any time, and [`crate::Link::restore_backoff`] restores it
/// after the reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffSnapshot {
    /// Time of the snapshot in seconds since 1970, 0 if the clock was not set.
    pub(crate) saved_unix_secs: u64,
    /// Seconds since the service was lost.
    pub(crate) away_secs: u32,
    /// Seconds since the first overload, if any.
    pub(crate) overloaded_secs: Option<u32>,
    /// The hint in seconds, 0 for none.
    pub(crate) spread_secs: u32,
    /// Refusals in a row.
    pub(crate) refusals: u8,
    /// Registrations since the last stable connection.
    pub(crate) failed_registrations: u8,
}

/// First byte of the present layout.
const LAYOUT: u8 = 2;

/// Greatest time that is stored: 40 bits.
const LATEST_SECS: u64 = (1 << 40) - 1;

/// The checksum of the preceding bytes: 24 bits of CRC-32 (IEEE 802.3).
const fn checksum(mut bytes: &[u8]) -> [u8; 3] {
    let mut crc = u32::MAX;
    while let [byte, rest @ ..] = bytes {
        crc ^= *byte as u32;
        let mut bits = 8_u8;
        while bits > 0 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            bits = bits.saturating_sub(1);
        }
        bytes = rest;
    }
    let [a, b, c, _] = (!crc).to_le_bytes();
    [a, b, c]
}

impl BackoffSnapshot {
    /// Bytes of it.
    pub const LEN: usize = 24;

    /// A device that was off for less than this time continues even a short outage.
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
        let saved = if self.saved_unix_secs > LATEST_SECS { LATEST_SECS } else { self.saved_unix_secs };
        let [t0, t1, t2, t3, t4, ..] = saved.to_le_bytes();
        let overloaded = self.overloaded_secs.is_some() as u8;
        let (refusals, failed_registrations) = (self.refusals, self.failed_registrations);
        #[rustfmt::skip]
        let kept = [
            LAYOUT, overloaded, refusals, failed_registrations, a0, a1, a2, a3, o0, o1, o2, o3, s0, s1, s2, s3, t0, t1, t2, t3, t4,
        ];
        let [c0, c1, c2] = checksum(&kept);
        #[rustfmt::skip]
        let all = [
            LAYOUT, overloaded, refusals, failed_registrations, a0, a1, a2, a3, o0, o1, o2, o3, s0, s1, s2, s3, t0, t1, t2, t3, t4,
            c0, c1, c2,
        ];
        all
    }

    /// Parses the bytes of [`BackoffSnapshot::to_bytes`]; `None` if they have another layout or are damaged, such as
    /// memory that lost power.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        #[rustfmt::skip]
        let [
            layout, overloaded, refusals, failed_registrations, a0, a1, a2, a3, o0, o1, o2, o3, s0, s1, s2, s3, t0, t1, t2, t3, t4,
            c0, c1, c2,
        ] = bytes;
        let (kept, _) = bytes.split_at(Self::LEN - 3);
        let [e0, e1, e2] = checksum(kept);
        if layout != LAYOUT || overloaded > 1 || c0 != e0 || c1 != e1 || c2 != e2 {
            return None;
        }
        let overloaded_secs = if overloaded == 1 { Some(u32::from_le_bytes([o0, o1, o2, o3])) } else { None };
        Some(Self {
            saved_unix_secs: u64::from_le_bytes([t0, t1, t2, t3, t4, 0, 0, 0]),
            away_secs: u32::from_le_bytes([a0, a1, a2, a3]),
            overloaded_secs,
            spread_secs: u32::from_le_bytes([s0, s1, s2, s3]),
            refusals,
            failed_registrations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_give_the_same_memory_back_and_others_none() {
        let memory = BackoffSnapshot {
            saved_unix_secs: 1_800_000_000,
            away_secs: 7_200,
            overloaded_secs: Some(3_600),
            spread_secs: 1_100,
            refusals: 2,
            failed_registrations: 1,
        };
        assert_eq!(BackoffSnapshot::from_bytes(memory.to_bytes()), Some(memory));
        let calm = BackoffSnapshot { overloaded_secs: None, ..memory };
        assert_eq!(BackoffSnapshot::from_bytes(calm.to_bytes()), Some(calm));
        for strange in [[0; 24], [0xff; 24]] {
            assert_eq!(BackoffSnapshot::from_bytes(strange), None);
        }
        let late = BackoffSnapshot { saved_unix_secs: u64::MAX, ..memory };
        assert_eq!(
            BackoffSnapshot::from_bytes(late.to_bytes()).map(|memory| memory.saved_unix_secs),
            Some(LATEST_SECS)
        );
    }

    #[test]
    fn garbage_reads_as_absent() {
        let memory = BackoffSnapshot {
            saved_unix_secs: 1_800_000_000,
            away_secs: 7_200,
            overloaded_secs: Some(3_600),
            spread_secs: 1_100,
            refusals: 2,
            failed_registrations: 1,
        };
        let good = memory.to_bytes();
        for bit in 0..8 * BackoffSnapshot::LEN {
            let mut damaged = good;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BackoffSnapshot::from_bytes(damaged), None, "bit {bit}");
        }
        let mut rng = crate::rng::Rng::new(crate::rng::Seed::from_number(1), "");
        for _ in 0..10_000 {
            // With valid first two bytes, as may remain in memory that lost power.
            let mut bytes = good;
            for byte in &mut bytes[2..] {
                *byte = rng.word().to_le_bytes()[0];
            }
            assert_eq!(BackoffSnapshot::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
