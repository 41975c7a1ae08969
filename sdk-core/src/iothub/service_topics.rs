//! Topics of a hub's services: twin, direct methods, cloud-to-device messages, inputs of modules.
//!
//! Forms and statuses: IoT Hub, `iot-mqtt-connect-to-iot-hub.md`; inputs: IoT Edge module clients.

use crate::iothub::property_bag::{self, Encoded};
use crate::scan;
use crate::text::{Part, Text};

/// Status of an answer to a request that succeeded.
pub const OK: u16 = 200;
/// Status of a method the device does not have.
pub const NOT_FOUND: u16 = 404;
/// Status of a condition that no longer holds.
pub const PRECONDITION_FAILED: u16 = 412;
/// Status of a request that came too fast.
pub const THROTTLED: u16 = 429;
/// Status of a method call beyond the limit of open calls.
pub const BUSY: u16 = 503;

/// Returns the topic that requests the twin; the response contains `request`.
#[must_use]
pub fn twin_get_topic<'a>(request: u32) -> Text<'a> {
    Text::of([Part::Plain("$iothub/twin/GET/?$rid="), Part::Number(u64::from(request))])
}

/// Returns the topic of a patch of reported properties; the response contains `request`.
#[must_use]
pub fn reported_topic<'a>(request: u32) -> Text<'a> {
    Text::of([Part::Plain("$iothub/twin/PATCH/properties/reported/?$rid="), Part::Number(u64::from(request))])
}

/// Returns the topic of the answer to a method call; `request` is the call's.
#[must_use]
pub fn method_answer_topic(status: u16, request: &str) -> Text<'_> {
    Text::of([
        Part::Plain("$iothub/methods/res/"),
        Part::Number(u64::from(status)),
        Part::Plain("/?$rid="),
        Part::Plain(request),
    ])
}

/// Returns the topic filter of the messages routed to a module's inputs.
#[must_use]
pub fn inputs_filter<'a>(device_id: &'a str, module_id: &'a str) -> Text<'a> {
    Text::of([
        Part::Plain("devices/"),
        Part::Plain(device_id),
        Part::Plain("/modules/"),
        Part::Plain(module_id),
        Part::Plain("/inputs/#"),
    ])
}

/// A message from a hub, by its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inbound<'a> {
    /// A twin response.
    TwinAnswer {
        /// HTTP-like status.
        status: u16,
        /// The request answered, when the number is one this library gives.
        request: Option<u32>,
        /// Version of the reported properties after a patch.
        version: Option<u64>,
    },
    /// A change of desired properties.
    Desired {
        /// Their version after the change, if the topic contains it.
        version: Option<u64>,
    },
    /// A method call.
    Method {
        /// The method's name.
        name: Encoded<&'a str>,
        /// The request id for the answer.
        request: &'a str,
    },
    /// A cloud-to-device message.
    CloudToDevice {
        /// Its property bag.
        properties: &'a str,
    },
    /// A message routed to a module.
    Input {
        /// The input's name.
        name: Encoded<&'a str>,
        /// Its property bag.
        properties: &'a str,
    },
}

