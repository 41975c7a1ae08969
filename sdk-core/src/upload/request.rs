//! One HTTP request of an upload, composed while it is written.

use core::fmt;

use super::document::{Document, digits};
use crate::azure::sas::Resource;
use crate::io::Attempt;
use crate::scan::split_once;
use crate::text::{Counter, Part, Sink, SinkFull, Slice, Text};

/// Version of the hub's interface (azure-docs `iot-hub/iot-hub-devguide-file-upload.md`).
const API: &str = "?api-version=2021-04-12";

/// Headers of requests to the hub without `Authorization`.
const TO_HUB: &[(&str, &str)] = &[("Content-Type", "application/json; charset=utf-8")];

/// Header of a file in one piece (Azure Storage, *Put Blob*).
const WHOLE: &[(&str, &str)] = &[("x-ms-blob-type", "BlockBlob")];

/// An HTTPS request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The attempt of the answer.
    pub attempt: Attempt,
    /// Its method.
    pub method: Method,
    /// Host name of the service, with a port behind a colon when it is not 443.
    pub host: &'a str,
    /// Path and query. Those for the storage contain a SAS token, and must not be logged.
    pub uri: Uri<'a>,
    /// The device's identity at its hub; `None` for the storage, which must get neither token nor certificate.
    pub identity: Option<Identity<'a>>,
    /// The body.
    pub body: Body<'a>,
}

impl Request<'_> {
    /// Returns names and values of the headers. They do not include `Host`, `Content-Length` and `Authorization`; the
    /// frontend adds the latter to a request with an [identity](Self::identity) if the device authenticates with a
    /// token.
    #[must_use]
    pub const fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self.uri.0 {
            Target::Initiate { .. } | Target::Notify { .. } => TO_HUB,
            Target::Storage { part: Piece::Whole, .. } => WHOLE,
            Target::Storage { part: Piece::Block(_) | Piece::List, .. } => &[],
        }
    }

    /// Writes the whole URL into `buffer` and returns it, or `None` if it does not fit.
    pub fn url<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b str> {
        let mut out = Slice::new(buffer);
        out.put(b"https://").ok()?;
        out.put(self.host.as_bytes()).ok()?;
        self.uri.write(&mut out).ok()?;
        let len = out.len();
        core::str::from_utf8(buffer.get(..len)?).ok()
    }
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// `POST`, to the hub.
    Post,
    /// `PUT`, to the storage.
    Put,
}

impl Method {
    /// Returns the method's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// The device's identity at its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity<'a> {
    /// Host name of the hub.
    pub hub: &'a str,
    /// Device id.
    pub device_id: &'a str,
    /// How often in a row the hub has refused the credential: above 0 a token from a cache is of no use, and a second key
    /// is to be tried.
    pub refusals: u8,
}

impl<'a> Identity<'a> {
    /// Returns the resource of the request's token. The token goes into the header `Authorization`.
    #[must_use]
    pub const fn resource(&self, module_id: Option<&'a str>) -> Resource<'a> {
        Resource::Device { hub: self.hub, device_id: self.device_id, module_id }
    }
}

/// The body of a request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Body<'a> {
    /// The block that was read last.
    Block {
        /// Its length in bytes.
        len: usize,
    },
    /// Something that the upload composes.
    Document(Document<'a>),
}

impl Body<'_> {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Block { len } => *len,
            Self::Document(document) => document.len(),
        }
    }

    /// Returns true if the body is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Path and query of a request.
#[derive(Clone, Copy)]
pub struct Uri<'a>(pub(super) Target<'a>);

#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Initiate { device_id: &'a str },
    Notify { device_id: &'a str },
    Storage { container: &'a str, blob: &'a str, token: &'a str, part: Piece },
}

/// Requests to the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Whole,
    Block(u32),
    List,
}

