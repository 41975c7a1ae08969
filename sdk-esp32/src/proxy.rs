//! Connections through an HTTP proxy, for networks that allow nothing else.
//!
//! A connector ([`Connect`](crate::Connect), [`nonblocking::Connect`](crate::nonblocking::Connect)) connects to the
//! proxy instead of `dial.host`, opens the tunnel here, and then completes TLS with `dial.host` through it, as without
//! a proxy. A failure of the proxy never counts as one of the hub; an unreachable proxy is
//! [`LocalFailure::ProxyUnreachable`].

use core::time::Duration;

use embedded_io::{Error as _, ErrorKind};
use steadfast_core::transport::Tunnel;
use steadfast_core::{Failure, Instant, LocalFailure};
use zeroize::Zeroizing;

use crate::board::{Dial, Stream};

/// Longest request for a tunnel: a host name twice, a password of some 250 bytes in base64, and what stands around them.
const REQUEST_MAX: usize = 1024;

/// Pause after the connection took nothing.
const WRITE_PAUSE: Duration = Duration::from_millis(50);

const SILENT: Failure = Failure::Local(LocalFailure::ProxySilent);

/// Opens a tunnel to `dial.host` on a fresh connection to a proxy, within `limit`: less than what is left of
/// `dial.limit`, so that a silent proxy does not count as a silent hub.
///
/// `authorization` is the value of `Proxy-Authorization`, such as `Basic cHVtcDp3ZXQ=` (RFC 7617, section 2); `now` the
/// board's clock.
///
/// # Errors
/// The failure to return from the connector: see [`Tunnel::take`]; [`LocalFailure::ProxySilent`] without a complete
/// answer; [`LocalFailure::Buffer`] if host and authorization together are longer than about 950 bytes.
pub fn open<S: Stream>(
    stream: &mut S,
    dial: &Dial<'_>,
    authorization: Option<&str>,
    now: impl Fn() -> Instant,
    limit: Duration,
) -> Result<(), Failure> {
    let deadline = now().after(limit);
    let mut buffer = Zeroizing::new([0; REQUEST_MAX]);
    let mut request = compose(dial, authorization, &mut buffer)?;
    while !request.is_empty() {
        let left = deadline.since(now());
        if left.is_zero() {
            return Err(SILENT);
        }
        match stream.write(request) {
            Ok(0) => return Err(SILENT),
            Ok(written) => request = request.get(written..).unwrap_or_default(),
            // The proxy says nothing yet: this is a pause.
            Err(error) if is_not_now(error.kind()) => {
                stream.wait_readable(left.min(WRITE_PAUSE)).map_err(|_| SILENT)?;
            }
            Err(_) => return Err(SILENT),
        }
    }
    stream.flush().map_err(|_| SILENT)?;
    let mut tunnel = Tunnel::new();
    let mut answer = [0; 128];
    loop {
        let left = deadline.since(now());
        if left.is_zero() {
            return Err(SILENT);
        }
        if !stream.wait_readable(left).map_err(|_| SILENT)? {
            continue;
        }
        match stream.read(&mut answer) {
            Ok(0) => return Err(SILENT),
            Ok(came) if tunnel.take(answer.get(..came).unwrap_or_default())? => return Ok(()),
            Ok(_) => {}
            Err(error) if is_not_now(error.kind()) => {}
            Err(_) => return Err(SILENT),
        }
    }
}

/// As [`open`], for asynchronous streams. The caller bounds it in time, to less than `dial.limit`, and returns
/// [`LocalFailure::ProxySilent`] when that has passed.
///
/// # Errors
/// As [`open`].
pub async fn open_async<S: embedded_io_async::Read + embedded_io_async::Write>(
    stream: &mut S,
    dial: &Dial<'_>,
    authorization: Option<&str>,
) -> Result<(), Failure> {
    let mut buffer = Zeroizing::new([0; REQUEST_MAX]);
    let request = compose(dial, authorization, &mut buffer)?;
    stream.write_all(request).await.map_err(|_| SILENT)?;
    stream.flush().await.map_err(|_| SILENT)?;
    let mut tunnel = Tunnel::new();
    let mut answer = [0; 128];
    loop {
        let came = stream.read(&mut answer).await.map_err(|_| SILENT)?;
        if came == 0 {
            return Err(SILENT);
        }
        if tunnel.take(answer.get(..came).unwrap_or_default())? {
            return Ok(());
        }
    }
}

