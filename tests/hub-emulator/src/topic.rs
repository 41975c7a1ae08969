//! The documented topics, filters, user names and property bags.

use percent_encoding::percent_decode_str;

use crate::sas::percent_encode;

/// A parsed user name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserName<'a> {
    Hub { host: &'a str, identity: &'a str, query: Query },
    Dps { id_scope: &'a str, registration_id: &'a str, query: Query },
}

impl<'a> UserName<'a> {
    /// Parses a user name; none when it has no documented form.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (host, rest) = text.split_once('/')?;
        if let Some(rest) = rest.strip_prefix("registrations/") {
            let (registration_id, query) = rest.split_once('/').unwrap_or((rest, ""));
            let query = Query::read(query.trim_start_matches('?'));
            return Some(Self::Dps { id_scope: host, registration_id, query });
        }
        // The documentation of IoT Hub writes the first, its older version the second, that of IoT Edge the third.
        let forms = ["/?", "/api-version=", "?api-version="];
        let (identity, query) = match forms.iter().find_map(|form| rest.find(form)) {
            Some(at) => (&rest[..at], rest[at..].trim_start_matches(['/', '?'])),
            None => (rest.trim_end_matches('/'), ""),
        };
        if host.is_empty() || identity.is_empty() || identity.split('/').count() > 2 {
            return None;
        }
        Some(Self::Hub { host, identity, query: Query::read(query) })
    }
}

/// The query of a user name; unknown members are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) api_version: Option<String>,
    pub(crate) model_id: Option<String>,
    /// The `DeviceClientType` or `ClientVersion` member.
    pub(crate) product: Option<String>,
}

impl Query {
    fn read(query: &str) -> Self {
        let read = |name| member(query, name).map(decode);
        Self {
            api_version: read("api-version"),
            model_id: read("model-id"),
            product: read("DeviceClientType").or_else(|| read("ClientVersion")),
        }
    }
}

fn member<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|member| member.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A publish of a device, by its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceTopic<'a> {
    Telemetry {
        bag: &'a str,
    },
    TwinGet {
        request: &'a str,
    },
    /// With the expected version of the reported properties, if given.
    TwinPatch {
        request: &'a str,
        version: Option<u64>,
    },
    MethodAnswer {
        status: i64,
        request: &'a str,
    },
    IssueCertificate {
        request: &'a str,
    },
}

impl<'a> DeviceTopic<'a> {
    /// Parses a topic of the identity `identity`; none when it is undocumented.
    pub(crate) fn parse(topic: &'a str, identity: &str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix("devices/") {
            return Some(Self::Telemetry { bag: telemetry_bag(rest, identity)? });
        }
        let rest = topic.strip_prefix("$iothub/")?;
        if let Some(rest) = rest.strip_prefix("twin/") {
            if let Some(query) = rest.strip_prefix("GET/?") {
                return Some(Self::TwinGet { request: member(query, "$rid")? });
            }
            let query = rest.strip_prefix("PATCH/properties/reported/?")?;
            // The Java SDK sends 0, which no twin has, when it knows no version.
            let version =
                member(query, "$version").and_then(|version| version.parse().ok()).filter(|&version| version > 0);
            return Some(Self::TwinPatch { request: member(query, "$rid")?, version });
        }
        if let Some(rest) = rest.strip_prefix("methods/res/") {
            let (status, query) = rest.split_once("/?")?;
            return Some(Self::MethodAnswer { status: status.parse().ok()?, request: member(query, "$rid")? });
        }
        let query = rest.strip_prefix("credentials/POST/issueCertificate/?")?;
        Some(Self::IssueCertificate { request: member(query, "$rid")? })
    }
}

fn telemetry_bag<'a>(rest: &'a str, identity: &str) -> Option<&'a str> {
    let rest = match identity.split_once('/') {
        None => rest.strip_prefix(identity)?,
        Some((device, module)) => rest.strip_prefix(device)?.strip_prefix("/modules/")?.strip_prefix(module)?,
    };
    let bag = rest.strip_prefix("/messages/events")?;
    let bag = if bag.is_empty() { bag } else { bag.strip_prefix('/')? };
    // Modules of the Java SDK append a slash to their topics. It is not part of a value, since values encode slashes.
    Some(bag.strip_suffix('/').filter(|_| identity.contains('/')).unwrap_or(bag))
}

/// The feed of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Feed {
    CloudToDevice,
    /// The inputs of a module.
    Inputs,
    Methods,
    TwinAnswers,
    Desired,
    Credentials,
}

