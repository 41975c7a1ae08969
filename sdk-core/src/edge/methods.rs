//! Direct methods that a module calls through its gateway: of another module, or of a device below the gateway.
//!
//! `POST https://{gateway}/twins/{device}/methods`, or `.../modules/{module}/methods`, with the caller's own token in
//! `Authorization` and its name in [`CALLER_HEADER`]. Forms and limits: `Azure/iotedge`,
//! `edge-hub/core/src/Microsoft.Azure.Devices.Edge.Hub.Http/controllers/TwinsController.cs` and
//! `MethodRequestValidator.cs`.

use core::fmt;
use core::time::Duration;

use super::member;
use crate::azure::names::{self, NameError};
use crate::json::put_string;
use crate::json::{Reader, Str, Value};
use crate::text::{Part, Sink, SinkFull, Text};
use crate::time::millis;

/// Version of the interface that is named in a call.
pub const API_VERSION: &str = "2019-10-01";

/// The header that names the caller: `{device id}/{module id}`.
pub const CALLER_HEADER: &str = "x-ms-edge-moduleid";

/// Longest name of a method, in bytes.
pub const NAME_MAX: usize = 100;

/// Longest payload of a call, in bytes.
pub const PAYLOAD_MAX: usize = 128 * 1024;

/// Longest wait for the target's connection, and for its answer.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// Shortest time to wait for the answer.
pub const ANSWER_MIN: Duration = Duration::from_secs(5);

/// A call of a direct method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the members are those of the interface")]
pub struct Call<'a> {
    /// The target device, or the device of the target module.
    pub device_id: &'a str,
    /// The target module; `None` for the device itself.
    pub module_id: Option<&'a str>,
    /// The method's name, 1 to [`NAME_MAX`] bytes.
    pub name: &'a str,
    /// A JSON text of at most [`PAYLOAD_MAX`] bytes; empty for none.
    pub payload: &'a str,
    /// How long to wait for the target's connection, up to [`WAIT_MAX`], in whole seconds.
    pub connect_wait: Duration,
    /// How long to wait for the answer, [`ANSWER_MIN`] to [`WAIT_MAX`], in whole seconds.
    pub answer_wait: Duration,
}

impl<'a> Call<'a> {
    /// Checks the limits of the gateway.
    ///
    /// # Errors
    /// [`CallError`] naming the first flaw.
    pub fn check(&self) -> Result<(), CallError> {
        names::check_device_id(self.device_id).map_err(CallError::Target)?;
        self.module_id.map_or(Ok(()), names::check_module_id).map_err(CallError::Target)?;
        if self.name.is_empty() || self.name.len() > NAME_MAX {
            return Err(CallError::Name { len: self.name.len() });
        }
        if self.payload.len() > PAYLOAD_MAX {
            return Err(CallError::PayloadTooLong { len: self.payload.len() });
        }
        if !self.payload.is_empty() {
            let mut reader = Reader::new(self.payload.as_bytes());
            let whole = reader.value().is_ok() && matches!(reader.next(), Ok(None));
            if !whole {
                return Err(CallError::Payload);
            }
        }
        if self.connect_wait > WAIT_MAX || self.answer_wait > WAIT_MAX || self.answer_wait < ANSWER_MIN {
            return Err(CallError::Wait);
        }
        Ok(())
    }

    /// Returns path and query of the request.
    #[must_use]
    pub fn path(&self) -> Text<'a> {
        Text::of([
            Part::Plain("/twins/"),
            Part::Encoded(self.device_id),
            Part::Plain(if self.module_id.is_some() { "/modules/" } else { "" }),
            Part::Encoded(self.module_id.unwrap_or_default()),
            Part::Plain("/methods?api-version="),
            Part::Plain(API_VERSION),
        ])
    }

    /// Writes the body of the request.
    ///
    /// # Errors
    /// [`SinkFull`] from the sink.
    pub fn put_body(&self, out: &mut dyn Sink) -> Result<(), SinkFull> {
        out.put(br#"{"methodName":"#)?;
        put_string(self.name, out)?;
        if !self.payload.is_empty() {
            out.put(br#","payload":"#)?;
            out.put(self.payload.as_bytes())?;
        }
        let seconds = |wait: Duration| Part::Number(crate::time::div_rem(millis(wait), 1000).0);
        Text::of([
            Part::Plain(",\"connectTimeoutInSeconds\":"),
            seconds(self.connect_wait),
            Part::Plain(",\"responseTimeoutInSeconds\":"),
            seconds(self.answer_wait),
            Part::Plain("}"),
        ])
        .write(out)
    }
}

/// The answer of a called method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the members are those of the interface")]
pub struct Answer<'a> {
    /// The method's status, whose meaning it defines.
    pub status: i32,
    /// Its payload, a JSON value; `None` without one.
    pub payload: Option<Value<'a>>,
}

