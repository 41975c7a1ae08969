//! A tunnel through an HTTP proxy.

use crate::failure::{Failure, LocalFailure};
use crate::text::{Part, Text};

/// Longest answer of a proxy that is read, in bytes: common proxies send less than 1 KiB.
pub const ANSWER_MAX: usize = 16 * 1024;

/// The start of an answer (RFC 9112, section 4).
pub(super) const VERSION: &[u8] = b"HTTP/1.";

/// The end of an answer's head (RFC 9112, section 2.1).
const END: &[u8] = b"\r\n\r\n";

/// Requests a tunnel to a service from a proxy (CONNECT, RFC 9110, section 9.3.6) and parses its answer, in constant
/// memory and in pieces of any size.
///
/// ```
/// use steadfast_core::transport::Tunnel;
///
/// let mut buffer = [0; 256];
/// let request = Tunnel::request("contoso.azure-devices.net", 8883, None);
/// assert_eq!(
///     request.to_str(&mut buffer),
///     Some("CONNECT contoso.azure-devices.net:8883 HTTP/1.1\r\nHost: contoso.azure-devices.net:8883\r\n\r\n"),
/// );
/// let mut tunnel = Tunnel::new();
/// assert_eq!(tunnel.take(b"HTTP/1.1 200 Connection est"), Ok(false));
/// assert_eq!(tunnel.take(b"ablished\r\n\r\n"), Ok(true));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Bytes of the answer so far.
    len: usize,
    /// Bytes of [`END`] that came last.
    matched: usize,
    status: u16,
}

impl Tunnel {
    /// Starts to parse an answer.
    #[must_use]
    pub const fn new() -> Self {
        Self { len: 0, matched: 0, status: 0 }
    }

    /// Returns the request for a tunnel to `host`, with the value of `Proxy-Authorization` if the proxy requires one
    /// (`Basic` and the pair in base64: RFC 7617, section 2).
    ///
    /// The proxy resolves the name. An IPv6 address stands in brackets (RFC 3986, section 3.2.2).
    #[must_use]
    pub fn request<'a>(host: &'a str, port: u16, authorization: Option<&'a str>) -> Text<'a> {
        let [line, header, close] = if host.contains(':') {
            ["CONNECT [", " HTTP/1.1\r\nHost: [", "]:"]
        } else {
            ["CONNECT ", " HTTP/1.1\r\nHost: ", ":"]
        };
        let [name, value] = match authorization {
            Some(value) => ["\r\nProxy-Authorization: ", value],
            None => ["", ""],
        };
        let port = Part::Number(u64::from(port));
        Text::of([
            Part::Plain(line),
            Part::Plain(host),
            Part::Plain(close),
            port,
            Part::Plain(header),
            Part::Plain(host),
            Part::Plain(close),
            port,
            Part::Plain(name),
            Part::Plain(value),
            Part::Plain("\r\n\r\n"),
        ])
    }