impl<'a> Inbound<'a> {
    /// Parses the topic of a message to a device or module; `None` for an unknown topic.
    #[must_use]
    pub fn parse(topic: &'a str, device_id: &str, module_id: Option<&str>) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix("$iothub/twin/res/") {
            let (status, query) = scan::split_once(rest, b'/')?;
            let query = query.strip_prefix('?')?;
            let request = number(query, "$rid").and_then(|number| u32::try_from(number).ok());
            let status = u16::try_from(scan::decimal(status)?).ok()?;
            return Some(Self::TwinAnswer { status, request, version: number(query, "$version") });
        }
        if let Some(rest) = topic.strip_prefix("$iothub/twin/PATCH/properties/desired/") {
            return Some(Self::Desired { version: rest.strip_prefix('?').and_then(|query| number(query, "$version")) });
        }
        if let Some(rest) = topic.strip_prefix("$iothub/methods/POST/") {
            let (name, query) = scan::split_once(rest, b'/')?;
            let request = value(query.strip_prefix('?')?, "$rid")?.raw();
            return Some(Self::Method { name: Encoded(name), request });
        }
        let rest = topic.strip_prefix("devices/")?.strip_prefix(device_id)?;
        match module_id {
            None => {
                let properties = rest.strip_prefix("/messages/devicebound")?;
                // The service omits the slash without properties.
                let properties = if properties.is_empty() { "" } else { properties.strip_prefix('/')? };
                Some(Self::CloudToDevice { properties })
            }
            Some(module_id) => {
                let rest = rest.strip_prefix("/modules/")?.strip_prefix(module_id)?.strip_prefix("/inputs/")?;
                let (name, properties) = scan::split_once(rest, b'/').unwrap_or((rest, ""));
                Some(Self::Input { name: Encoded(name), properties })
            }
        }
    }
}

fn number(query: &str, key: &str) -> Option<u64> {
    scan::decimal(value(query, key)?.raw())
}

fn value<'a>(query: &'a str, key: &str) -> Option<Encoded<&'a str>> {
    property_bag::properties(query).find(|property| property.key == *key)?.value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn requests_have_the_documented_topics() {
        assert_eq!(twin_get_topic(7).to_string(), "$iothub/twin/GET/?$rid=7");
        assert_eq!(reported_topic(8).to_string(), "$iothub/twin/PATCH/properties/reported/?$rid=8");
        assert_eq!(method_answer_topic(65_535, "2").to_string(), "$iothub/methods/res/65535/?$rid=2");
        assert_eq!(inputs_filter("d", "m").to_string(), "devices/d/modules/m/inputs/#");
    }

    #[test]
    fn what_a_hub_sends_is_told_by_its_topic() {
        let parse = |topic| Inbound::parse(topic, "d", None);
        let answer = |status, request, version| Some(Inbound::TwinAnswer { status, request, version });
        let table = [
            ("$iothub/twin/res/200/?$rid=12", answer(200, Some(12), None)),
            ("$iothub/twin/res/204/?$rid=12&$version=16", answer(204, Some(12), Some(16))),
            ("$iothub/twin/res/204/?$version=16&%24rid=12", answer(204, Some(12), Some(16))),
            ("$iothub/twin/res/400/?$rid=id_one", answer(400, None, None)),
            ("$iothub/twin/PATCH/properties/desired/?$version=9", Some(Inbound::Desired { version: Some(9) })),
            ("$iothub/twin/PATCH/properties/desired/?$version=id_one", Some(Inbound::Desired { version: None })),
            ("devices/d/messages/devicebound/", Some(Inbound::CloudToDevice { properties: "" })),
            ("devices/d/messages/devicebound", Some(Inbound::CloudToDevice { properties: "" })),
            ("devices/d/messages/devicebound/a=b", Some(Inbound::CloudToDevice { properties: "a=b" })),
            ("$iothub/twin/rez/200", None),
            ("$iothub/twin/res/200", None),
            ("$iothub/twin/res/x/?$rid=1", None),
            ("$iothub/contoso/res/200", None),
            ("devices/d/$iothub/twin/res/200/?$rid=id_one", None),
            ("devices/d2/messages/devicebound/", None),
            ("devices/d/modules/m/inputs/in/", None),
            ("$iothub/methods/POST/reboot/", None),
        ];
        for (topic, expected) in table {
            assert_eq!(parse(topic), expected, "{topic}");
        }
        let Some(Inbound::Method { name, request }) = parse("$iothub/methods/POST/thermo%2Areboot/?$rid=1f") else {
            panic!("a method call")
        };
        assert!(name == "thermo*reboot" && request == "1f");
        let input = Inbound::parse("devices/d/modules/m/inputs/in%201/%24.mid=7", "d", Some("m"));
        let Some(Inbound::Input { name, properties }) = input else { panic!("an input") };
        assert!(name == "in 1" && properties == "%24.mid=7");
    }
}