impl Feed {
    /// Returns the feeds of a filter for the identity `identity`; none when the filter is neither documented nor in
    /// use.
    pub(crate) fn of(filter: &str, identity: &str) -> Option<&'static [Self]> {
        match filter {
            // The documented filter, then that of the CircuitPython and IoT Central clients.
            "$iothub/methods/POST/#" | "$iothub/methods/#" => return Some(&[Self::Methods]),
            "$iothub/twin/res/#" => return Some(&[Self::TwinAnswers]),
            "$iothub/twin/PATCH/properties/desired/#" => return Some(&[Self::Desired]),
            // The nanoFramework SDK subscribes to both with one filter.
            "$iothub/twin/#" => return Some(&[Self::TwinAnswers, Self::Desired]),
            "$iothub/credentials/res/#" => return Some(&[Self::Credentials]),
            _ => {}
        }
        // The CircuitPython client subscribes only to successful responses.
        let status = filter.strip_prefix("$iothub/twin/res/").and_then(|rest| rest.strip_suffix("/#"));
        if status.is_some_and(|status| status.len() == 3 && status.bytes().all(|digit| digit.is_ascii_digit())) {
            return Some(&[Self::TwinAnswers]);
        }
        match own_part(filter, identity)? {
            "/messages/devicebound/#" | "/messages/deviceBound/#" => Some(&[Self::CloudToDevice]),
            // Samples subscribe to their own telemetry topic, and receive nothing.
            "/messages/events/#" => Some(&[]),
            "/inputs/#" if identity.contains('/') => Some(&[Self::Inputs]),
            // Modules of the C# and C SDKs subscribe to all of their topics with one filter.
            "/#" if identity.contains('/') => Some(&[Self::CloudToDevice, Self::Inputs]),
            _ => None,
        }
    }
}

/// Returns whether a filter matches a topic, where the filter ends with `#` and has no other wildcard.
pub(crate) fn is_below(topic: &str, filter: &str) -> bool {
    topic.starts_with(filter.trim_end_matches('#'))
}

/// Returns the rest of a filter after the name of the identity, in which `+` may replace a part.
fn own_part<'a>(filter: &'a str, identity: &str) -> Option<&'a str> {
    let named = |rest: &'a str, name: &str| rest.strip_prefix(name).or_else(|| rest.strip_prefix('+'));
    let rest = filter.strip_prefix("devices/")?;
    match identity.split_once('/') {
        None => named(rest, identity),
        Some((device, module)) => named(named(rest, device)?.strip_prefix("/modules/")?, module),
    }
}

/// A request to DPS, by its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DpsTopic<'a> {
    Register { request: &'a str },
    Poll { request: &'a str, operation: Option<&'a str> },
}

impl<'a> DpsTopic<'a> {
    /// The filter that DPS allows.
    pub(crate) const FILTER: &'static str = "$dps/registrations/res/#";

    pub(crate) fn parse(topic: &'a str) -> Option<Self> {
        let rest = topic.strip_prefix("$dps/registrations/")?;
        if let Some(query) = rest.strip_prefix("PUT/iotdps-register/?") {
            return Some(Self::Register { request: member(query, "$rid")? });
        }
        let query = rest.strip_prefix("GET/iotdps-get-operationstatus/?")?;
        Some(Self::Poll { request: member(query, "$rid")?, operation: member(query, "operationId") })
    }
}

