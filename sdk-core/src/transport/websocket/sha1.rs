//! SHA-1 (FIPS 180-4, sections 5 and 6.1), small rather than fast: a service uses it to confirm a nonce, and it
//! protects nothing.

/// Bytes of a block, and of the length in the last one.
const BLOCK: usize = 64;
const LENGTH: usize = 8;

/// Stands behind the message.
const PADDING: u8 = 0x80;

/// Returns the digest of `message`.
pub(super) fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut from = 0_usize;
    loop {
        let mut words = [0_u32; BLOCK / 4];
        let mut at = from;
        for word in &mut words {
            for _ in 0..4 {
                let padding = if at == message.len() { PADDING } else { 0 };
                *word = (*word << 8) | u32::from(message.get(at).copied().unwrap_or(padding));
                at = at.saturating_add(1);
            }
        }
        from = at;
        let last = message.len().saturating_add(1 + LENGTH) <= from;
        if last && let [.., slot] = &mut words {
            // Messages here are short: the upper half of the length is 0.
            *slot = u32::try_from(message.len()).unwrap_or(u32::MAX) << 3;
        }
        block(&mut state, words);
        if last {
            break;
        }
    }
    let mut digest = [0; 20];
    for (slot, byte) in digest.iter_mut().zip(state.into_iter().flat_map(u32::to_be_bytes)) {
        *slot = byte;
    }
    digest
}

fn block(state: &mut [u32; 5], mut words: [u32; BLOCK / 4]) {
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for round in 0..80_usize {
        // The schedule is computed in place: each word is replaced by the one sixteen rounds later.
        let word = |back: usize| words.get(round.wrapping_sub(back) & 15).copied().unwrap_or_default();
        let scheduled = if round < 16 { word(0) } else { (word(3) ^ word(8) ^ word(14) ^ word(16)).rotate_left(1) };
        if let Some(slot) = words.get_mut(round & 15) {
            *slot = scheduled;
        }
        let (mixed, constant) = match round {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999_u32),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(scheduled);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    for (slot, value) in state.iter_mut().zip([a, b, c, d, e]) {
        *slot = slot.wrapping_add(value);
    }
}

#[cfg(test)]
mod tests {
    use super::sha1;
    use std::vec::Vec;

    #[test]
    fn digests_are_those_of_another_implementation_at_every_length() {
        use ::sha1::Digest as _;
        let message: Vec<u8> = (0..=255).cycle().take(300).collect();
        for len in 0..message.len() {
            let expected: [u8; 20] = ::sha1::Sha1::digest(&message[..len]).into();
            assert_eq!(sha1(&message[..len]), expected, "{len} bytes");
        }
    }
}
