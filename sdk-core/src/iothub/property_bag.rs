//! Properties of a message, written into and read from the end of a topic.
//!
//! A bag is `key=value&key=value`, keys and values percent-encoded. Keys that begin with `$.` are system properties.

use core::fmt;

use crate::azure::timestamp;
use crate::scan;
use crate::text::{Part, Sink, Slice, Text};

/// Longest message id, in bytes (IoT Hub, message format).
pub const MESSAGE_ID_MAX: usize = 128;

/// The bag of a message whose body is JSON in UTF-8, as [`PropertyBag::json`] makes it.
pub const JSON: &str = "$.ct=application%2Fjson&$.ce=utf-8";

/// The bag of a message whose body is CBOR, as [`PropertyBag::cbor`] makes it.
pub const CBOR: &str = "$.ct=application%2Fcbor";

/// Application property that contains the creation time instead of `$.ctime` (IoT Hub, message format).
pub const CREATION_TIME_KEY: &str = "iothub-creation-time-utc";

/// A property was not added; the bag is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BagError {
    /// The encoded property does not fit the buffer.
    Full {
        /// Bytes the whole bag would have.
        needed: usize,
        /// Bytes the buffer has.
        capacity: usize,
    },
    /// The bag has this key already.
    Duplicate,
    /// The key is empty.
    EmptyKey,
    /// The key begins with `$`, as system properties do, or with `iothub-`, as those the service stamps.
    ReservedKey,
    /// The message id is empty or longer than [`MESSAGE_ID_MAX`].
    IdLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The message id has a byte outside its allowed set.
    IdCharacter {
        /// Its offset.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// The creation time or the expiry is not a UTC time such as `2020-04-10T05:24:22.471Z`.
    CreationTime,
    /// A bag that was made by other code has a byte that is not percent-encoded.
    NotEncoded {
        /// Its offset.
        at: usize,
        /// The byte.
        byte: u8,
    },
}

impl fmt::Display for BagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { needed, capacity } => {
                write!(f, "the properties need {needed} bytes when encoded; the buffer has {capacity}")
            }
            Self::Duplicate => f.write_str("the properties have this key already; give each key once"),
            Self::EmptyKey => f.write_str("the property key is empty"),
            Self::ReservedKey => f.write_str(
                "the property key begins with $ or iothub-, which is reserved for the service; choose another",
            ),
            Self::IdLength { len } => write!(f, "the message id is {len} bytes; 1 to {MESSAGE_ID_MAX} are allowed"),
            Self::IdCharacter { at, byte } => {
                write!(
                    f,
                    "the message id has the byte {byte:#04x} at offset {at}; allowed are letters, digits and -:.+%_#*?!(),=@;$'"
                )
            }
            Self::NotEncoded { at, byte } => {
                write!(f, "the properties have the byte {byte:#04x} at offset {at}, which must be percent-encoded")
            }
            Self::CreationTime => {
                f.write_str("the creation time is not a UTC time in the form 2020-04-10T05:24:22.471Z")
            }
        }
    }
}

impl core::error::Error for BagError {}

