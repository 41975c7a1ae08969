//! Stores the back-off state in a file, so that a power failure during an outage does not reset it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use steadfast_core::BackoffSnapshot;

use crate::atomic_file;

/// The first line of the file.
const HEADING: &str = "steadfast memory 1";

/// The path of the file, and the device it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct BackoffFile {
    path: PathBuf,
    owner: Box<str>,
}

impl BackoffFile {
    /// `owner` tells devices apart, in one line.
    pub(crate) fn new(path: PathBuf, owner: &str) -> Self {
        Self { path, owner: owner.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the back-off state. An unusable file is logged and ignored.
    pub(crate) fn load(&self) -> Option<BackoffSnapshot> {
        let text = match atomic_file::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the stored back-off state cannot be read; starting without it");
                return None;
            }
        };
        let memory = self.parse(&text);
        if memory.is_none() {
            tracing::warn!(path = %self.path.display(), "the stored back-off state is of another device or not usable; starting without it");
        }
        memory
    }

    /// Writes the back-off state atomically.
    pub(crate) fn save(&self, memory: &BackoffSnapshot) -> io::Result<()> {
        let mut text = format!("{HEADING}\ndevice {}\nback-off ", self.owner);
        for byte in memory.to_bytes() {
            write!(text, "{byte:02x}").map_err(io::Error::other)?;
        }
        text.push('\n');
        atomic_file::replace(&self.path, &text)
    }

    fn parse(&self, text: &str) -> Option<BackoffSnapshot> {
        let mut lines = text.lines();
        if lines.next()? != HEADING || lines.next()?.strip_prefix("device ")? != &*self.owner {
            return None;
        }
        let digits = lines.next()?.strip_prefix("back-off ")?;
        // A last line without its end was cut.
        if lines.next().is_some() || !text.ends_with('\n') || digits.len() != 2 * BackoffSnapshot::LEN {
            return None;
        }
        let mut bytes = [0; BackoffSnapshot::LEN];
        for (place, byte) in bytes.iter_mut().enumerate() {
            let pair =
                digits.get(2 * place..2 * place + 2).filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        BackoffSnapshot::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Layout 2, overloaded for 3,600 s, unreachable for 7,200 s, hint of 1,100 s, saved at 1,800,000,000 s.
    fn memory() -> BackoffSnapshot {
        let mut bytes = [0; BackoffSnapshot::LEN];
        bytes[..2].copy_from_slice(&[2, 1]);
        bytes[4..8].copy_from_slice(&7_200_u32.to_le_bytes());
        bytes[8..12].copy_from_slice(&3_600_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&1_100_u32.to_le_bytes());
        bytes[16..20].copy_from_slice(&1_800_000_000_u32.to_le_bytes());
        // The checksum.
        bytes[21..].copy_from_slice(&[0x0, 0xde, 0xc4]);
        BackoffSnapshot::from_bytes(bytes).unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded_by_the_same_device_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        let pump = BackoffFile::new(path.clone(), "0ne00AB12CD pump-7");
        assert_eq!(pump.load(), None);
        pump.save(&memory()).unwrap();
        assert_eq!(pump.load(), Some(memory()));
        assert_eq!(BackoffFile::new(path, "0ne00AB12CD pump-8").load(), None);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let pump = BackoffFile::new(directory.path().join("memory"), "pump-7");
        pump.save(&memory()).unwrap();
        let whole = fs::read(pump.path()).unwrap();
        for len in 0..whole.len() {
            fs::write(pump.path(), &whole[..len]).unwrap();
            assert_eq!(pump.load(), None, "cut at {len}");
        }
        let text = String::from_utf8(whole).unwrap();
        for junk in [text.replace("02", "+2"), text.replace("back-off 02", "back-off 03"), format!("{text}more\n")] {
            fs::write(pump.path(), junk).unwrap();
            assert_eq!(pump.load(), None);
        }
        fs::write(pump.path(), b"\xff\xfe").unwrap();
        assert_eq!(pump.load(), None);
    }
}
