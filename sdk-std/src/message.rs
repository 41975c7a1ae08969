//! Telemetry with its properties.

use std::time::{Duration, SystemTime};

use steadfast_core::iothub::property_bag::{self, BagError, PropertyBag};
use steadfast_core::{Destination, Message, Priority};

/// A telemetry message for an IoT hub: a body and properties.
///
/// Each property is percent-encoded when it is added, so that no value can become another property.
///
/// ```
/// use std::time::Duration;
/// use steadfast::Telemetry;
///
/// let reading = Telemetry::json(r#"{"celsius":21.5}"#)
///     .property("room", "a&b")?
///     .expires_after(Duration::from_secs(3600));
/// assert_eq!(reading.properties(), "$.ct=application%2Fjson&$.ce=utf-8&room=a%26b");
///
/// // It is sent before everything queued that is not urgent.
/// let alarm = Telemetry::json(r#"{"pressure":"high"}"#).component("boiler")?.urgent();
/// # Ok::<(), steadfast::BagError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Telemetry {
    payload: Vec<u8>,
    bag: String,
    expires_after: Option<Duration>,
    priority: Priority,
}

impl Telemetry {
    /// Makes a message without properties. The hub accepts at most 262,144 bytes: the body, the values of system
    /// properties, names and values of application properties, the 16 bytes of the message id made for a message
    /// without one, and the 24 of a creation time stamped on it. A larger message is not accepted:
    /// [`PublishError::TooLarge`](crate::PublishError::TooLarge). Properties travel in the topic, which has room for
    /// 65,151 bytes of them, percent-encoded; longer ones are
    /// [`PublishError::LongProperties`](crate::PublishError::LongProperties).
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// Makes a message whose body is JSON in UTF-8, with the content type and encoding that message routing on the body
    /// needs.
    pub fn json(text: impl Into<String>) -> Self {
        Self { payload: text.into().into_bytes(), bag: property_bag::JSON.to_owned(), ..Self::default() }
    }

    /// Makes a message whose body is `value` as JSON in UTF-8, with the content type and encoding that message routing
    /// on the body needs.
    ///
    /// # Errors
    /// That of `serde_json` if the value cannot be serialised, such as a map whose keys are not strings.
    #[cfg(feature = "json")]
    pub fn json_of(value: &(impl serde::Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(value)?;
        Ok(Self { payload, bag: property_bag::JSON.to_owned(), ..Self::default() })
    }

    /// Makes a message whose body is CBOR, with that content type.
    pub fn cbor(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), bag: property_bag::CBOR.to_owned(), ..Self::default() }
    }

    /// Sends the message before all unsent messages that are not urgent, also after a reconnection or a move. Urgent
    /// messages keep their order among themselves.
    pub fn urgent(self) -> Self {
        Self { priority: Priority::Urgent, ..self }
    }

    /// Makes a message of its encoded parts.
    pub(crate) const fn from_parts(
        bag: String,
        payload: Vec<u8>,
        expires_after: Option<Duration>,
        priority: Priority,
    ) -> Self {
        Self { payload, bag, expires_after, priority }
    }

    /// Adds an application property; the value may be empty, and both may hold any character.
    ///
    /// # Errors
    /// [`BagError`] for an empty, reserved or repeated key.
    pub fn property(self, key: &str, value: &str) -> Result<Self, BagError> {
        self.add(key.len() + value.len(), |bag| bag.property(key, value))
    }

    /// Sets the message id instead of a generated one.
    ///
    /// # Errors
    /// [`BagError`] for a bad id or a second one.
    pub fn message_id(self, id: &str) -> Result<Self, BagError> {
        self.add(id.len(), |bag| bag.message_id(id))
    }

    /// Sets the correlation id.
    ///
    /// # Errors
    /// [`BagError::Duplicate`] for a second one.
    pub fn correlation_id(self, id: &str) -> Result<Self, BagError> {
        self.add(id.len(), |bag| bag.correlation_id(id))
    }

    /// Sets the user id.
    ///
    /// # Errors
    /// [`BagError::Duplicate`] for a second one.
    pub fn user_id(self, id: &str) -> Result<Self, BagError> {
        self.add(id.len(), |bag| bag.user_id(id))
    }

    /// Sets the content type, such as `application/json`.
    ///
    /// # Errors
    /// [`BagError::Duplicate`] for a second one.
    pub fn content_type(self, value: &str) -> Result<Self, BagError> {
        self.add(value.len(), |bag| bag.content_type(value))
    }

    /// Sets the content encoding, such as `utf-8`.
    ///
    /// # Errors
    /// [`BagError::Duplicate`] for a second one.
    pub fn content_encoding(self, value: &str) -> Result<Self, BagError> {
        self.add(value.len(), |bag| bag.content_encoding(value))
    }

    /// Sets the creation time, a UTC time such as `2020-04-10T05:24:22.471Z`.
    ///
    /// # Errors
    /// [`BagError`] for another form or a second one.
    pub fn creation_time(self, utc: &str) -> Result<Self, BagError> {
        self.add(utc.len(), |bag| bag.creation_time(utc))
    }

    /// Sets the creation time to that of `time`, in whole milliseconds; a time before 1970 counts as 1970.
    ///
    /// # Errors
    /// [`BagError::Duplicate`] for a second one.
    pub fn created_at(self, time: SystemTime) -> Result<Self, BagError> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.add(24, |bag| bag.created_at(unix_ms))
    }

    /// Sets the absolute expiry time for consumers of the message, a UTC time such as `2020-04-10T05:24:22.471Z`.
    /// [`expires_after`](Self::expires_after) limits the wait for its delivery.
    ///
    /// # Errors
    /// [`BagError`] for another form or a second one.
    pub fn expiry(self, utc: &str) -> Result<Self, BagError> {
        self.add(utc.len(), |bag| bag.expiry(utc))
    }

    /// Sets the Plug and Play component the message comes from.
    ///
    /// # Errors
    /// [`BagError::Duplicate`] for a second one.
    pub fn component(self, name: &str) -> Result<Self, BagError> {
        self.add(name.len(), |bag| bag.component(name))
    }

    /// Sets the output of an IoT Edge module.
    ///
    /// # Errors
    /// [`BagError::Duplicate`] for a second one.
    pub fn output_name(self, name: &str) -> Result<Self, BagError> {
        self.add(name.len(), |bag| bag.output_name(name))
    }

    /// Sets the expiry, counted from acceptance. Default: that of the device's builder.
    pub fn expires_after(self, span: Duration) -> Self {
        Self { expires_after: Some(span), ..self }
    }

    /// Returns the message's priority.
    #[must_use]
    pub const fn priority(&self) -> Priority {
        self.priority
    }

    /// Returns the body.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Returns the properties as encoded in the topic.
    #[must_use]
    pub fn properties(&self) -> &str {
        &self.bag
    }

    /// Appends the property that `write` writes, unless its key exists already.
    fn add(
        mut self,
        size: usize,
        write: impl FnOnce(&mut PropertyBag<'_>) -> Result<(), BagError>,
    ) -> Result<Self, BagError> {
        // Each byte takes three at most; the rest is for the separator and a system property's key.
        let mut buffer = vec![0; size.saturating_mul(3).saturating_add(16)];
        let mut bag = PropertyBag::new(&mut buffer);
        write(&mut bag)?;
        let added = property_bag::properties(bag.as_str()).next();
        let repeated = |key: property_bag::Encoded<&str>| {
            property_bag::properties(&self.bag).any(|known| known.key.bytes().eq(key.bytes()))
        };
        if added.is_some_and(|property| repeated(property.key)) {
            return Err(BagError::Duplicate);
        }
        if !self.bag.is_empty() {
            self.bag.push('&');
        }
        self.bag.push_str(bag.as_str());
        Ok(self)
    }
}