impl Uri<'_> {
    /// Returns the number of bytes that [`write`](Self::write) writes.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut count = Counter(0);
        // A counter is never full.
        let _ = self.write(&mut count);
        count.0
    }

    /// Returns false: every path begins with a slash.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes path and query, percent-encoded.
    ///
    /// # Errors
    /// [`SinkFull`] from the sink.
    pub fn write(&self, out: &mut dyn Sink) -> Result<(), SinkFull> {
        let device = |device_id, action| {
            Text::of([Part::Plain("/devices/"), Part::Encoded(device_id), Part::Plain(action), Part::Plain(API)])
        };
        match self.0 {
            Target::Initiate { device_id } => device(device_id, "/files").write(out),
            Target::Notify { device_id } => device(device_id, "/files/notifications").write(out),
            Target::Storage { container, blob, token, part } => {
                Text::of([Part::Plain("/"), Part::Encoded(container)]).write(out)?;
                // Slashes are kept.
                let mut rest = Some(blob);
                while let Some(blob) = rest {
                    let (folder, behind) = match split_once(blob, b'/') {
                        Some((folder, behind)) => (folder, Some(behind)),
                        None => (blob, None),
                    };
                    Text::of([Part::Plain("/"), Part::Encoded(folder)]).write(out)?;
                    rest = behind;
                }
                let id;
                let query = match part {
                    Piece::Whole => Text::of([Part::Plain("?")]),
                    Piece::List => Text::of([Part::Plain("?comp=blocklist&")]),
                    Piece::Block(number) => {
                        id = digits(number);
                        Text::of([Part::Plain("?comp=block&blockid="), Part::EncodedBase64(&id), Part::Plain("&")])
                    }
                };
                query.write(out)?;
                out.put(token.as_bytes())
            }
        }
    }

    /// Writes path and query into `buffer` and returns them, or `None` if they do not fit.
    pub fn to_str<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b str> {
        let mut out = Slice::new(buffer);
        self.write(&mut out).ok()?;
        let len = out.len();
        core::str::from_utf8(buffer.get(..len)?).ok()
    }
}

impl fmt::Debug for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Target::Initiate { device_id } => write!(f, "Uri(files of {device_id})"),
            Target::Notify { device_id } => write!(f, "Uri(notifications of {device_id})"),
            Target::Storage { blob, part, .. } => write!(f, "Uri({part:?} of {blob})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    fn text(target: Target<'_>) -> String {
        let mut buffer = [0; 300];
        let text = String::from(Uri(target).to_str(&mut buffer).unwrap());
        assert_eq!(Uri(target).len(), text.len());
        assert_eq!(Uri(target).to_str(&mut buffer[..text.len() - 1]), None);
        text
    }

    #[test]
    fn requests_have_the_documented_paths() {
        let device_id = "pump 7/a";
        assert_eq!(text(Target::Initiate { device_id }), "/devices/pump%207%2Fa/files?api-version=2021-04-12");
        assert_eq!(
            text(Target::Notify { device_id }),
            "/devices/pump%207%2Fa/files/notifications?api-version=2021-04-12"
        );
        let storage =
            |part| Target::Storage { container: "f s", blob: "pump/a b//ü#.txt", token: "sv=1&sig=x%2B", part };
        let path = "/f%20s/pump/a%20b//%C3%BC%23.txt?";
        assert_eq!(text(storage(Piece::Whole)), format!("{path}sv=1&sig=x%2B"));
        assert_eq!(text(storage(Piece::List)), format!("{path}comp=blocklist&sv=1&sig=x%2B"));
        assert_eq!(text(storage(Piece::Block(7))), format!("{path}comp=block&blockid=MDAwMDAwMDA3&sv=1&sig=x%2B"));
    }

    #[test]
    fn a_grant_is_not_printed() {
        let uri = Uri(Target::Storage { container: "f", blob: "b", token: "sig=secret", part: Piece::Block(3) });
        assert_eq!(format!("{uri:?}"), "Uri(Block(3) of b)");
    }
}
