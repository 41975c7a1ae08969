//! The storage account for file uploads: block blobs, authorized by the token in the SAS URI.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::fault::Fault;
use crate::http_message::{Head, Response};
use crate::operations::Operation;
use crate::world::World;
use crate::{Key, percent_decode};

/// An upload that a hub accepted.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) hub: String,
    pub(crate) device: String,
    pub(crate) correlation_id: String,
    pub(crate) container: String,
    /// Name in the container: device id, slash, the name from the device.
    pub(crate) blob: String,
    /// Unix seconds.
    pub(crate) expires: u64,
    pub(crate) signature: String,
    /// Whether its device sent the upload notification.
    ended: bool,
    blocks: HashMap<String, Bytes>,
    content: Option<Bytes>,
}

/// The storage account of all hubs.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) host: String,
    /// Part of the SAS URI unless it is 443.
    pub(crate) port: u16,
    key: Key,
    uploads: Vec<Upload>,
}

impl Storage {
    pub(crate) fn new(host: &str) -> Self {
        Self { host: host.to_owned(), port: 443, key: Key::random(), uploads: Vec::new() }
    }

    /// Returns host name and, unless it is 443, port.
    pub(crate) fn authority(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Counts the uploads of a device that are neither expired nor notified.
    pub(crate) fn under_way(&self, hub: &str, device: &str, unix: u64) -> usize {
        let of_device = self.uploads.iter().filter(|upload| upload.hub == hub && upload.device == device);
        of_device.filter(|upload| !upload.ended && upload.expires > unix).count()
    }

    pub(crate) fn begin(&mut self, hub: &str, device: &str, name: &str, expires: u64) -> Upload {
        let number = self.uploads.len() + 1;
        let text = format!("{expires}/{number}/{hub}/{device}");
        let correlation_id = STANDARD.encode(&self.key.sign(text.as_bytes())[..20]);
        let blob = format!("{device}/{name}");
        // Uncommitted blocks belong to the blob, whichever upload put them (Azure Storage, Put Block).
        let earlier = self.uploads.iter().rev().find(|upload| upload.hub == hub && upload.blob == blob);
        let blocks = earlier.map(|upload| upload.blocks.clone()).unwrap_or_default();
        let upload = Upload {
            hub: hub.to_owned(),
            device: device.to_owned(),
            correlation_id,
            container: hub.split('.').next().unwrap_or(hub).to_owned() + "-files",
            blob,
            expires,
            signature: STANDARD.encode(self.key.sign(format!("{text}/{name}").as_bytes())),
            ended: false,
            blocks,
            content: None,
        };
        self.uploads.push(upload.clone());
        upload
    }

    /// Ends an upload; false when it is unknown or expired.
    pub(crate) fn end(&mut self, hub: &str, device: &str, correlation_id: &str, unix: u64) -> bool {
        let wanted = |upload: &&mut Upload| {
            upload.hub == hub
                && upload.device == device
                && !upload.ended
                && upload.expires > unix
                && (upload.correlation_id == correlation_id || upload.correlation_id == percent_decode(correlation_id))
        };
        let found = self.uploads.iter_mut().find(wanted);
        found.map(|upload| upload.ended = true).is_some()
    }

    /// Returns hub and device of the blob in a path.
    pub(crate) fn owner(&self, path: &str) -> Option<(String, String)> {
        let path = percent_decode(path);
        let found = self.uploads.iter().rev().find(|upload| upload.path() == path)?;
        Some((found.hub.clone(), found.device.clone()))
    }

    /// Returns the content of the latest blob of this name.
    pub(crate) fn content(&self, device: &str, name: &str) -> Option<Bytes> {
        let blob = format!("{device}/{name}");
        self.uploads.iter().rev().filter(|upload| upload.blob == blob).find_map(|upload| upload.content.clone())
    }
}

impl Upload {
    fn path(&self) -> String {
        format!("/{}/{}", self.container, self.blob)
    }

