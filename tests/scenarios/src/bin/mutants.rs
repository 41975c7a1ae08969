//! Proves that the tests notice mistakes: each of a table of mistakes is put into a copy of the core, and the tests
//! must fail there.
//!
//! `cargo run -p scenarios --bin mutants` works offline in a directory of its own under the target directory. It exits
//! with 1 when a mistake went unnoticed, when one no longer fits the sources, or when the tests fail without one.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, fs, io};

/// A mistake.
struct Mutant {
    name: &'static str,
    /// File in the core's sources.
    file: &'static str,
    /// Text that occurs once.
    from: &'static str,
    to: &'static str,
}

const MUTANTS: [Mutant; 21] = [
    Mutant {
        name: "a message counts as delivered when it is sent",
        file: "link/deliver.rs",
        from: "        Some((id, packet_id, self.connection.resumed && sent_before))",
        to: "        self.events.delivered(id);\n        Some((id, packet_id, self.connection.resumed && sent_before))",
    },
    Mutant {
        name: "the first message is left out when a connection begins",
        file: "link/deliver.rs",
        from: "progress.cursor = oldest.unwrap_or(progress.next_id);",
        to: "progress.cursor = oldest.map_or(progress.next_id, MessageId::next);",
    },
    Mutant {
        name: "an urgent message waits for the normal ones",
        file: "link/deliver.rs",
        from: "Priority::Urgent => Some(id),",
        to: "Priority::Urgent => self.outbox.next(self.session.normal.cursor).or(Some(id)),",
    },
    Mutant {
        name: "the priorities share their packet ids",
        file: "link/deliver.rs",
        from: "        Priority::Normal => 0,\n        Priority::Urgent => NORMAL_IDS,",
        to: "        Priority::Normal | Priority::Urgent => 0,",
    },
    Mutant {
        name: "an urgent message is dropped for a normal one",
        file: "link/deliver.rs",
        from: "priority == Priority::Urgent && self.profile.session().overflow == Overflow::DropOldest",
        to: "priority != Priority::Urgent || self.profile.session().overflow == Overflow::DropOldest",
    },
    Mutant {
        name: "an acknowledgement ends the oldest message, whatever it names",
        file: "link/deliver.rs",
        from: "let id = MessageId::new(first.get().wrapping_add(ahead));",
        to: "let id = MessageId::new(first.get().wrapping_add(ahead & 0));",
    },
    Mutant {
        name: "the window does not bind",
        file: "link/deliver.rs",
        from: "self.connection.in_flight >= self.window()",
        to: "self.connection.in_flight > self.window()",
    },
    Mutant {
        name: "an expired message is missing in the books",
        file: "link/deliver.rs",
        from: "DropReason::Expired => &mut self.ledger.expired,",
        to: "DropReason::Expired => &mut self.ledger.refused,",
    },
    Mutant {
        name: "a new session is taken for a kept one",
        file: "link/lifecycle.rs",
        from: "            if !session_present {\n                self.forget_session();\n            }\n            self.connection = Connection { resumed: session_present, ..Connection::default() };",
        to: "            self.connection = Connection { resumed: true, ..Connection::default() };",
    },
    Mutant {
        name: "a new session is not subscribed to",
        file: "link/subscriptions.rs",
        from: "        self.session.subscriptions = Held::default();\n",
        to: "",
    },
    Mutant {
        name: "late answers count",
        file: "link/receive.rs",
        from: "if attempt != self.attempt || !self.is_trying() {",
        to: "if !self.is_trying() {",
    },
    Mutant {
        name: "timers outlive their attempt",
        file: "link/lifecycle.rs",
        from: "        self.timers.clear_attempt();\n",
        to: "",
    },
    Mutant {
        name: "any connection starts the back-off anew",
        file: "link/lifecycle.rs",
        from: "let stable = was_up && self.connection.stable;",
        to: "let stable = was_up;",
    },
    Mutant {
        name: "a renewal does not wait for what is in flight",
        file: "link/lifecycle.rs",
        from: "self.phase == Phase::Draining && self.connection.in_flight == 0 && !queued",
        to: "self.phase == Phase::Draining && !queued",
    },
    Mutant {
        name: "overload sends the device to provisioning",
        file: "link/lifecycle.rs",
        from: "if was_up || !matches!(failure.class(), FailureClass::Unreachable | FailureClass::Local) {",
        to: "if was_up {",
    },
    Mutant {
        name: "registrations are not spaced",
        file: "link/lifecycle.rs",
        from: "self.visits() && self.now >= self.ladder.not_before",
        to: "self.visits()",
    },
    Mutant {
        name: "delays have no jitter",
        file: "retry.rs",
        from: "scale(word, width >> 1, width)",
        to: "scale(u32::MAX, word & 0, width)",
    },
    Mutant {
        name: "a file counts as stored before its blocks are listed",
        file: "upload/machine.rs",
        from: "(_, true) => self.hold(Held { len: 0, last: true }, now),",
        to: "(_, true) => {}",
    },
    Mutant {
        name: "blocks in another place count as stored",
        file: "upload/machine.rs",
        from: "if moved && !self.begin_again(now) {",
        to: "if moved && self.place.is_none() {",
    },
    Mutant {
        name: "the hub is not told of an upload that ends",
        file: "upload/machine/notification.rs",
        from: "if self.grant.is_open() {",
        to: "if !self.grant.is_open() {",
    },
    Mutant {
        name: "an upload has no end of patience",
        file: "upload/machine.rs",
        from: "if now.since(self.since).saturating_add(delay) <= self.options.give_up_after {",
        to: "if now.since(self.since).saturating_add(delay) <= self.options.give_up_after.saturating_mul(100) {",
    },
];

