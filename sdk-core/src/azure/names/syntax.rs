//! The syntax of each name. All of it is `const`, so that a constant configuration is checked when it is compiled.

use super::{Flaw, LABEL_MAX, Name, NameError};

/// Checks a hub's host name: only a plain DNS name.
///
/// It is made of labels of letters, digits and inner hyphens with dots between them, at most
/// [`HOST_MAX`](super::HOST_MAX) bytes. Refused are ports, paths, user parts, white space, control characters, a
/// trailing dot, addresses (a last label of digits only), and labels that begin with `xn--`: hub names are ASCII, so
/// such a label would be a look-alike.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_hub_name(host: &str) -> Result<(), NameError> {
    match check_host(Name::Hub, host) {
        Ok(false) => Ok(()),
        Ok(true) => Err(NameError { name: Name::Hub, flaw: Flaw::Address }),
        Err(error) => Err(error),
    }
}

/// Checks a gateway's host name: as [`check_hub_name`], but also accepts a dotted IPv4 address.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_gateway_name(host: &str) -> Result<(), NameError> {
    match check_host(Name::Gateway, host) {
        Ok(numeric) if numeric && !is_ipv4(host.as_bytes()) => {
            Err(NameError { name: Name::Gateway, flaw: Flaw::Address })
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks a device id: 1 to [`DEVICE_ID_MAX`](super::DEVICE_ID_MAX) ASCII letters, digits and
/// ``- : . % _ * ? ! ( ) , = @ ; $ '``.
///
/// That is the set of the IoT Hub identity registry without `#` and `+`, which are wildcards in MQTT topics; `/`,
/// white space and control characters are outside it anyway.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_device_id(id: &str) -> Result<(), NameError> {
    check(Name::Device, id)
}

/// Checks a module id: the set of [`check_device_id`], at most [`MODULE_ID_MAX`](super::MODULE_ID_MAX) bytes.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_module_id(id: &str) -> Result<(), NameError> {
    check(Name::Module, id)
}

/// Checks a registration id: ASCII letters, digits and `- . _ :`, the last one a letter, a digit or a hyphen.
///
/// It has 1 to [`REGISTRATION_ID_MAX`](super::REGISTRATION_ID_MAX) bytes. The service ignores the case of letters.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_registration_id(id: &str) -> Result<(), NameError> {
    if let Err(error) = check(Name::Registration, id) {
        return Err(error);
    }
    match id.as_bytes() {
        [before @ .., byte] if !byte.is_ascii_alphanumeric() && *byte != b'-' => {
            Err(NameError { name: Name::Registration, flaw: Flaw::Character { at: before.len(), byte: *byte } })
        }
        _ => Ok(()),
    }
}

/// Checks an id scope: 1 to [`ID_SCOPE_MAX`](super::ID_SCOPE_MAX) ASCII letters and digits, such as `0ne00111111`.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_id_scope(scope: &str) -> Result<(), NameError> {
    check(Name::IdScope, scope)
}

/// Checks a model id: a digital twin model identifier such as `dtmi:com:example:Thermostat;1`.
///
/// Segments begin with a letter, go on with letters, digits and underscores, and do not end in an underscore. The
/// version is one to nine digits without a leading zero, and may have a minor part after a dot.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_model_id(id: &str) -> Result<(), NameError> {
    if let Err(error) = check(Name::Model, id) {
        return Err(error);
    }
    if let [b'd', b't', b'm', b'i', b':', rest @ ..] = id.as_bytes()
        && let (path, Some(version)) = cut(rest, b';')
        && is_path(path)
        && is_dotted_version(version)
    {
        return Ok(());
    }
    Err(NameError { name: Name::Model, flaw: Flaw::Form })
}

/// Checks product information: any text of at most [`PRODUCT_MAX`](super::PRODUCT_MAX) bytes, also none.
///
/// # Errors
/// [`NameError`] for a longer one.
pub const fn check_product(text: &str) -> Result<(), NameError> {
    if text.is_empty() { Ok(()) } else { check(Name::Product, text) }
}

/// Checks an operation id that the provisioning service gave: 1 to [`OPERATION_ID_MAX`](super::OPERATION_ID_MAX) visible
/// ASCII characters.
///
/// # Errors
/// [`NameError`] naming the first flaw.
pub const fn check_operation_id(id: &str) -> Result<(), NameError> {
    check(Name::Operation, id)
}

/// Checks length and characters.
const fn check(name: Name, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError { name, flaw: Flaw::Empty });
    }
    if text.len() > name.max() {
        return Err(NameError { name, flaw: Flaw::TooLong { len: text.len() } });
    }
    let (mut rest, mut at) = (text.as_bytes(), 0_usize);
    while let [byte, behind @ ..] = rest {
        if !takes(name, *byte) {
            return Err(NameError { name, flaw: Flaw::Character { at, byte: *byte } });
        }
        (rest, at) = (behind, at.wrapping_add(1));
    }
    Ok(())
}