    /// Handles a request; returns the status and error code of the response.
    fn put(&mut self, head: &Head, body: Vec<u8>) -> Result<(), (u16, &'static str)> {
        match head.query.get("comp").map(String::as_str) {
            Some("block") => {
                let id = head.query.get("blockid").filter(|id| STANDARD.decode(id).is_ok_and(|id| id.len() <= 64));
                let id = id.ok_or((400, "InvalidQueryParameterValue"))?;
                self.blocks.insert(id.clone(), body.into());
            }
            Some("blocklist") => {
                let text = std::str::from_utf8(&body).map_err(|_| (400, "InvalidXmlDocument"))?;
                let ids = block_ids(text).ok_or((400, "InvalidXmlDocument"))?;
                let blocks: Option<Vec<&Bytes>> = ids.iter().map(|id| self.blocks.get(id)).collect();
                let blocks = blocks.ok_or((400, "InvalidBlockList"))?;
                self.content = Some(blocks.into_iter().flatten().copied().collect());
                self.blocks.clear();
            }
            None => match head.header("x-ms-blob-type") {
                Some(kind) if kind.eq_ignore_ascii_case("BlockBlob") => self.content = Some(body.into()),
                Some(_) => return Err((400, "InvalidHeaderValue")),
                None => return Err((400, "MissingRequiredHeader")),
            },
            Some(_) => return Err((400, "InvalidQueryParameterValue")),
        }
        Ok(())
    }
}

/// Answers a request to the storage.
pub(crate) fn storage_request(world: &mut World, head: &Head, body: Vec<u8>, unix: u64, now: Duration) -> Response {
    let path = percent_decode(&head.path);
    let signature = head.query.get("sig").map_or("", String::as_str);
    let uploads = &mut world.storage.uploads;
    let Some(upload) = uploads.iter_mut().rev().find(|upload| upload.path() == path && upload.signature == signature)
    else {
        return refused(403, "AuthenticationFailed");
    };
    let (hub, device, blob) = (upload.hub.clone(), upload.device.clone(), upload.blob.clone());
    let size = body.len();
    let fault = world
        .faults
        .strike(&hub, &device, |fault| if let Fault::StorageStatus { status } = fault { Some(*status) } else { None });
    let outcome = match (head.method.as_str(), fault) {
        (_, Some(403)) => Err((403, "AuthenticationFailed")),
        (_, Some(503)) => Err((503, "ServerBusy")),
        (_, Some(status)) => Err((status, "InternalError")),
        _ if upload.expires <= unix => Err((403, "AuthenticationFailed")),
        ("PUT", None) => upload.put(head, body),
        (_, None) => Err((405, "UnsupportedHttpVerb")),
    };
    let status = outcome.map_or_else(|(status, _)| status, |()| 201);
    let part = head.query.get("comp").cloned();
    world.note(&hub, &device, Operation::BlobWritten { blob, part, size, status }, now);
    match outcome {
        Ok(()) => with_version(Response::new(201))
            .header("ETag", format!("\"0x{unix:X}\""))
            .header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            .header("x-ms-request-server-encrypted", "true"),
        Err((status, code)) => refused(status, code),
    }
}

fn refused(status: u16, code: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    with_version(Response::new(status))
        .header("x-ms-error-code", code)
        .header("Content-Type", "application/xml")
        .body(body)
}

fn with_version(response: Response) -> Response {
    response
        .header("x-ms-version", "2021-08-06")
        .header("x-ms-request-id", "00000000-0000-0000-0000-000000000000")
        .header("Server", "hub-emulator")
}

/// Parses the ids of a block list, whichever list each id refers to.
fn block_ids(text: &str) -> Option<Vec<String>> {
    let inner = text.split_once("<BlockList")?.1.split_once('>')?.1;
    let inner = inner.split_once("</BlockList>").map_or("", |(inner, _)| inner);
    let mut ids = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let (tag, after) = rest.strip_prefix('<')?.split_once('>')?;
        if !matches!(tag, "Latest" | "Uncommitted" | "Committed") {
            return None;
        }
        let (id, after) = after.split_once(&format!("</{tag}>"))?;
        ids.push(id.trim().to_owned());
        rest = after.trim_start();
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_list_is_read_whatever_its_lists_and_white_space() {
        let text =
            "<?xml version='1.0'?>\n<BlockList>\n <Latest>AA==</Latest><Uncommitted> BB== </Uncommitted>\n</BlockList>";
        assert_eq!(block_ids(text), Some(vec!["AA==".to_owned(), "BB==".to_owned()]));
        assert_eq!(block_ids("<BlockList/>"), Some(vec![]));
        assert_eq!(block_ids("<BlockList><Other>x</Other></BlockList>"), None);
        assert_eq!(block_ids("{}"), None);
    }
}
