use super::*;
use crate::json::Problem;
use crate::json::{ObjectError, check_object};
use proptest::prelude::*;
use std::format;
use std::string::{String, ToString};

const OPERATION: &str = "4.d0a671905ea5b2c8.e7173b7b-6a1f-4f2c-9d0e-0123456789ab";

#[test]
fn requests_have_the_documented_form() {
    let table = [
        (user_name("0ne00TEST01", "dev-1", ""), "0ne00TEST01/registrations/dev-1/api-version=2019-03-31"),
        (
            user_name("0ne00TEST01", "dev-1", "steadfast/1 (x)"),
            "0ne00TEST01/registrations/dev-1/api-version=2019-03-31&ClientVersion=steadfast%2F1%20%28x%29",
        ),
        (register_topic(7), "$dps/registrations/PUT/iotdps-register/?$rid=7"),
        (
            poll_topic(u32::MAX, "4.d0a6-1"),
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=4294967295&operationId=4.d0a6-1",
        ),
        (poll_topic(1, "a&b#+"), "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId=a%26b%23%2B"),
        (register_body("reg-01", None, None), r#"{"registrationId":"reg-01"}"#),
        (register_body("reg-01", Some(r#"{"a":1}"#), None), r#"{"registrationId":"reg-01","payload":{"a":1}}"#),
        (
            register_body("reg-01", None, Some("dtmi:com:example:Thermostat;1")),
            r#"{"registrationId":"reg-01","payload":{"modelId":"dtmi:com:example:Thermostat;1"}}"#,
        ),
    ];
    for (text, expected) in table {
        assert_eq!(text.to_string(), expected);
    }
}

#[test]
fn a_payload_is_one_json_object() {
    assert_eq!(check_object(br#" {"modelId":"a","nested":{"b":[1]}} "#), Ok(()));
    assert_eq!(check_object(b"[]"), Err(ObjectError::NotAnObject));
    assert_eq!(check_object(b"null"), Err(ObjectError::NotAnObject));
    for bad in ["", "{", "{}}", r#"{"a":NaN}"#, r#"{},"x":{}"#] {
        assert!(matches!(check_object(bad.as_bytes()), Err(ObjectError::Json(_))), "{bad}");
    }
}

#[test]
fn answer_topics_are_read_in_every_form() {
    let table = [
        ("202/?$rid=1&retry-after=3", 202, 1, Some(3)),
        ("200/?$rid=1", 200, 1, None),
        ("401/?$rid=1", 401, 1, None),
        ("429/?retry-after=5&$rid=4294967295", 429, u32::MAX, Some(5)),
        ("202/?$rid=1&Retry-After=30&x=y", 202, 1, Some(30)),
        ("202/?$rid=1&retry-after=soon", 202, 1, None),
        ("202/?$rid=1&retry-after=-3", 202, 1, None),
        ("202/?$rid=1&retry-after=", 202, 1, None),
        ("202/?$rid=1&retry-after=99999999999999999999999", 202, 1, Some(u32::MAX)),
    ];
    for (tail, status, request_id, retry_after_secs) in table {
        let topic = format!("$dps/registrations/res/{tail}");
        assert_eq!(Response::parse(&topic), Ok(Response { status, request_id, retry_after_secs }), "{topic}");
    }
}

#[test]
fn other_topics_are_refused() {
    let table = [
        ("", TopicError::Other),
        ("$iothub/twin/res/200/?$rid=1", TopicError::Other),
        ("$dps/registrations/res/200", TopicError::Other),
        ("$dps/registrations/res/200?$rid=1", TopicError::Other),
        ("x$dps/registrations/res/200/?$rid=1", TopicError::Other),
        ("$dps/registrations/res//?$rid=1", TopicError::Status),
        ("$dps/registrations/res/+200/?$rid=1", TopicError::Status),
        ("$dps/registrations/res/65536/?$rid=1", TopicError::Status),
        ("$dps/registrations/res/200/?", TopicError::RequestId),
        ("$dps/registrations/res/200/?retry-after=3", TopicError::RequestId),
        ("$dps/registrations/res/200/?$rid=", TopicError::RequestId),
        ("$dps/registrations/res/200/?$rid=id_one", TopicError::RequestId),
        ("$dps/registrations/res/200/?$rid=4294967296", TopicError::RequestId),
    ];
    for (topic, error) in table {
        assert_eq!(Response::parse(topic), Err(error), "{topic}");
    }
}

fn body(status: &str, state: &str) -> String {
    format!(r#"{{"operationId":"{OPERATION}","status":"{status}","registrationState":{state}}}"#)
}

#[test]
fn an_assignment_is_read() {
    let state = r#"{"x509":{},"registrationId":"reg-01","createdDateTimeUtc":"2020-04-10T03:11:13.0276997Z",
        "assignedHub":"contoso.azure-devices.net","deviceId":"reg-01","status":"assigned",
        "substatus":"initialAssignment","lastUpdatedDateTimeUtc":"2020-04-10T03:11:13.2096201Z",
        "etag":"IjYx","payload":{"a": [1]}}"#;
    let body = body("assigned", state);
    let Ok(Answer::Assigned(assigned)) = Answer::parse(200, body.as_bytes()) else { panic!("{body}") };
    assert_eq!(assigned.hub, "contoso.azure-devices.net");
    assert!(assigned.device_id == "reg-01");
    assert_eq!(assigned.payload, Some(&br#"{"a": [1]}"#[..]));
    assert_eq!(assigned.substatus, Some("initialAssignment"));
    assert_eq!(assigned.server_time, Some(1_586_488_273));
}

#[test]
fn a_device_id_may_be_escaped_and_differ_from_the_registration_id() {
    let body = body("assigned", r#"{"assignedHub":"h.net","deviceId":"dev\u0027s","payload":null}"#);
    let Ok(Answer::Assigned(assigned)) = Answer::parse(200, body.as_bytes()) else { panic!("{body}") };
    assert_eq!(assigned.device_id.unescape(&mut [0; 8]), Some("dev's"));
    assert_eq!((assigned.payload, assigned.substatus, assigned.server_time), (None, None, None));
}

#[test]
fn a_registration_that_goes_on_is_told_from_one_that_ended() {
    let state = r#"{"registrationId":"reg-01","status":"assigning"}"#;
    let table = [
        (202, body("assigning", state), Answer::Assigning { operation_id: OPERATION }),
        (202, body("unassigned", "null"), Answer::Unassigned { operation_id: OPERATION }),
        (200, body("disabled", "{}"), Answer::Disabled),
    ];
    for (status, body, answer) in table {
        assert_eq!(Answer::parse(status, body.as_bytes()), Ok(answer), "{body}");
    }
}

#[test]
fn a_failure_inside_a_200_is_a_failure() {
    let state =
        r#"{"status":"failed","errorCode":400207,"errorMessage":"Custom allocation failed with status code: 400"}"#;
    let body = body("failed", state);
    let Ok(Answer::Failed { code, message, server_time }) = Answer::parse(200, body.as_bytes()) else {
        panic!("{body}")
    };
    assert_eq!((code, server_time), (400_207, None));
    assert!(message.unwrap() == "Custom allocation failed with status code: 400");
}

#[test]
fn a_refusal_tells_its_code_and_the_services_time() {
    let body = r#"{"errorCode":401002,"trackingId":"8ad0463c-6427-4479-9dfa-3e8bb7003e9b","message":"Invalid certificate.",
        "timestampUtc":"2020-04-10T05:24:22.4718526Z"}"#;
    let Ok(Answer::Refused { status, code, message, server_time }) = Answer::parse(401, body.as_bytes()) else {
        panic!("{body}")
    };
    assert_eq!((status, code, server_time), (401, 401_002, Some(1_586_496_262)));
    assert!(message.unwrap() == "Invalid certificate.");
    assert!(matches!(Answer::parse(429, br#"{"errorCode":429001}"#), Ok(Answer::Refused { server_time: None, .. })));
}

#[test]
fn a_connection_profile_other_than_classic_is_an_outcome_of_its_own() {
    let with = |profile: &str| body("assigned", &format!(r#"{{"assignedHub":"h.net","deviceId":"d"{profile}}}"#));
    for fine in ["", r#","connectionProfile":null"#, r#","connectionProfile":"classic""#] {
        let body = with(fine);
        assert!(matches!(Answer::parse(200, body.as_bytes()), Ok(Answer::Assigned(_))), "{body}");
    }
    for (profile, raw) in [("\"mqtt5\"", "mqtt5"), ("7", "7"), (r#"{"a":1}"#, r#"{"a":1}"#), ("\"\"", "")] {
        let body = with(&format!(r#","connectionProfile":{profile}"#));
        assert_eq!(Answer::parse(200, body.as_bytes()), Ok(Answer::UnsupportedProfile(raw)), "{body}");
    }
    let outside = format!(
        r#"{{"operationId":"{OPERATION}","status":"assigned","connectionProfile":"mqtt5","registrationState":{{}}}}"#
    );
    assert_eq!(Answer::parse(200, outside.as_bytes()), Ok(Answer::UnsupportedProfile("mqtt5")));
}

#[test]
fn every_flaw_of_an_answer_has_its_own_error() {
    use AnswerError as E;
    let json = |at, problem| E::Json(JsonError { at, problem });
    let assigned = |state: &str| body("assigned", state);
    let hub = |host: &str| assigned(&format!(r#"{{"assignedHub":"{host}","deviceId":"d"}}"#));
    let hub_error = |flaw| E::Name(NameError { name: Name::Hub, flaw });
    let device = |id: &str| assigned(&format!(r#"{{"assignedHub":"h.net","deviceId":"{id}"}}"#));
    let device_error = |flaw| E::Name(NameError { name: Name::Device, flaw });
    let table = [
        (200, String::new(), json(0, Problem::End)),
        (200, String::from("<html>"), json(0, Problem::Unexpected)),
        (200, String::from("[]"), E::NotAnObject),
        (200, String::from(r#"{"status":"assigning"}"#), E::Missing(Member::OperationId)),
        (200, String::from(r#"{"status":"assigned","registrationState":{}}"#), E::Missing(Member::OperationId)),
        (200, String::from(r#"{"operationId":"1"}"#), E::Missing(Member::Status)),
        (200, String::from(r#"{"operationId":"1","status":null}"#), E::Missing(Member::Status)),
        (200, String::from(r#"{"operationId":"1","status":7}"#), E::Kind(Member::Status)),
        (200, String::from(r#"{"operationId":1,"status":"assigning"}"#), E::Kind(Member::OperationId)),
        (200, String::from(r#"{"operationId":"1","status":"Assigned"}"#), E::UnknownStatus),
        (200, String::from(r#"{"operationId":"1","status":"other"}"#), E::UnknownStatus),
        (200, String::from(r#"{"operationId":"1","status":"assigned"}"#), E::Missing(Member::RegistrationState)),
        (200, String::from(r#"{"status":"a","status":"b"}"#), E::Duplicate(Member::Status)),
        (200, String::from(r#"{"status":null,"st\u0061tus":null}"#), E::Duplicate(Member::Status)),
        (200, assigned("7"), E::NotAnObject),
        (200, assigned("{}"), E::Missing(Member::AssignedHub)),
        (200, assigned(r#"{"deviceId":"d"}"#), E::Missing(Member::AssignedHub)),
        (200, assigned(r#"{"assignedHub":"h.net"}"#), E::Missing(Member::DeviceId)),
        (200, assigned(r#"{"assignedHub":"h.net","deviceId":7}"#), E::Kind(Member::DeviceId)),
        (200, assigned(r#"{"assignedHub":"a","assignedHub":"b"}"#), E::Duplicate(Member::AssignedHub)),
        (200, assigned(r#"{"assignedHub":"h\u002enet","deviceId":"d"}"#), E::Kind(Member::AssignedHub)),
        (200, body("failed", r#"{"status":"failed"}"#), E::Missing(Member::ErrorCode)),
        (200, body("failed", r#"{"errorCode":"400207"}"#), E::Kind(Member::ErrorCode)),
        (401, String::from(r#"{"message":"no"}"#), E::Missing(Member::ErrorCode)),
        (401, String::from(r#"{"errorCode":4294967296}"#), E::Kind(Member::ErrorCode)),
        (401, String::from(r#"{"errorCode":1e5}"#), E::Kind(Member::ErrorCode)),
        (200, hub("hub@evil"), hub_error(Flaw::Character { at: 3, byte: b'@' })),
        (200, hub("h.net:8883"), hub_error(Flaw::Character { at: 5, byte: b':' })),
        (200, hub("h.net/x"), hub_error(Flaw::Character { at: 5, byte: b'/' })),
        (200, hub("127.0.0.1"), hub_error(Flaw::Address)),
        (200, hub("xn--hb-xka.net"), hub_error(Flaw::Punycode { at: 0 })),
        (200, hub(""), hub_error(Flaw::Empty)),
        (200, device("a/b"), device_error(Flaw::Character { at: 1, byte: b'/' })),
        (200, device("a\\u0000b"), device_error(Flaw::Character { at: 1, byte: 0 })),
        (200, device(&"d".repeat(129)), device_error(Flaw::TooLong { len: 129 })),
    ];
    for (status, body, error) in table {
        assert_eq!(Answer::parse(status, body.as_bytes()), Err(error), "{body}");
        assert!(error.to_string().starts_with("the "), "{error}");
    }
}

#[test]
fn hostile_bodies_end_in_bounded_errors() {
    let deep = format!(r#"{{"a":{}"#, "[".repeat(10_000));
    assert_eq!(
        Answer::parse(200, deep.as_bytes()),
        Err(AnswerError::Json(JsonError { at: 20, problem: Problem::Depth }))
    );
    let long = format!(r#"{{"errorCode":{}}}"#, "9".repeat(1_000_000));
    assert_eq!(Answer::parse(400, long.as_bytes()), Err(AnswerError::Kind(Member::ErrorCode)));
    let whole = body("assigned", r#"{"assignedHub":"h.net","deviceId":"d"}"#);
    for len in 0..whole.len() {
        assert!(Answer::parse(200, &whole.as_bytes()[..len]).is_err(), "{len}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_the_parser_panic_or_name_an_unusable_hub(
        status in any::<u16>(),
        from in 0_usize..200,
        bytes in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        let state = r#"{"assignedHub":"contoso.azure-devices.net","deviceId":"d","connectionProfile":null}"#;
        let mut body = body("assigned", state).into_bytes();
        let from = from.min(body.len());
        let to = from.saturating_add(bytes.len()).min(body.len());
        body.splice(from..to, bytes);
        if let Ok(Answer::Assigned(assigned)) = Answer::parse(status, &body) {
            prop_assert!(names::check_hub_name(assigned.hub).is_ok());
            prop_assert!(check_device_id(assigned.device_id).is_ok());
        }
    }

    #[test]
    fn no_topic_makes_the_parser_panic(topic in r"(\$dps/registrations/res/)?[0-9]{0,4}(/\?)?(\$rid=|&|=|[a-z0-9-]){0,9}") {
        let _ = Response::parse(&topic);
    }
}
