//! IoT Edge: whatever stands in a module's environment, whatever the workload API and the gateway answer, and whatever
//! an application calls ends in something whole or in one error.

use std::time::Duration;

use steadfast_core::azure::names;
use steadfast_core::edge::methods::{self, Answer, Call};
use steadfast_core::edge::workload::{self, AnswerError};
use steadfast_core::edge::{Environment, Module, Variable};
use steadfast_core::json::Reader;
use steadfast_core::text::{Counter, Slice, Text};

/// Reads `data` as an environment, one `NAME=value` in each line, as an answer, and as a call, one part in each line.
///
/// # Panics
/// When something unusable is taken, a request is not whole, or an error shows a key.
pub fn target(data: &[u8]) {
    answer(data);
    let text = String::from_utf8_lossy(data);
    environment(&text);
    call(&text);
}

fn environment(text: &str) {
    let value = |wanted: Variable| text.lines().find_map(|line| line.strip_prefix(wanted.name())?.strip_prefix('='));
    match Environment::read(value) {
        Ok(Environment::Module(module)) => requests(&module),
        Ok(read) => {
            let Environment::Debug { connection_string, .. } = read else { return };
            assert!(!format!("{read:?}").contains(connection_string));
        }
        Err(error) => {
            let told = error.to_string();
            assert!(Variable::ALL.iter().any(|variable| told.starts_with(variable.name())), "{told}");
        }
    }
}

fn requests(module: &Module<'_>) {
    names::check_hub_name(module.hub_host_name).expect("the host name is checked");
    names::check_device_id(module.device_id).expect("the device id is checked");
    names::check_module_id(module.module_id).expect("the module id is checked");
    module.gateway_host_name.map_or(Ok(()), names::check_gateway_name).expect("the gateway is checked");
    for path in [module.sign_path(), module.trust_bundle_path()] {
        let path = path.to_string();
        assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
        assert!(path.ends_with(&format!("?api-version={}", Text::of([encoded(module.api_version)]))), "{path}");
    }
    let mut count = Counter(0);
    let text = Text::from(module.generation_id);
    workload::put_sign_request(&text, &mut count).expect("counting never fails");
    let mut buffer = vec![0; count.0];
    workload::put_sign_request(&text, &mut Slice::new(&mut buffer)).expect("it has the length announced");
    assert_eq!(buffer.len(), 49 + module.generation_id.len().div_ceil(3) * 4);
    whole(&buffer);
}

fn encoded(text: &str) -> steadfast_core::text::Part<'_> {
    steadfast_core::text::Part::Encoded(text)
}

fn answer(data: &[u8]) {
    // Either is whole or an error; nothing is as long as what it was made of.
    let _ = workload::read_digest(data);
    let mut buffer = vec![0; data.len()];
    if let Err(error) = workload::read_trust_bundle(data, &mut buffer) {
        assert_ne!(error, AnswerError::TooLong, "a text is never longer than the answer");
    }
    for message in [workload::error_message(data), methods::error_message(data)].into_iter().flatten() {
        assert!(message.chars().count() <= data.len());
    }
    if let Some(payload) = Answer::read(data).and_then(|answer| answer.payload) {
        whole(payload.raw().as_bytes());
    }
}

fn call(text: &str) {
    let mut parts = text.lines();
    let mut part = || parts.next().unwrap_or_default();
    let call = Call {
        device_id: part(),
        module_id: Some(part()).filter(|module| !module.is_empty()),
        name: part(),
        payload: part(),
        connect_wait: Duration::ZERO,
        answer_wait: methods::ANSWER_MIN,
    };
    if call.check().is_err() {
        return;
    }
    let path = call.path().to_string();
    assert!(path.starts_with("/twins/") && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
    let mut count = Counter(0);
    call.put_body(&mut count).expect("counting never fails");
    let mut buffer = vec![0; count.0];
    call.put_body(&mut Slice::new(&mut buffer)).expect("it has the length announced");
    whole(&buffer);
}

fn whole(document: &[u8]) {
    let mut reader = Reader::new(document);
    reader.value().expect("one JSON value");
    assert_eq!(reader.next(), Ok(None), "and nothing after it");
}
