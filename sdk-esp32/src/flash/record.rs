//! A message as a record in flash.

use steadfast_core::{Destination, Entry, Instant, MessageId};

/// Form of the records written.
pub(super) const FORM: u8 = 1;

/// Flag beside the form: the message goes to the telemetry endpoint.
pub(super) const TELEMETRY: u8 = 0x80;

/// Flag beside the form: the record tells when the message was accepted.
pub(super) const STAMPED: u8 = 0x40;

/// Flag beside the form: the service keeps the message for later subscribers.
pub(super) const RETAINED: u8 = 0x20;

/// Flag beside the form: the message has properties, with two bytes of length before them.
pub(super) const PROPERTIES: u8 = 0x10;

/// Form, length of the text, id, expiry.
pub(super) const HEAD_BYTES: usize = 1 + 2 + 8 + 8;

/// The time of acceptance.
pub(super) const STAMP_BYTES: usize = 8;

/// The length of the properties.
pub(super) const PROPERTIES_LEN_BYTES: usize = 2;

pub(super) const FLAGS: u8 = TELEMETRY | STAMPED | RETAINED | PROPERTIES;

/// Stands for "never".
pub(super) const NEVER: u64 = u64::MAX;

/// Writes a record and returns its length, `None` when it does not fit.
pub(super) fn write(entry: &Entry<'_>, record: &mut [u8]) -> Option<usize> {
    let text = entry.destination.text();
    let telemetry = if matches!(entry.destination, Destination::Telemetry(_)) { TELEMETRY } else { 0 };
    let stamp = entry.created_unix_ms.map(u64::to_le_bytes);
    let properties_len = u16::try_from(entry.properties.len()).ok()?.to_le_bytes();
    let mut form = FORM | telemetry | if stamp.is_some() { STAMPED } else { 0 };
    form |= if entry.retain { RETAINED } else { 0 } | if entry.properties.is_empty() { 0 } else { PROPERTIES };
    let expires = entry.expires.map_or(NEVER, Instant::as_millis);
    let parts: [&[u8]; 9] = [
        &[form],
        &u16::try_from(text.len()).ok()?.to_le_bytes(),
        &entry.id.get().to_le_bytes(),
        &expires.to_le_bytes(),
        stamp.as_ref().map_or(&[], |stamp| stamp),
        if form & PROPERTIES != 0 { &properties_len } else { &[] },
        text.as_bytes(),
        entry.properties,
        entry.payload,
    ];
    let mut len = 0;
    for part in parts {
        record.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    Some(len)
}

/// Reads a record. The error is the first byte.
pub(super) fn read(record: &[u8]) -> Result<Entry<'_>, u8> {
    let form = record.first().copied().unwrap_or_default();
    let parse = || {
        let (_, rest) = record.split_first()?;
        let (text_len, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (expires, mut rest) = rest.split_first_chunk()?;
        let mut created_unix_ms = None;
        if form & STAMPED != 0 {
            let (stamp, behind) = rest.split_first_chunk::<STAMP_BYTES>()?;
            (created_unix_ms, rest) = (Some(u64::from_le_bytes(*stamp)), behind);
        }
        let mut properties_len = 0;
        if form & PROPERTIES != 0 {
            let (len, behind) = rest.split_first_chunk::<PROPERTIES_LEN_BYTES>()?;
            (properties_len, rest) = (u16::from_le_bytes(*len), behind);
        }
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*text_len)))?;
        let (properties, payload) = rest.split_at_checked(properties_len.into())?;
        let text = core::str::from_utf8(text).ok()?;
        let destination = if form & TELEMETRY != 0 { Destination::Telemetry(text) } else { Destination::Topic(text) };
        let expires = match u64::from_le_bytes(*expires) {
            NEVER => None,
            millis => Some(Instant::from_millis(millis)),
        };
        let (id, retain) = (MessageId::new(u64::from_le_bytes(*id)), form & RETAINED != 0);
        Some(Entry { id, destination, properties, payload, retain, expires, created_unix_ms })
    };
    if form & !FLAGS == FORM { parse().ok_or(form) } else { Err(form) }
}
