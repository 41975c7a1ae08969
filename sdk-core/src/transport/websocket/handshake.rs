//! The opening of WebSockets.

use super::frames::Frames;
use super::sha1::sha1;
use crate::failure::Failure;
use crate::io::ServiceKind;
use crate::rng::{Rng, Seed};
use crate::text::{Part, Text, base64};
use crate::transport::http_proxy::{ANSWER_MAX, VERSION};

/// Port of HTTPS, which WebSockets over TLS use (RFC 6455, section 11.1.2).
pub const PORT: u16 = 443;

/// The subprotocol to request, with which the service must answer (MQTT 3.1.1, section 6, \[MQTT-6.0.0-3\]).
pub const SUBPROTOCOL: &str = "mqtt";

/// Path of IoT Hub and of the Device Provisioning Service (azure-docs `iot/iot-mqtt-connect-to-iot-hub.md` and
/// `iot/iot-mqtt-connect-to-iot-dps.md`).
const PATH: &str = "/$iothub/websocket";

/// The hub's path for devices without a certificate (azure-sdk-for-c, `az_iot_hub_client.h`): the hub then does not
/// request one by TLS renegotiation, which TLS 1.3 does not have.
const PATH_WITHOUT_CERTIFICATE: &str = "/$iothub/websocket?iothub-no-client-cert=true";

/// The usual path of brokers.
const BROKER_PATH: &str = "/mqtt";

/// The text that a service appends to the nonce before it answers with the digest (RFC 6455, section 1.3).
const ACCEPT_SUFFIX: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The status of an upgrade (RFC 9110, section 15.2.2).
const SWITCHING: u16 = 101;

/// Longest line of an answer that is parsed: the digest has the longest value of the required headers, and `Connection`
/// may list more than the upgrade.
const LINE: usize = 128;

/// The upgrade to WebSockets: its request, and the meaning of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "frontends fill it in")]
pub struct Opening {
    /// The service.
    pub role: ServiceKind,
    /// The service is a broker of the user's.
    pub broker: bool,
    /// The device showed a certificate.
    pub certificate: bool,
}

impl Opening {
    /// Returns path and query of the request.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match (self.role, self.broker, self.certificate) {
            (ServiceKind::Hub, true, _) => BROKER_PATH,
            (ServiceKind::Hub, false, false) => PATH_WITHOUT_CERTIFICATE,
            (ServiceKind::Hub, false, true) | (ServiceKind::Provisioning, _, _) => PATH,
        }
    }

    /// Returns the request for an upgrade (RFC 6455, section 4.1), to be sent once the connection is secured by TLS;
    /// `upgrade` reads the answer.
    #[must_use]
    pub fn request<'a>(self, host: &'a str, port: u16, upgrade: &'a Upgrade) -> Text<'a> {
        let [open, close] = if host.contains(':') { ["[", "]"] } else { ["", ""] };
        // Only a port other than the scheme's is included.
        let [colon, port] =
            if port == PORT { [Part::Plain(""); 2] } else { [Part::Plain(":"), Part::Number(u64::from(port))] };
        Text::of([
            Part::Plain("GET "),
            Part::Plain(self.path()),
            Part::Plain(" HTTP/1.1\r\nHost: "),
            Part::Plain(open),
            Part::Plain(host),
            Part::Plain(close),
            colon,
            port,
            Part::Plain(concat!(
                "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13",
                "\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: "
            )),
            Part::Plain(upgrade.key()),
            Part::Plain("\r\n\r\n"),
        ])
    }

    /// Converts an answer other than the upgrade: its HTTP status, 0 for one that is not HTTP and 101 for one that
    /// violates the upgrade's requirements, and the value of its `Retry-After`; a date is ignored (RFC 9110, section
    /// 10.2.3).
    #[must_use]
    pub fn refused(status: u16, retry_after: Option<&str>) -> Failure {
        Failure::UpgradeRefused { status, retry_after_secs: retry_after.and_then(seconds) }
    }
}

