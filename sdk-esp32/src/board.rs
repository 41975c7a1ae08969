//! The interface of a device to its board and network.

use core::time::Duration;

use heapless::String;
use steadfast_core::{Assignment, BackoffSnapshot, Endpoint, Failure, Instant, LocalFailure, ServiceKind, SignRequest};

/// Longest host name there is (RFC 1035, section 2.3.4).
pub(crate) const HOST_BYTES: usize = 253;

/// The clock, the key and the memory of a device.
pub trait Board {
    /// Returns the time since an origin of the board's choice, such as its start; it never goes back.
    fn now(&self) -> Instant;

    /// Returns the wall clock, in whole seconds since 1970-01-01 00:00 UTC, as soon as it is known (SNTP, an RTC).
    ///
    /// Shared keys need it, since a token has an expiry. A wrong one is detected and corrected from the service's
    /// answers.
    fn unix_secs(&self) -> Option<u64> {
        None
    }

    /// Signs [`request.text`](SignRequest::text) by HMAC-SHA256 with the device's key, such as by
    /// [`SymmetricKey::sign`](steadfast_core::azure::sas::SymmetricKey::sign),
    /// [`KeyPair::sign`](steadfast_core::azure::key_choice::KeyPair::sign) where the device has both keys of its identity,
    /// or the chip's HMAC peripheral.
    ///
    /// # Errors
    /// Why it cannot. The default cannot sign, which suits devices with a certificate.
    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        let _ = request;
        Err(Failure::Local(LocalFailure::Signing))
    }

    /// Stores `assignment` for `restore_assignment` after the next reboot. The default discards it, so that each start
    /// asks the Device Provisioning Service.
    fn save(&mut self, assignment: &Assignment) {
        let _ = assignment;
    }

    /// Stores `memory` for `restore_backoff` after the next reboot. The link calls it at most 20 times in the first
    /// hour of an outage and 45 times in a week. The default discards it, so that a power failure during an outage
    /// resets the back-off.
    fn save_backoff(&mut self, memory: BackoffSnapshot) {
        let _ = memory;
    }

    /// Sleeps for at most `span` while there is no connection; asynchronous devices do not call it.
    fn sleep(&mut self, span: Duration);
}

/// The target of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dial<'a> {
    /// Host name; also the name to verify the certificate against, and the one for SNI.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// Which service it is.
    pub role: ServiceKind,
    /// Whether to present the device's certificate in the TLS handshake.
    pub client_certificate: bool,
    /// How long the link waits for name, TCP and TLS together before it calls the attempt failed.
    pub limit: Duration,
}

/// A [`Dial`] that owns its name, for a connection attempt that continues by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedDial {
    pub(crate) host: String<HOST_BYTES>,
    pub(crate) port: u16,
    pub(crate) role: ServiceKind,
    pub(crate) client_certificate: bool,
    pub(crate) limit: Duration,
}

impl OwnedDial {
    /// Stores the target without its limit; returns false if the name is too long for a host. In a separate frame,
    /// which ends before the connection attempt starts.
    #[inline(never)]
    pub(crate) fn keep(place: &mut Option<Self>, endpoint: &Endpoint<'_>) -> bool {
        let (port, role, client_certificate) = (endpoint.port, endpoint.role, endpoint.client_certificate);
        let dial = place.insert(Self { host: String::new(), port, role, client_certificate, limit: Duration::ZERO });
        dial.host.push_str(endpoint.host).is_ok()
    }

    /// Returns the target.
    #[must_use]
    pub fn get(&self) -> Dial<'_> {
        let Self { ref host, port, role, client_certificate, limit } = *self;
        Dial { host, port, role, client_certificate, limit }
    }
}

/// Opens connections.
pub trait Connect {
    /// An open connection.
    type Stream: Stream;

    /// Resolves the name again, connects, and completes TLS with the certificate verified, within `dial.limit`.
    ///
    /// # Errors
    /// The failure, as exact as possible: it decides the delay and the next service.
    fn connect(&mut self, dial: &Dial<'_>) -> Result<Self::Stream, Failure>;
}

/// A connection of a blocking device: bytes in both directions, and a wait with a timeout.
///
/// Errors of kind [`TimedOut`](embedded_io::ErrorKind::TimedOut) and
/// [`Interrupted`](embedded_io::ErrorKind::Interrupted) say "not now"; any other ends the connection. Dropping the
/// stream closes it.
pub trait Stream: embedded_io::Read + embedded_io::Write {
    /// Waits until a read would not block, for at most `limit`, and returns whether it would not. The end of the stream
    /// and errors count as readable.
    ///
    /// # Errors
    /// The stream's.
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, Self::Error>;
}

impl<S: Stream + ?Sized> Stream for &mut S {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, Self::Error> {
        (**self).wait_readable(limit)
    }
}

#[cfg(all(test, feature = "embedded-svc"))]
pub(crate) mod tests {
    use super::*;

    /// A stream that is never opened.
    #[derive(Debug)]
    pub(crate) enum NoStream {}

    impl embedded_io::ErrorType for NoStream {
        type Error = embedded_io::ErrorKind;
    }

    impl embedded_io::Read for NoStream {
        fn read(&mut self, _: &mut [u8]) -> Result<usize, Self::Error> {
            match *self {}
        }
    }

    impl embedded_io::Write for NoStream {
        fn write(&mut self, _: &[u8]) -> Result<usize, Self::Error> {
            match *self {}
        }

        fn flush(&mut self) -> Result<(), Self::Error> {
            match *self {}
        }
    }

    impl Stream for NoStream {
        fn wait_readable(&mut self, _: Duration) -> Result<bool, Self::Error> {
            match *self {}
        }
    }

    pub(crate) const DIAL: Dial<'_> = Dial {
        host: "contoso.azure-devices.net",
        port: 8883,
        role: ServiceKind::Hub,
        client_certificate: false,
        limit: Duration::from_secs(20),
    };
}
