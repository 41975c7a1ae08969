//! A hub that gives grants, and its storage.

use std::collections::HashMap;

use serde_json::{Value, json};
use steadfast_core::upload::Request;

use super::{DEVICE, Purpose};

/// Status, retry-after in seconds, body.
pub(super) type Answer = (u16, Option<u32>, Vec<u8>);

/// Most open uploads of a device.
const AT_ONCE: usize = 10;

/// Word of how an upload went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// Of which grant, counted from 0.
    pub grant: usize,
    /// Whether it succeeded.
    pub success: bool,
    /// The status that was told.
    pub status: u64,
}

#[derive(Clone, Debug)]
struct Given {
    /// Unix seconds of the world's clock.
    expires: u64,
    ended: bool,
}

/// An IoT hub and its storage account, as far as uploads see them.
#[derive(Debug)]
pub struct CloudHub {
    pub(super) host: String,
    pub(super) storage: String,
    /// Whether the device is registered here.
    pub knows_device: bool,
    /// Whether requests to the hub arrive; those to its storage always do.
    pub reachable: bool,
    /// How long a grant is good, in seconds.
    pub grant_secs: u64,
    given: Vec<Given>,
    notices: Vec<Notice>,
    /// Without a list, as they are named by their ids.
    blocks: HashMap<String, Vec<u8>>,
    /// In the latest list.
    listed: HashMap<String, Vec<u8>>,
    content: HashMap<String, Vec<u8>>,
    /// Blocks that came in all.
    taken: usize,
}

impl CloudHub {
    /// Makes the hub of this number and its storage: `hub-a.example` and `storage-a.example` for 0.
    #[must_use]
    pub fn new(number: u8) -> Self {
        let letter = char::from(b'a' + number);
        Self {
            host: format!("hub-{letter}.example"),
            storage: format!("storage-{letter}.example"),
            knows_device: true,
            reachable: true,
            grant_secs: 3_600,
            given: Vec::new(),
            notices: Vec::new(),
            blocks: HashMap::new(),
            listed: HashMap::new(),
            content: HashMap::new(),
            taken: 0,
        }
    }

    /// Returns what was told of the device's uploads.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Counts the successes that were told.
    #[must_use]
    pub fn successes(&self) -> usize {
        self.notices.iter().filter(|notice| notice.success).count()
    }

    /// Counts the grants that were given.
    #[must_use]
    pub const fn grants(&self) -> usize {
        self.given.len()
    }

    /// Counts the grants of whose end nobody told.
    #[must_use]
    pub fn unclosed(&self) -> u32 {
        u32::try_from(self.given.iter().filter(|given| !given.ended).count()).unwrap_or(u32::MAX)
    }

    /// Counts the blocks that came, those that came again included.
    #[must_use]
    pub const fn blocks_taken(&self) -> usize {
        self.taken
    }

    /// Opens uploads of the device that nobody ends, until `expires` in seconds of the world's clock.
    pub fn open(&mut self, count: usize, expires: u64) {
        self.given.extend((0..count).map(|_| Given { expires, ended: false }));
    }

