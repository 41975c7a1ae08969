//! Peers as processes of their own.

use crate::order::{Answer, Order};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a peer is started.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Name in the report.
    pub(crate) name: &'static str,
    program: PathBuf,
    leading: Vec<OsString>,
}

impl Peer {
    /// A peer that is part of this program.
    ///
    /// # Errors
    /// When this program does not know where it is.
    pub(crate) fn own(name: &'static str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        Ok(Self { name, program, leading: vec!["peer".into(), name.into()] })
    }

    /// A peer that is a program of its own.
    pub(crate) fn other(name: &'static str, program: &Path) -> Self {
        Self { name, program: program.to_path_buf(), leading: Vec::new() }
    }

    /// Gives the peer another name in the report.
    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Starts the peer.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(&self, order: &Order) -> Result<Running, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.leading).args(order.to_arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{} does not start: {error}", self.name))?;
        let mut stdout = child.stdout.take().ok_or("no standard output")?;
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            // What could not be read is missing from the answer, which is then refused.
            let _ = stdout.read_to_string(&mut said);
            said
        });
        Ok(Running { name: self.name, child, said: Some(said) })
    }

    /// Runs the peer to its end.
    ///
    /// # Errors
    /// When it does not start, fails, or takes longer than `limit`.
    pub(crate) fn run(&self, order: &Order, limit: Duration) -> Result<Answer, String> {
        self.start(order)?.answer(limit)
    }
}

/// A peer that runs; dropping it ends its process.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Running {
    /// Returns the processor time the process has taken.
    pub(crate) fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanoseconds = tasks.into_iter().flatten().flatten().filter_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Ends the peer's standard input, which tells it to stop, and returns its answer.
    ///
    /// # Errors
    /// When it fails or does not end within `limit`.
    pub(crate) fn answer(mut self, limit: Duration) -> Result<Answer, String> {
        let name = self.name;
        drop(self.child.stdin.take());
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait().map_err(|error| format!("{name}: {error}"))? {
                Some(status) => break status,
                None if Instant::now() >= deadline => return Err(format!("{name} did not end within {limit:?}")),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if !status.success() {
            return Err(format!("{name} ended with {status}"));
        }
        serde_json::from_str(&said).map_err(|error| format!("{name} answered {said:?}: {error}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, and that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
