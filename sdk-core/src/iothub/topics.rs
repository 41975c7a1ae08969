//! A device's texts for its hub: client id, user name, topics and topic filters.
//!
//! Names are not encoded in these texts, as the service requires: check them first with [`crate::azure::names`].

use crate::iothub::property_bag;
use crate::text::{Part, Text};

/// Version of the device protocol, part of the user name (IoT Hub, "Use MQTT to communicate with your IoT hub").
pub const API_VERSION: &str = "2021-04-12";
/// TCP port of MQTT over TLS (IoT Hub, supported protocols).
pub const PORT: u16 = 8883;
/// TCP port of MQTT over WebSockets over TLS (IoT Hub, supported protocols).
pub const WEBSOCKET_PORT: u16 = 443;
/// Path of MQTT over WebSockets (IoT Hub, supported protocols).
pub const WEBSOCKET_PATH: &str = "/$iothub/websocket";
/// Longest useful keep-alive interval, in seconds: the hub waits one and a half times the interval and never longer
/// than 1,767 s (IoT Hub, MQTT keep-alive).
pub const KEEP_ALIVE_MAX_SECS: u16 = 1177;
/// Largest telemetry message as [`telemetry_size`] counts, in bytes (IoT Hub, message format: 256 KB).
pub const TELEMETRY_MAX: usize = 262_144;
/// Bytes that a message id given to [`telemetry_topic`] adds to [`telemetry_size`].
pub const MESSAGE_ID_SIZE: usize = 16;
/// Bytes that a creation time given to [`telemetry_topic`] adds to [`telemetry_size`].
pub const CREATION_TIME_SIZE: usize = 24;
/// Number of topic filters a device can have at once (IoT Hub, MQTT support).
pub const FILTERS_MAX: usize = 5;

/// Topic filter of direct method requests.
pub const METHODS_FILTER: &str = "$iothub/methods/POST/#";
/// Topic filter of twin responses.
pub const TWIN_RESPONSE_FILTER: &str = "$iothub/twin/res/#";
/// Topic filter of changes of desired properties.
pub const DESIRED_FILTER: &str = "$iothub/twin/PATCH/properties/desired/#";

/// Returns the MQTT client id of a device or of one of its modules.
#[must_use]
pub fn client_id<'a>(device_id: &'a str, module_id: Option<&'a str>) -> Text<'a> {
    Text::of([
        Part::Plain(device_id),
        Part::Plain(if module_id.is_some() { "/" } else { "" }),
        Part::Plain(module_id.unwrap_or_default()),
    ])
}

/// The identity that connects to a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the user name has these members; a new one is a new protocol")]
pub struct UserName<'a> {
    /// Host name of the hub, also behind a gateway.
    pub hub: &'a str,
    /// Device id.
    pub device_id: &'a str,
    /// Module id, when a module connects.
    pub module_id: Option<&'a str>,
    /// Name and version of the software, any text; the hub shows it in its logs. Empty for none.
    pub product_info: &'a str,
    /// Digital twin model identifier, needed at every connection of a Plug and Play device.
    pub model_id: Option<&'a str>,
}

impl<'a> UserName<'a> {
    /// Returns the MQTT user name.
    #[must_use]
    pub fn text(&self) -> Text<'a> {
        let [slash, module] = prefixed("/", self.module_id);
        let product_info = Some(self.product_info).filter(|text| !text.is_empty());
        let [product_key, product] = encoded("&DeviceClientType=", product_info);
        let [model_key, model] = encoded("&model-id=", self.model_id);
        Text::of([
            Part::Plain(self.hub),
            Part::Plain("/"),
            Part::Plain(self.device_id),
            slash,
            module,
            Part::Plain("/?api-version="),
            Part::Plain(API_VERSION),
            product_key,
            product,
            model_key,
            model,
        ])
    }
}