/// Decodes a property bag: pairs in the order of the topic, a key without `=` having an empty value.
pub(crate) fn decode_bag(bag: &str) -> Vec<(String, String)> {
    bag.trim_start_matches('?')
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// Encodes a property bag.
pub(crate) fn encode_bag(properties: &[(String, String)]) -> String {
    let mut bag = String::new();
    for (key, value) in properties {
        if !bag.is_empty() {
            bag.push('&');
        }
        bag.push_str(&percent_encode(key));
        bag.push('=');
        bag.push_str(&percent_encode(value));
    }
    bag
}

/// Returns the topic prefix of messages to the identity `identity`.
pub(crate) fn devicebound(identity: &str) -> String {
    match identity.split_once('/') {
        None => format!("devices/{identity}/messages/devicebound/"),
        Some((device, module)) => format!("devices/{device}/modules/{module}/messages/devicebound/"),
    }
}

/// Returns the topic prefix of messages to an input of the module `identity`.
pub(crate) fn input(identity: &str, name: &str) -> String {
    let (device, module) = identity.split_once('/').unwrap_or((identity, ""));
    format!("devices/{device}/modules/{module}/inputs/{name}/")
}

/// Returns the resource of an identity, as a token for it names it.
pub(crate) fn resource(host: &str, identity: &str) -> String {
    match identity.split_once('/') {
        None => format!("{host}/devices/{identity}"),
        Some((device, module)) => format!("{host}/devices/{device}/modules/{module}"),
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_read_with_and_without_the_question_mark() {
        for text in [
            "h.azure-devices.net/my_device/?api-version=2020-09-30&DeviceClientType=azsdk-c%2F1",
            "h.azure-devices.net/my_device/api-version=2020-09-30",
            "h.azure-devices.net/my_device?api-version=2020-09-30",
            "h.azure-devices.net/my_device/?model-id=dtmi%3Aa%3Bb%3B1&api-version=2020-09-30",
        ] {
            let Some(UserName::Hub { host, identity, query }) = UserName::parse(text) else { panic!("{text}") };
            assert_eq!((host, identity), ("h.azure-devices.net", "my_device"));
            assert_eq!(query.api_version.as_deref(), Some("2020-09-30"));
        }
    }

    #[test]
    fn a_module_user_name_names_device_and_module() {
        let parsed = UserName::parse("h.net/my_device/my_module_id/?api-version=2020-09-30&DeviceClientType=azrtos");
        assert!(matches!(parsed, Some(UserName::Hub { identity: "my_device/my_module_id", .. })));
    }

    #[test]
    fn a_dps_user_name_has_no_question_mark() {
        let parsed = UserName::parse("0ne00AB/registrations/reg-1/api-version=2019-03-31&ClientVersion=x%2F1");
        let Some(UserName::Dps { id_scope: "0ne00AB", registration_id: "reg-1", query }) = parsed else {
            panic!("{parsed:?}")
        };
        assert_eq!(query.api_version.as_deref(), Some("2019-03-31"));
        assert_eq!(query.product.as_deref(), Some("x/1"));
    }

    #[test]
    fn only_documented_topics_of_the_own_identity_are_read() {
        let read = |topic| DeviceTopic::parse(topic, "d");
        assert_eq!(read("devices/d/messages/events/a=b"), Some(DeviceTopic::Telemetry { bag: "a=b" }));
        assert_eq!(read("$iothub/twin/GET/?$rid=7"), Some(DeviceTopic::TwinGet { request: "7" }));
        let answer = DeviceTopic::MethodAnswer { status: 65_535, request: "2" };
        assert_eq!(read("$iothub/methods/res/65535/?$rid=2"), Some(answer));
        for topic in ["devices/e/messages/events/", "devices/dd/messages/events/", "$iothub/twin/rez/200", "a", ""] {
            assert_eq!(read(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_property_bag_survives_encoding_and_decoding() {
        let bag = "%24.mid=msg-1&$.cid=c%2F1&k=&note=a%20b%26c%3Dd%2F%C3%A9&null";
        let pairs = decode_bag(bag);
        let want = [("$.mid", "msg-1"), ("$.cid", "c/1"), ("k", ""), ("note", "a b&c=d/é"), ("null", "")];
        assert_eq!(pairs, want.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(decode_bag(&encode_bag(&pairs)), pairs);
    }

    #[test]
    fn filters_with_a_wildcard_for_the_own_name_are_documented() {
        for (filter, identity, feeds) in [
            ("devices/+/messages/devicebound/#", "d", &[Feed::CloudToDevice][..]),
            ("devices/d/messages/devicebound/#", "d", &[Feed::CloudToDevice]),
            ("devices/d/messages/events/#", "d", &[]),
            ("devices/d/modules/m/messages/devicebound/#", "d/m", &[Feed::CloudToDevice]),
            ("devices/+/modules/+/inputs/#", "d/m", &[Feed::Inputs]),
            ("devices/d/modules/m/#", "d/m", &[Feed::CloudToDevice, Feed::Inputs]),
            ("$iothub/twin/#", "d", &[Feed::TwinAnswers, Feed::Desired]),
            ("$iothub/twin/res/200/#", "d", &[Feed::TwinAnswers]),
            ("$iothub/methods/#", "d", &[Feed::Methods]),
        ] {
            assert_eq!(Feed::of(filter, identity), Some(feeds), "{filter}");
        }
        for (filter, identity) in [
            ("devices/e/messages/devicebound/#", "d"),
            ("devices/d/modules/n/#", "d/m"),
            ("devices/d/#", "d"),
            ("$iothub/#", "d"),
            ("$iothub/twin/res/2x0/#", "d"),
            ("#", "d"),
        ] {
            assert_eq!(Feed::of(filter, identity), None, "{filter}");
        }
    }

    #[test]
    fn the_slash_at_the_end_of_a_modules_topic_belongs_to_no_property() {
        let read = |topic, identity| DeviceTopic::parse(topic, identity);
        let module = read("devices/d/modules/m/messages/events/k=v/", "d/m");
        assert_eq!(module, Some(DeviceTopic::Telemetry { bag: "k=v" }));
        assert_eq!(read("devices/d/modules/m/messages/events/", "d/m"), Some(DeviceTopic::Telemetry { bag: "" }));
        assert_eq!(read("devices/d/messages/events/k=v/", "d"), Some(DeviceTopic::Telemetry { bag: "k=v/" }));
    }
}
