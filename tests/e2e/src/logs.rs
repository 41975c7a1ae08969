//! Everything the library logs in one test, at TRACE.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// Collects what is logged on this thread, from TRACE up, until it is dropped.
///
/// The tests run on runtimes of one thread, so that this is what their own devices log.
#[derive(Debug)]
pub struct Logs {
    kept: Kept,
    _guard: DefaultGuard,
}

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Starts to collect.
    #[must_use]
    pub fn collect() -> Self {
        let kept = Kept::default();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(kept.clone()).finish();
        Self { kept, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Returns what was logged so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Returns the lines at WARN and ERROR.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        let loud = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        self.text().lines().filter(loud).map(str::to_owned).collect()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