/// Returns the topic of a telemetry message.
///
/// `bag` is from a [`PropertyBag`](crate::iothub::property_bag::PropertyBag), or empty. `message_id` is written before
/// it as `$.mid=` and 16 hexadecimal digits, `created` as `$.ctime=` and the UTC time; pass neither if the bag already
/// has it.
#[must_use]
pub fn telemetry_topic<'a>(
    device_id: &'a str,
    module_id: Option<&'a str>,
    bag: &'a str,
    message_id: Option<u64>,
    created: Option<&'a str>,
) -> Text<'a> {
    let [modules, module] = prefixed("/modules/", module_id);
    let [key, id] = match message_id {
        Some(id) => [Part::Plain("$.mid="), Part::Hex(id)],
        None => [Part::Plain(""), Part::Plain("")],
    };
    let [time_key, time] = encoded(if message_id.is_some() { "&$.ctime=" } else { "$.ctime=" }, created);
    let follows = message_id.is_some() || created.is_some();
    Text::of([
        Part::Plain("devices/"),
        Part::Plain(device_id),
        modules,
        module,
        Part::Plain("/messages/events/"),
        key,
        id,
        time_key,
        time,
        Part::Plain(if follows && !bag.is_empty() { "&" } else { "" }),
        Part::Plain(bag),
    ])
}

/// Returns the topic filter of cloud-to-device messages.
#[must_use]
pub fn c2d_filter(device_id: &str) -> Text<'_> {
    Text::of([Part::Plain("devices/"), Part::Plain(device_id), Part::Plain("/messages/devicebound/#")])
}

/// Returns the property bag at the end of the topic of a cloud-to-device message for `device_id`, or `None` for
/// another topic.
#[must_use]
pub fn c2d_bag<'a>(topic: &'a str, device_id: &str) -> Option<&'a str> {
    topic.strip_prefix("devices/")?.strip_prefix(device_id)?.strip_prefix("/messages/devicebound/")
}

/// Returns whether a bag sets the message id.
#[must_use]
pub fn has_message_id(bag: &str) -> bool {
    property_bag::properties(bag).any(|property| property.key == "$.mid")
}

/// Returns whether a bag sets the creation time, as system property or as application property.
#[must_use]
pub fn has_creation_time(bag: &str) -> bool {
    property_bag::properties(bag)
        .any(|property| property.key == "$.ctime" || property.key == property_bag::CREATION_TIME_KEY)
}

/// Returns the size of a message as the limit [`TELEMETRY_MAX`] counts it.
///
/// Counted are the body, the values of system properties, and the names and values of application properties, all
/// decoded. A message id that is not in the bag adds [`MESSAGE_ID_SIZE`], a creation time [`CREATION_TIME_SIZE`].
#[must_use]
pub fn telemetry_size(bag: &str, payload: &[u8]) -> usize {
    property_bag::properties(bag).fold(payload.len(), |size, property| {
        let system = property.key.bytes().take(2).eq(*b"$.");
        let key = if system { 0 } else { property.key.decoded_len() };
        let value = property.value.map_or(0, property_bag::Encoded::decoded_len);
        size.saturating_add(key).saturating_add(value)
    })
}

fn prefixed<'a>(prefix: &'a str, value: Option<&'a str>) -> [Part<'a>; 2] {
    match value {
        Some(value) => [Part::Plain(prefix), Part::Plain(value)],
        None => [Part::Plain(""), Part::Plain("")],
    }
}

