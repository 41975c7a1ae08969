//! A pull reader for JSON documents that lie whole in memory.
//!
//! It accepts exactly the grammar of RFC 8259 in UTF-8, up to [`DEPTH_MAX`] levels, in one pass and constant memory,
//! and hands out slices of the document. Repeated keys are handed out as they come; who uses a member decides what a
//! second one means.

use core::fmt;

use super::scan;

/// Deepest nesting taken. Twins have at most 10 levels (IoT Hub quotas), answers of the provisioning service 3.
pub const DEPTH_MAX: u8 = 16;

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It ends too early.
    End,
    /// A byte cannot stand where it does.
    Unexpected,
    /// It nests deeper than [`DEPTH_MAX`].
    Depth,
    /// A string has a bad escape sequence.
    Escape,
    /// A string has a control character that is not escaped.
    Control,
    /// A string is not UTF-8.
    Encoding,
    /// Something follows the value.
    Trailing,
}

/// A document is not JSON, or nests too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JsonError {
    /// Byte offset where it was noticed.
    pub at: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.problem {
            Problem::End => write!(f, "the JSON text ends too early, at byte {at}"),
            Problem::Unexpected => write!(f, "the JSON text has a byte at {at} that cannot stand there"),
            Problem::Depth => write!(f, "the JSON text nests deeper than {DEPTH_MAX} levels at byte {at}"),
            Problem::Escape => write!(f, "the JSON text has a bad escape sequence at byte {at}"),
            Problem::Control => write!(f, "the JSON text has a bare control character in a string at byte {at}"),
            Problem::Encoding => write!(f, "the JSON text has a string at byte {at} that is not UTF-8"),
            Problem::Trailing => write!(f, "the JSON text goes on after its value, at byte {at}"),
        }
    }
}

impl core::error::Error for JsonError {}

