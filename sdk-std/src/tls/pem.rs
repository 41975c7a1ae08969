//! PEM texts as they come from files, environment variables and other tools.

use rustls::pki_types::pem;
use zeroize::Zeroizing;

/// Longest label of a section with its dashes.
const LABEL: usize = 64;

/// Returns `text` with its line ends in place (RFC 7468, section 3): environment variables and configuration files may
/// have `\n`, blanks or nothing instead.
pub(super) fn mended(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let labels = text.windows(2).filter(|pair| pair == b"--").count();
    // Reserved in one piece: a vector that grows leaves copies behind.
    let mut mended = Zeroizing::new(Vec::with_capacity(text.len() + labels));
    let (mut rest, mut inside) = (text, false);
    while let Some((first, behind)) = rest.split_first() {
        if let Some(label) = label(rest) {
            inside = label.starts_with(b"-----BEGIN");
            mended.push(b'\n');
            mended.extend_from_slice(label);
            mended.push(b'\n');
            rest = rest.get(label.len()..).unwrap_or_default();
            continue;
        }
        rest = behind;
        match first {
            b'\\' if matches!(behind, [b'n' | b'r', ..]) => {
                mended.push(b'\n');
                rest = behind.get(1..).unwrap_or_default();
            }
            b' ' | b'\t' if inside => {}
            other => mended.push(*other),
        }
    }
    mended
}

/// Returns the line that begins or ends a section, if `text` begins with one.
fn label(text: &[u8]) -> Option<&[u8]> {
    let name = text.strip_prefix(b"-----BEGIN ").or_else(|| text.strip_prefix(b"-----END "))?;
    let name = name.get(..name.len().min(LABEL)).unwrap_or_default();
    let len = name.windows(5).position(|dashes| dashes == b"-----")?;
    let before = if text.starts_with(b"-----BEGIN ") { 11 } else { 9 };
    text.get(..before + len + 5)
}

/// Describes why a text does not contain `what`, without quoting it: it may be a key.
pub(super) fn problem(error: &pem::Error, text: &[u8], what: &str) -> String {
    let encrypted = text.windows(9).any(|part| part == b"ENCRYPTED");
    match error {
        _ if encrypted => String::from(
            "it is encrypted, and no password can be entered; store it decrypted with mode 600, or in a token",
        ),
        pem::Error::MissingSectionEnd { .. } => String::from("a section has no line -----END ...-----"),
        pem::Error::IllegalSectionStart { .. } => {
            String::from("a line begins with -----BEGIN and does not end with -----")
        }
        pem::Error::Base64Decode(_) => String::from("a section is not base64"),
        pem::Error::NoItemsFound => format!("there is no {what} in it"),
        pem::Error::Io(error) => format!("it cannot be read: {}", error.kind()),
        pem::Error::SectionTooLarge | _ => String::from("it is no PEM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_put_where_they_belong() {
        let whole = "-----BEGIN A B-----\nAAEC\nAwQF\n-----END A B-----\n";
        let lines = |text: &[u8]| {
            let text = String::from_utf8(mended(text).to_vec()).unwrap();
            text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let bare = ["-----BEGIN A B-----", "AAECAwQF", "-----END A B-----"];
        assert_eq!(lines(whole.as_bytes()), ["-----BEGIN A B-----", "AAEC", "AwQF", "-----END A B-----"]);
        assert_eq!(lines(whole.replace('\n', "\\n").as_bytes()), lines(whole.as_bytes()));
        assert_eq!(lines(whole.replace('\n', "\\r\\n").as_bytes()), lines(whole.as_bytes()));
        assert_eq!(lines(whole.replace('\n', " ").as_bytes()), bare);
        assert_eq!(lines(whole.replace('\n', "").as_bytes()), bare);
        assert_eq!(
            lines(whole.replace('\n', "\n\t ").as_bytes()),
            ["-----BEGIN A B-----", "AAEC", "AwQF", "-----END A B-----"].to_vec()
        );
        for text in ["", "-----BEGIN ", "-----BEGIN A", "-----END A----", "\\", "a b\\x"] {
            assert_eq!(&*mended(text.as_bytes()), text.as_bytes());
        }
    }
}