fn encoded<'a>(prefix: &'a str, value: Option<&'a str>) -> [Part<'a>; 2] {
    match value {
        Some(value) => [Part::Plain(prefix), Part::Encoded(value)],
        None => [Part::Plain(""), Part::Plain("")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const DEVICE: UserName<'_> = UserName {
        hub: "myiothub.azure-devices.net",
        device_id: "my_device",
        module_id: None,
        product_info: "azsdk-c/1.5",
        model_id: None,
    };

    #[test]
    fn user_names_and_client_ids_have_the_documented_form() {
        assert_eq!(
            DEVICE.text().to_string(),
            "myiothub.azure-devices.net/my_device/?api-version=2021-04-12&DeviceClientType=azsdk-c%2F1.5"
        );
        let model_id = Some("dtmi:YOUR_COMPANY_NAME_HERE:sample_device;1");
        assert_eq!(
            UserName { model_id, product_info: "", ..DEVICE }.text().to_string(),
            "myiothub.azure-devices.net/my_device/?api-version=2021-04-12\
             &model-id=dtmi%3AYOUR_COMPANY_NAME_HERE%3Asample_device%3B1"
        );
        let module_id = Some("my_module_id");
        assert_eq!(
            UserName { module_id, model_id, product_info: "azrtos", ..DEVICE }.text().to_string(),
            "myiothub.azure-devices.net/my_device/my_module_id/?api-version=2021-04-12&DeviceClientType=azrtos\
             &model-id=dtmi%3AYOUR_COMPANY_NAME_HERE%3Asample_device%3B1"
        );
        assert_eq!(client_id("my_device", None).to_string(), "my_device");
        assert_eq!(client_id("my_device", module_id).to_string(), "my_device/my_module_id");
    }

    #[test]
    fn telemetry_topics_have_the_documented_form() {
        let bag = "key=value&key_two=value2";
        let module = Some("my_module_id");
        let table = [
            (telemetry_topic("my_device", None, "", None, None), "devices/my_device/messages/events/"),
            (
                telemetry_topic("my_device", None, bag, None, None),
                "devices/my_device/messages/events/key=value&key_two=value2",
            ),
            (
                telemetry_topic("my_device", module, bag, None, None),
                "devices/my_device/modules/my_module_id/messages/events/key=value&key_two=value2",
            ),
            (telemetry_topic("d", None, "", Some(0x1f), None), "devices/d/messages/events/$.mid=000000000000001f"),
            (telemetry_topic("d", None, "k=", Some(1), None), "devices/d/messages/events/$.mid=0000000000000001&k="),
            (
                telemetry_topic("d", None, "k=", None, Some("2020-04-10T05:24:22.471Z")),
                "devices/d/messages/events/$.ctime=2020-04-10T05%3A24%3A22.471Z&k=",
            ),
            (
                telemetry_topic("d", None, "", Some(1), Some("2020-04-10T05:24:22Z")),
                "devices/d/messages/events/$.mid=0000000000000001&$.ctime=2020-04-10T05%3A24%3A22Z",
            ),
        ];
        for (topic, expected) in table {
            assert_eq!(topic.to_string(), expected);
        }
    }

    #[test]
    fn cloud_to_device_topics_are_told_from_others() {
        assert_eq!(c2d_filter("useragent_c").to_string(), "devices/useragent_c/messages/devicebound/#");
        let table = [
            ("devices/useragent_c/messages/devicebound/", Some("")),
            ("devices/useragent_c/messages/devicebound/%24.to=%2Fd&abc=123", Some("%24.to=%2Fd&abc=123")),
            ("devices/useragent_c2/messages/devicebound/", None),
            ("devices/useragent_c/messages/devicebound", None),
            ("$iothub/twin/res/200/?$rid=1", None),
        ];
        for (topic, bag) in table {
            assert_eq!(c2d_bag(topic, "useragent_c"), bag, "{topic}");
        }
    }

    #[test]
    fn the_size_counts_what_the_service_counts() {
        assert_eq!(telemetry_size("", b"body"), 4);
        assert_eq!(telemetry_size("$.mid=abc&%24.ct=a%2Fb", b""), 3 + 3);
        assert_eq!(telemetry_size("k%20y=a%26b&flag&empty=", b"x"), 1 + 3 + 3 + 4 + 5);
        assert!(has_message_id("a=b&%24.mid=1") && has_message_id("$.mid=1") && !has_message_id("mid=1"));
    }
}
