//! The processes of official SDKs, and a namespace where the ports they dial are free.
//!
//! Those SDKs always dial ports 8883 and 443 of the names they were given. So a test runs itself again inside a network
//! namespace of its own, where the ports are free, and with a hosts file of its own, where the names lead to loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::run_again_inside;

/// The hub the SDKs dial.
pub const HUB: &str = "hub-a.azure-devices.net";
/// The DPS they dial.
pub const DPS: &str = "global.azure-devices-provisioning.net";
/// The storage they upload to.
pub const STORAGE: &str = "emulator.blob.core.windows.net";
/// Longest a step of a session takes.
pub const STEP: Duration = Duration::from_secs(40);
const INSIDE: &str = "STEADFAST_INSIDE_NAMESPACE";
const WHOLE: Duration = Duration::from_secs(180);

/// An official SDK.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    /// The Python SDK.
    Python,
    /// The Node SDK.
    Node,
}

impl Language {
    /// Returns what is there when the SDK is installed: the Python that has it, or the folder of Node's modules.
    fn place(self) -> PathBuf {
        let (variable, default) = match self {
            Self::Python => ("STEADFAST_PYTHON", "python-judge/bin/python"),
            Self::Node => ("STEADFAST_NODE_MODULES", "node-judge/node_modules"),
        };
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(default);
        std::env::var_os(variable).map_or_else(default, PathBuf::from)
    }

    fn command(self, script: &str) -> Command {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::Python => {
                let mut command = Command::new(self.place());
                command.arg(folder.join("python").join(script));
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(folder.join("node").join(script)).env("NODE_PATH", self.place());
                command
            }
        }
    }
}

/// Runs `judge` inside a namespace of its own: that is, runs the test `name` again there, or `judge` when it is there.
///
/// # Panics
/// When the SDK is not installed, or the test fails there.
pub async fn inside(language: Language, name: &str, judge: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        return timeout(WHOLE, judge).await.expect("the judge takes less than three minutes");
    }
    let place = language.place();
    assert!(
        place.exists(),
        "the official {language:?} SDK is not installed ({} is missing): run `cargo xtask test`, which installs it",
        place.display()
    );
    let status =
        timeout(WHOLE + STEP, run_again_inside(&[HUB, DPS, STORAGE], ["--exact", "--nocapture", name], INSIDE))
            .await
            .expect("the run inside the namespace ends");
    assert!(status.success(), "the run inside the namespace failed: {status}");
}

/// The process of an SDK.
#[derive(Debug)]
pub struct Sdk {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Sdk {
    /// Starts a script and gives it `setup` as its first line; `ca` in it is the file of the authorities to trust.
    ///
    /// # Panics
    /// When the language is not installed.
    pub async fn start(language: Language, script: &str, setup: &Value) -> Self {
        let mut command = language.command(script);
        // What of the Node SDK has no option for authorities trusts these.
        command.env("NODE_EXTRA_CA_CERTS", setup["ca"].as_str().unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the SDK's language is installed");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut sdk = Self { child, input, output };
        sdk.tell(setup).await;
        sdk
    }

    /// Gives the script a line.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn tell(&mut self, what: &Value) {
        let line = format!("{what}\n");
        self.input.write_all(line.as_bytes()).await.expect("the SDK listens");
    }

    /// Waits for the next step, which has to be `wanted`, and returns its facts.
    ///
    /// # Panics
    /// When another one comes, or none within [`STEP`].
    pub async fn step(&mut self, wanted: &str) -> Value {
        let line = timeout(STEP, self.output.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the SDK did not come to {wanted:?} in {STEP:?}"));
        let line = line.expect("readable").unwrap_or_else(|| panic!("the SDK ended before {wanted:?}"));
        let step: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a step: {line}"));
        assert_eq!(step["step"], wanted, "{line}");
        step
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn ended(mut self) {
        let status = timeout(STEP, self.child.wait()).await.expect("the SDK ends").expect("and is waited for");
        assert!(status.success(), "{status}");
    }
}
