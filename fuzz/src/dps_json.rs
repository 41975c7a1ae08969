//! Bodies of the provisioning service, and the JSON reader under them.

use steadfast_core::azure::names;
use steadfast_core::dps::https::{Attestation, Step, WRAPPED_KEY_MAX};
use steadfast_core::dps::topics::{Answer, AnswerError};
use steadfast_core::json::{DEPTH_MAX, JsonError, Reader, Token};

/// Reads `data` as a JSON document and as an answer: the first byte chooses the status, the rest is the body.
///
/// # Panics
/// When the reader contradicts itself, or an answer has a name that must not be taken.
pub fn target(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let tokens = check_tokens(body);
    let status = [200, 202, 400, 401, 404, 429, 500, 503][usize::from(choice & 7)];
    check_attestation(status, body);
    match Answer::parse(status, body) {
        Ok(answer) => {
            assert!(tokens.is_ok(), "an answer is a JSON document");
            check_answer(status, answer);
        }
        Err(AnswerError::Json(error)) => assert_eq!(tokens, Err(error)),
        Err(error) => assert!(error.to_string().starts_with("the "), "{error:?} is explained"),
    }
}

/// Takes the body as an answer to a device with a TPM, twice.
fn check_attestation(status: u16, body: &[u8]) {
    let mut attestation = Attestation::new();
    let first = attestation.judge(status, body);
    match first {
        Step::RegisterAgain(wrapped) | Step::TakeHubKey(wrapped) => {
            assert_eq!(matches!(first, Step::RegisterAgain(_)), status == 401);
            assert!(status == 401 || status < 300);
            assert!((1..=WRAPPED_KEY_MAX).contains(&wrapped.len()));
            assert!(body.windows(wrapped.len()).any(|part| part == wrapped.as_bytes()));
        }
        Step::Answer => {}
    }
    let again = if status == 401 { Step::Answer } else { first };
    assert_eq!(attestation.judge(status, body), again, "one challenge is all");
}

/// Reads the whole document token by token, and again as one value.
fn check_tokens(body: &[u8]) -> Result<(), JsonError> {
    let mut reader = Reader::new(body);
    let mut depth = 0;
    let read = loop {
        match reader.next() {
            Ok(Some(Token::ObjectStart | Token::ArrayStart)) => depth += 1,
            Ok(Some(Token::ObjectEnd | Token::ArrayEnd)) => depth -= 1,
            Ok(Some(Token::Key(text) | Token::String(text))) => {
                let mut buffer = vec![0; text.raw().len()];
                let meant = text.unescape(&mut buffer).expect("escape sequences are longer than what they mean");
                assert!(text == *meant);
                assert!(text.plain().is_none_or(|plain| plain == meant));
            }
            Ok(Some(Token::Number(number))) => {
                assert!(number.as_u64().is_none_or(|value| number.raw() == value.to_string()), "{number:?}");
            }
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
        assert!((0..=DEPTH_MAX).contains(&depth));
    };
    match read {
        Ok(()) => {
            let value = Reader::new(body).value().expect("a document is a value");
            assert_eq!(value.raw().as_bytes(), body.trim_ascii());
        }
        Err(error) => assert!(error.at <= body.len(), "{error}"),
    }
    read
}

fn check_answer(asked: u16, answer: Answer<'_>) {
    match answer {
        Answer::Assigned(assigned) => {
            names::check_hub_name(assigned.hub).expect("a hub name is checked");
            let mut buffer = [0; names::DEVICE_ID_MAX];
            let device_id = assigned.device_id.unescape(&mut buffer).expect("a device id is short");
            names::check_device_id(device_id).expect("a device id is checked");
        }
        Answer::Assigning { operation_id } | Answer::Unassigned { operation_id } => {
            names::check_operation_id(operation_id).expect("an operation id is checked");
        }
        Answer::Refused { status, .. } => assert!(asked >= 300 && status == asked),
        Answer::UnsupportedProfile(_) | Answer::Failed { .. } | Answer::Disabled | _ => assert!(asked < 300),
    }
}
