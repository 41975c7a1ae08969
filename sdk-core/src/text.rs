//! Text that is composed while it is written, without a buffer for the whole.
//!
//! User names, passwords, topics and strings to sign are short pieces of the configuration, percent-encoded here and
//! there. A [`Text`] lists the pieces; it knows its length before it is written, which MQTT needs.

use core::fmt;

use crate::time::div_rem;

/// A receiver of bytes.
pub trait Sink {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// [`SinkFull`] if they do not fit; the earlier content is then invalid.
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull>;
}

/// A [`Sink`] has no room for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkFull;

impl fmt::Display for SinkFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer has no room for the bytes offered")
    }
}

impl core::error::Error for SinkFull {}

/// One piece of a [`Text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part<'a> {
    /// Bytes as they are.
    Plain(&'a str),
    /// Percent-encoded: all but `A-Z a-z 0-9 - _ . ~` becomes `%XX` in upper-case hexadecimal (RFC 3986, section 2.3).
    Encoded(&'a str),
    /// A decimal number.
    Number(u64),
    /// Sixteen lower-case hexadecimal digits.
    Hex(u64),
    /// Base64 with padding (RFC 4648, section 4), then percent-encoded: the form of `sig=` in a SAS token.
    EncodedBase64(&'a [u8]),
}

impl Part<'_> {
    fn write(&self, out: &mut dyn Sink) -> Result<(), SinkFull> {
        match *self {
            Self::Plain("") => Ok(()),
            Self::Plain(text) => out.put(text.as_bytes()),
            Self::Encoded(text) => put_encoded(text.as_bytes(), out),
            Self::Number(number) => put_number(number, out),
            Self::Hex(number) => put_hex(number, out),
            Self::EncodedBase64(bytes) => put_encoded_base64(bytes, out),
        }
    }
}

/// A text of at most [`Text::PARTS`] pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    parts: [Part<'a>; Text::PARTS],
    used: usize,
}

impl<'a> Text<'a> {
    /// Number of pieces a text can have.
    pub const PARTS: usize = 12;

    /// The empty text.
    pub const EMPTY: Self = Self { parts: [Part::Plain(""); Text::PARTS], used: 0 };

    /// Composes a text of `parts`; those beyond [`Text::PARTS`] do not compile.
    #[must_use]
    pub fn of<const N: usize>(parts: [Part<'a>; N]) -> Self {
        const { assert!(N <= Text::PARTS, "a text has at most Text::PARTS pieces") };
        Self::list(&parts)
    }

    /// Implements [`Text::of`] once for all numbers of pieces.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn list(parts: &[Part<'a>]) -> Self {
        let mut text = Self { used: parts.len(), ..Self::EMPTY };
        for (slot, part) in text.parts.iter_mut().zip(parts) {
            *slot = *part;
        }
        text
    }

    /// Returns the number of bytes that [`Text::write`] writes.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut count = Counter(0);
        for part in self.parts.iter().take(self.used) {
            if let Part::Plain(text) = part {
                count.0 = count.0.saturating_add(text.len());
            } else {
                // A counter is never full.
                let _ = part.write(&mut count);
            }
        }
        count.0
    }

    /// Returns true if the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the text.
    ///
    /// # Errors
    /// [`SinkFull`] from the sink.
    pub fn write(&self, out: &mut dyn Sink) -> Result<(), SinkFull> {
        for part in self.parts.iter().take(self.used) {
            part.write(out)?;
        }
        Ok(())
    }

    /// Writes the text into `buffer` and returns it as a string, or `None` if it does not fit.
    pub fn to_str<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b str> {
        let mut slice = Slice::new(buffer);
        self.write(&mut slice).ok()?;
        let written = slice.len;
        core::str::from_utf8(slice.buffer.get(..written)?).ok()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::of([Part::Plain(text)])
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(&mut Shown(f)).map_err(|_| fmt::Error)
    }
}

/// A [`Sink`] whose content can be read.
pub(crate) struct Shown<'f, 'g>(pub(crate) &'f mut fmt::Formatter<'g>);

impl Sink for Shown<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        let text = core::str::from_utf8(bytes).map_err(|_| SinkFull)?;
        self.0.write_str(text).map_err(|_| SinkFull)
    }
}

/// A [`Sink`] over a slice.
#[derive(Debug)]
pub struct Slice<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> Slice<'b> {
    /// Starts at the front of `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Sink for Slice<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        let end = self.len.checked_add(bytes.len()).ok_or(SinkFull)?;
        let place = self.buffer.get_mut(self.len..end).ok_or(SinkFull)?;
        for (to, from) in place.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len = end;
        Ok(())
    }
}

/// A [`Sink`] that only counts.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a count and nothing else")]
pub struct Counter(pub usize);

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}

fn put_encoded(bytes: &[u8], out: &mut dyn Sink) -> Result<(), SinkFull> {
    let mut rest = bytes;
    loop {
        let mut run = 0_usize;
        for byte in rest {
            if !is_unreserved(*byte) {
                break;
            }
            run = run.saturating_add(1);
        }
        let (plain, behind) = rest.split_at_checked(run).unwrap_or((rest, &[]));
        if !plain.is_empty() {
            out.put(plain)?;
        }
        let Some((byte, behind)) = behind.split_first() else { return Ok(()) };
        out.put(&[b'%', hex_digit(byte >> 4, b'A'), hex_digit(byte & 15, b'A')])?;
        rest = behind;
    }
}

