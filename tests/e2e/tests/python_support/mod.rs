//! What the tests with the official Python SDK share: its process, and a namespace where the ports are free.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use e2e::run_again_inside;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

pub(crate) const HUB: &str = "hub-a.azure-devices.net";
pub(crate) const DPS: &str = "global.azure-devices-provisioning.net";
pub(crate) const STORAGE: &str = "emulator.blob.core.windows.net";
pub(crate) const STEP: Duration = Duration::from_secs(40);
const INSIDE: &str = "STEADFAST_INSIDE_NAMESPACE";
const WHOLE: Duration = Duration::from_secs(180);

/// Runs `judge` inside a namespace of its own: that is, runs the test `name` again there, or `judge` when it is there.
pub(crate) async fn inside(name: &str, judge: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        return timeout(WHOLE, judge).await.expect("the judge takes less than three minutes");
    }
    let python = python();
    assert!(
        python.exists(),
        "the official Python SDK is not installed ({} is missing): run `cargo xtask test`, which installs it",
        python.display()
    );
    let status =
        timeout(WHOLE + STEP, run_again_inside(&[HUB, DPS, STORAGE], ["--exact", "--nocapture", name], INSIDE))
            .await
            .expect("the run inside the namespace ends");
    assert!(status.success(), "the run inside the namespace failed: {status}");
}

/// The Python process.
pub(crate) struct Sdk {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Sdk {
    pub(crate) async fn start(script: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
        let mut child = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, input, output }
    }

    pub(crate) async fn tell(&mut self, what: &Value) {
        let line = format!("{what}\n");
        self.input.write_all(line.as_bytes()).await.expect("python listens");
    }

    pub(crate) async fn step(&mut self, wanted: &str) -> Value {
        let line = timeout(STEP, self.output.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the SDK did not come to {wanted:?} in {STEP:?}"));
        let line = line.expect("readable").unwrap_or_else(|| panic!("the SDK ended before {wanted:?}"));
        let step: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a step: {line}"));
        assert_eq!(step["step"], wanted, "{line}");
        step
    }

    pub(crate) async fn ended(mut self) {
        let status = timeout(STEP, self.child.wait()).await.expect("python ends").expect("and is waited for");
        assert!(status.success(), "{status}");
    }
}

fn python() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python-judge/bin/python");
    std::env::var_os("STEADFAST_PYTHON").map_or_else(default, PathBuf::from)
}