fn compose<'b>(
    dial: &Dial<'_>,
    authorization: Option<&str>,
    buffer: &'b mut [u8; REQUEST_MAX],
) -> Result<&'b [u8], Failure> {
    let request = Tunnel::request(dial.host, dial.port, authorization).to_str(buffer);
    request.map(str::as_bytes).ok_or(Failure::Local(LocalFailure::Buffer))
}

fn is_not_now(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};
    use std::rc::Rc;
    use std::string::String;
    use steadfast_core::ServiceKind;

    use crate::fake_service::Service;

    const DIAL: Dial<'_> = Dial {
        host: "contoso.azure-devices.net",
        port: 8883,
        role: ServiceKind::Hub,
        client_certificate: false,
        limit: Duration::from_secs(30),
    };

    fn blocking(answer: &str, ends: bool) -> (Result<(), Failure>, String) {
        let mut proxy = Service::new(answer, ends);
        let clock = Rc::clone(&proxy.clock);
        let now = || Instant::from_millis(clock.get());
        let opened = open(&mut proxy, &DIAL, Some("Basic dTpw"), now, Duration::from_secs(28));
        (opened, String::from_utf8(proxy.written).unwrap())
    }

    fn asynchronous(answer: &str) -> Result<(), Failure> {
        let mut proxy = Service::new(answer, true);
        let work = pin!(open_async(&mut proxy, &DIAL, None));
        match work.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(opened) => opened,
            Poll::Pending => panic!("the proxy never waits"),
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_with_the_login_and_opens() {
        let (opened, written) = blocking("HTTP/1.1 200 Connection established\r\n\r\n", false);
        assert_eq!(opened, Ok(()));
        assert_eq!(
            written,
            "CONNECT contoso.azure-devices.net:8883 HTTP/1.1\r\nHost: contoso.azure-devices.net:8883\r\n\
             Proxy-Authorization: Basic dTpw\r\n\r\n"
        );
        assert_eq!(asynchronous("HTTP/1.1 200 Connection established\r\n\r\n"), Ok(()));
    }

    #[test]
    fn a_proxy_that_refuses_breaks_off_or_says_nothing_is_told_as_such() {
        let refused = Err(Failure::Local(LocalFailure::ProxyAuthentication));
        assert_eq!(blocking("HTTP/1.1 407 x\r\n\r\n", false).0, refused);
        assert_eq!(asynchronous("HTTP/1.1 407 x\r\n\r\n"), refused);
        for (answer, ends) in [("HTTP/1.1 20", true), ("HTTP/1.1 20", false), ("", true), ("", false)] {
            assert_eq!(blocking(answer, ends).0, Err(SILENT), "{answer:?}");
        }
        assert_eq!(asynchronous("HTTP/1.1 2"), Err(SILENT));
    }

    #[test]
    fn a_proxy_that_takes_nothing_is_given_up_in_time() {
        let mut proxy = Service::new("", false);
        proxy.takes = false;
        let clock = Rc::clone(&proxy.clock);
        let now = || Instant::from_millis(clock.get());
        assert_eq!(open(&mut proxy, &DIAL, None, now, Duration::from_secs(28)), Err(SILENT));
        assert_eq!(clock.get(), 28_000);
    }

    #[test]
    fn a_login_that_does_not_fit_is_an_error_before_anything_is_sent() {
        let long = String::from_utf8(std::vec![b'x'; REQUEST_MAX]).unwrap();
        let mut proxy = Service::new("", true);
        let opened = open(&mut proxy, &DIAL, Some(&long), || Instant::ORIGIN, Duration::from_secs(1));
        assert_eq!((opened, proxy.written.len()), (Err(Failure::Local(LocalFailure::Buffer)), 0));
    }
}
