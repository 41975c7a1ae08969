//! TLS 1.3 by embedded-tls over embassy-net's TCP, with the server's certificate verified.
//!
//! A device drops reads and writes that take too long, and goes on later. embedded-tls would lose its place in a record by
//! that. So it never waits once the connection is open: whole records are gathered before it reads, and what it writes is
//! kept until TCP has taken it.

use core::cell::RefCell;

use device_tls::{CERTIFICATE_BYTES, ChaCha20Rng, Loan, Pool, Provider};
use embassy_net::tcp::client::TcpConnection;
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use embedded_tls::{Aes128GcmSha256, TlsConfig, TlsConnection, TlsContext, TlsError};
use rustls_pki_types::CertificateDer;
use steadfast_core::{Failure, LocalFailure};

type Tcp = TcpConnection<'static, 1, 1536, 1536>;

/// Bytes of the longest record of a server with its header: RFC 8446, section 5.2.
const RECORD: usize = 16_645;
/// Bytes of the longest record to a server.
const OUTBOUND: usize = 2304;
/// A record's header, and the kind that carries everything once the connection is open.
const HEADER: usize = 5;
const APPLICATION_DATA: u8 = 23;

/// The bytes that one connection needs; large, hence for a static variable.
pub struct Buffers {
    record: [u8; RECORD],
    waiting: [u8; OUTBOUND],
    inbound: [u8; RECORD],
    outbound: [u8; OUTBOUND],
    certificate: [u8; CERTIFICATE_BYTES],
}

impl Buffers {
    /// Buffers with nothing in them.
    pub const fn new() -> Self {
        Self {
            record: [0; RECORD],
            waiting: [0; OUTBOUND],
            inbound: [0; RECORD],
            outbound: [0; OUTBOUND],
            certificate: [0; CERTIFICATE_BYTES],
        }
    }
}

/// What one connection needs.
pub struct Memory {
    line: RefCell<Line>,
    inbound: &'static mut [u8; RECORD],
    outbound: &'static mut [u8; OUTBOUND],
    certificate: &'static mut [u8; CERTIFICATE_BYTES],
}

impl Memory {
    /// Takes the buffers.
    pub const fn new(buffers: &'static mut Buffers) -> Self {
        let Buffers { record, waiting, inbound, outbound, certificate } = buffers;
        let line = Line { tcp: None, open: false, record, have: 0, read: 0, waiting, written: 0, sent: 0 };
        Self { line: RefCell::new(line), inbound, outbound, certificate }
    }
}

/// TCP, and what lies between it and TLS.
struct Line {
    tcp: Option<Tcp>,
    /// The handshake is done.
    open: bool,
    /// A record as it comes: bytes that are there, and bytes of them that TLS has read.
    record: &'static mut [u8; RECORD],
    have: usize,
    read: usize,
    /// What TLS has written: bytes that are there, and bytes of them that TCP has taken.
    waiting: &'static mut [u8; OUTBOUND],
    written: usize,
    sent: usize,
}

impl Line {
    fn begin(&mut self, tcp: Tcp) {
        (self.tcp, self.open) = (Some(tcp), false);
        (self.have, self.read, self.written, self.sent) = (0, 0, 0, 0);
    }

    /// Bytes of the record that is coming, as far as that is known.
    fn wanted(&self) -> usize {
        if self.have < HEADER {
            HEADER
        } else {
            HEADER + usize::from(u16::from_be_bytes([self.record[3], self.record[4]]))
        }
    }

    fn is_whole(&self) -> bool {
        self.have >= HEADER && self.have >= self.wanted()
    }

    /// Gathers a record; whoever drops this unfinished may call it again.
    async fn fill(&mut self) -> Result<(), ErrorKind> {
        while !self.is_whole() {
            let wanted = self.wanted();
            let tcp = self.tcp.as_mut().ok_or(ErrorKind::NotConnected)?;
            let room = self.record.get_mut(self.have..wanted).ok_or(ErrorKind::InvalidData)?;
            let len = tcp.read(room).await.map_err(|_| ErrorKind::ConnectionReset)?;
            if len == 0 {
                return Err(ErrorKind::ConnectionAborted);
            }
            self.have += len;
        }
        // What is not encrypted was written by nobody knows whom, and embedded-tls would take some of it.
        if self.open && self.record[0] != APPLICATION_DATA { Err(ErrorKind::InvalidData) } else { Ok(()) }
    }

