//! The state of an upload that survives a reboot.

/// First byte of a stored checkpoint: its format.
const FORM: u8 = 1;

/// How far an upload was, to go on there after a reboot.
///
/// It identifies the blob and its stored blocks, and contains no secret. The storage keeps blocks for a week after the
/// last one (Azure Storage, *Put Block*); if they are lost, the upload starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub(super) place: u64,
    pub(super) blocks: u32,
    pub(super) block_len: u32,
}

impl Checkpoint {
    /// Length of a stored checkpoint, in bytes.
    pub const LEN: usize = 17;

    /// Returns the bytes to store.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [FORM; Self::LEN];
        let (place, blocks, len) = (self.place.to_be_bytes(), self.blocks.to_be_bytes(), self.block_len.to_be_bytes());
        for (to, from) in bytes.iter_mut().skip(1).zip(place.iter().chain(&blocks).chain(&len)) {
            *to = *from;
        }
        bytes
    }

    /// Parses a stored checkpoint; `None` for bytes of an unknown format.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [FORM, p0, p1, p2, p3, p4, p5, p6, p7, b0, b1, b2, b3, l0, l1, l2, l3] = bytes else { return None };
        Some(Self {
            place: u64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            blocks: u32::from_be_bytes([b0, b1, b2, b3]),
            block_len: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_other_bytes_do_not() {
        let checkpoint = Checkpoint { place: 0x0123_4567_89ab_cdef, blocks: 7, block_len: 4_096 };
        let mut bytes = checkpoint.to_bytes();
        assert_eq!(Checkpoint::from_bytes(bytes), Some(checkpoint));
        bytes[0] = 0xff;
        assert_eq!(Checkpoint::from_bytes(bytes), None);
    }
}
