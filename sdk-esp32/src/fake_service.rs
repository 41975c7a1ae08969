//! What tests have at the other end of a stream.

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;
use std::vec::Vec;

use embedded_io::ErrorKind;

use crate::board::Stream;

/// A service that answers byte by byte, 100 ms between two of them, and takes seven bytes at a time.
pub(crate) struct Service {
    /// What it says, the last byte first.
    pub(crate) answer: Vec<u8>,
    /// It closes after that.
    pub(crate) ends: bool,
    /// It takes bytes at all.
    pub(crate) takes: bool,
    pub(crate) written: Vec<u8>,
    /// Milliseconds.
    pub(crate) clock: Rc<Cell<u64>>,
}

impl Service {
    pub(crate) fn new(answer: &str, ends: bool) -> Self {
        let answer = answer.bytes().rev().collect();
        Self { answer, ends, takes: true, written: Vec::new(), clock: Rc::default() }
    }

    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        match self.answer.pop() {
            Some(byte) => {
                buffer[0] = byte;
                Ok(1)
            }
            None if self.ends => Ok(0),
            None => Err(ErrorKind::TimedOut),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        if !self.takes {
            return Err(ErrorKind::TimedOut);
        }
        let len = bytes.len().min(7);
        self.written.extend_from_slice(&bytes[..len]);
        Ok(len)
    }
}

impl embedded_io::ErrorType for Service {
    type Error = ErrorKind;
}

impl embedded_io::Read for Service {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.take(buffer)
    }
}

impl embedded_io::Write for Service {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.put(bytes)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Stream for Service {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        let readable = !self.answer.is_empty() || self.ends;
        let waited = if readable { 100 } else { u64::try_from(limit.as_millis()).unwrap() };
        self.clock.set(self.clock.get() + waited);
        Ok(readable)
    }
}

impl embedded_io_async::Read for Service {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.take(buffer)
    }
}

impl embedded_io_async::Write for Service {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.put(bytes)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}
