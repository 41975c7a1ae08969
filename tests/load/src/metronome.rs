//! Whether the machine kept time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

const BEAT: Duration = Duration::from_millis(10);

/// A task that beats a hundred times a second and notes its greatest delay.
///
/// A process that stood still meets all that was due in the meantime at once: no figure of a single second is worth
/// anything then.
#[derive(Debug)]
pub struct Metronome {
    late_ms: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Metronome {
    /// Begins to beat in the current runtime.
    #[must_use]
    pub fn start() -> Self {
        let late_ms = Arc::<AtomicU64>::default();
        let noted = Arc::clone(&late_ms);
        let task = tokio::spawn(async move {
            loop {
                let due = Instant::now() + BEAT;
                tokio::time::sleep(BEAT).await;
                let late = Instant::now().saturating_duration_since(due).as_millis();
                noted.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self { late_ms, task }
    }

    /// Ends it and returns the greatest delay of a beat.
    #[must_use]
    pub fn stop(self) -> Duration {
        self.task.abort();
        Duration::from_millis(self.late_ms.load(Ordering::Relaxed))
    }
}