/// Writes a property bag into a caller's buffer.
///
/// Everything is percent-encoded, so no value can end its property, add another one or change the topic. Each key is
/// accepted once. A refused property leaves the bag unchanged.
///
/// # Examples
/// ```
/// use steadfast_core::iothub::property_bag::PropertyBag;
///
/// let mut buffer = [0; 64];
/// let mut bag = PropertyBag::new(&mut buffer);
/// bag.content_type("application/json")?;
/// bag.property("room", "a&b")?;
/// assert_eq!(bag.as_str(), "$.ct=application%2Fjson&room=a%26b");
/// # Ok::<(), steadfast_core::iothub::property_bag::BagError>(())
/// ```
#[derive(Debug)]
pub struct PropertyBag<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> PropertyBag<'b> {
    /// Starts an empty bag over `buffer`, whose size limits the encoded bag.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Sets the message id (`$.mid`): 1 to [`MESSAGE_ID_MAX`] letters, digits and `- : . + % _ # * ? ! ( ) , = @ ; $ '`.
    ///
    /// # Errors
    /// [`BagError`] for a bad id, a second one, or a full buffer.
    pub fn message_id(&mut self, id: &str) -> Result<(), BagError> {
        check_id(id)?;
        self.add("$.mid", id)
    }

    /// Sets the correlation id (`$.cid`), which often is the message id of a request.
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn correlation_id(&mut self, id: &str) -> Result<(), BagError> {
        self.add("$.cid", id)
    }

    /// Sets the user id (`$.uid`).
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn user_id(&mut self, id: &str) -> Result<(), BagError> {
        self.add("$.uid", id)
    }

    /// Sets the content type (`$.ct`), such as `application/json`. Routing on the body needs it and the encoding.
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn content_type(&mut self, value: &str) -> Result<(), BagError> {
        self.add("$.ct", value)
    }

    /// Sets the content encoding (`$.ce`), such as `utf-8`.
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn content_encoding(&mut self, value: &str) -> Result<(), BagError> {
        self.add("$.ce", value)
    }

    /// Sets content type and encoding to JSON in UTF-8: message routing queries read only such bodies (IoT Hub, message
    /// routing query syntax).
    ///
    /// # Errors
    /// [`BagError`] for a second content type or encoding, or a full buffer.
    pub fn json(&mut self) -> Result<(), BagError> {
        let before = self.len;
        self.content_type("application/json")?;
        self.content_encoding("utf-8").inspect_err(|_| self.len = before)
    }

    /// Sets the content type to CBOR.
    ///
    /// # Errors
    /// [`BagError`] for a second content type or a full buffer.
    pub fn cbor(&mut self) -> Result<(), BagError> {
        self.content_type("application/cbor")
    }

    /// Sets the content type to bytes of unknown format.
    ///
    /// # Errors
    /// [`BagError`] for a second content type or a full buffer.
    pub fn bytes(&mut self) -> Result<(), BagError> {
        self.content_type("application/octet-stream")
    }

    /// Sets the creation time (`$.ctime`), a UTC time such as `2020-04-10T05:24:22.471Z`.
    ///
    /// # Errors
    /// [`BagError`] for a bad time, a second one, or a full buffer.
    pub fn creation_time(&mut self, utc: &str) -> Result<(), BagError> {
        self.add_time("$.ctime", utc)
    }

    /// Sets the creation time (`$.ctime`) to so many milliseconds since 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn created_at(&mut self, unix_ms: u64) -> Result<(), BagError> {
        let utc = timestamp::utc(unix_ms);
        self.add("$.ctime", core::str::from_utf8(&utc).unwrap_or_default())
    }

    /// Sets the absolute expiry time for consumers of the message (`$.exp`), a UTC time such as
    /// `2020-04-10T05:24:22.471Z`. The link ignores it: [`crate::Message::expires_after`] limits the wait for delivery.
    ///
    /// # Errors
    /// [`BagError`] for a bad time, a second one, or a full buffer.
    pub fn expiry(&mut self, utc: &str) -> Result<(), BagError> {
        self.add_time("$.exp", utc)
    }

    /// Sets the interface id (`$.ifid`), by which the hub recognises messages of a security agent.
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn interface_id(&mut self, id: &str) -> Result<(), BagError> {
        self.add("$.ifid", id)
    }

    /// Sets the Plug and Play component the message comes from (`$.sub`).
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn component(&mut self, name: &str) -> Result<(), BagError> {
        self.add("$.sub", name)
    }

    /// Sets the output of an IoT Edge module (`$.on`).
    ///
    /// # Errors
    /// [`BagError`] for a second one or a full buffer.
    pub fn output_name(&mut self, name: &str) -> Result<(), BagError> {
        self.add("$.on", name)
    }

    /// Adds an application property. The value may be empty, and both may hold any character.
    ///
    /// A key must not start with `$` or, in any letter case, with `iothub-`, which are system properties; only
    /// `iothub-creation-time-utc` may be set by an application.
    ///
    /// # Errors
    /// [`BagError`] for a bad key, a repeated one, or a full buffer.
    pub fn property(&mut self, key: &str, value: &str) -> Result<(), BagError> {
        const STAMPED: &str = "iothub-";
        if key.is_empty() {
            return Err(BagError::EmptyKey);
        }
        let stamped = key.get(..STAMPED.len()).is_some_and(|start| start.eq_ignore_ascii_case(STAMPED));
        if key.starts_with('$') || (stamped && key != CREATION_TIME_KEY) {
            return Err(BagError::ReservedKey);
        }
        self.add(key, value)
    }

    fn add_time(&mut self, key: &str, utc: &str) -> Result<(), BagError> {
        if timestamp::unix_secs(utc).is_none() {
            return Err(BagError::CreationTime);
        }
        self.add(key, utc)
    }

    /// Returns the bag as encoded in a topic.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.buffer.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn add(&mut self, key: &str, value: &str) -> Result<(), BagError> {
        if properties(self.as_str()).any(|property| property.key == key) {
            return Err(BagError::Duplicate);
        }
        let separator = if self.len == 0 { "" } else { "&" };
        let name = match key.strip_prefix("$.") {
            Some(short) => [Part::Plain("$."), Part::Plain(short)],
            None => [Part::Encoded(key), Part::Plain("")],
        };
        let [prefix, name] = name;
        let text = Text::of([Part::Plain(separator), prefix, name, Part::Plain("="), Part::Encoded(value)]);
        let capacity = self.buffer.len();
        let mut rest = Slice::new(self.buffer.get_mut(self.len..).unwrap_or_default());
        if text.write(&mut rest).is_err() {
            return Err(BagError::Full { needed: self.len.saturating_add(text.len()), capacity });
        }
        self.len = self.len.saturating_add(rest.len());
        Ok(())
    }
}