/// One piece of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Token<'a> {
    /// `{`
    ObjectStart,
    /// `}`
    ObjectEnd,
    /// `[`
    ArrayStart,
    /// `]`
    ArrayEnd,
    /// The key of a member; its value follows.
    Key(Str<'a>),
    /// A string.
    String(Str<'a>),
    /// A number, as it is written.
    Number(Number<'a>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`
    Null,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    CommaOrEnd,
    Nothing,
}

/// Reads one document token by token.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    expect: Expect,
    depth: u8,
    /// Bit 0 tells whether the innermost container is an object, bit 1 the one around it, and so on.
    objects: u32,
}

impl<'a> Reader<'a> {
    /// Starts before the first byte of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, expect: Expect::Value, depth: 0, objects: 0 }
    }

    /// Returns the next token, or `None` after the end of the whole document.
    ///
    /// # Errors
    /// [`JsonError`]; the reader is then of no further use.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would invite going on after an error")]
    pub fn next(&mut self) -> Result<Option<Token<'a>>, JsonError> {
        self.token().map_err(|problem| self.noticed(problem))
    }

    fn token(&mut self) -> Result<Option<Token<'a>>, Problem> {
        self.skip_space();
        if self.expect == Expect::Nothing {
            return if self.peek().is_none() { Ok(None) } else { Err(Problem::Trailing) };
        }
        let Some(mut first) = self.peek() else { return Err(Problem::End) };
        if self.expect == Expect::CommaOrEnd && first == b',' {
            self.step();
            self.expect = if self.in_object() { Expect::Key } else { Expect::Value };
            self.skip_space();
            first = match self.peek() {
                Some(byte) => byte,
                None => return Err(Problem::End),
            };
        }
        let object = self.in_object();
        match (self.expect, first) {
            (Expect::KeyOrEnd, b'}') => self.close(Token::ObjectEnd),
            (Expect::CommaOrEnd, b'}') if object => self.close(Token::ObjectEnd),
            (Expect::ValueOrEnd, b']') => self.close(Token::ArrayEnd),
            (Expect::CommaOrEnd, b']') if !object => self.close(Token::ArrayEnd),
            (Expect::Key | Expect::KeyOrEnd, b'"') => {
                let key = self.string()?;
                self.skip_space();
                if self.peek() != Some(b':') {
                    return Err(Problem::Unexpected);
                }
                self.step();
                self.expect = Expect::Value;
                Ok(Some(Token::Key(key)))
            }
            (Expect::Value | Expect::ValueOrEnd, _) => self.start_value(first).map(Some),
            _ => Err(Problem::Unexpected),
        }
    }

    /// Reads the whole value that comes next, however deep, and returns it as it is written.
    ///
    /// # Errors
    /// [`JsonError`], also when no value comes next.
    pub fn value(&mut self) -> Result<Value<'a>, JsonError> {
        self.whole().map_err(|problem| self.noticed(problem))
    }

    fn whole(&mut self) -> Result<Value<'a>, Problem> {
        self.skip_space();
        let start = self.at;
        let outside = self.depth;
        loop {
            match self.token()? {
                Some(Token::Key(_)) if self.depth == outside => return Err(Problem::Unexpected),
                Some(Token::ObjectEnd | Token::ArrayEnd) if self.depth < outside => return Err(Problem::Unexpected),
                None => return Err(Problem::End),
                Some(_) if self.depth == outside => break,
                Some(_) => {}
            }
        }
        // Numbers, strings and brackets were checked to be UTF-8.
        let text = self.input.get(start..self.at).and_then(|bytes| core::str::from_utf8(bytes).ok());
        Ok(Value(text.unwrap_or_default()))
    }

    fn start_value(&mut self, first: u8) -> Result<Token<'a>, Problem> {
        let token = match first {
            b'{' | b'[' => {
                if self.depth == DEPTH_MAX {
                    return Err(Problem::Depth);
                }
                self.step();
                self.depth = self.depth.wrapping_add(1);
                self.objects = (self.objects << 1) | u32::from(first == b'{');
                self.expect = if first == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
                return Ok(if first == b'{' { Token::ObjectStart } else { Token::ArrayStart });
            }
            b'"' => Token::String(self.string()?),
            b't' => self.word(b"true", Token::Bool(true))?,
            b'f' => self.word(b"false", Token::Bool(false))?,
            b'n' => self.word(b"null", Token::Null)?,
            _ => Token::Number(self.number()?),
        };
        self.end_value();
        Ok(token)
    }

    fn close(&mut self, token: Token<'a>) -> Result<Option<Token<'a>>, Problem> {
        self.step();
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
        self.end_value();
        Ok(Some(token))
    }

    fn end_value(&mut self) {
        self.expect = if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn string(&mut self) -> Result<Str<'a>, Problem> {
        self.step();
        let start = self.at;
        loop {
            match self.peek() {
                None => return Err(Problem::End),
                Some(b'"') => break,
                Some(0..=0x1f) => return Err(Problem::Control),
                Some(b'\\') => {
                    self.step();
                    let digits = match self.peek() {
                        None => return Err(Problem::End),
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
                        Some(b'u') => 4,
                        Some(_) => return Err(Problem::Escape),
                    };
                    self.step();
                    for _ in 0..digits {
                        match self.peek() {
                            None => return Err(Problem::End),
                            Some(byte) if byte.is_ascii_hexdigit() => self.step(),
                            Some(_) => return Err(Problem::Escape),
                        }
                    }
                }
                Some(_) => self.step(),
            }
        }
        let bytes = self.input.get(start..self.at).unwrap_or_default();
        let Ok(text) = core::str::from_utf8(bytes) else {
            self.at = start;
            return Err(Problem::Encoding);
        };
        self.step();
        Ok(Str(text))
    }

    fn number(&mut self) -> Result<Number<'a>, Problem> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.step();
        }
        // RFC 8259, section 6: no leading zeros.
        if self.peek() == Some(b'0') {
            self.step();
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.step();
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.step();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.step();
            }
            self.digits()?;
        }
        let bytes = self.input.get(start..self.at).unwrap_or_default();
        Ok(Number(core::str::from_utf8(bytes).unwrap_or_default()))
    }

    fn digits(&mut self) -> Result<(), Problem> {
        match self.peek() {
            None => return Err(Problem::End),
            Some(byte) if !byte.is_ascii_digit() => return Err(Problem::Unexpected),
            Some(_) => {}
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.step();
        }
        Ok(())
    }

    fn word(&mut self, word: &[u8], token: Token<'a>) -> Result<Token<'a>, Problem> {
        for byte in word {
            match self.peek() {
                None => return Err(Problem::End),
                Some(found) if found == *byte => self.step(),
                Some(_) => return Err(Problem::Unexpected),
            }
        }
        Ok(token)
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.step();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    /// Goes on by a byte that is there, so that the offset stays within the document.
    fn step(&mut self) {
        self.at = self.at.wrapping_add(1);
    }

    fn noticed(&self, problem: Problem) -> JsonError {
        JsonError { at: self.at, problem }
    }
}

/// Returns the value of a member of a JSON object; of members with the same name the last one counts.
pub(crate) fn member<'a>(document: &'a [u8], name: &str) -> Option<Value<'a>> {
    let mut reader = Reader::new(document);
    if reader.next().ok()? != Some(Token::ObjectStart) {
        return None;
    }
    let mut found = None;
    // A document has fewer members than bytes.
    while let Token::Key(key) = reader.next().ok()?? {
        let value = reader.value().ok()?;
        if key == *name {
            found = Some(value);
        }
    }
    reader.next().ok()?.is_none().then_some(found)?
}

/// A whole value as it is written in the document, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

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
pub struct Number<'a>(&'a str);

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
pub struct Str<'a>(&'a str);

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

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
