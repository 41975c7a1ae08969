//! The MQTT dialogue with the Device Provisioning Service, which assigns a device to a hub.
//!
//! A device connects, subscribes to [`RESPONSE_FILTER`], publishes a registration, and polls until the answer is final.
//! Names are not encoded in topics and bodies, as the service requires: check them first with [`crate::azure::names`].

use core::fmt;

use crate::azure::names::{self, Flaw, Name, NameError};
use crate::azure::timestamp;
use crate::iothub::property_bag;
use crate::json::{JsonError, Reader, Str, Token, Value};
use crate::scan;
use crate::text::{Part, Text};

/// Host name of the service in the public cloud (Device Provisioning Service, symmetric keys over HTTPS).
pub const GLOBAL_HOST: &str = "global.azure-devices-provisioning.net";
/// TCP port of MQTT over TLS (Device Provisioning Service, MQTT support).
pub const PORT: u16 = 8883;
/// TCP port of MQTT over WebSockets over TLS (Device Provisioning Service, MQTT support).
pub const WEBSOCKET_PORT: u16 = 443;
/// Path of MQTT over WebSockets (Device Provisioning Service, MQTT support).
pub const WEBSOCKET_PATH: &str = "/$iothub/websocket";
/// Version of the device protocol, part of the user name (Device Provisioning Service, MQTT support).
pub const API_VERSION: &str = "2019-03-31";
/// Topic filter of all answers.
pub const RESPONSE_FILTER: &str = "$dps/registrations/res/#";
/// Largest message of the dialogue, in bytes (Device Provisioning Service limits: 96 KB).
pub const MESSAGE_MAX: usize = 98_304;

/// Returns the MQTT user name. `product_info` names the software, any text, and may be empty.
///
/// The MQTT client id is the registration id.
#[must_use]
pub fn user_name<'a>(id_scope: &'a str, registration_id: &'a str, product_info: &'a str) -> Text<'a> {
    Text::of([
        Part::Plain(id_scope),
        Part::Plain("/registrations/"),
        Part::Plain(registration_id),
        Part::Plain("/api-version="),
        Part::Plain(API_VERSION),
        Part::Plain(if product_info.is_empty() { "" } else { "&ClientVersion=" }),
        Part::Encoded(product_info),
    ])
}

/// Returns the topic of a registration; the answer contains `request_id`.
#[must_use]
pub fn register_topic<'a>(request_id: u32) -> Text<'a> {
    Text::of([Part::Plain("$dps/registrations/PUT/iotdps-register/?$rid="), Part::Number(u64::from(request_id))])
}

/// Returns the body of a registration.
///
/// `payload` is a JSON object for the service's custom allocation, checked with [`crate::json::check_object`]. Without it, a model
/// id is sent as the payload `{"modelId":"..."}`, which IoT Central reads.
#[must_use]
pub fn register_body<'a>(registration_id: &'a str, payload: Option<&'a str>, model_id: Option<&'a str>) -> Text<'a> {
    let [before, payload, after] = match (payload, model_id) {
        (Some(payload), _) => [",\"payload\":", payload, ""],
        (None, Some(model_id)) => [",\"payload\":{\"modelId\":\"", model_id, "\"}"],
        (None, None) => [""; 3],
    };
    Text::of([
        Part::Plain("{\"registrationId\":\""),
        Part::Plain(registration_id),
        Part::Plain("\""),
        Part::Plain(before),
        Part::Plain(payload),
        Part::Plain(after),
        Part::Plain("}"),
    ])
}

/// Returns the topic of a poll, whose body is empty.
#[must_use]
pub fn poll_topic(request_id: u32, operation_id: &str) -> Text<'_> {
    Text::of([
        Part::Plain("$dps/registrations/GET/iotdps-get-operationstatus/?$rid="),
        Part::Number(u64::from(request_id)),
        Part::Plain("&operationId="),
        Part::Encoded(operation_id),
    ])
}

/// Largest request, in bytes (Device Provisioning Service, `iot-dps-limits.md`).
pub const REQUEST_MAX: usize = 96 * 1024;
/// Longest registration without its payload, topic included.
pub const REQUEST_FRAME: usize = 320;