/// Checks a message id: 1 to [`MESSAGE_ID_MAX`] bytes of the set named at [`PropertyBag::message_id`].
///
/// # Errors
/// [`BagError::IdLength`] or [`BagError::IdCharacter`].
pub fn check_id(id: &str) -> Result<(), BagError> {
    if id.is_empty() || id.len() > MESSAGE_ID_MAX {
        return Err(BagError::IdLength { len: id.len() });
    }
    // IoT Hub, message format: the ASCII characters of a message id.
    match scan::find(id, |byte| !byte.is_ascii_alphanumeric() && !b"-:.+%_#*?!(),=@;$'".contains(&byte)) {
        Some((at, byte)) => Err(BagError::IdCharacter { at, byte }),
        None => Ok(()),
    }
}

/// Checks a bag that was not made by [`PropertyBag`] before it becomes part of a topic: it may contain only `&`, `=`,
/// `$`, `%XX`, and bytes that need no encoding.
///
/// # Errors
/// [`BagError::NotEncoded`] naming the first other byte.
pub fn check_encoded(bag: &str) -> Result<(), BagError> {
    match unencoded(bag) {
        Some((at, byte)) => Err(BagError::NotEncoded { at, byte }),
        None => Ok(()),
    }
}

/// Finds the first invalid byte of a bag, and its offset.
pub(crate) fn unencoded(bag: &str) -> Option<(usize, u8)> {
    let mut rest = bag.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'&' | b'=' | b'$', _) => after,
            (b'%', [high, low, after @ ..]) if hex_value(*high).is_some() && hex_value(*low).is_some() => after,
            _ => return Some((bag.len().saturating_sub(rest.len()), byte)),
        };
    }
    None
}

/// One property of a received bag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property<'a> {
    /// The key.
    pub key: Encoded<&'a str>,
    /// The value: `None` for `key`, empty for `key=`.
    pub value: Option<Encoded<&'a str>>,
}

/// Lists the properties of an encoded bag in order; empty ones between two `&` are skipped.
pub fn properties(bag: &str) -> Properties<'_> {
    Properties { rest: bag }
}

/// Iterator over the properties of a bag, made by [`properties`].
#[derive(Clone, Debug)]
pub struct Properties<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Properties<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        while !self.rest.is_empty() {
            let (one, rest) = scan::split_once(self.rest, b'&').unwrap_or((self.rest, ""));
            self.rest = rest;
            if let Some((key, value)) = scan::split_once(one, b'=') {
                return Some(Property { key: Encoded(key), value: Some(Encoded(value)) });
            }
            if !one.is_empty() {
                return Some(Property { key: Encoded(one), value: None });
            }
        }
        None
    }
}

/// A key or value as it was received; compare it with a `&str` to compare what it means.
///
/// A `%` without two hexadecimal digits after it stands for itself, and `+` is a plus. `S` is the text, or its
/// position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<S>(pub(super) S);

impl<S> Encoded<S> {
    /// Takes a text as encoded in a topic.
    #[must_use]
    pub const fn new(raw: S) -> Self {
        Self(raw)
    }

    /// Returns the text as encoded in the topic.
    #[must_use]
    pub fn raw(self) -> S {
        self.0
    }

    /// Converts the text with `text`.
    pub fn map<T>(self, text: impl FnOnce(S) -> T) -> Encoded<T> {
        Encoded(text(self.0))
    }
}

impl<'a> Encoded<&'a str> {
    /// Returns the decoded bytes one after the other.
    pub fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        let mut rest = self.0.as_bytes();
        core::iter::from_fn(move || {
            let (first, after) = rest.split_first()?;
            if let (b'%', [high, low, after @ ..]) = (first, after)
                && let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low))
            {
                rest = after;
                return Some((high << 4) | low);
            }
            rest = after;
            Some(*first)
        })
    }

    /// Returns the number of decoded bytes.
    #[must_use]
    pub fn decoded_len(self) -> usize {
        self.bytes().fold(0, |len: usize, _| len.saturating_add(1))
    }

    /// Decodes into `buffer`.
    ///
    /// # Errors
    /// [`DecodeError`] when the buffer is too small or the bytes are not text.
    pub fn decode(self, buffer: &mut [u8]) -> Result<&str, DecodeError> {
        let mut slice = Slice::new(buffer);
        for byte in self.bytes() {
            let full = DecodeError::Full { needed: self.decoded_len() };
            slice.put(&[byte]).map_err(|_| full)?;
        }
        let len = slice.len();
        let bytes = buffer.get(..len).unwrap_or_default();
        core::str::from_utf8(bytes).map_err(|_| DecodeError::NotText)
    }
}

impl PartialEq<str> for Encoded<&str> {
    fn eq(&self, other: &str) -> bool {
        self.bytes().eq(other.bytes())
    }
}

impl PartialEq<&str> for Encoded<&str> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

/// A received key or value cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The buffer is too small.
    Full {
        /// Bytes it must have.
        needed: usize,
    },
    /// The decoded bytes are not UTF-8.
    NotText,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { needed } => write!(f, "the decoded property needs {needed} bytes; give a larger buffer"),
            Self::NotText => f.write_str("the decoded property is not UTF-8 text"),
        }
    }
}

impl core::error::Error for DecodeError {}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        b'A'..=b'F' => Some(digit.wrapping_sub(b'A').wrapping_add(10)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "property_bag_tests.rs"]
mod tests;
