//! A hub's limits of reported properties, checked before a patch is queued.

use core::fmt;

use crate::json::{JsonError, Reader, Str, Token};

/// Deepest nesting of properties (IoT Hub, `iot-hub-devguide-device-twins.md`).
pub const DEPTH_MAX: u8 = 10;
/// Longest key, in bytes (the same page).
pub const KEY_MAX: usize = 1024;
/// Longest string, in bytes (the same page).
pub const STRING_MAX: usize = 4096;
/// Largest section of reported properties, in bytes as the service counts them (the same page).
pub const REPORTED_MAX: usize = 32 * 1024;
/// Integers reach to this far below zero (the same page).
pub const INTEGER_LOWEST: i64 = -4_503_599_627_370_496;
/// Integers reach to this far above zero (the same page).
pub const INTEGER_HIGHEST: i64 = 4_503_599_627_370_495;

/// Why a patch of reported properties was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportError {
    /// It is not JSON.
    Json(JsonError),
    /// It is JSON, but not an object.
    NotAnObject,
    /// It nests deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A key is empty, longer than [`KEY_MAX`], or has a control character, a dot, a dollar sign or a space.
    BadKey,
    /// A string is longer than [`STRING_MAX`].
    LongString,
    /// An integer is beyond [`INTEGER_LOWEST`] or [`INTEGER_HIGHEST`].
    LargeInteger,
    /// It is larger than the limit of the service or the frontend's buffer.
    TooLarge {
        /// Bytes that count.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The queue has no room; report again after [`crate::iothub::Event::Reported`].
    Full,
    /// The link does not have [`crate::Subscriptions::TWIN_RESPONSES`].
    NotSubscribed,
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "reported properties: {error}"),
            Self::NotAnObject => f.write_str("reported properties must be a JSON object"),
            Self::TooDeep => write!(f, "reported properties nest deeper than {DEPTH_MAX} levels"),
            Self::BadKey => write!(
                f,
                "a key of reported properties is empty, longer than {KEY_MAX} bytes, or has a control character, '.', '$' or ' '"
            ),
            Self::LongString => write!(f, "a string of reported properties is longer than {STRING_MAX} bytes"),
            Self::LargeInteger => {
                write!(f, "an integer of reported properties is not within {INTEGER_LOWEST} to {INTEGER_HIGHEST}")
            }
            Self::TooLarge { size, limit } => {
                write!(f, "the reported properties count {size} bytes; the limit is {limit}")
            }
            Self::Full => f.write_str("no room for more reported properties; wait for the queued ones"),
            Self::NotSubscribed => f.write_str("the link does not subscribe to twin responses"),
        }
    }
}

impl core::error::Error for ReportError {}

/// Checks a patch as the service would.
pub(super) fn check(patch: &[u8]) -> Result<(), ReportError> {
    let mut reader = Reader::new(patch);
    let mut depth = 0_u8;
    let mut size = 0_usize;
    let mut first = true;
    while let Some(token) = reader.next().map_err(ReportError::Json)? {
        if core::mem::take(&mut first) && token != Token::ObjectStart {
            return Err(ReportError::NotAnObject);
        }
        let bytes = match token {
            Token::ObjectStart | Token::ArrayStart => {
                depth = depth.saturating_add(1);
                // The object around all properties is no level of theirs.
                if depth > DEPTH_MAX.saturating_add(1) {
                    return Err(ReportError::TooDeep);
                }
                0
            }
            Token::ObjectEnd | Token::ArrayEnd => {
                depth = depth.saturating_sub(1);
                0
            }
            Token::Key(key) => key_len(key)?,
            Token::String(text) => {
                let len = len(text);
                if len > STRING_MAX {
                    return Err(ReportError::LongString);
                }
                len
            }
            // Numbers count 8 bytes, truth values 4.
            Token::Number(number) => {
                let integer = number.raw().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
                let range = INTEGER_LOWEST..=INTEGER_HIGHEST;
                if integer && !number.as_i64().is_some_and(|number| range.contains(&number)) {
                    return Err(ReportError::LargeInteger);
                }
                8
            }
            Token::Bool(_) => 4,
            Token::Null => 0,
        };
        size = size.saturating_add(bytes);
    }
    if size > REPORTED_MAX { Err(ReportError::TooLarge { size, limit: REPORTED_MAX }) } else { Ok(()) }
}

fn key_len(key: Str<'_>) -> Result<usize, ReportError> {
    let bad = |character: char| character.is_control() || matches!(character, '.' | '$' | ' ');
    let len = len(key);
    if len == 0 || len > KEY_MAX || key.chars().any(bad) { Err(ReportError::BadKey) } else { Ok(len) }
}

fn len(text: Str<'_>) -> usize {
    text.chars().fold(0_usize, |len, character| len.saturating_add(character.len_utf8()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;
    use std::format;

    #[test]
    fn a_patch_is_checked_as_the_service_would() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let table = [
            (r#"{"a":1,"b":{"c":"d","e":null},"f":[1,2,true]}"#.to_owned(), Ok(())),
            ("{}".to_owned(), Ok(())),
            ("[1]".to_owned(), Err(ReportError::NotAnObject)),
            ("7".to_owned(), Err(ReportError::NotAnObject)),
            (nested(10), Ok(())),
            (nested(11), Ok(())),
            (nested(12), Err(ReportError::TooDeep)),
            (r#"{"a.b":1}"#.to_owned(), Err(ReportError::BadKey)),
            (r#"{"$version":1}"#.to_owned(), Err(ReportError::BadKey)),
            (r#"{"a b":1}"#.to_owned(), Err(ReportError::BadKey)),
            (r#"{"a\u0001":1}"#.to_owned(), Err(ReportError::BadKey)),
            (r#"{"a\u0085":1}"#.to_owned(), Err(ReportError::BadKey)),
            (r#"{"":1}"#.to_owned(), Err(ReportError::BadKey)),
            (format!(r#"{{"a":"{}"}}"#, "x".repeat(4096)), Ok(())),
            (format!(r#"{{"a":"{}"}}"#, "x".repeat(4097)), Err(ReportError::LongString)),
            (r#"{"a":4503599627370495,"b":-4503599627370496,"c":1e300,"d":0.5}"#.to_owned(), Ok(())),
            (r#"{"a":4503599627370496}"#.to_owned(), Err(ReportError::LargeInteger)),
            (r#"{"a":99999999999999999999999}"#.to_owned(), Err(ReportError::LargeInteger)),
        ];
        for (patch, expected) in table {
            assert_eq!(check(patch.as_bytes()), expected, "{patch}");
        }
        let long = "x".repeat(4000);
        let large: std::vec::Vec<_> = (0..9).map(|at| format!("\"k{at}\":\"{long}\"")).collect();
        let large = format!("{{{}}}", large.join(","));
        let expected = ReportError::TooLarge { size: 9 * 4002, limit: REPORTED_MAX };
        assert_eq!(check(large.as_bytes()), Err(expected));
        assert!(matches!(check(b"{\"a\":"), Err(ReportError::Json(_))));
    }
}
