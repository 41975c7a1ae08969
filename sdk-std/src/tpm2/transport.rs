//! Connections to a TPM: a kernel device, or a Unix socket of swtpm. One for each operation, so that the kernel's
//! resource manager frees its objects with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::error::Tpm2Error;
use super::wire::{self, ANSWER_MAX, Command, HEADER, Parameters, Reader};

/// Timeout of a socket; longer while the TPM creates a key. A device has the kernel driver's timeouts.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_FOR_A_KEY: Duration = Duration::from_secs(90);

/// A connection to a TPM.
pub(super) enum Line {
    Device(File),
    Socket(UnixStream),
}

/// A successful answer: a handle, 0 if the command returns none, and parameters.
pub(super) struct Answer {
    pub(super) handle: u32,
    parameters: Zeroizing<Vec<u8>>,
}

impl Answer {
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader(&self.parameters)
    }

    /// Takes the first `TPM2B` of the parameters.
    pub(super) fn first(&self) -> Result<&[u8], Tpm2Error> {
        self.reader().sized().ok_or(Tpm2Error::Garbled)
    }
}

impl Line {
    /// Connects.
    pub(super) fn open(path: &Path) -> Result<Self, Tpm2Error> {
        let failed = |error: io::Error| Tpm2Error::open(path, &error);
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if kind.is_socket() {
            return UnixStream::connect(path).map(Self::Socket).map_err(failed);
        }
        // Opening or reading another kind of file could block indefinitely, or write to it.
        if !kind.is_char_device() {
            return Err(Tpm2Error::Absent(path.into()));
        }
        File::options().read(true).write(true).open(path).map(Self::Device).map_err(failed)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Device(device) => device.write_all(bytes),
            Self::Socket(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Device(device) => device.read(space),
            Self::Socket(stream) => stream.read(space),
        }
    }

    /// Executes a command.
    pub(super) fn ask(
        &mut self,
        command: Command,
        handles: &[u32],
        authorisations: &[Option<u32>],
        parameters: &Parameters,
    ) -> Result<Answer, Tpm2Error> {
        let failed = |error: io::Error| Tpm2Error::exchange(&error);
        if let Self::Socket(stream) = self {
            let patience = if command == Command::CreatePrimary { PATIENCE_FOR_A_KEY } else { PATIENCE };
            stream.set_read_timeout(Some(patience)).map_err(failed)?;
            stream.set_write_timeout(Some(patience)).map_err(failed)?;
        }
        // A device takes a command in one piece only.
        self.write_all(&wire::compose(command, handles, authorisations, parameters)).map_err(failed)?;
        let mut answer = Zeroizing::new(vec![0; ANSWER_MAX]);
        let mut read = 0;
        let (size, code) = loop {
            let space = answer.get_mut(read..).unwrap_or_default();
            match self.read(space).map_err(failed)? {
                0 => return Err(Tpm2Error::Garbled),
                more => read += more,
            }
            match wire::header(answer.get(..read).unwrap_or_default()) {
                Some((size, code)) if (HEADER..=read).contains(&size) => break (size, code),
                Some((size, _)) if !(HEADER..=ANSWER_MAX).contains(&size) => return Err(Tpm2Error::Garbled),
                _ => {}
            }
        };
        if code != 0 {
            return Err(Tpm2Error::refused(command, code));
        }
        let whole = answer.get(..size).unwrap_or_default();
        let (handle, reader) = wire::split(command, whole).ok_or(Tpm2Error::Garbled)?;
        Ok(Answer { handle, parameters: Zeroizing::new(reader.0.to_vec()) })
    }

    /// Flushes the object or session that `work` used, whatever its result.
    pub(super) fn and_flush<T>(
        &mut self,
        handle: u32,
        work: impl FnOnce(&mut Self) -> Result<T, Tpm2Error>,
    ) -> Result<T, Tpm2Error> {
        let done = work(self);
        let flushed = self.ask(Command::FlushContext, &[], &[], &Parameters::new().long(handle));
        let done = done?;
        flushed.map(|_| done)
    }
}
