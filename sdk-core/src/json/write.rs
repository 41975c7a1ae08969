//! Strings of JSON, written.

use crate::text::{Sink, SinkFull, hex_digit};

/// Writes `text` as a string, with what cannot stand in one escaped (RFC 8259, section 7).
pub(crate) fn put_string(text: &str, out: &mut dyn Sink) -> Result<(), SinkFull> {
    out.put(b"\"")?;
    for character in text.chars() {
        let byte = u32::from(character).to_le_bytes()[0];
        match character {
            '\0'..' ' => {
                out.put(&[b'\\', b'u', b'0', b'0', hex_digit(byte >> 4, b'a'), hex_digit(byte & 15, b'a')])?;
            }
            '"' | '\\' => out.put(&[b'\\', byte])?,
            other => out.put(other.encode_utf8(&mut [0; 4]).as_bytes())?,
        }
    }
    out.put(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Slice;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_are_written_as_json_reads_them(text in "(\\PC|[\"\\\\\x00-\x1f\u{7f}é€])*") {
            let mut buffer = [0; 2048];
            let mut out = Slice::new(&mut buffer);
            put_string(&text, &mut out).unwrap();
            let len = out.len();
            prop_assert_eq!(serde_json::from_slice::<std::string::String>(&buffer[..len]).unwrap(), text);
        }
    }
}
