use super::*;
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

#[test]
fn awkward_values_are_written_as_official_clients_write_them() {
    let mut buffer = [0; 256];
    let mut bag = PropertyBag::new(&mut buffer);
    bag.message_id("msg-1").unwrap();
    bag.correlation_id("c/1").unwrap();
    bag.content_type("application/json").unwrap();
    bag.content_encoding("utf-8").unwrap();
    bag.property("k", "").unwrap();
    bag.property("note", "a b&c=d/\u{e9}").unwrap();
    let captured = "%24.mid=msg-1&%24.cid=c%2F1&%24.ct=application%2Fjson&%24.ce=utf-8&k=&note=a%20b%26c%3Dd%2F%C3%A9";
    assert_eq!(bag.as_str(), captured.replace("%24", "$"));
    let same = properties(captured).zip(properties(bag.as_str()));
    assert!(same.clone().count() == 6 && same.clone().all(|(a, b)| a.key.bytes().eq(b.key.bytes())));
    assert!(same.clone().all(|(a, b)| a.value == b.value));
}

#[test]
fn every_system_property_has_its_key() {
    let mut buffer = [0; 256];
    let mut bag = PropertyBag::new(&mut buffer);
    bag.user_id("u").unwrap();
    bag.creation_time("2020-04-10T05:24:22.471Z").unwrap();
    bag.component("thermostat").unwrap();
    bag.output_name("out").unwrap();
    bag.property("iothub-creation-time-utc", "t").unwrap();
    let expected = "$.uid=u&$.ctime=2020-04-10T05%3A24%3A22.471Z&$.sub=thermostat&$.on=out&iothub-creation-time-utc=t";
    assert_eq!(bag.as_str(), expected);
}

#[test]
fn a_refused_property_leaves_the_bag_as_it_was() {
    let mut buffer = [0; 24];
    let mut bag = PropertyBag::new(&mut buffer);
    bag.message_id("m").unwrap();
    bag.property("k", "v").unwrap();
    let long = "x".repeat(129);
    let table = [
        (bag.message_id("n"), BagError::Duplicate),
        (bag.property("k", "w"), BagError::Duplicate),
        (bag.message_id(""), BagError::IdLength { len: 0 }),
        (bag.message_id(&long), BagError::IdLength { len: 129 }),
        (bag.message_id("a b"), BagError::IdCharacter { at: 1, byte: b' ' }),
        (bag.message_id("a/b"), BagError::IdCharacter { at: 1, byte: b'/' }),
        (bag.property("", "v"), BagError::EmptyKey),
        (bag.property("$.mid", "v"), BagError::ReservedKey),
        (bag.property("$on", "v"), BagError::ReservedKey),
        (bag.property("iothub-enqueuedtime", "v"), BagError::ReservedKey),
        (bag.property("IoTHub-Connection-Device-Id", "v"), BagError::ReservedKey),
        (bag.creation_time("2020-04-10T05:24:22+02:00"), BagError::CreationTime),
        (bag.property("key", "12345678901"), BagError::Full { needed: 27, capacity: 24 }),
    ];
    for (found, error) in table {
        assert_eq!(found, Err(error));
    }
    assert_eq!(bag.as_str(), "$.mid=m&k=v");
    bag.property("key", "12345678").unwrap();
    assert_eq!(bag.as_str(), "$.mid=m&k=v&key=12345678");
}

#[test]
fn a_bag_made_elsewhere_must_be_encoded() {
    for good in ["", "a=b&%24.mid=1&$.ct=a%2fb&flag&e="] {
        assert_eq!(check_encoded(good), Ok(()), "{good}");
    }
    let table =
        [("a=b/c", 3, b'/'), ("#", 0, b'#'), ("a=+", 2, b'+'), ("a\0", 1, 0), ("%4", 0, b'%'), ("a=%4g", 2, b'%')];
    for (bad, at, byte) in table {
        assert_eq!(check_encoded(bad), Err(BagError::NotEncoded { at, byte }), "{bad:?}");
    }
}

#[test]
fn the_three_forms_of_a_property_differ() {
    let all: Vec<_> = properties("a&b=&c=d=e&&%24.mid=1").collect();
    assert_eq!(all.len(), 4);
    assert!(all[0].key == "a" && all[0].value.is_none());
    assert!(all[1].key == "b" && all[1].value.unwrap() == "");
    assert!(all[2].key == "c" && all[2].value.unwrap() == "d=e");
    assert!(all[3].key == "$.mid" && all[3].key.raw() == "%24.mid");
    assert_eq!(properties("").count(), 0);
}

#[test]
fn a_cloud_to_device_bag_is_read() {
    let bag = "%24.to=%2Fdevices%2Fuseragent_c%2Fmessages%2FdeviceBound&abc=123&jkl=%2Fsome%2Fthing%2F%3Fbla%3Dbla";
    let mut buffer = [0; 64];
    let all: Vec<_> = properties(bag).collect();
    assert!(all[0].key == "$.to");
    assert_eq!(all[0].value.unwrap().decode(&mut buffer), Ok("/devices/useragent_c/messages/deviceBound"));
    assert_eq!(all[2].value.unwrap().decode(&mut buffer), Ok("/some/thing/?bla=bla"));
    assert_eq!(all[0].value.unwrap().decode(&mut [0; 4]), Err(DecodeError::Full { needed: 41 }));
    assert_eq!(Encoded("%ff").decode(&mut buffer), Err(DecodeError::NotText));
    assert_eq!(Encoded("100%&%4").decode(&mut buffer), Ok("100%&%4"));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(all in proptest::collection::vec((".{1,12}", ".{0,12}"), 0..6)) {
        let mut buffer = [0; 2048];
        let mut bag = PropertyBag::new(&mut buffer);
        let mut kept: Vec<(String, String)> = Vec::new();
        for (key, value) in all {
            if bag.property(&key, &value).is_ok() {
                kept.push((key, value));
            }
        }
        prop_assert_eq!(check_encoded(bag.as_str()), Ok(()));
        let read: Vec<_> = properties(bag.as_str()).collect();
        prop_assert_eq!(read.len(), kept.len());
        for (property, (key, value)) in read.iter().zip(&kept) {
            prop_assert!(property.key == **key && property.value.unwrap() == **value);
            let mut buffer = [0; 64];
            prop_assert_eq!(property.value.unwrap().decode(&mut buffer), Ok(&**value));
        }
    }

    #[test]
    fn any_text_is_read_without_panic(bag in ".*") {
        for property in properties(&bag) {
            let _ = property.key.decode(&mut [0; 8]);
        }
    }
}
