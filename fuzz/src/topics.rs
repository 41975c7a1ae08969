//! Topics: answers of the provisioning service, and property bags written and read.

use steadfast_core::dps::topics::Response;
use steadfast_core::iothub::property_bag::{PropertyBag, check_encoded, properties};
use steadfast_core::iothub::topics;

/// Reads `data` as a topic and as a property bag, and writes its lines as keys and values.
///
/// # Panics
/// When what was read or written contradicts the text.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(response) = Response::parse(&text) {
        let tail = text.strip_prefix("$dps/registrations/res/").expect("an answer has the topic of answers");
        let (status, _) = tail.split_once("/?").expect("an answer has a query");
        assert_eq!(status.parse(), Ok(response.status));
        assert!(text.contains(&response.request_id.to_string()));
    }
    let bag = topics::c2d_bag(&text, "d").unwrap_or(&text);
    check_reading(bag);
    check_writing(&text);
}

fn check_reading(bag: &str) {
    let mut has_id = false;
    for property in properties(bag) {
        has_id |= property.key == "$.mid";
        for encoded in [Some(property.key), property.value].into_iter().flatten() {
            let mut buffer = vec![0; encoded.raw().len()];
            if let Ok(decoded) = encoded.decode(&mut buffer) {
                assert!(encoded == *decoded && decoded.len() == encoded.decoded_len());
            }
        }
    }
    assert_eq!(has_id, topics::has_message_id(bag));
    assert!(topics::telemetry_size(bag, b"12345") <= bag.len() + 5);
}

fn check_writing(text: &str) {
    let mut buffer = [0; 256];
    let mut bag = PropertyBag::new(&mut buffer);
    let mut kept = Vec::new();
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let before = bag.as_str().len();
        match bag.property(key, value) {
            Ok(()) => kept.push((key, value)),
            Err(error) => assert!(bag.as_str().len() == before && error.to_string().starts_with("the ")),
        }
    }
    assert_eq!(check_encoded(bag.as_str()), Ok(()));
    assert!(!topics::has_message_id(bag.as_str()), "a user's key cannot pass for the message id");
    let read: Vec<_> = properties(bag.as_str()).collect();
    assert_eq!(read.len(), kept.len());
    for (property, (key, value)) in read.iter().zip(kept) {
        assert!(property.key == key && property.value.is_some_and(|read| read == value), "{key:?} {value:?}");
    }
}