impl<'a> From<&'a Telemetry> for Message<'a> {
    fn from(telemetry: &'a Telemetry) -> Self {
        let message = Self::to(Destination::Telemetry(&telemetry.bag), &telemetry.payload);
        Self { expires_after: telemetry.expires_after, priority: telemetry.priority, ..message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_encoded_one_after_the_other_and_never_twice() {
        let message = Telemetry::new("x").message_id("m-1").unwrap().property("ö &", "").unwrap();
        assert_eq!(message.properties(), "$.mid=m-1&%C3%B6%20%26=");
        assert_eq!(message.clone().property("ö &", "again"), Err(BagError::Duplicate));
        assert_eq!(message.clone().message_id("m-2"), Err(BagError::Duplicate));
        assert_eq!(message.clone().property("$.mid", "forged"), Err(BagError::ReservedKey));
        assert_eq!(Telemetry::json("{}").content_type("text/plain"), Err(BagError::Duplicate));
        let timed =
            message.clone().created_at(SystemTime::UNIX_EPOCH + Duration::from_millis(1_586_496_262_471)).unwrap();
        assert!(timed.properties().ends_with("&$.ctime=2020-04-10T05%3A24%3A22.471Z"), "{}", timed.properties());
        assert_eq!(timed.creation_time("2020-04-10T05:24:22Z"), Err(BagError::Duplicate));
        let core = Message::from(&message);
        assert_eq!((core.destination, core.payload), (Destination::Telemetry(message.properties()), &b"x"[..]));
        assert_eq!((core.priority, Message::from(&message.urgent()).priority), (Priority::Normal, Priority::Urgent));
    }

    #[cfg(feature = "json")]
    #[test]
    fn a_value_becomes_json_that_says_so() {
        let message = Telemetry::json_of(&serde_json::json!({"celsius": 21.5})).unwrap();
        assert_eq!((message.payload(), message.properties()), (&br#"{"celsius":21.5}"#[..], property_bag::JSON));
        let no_key = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Telemetry::json_of(&no_key).is_err());
    }
}
