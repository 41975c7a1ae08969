//! Mutations of a corpus from a seed: the same on every machine.

/// Most bytes of a mutated input.
const LONGEST: usize = 2048;

/// Values that stand at the borders of lengths, flags and characters.
const BORDERS: [u8; 12] = [0x00, 0x01, 0x02, 0x10, 0x30, 0x3a, 0x7f, 0x80, 0x81, 0xc0, 0xed, 0xff];

/// Makes inputs out of a corpus.
///
/// The numbers come from SplitMix64, so that a seed means the same inputs on every machine and with every version.
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Starts with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns one entry of `corpus` with one to eight changes, or random bytes when the corpus is empty.
    #[must_use]
    pub fn next_input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.entry(corpus).to_vec();
        for _ in 0..=self.below(8) {
            self.change(&mut input, corpus);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let place = self.below(input.len() + 1);
        match self.below(8) {
            0 => input.truncate(place),
            1 => input.insert(place, self.byte()),
            2 => {
                let run = self.below(17);
                let bytes: Vec<u8> = (0..run).map(|_| self.byte()).collect();
                input.splice(place..place, bytes);
            }
            3 => {
                let end = (place + self.below(9)).min(input.len());
                input.drain(place..end);
            }
            4 => {
                let other = self.entry(corpus);
                let from = self.below(other.len() + 1);
                input.splice(place.., other[from..].iter().copied());
            }
            5 => input.extend_from_slice(self.entry(corpus)),
            kind => {
                let border = BORDERS[self.below(BORDERS.len())];
                let flip = 1 << self.below(8);
                if let Some(byte) = input.get_mut(place) {
                    *byte = if kind == 6 { border } else { *byte ^ flip };
                }
            }
        }
    }

    fn entry<'c>(&mut self, corpus: &'c [Vec<u8>]) -> &'c [u8] {
        corpus.get(self.below(corpus.len())).map_or(&[], Vec::as_slice)
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    /// Returns a number below `end`, and 0 for 0.
    fn below(&mut self, end: usize) -> usize {
        let Ok(end) = u64::try_from(end.max(1)) else { return 0 };
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_and_another_seed_gives_others() {
        let corpus = [b"\x30\x03\x00\x01a".to_vec(), b"\x40\x02\x00\x01".to_vec()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..100).map(|_| mutator.next_input(&corpus)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn an_empty_corpus_gives_inputs_too() {
        let mut mutator = Mutator::new(7);
        assert!((0..100).any(|_| !mutator.next_input(&[]).is_empty()));
    }
}