/// Whether a name of this kind may have the byte.
const fn takes(name: Name, byte: u8) -> bool {
    let plain = byte.is_ascii_alphanumeric();
    match name {
        Name::Hub | Name::Gateway => plain || matches!(byte, b'-' | b'.'),
        Name::Device | Name::Module => {
            plain
                || matches!(
                    byte,
                    b'-' | b':'
                        | b'.'
                        | b'%'
                        | b'_'
                        | b'*'
                        | b'?'
                        | b'!'
                        | b'('
                        | b')'
                        | b','
                        | b'='
                        | b'@'
                        | b';'
                        | b'$'
                        | b'\''
                )
        }
        Name::Registration => plain || matches!(byte, b'-' | b'.' | b'_' | b':'),
        Name::IdScope => plain,
        Name::Model => plain || matches!(byte, b':' | b';' | b'_' | b'.'),
        Name::Operation => byte.is_ascii_graphic(),
        Name::Product => true,
    }
}

/// Checks the form of a host name and returns whether its last label makes resolvers read it as an address.
const fn check_host(name: Name, host: &str) -> Result<bool, NameError> {
    if let Err(error) = check(name, host) {
        return Err(error);
    }
    let (mut rest, mut at) = (host.as_bytes(), 0_usize);
    loop {
        let (label, behind) = cut(rest, b'.');
        if matches!(label, [] | [b'-', ..] | [.., b'-']) || label.len() > LABEL_MAX {
            return Err(NameError { name, flaw: Flaw::Label { at } });
        }
        if let [b'x' | b'X', b'n' | b'N', b'-', b'-', ..] = label {
            return Err(NameError { name, flaw: Flaw::Punycode { at } });
        }
        let Some(behind) = behind else { return Ok(is_number(label)) };
        (rest, at) = (behind, at.wrapping_add(label.len()).wrapping_add(1));
    }
}

/// Splits at the first `separator`, which is removed; without one the second part is empty.
const fn cut(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let (mut rest, mut at) = (bytes, 0_usize);
    while let [byte, behind @ ..] = rest {
        if *byte == separator {
            return match bytes.split_at_checked(at) {
                Some((before, _)) => (before, Some(behind)),
                None => (bytes, None),
            };
        }
        (rest, at) = (behind, at.wrapping_add(1));
    }
    (bytes, None)
}

/// Whether resolvers read the label as a number: digits, or hexadecimal after `0x`.
const fn is_number(label: &[u8]) -> bool {
    match label {
        [b'0', b'x' | b'X', digits @ ..] => all_digits(digits, true),
        digits => all_digits(digits, false),
    }
}

const fn all_digits(bytes: &[u8], hexadecimal: bool) -> bool {
    let mut rest = bytes;
    while let [byte, behind @ ..] = rest {
        if !(byte.is_ascii_digit() || hexadecimal && byte.is_ascii_hexdigit()) {
            return false;
        }
        rest = behind;
    }
    true
}

/// Whether it is an IPv4 address of four decimal numbers (RFC 6943, section 3.1.1, strict form).
const fn is_ipv4(bytes: &[u8]) -> bool {
    let (mut rest, mut parts) = (bytes, 1_u8);
    loop {
        let (part, behind) = cut(rest, b'.');
        let octet = match part {
            [b'0'] => true,
            [b'0', ..] => false,
            [_] | [_, _] | [b'1', _, _] | [b'2', b'0'..=b'4', _] | [b'2', b'5', b'0'..=b'5'] => all_digits(part, false),
            _ => false,
        };
        if !octet {
            return false;
        }
        let Some(behind) = behind else { return parts == 4 };
        (rest, parts) = (behind, parts.wrapping_add(1));
    }
}

/// Whether segments with colons between them make the path of a model id.
const fn is_path(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let (segment, behind) = cut(rest, b':');
        let [first, ..] = segment else { return false };
        if !first.is_ascii_alphabetic() || matches!(segment, [.., b'_']) {
            return false;
        }
        let mut letters = segment;
        while let [byte, more @ ..] = letters {
            if !byte.is_ascii_alphanumeric() && *byte != b'_' {
                return false;
            }
            letters = more;
        }
        let Some(behind) = behind else { return true };
        rest = behind;
    }
}

const fn is_dotted_version(bytes: &[u8]) -> bool {
    match cut(bytes, b'.') {
        (major, Some([b'0'])) | (major, None) => is_version(major),
        (major, Some(minor)) => is_version(major) && is_version(minor),
    }
}

const fn is_version(bytes: &[u8]) -> bool {
    match bytes {
        [b'1'..=b'9', ..] => bytes.len() <= 9 && all_digits(bytes, false),
        _ => false,
    }
}
