//! Cuts text at ASCII separators. The searches of `core` link panics, which a caller's checks cannot remove.

/// Splits `text` at the first `separator`, an ASCII character, which is removed.
pub(crate) fn split_once(text: &str, separator: u8) -> Option<(&str, &str)> {
    let (at, _) = find(text, |byte| byte == separator)?;
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, rest.get(1..)?))
}

/// Lists the parts of `text` between separators, ASCII characters: one more than there are separators.
pub(crate) fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let (part, behind) = split_once(text, separator).map_or((text, None), |(part, behind)| (part, Some(behind)));
        rest = behind;
        Some(part)
    })
}

/// Finds the first byte that `wanted` accepts, and its offset.
pub(crate) fn find(text: &str, wanted: impl Fn(u8) -> bool) -> Option<(usize, u8)> {
    let mut at = 0_usize;
    for byte in text.bytes() {
        if wanted(byte) {
            return Some((at, byte));
        }
        at = at.wrapping_add(1);
    }
    None
}

/// Parses `text`, only decimal digits, if its value is at most `u64::MAX`.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let mut number = 0_u64;
    for byte in text.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || number > u64::MAX / 10 {
            return None;
        }
        number = number.wrapping_mul(10).checked_add(u64::from(digit))?;
    }
    if text.is_empty() { None } else { Some(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn text_is_cut_as_the_standard_library_cuts_it(text in "[=;a\u{e9}]{0,12}") {
            prop_assert_eq!(split_once(&text, b'='), text.split_once('='));
            prop_assert_eq!(split(&text, b';').collect::<Vec<_>>(), text.split(';').collect::<Vec<_>>());
        }

        #[test]
        fn numbers_are_read_as_the_standard_library_reads_them(text in "[0-9]{0,21}|18446744073709551[56][0-9]{2}|[-+ 0-9]{0,4}") {
            prop_assert_eq!(decimal(&text), text.parse().ok().filter(|_| !text.starts_with('+')));
        }
    }
}
