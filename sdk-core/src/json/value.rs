//! What a reader hands out, and what it means.

use crate::scan;

/// A whole value as it is written in the document, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(pub(super) &'a str);

impl<'a> Value<'a> {
    /// Returns the JSON text of the value.
    #[must_use]
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Returns true for `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Returns true for an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// Returns the string, or `None` for a value of another kind.
    #[must_use]
    pub fn as_str(self) -> Option<Str<'a>> {
        self.0.strip_prefix('"')?.strip_suffix('"').map(Str)
    }

    /// Returns the number when it is written as an integer from 0 to `u64::MAX`.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        Number(self.0).as_u64()
    }
}

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a>(pub(super) &'a str);

impl<'a> Number<'a> {
    /// Returns the digits, sign, fraction and exponent as they are written.
    #[must_use]
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Returns the number when it is written as an integer from 0 to `u64::MAX`.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        scan::decimal(self.0)
    }

    /// Returns the number when it is written as an integer from `i64::MIN` to `i64::MAX`.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self.0.strip_prefix('-') {
            Some(digits) => 0_i64.checked_sub_unsigned(scan::decimal(digits)?),
            None => 0_i64.checked_add_unsigned(scan::decimal(self.0)?),
        }
    }
}

/// A string as it is written between its quotes; compare it with a `&str` to compare what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Str<'a>(pub(super) &'a str);

impl<'a> Str<'a> {
    /// Returns the text between the quotes with its escape sequences.
    #[must_use]
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Returns the text when it has no escape sequences.
    #[must_use]
    pub fn plain(self) -> Option<&'a str> {
        if scan::find(self.0, |byte| byte == b'\\').is_some() { None } else { Some(self.0) }
    }

    /// Returns the characters meant; half a surrogate pair becomes U+FFFD.
    pub fn chars(self) -> impl Iterator<Item = char> + 'a {
        let mut rest = self.0.chars();
        core::iter::from_fn(move || {
            let first = rest.next()?;
            if first != '\\' {
                return Some(first);
            }
            Some(match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let unit = hex4(&mut rest);
                    let mut ahead = rest.clone();
                    let pair =
                        matches!(unit, 0xd800..=0xdbff) && ahead.next() == Some('\\') && ahead.next() == Some('u');
                    let low = if pair { hex4(&mut ahead) } else { 0 };
                    if matches!(low, 0xdc00..=0xdfff) {
                        rest = ahead;
                        let high_bits = unit.wrapping_sub(0xd800) << 10;
                        char::from_u32((high_bits | low.wrapping_sub(0xdc00)).wrapping_add(0x1_0000))
                    } else {
                        char::from_u32(unit)
                    }
                    .unwrap_or(char::REPLACEMENT_CHARACTER)
                }
                same => same,
            })
        })
    }

    /// Writes the text meant into `buffer` and returns it, or `None` when it does not fit.
    pub fn unescape(self, buffer: &mut [u8]) -> Option<&str> {
        let mut len = 0_usize;
        for character in self.chars() {
            let end = len.checked_add(character.len_utf8())?;
            let place = buffer.get_mut(len..end)?;
            let mut bytes = [0; 4];
            character.encode_utf8(&mut bytes);
            for (to, from) in place.iter_mut().zip(bytes) {
                *to = from;
            }
            len = end;
        }
        core::str::from_utf8(buffer.get(..len)?).ok()
    }
}

impl PartialEq<str> for Str<'_> {
    fn eq(&self, other: &str) -> bool {
        self.chars().eq(other.chars())
    }
}

impl PartialEq<&str> for Str<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

/// Reads the four hexadecimal digits of an escape sequence, which the reader has checked.
fn hex4(rest: &mut core::str::Chars<'_>) -> u32 {
    let mut unit = 0;
    for digit in rest.by_ref().take(4) {
        unit = (unit << 4) | digit.to_digit(16).unwrap_or(0);
    }
    unit
}
