//! The hub's answers: a SAS URI, or an error code.

use zeroize::Zeroize;

use super::UploadError;
use crate::json::{Reader, Str, Token};

/// The texts of a SAS URI, in the order of storage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// As quoted in the answer, to be sent back unchanged.
    CorrelationId,
    Host,
    Container,
    Blob,
    /// The query that grants access, without the question mark.
    Token,
}

impl Field {
    const ALL: [Self; 5] = [Self::CorrelationId, Self::Host, Self::Container, Self::Blob, Self::Token];

    /// Its name in the hub's answer (azure-docs `iot-hub/iot-hub-devguide-file-upload.md`).
    const fn name(self) -> &'static str {
        match self {
            Self::CorrelationId => "correlationId",
            Self::Host => "hostName",
            Self::Container => "containerName",
            Self::Blob => "blobName",
            Self::Token => "sasToken",
        }
    }
}

/// A SAS URI in the memory of an upload, zeroed when it is dropped.
pub(super) struct SasUri<M: AsRef<[u8]> + AsMut<[u8]>> {
    memory: M,
    /// The end of each text, where the next one starts.
    ends: [usize; Field::ALL.len()],
}

impl<M: AsRef<[u8]> + AsMut<[u8]>> SasUri<M> {
    pub(super) const fn new(memory: M) -> Self {
        Self { memory, ends: [0; Field::ALL.len()] }
    }

    pub(super) fn clear(&mut self) {
        self.memory.as_mut().zeroize();
        self.ends = [0; Field::ALL.len()];
    }

    /// Whether the hub waits for the notification of this SAS URI.
    pub(super) fn is_open(&self) -> bool {
        !self.get(Field::CorrelationId).is_empty()
    }

    pub(super) fn get(&self, field: Field) -> &str {
        let mut start = 0;
        for (known, end) in Field::ALL.iter().zip(self.ends) {
            if *known == field {
                let bytes = self.memory.as_ref().get(start..end).unwrap_or_default();
                return core::str::from_utf8(bytes).unwrap_or_default();
            }
            start = end;
        }
        ""
    }

    /// Identifies the blob without the signature: FNV-1a of host, container and blob.
    pub(super) fn place(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for field in [Field::Host, Field::Container, Field::Blob] {
            // No name has a zero in it.
            for byte in self.get(field).bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }

    /// Parses the SAS URI in a hub's answer. After an error it is open if there was at least a correlation id, since
    /// the hub then waits for the notification.
    pub(super) fn read(&mut self, answer: &[u8]) -> Result<(), UploadError> {
        self.clear();
        let fields = read_fields(answer).ok_or(UploadError::Answer)?;
        let mut end = 0_usize;
        let mut needed = 0_usize;
        let mut sound = true;
        for ((field, text), slot) in Field::ALL.into_iter().zip(fields).zip(&mut self.ends) {
            let room = self.memory.as_mut().get_mut(end..).unwrap_or_default();
            let (written, len) = put(field, text, room);
            needed = needed.saturating_add(len);
            // A text that does not fit is skipped, so that stored ones keep their position.
            if written == len {
                sound &= check(field, room.get(..len).unwrap_or_default());
                end = end.saturating_add(len);
            }
            *slot = end;
        }
        let room = self.memory.as_ref().len();
        match sound {
            _ if needed > room => Err(UploadError::NoRoom { needed, room }),
            true => Ok(()),
            false => Err(UploadError::Answer),
        }
    }
}

impl<M: AsRef<[u8]> + AsMut<[u8]>> Drop for SasUri<M> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Finds the texts of a SAS URI; `None` if the answer is not an object or lacks one of them.
fn read_fields(answer: &[u8]) -> Option<[Str<'_>; Field::ALL.len()]> {
    let mut found = [None; Field::ALL.len()];
    let mut reader = Reader::new(answer);
    if reader.next().ok()? != Some(Token::ObjectStart) {
        return None;
    }
    while let Some(token) = reader.next().ok()? {
        let Token::Key(key) = token else { continue };
        let value = reader.value().ok()?;
        for (field, slot) in Field::ALL.iter().zip(&mut found) {
            if key == field.name() {
                *slot = value.as_str();
            }
        }
    }
    let [Some(correlation_id), Some(host), Some(container), Some(blob), Some(token)] = found else { return None };
    Some([correlation_id, host, container, blob, token])
}

/// Writes a text as stored; returns how many bytes were written and how many it has.
fn put(field: Field, text: Str<'_>, room: &mut [u8]) -> (usize, usize) {
    let mut copy = Copy { room, written: 0, len: 0 };
    if field == Field::CorrelationId {
        copy.put(text.raw().as_bytes());
        return (copy.written, copy.len);
    }
    let mut begun = false;
    for character in text.chars() {
        // The token may start with a question mark.
        if !begun && field == Field::Token && character == '?' {
            continue;
        }
        begun = true;
        copy.put(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    (copy.written, copy.len)
}

struct Copy<'r> {
    room: &'r mut [u8],
    written: usize,
    len: usize,
}

impl Copy<'_> {
    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.room.get_mut(self.len) {
                *place = *byte;
                self.written = self.written.saturating_add(1);
            }
            self.len = self.len.saturating_add(1);
        }
    }
}

/// Whether a text is valid in a request: a host in its URI, a token after its question mark.
fn check(field: Field, text: &[u8]) -> bool {
    let fits = |byte: &u8| match field {
        Field::CorrelationId | Field::Container | Field::Blob => true,
        Field::Host => byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte),
        Field::Token => byte.is_ascii_graphic() && *byte != b'#',
    };
    !text.is_empty() && text.iter().all(fits)
}