/// The WebSocket handshake of a connection: has the nonce of the request, and parses the answer in constant memory.
///
/// ```
/// use steadfast_core::transport::{Opening, PORT, Upgrade};
/// use steadfast_core::{ServiceKind, Seed};
///
/// let mut upgrade = Upgrade::new(Seed::new([7; 16]));
/// let opening = Opening { role: ServiceKind::Hub, broker: false, certificate: true };
/// let mut buffer = [0; 512];
/// let request = opening.request("contoso.azure-devices.net", PORT, &upgrade).to_str(&mut buffer);
/// assert!(request.is_some_and(|text| text.starts_with("GET /$iothub/websocket HTTP/1.1\r\n")));
/// for byte in *b"HTTP/1.1 503 Busy\r\nRetry-After: 30\r\n\r" {
///     assert_eq!(upgrade.take(byte), Ok(false));
/// }
/// assert_eq!(upgrade.take(b'\n'), Err(Opening::refused(503, Some("30"))));
/// ```
#[derive(Clone, Debug)]
pub struct Upgrade {
    rng: Rng,
    /// The nonce, in base64.
    key: [u8; 24],
    /// The expected answer to it.
    accept: [u8; 28],
    /// The line that is being read, as much as is understood, and its length.
    line: [u8; LINE],
    len: usize,
    /// Bytes of the answer so far.
    taken: usize,
    /// 0 until the first line is complete.
    status: u16,
    terms: Terms,
    retry_after: Option<u32>,
}

/// Which requirements of the upgrade the answer meets (RFC 6455, section 4.1).
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    upgrade: bool,
    connection: bool,
    accept: bool,
    protocol: bool,
    /// A subprotocol that was not requested.
    other_protocol: bool,
    /// An extension, which was not requested.
    extension: bool,
    /// A digest of another nonce.
    other_accept: bool,
}

impl Terms {
    const fn kept(self) -> bool {
        self.upgrade
            && self.connection
            && self.accept
            && self.protocol
            && !self.other_protocol
            && !self.other_accept
            && !self.extension
    }
}

