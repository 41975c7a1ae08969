//! A pull reader for JSON documents that lie whole in memory.
//!
//! It accepts exactly the grammar of RFC 8259 in UTF-8, up to [`DEPTH_MAX`] levels, in one pass and constant memory,
//! and returns slices of the document. Repeated keys are returned in order; the caller decides the meaning of a second
//! one.

mod value;
mod write;

use core::fmt;

pub use self::value::{Number, Str, Value};
pub(crate) use self::write::put_string;

/// Deepest accepted nesting. Twins have at most 10 levels (IoT Hub quotas), answers of the provisioning service 3.
pub const DEPTH_MAX: u8 = 16;

/// An error in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It ends too early.
    End,
    /// A byte is not allowed at its position.
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
    /// Byte offset of the error.
    pub at: usize,
    /// The error.
    pub problem: Problem,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.problem {
            Problem::End => write!(f, "the JSON text ends too early, at byte {at}"),
            Problem::Unexpected => write!(f, "the JSON text has a byte at {at} that is not allowed there"),
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

/// The kind of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Key,
    String,
    Number,
    True,
    False,
    Null,
    End,
}

/// Reads one document token by token.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// Start and end of the latest key, string or number.
    token: (usize, usize),
    /// The allowed next token: [`VALUE`], [`KEY`], [`COMMA`] and [`END`], or nothing.
    expect: u8,
    depth: u8,
    /// Bit 0 tells whether the innermost container is an object, bit 1 the one around it, and so on.
    objects: u32,
}

