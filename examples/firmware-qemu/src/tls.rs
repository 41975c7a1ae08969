//! TLS 1.3 by embedded-tls over the one TCP connection, with the server's certificate verified.

use core::cell::Cell;
use core::time::Duration;

use device_tls::{CERTIFICATE_BYTES, ChaCha20Rng, Loan, Pool, Provider, SeedableRng as _};
use embedded_io::{Error as _, ErrorKind, ErrorType, Read, Write};
use embedded_tls::blocking::{Aes128GcmSha256, TlsConfig, TlsConnection, TlsContext, TlsError};
use rustls_pki_types::CertificateDer;
use steadfast_core::{Failure, LocalFailure};
use steadfast_esp32::{Connect, Dial, Stream};

use crate::machine::{self, Slot};
use crate::net::{self, Socket, deadline};

/// Hubs of the emulator whose certificates must not be taken.
const STRANGERS: [&str; 5] = [
    "expired.azure-devices.net",
    "not-yet-valid.azure-devices.net",
    "wrong-name.azure-devices.net",
    "self-signed.azure-devices.net",
    "other-authority.azure-devices.net",
];

const NOBODY: &str = "nobody.azure-devices.net";

/// How long the rest of a record that has begun may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of the longest record of a server: RFC 8446, section 5.2.
const RECORD: usize = 16_640;
/// Bytes of the longest record to a server.
const OUTBOUND: usize = 2304;

/// A record's header, and the kind that carries everything once the connection is open.
const HEADER: usize = 5;
const APPLICATION_DATA: u8 = 23;

struct Memory {
    inbound: [u8; RECORD],
    outbound: [u8; OUTBOUND],
    certificate: [u8; CERTIFICATE_BYTES],
}

static MEMORY: Slot<Pool<Memory>> =
    Slot::new(Pool::new(Memory { inbound: [0; RECORD], outbound: [0; OUTBOUND], certificate: [0; CERTIFICATE_BYTES] }));

/// What the connection and its user below have to agree on.
struct Phase {
    /// Uptime in milliseconds until which reading and writing wait.
    until: Cell<u64>,
    /// The handshake is done.
    open: Cell<bool>,
}

static PHASE: Slot<Phase> = Slot::new(Phase { until: Cell::new(0), open: Cell::new(false) });

/// Dials over TCP, completes TLS, and takes only a server that is who it should be.
pub struct Dialler {
    tcp: net::Dialler,
    authority: CertificateDer<'static>,
    random: ChaCha20Rng,
    memory: &'static Pool<Memory>,
    phase: &'static Phase,
}

impl Dialler {
    /// Trusts `authority`, a certificate as DER. To be called once.
    pub fn new(tcp: net::Dialler, authority: &'static [u8], entropy: [u8; 32]) -> Option<Self> {
        let (memory, phase) = (MEMORY.take()?, PHASE.take()?);
        Some(Self {
            tcp,
            authority: CertificateDer::from_slice(authority),
            random: ChaCha20Rng::from_seed(entropy),
            memory,
            phase,
        })
    }

    /// Dials every stranger, and at last the server at port `nobody`, which shows no certificate; says how that ended.
    #[inline(never)]
    pub fn try_strangers(&mut self, nobody: u16) {
        let port = self.tcp.port;
        for (host, port) in STRANGERS.map(|host| (host, port)).into_iter().chain([(NOBODY, nobody)]) {
            self.tcp.port = port;
            let begun = machine::millis();
            match self.open(host, Duration::from_secs(20)) {
                Ok(_) => say!("stranger {host}: TAKEN"),
                Err(failure) => say!("stranger {host}: {failure}, after {} ms", machine::millis() - begun),
            }
        }
        self.tcp.port = port;
    }

    #[inline(never)]
    #[expect(unsafe_code, reason = "a connection borrows memory that has to outlive it and comes back when it ends")]
    fn open(&mut self, host: &str, limit: Duration) -> Result<Secured, Failure> {
        let until = deadline(limit);
        let mut loan = self.memory.lend().ok_or(Failure::Local(LocalFailure::Buffer))?;
        let socket = self.tcp.open(limit)?;
        self.phase.open.set(false);
        self.phase.until.set(until);
        // SAFETY: the references end with `tls` and `provider`, which are dropped before the loan, here and in `Secured`.
        let Memory { inbound, outbound, certificate } = unsafe { loan.value() };
        let provider = Provider::new(host, &self.authority, machine::unix_secs(), &mut self.random, certificate);
        let mut provider = provider.map_err(Failure::Tls)?;
        let config = TlsConfig::new().with_server_name(host);
        let records = Records { socket, phase: self.phase, header: [0; HEADER], have: 0, left: 0 };
        let mut tls = TlsConnection::new(records, inbound, outbound);
        if let Err(error) = tls.open(TlsContext::new(&config, &mut provider)) {
            let late = machine::millis() >= until;
            return Err(if late { Failure::ConnectTimeout } else { provider.failure(&error) });
        }
        provider.verdict().map_err(Failure::Tls)?;
        self.phase.open.set(true);
        Ok(Secured { tls: Some(tls), more: false, over: false, stack: self.tcp.stack, phase: self.phase, _loan: loan })
    }
}

