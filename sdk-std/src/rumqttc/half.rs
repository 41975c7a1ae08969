//! Bytes between the socket and the service.

use std::io;
use std::mem;
use std::task::Poll;

use tokio::io::ReadBuf;

/// Most bytes moved in one go.
const CHUNK: usize = 16 * 1024;

/// One direction between the socket and the service.
#[derive(Default)]
pub(super) struct Half {
    bytes: Vec<u8>,
    sent: usize,
    /// Nothing more comes.
    pub(super) ended: bool,
    /// The end was passed on.
    pub(super) closed: bool,
}

impl Half {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Reads when there is nothing left to write. Returns whether there was anything.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>) -> io::Result<bool> {
        if !self.is_empty() || self.ended {
            return Ok(false);
        }
        let mut space = [mem::MaybeUninit::uninit(); CHUNK];
        let mut buffer = ReadBuf::uninit(&mut space);
        let Poll::Ready(result) = read(&mut buffer) else { return Ok(false) };
        result?;
        self.bytes = buffer.filled().to_vec();
        self.sent = 0;
        self.ended = self.bytes.is_empty();
        Ok(true)
    }

    /// Writes what was read. Returns how many bytes that moved.
    pub(super) fn drain(&mut self, mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>) -> io::Result<usize> {
        let before = self.sent;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match write(rest) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(moved) => self.sent += moved?,
            }
        }
        let moved = self.sent - before;
        if self.is_empty() {
            self.bytes = Vec::new();
            self.sent = 0;
        }
        Ok(moved)
    }
}
