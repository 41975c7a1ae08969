//! Request bodies for the hub and, as block list, for the storage.

use crate::json::put_string;
use crate::text::{Counter, Part, Sink, SinkFull, Text};

const LIST_HEAD: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>";
const LIST_TAIL: &[u8] = b"</BlockList>";
const ENTRY_HEAD: &[u8] = b"<Latest>";
const ENTRY_TAIL: &[u8] = b"</Latest>";

/// Length of a block's id.
const ID: usize = 12;

/// Length of a block's entry in the list.
const ENTRY: usize = ENTRY_HEAD.len() + ID + ENTRY_TAIL.len();

/// The body of a request that is no part of the file.
///
/// It is composed while it is written, whole ([`write`](Self::write)) or piece by piece into a buffer
/// ([`read`](Self::read)); the list of 50,000 blocks is 1.4 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a>(pub(super) Content<'a>);

#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// Requests a SAS URI for a file of this name.
    Initiate(&'a str),
    /// The upload notification.
    Notice {
        /// As quoted in the hub's answer.
        correlation_id: &'a str,
        success: bool,
        status: u16,
    },
    /// The list of the first so many blocks.
    List(u32),
}

impl Document<'_> {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        if let Content::List(blocks) = self.0 {
            let entries = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(ENTRY);
            return entries.saturating_add(const { LIST_HEAD.len() + LIST_TAIL.len() });
        }
        let mut count = Counter(0);
        // A counter is never full.
        let _ = self.write(&mut count);
        count.0
    }

    /// Returns false: every document has a content.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes the whole document.
    ///
    /// # Errors
    /// [`SinkFull`] from the sink.
    pub fn write(&self, out: &mut dyn Sink) -> Result<(), SinkFull> {
        match self.0 {
            Content::Initiate(name) => {
                out.put(b"{\"blobName\":")?;
                put_string(name, out)?;
                out.put(b"}")
            }
            Content::Notice { correlation_id, success, status } => Text::of([
                Part::Plain("{\"correlationId\":\""),
                Part::Plain(correlation_id),
                Part::Plain("\",\"isSuccess\":"),
                Part::Plain(if success { "true" } else { "false" }),
                Part::Plain(",\"statusCode\":"),
                Part::Number(u64::from(status)),
                Part::Plain(",\"statusDescription\":\""),
                Part::Plain(if success { "stored" } else { "not stored" }),
                Part::Plain("\"}"),
            ])
            .write(out),
            Content::List(blocks) => {
                out.put(LIST_HEAD)?;
                put_entries(0, blocks, out)?;
                out.put(LIST_TAIL)
            }
        }
    }

    /// Copies the bytes from `from` into `buffer` and returns their number: as many as fit, and 0 at the end.
    #[must_use]
    pub fn read(&self, from: usize, buffer: &mut [u8]) -> usize {
        let mut window = Window { skip: from, buffer, len: 0 };
        // A full buffer has the requested part.
        let _ = match self.0 {
            Content::List(blocks) if from >= LIST_HEAD.len() => {
                // Begins with the entry in which `from` lies.
                let inside = from.saturating_sub(LIST_HEAD.len());
                let first = u32::try_from(inside / ENTRY).unwrap_or(u32::MAX).min(blocks);
                let before = usize::try_from(first).unwrap_or(usize::MAX).saturating_mul(ENTRY);
                window.skip = inside.saturating_sub(before);
                put_entries(first, blocks, &mut window).and_then(|()| window.put(LIST_TAIL))
            }
            Content::List(_) | Content::Initiate(_) | Content::Notice { .. } => self.write(&mut window),
        };
        window.len
    }
}

/// A sink that skips the first bytes and is full at the end of its buffer.
struct Window<'b> {
    skip: usize,
    buffer: &'b mut [u8],
    len: usize,
}

impl Sink for Window<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        let skipped = self.skip.min(bytes.len());
        self.skip = self.skip.saturating_sub(skipped);
        let wanted = bytes.get(skipped..).unwrap_or_default();
        let room = self.buffer.get_mut(self.len..).unwrap_or_default();
        let fits = room.len().min(wanted.len());
        for (to, from) in room.iter_mut().zip(wanted) {
            *to = *from;
        }
        self.len = self.len.saturating_add(fits);
        if fits < wanted.len() { Err(SinkFull) } else { Ok(()) }
    }
}

fn put_entries(first: u32, end: u32, out: &mut dyn Sink) -> Result<(), SinkFull> {
    for number in first..end {
        out.put(ENTRY_HEAD)?;
        Text::of([Part::EncodedBase64(&digits(number))]).write(out)?;
        out.put(ENTRY_TAIL)?;
    }
    Ok(())
}

/// The digits of a block id: ids of a file have one length (Azure Storage, *Put Block*), and nine digits are twelve
/// characters of base64 that need no escape in a URI.
pub(super) fn digits(number: u32) -> [u8; 9] {
    let mut rest = number;
    let mut digits = [b'0'; 9];
    for place in digits.iter_mut().rev() {
        *place = b'0'.wrapping_add(u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    struct Bytes(Vec<u8>);

    impl Sink for Bytes {
        fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }

    fn text(content: Content<'_>) -> String {
        let mut bytes = Bytes(vec![]);
        Document(content).write(&mut bytes).unwrap();
        assert_eq!(Document(content).len(), bytes.0.len());
        String::from_utf8(bytes.0).unwrap()
    }

    #[test]
    fn names_are_escaped_for_json() {
        for name in ["log.txt", "a \"b\" \\c\\", "\\", "Zürich/ü", "\"\""] {
            let document: serde_json::Value = serde_json::from_str(&text(Content::Initiate(name))).unwrap();
            assert_eq!(document["blobName"], name);
        }
    }

    #[test]
    fn a_notice_gives_the_correlation_id_back_as_it_came() {
        let notice = Content::Notice { correlation_id: "MjAy\\/0", success: false, status: 403 };
        let document: serde_json::Value = serde_json::from_str(&text(notice)).unwrap();
        assert_eq!(
            (document["correlationId"].as_str(), document["isSuccess"].as_bool()),
            (Some("MjAy/0"), Some(false))
        );
        assert_eq!((&document["statusCode"], &document["statusDescription"]), (&403.into(), &"not stored".into()));
    }

    #[test]
    fn a_list_names_every_block_in_order() {
        assert_eq!(
            text(Content::List(2)),
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>MDAwMDAwMDAw</Latest><Latest>MDAwMDAwMDAx</Latest></BlockList>"
        );
        let long = text(Content::List(50_000));
        assert!(long.ends_with("<Latest>MDAwMDQ5OTk5</Latest></BlockList>"), "{}", &long[long.len() - 60..]);
    }

    #[test]
    fn pieces_of_any_length_are_the_whole() {
        for content in [
            Content::List(0),
            Content::List(37),
            Content::Initiate("a\"b"),
            Content::Notice { correlation_id: "c", success: true, status: 200 },
        ] {
            let whole = text(content);
            for len in [1, 7, 28, 29, 30, 64, 5_000] {
                let mut pieces = Vec::new();
                let mut buffer = vec![0; len];
                loop {
                    let read = Document(content).read(pieces.len(), &mut buffer);
                    if read == 0 {
                        break;
                    }
                    pieces.extend_from_slice(&buffer[..read]);
                }
                assert_eq!(String::from_utf8(pieces).unwrap(), whole, "{content:?} by {len}");
            }
            assert_eq!(Document(content).read(usize::MAX, &mut [0; 8]), 0);
        }
    }
}