    /// Hands what is written to TCP; whoever drops this unfinished may call it again.
    async fn drain(&mut self) -> Result<(), ErrorKind> {
        while self.sent < self.written {
            let tcp = self.tcp.as_mut().ok_or(ErrorKind::NotConnected)?;
            let rest = self.waiting.get(self.sent..self.written).unwrap_or_default();
            self.sent += tcp.write(rest).await.map_err(|_| ErrorKind::ConnectionReset)?;
        }
        (self.sent, self.written) = (0, 0);
        Ok(())
    }
}

/// The side of the line that TLS sees.
struct Records(&'static RefCell<Line>);

impl ErrorType for Records {
    type Error = ErrorKind;
}

#[expect(clippy::await_holding_refcell_ref, reason = "one task has the line, and drops what it does not finish")]
impl Read for Records {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let mut line = self.0.borrow_mut();
        if !line.is_whole() {
            if line.open {
                return Err(ErrorKind::TimedOut);
            }
            line.fill().await?;
        }
        let rest = line.record.get(line.read..line.have).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(rest) {
            *place = *byte;
        }
        line.read += len;
        if line.read == line.have {
            (line.have, line.read) = (0, 0);
        }
        Ok(len)
    }
}

#[expect(clippy::await_holding_refcell_ref, reason = "one task has the line, and drops what it does not finish")]
impl Write for Records {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let mut line = self.0.borrow_mut();
        if line.written == OUTBOUND {
            line.drain().await?;
        }
        let start = line.written;
        let room = line.waiting.get_mut(start..).unwrap_or_default();
        let len = room.len().min(bytes.len());
        for (place, byte) in room.iter_mut().zip(bytes) {
            *place = *byte;
        }
        line.written += len;
        Ok(len)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        let mut line = self.0.borrow_mut();
        if line.open { Ok(()) } else { line.drain().await }
    }
}

/// An open connection to a server that was verified.
pub struct Secured {
    tls: TlsConnection<'static, Records, Aes128GcmSha256>,
    line: &'static RefCell<Line>,
    /// Goes after the connection that uses it.
    _loan: Loan<Memory>,
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.line.borrow_mut().tcp = None;
    }
}

impl Secured {
    /// Completes TLS with `host` over `tcp`, and returns the connection when the server is who it should be.
    ///
    /// # Errors
    /// Why there is no connection.
    #[expect(unsafe_code, reason = "a connection borrows memory that has to outlive it and comes back when it ends")]
    pub async fn open(
        tcp: Tcp,
        pool: &'static Pool<Memory>,
        host: &str,
        authority: &CertificateDer<'_>,
        unix_secs: u64,
        random: &mut ChaCha20Rng,
    ) -> Result<Self, Failure> {
        let mut loan = pool.lend().ok_or(Failure::Local(LocalFailure::Buffer))?;
        // SAFETY: the references end with `tls`, `provider` and `line`, which are not used after the loan was dropped, here
        // and in `Secured`.
        let Memory { line, inbound, outbound, certificate } = unsafe { loan.value() };
        line.borrow_mut().begin(tcp);
        let line: &'static RefCell<Line> = line;
        let tls = TlsConnection::new(Records(line), &mut inbound[..], &mut outbound[..]);
        // From here on dropping it closes TCP, however this ends.
        let mut secured = Self { tls, line, _loan: loan };
        let mut provider = Provider::new(host, authority, unix_secs, random, certificate).map_err(Failure::Tls)?;
        let config = TlsConfig::new().with_server_name(host);
        let opened = secured.tls.open(TlsContext::new(&config, &mut provider)).await;
        opened.map_err(|error| provider.failure(&error))?;
        provider.verdict().map_err(Failure::Tls)?;
        line.borrow_mut().open = true;
        Ok(secured)
    }
}

impl ErrorType for Secured {
    type Error = TlsError;
}

#[expect(clippy::await_holding_refcell_ref, reason = "one task has the line, and drops what it does not finish")]
impl Read for Secured {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TlsError> {
        loop {
            // What is left of the last record, or the next one; without either it says so and has lost nothing.
            match self.tls.read(buffer).await {
                Err(TlsError::Io(ErrorKind::TimedOut)) => {}
                Err(TlsError::ConnectionClosed) => return Ok(0),
                other => return other,
            }
            self.line.borrow_mut().fill().await.map_err(TlsError::Io)?;
        }
    }
}

#[expect(clippy::await_holding_refcell_ref, reason = "one task has the line, and drops what it does not finish")]
impl Write for Secured {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        self.line.borrow_mut().drain().await.map_err(TlsError::Io)?;
        self.tls.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), TlsError> {
        self.line.borrow_mut().drain().await.map_err(TlsError::Io)?;
        self.tls.flush().await?;
        self.line.borrow_mut().drain().await.map_err(TlsError::Io)
    }
}
