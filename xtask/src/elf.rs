//! Sizes of the sections of a 32-bit ELF file.

/// Bytes that a linked image takes, by where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Code.
    pub(crate) text: u64,
    /// Constants.
    pub(crate) constants: u64,
    /// Variables with a start value, which take flash and RAM.
    pub(crate) data: u64,
    /// Variables that start as zero.
    pub(crate) zeroed: u64,
}

impl Sizes {
    /// Returns what the image takes in flash.
    pub(crate) fn flash(&self) -> u64 {
        self.text + self.constants + self.data
    }
}

const WRITABLE: u32 = 1;
const LOADED: u32 = 2;
const EXECUTABLE: u32 = 4;
const NOT_IN_FILE: u32 = 8;

/// One section of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: u32,
    pub(crate) bytes: &'a [u8],
    kind: u32,
    flags: u32,
    size: u32,
}

impl Section<'_> {
    /// Whether the code at `address` lies in it.
    pub(crate) fn holds(&self, address: u32) -> bool {
        self.flags & EXECUTABLE != 0 && address >= self.address && address - self.address < self.size
    }
}

/// Reads the section table of a little-endian 32-bit ELF file.
///
/// # Errors
/// When it is not one.
pub(crate) fn sections(file: &[u8]) -> Result<Vec<Section<'_>>, String> {
    const HEADER_BYTES: usize = 40;
    if file.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 1, 1]) {
        return Err("not a little-endian 32-bit ELF file".into());
    }
    let cut = || "the ELF file is cut short".to_owned();
    let table = word(file, 32).ok_or_else(cut)? as usize;
    let entry_bytes = half(file, 46).ok_or_else(cut)?;
    let count = half(file, 48).ok_or_else(cut)?;
    if entry_bytes < HEADER_BYTES {
        return Err(format!("a section header of {entry_bytes} bytes"));
    }
    let header = |number: usize| {
        let start = table + number * entry_bytes;
        file.get(start..start + HEADER_BYTES)
    };
    // The names of the sections lie in one of them.
    let names = half(file, 50).and_then(header).and_then(|names| word(names, 16)).unwrap_or_default() as usize;
    let mut sections = Vec::new();
    for number in 0..count {
        let header = header(number).ok_or_else(cut)?;
        let field = |at| word(header, at).ok_or_else(cut);
        let (kind, flags, address, offset, size) = (field(4)?, field(8)?, field(12)?, field(16)? as usize, field(20)?);
        let name = file.get(names + field(0)? as usize..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().and_then(|name| core::str::from_utf8(name).ok());
        let bytes = if kind == NOT_IN_FILE { None } else { file.get(offset..offset.saturating_add(size as usize)) };
        let (name, bytes) = (name.unwrap_or_default(), bytes.unwrap_or_default());
        sections.push(Section { name, address, bytes, kind, flags, size });
    }
    Ok(sections)
}

/// Adds the sections of a little-endian 32-bit ELF file up.
///
/// # Errors
/// When it is not one.
pub(crate) fn sizes(file: &[u8]) -> Result<Sizes, String> {
    let mut sizes = Sizes::default();
    for Section { kind, flags, size, .. } in sections(file)? {
        if flags & LOADED != 0 {
            let place = match (kind, flags) {
                (NOT_IN_FILE, _) => &mut sizes.zeroed,
                (_, flags) if flags & EXECUTABLE != 0 => &mut sizes.text,
                (_, flags) if flags & WRITABLE != 0 => &mut sizes.data,
                _ => &mut sizes.constants,
            };
            *place += u64::from(size);
        }
    }
    Ok(sizes)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of nothing but a section table; each section is kind, flags and size.
    fn file(sections: &[(u32, u32, u32)]) -> Vec<u8> {
        let mut file = vec![0; 52];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1, 1]);
        file[32] = 52;
        file[46] = 40;
        file[48] = sections.len().to_le_bytes()[0];
        for (kind, flags, size) in sections {
            for field in [0, *kind, *flags, 0, 0, *size, 0, 0, 0, 0] {
                file.extend(field.to_le_bytes());
            }
        }
        file
    }

    #[test]
    fn sections_are_counted_where_they_go() {
        let sections =
            [(0, 0, 0), (1, LOADED | EXECUTABLE, 100), (1, LOADED, 20), (1, LOADED | WRITABLE, 3), (8, 3, 7)];
        let found = sizes(&file(&sections)).unwrap();
        assert_eq!(found, Sizes { text: 100, constants: 20, data: 3, zeroed: 7 });
        assert_eq!(found.flash(), 123);
    }

    #[test]
    fn what_is_not_loaded_does_not_count() {
        assert_eq!(sizes(&file(&[(1, 0, 999)])), Ok(Sizes::default()));
    }

    #[test]
    fn a_file_that_is_no_elf_or_cut_short_is_an_error() {
        let whole = file(&[(1, LOADED, 20)]);
        assert!(sizes(b"").is_err());
        assert!(sizes(b"\x7fELF\x02\x01 and so on").is_err());
        for length in 6..whole.len() {
            assert!(sizes(&whole[..length]).is_err(), "{length}");
        }
    }
}