    /// Returns the content of a file in the device's folder.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<&[u8]> {
        self.content.get(&format!("{DEVICE}/{name}")).map(Vec::as_slice)
    }

    /// Takes a request to the hub or its storage, at a time in seconds of the world's clock: its host, path and query, and
    /// body. Returns status and body of the answer; `None` when it is for neither, or no request they know.
    pub fn take(&mut self, host: &str, path: &str, body: &[u8], now_secs: u64) -> Option<(u16, Vec<u8>)> {
        let purpose = purpose_of(path)?;
        let served = if matches!(purpose, Purpose::Initiate | Purpose::Notify) { &self.host } else { &self.storage };
        if served != host {
            return None;
        }
        let (status, _, body) = self.answer(purpose, body, path, now_secs);
        Some((status, body))
    }

    pub(super) fn drop_blocks(&mut self) {
        self.blocks.clear();
        self.listed.clear();
    }

    pub(super) fn end_grants(&mut self) {
        for given in &mut self.given {
            given.expires = 0;
        }
    }

    pub(super) fn answer(&mut self, purpose: Purpose, body: &[u8], path: &str, now_secs: u64) -> Answer {
        match purpose {
            Purpose::Initiate => self.initiate(body, now_secs),
            Purpose::Notify => self.notify(body),
            Purpose::Whole | Purpose::Block(_) | Purpose::List => {
                (self.store(purpose, body, path, now_secs), None, vec![])
            }
        }
    }

    fn initiate(&mut self, body: &[u8], now_secs: u64) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(name) = body["blobName"].as_str() else { return error(400, 400_004) };
        if !self.knows_device {
            return error(401, 401_002);
        }
        if self.given.iter().filter(|given| !given.ended && given.expires > now_secs).count() >= AT_ONCE {
            return error(403, 403_006);
        }
        let number = self.given.len();
        self.given.push(Given { expires: now_secs + self.grant_secs, ended: false });
        let answer = json!({
            "correlationId": format!("{}/\"{number}\"", self.host),
            "hostName": self.storage,
            "containerName": "files",
            "blobName": format!("{DEVICE}/{name}"),
            "sasToken": format!("?sv=2021-08-06&sig=s{number}%2B"),
        });
        (200, None, answer.to_string().into_bytes())
    }

    fn notify(&mut self, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if !self.knows_device {
            return error(401, 401_002);
        }
        let named = body["correlationId"].as_str().and_then(|id| id.split('"').nth(1)?.parse().ok());
        let found = named.and_then(|number: usize| Some((number, self.given.get_mut(number)?)));
        match (found, body["isSuccess"].as_bool(), body["statusCode"].as_u64()) {
            (Some((grant, given)), Some(success), Some(status)) if !given.ended => {
                given.ended = true;
                self.notices.push(Notice { grant, success, status });
                (204, None, vec![])
            }
            _ => error(400, 400_016),
        }
    }

    fn store(&mut self, purpose: Purpose, body: &[u8], path: &str, now_secs: u64) -> u16 {
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        let number = query.rsplit_once("sig=s").and_then(|(_, rest)| rest.strip_suffix("%2B")?.parse().ok());
        let given = number.and_then(|number: usize| self.given.get(number));
        // An upload that was told of is over for its grant too.
        if given.is_none_or(|given| given.ended || given.expires <= now_secs) {
            return 403;
        }
        let blob = decoded(place.strip_prefix("/files/").unwrap_or_default());
        match purpose {
            Purpose::Block(_) => {
                let id = query.split("blockid=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
                self.blocks.insert(id.to_owned(), body.to_vec());
                self.taken += 1;
            }
            Purpose::List => {
                let text = String::from_utf8_lossy(body);
                let ids: Vec<&str> = text.split("<Latest>").skip(1).filter_map(|part| part.split('<').next()).collect();
                // The latest of a name is the one without a list, else the one in it (Azure Storage, Put Block List).
                let find = |id: &&str| self.blocks.get(*id).or_else(|| self.listed.get(*id)).cloned();
                let Some(found) = ids.iter().map(find).collect::<Option<Vec<_>>>() else { return 400 };
                self.content.insert(blob, found.concat());
                self.listed = ids.into_iter().map(str::to_owned).zip(found).collect();
                self.blocks.clear();
            }
            Purpose::Whole | Purpose::Initiate | Purpose::Notify => {
                self.content.insert(blob, body.to_vec());
                self.drop_blocks();
            }
        }
        201
    }
}

fn error(status: u16, code: u32) -> Answer {
    (status, None, json!({ "Message": format!("ErrorCode:x;{code}") }).to_string().into_bytes())
}

pub(super) fn path_of(request: &Request<'_>) -> String {
    let mut buffer = [0; 1024];
    request.uri.to_str(&mut buffer).unwrap_or_default().to_owned()
}

pub(super) fn purpose_of(path: &str) -> Option<Purpose> {
    let device = path.strip_prefix(&format!("/devices/{DEVICE}/"));
    match device {
        Some("files?api-version=2021-04-12") => return Some(Purpose::Initiate),
        Some("files/notifications?api-version=2021-04-12") => return Some(Purpose::Notify),
        Some(_) => return None,
        None => {}
    }
    let (place, query) = path.split_once('?')?;
    if !place.starts_with("/files/") {
        return None;
    }
    if query.starts_with("comp=blocklist&") {
        return Some(Purpose::List);
    }
    match query.strip_prefix("comp=block&blockid=") {
        // Ids of blocks are counted in base64 here: all have one length, and go up.
        Some(rest) => Some(Purpose::Block(number(rest.split('&').next()?)?)),
        None => query.starts_with("sv=").then_some(Purpose::Whole),
    }
}

/// Reads the number in the base64 of nine digits.
fn number(id: &str) -> Option<u32> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digits = String::new();
    for four in id.as_bytes().chunks(4) {
        let bits = four.iter().try_fold(0_u32, |bits, letter| {
            Some(bits << 6 | u32::try_from(ALPHABET.find(char::from(*letter))?).ok()?)
        })?;
        digits.extend(bits.to_be_bytes()[1..].iter().map(|byte| char::from(*byte)));
    }
    digits.parse().ok().filter(|_| digits.len() == 9)
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if let (b'%', Some(Ok(value))) =
            (*byte, behind.get(..2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16)))
        {
            bytes.push(value);
            rest = &behind[2..];
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