/// The parsed topic of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// Status in the manner of HTTP: 429 and from 500 on, the same request may be repeated after a while.
    pub status: u16,
    /// Number of the request that is answered.
    pub request_id: u32,
    /// The service's retry-after in seconds; not limited here.
    pub retry_after_secs: Option<u32>,
}

impl Response {
    /// Parses the topic of an answer.
    ///
    /// Members of the query may come in any order and further ones are skipped; `retry-after` is accepted in any letter
    /// case, and ignored if it is not a number of seconds.
    ///
    /// # Errors
    /// [`TopicError`] if the topic is not an answer to our request.
    pub fn parse(topic: &str) -> Result<Self, TopicError> {
        let rest = topic.strip_prefix("$dps/registrations/res/").ok_or(TopicError::Other)?;
        let (status, query) = scan::split_once(rest, b'/').ok_or(TopicError::Other)?;
        let query = query.strip_prefix('?').ok_or(TopicError::Other)?;
        let status = decimal(status).ok_or(TopicError::Status)?;
        let mut request_id = None;
        let mut retry_after_secs = None;
        for property in property_bag::properties(query) {
            let key = property.key.raw();
            let value = property.value.map_or("", property_bag::Encoded::raw);
            if key.eq_ignore_ascii_case("$rid") {
                request_id = request_id.or(Some(value));
            } else if key.eq_ignore_ascii_case("retry-after") && !value.is_empty() {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                retry_after_secs = digits.then(|| decimal(value).unwrap_or(u32::MAX));
            }
        }
        let request_id = request_id.and_then(decimal).ok_or(TopicError::RequestId)?;
        Ok(Self { status, request_id, retry_after_secs })
    }
}

/// A topic is not the service's answer to our request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// It is another topic.
    Other,
    /// Its status is not a number.
    Status,
    /// It has no request number of ours.
    RequestId,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "the topic is not $dps/registrations/res/{status}/?{query}",
            Self::Status => "the status in the topic of the answer is not a number up to 65535",
            Self::RequestId => "the $rid in the topic of the answer is missing or not one of ours",
        })
    }
}

impl core::error::Error for TopicError {}

/// A member of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Member {
    /// `operationId`
    OperationId,
    /// `status`
    Status,
    /// `registrationState`
    RegistrationState,
    /// `assignedHub`
    AssignedHub,
    /// `deviceId`
    DeviceId,
    /// `substatus`
    Substatus,
    /// `lastUpdatedDateTimeUtc`
    LastUpdated,
    /// `payload`
    Payload,
    /// `connectionProfile`
    ConnectionProfile,
    /// `errorCode`
    ErrorCode,
    /// `errorMessage`
    ErrorMessage,
    /// `message`
    Message,
    /// `timestampUtc`
    Timestamp,
}

impl Member {
    /// Returns the name in the body.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OperationId => "operationId",
            Self::Status => "status",
            Self::RegistrationState => "registrationState",
            Self::AssignedHub => "assignedHub",
            Self::DeviceId => "deviceId",
            Self::Substatus => "substatus",
            Self::LastUpdated => "lastUpdatedDateTimeUtc",
            Self::Payload => "payload",
            Self::ConnectionProfile => "connectionProfile",
            Self::ErrorCode => "errorCode",
            Self::ErrorMessage => "errorMessage",
            Self::Message => "message",
            Self::Timestamp => "timestampUtc",
        }
    }
}

/// The body of an answer is invalid. The status in its topic still has the kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is not JSON.
    Json(JsonError),
    /// It is not a JSON object, or `registrationState` is not.
    NotAnObject,
    /// A member is missing.
    Missing(Member),
    /// A member occurs twice.
    Duplicate(Member),
    /// A member has a value of the wrong kind, or escape sequences where none are allowed.
    Kind(Member),
    /// The status is not a documented one.
    UnknownStatus,
    /// A name in it is not usable.
    Name(NameError),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "{error}"),
            Self::NotAnObject => f.write_str("the JSON text is not an object"),
            Self::Missing(member) => write!(f, "the answer has no {}", member.name()),
            Self::Duplicate(member) => write!(f, "the answer has {} twice", member.name()),
            Self::Kind(member) => write!(f, "the answer's {} has a value of the wrong kind", member.name()),
            Self::UnknownStatus => {
                f.write_str("the answer's status is not unassigned, assigning, assigned, failed or disabled")
            }
            Self::Name(error) => write!(f, "the answer is not usable: {error}"),
        }
    }
}