    /// Takes the next bytes of the answer; returns whether the tunnel is open.
    ///
    /// The service never sends first in the tunnelled protocols: bytes after the answer make it invalid.
    ///
    /// # Errors
    /// The failure to report to the link. [`LocalFailure::ProxyAuthentication`] for 407; [`Failure::Network`] for 502
    /// to 504, which mean that the proxy did not reach the host (RFC 9110, section 15.6), so that it counts as
    /// unreachable; [`LocalFailure::ProxyRefused`] for any other status, 0 for an answer that is not HTTP or is too
    /// long.
    pub fn take(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        const USELESS: Failure = Failure::Local(LocalFailure::ProxyRefused(0));
        let mut rest = bytes.iter();
        for byte in rest.by_ref() {
            let at = self.len;
            self.len = at.saturating_add(1);
            match at.checked_sub(VERSION.len()) {
                None if VERSION.get(at) != Some(byte) => return Err(USELESS),
                // The second digit of the version.
                None | Some(0) => {}
                Some(1) if *byte != b' ' => return Err(USELESS),
                Some(2..=4) => {
                    let digit = byte.wrapping_sub(b'0');
                    if digit > 9 {
                        return Err(USELESS);
                    }
                    self.status = self.status.wrapping_mul(10).wrapping_add(u16::from(digit));
                }
                Some(_) if self.len > ANSWER_MAX => return Err(USELESS),
                Some(_) => {}
            }
            if END.get(self.matched) == Some(byte) {
                self.matched = self.matched.saturating_add(1);
            } else {
                self.matched = usize::from(*byte == b'\r');
            }
            if self.matched == END.len() {
                return match self.status {
                    200..=299 if rest.as_slice().is_empty() => Ok(true),
                    200..=299 => Err(USELESS),
                    407 => Err(Failure::Local(LocalFailure::ProxyAuthentication)),
                    502..=504 => Err(Failure::Network),
                    status => Err(Failure::Local(LocalFailure::ProxyRefused(status))),
                };
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec;

    fn answer(bytes: &[u8]) -> Result<bool, Failure> {
        let whole = Tunnel::new().take(bytes);
        for size in 1..bytes.len() {
            let mut tunnel = Tunnel::new();
            let mut cut = Ok(false);
            let mut taken = 0;
            for piece in bytes.chunks(size) {
                taken += piece.len();
                cut = tunnel.take(piece);
                if cut != Ok(false) {
                    break;
                }
            }
            // Bytes after the head are seen only if they arrive together with it.
            assert!(cut == whole || taken < bytes.len(), "{size}: {cut:?} {whole:?}");
        }
        whole
    }

    #[test]
    fn each_answer_means_the_same_however_it_is_cut() {
        let refused = |status| Err(Failure::Local(LocalFailure::ProxyRefused(status)));
        let table: [(&str, Result<bool, Failure>); 13] = [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Ok(true)),
            ("HTTP/1.0 200\r\nVia: 1.1 squid\r\n\r\n", Ok(true)),
            ("HTTP/1.1 204 x\r\n\r\n", Ok(true)),
            ("HTTP/1.1 200 x\r\n\r", Ok(false)),
            ("HTTP/1.1 200 OK\r\n\r\n<html>please log in", refused(0)),
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\nx: y\r\n\r\nbody",
                Err(Failure::Local(LocalFailure::ProxyAuthentication)),
            ),
            ("HTTP/1.1 403 no\r\n\r\n", refused(403)),
            ("HTTP/1.1 302 x\r\nLocation: http://portal/\r\n\r\n", refused(302)),
            ("HTTP/1.1 502 x\r\n\r\n", Err(Failure::Network)),
            ("HTTP/1.1 504 x\r\n\r\n", Err(Failure::Network)),
            ("HTTP/2 200 \r\n\r\n", refused(0)),
            ("SSH-2.0-OpenSSH", refused(0)),
            ("HTTP/1.1 20x\r\n\r\n", refused(0)),
        ];
        for (bytes, expected) in table {
            assert_eq!(answer(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_without_an_end_is_given_up() {
        let mut tunnel = Tunnel::new();
        assert_eq!(tunnel.take(b"HTTP/1.1 200 OK\r\n"), Ok(false));
        let mut taken = 17;
        loop {
            match tunnel.take(&vec![b'x'; 1000]) {
                Ok(false) => taken += 1000,
                other => {
                    assert_eq!(other, Err(Failure::Local(LocalFailure::ProxyRefused(0))));
                    break;
                }
            }
        }
        assert!(taken <= ANSWER_MAX);
    }

    #[test]
    fn the_request_names_the_service_and_carries_the_login() {
        let shown = |text: Text<'_>| -> String { text.to_string() };
        assert_eq!(
            shown(Tunnel::request("::1", 443, Some("Basic dTpw"))),
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
        );
    }
}