/// Returns whether percent-encoding keeps the byte (RFC 3986, section 2.3).
fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~')
}

fn put_number(mut number: u64, out: &mut dyn Sink) -> Result<(), SinkFull> {
    let mut digits = [b'0'; 20];
    let mut used = 0_usize;
    for place in digits.iter_mut().rev() {
        let (tenth, digit) = div_rem(number, 10);
        *place = b'0'.wrapping_add(digit.to_le_bytes()[0]);
        number = tenth;
        used = used.saturating_add(1);
        if number == 0 {
            break;
        }
    }
    out.put(digits.get(digits.len().saturating_sub(used)..).unwrap_or(&[]))
}

fn put_hex(number: u64, out: &mut dyn Sink) -> Result<(), SinkFull> {
    for byte in number.to_be_bytes() {
        out.put(&[hex_digit(byte >> 4, b'a'), hex_digit(byte & 15, b'a')])?;
    }
    Ok(())
}

fn put_encoded_base64(bytes: &[u8], out: &mut dyn Sink) -> Result<(), SinkFull> {
    let mut word = 0_u32;
    let mut bits = 0_u32;
    for byte in bytes {
        word = (word << 8) | u32::from(*byte);
        bits = bits.wrapping_add(8);
        while bits >= 6 {
            bits = bits.wrapping_sub(6);
            put_base64_digit(word.wrapping_shr(bits), out)?;
        }
    }
    if bits > 0 {
        // The last group has 2 or 4 bits left, and lacks 2 or 1 digits.
        put_base64_digit(word.wrapping_shl(6_u32.wrapping_sub(bits)), out)?;
        out.put(if bits == 2 { b"%3D%3D" } else { b"%3D" })?;
    }
    Ok(())
}

/// Writes the digit of the lowest six bits, percent-encoded.
fn put_base64_digit(word: u32, out: &mut dyn Sink) -> Result<(), SinkFull> {
    match base64_digit(word.to_le_bytes()[0] & 63) {
        b'+' => out.put(b"%2B"),
        b'/' => out.put(b"%2F"),
        plain => out.put(&[plain]),
    }
}

/// Returns the base64 of `bytes`, padded (RFC 4648, section 4), which has `N` digits.
pub(crate) fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut digits = [b'='; N];
    let mut slots = digits.iter_mut();
    let mut put = |word: u32| {
        if let Some(slot) = slots.next() {
            *slot = base64_digit(word.to_le_bytes()[0] & 63);
        }
    };
    let (mut word, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        word = (word << 8) | u32::from(*byte);
        bits = bits.wrapping_add(8);
        while bits >= 6 {
            bits = bits.wrapping_sub(6);
            put(word.wrapping_shr(bits));
        }
    }
    if bits > 0 {
        put(word.wrapping_shl(6_u32.wrapping_sub(bits)));
    }
    digits
}

fn base64_digit(value: u8) -> u8 {
    match value {
        0..=25 => b'A'.wrapping_add(value),
        26..=51 => b'a'.wrapping_add(value.wrapping_sub(26)),
        52..=61 => b'0'.wrapping_add(value.wrapping_sub(52)),
        62 => b'+',
        _ => b'/',
    }
}

/// Returns the hexadecimal digit of `nibble`, of which those from ten on are `ten` and what follows it.
pub(crate) fn hex_digit(nibble: u8, ten: u8) -> u8 {
    if nibble < 10 { b'0'.wrapping_add(nibble) } else { ten.wrapping_add(nibble.wrapping_sub(10)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: Text<'_>) -> std::string::String {
        let mut buffer = [0; 256];
        let written = std::string::String::from(text.to_str(&mut buffer).unwrap());
        assert_eq!(written.len(), text.len());
        written
    }

    #[test]
    fn parts_are_written_one_after_the_other() {
        let text = Text::of([Part::Plain("a/"), Part::Encoded("b/ c~é"), Part::Plain("?"), Part::Number(0)]);
        assert_eq!(shown(text), "a/b%2F%20c~%C3%A9?0");
        assert_eq!(shown(Text::of([Part::Number(u64::MAX)])), "18446744073709551615");
        assert_eq!(shown(Text::of([Part::Hex(0x00ab_cdef_0123_4567)])), "00abcdef01234567");
    }

    #[test]
    fn base64_is_padded_and_encoded() {
        assert_eq!(shown(Text::of([Part::EncodedBase64(b"")])), "");
        assert_eq!(shown(Text::of([Part::EncodedBase64(b"f")])), "Zg%3D%3D");
        assert_eq!(shown(Text::of([Part::EncodedBase64(b"fo")])), "Zm8%3D");
        assert_eq!(shown(Text::of([Part::EncodedBase64(b"foo")])), "Zm9v");
        assert_eq!(shown(Text::of([Part::EncodedBase64(&[0xfb, 0xff, 0xbf])])), "%2B%2F%2B%2F");
    }

    #[test]
    fn base64_fills_its_groups() {
        assert_eq!(&base64::<8>(b"foobar"), b"Zm9vYmFy");
        assert_eq!(&base64::<8>(b"fooba"), b"Zm9vYmE=");
        assert_eq!(&base64::<8>(b"foob"), b"Zm9vYg==");
        assert_eq!(&base64::<4>(&[0xfb, 0xff, 0xbf]), b"+/+/");
    }

    #[test]
    fn a_buffer_too_small_is_an_error_and_not_a_panic() {
        assert_eq!(Text::from("abc").to_str(&mut [0; 2]), None);
    }
}