/// Suites of uploads, which are a machine of their own.
const OF_UPLOADS: [Suite; 1] = [("uploads", &[])];

/// A suite, and what makes it quicker.
type Suite = (&'static str, &'static [&'static str]);

/// Suites of the link, the quickest first.
const OF_LINK: [Suite; 3] = [
    ("exhaustive", &[]),
    ("scenarios", &["--skip", "ten_thousand", "--skip", "of_a_fleet", "--skip", "packet_id", "--skip", "any_two"]),
    ("histories", &[]),
];

/// Longest time for a suite.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("mutants: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is a command")]
fn say(line: &str) {
    println!("{line}");
}

/// Returns how many mistakes went unnoticed.
fn run() -> Result<usize, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no workspace")?.to_path_buf();
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let place = env::current_dir().map_err(|error| error.to_string())?.join(target).join("mutants");
    let copy = place.join("workspace");
    if copy.exists() {
        fs::remove_dir_all(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    }
    prepare(&root, &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    let begun = Instant::now();
    let all = OF_LINK.into_iter().chain(OF_UPLOADS);
    if let Some(failed) = first_failure(&copy, &place, all)? {
        return Err(format!("without a mistake the suite {failed} fails already"));
    }
    say(&format!("no mistake: all suites pass ({} s)", begun.elapsed().as_secs()));
    let mut unnoticed = 0;
    for mutant in &MUTANTS {
        let begun = Instant::now();
        let path = copy.join("sdk-core/src").join(mutant.file);
        let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", mutant.file))?;
        let found = source.matches(mutant.from).count();
        if found != 1 {
            return Err(format!("{}: the text to change occurs {found} times in {}", mutant.name, mutant.file));
        }
        let write = |text: &str| fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()));
        write(&source.replace(mutant.from, mutant.to))?;
        let suites: &[Suite] = if mutant.file.starts_with("upload/") { &OF_UPLOADS } else { &OF_LINK };
        let failed = first_failure(&copy, &place, suites.iter().copied())?;
        write(&source)?;
        let verdict = match failed {
            Some(suite) => format!("noticed by {suite}"),
            None => {
                unnoticed += 1;
                "NOT NOTICED".to_owned()
            }
        };
        say(&format!("{}: {verdict} ({} s)", mutant.name, begun.elapsed().as_secs()));
    }
    say(&format!("{} of {} mistakes noticed", MUTANTS.len() - unnoticed, MUTANTS.len()));
    Ok(unnoticed)
}

/// Copies what the tests need into a workspace of its own.
fn prepare(root: &Path, copy: &Path) -> io::Result<()> {
    for part in ["sdk-core", "tests/sim", "tests/scenarios"] {
        copy_folder(&root.join(part), &copy.join(part))?;
    }
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let rest = manifest.find("[workspace.package]").map_or("", |at| &manifest[at..]);
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"sdk-core\", \"tests/sim\", \"tests/scenarios\"]\n\n";
    fs::write(copy.join("Cargo.toml"), format!("{members}{rest}"))
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                copy_folder(&source, &copy)?;
            }
        } else {
            fs::copy(&source, &copy)?;
        }
    }
    Ok(())
}

/// Runs the suites until one fails and returns its name.
fn first_failure(
    copy: &Path,
    place: &Path,
    suites: impl Iterator<Item = Suite>,
) -> Result<Option<&'static str>, String> {
    for (suite, arguments) in suites {
        let program = build(copy, place, suite)?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(copy);
        command.env("STEADFAST_SEEDS", "100").env("STEADFAST_DEPTH", "6").env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        if !passes(&mut command)? {
            return Ok(Some(suite));
        }
    }
    Ok(None)
}

/// Builds a suite and returns its program.
fn build(copy: &Path, place: &Path, suite: &str) -> Result<PathBuf, String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(copy).env("CARGO_TARGET_DIR", place.join("target"));
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
    command.args(["test", "--offline", "--no-run", "-p", "scenarios", "--test", suite]).stdin(Stdio::null());
    let built = command.output().map_err(|error| format!("cargo does not start: {error}"))?;
    let said = String::from_utf8_lossy(&built.stderr);
    let program = said.lines().find_map(|line| line.trim().strip_prefix("Executable ")?.split_once(" ("));
    match program {
        Some((_, path)) if built.status.success() => Ok(copy.join(path.trim_end_matches(')'))),
        _ => Err(format!("the suite {suite} does not build:\n{said}")),
    }
}

/// Returns whether every test passes in time. The first that fails is enough, and the rest is not waited for.
fn passes(command: &mut Command) -> Result<bool, String> {
    let io = |error: io::Error| format!("a suite does not run: {error}");
    let mut child = command.spawn().map_err(io)?;
    let (told, lines) = mpsc::channel();
    let output = child.stdout.take().ok_or("a suite has no output")?;
    let reader = std::thread::spawn(move || {
        // Whoever listens has gone once a test has failed.
        BufReader::new(output).lines().map_while(Result::ok).take_while(|line| told.send(line.clone()).is_ok()).count()
    });
    let end = Instant::now() + PATIENCE;
    let failed = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.ends_with("FAILED") => break true,
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => break false,
            // A suite that hangs has noticed something as well.
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    drop(lines);
    if failed {
        child.kill().map_err(io)?;
    }
    let status = child.wait().map_err(io)?;
    reader.join().map_err(|_| "a suite's output is not text")?;
    Ok(!failed && status.success())
}