impl Connect for Dialler {
    type Stream = Secured;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Secured, Failure> {
        self.open(dial.host, dial.limit)
    }
}

/// An open connection to a server that was verified.
pub struct Secured {
    tls: Option<TlsConnection<'static, Records, Aes128GcmSha256>>,
    /// Something of the last record may be left.
    more: bool,
    /// The other side has said goodbye, or something went wrong.
    over: bool,
    stack: &'static net::Shared,
    phase: &'static Phase,
    /// Goes after the connection that uses it.
    _loan: Loan<Memory>,
}

impl Secured {
    /// Lets what follows wait for the rest of a record, and returns the connection.
    fn tls(&mut self) -> Result<&mut TlsConnection<'static, Records, Aes128GcmSha256>, TlsError> {
        self.phase.until.set(deadline(PATIENCE));
        self.tls.as_mut().ok_or(TlsError::ConnectionClosed)
    }

    /// Notes whether the connection can go on after this.
    fn keep<T>(&mut self, result: Result<T, TlsError>) -> Result<T, TlsError> {
        self.over |= result.as_ref().is_err_and(|error| error.kind() != ErrorKind::TimedOut);
        result
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // The goodbye goes if there is room for it, and is not waited for. Once the other side has said it, embedded-tls
        // would send it unencrypted, which is an error.
        self.phase.until.set(0);
        if let Some(tls) = self.tls.take().filter(|_| !self.over) {
            let _ = tls.close();
        }
    }
}

impl ErrorType for Secured {
    type Error = TlsError;
}

impl Read for Secured {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TlsError> {
        let read = self.tls()?.read(buffer);
        self.more = matches!(read, Ok(len) if len == buffer.len());
        self.keep(read)
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        let written = self.tls()?.write(bytes);
        self.keep(written)
    }

    fn flush(&mut self) -> Result<(), TlsError> {
        let flushed = self.tls()?.flush();
        self.keep(flushed)
    }
}

impl Stream for Secured {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, TlsError> {
        if self.more {
            return Ok(true);
        }
        let until = deadline(limit);
        loop {
            let mut stack = self.stack.borrow_mut();
            stack.poll();
            if stack.has_record() {
                return Ok(true);
            }
            if machine::millis() >= until {
                return Ok(false);
            }
        }
    }
}

/// TCP below TLS: it keeps to the bounds of records, so that only between two of them a read says "not now".
struct Records {
    socket: Socket,
    phase: &'static Phase,
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the record that have not come.
    left: usize,
}

impl Records {
    fn wait(&self, between: bool) -> Result<(), ErrorKind> {
        if between && self.phase.open.get() {
            return Err(ErrorKind::TimedOut);
        }
        // Half a record is worth nothing: the connection ends.
        if machine::millis() < self.phase.until.get() { Ok(()) } else { Err(ErrorKind::ConnectionAborted) }
    }

    fn took(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        if self.left > 0 {
            self.left = self.left.saturating_sub(bytes.len());
            return Ok(());
        }
        for (place, byte) in self.header.iter_mut().skip(self.have).zip(bytes) {
            *place = *byte;
        }
        self.have += bytes.len();
        if self.have >= HEADER {
            let [kind, _, _, high, low] = self.header;
            (self.have, self.left) = (0, usize::from(u16::from_be_bytes([high, low])));
            // What is not encrypted was written by nobody knows whom, and embedded-tls would take some of it.
            if self.phase.open.get() && kind != APPLICATION_DATA {
                return Err(ErrorKind::InvalidData);
            }
        }
        Ok(())
    }
}

impl ErrorType for Records {
    type Error = ErrorKind;
}

impl Read for Records {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let most = if self.left > 0 { self.left } else { HEADER - self.have };
        let most = most.min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        loop {
            match self.socket.read(buffer) {
                Err(ErrorKind::TimedOut) => self.wait(self.have == 0 && self.left == 0)?,
                Ok(len) => {
                    self.took(buffer.get(..len).unwrap_or_default())?;
                    return Ok(len);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        loop {
            match self.socket.write(bytes) {
                Err(ErrorKind::TimedOut) => self.wait(false)?,
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.socket.flush()
    }
}