impl core::error::Error for AnswerError {}

impl From<JsonError> for AnswerError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl From<NameError> for AnswerError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

/// The service's answer, borrowed from the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer<'a> {
    /// The registration continues: poll with [`poll_topic`].
    Assigning {
        /// Names the registration in the next request.
        operation_id: &'a str,
    },
    /// The device has a hub.
    Assigned(Assigned<'a>),
    /// The device is assigned with a connection profile that this library does not support.
    UnsupportedProfile(
        /// The profile in the answer.
        &'a str,
    ),
    /// The registration failed.
    Failed {
        /// Error code of the service; divided by 1,000 it is in the manner of HTTP.
        code: u32,
        /// Explanation of the service.
        message: Option<Str<'a>>,
        /// When the service wrote this, in Unix seconds.
        server_time: Option<u64>,
    },
    /// The enrollment is disabled.
    Disabled,
    /// The device is not yet being assigned: poll with [`poll_topic`].
    Unassigned {
        /// Names the registration in the next request.
        operation_id: &'a str,
    },
    /// The request was refused.
    Refused {
        /// Status of the topic, in the manner of HTTP.
        status: u16,
        /// Error code of the service.
        code: u32,
        /// Explanation of the service.
        message: Option<Str<'a>>,
        /// The service's clock at the refusal, in Unix seconds.
        server_time: Option<u64>,
    },
}

/// A device's hub and its name there, checked with [`crate::azure::names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assigned<'a> {
    /// Host name of the hub.
    pub hub: &'a str,
    /// Device id on the hub, which may differ from the registration id.
    pub device_id: Str<'a>,
    /// JSON value that the service's custom allocation returned.
    pub payload: Option<&'a [u8]>,
    /// The substatus, such as `initialAssignment`.
    pub substatus: Option<&'a str>,
    /// The latest change of the registration, in Unix seconds; the service's clock is at this time or later.
    pub server_time: Option<u64>,
}

impl<'a> Answer<'a> {
    /// Parses the body of an answer whose topic has `status`.
    ///
    /// A status from 300 on is a refusal. Unused members may have any value; a used one that occurs twice is an error,
    /// `null` counts as absent, and `connectionProfile` may be absent or `classic`.
    ///
    /// # Errors
    /// [`AnswerError`] naming the first flaw.
    pub fn parse(status: u16, body: &'a [u8]) -> Result<Self, AnswerError> {
        let mut found = [None; 7];
        let wanted = [
            Member::OperationId,
            Member::Status,
            Member::RegistrationState,
            Member::ConnectionProfile,
            Member::ErrorCode,
            Member::Message,
            Member::Timestamp,
        ];
        pick(body, &wanted, &mut found)?;
        let [operation_id, state_name, state, profile, code, message, time] = found;
        if status >= 300 {
            let code = number(code, Member::ErrorCode)?;
            let message = message.and_then(Value::as_str);
            return Ok(Self::Refused { status, code, message, server_time: time.and_then(unix_secs) });
        }
        let operation_id = plain(operation_id, Member::OperationId)?;
        names::check_operation_id(operation_id)?;
        match plain(state_name, Member::Status)? {
            "assigning" => Ok(Self::Assigning { operation_id }),
            "unassigned" => Ok(Self::Unassigned { operation_id }),
            "disabled" => Ok(Self::Disabled),
            "assigned" => Self::assigned(state, profile),
            "failed" => Self::failed(state),
            _ => Err(AnswerError::UnknownStatus),
        }
    }

