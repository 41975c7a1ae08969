//! The forms in which a secret may show up in a text.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes of a secret that are enough to know it again.
const WINDOW: usize = 12;

/// Returns what must not be in a text that keeps `secret`: parts of it as text, escaped, as hexadecimal and decimal numbers,
/// in base64 and percent-encoded.
pub(crate) fn forms(secret: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    let window = secret.len().min(WINDOW);
    for at in [0, (secret.len() - window) / 2, secret.len() - window] {
        let part = &secret[at..at + window];
        if let Ok(text) = std::str::from_utf8(part) {
            forms.push(text.to_owned());
        }
        let list = |one: &dyn Fn(&u8) -> String, between| part.iter().map(one).collect::<Vec<_>>().join(between);
        forms.push(part.escape_ascii().to_string());
        for (between, before) in [("", ""), (" ", ""), (", ", "0x"), (":", ""), ("", "%"), ("", "\\x")] {
            forms.push(list(&|byte| format!("{before}{byte:02x}"), between));
            forms.push(list(&|byte| format!("{before}{byte:02X}"), between));
        }
        forms.push(list(&|byte| byte.to_string(), ", "));
        forms.push(list(&|byte| byte.to_string(), ","));
        let encoded = |byte: &u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        };
        forms.push(list(&encoded, ""));
        // Whatever stands before it in the same text.
        for shift in 0..3 {
            let shifted = [&[0; 2][..shift], part].concat();
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                // Without the digits that what stands around has a share in.
                forms.push(text[if shift == 0 { 0 } else { shift + 1 }..text.len() - 1].to_owned());
            }
        }
    }
    forms.retain(|form| !form.is_empty());
    forms.sort();
    forms.dedup();
    forms
}