impl Upgrade {
    /// Begins. The nonce and the masks of the frames are drawn from `seed`, which must differ for each connection: they
    /// keep intermediaries from misinterpreting the bytes (RFC 6455, section 10.3), and provide no security, unlike
    /// TLS.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        let mut rng = Rng::new(seed, "");
        let [a, b] = [rng.long(), rng.long()].map(u64::to_le_bytes);
        let mut nonce = [0; 16];
        for (slot, byte) in nonce.iter_mut().zip(a.into_iter().chain(b)) {
            *slot = byte;
        }
        let key: [u8; 24] = base64(&nonce);
        let accept = accept(&key);
        Self {
            rng,
            key,
            accept,
            line: [0; LINE],
            len: 0,
            taken: 0,
            status: 0,
            terms: Terms::default(),
            retry_after: None,
        }
    }

    fn key(&self) -> &str {
        core::str::from_utf8(&self.key).unwrap_or_default()
    }

    /// Takes the next byte of the answer; returns whether it was the last one: the next is of a [frame](Self::frames).
    ///
    /// # Errors
    /// [`Failure::UpgradeRefused`], from [`Opening::refused`]: immediately if the answer is not HTTP, else at the end
    /// of its head.
    pub fn take(&mut self, byte: u8) -> Result<bool, Failure> {
        let at = self.taken;
        self.taken = at.saturating_add(1);
        if self.taken > ANSWER_MAX || VERSION.get(at).is_some_and(|expected| *expected != byte) {
            return Err(Opening::refused(0, None));
        }
        if byte != b'\n' {
            // Of a line that is too long the end is missing.
            if let Some(slot) = self.line.get_mut(self.len) {
                *slot = byte;
            }
            self.len = self.len.saturating_add(1);
            return Ok(false);
        }
        let (line, len) = (self.line, core::mem::take(&mut self.len));
        let line = line.get(..len.min(LINE)).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        if self.status == 0 {
            self.status = line.and_then(status).ok_or(Opening::refused(0, None))?;
            return Ok(false);
        }
        match line {
            Some(b"") if self.status != SWITCHING => {
                Err(Failure::UpgradeRefused { status: self.status, retry_after_secs: self.retry_after })
            }
            Some(b"") if self.terms.kept() => Ok(true),
            Some(b"") => Err(Opening::refused(SWITCHING, None)),
            Some(line) => {
                let mut parts = line.splitn(2, |byte| *byte == b':');
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    self.header(name, value.trim_ascii());
                }
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// Takes a header of the answer; names and most values are case-insensitive (RFC 9110, section 5.1).
    fn header(&mut self, name: &[u8], value: &[u8]) {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let lists =
            |word: &[u8]| value.split(|byte| *byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(word));
        if is(b"Upgrade") {
            self.terms.upgrade |= lists(b"websocket");
        } else if is(b"Connection") {
            self.terms.connection |= lists(b"Upgrade");
        } else if is(b"Sec-WebSocket-Accept") {
            let ours = value == self.accept;
            self.terms.accept |= ours;
            self.terms.other_accept |= !ours;
        } else if is(b"Sec-WebSocket-Protocol") {
            let asked_for = value == SUBPROTOCOL.as_bytes();
            self.terms.protocol |= asked_for;
            self.terms.other_protocol |= !asked_for;
        } else if is(b"Sec-WebSocket-Extensions") {
            self.terms.extension |= !value.is_empty();
        } else if is(b"Retry-After") {
            self.retry_after = core::str::from_utf8(value).ok().and_then(seconds);
        }
    }

    /// Returns the frames, once the answer is complete.
    #[must_use]
    pub fn frames(self) -> Frames {
        Frames::new(self.rng)
    }
}

/// Returns the digest with which a service confirms `key` (RFC 6455, section 4.2.2), in base64.
fn accept(key: &[u8; 24]) -> [u8; 28] {
    let mut message = [0; 24 + ACCEPT_SUFFIX.len()];
    for (slot, byte) in message.iter_mut().zip(key.iter().chain(ACCEPT_SUFFIX)) {
        *slot = *byte;
    }
    base64(&sha1(&message))
}

/// Returns the status in a first line (RFC 9112, section 4).
fn status(line: &[u8]) -> Option<u16> {
    // "HTTP/1.", a digit and a space.
    let rest = line.get(VERSION.len().saturating_add(1)..)?.strip_prefix(b" ")?;
    let (digits, rest) = rest.split_at_checked(3)?;
    if !matches!(rest, [] | [b' ', ..]) {
        return None;
    }
    let status = digits.iter().try_fold(0_u16, |status, byte| {
        let digit = u16::from(byte.wrapping_sub(b'0'));
        (digit <= 9).then(|| status.wrapping_mul(10).wrapping_add(digit))
    });
    status.filter(|status| *status >= 100)
}

/// Returns the seconds of a `Retry-After`; a date is ignored.
fn seconds(value: &str) -> Option<u32> {
    crate::scan::decimal(value.trim_ascii()).and_then(|seconds| u32::try_from(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_hub_whether_to_ask_for_a_certificate() {
        let path = |role, broker, certificate| Opening { role, broker, certificate }.path();
        assert_eq!(path(ServiceKind::Hub, false, false), "/$iothub/websocket?iothub-no-client-cert=true");
        assert_eq!(path(ServiceKind::Hub, false, true), "/$iothub/websocket");
        assert_eq!(path(ServiceKind::Provisioning, false, false), "/$iothub/websocket");
        assert_eq!(path(ServiceKind::Hub, true, false), "/mqtt");
    }

    const KEPT: [&str; 4] = [
        "Upgrade: websocket\r\n",
        "connection: keep-alive, upgrade\r\n",
        "Sec-WebSocket-Accept: {accept}\r\n",
        "SEC-WEBSOCKET-PROTOCOL:mqtt\r\n",
    ];

    fn upgrade() -> Upgrade {
        Upgrade::new(Seed::from_number(3))
    }

    /// What becomes of `answer`, and the bytes of it that were not taken.
    fn read(answer: &str) -> (Result<bool, Failure>, usize) {
        let mut upgrade = upgrade();
        let accept = std::string::String::from_utf8(upgrade.accept.to_vec()).unwrap();
        let answer = answer.replace("{accept}", &accept);
        for (at, byte) in answer.bytes().enumerate() {
            let taken = upgrade.take(byte);
            if taken != Ok(false) {
                return (taken, answer.len() - at - 1);
            }
        }
        (Ok(false), 0)
    }

    fn switching(headers: &[&str]) -> std::string::String {
        std::format!("HTTP/1.1 101 Switching Protocols\r\n{}\r\n", headers.concat())
    }

    #[test]
    fn the_digest_is_the_one_of_the_specification() {
        // RFC 6455, section 1.3.
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_request_asks_for_mqtt_with_a_nonce_of_its_own() {
        let shown = |host, port, upgrade: &Upgrade| {
            let opening = Opening { role: ServiceKind::Hub, broker: false, certificate: false };
            std::string::ToString::to_string(&opening.request(host, port, upgrade))
        };
        let (one, other) = (upgrade(), Upgrade::new(Seed::from_number(4)));
        assert_eq!(
            shown("hub.example", 443, &one),
            std::format!(
                "GET /$iothub/websocket?iothub-no-client-cert=true HTTP/1.1\r\nHost: hub.example\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
                 Sec-WebSocket-Key: {}\r\n\r\n",
                one.key()
            )
        );
        assert!(shown("::1", 8443, &one).contains("\r\nHost: [::1]:8443\r\n"));
        assert_eq!((one.key().len(), one.key().ends_with("==")), (24, true));
        assert_ne!(one.key(), other.key());
    }

    #[test]
    fn an_answer_that_keeps_the_terms_opens_and_leaves_the_frames_alone() {
        assert_eq!(read(&switching(&KEPT)), (Ok(true), 0));
        assert_eq!(read(&(switching(&KEPT) + "frames")), (Ok(true), 6));
        let long = std::format!("X-Long: {}\r\n", "x".repeat(9_000));
        assert_eq!(read(&switching(&[&KEPT.concat(), &long])), (Ok(true), 0));
        assert_eq!(read(&switching(&KEPT).replace("\r\n", "\n")).0, Ok(true));
    }

    #[test]
    fn an_answer_that_breaks_a_term_opens_nothing() {
        let broken = Err(Opening::refused(101, None));
        for missing in KEPT {
            assert_eq!(read(&switching(&KEPT).replace(missing, "")).0, broken, "without {missing}");
        }
        let answer = switching(&KEPT);
        for (from, to) in [("{accept}", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), (":mqtt", ":amqp"), ("websocket\r", "h2c\r")] {
            assert_eq!(read(&answer.replace(from, to)).0, broken, "{to}");
        }
        let extended = switching(&[&KEPT.concat(), "Sec-WebSocket-Extensions: permessage-deflate\r\n"]);
        assert_eq!(read(&extended).0, broken);
        let long = std::format!("Sec-WebSocket-Extensions: x; y={}\r\n", "z".repeat(2_000));
        assert_eq!(read(&switching(&[&KEPT.concat(), &long])).0, broken);
        for other in ["Sec-WebSocket-Protocol: amqp\r\n", "Sec-WebSocket-Protocol:\r\n"] {
            assert_eq!(read(&switching(&[&KEPT.concat(), other])).0, broken, "{other}");
            assert_eq!(read(&switching(&[other, &KEPT.concat()])).0, broken, "{other}");
        }
        for other in ["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "Sec-WebSocket-Accept: \r\n"] {
            assert_eq!(read(&switching(&[&KEPT.concat(), other])).0, broken, "{other}");
        }
    }

    #[test]
    fn a_refusal_tells_its_status_and_how_long_to_wait() {
        let refused = |status, seconds| (Err(Opening::refused(status, seconds)), 0);
        let table = [
            ("HTTP/1.1 429 Slow\r\nretry-after: 120\r\n\r\n", refused(429, Some("120"))),
            ("HTTP/1.1 503\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", refused(503, None)),
            ("HTTP/1.0 302 Found\r\nLocation: /login\r\n\r\n", refused(302, None)),
            ("HTTP/1.1 200 OK\r\n\r\n", refused(200, None)),
            ("HTTP/1.1 101 x\r\n\r\n", refused(101, None)),
            ("HTTP/1.1 99 x\r\n", refused(0, None)),
            ("HTTP/1.1 20x x\r\n", refused(0, None)),
            ("HTTP/1.1 2000\r\n", refused(0, None)),
            ("HTTP/1.11 200\r\n", refused(0, None)),
            ("HTTP/1.1\r\n", refused(0, None)),
            ("\x20", refused(0, None)),
            ("HTTP/2", refused(0, None)),
            ("HTTP/1.1 503 x\r\nRetry-After: 1", (Ok(false), 0)),
        ];
        for (answer, expected) in table {
            assert_eq!(read(answer), expected, "{answer:?}");
        }
        let endless = std::format!("HTTP/1.1 101 x\r\n{}", "x".repeat(ANSWER_MAX));
        assert_eq!(read(&endless).0, Err(Opening::refused(0, None)));
    }

    #[test]
    fn only_seconds_count_as_a_time_to_wait() {
        let refused = |value| Opening::refused(503, value);
        let with = |retry_after_secs| Failure::UpgradeRefused { status: 503, retry_after_secs };
        assert_eq!(refused(None), with(None));
        assert_eq!(refused(Some(" 120 ")), with(Some(120)));
        assert_eq!(refused(Some("Sun, 06 Nov 1994 08:49:37 GMT")), with(None));
        assert_eq!(refused(Some("99999999999")), with(None));
    }
}
