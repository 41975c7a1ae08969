//! TLS 1.2 and 1.3 by ESP-IDF's mbedTLS, over a socket of `std`.

use std::io::ErrorKind as SocketError;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::thread;
use std::time::{Duration, Instant};

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use esp_idf_svc::sys::{ESP_TLS_ERR_SSL_WANT_READ, ESP_TLS_ERR_SSL_WANT_WRITE, EWOULDBLOCK, EspError};
use esp_idf_svc::tls::{Config, EspTls, Socket, X509};
use steadfast_core::{Failure, TlsFailure};
use steadfast_esp32::{Connect, Dial, Stream};

/// Bytes read ahead while waiting.
const AHEAD: usize = 256;

/// Pause between two looks for bytes.
const PAUSE: Duration = Duration::from_millis(10);

/// Which roots vouch for the services.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// ESP-IDF's certificate bundle, which knows the roots of Azure (DigiCert Global Root G2, Microsoft RSA Root 2017)
    /// when the full bundle is configured.
    Bundle,
    /// This certificate alone, such as a local hub's or a gateway's.
    Root(X509<'a>),
}

/// Dials with TLS; the server's certificate and name are always verified.
#[derive(Debug)]
pub struct EspDialler<'a> {
    trust: Trust<'a>,
    identity: Option<(X509<'a>, X509<'a>)>,
}

impl<'a> EspDialler<'a> {
    /// Dials as a device with a shared key.
    #[must_use]
    pub const fn new(trust: Trust<'a>) -> Self {
        Self { trust, identity: None }
    }

    /// Shows this certificate with this private key where the link asks for it.
    #[must_use]
    pub const fn with_certificate(mut self, certificate: X509<'a>, key: X509<'a>) -> Self {
        self.identity = Some((certificate, key));
        self
    }

    fn open(&self, dial: &Dial<'_>) -> Result<TcpStream, Failure> {
        let until = Instant::now() + dial.limit;
        let addresses = (dial.host, dial.port).to_socket_addrs().map_err(|_| Failure::Unresolved)?;
        let mut failure = Failure::Unresolved;
        for address in addresses {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::ConnectTimeout);
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    failure = match error.kind() {
                        SocketError::ConnectionRefused => Failure::ConnectionRefused,
                        SocketError::TimedOut => Failure::ConnectTimeout,
                        _ => Failure::Network,
                    };
                }
            }
        }
        Err(failure)
    }
}

impl Connect for EspDialler<'_> {
    type Stream = EspStream;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<EspStream, Failure> {
        let socket = self.open(dial)?;
        // A heartbeat is a few bytes: do not let it wait for more.
        let _ = socket.set_nodelay(true);
        // The handshake may take as long as the link allows; after it the socket never waits.
        let _ = socket.set_read_timeout(Some(dial.limit));
        let _ = socket.set_write_timeout(Some(dial.limit));
        let watched = socket.try_clone().map_err(|_| Failure::Network)?;
        let mut config = Config::new();
        config.timeout_ms = dial.limit.as_millis().try_into().unwrap_or(u32::MAX);
        config.common_name = Some(dial.host);
        match self.trust {
            Trust::Bundle => config.use_crt_bundle_attach = true,
            Trust::Root(root) => {
                config.use_crt_bundle_attach = false;
                config.ca_cert = Some(root);
            }
        }
        if let Some((certificate, key)) = self.identity.filter(|_| dial.client_certificate) {
            config.client_cert = Some(certificate);
            config.client_key = Some(key);
        }
        let handshake = |_: EspError| Failure::Tls(TlsFailure::Handshake);
        let mut tls = EspTls::adopt(Owned(Some(socket))).map_err(handshake)?;
        tls.negotiate(dial.host, &config).map_err(handshake)?;
        watched.set_nonblocking(true).map_err(|_| Failure::Network)?;
        Ok(EspStream { tls, ahead: [0; AHEAD], from: 0, to: 0 })
    }
}

/// A socket that ESP-IDF closes.
struct Owned(Option<TcpStream>);

impl Socket for Owned {
    fn handle(&self) -> i32 {
        self.0.as_ref().map_or(-1, |socket| socket.as_raw_fd())
    }

    fn release(&mut self) -> Result<(), EspError> {
        // ESP-TLS closes the descriptor.
        self.0.take().map(|socket| socket.into_raw_fd());
        Ok(())
    }
}

/// An open connection.
pub struct EspStream {
    tls: EspTls<Owned>,
    ahead: [u8; AHEAD],
    from: usize,
    to: usize,
}

impl EspStream {
    fn read_ahead(&mut self) -> Result<(), ErrorKind> {
        if self.from == self.to {
            let len = self.tls.read(&mut self.ahead).map_err(kind)?;
            (self.from, self.to) = (0, len);
        }
        Ok(())
    }
}

fn kind(error: EspError) -> ErrorKind {
    let code = error.code();
    let later = [ESP_TLS_ERR_SSL_WANT_READ, ESP_TLS_ERR_SSL_WANT_WRITE, EWOULDBLOCK as i32, -(EWOULDBLOCK as i32)];
    if later.contains(&code) { ErrorKind::TimedOut } else { ErrorKind::ConnectionReset }
}

impl ErrorType for EspStream {
    type Error = ErrorKind;
}

impl Read for EspStream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.read_ahead()?;
        let len = buffer.len().min(self.to - self.from);
        buffer[..len].copy_from_slice(&self.ahead[self.from..self.from + len]);
        self.from += len;
        Ok(len)
    }
}

impl Write for EspStream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.tls.write(bytes).map_err(kind)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Stream for EspStream {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        let until = Instant::now() + limit;
        loop {
            match self.read_ahead() {
                // The end of the stream reads as nothing, at once.
                Ok(()) => return Ok(true),
                Err(ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            thread::sleep(left.min(PAUSE));
        }
    }
}
