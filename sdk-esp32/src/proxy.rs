//! The way out through an HTTP proxy, for networks that let nothing else out.
//!
//! A connector ([`Connect`](crate::Connect), [`asynch::Connect`](crate::asynch::Connect)) connects to the proxy instead
//! of `dial.host`, opens the tunnel here, and then completes TLS with `dial.host` through it, as without a proxy. What
//! the proxy answers never counts against the hub; a proxy that is not reached is
//! [`LocalFailure::ProxyUnreachable`].

use core::time::Duration;

use embedded_io::{Error as _, ErrorKind};
use steadfast_core::way::Tunnel;
use steadfast_core::{Failure, Instant, LocalFailure};
use zeroize::Zeroizing;

use crate::board::{Dial, Stream};

/// Longest request for a tunnel: a host name twice, a password of some 250 bytes in base64, and what stands around them.
const REQUEST_MAX: usize = 1024;

const SILENT: Failure = Failure::Local(LocalFailure::ProxySilent);

/// Opens a tunnel to `dial.host` on a fresh connection to a proxy, within `limit`: less than what is left of
/// `dial.limit`, so that a silent proxy is not taken for a silent hub.
///
/// `authorization` is the value of `Proxy-Authorization`, such as `Basic cHVtcDp3ZXQ=` (RFC 7617, section 2); `now` the
/// board's clock.
///
/// # Errors
/// What to return from the connector: see [`Tunnel::take`]; [`LocalFailure::ProxySilent`] when no whole answer came;
/// [`LocalFailure::Buffer`] when host and authorization together are longer than about 950 bytes.
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
        if now() >= deadline {
            return Err(SILENT);
        }
        match stream.write(request) {
            Ok(0) => return Err(SILENT),
            Ok(written) => request = request.get(written..).unwrap_or_default(),
            Err(error) if is_not_now(error.kind()) => {}
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
    use core::cell::Cell;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};
    use std::string::String;
    use std::vec::Vec;
    use steadfast_core::Role;

    const DIAL: Dial<'_> = Dial {
        host: "contoso.azure-devices.net",
        port: 8883,
        role: Role::Hub,
        client_certificate: false,
        limit: Duration::from_secs(30),
    };

    /// A proxy that answers byte by byte, with a second between two of them.
    struct Proxy {
        answer: &'static [u8],
        ends: bool,
        written: Vec<u8>,
        now_ms: Cell<u64>,
    }

    impl Proxy {
        fn new(answer: &'static str, ends: bool) -> Self {
            Self { answer: answer.as_bytes(), ends, written: Vec::new(), now_ms: Cell::new(0) }
        }

        fn take(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            match self.answer.split_first() {
                Some((byte, rest)) => {
                    buffer[0] = *byte;
                    self.answer = rest;
                    Ok(1)
                }
                None if self.ends => Ok(0),
                None => Err(ErrorKind::TimedOut),
            }
        }

        fn put(&mut self, bytes: &[u8]) -> usize {
            let len = bytes.len().min(7);
            self.written.extend_from_slice(&bytes[..len]);
            len
        }
    }

    impl embedded_io::ErrorType for Proxy {
        type Error = ErrorKind;
    }

    impl embedded_io::Read for Proxy {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            self.take(buffer)
        }
    }

    impl embedded_io::Write for Proxy {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            Ok(self.put(bytes))
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    impl Stream for Proxy {
        fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
            let readable = !self.answer.is_empty() || self.ends;
            let waited = if readable { 100 } else { u64::try_from(limit.as_millis()).unwrap() };
            self.now_ms.set(self.now_ms.get() + waited);
            Ok(readable)
        }
    }

    impl embedded_io_async::Read for Proxy {
        async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            self.take(buffer)
        }
    }

    impl embedded_io_async::Write for Proxy {
        async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            Ok(self.put(bytes))
        }

        async fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    fn blocking(answer: &'static str, ends: bool) -> (Result<(), Failure>, String) {
        let mut proxy = Proxy::new(answer, ends);
        // The clock is the proxy's own; a copy of it is what the closure can hold.
        let clock = std::rc::Rc::new(Cell::new(0));
        let mut line = Line { proxy: &mut proxy, clock: clock.clone() };
        let limit = Duration::from_secs(28);
        let opened = open(&mut line, &DIAL, Some("Basic dTpw"), || Instant::from_millis(clock.get()), limit);
        (opened, String::from_utf8(proxy.written).unwrap())
    }

    /// Shows the proxy's clock.
    struct Line<'p> {
        proxy: &'p mut Proxy,
        clock: std::rc::Rc<Cell<u64>>,
    }

    impl embedded_io::ErrorType for Line<'_> {
        type Error = ErrorKind;
    }

    impl embedded_io::Read for Line<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            embedded_io::Read::read(self.proxy, buffer)
        }
    }

    impl embedded_io::Write for Line<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            embedded_io::Write::write(self.proxy, bytes)
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    impl Stream for Line<'_> {
        fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
            let readable = self.proxy.wait_readable(limit);
            self.clock.set(self.proxy.now_ms.get());
            readable
        }
    }

    fn asynchronous(answer: &'static str) -> Result<(), Failure> {
        let mut proxy = Proxy::new(answer, true);
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
    fn a_login_that_does_not_fit_is_an_error_before_anything_is_sent() {
        let long = String::from_utf8(std::vec![b'x'; REQUEST_MAX]).unwrap();
        let mut proxy = Proxy::new("", true);
        let opened = open(&mut proxy, &DIAL, Some(&long), || Instant::ORIGIN, Duration::from_secs(1));
        assert_eq!((opened, proxy.written.len()), (Err(Failure::Local(LocalFailure::Buffer)), 0));
    }
}
