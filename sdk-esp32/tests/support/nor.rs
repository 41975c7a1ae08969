//! A simulated NOR flash whose power can be cut in the middle of any word it writes and any page it erases.

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// Smaller than a real page, so that the ring goes round often.
pub(crate) const PAGE: usize = 256;
pub(crate) const WORD: usize = 4;

/// How far the word or page gets at which the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tear {
    /// It is untouched.
    Before,
    /// Some of its bits have changed, others have not.
    Half,
    /// It is done, and nobody was told.
    After,
}

pub(crate) const TEARS: [Tear; 3] = [Tear::Before, Tear::Half, Tear::After];

#[derive(Clone, Debug)]
pub(crate) struct Nor {
    pub(crate) bytes: Vec<u8>,
    /// Words and pages that can still be written and erased before the power is cut.
    pub(crate) left: usize,
    pub(crate) tear: Tear,
    /// The power is off.
    pub(crate) off: bool,
    /// Steps done.
    pub(crate) steps: usize,
    /// Erases of each page.
    pub(crate) erases: Vec<u32>,
    pub(crate) written: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerOff;

impl NorFlashError for PowerOff {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Nor {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            bytes: vec![0xff; pages * PAGE],
            left: usize::MAX,
            tear: Tear::Before,
            off: false,
            steps: 0,
            erases: vec![0; pages],
            written: 0,
        }
    }

    pub(crate) fn range(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.bytes.len()).unwrap()
    }

    /// Cuts the power at step `left` from here.
    pub(crate) fn cut_after(&mut self, left: usize, tear: Tear) {
        (self.left, self.tear) = (left, tear);
    }

    /// Switches the power on again.
    pub(crate) fn reboot(&mut self) {
        (self.off, self.left) = (false, usize::MAX);
    }

    /// Whether the next step is done whole; `Err` also when the power goes off at it.
    fn step(&mut self, place: std::ops::Range<usize>, done: impl Fn(usize, u8) -> u8) -> Result<(), PowerOff> {
        if self.off {
            return Err(PowerOff);
        }
        self.off = self.left == 0;
        if !self.off {
            self.left = self.left.saturating_sub(1);
            self.steps += 1;
        }
        for (at, byte) in self.bytes[place].iter_mut().enumerate() {
            let after = done(at, *byte);
            *byte = match (self.off, self.tear) {
                (false, _) | (true, Tear::After) => after,
                (true, Tear::Before) => *byte,
                // Another half of the bits in each byte.
                (true, Tear::Half) => {
                    let mask = 0x5a_u8.rotate_left(u32::try_from(at % 8).unwrap()) ^ u8::try_from(at % 251).unwrap();
                    (*byte & !mask) | (after & mask)
                }
            };
        }
        if self.off { Err(PowerOff) } else { Ok(()) }
    }
}

impl ErrorType for Nor {
    type Error = PowerOff;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerOff> {
        if self.off {
            return Err(PowerOff);
        }
        let start = offset as usize;
        bytes.copy_from_slice(&self.bytes[start..start + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerOff> {
        assert!((from as usize).is_multiple_of(PAGE) && (to as usize).is_multiple_of(PAGE), "erase of part of a page");
        for page in from as usize / PAGE..to as usize / PAGE {
            self.step(page * PAGE..(page + 1) * PAGE, |_, _| 0xff)?;
            self.erases[page] += 1;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerOff> {
        let start = offset as usize;
        assert!(start.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD), "write of part of a word");
        for (word, place) in bytes.chunks(WORD).zip((start..).step_by(WORD)) {
            // A write can only clear bits.
            self.step(place..place + WORD, |at, before| before & word[at])?;
            self.written += WORD as u64;
        }
        Ok(())
    }
}

impl MultiwriteNorFlash for Nor {}