    fn assigned(state: Option<Value<'a>>, outer_profile: Option<Value<'a>>) -> Result<Self, AnswerError> {
        let state = state.ok_or(AnswerError::Missing(Member::RegistrationState))?;
        let mut found = [None; 6];
        let wanted = [
            Member::AssignedHub,
            Member::DeviceId,
            Member::Payload,
            Member::Substatus,
            Member::LastUpdated,
            Member::ConnectionProfile,
        ];
        pick(state.raw().as_bytes(), &wanted, &mut found)?;
        let [hub, device_id, payload, substatus, time, profile] = found;
        for profile in [profile, outer_profile].into_iter().flatten() {
            let text = profile.as_str().and_then(Str::plain);
            if !text.is_some_and(|text| text.eq_ignore_ascii_case("classic")) {
                return Ok(Self::UnsupportedProfile(text.unwrap_or(profile.raw())));
            }
        }
        let hub = plain(hub, Member::AssignedHub)?;
        names::check_hub_name(hub)?;
        let device_id = device_id.ok_or(AnswerError::Missing(Member::DeviceId))?;
        let device_id = device_id.as_str().ok_or(AnswerError::Kind(Member::DeviceId))?;
        check_device_id(device_id)?;
        Ok(Self::Assigned(Assigned {
            hub,
            device_id,
            payload: payload.map(|value| value.raw().as_bytes()),
            substatus: substatus.and_then(Value::as_str).and_then(Str::plain),
            server_time: time.and_then(unix_secs),
        }))
    }

    fn failed(state: Option<Value<'a>>) -> Result<Self, AnswerError> {
        let state = state.ok_or(AnswerError::Missing(Member::RegistrationState))?;
        let mut found = [None; 3];
        let wanted = [Member::ErrorCode, Member::ErrorMessage, Member::LastUpdated];
        pick(state.raw().as_bytes(), &wanted, &mut found)?;
        let [code, message, time] = found;
        let code = number(code, Member::ErrorCode)?;
        Ok(Self::Failed { code, message: message.and_then(Value::as_str), server_time: time.and_then(unix_secs) })
    }
}

/// Parses one JSON object and returns the values of `wanted`, `null` as absent.
fn pick<'a>(json: &'a [u8], wanted: &[Member], found: &mut [Option<Value<'a>>]) -> Result<(), AnswerError> {
    let mut reader = Reader::new(json);
    if reader.next()? != Some(Token::ObjectStart) {
        return Err(AnswerError::NotAnObject);
    }
    while let Some(Token::Key(key)) = reader.next()? {
        let value = reader.value()?;
        if let Some((member, slot)) = wanted.iter().zip(&mut *found).find(|(member, _)| key == member.name())
            && slot.replace(value).is_some()
        {
            return Err(AnswerError::Duplicate(*member));
        }
    }
    reader.next()?;
    for slot in found {
        *slot = slot.filter(|value| !value.is_null());
    }
    Ok(())
}

fn plain(value: Option<Value<'_>>, member: Member) -> Result<&str, AnswerError> {
    let value = value.ok_or(AnswerError::Missing(member))?;
    value.as_str().and_then(Str::plain).ok_or(AnswerError::Kind(member))
}

fn number(value: Option<Value<'_>>, member: Member) -> Result<u32, AnswerError> {
    let value = value.ok_or(AnswerError::Missing(member))?;
    value.as_u64().and_then(|number| u32::try_from(number).ok()).ok_or(AnswerError::Kind(member))
}

fn unix_secs(value: Value<'_>) -> Option<u64> {
    timestamp::unix_secs(value.as_str()?.plain()?)
}

fn check_device_id(id: Str<'_>) -> Result<(), NameError> {
    let mut buffer = [0; names::DEVICE_ID_MAX];
    match id.unescape(&mut buffer) {
        Some(id) => names::check_device_id(id),
        None => Err(NameError { name: Name::Device, flaw: Flaw::TooLong { len: id.raw().len() } }),
    }
}

fn decimal<T: TryFrom<u64>>(text: &str) -> Option<T> {
    scan::decimal(text).and_then(|number| T::try_from(number).ok())
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