impl<'a> Reader<'a> {
    /// Starts before the first byte of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, token: (0, 0), expect: VALUE, depth: 0, objects: 0 }
    }

    /// Returns the next token, or `None` after the end of the whole document.
    ///
    /// # Errors
    /// [`JsonError`]; the reader is then of no further use.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would invite going on after an error")]
    pub fn next(&mut self) -> Result<Option<Token<'a>>, JsonError> {
        let kind = match self.advance() {
            Ok(kind) => kind,
            Err(problem) => return Err(self.error(problem)),
        };
        let text = self.text();
        Ok(Some(match kind {
            Kind::ObjectStart => Token::ObjectStart,
            Kind::ObjectEnd => Token::ObjectEnd,
            Kind::ArrayStart => Token::ArrayStart,
            Kind::ArrayEnd => Token::ArrayEnd,
            Kind::Key => Token::Key(Str(text)),
            Kind::String => Token::String(Str(text)),
            Kind::Number => Token::Number(Number(text)),
            Kind::True => Token::Bool(true),
            Kind::False => Token::Bool(false),
            Kind::Null => Token::Null,
            Kind::End => return Ok(None),
        }))
    }

    /// Reads the whole next value, at any depth, and returns its text.
    ///
    /// # Errors
    /// [`JsonError`], also if there is no next value.
    pub fn value(&mut self) -> Result<Value<'a>, JsonError> {
        self.skip_space();
        let start = self.at;
        let outside = self.depth;
        loop {
            let problem = match self.advance() {
                Err(problem) => problem,
                Ok(Kind::End) => Problem::Unexpected,
                Ok(Kind::Key) if self.depth == outside => Problem::Unexpected,
                Ok(_) if self.depth > outside => continue,
                Ok(_) if self.depth == outside => break,
                Ok(_) => Problem::Unexpected,
            };
            return Err(self.error(problem));
        }
        self.token = (start, self.at);
        Ok(Value(self.text()))
    }

    /// Goes on to the next token and remembers where its text stands: that of a string without its quotes.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn advance(&mut self) -> Result<Kind, Problem> {
        self.skip_space();
        let object = self.objects & 1 == 1;
        if self.expect & COMMA != 0 && self.eat(b',') {
            self.expect = if object { KEY } else { VALUE };
            self.skip_space();
        }
        let start = self.at;
        let may = self.expect;
        let kind = match self.peek() {
            _ if may == 0 && start >= self.input.len() => return Ok(Kind::End),
            _ if may == 0 => return Err(Problem::Trailing),
            b'}' if object && may & END != 0 => Kind::ObjectEnd,
            b']' if !object && may & END != 0 => Kind::ArrayEnd,
            b'"' if may & KEY != 0 => Kind::Key,
            _ if may & VALUE == 0 => return Err(Problem::Unexpected),
            b'{' => Kind::ObjectStart,
            b'[' => Kind::ArrayStart,
            b'"' => Kind::String,
            b't' => Kind::True,
            b'f' => Kind::False,
            b'n' => Kind::Null,
            _ => Kind::Number,
        };
        match kind {
            Kind::ObjectStart | Kind::ArrayStart => {
                if self.depth == DEPTH_MAX {
                    return Err(Problem::Depth);
                }
                self.step();
                self.depth = self.depth.wrapping_add(1);
                let object = kind == Kind::ObjectStart;
                self.objects = (self.objects << 1) | u32::from(object);
                self.expect = if object { KEY | END } else { VALUE | END };
                return Ok(kind);
            }
            Kind::ObjectEnd | Kind::ArrayEnd => {
                self.step();
                self.depth = self.depth.saturating_sub(1);
                self.objects >>= 1;
            }
            Kind::Key | Kind::String => {
                self.string()?;
                if kind == Kind::Key {
                    self.skip_space();
                    self.expect = VALUE;
                    return if self.eat(b':') { Ok(kind) } else { Err(Problem::Unexpected) };
                }
            }
            Kind::True | Kind::False | Kind::Null | Kind::Number | Kind::End => {
                let good = match kind {
                    Kind::True => self.word(b"true"),
                    Kind::False => self.word(b"false"),
                    Kind::Null => self.word(b"null"),
                    Kind::Number => self.number(),
                    Kind::ObjectStart | Kind::ObjectEnd | Kind::ArrayStart | Kind::ArrayEnd => false,
                    Kind::Key | Kind::String | Kind::End => false,
                };
                if !good {
                    return Err(Problem::Unexpected);
                }
                self.token = (start, self.at);
            }
        }
        self.expect = if self.depth == 0 { 0 } else { COMMA | END };
        Ok(kind)
    }

    fn string(&mut self) -> Result<(), Problem> {
        self.step();
        let start = self.at;
        loop {
            match self.peek() {
                b'"' => break,
                0..=0x1f => return Err(Problem::Control),
                b'\\' => {
                    self.step();
                    let digits = match self.peek() {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 0,
                        b'u' => 4,
                        _ => return Err(Problem::Escape),
                    };
                    self.step();
                    for _ in 0..digits {
                        if !self.peek().is_ascii_hexdigit() {
                            return Err(Problem::Escape);
                        }
                        self.step();
                    }
                }
                _ => self.step(),
            }
        }
        self.token = (start, self.at);
        if self.text().len() != self.at.wrapping_sub(start) {
            self.at = start;
            return Err(Problem::Encoding);
        }
        self.step();
        Ok(())
    }

    /// Goes behind a number, and tells whether it is one.
    fn number(&mut self) -> bool {
        self.eat(b'-');
        // RFC 8259, section 6: no leading zeros.
        if !self.eat(b'0') && !self.digits() || self.eat(b'.') && !self.digits() {
            return false;
        }
        if !self.eat(b'e') && !self.eat(b'E') {
            return true;
        }
        if !self.eat(b'+') {
            self.eat(b'-');
        }
        self.digits()
    }

    /// Goes behind the digits that come next, and tells whether there is one.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn digits(&mut self) -> bool {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.step();
        }
        self.at != start
    }

    /// Goes behind `word`, or up to where it is another one, and tells which.
    fn word(&mut self, word: &[u8]) -> bool {
        word.iter().all(|byte| self.eat(*byte))
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.step();
        }
    }

    /// Goes on when `byte` comes next, and tells whether it did.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        if found {
            self.step();
        }
        found
    }

    /// Returns the next byte; at the end 0, which may stand nowhere.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn peek(&self) -> u8 {
        self.input.get(self.at).copied().unwrap_or(0)
    }

    /// Goes on by a byte that is there, so that the offset stays within the document.
    fn step(&mut self) {
        self.at = self.at.wrapping_add(1);
    }

    /// Returns the text of the token; numbers and brackets are ASCII, and strings were checked.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn text(&self) -> &'a str {
        let (start, end) = self.token;
        self.input.get(start..end).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Returns the error of the place where the reader stands: at the end nothing else is wrong than that it came.
    fn error(&self, problem: Problem) -> JsonError {
        let problem = if self.at >= self.input.len() { Problem::End } else { problem };
        JsonError { at: self.at, problem }
    }
}

const VALUE: u8 = 1;
const KEY: u8 = 2;
const COMMA: u8 = 4;
/// The end of the innermost object or array.
const END: u8 = 8;

/// Returns the value of a member of a JSON object; of members with the same name the last one counts.
pub fn member<'a>(document: &'a [u8], name: &str) -> Option<Value<'a>> {
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

/// Checks that a text is one JSON object.
///
/// # Errors
/// [`ObjectError`] naming the first flaw.
pub fn check_object(json: &[u8]) -> Result<(), ObjectError> {
    let mut reader = Reader::new(json);
    if reader.next()? != Some(Token::ObjectStart) {
        return Err(ObjectError::NotAnObject);
    }
    while reader.next()?.is_some() {}
    Ok(())
}

/// A text is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectError {
    /// It is not JSON.
    Json(JsonError),
    /// It is another value.
    NotAnObject,
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::NotAnObject => f.write_str("the JSON text is not an object"),
        }
    }
}

impl core::error::Error for ObjectError {}

impl From<JsonError> for ObjectError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

#[cfg(test)]
mod tests;