/// Finds the hub's error code in an answer, 0 without one: a number, or, in older answers, the first six digits of a text
/// such as `ErrorCode:IotHubQuotaExceeded;403002`.
pub(super) fn error_code(answer: &[u8]) -> u32 {
    find_error_code(answer).unwrap_or(0)
}

fn find_error_code(answer: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(answer);
    if reader.next().ok()? != Some(Token::ObjectStart) {
        return None;
    }
    let (mut number, mut text) = (None, None);
    while let Some(token) = reader.next().ok()? {
        let Token::Key(key) = token else { continue };
        let value = reader.value().ok()?;
        if key == "errorCode" {
            number = value.as_u64();
        } else if key == "Message" || key == "message" {
            text = text.or(value.as_str());
        }
    }
    match number {
        Some(code) => u32::try_from(code).ok(),
        None => six_digits(text?),
    }
}

fn six_digits(text: Str<'_>) -> Option<u32> {
    let (mut code, mut count) = (0_u32, 0_u32);
    // The last character ends a run that reaches the end.
    for character in text.chars().chain([' ']) {
        if let Some(digit) = character.to_digit(10) {
            code = code.wrapping_mul(10).wrapping_add(digit);
            count = count.saturating_add(1);
            continue;
        }
        if count == 6 {
            return Some(code);
        }
        (code, count) = (0, 0);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::string::ToString;
    use std::vec::Vec;

    fn answer() -> Value {
        json!({
            "sasToken": "?sv=2021-08-06&sig=a%2Bb%3D",
            "correlationId": "MjAy\"0",
            "hostName": "contoso.blob.core.windows.net",
            "containerName": "files",
            "blobName": "pump-7/Zürich/a\\b",
            "other": { "hostName": "elsewhere" },
        })
    }

    fn read(answer: &Value, room: usize) -> (SasUri<Vec<u8>>, Result<(), UploadError>) {
        let mut grant = SasUri::new(std::vec![0; room]);
        let result = grant.read(answer.to_string().as_bytes());
        (grant, result)
    }

    #[test]
    fn a_grant_is_kept_in_the_memory_given() {
        let (grant, result) = read(&answer(), 200);
        assert_eq!(result, Ok(()));
        assert_eq!(grant.get(Field::CorrelationId), "MjAy\\\"0");
        assert_eq!(grant.get(Field::Host), "contoso.blob.core.windows.net");
        assert_eq!(grant.get(Field::Container), "files");
        assert_eq!(grant.get(Field::Blob), "pump-7/Zürich/a\\b");
        assert_eq!(grant.get(Field::Token), "sv=2021-08-06&sig=a%2Bb%3D");
        let len: usize = Field::ALL.iter().map(|field| grant.get(*field).len()).sum();
        assert_eq!(read(&answer(), len).1, Ok(()));
        for room in [0, 7, 8, 60, len - 1] {
            let (grant, result) = read(&answer(), room);
            assert_eq!(result, Err(UploadError::NoRoom { needed: len, room }));
            assert_eq!(grant.is_open(), room >= 7, "the hub can be notified as soon as the correlation id fits");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_request_is_no_grant() {
        for (field, text) in [
            ("hostName", ""),
            ("hostName", "user@elsewhere.example"),
            ("hostName", "a/b"),
            ("sasToken", "?"),
            ("sasToken", "sig=a b"),
            ("sasToken", "sig=a\r\nHost: x"),
            ("containerName", ""),
            ("blobName", ""),
            ("correlationId", ""),
        ] {
            let mut changed = answer();
            changed[field] = text.into();
            assert_eq!(read(&changed, 500).1, Err(UploadError::Answer), "{field} {text}");
            changed[field] = 7.into();
            assert_eq!(read(&changed, 500).1, Err(UploadError::Answer), "{field} as a number");
            changed.as_object_mut().unwrap().remove(field);
            assert_eq!(read(&changed, 500).1, Err(UploadError::Answer), "{field} missing");
        }
        for text in ["", "[]", "{", "7", "{}"] {
            assert_eq!(SasUri::new([0; 500]).read(text.as_bytes()), Err(UploadError::Answer), "{text}");
        }
    }

    #[test]
    fn another_right_to_the_same_place_names_the_same_place() {
        let place = |answer: &Value| read(answer, 500).0.place();
        let mut other = answer();
        other["sasToken"] = "sig=other".into();
        other["correlationId"] = "c".into();
        assert_eq!(place(&other), place(&answer()));
        other["containerName"] = "file".into();
        other["blobName"] = "spump-7/Zürich/a\\b".into();
        assert_ne!(place(&other), place(&answer()));
    }

    #[test]
    fn error_codes_are_found_in_both_forms() {
        let table = [
            (r#"{"errorCode":404001,"message":"ErrorCode:x;403002"}"#, 404_001),
            (r#"{"Message":"ErrorCode:IotHubQuotaExceeded;403002"}"#, 403_002),
            (r#"{"message":"at 12:00, 1234567 and 400023."}"#, 400_023),
            (r#"{"errorCode":"404001"}"#, 0),
            (r#"{"errorCode":4294967296}"#, 0),
            (r#"{"Message":"1234567"}"#, 0),
            ("<Error/>", 0),
            ("", 0),
        ];
        for (body, code) in table {
            assert_eq!(error_code(body.as_bytes()), code, "{body}");
        }
    }
}