impl<'a> Answer<'a> {
    /// Parses the body of an HTTP answer with status 200; `None` if it is invalid.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let status = member(body, "status")?.raw().parse().ok()?;
        let payload = member(body, "payload").filter(|value| !value.is_null());
        Some(Self { status, payload })
    }
}

/// Returns the gateway's error message for a failed call, if any.
#[must_use]
pub fn error_message(body: &[u8]) -> Option<Str<'_>> {
    member(body, "message").or_else(|| member(body, "Message"))?.as_str()
}

/// Why a call is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The name of the device or the module is invalid.
    Target(NameError),
    /// The name of the method is empty or too long.
    Name {
        /// Its length in bytes.
        len: usize,
    },
    /// The payload is no JSON value, or nests too deep.
    Payload,
    /// The payload is too long.
    PayloadTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A wait is outside the gateway's limits.
    Wait,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(error) => write!(f, "the one called cannot be: {error}"),
            Self::Name { len } => write!(f, "the method's name is {len} bytes; 1 to {NAME_MAX} are allowed"),
            Self::Payload => f.write_str("the payload is not one JSON value"),
            Self::PayloadTooLong { len } => write!(f, "the payload is {len} bytes; at most {PAYLOAD_MAX} are allowed"),
            Self::Wait => f.write_str("the wait for the answer is 5 to 300 s, that for the connection at most 300 s"),
        }
    }
}

impl core::error::Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Slice;
    use std::string::{String, ToString};

    const CALL: Call<'static> = Call {
        device_id: "line-7",
        module_id: None,
        name: "flush",
        payload: "",
        connect_wait: Duration::ZERO,
        answer_wait: Duration::from_secs(30),
    };

    fn body(call: Call<'_>) -> String {
        let mut buffer = [0; 256];
        let mut out = Slice::new(&mut buffer);
        call.put_body(&mut out).unwrap();
        let len = out.len();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn calls_have_the_documented_form() {
        assert_eq!(CALL.path().to_string(), "/twins/line-7/methods?api-version=2019-10-01");
        let module = Call { module_id: Some("$m"), ..CALL };
        assert_eq!(module.path().to_string(), "/twins/line-7/modules/%24m/methods?api-version=2019-10-01");
        let waits = r#""connectTimeoutInSeconds":0,"responseTimeoutInSeconds":30}"#;
        assert_eq!(body(CALL), [r#"{"methodName":"flush","#, waits].concat());
        let more = Call { name: "a\"b", payload: "[1, 2]", ..CALL };
        assert_eq!(body(more), [r#"{"methodName":"a\"b","payload":[1, 2],"#, waits].concat());
    }

    #[test]
    fn what_the_gateway_would_refuse_is_not_sent() {
        let long = "x".repeat(PAYLOAD_MAX);
        let seconds = Duration::from_secs;
        let table = [
            (CALL, Ok(())),
            (Call { payload: "null", connect_wait: seconds(300), answer_wait: seconds(300), ..CALL }, Ok(())),
            (Call { name: "", ..CALL }, Err(CallError::Name { len: 0 })),
            (Call { name: &long[..101], ..CALL }, Err(CallError::Name { len: 101 })),
            (Call { payload: "{", ..CALL }, Err(CallError::Payload)),
            (Call { payload: "1 2", ..CALL }, Err(CallError::Payload)),
            (Call { answer_wait: seconds(4), ..CALL }, Err(CallError::Wait)),
            (Call { answer_wait: seconds(301), ..CALL }, Err(CallError::Wait)),
            (Call { connect_wait: seconds(301), ..CALL }, Err(CallError::Wait)),
        ];
        for (call, expected) in table {
            assert_eq!(call.check(), expected);
        }
        let too_long = ["\"", &long, "\""].concat();
        let call = Call { payload: &too_long, ..CALL };
        assert_eq!(call.check(), Err(CallError::PayloadTooLong { len: PAYLOAD_MAX + 2 }));
        assert!(matches!(Call { device_id: "a/b", ..CALL }.check(), Err(CallError::Target(_))));
        assert!(matches!(Call { module_id: Some(""), ..CALL }.check(), Err(CallError::Target(_))));
    }

    #[test]
    fn answers_are_read() {
        let answer = Answer::read(br#"{"status":-3,"payload":{"a":1}}"#).unwrap();
        assert_eq!((answer.status, answer.payload.map(|value| value.raw())), (-3, Some(r#"{"a":1}"#)));
        assert_eq!(Answer::read(br#"{"status":200,"payload":null}"#).unwrap().payload, None);
        assert_eq!(Answer::read(br#"{"message":"no"}"#), None);
        assert!(error_message(br#"{"Message":"no"}"#).is_some_and(|text| text == *"no"));
    }
}
