//! `test`: every suite of the workspace.

use crate::metadata::Graph;
use crate::{Done, Outcome, features, shell, tools};
use std::io::{BufRead as _, BufReader};
use std::process::Command;

/// Installs what is missing and runs every suite, doc tests and the replay of the fuzz corpora included. A library with
/// features is tested with all of them.
///
/// Tests find in their environment `STEADFAST_PYTHON`, the Python with the official SDK, `STEADFAST_NODE_MODULES`, the
/// folder of modules with the official Node SDK, and `STEADFAST_SKIPS`, a file to which a test that lacks its means
/// appends one line saying so.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let missing = if shell::take_flag(&mut arguments, "--no-install") { tools::missing() } else { tools::install() };
    shell::expect_none(&arguments)?;
    let skips = shell::target_directory().join("xtask/skipped-tests.txt");
    std::fs::create_dir_all(skips.parent().unwrap_or(&skips))
        .map_err(|error| format!("{}: {error}", skips.display()))?;
    std::fs::write(&skips, "").map_err(|error| format!("{}: {error}", skips.display()))?;

    let mut report = Report::default();
    let graph = Graph::read(None, &[], &[])?;
    let mut most = vec![String::from("--workspace")];
    let mut sets = Vec::new();
    for library in graph.libraries() {
        let features = features::all(library);
        if !features.is_empty() {
            most.extend([String::from("--exclude"), library.name.clone()]);
            sets.push(["--package", &library.name, "--features", &features.join(",")].map(String::from).to_vec());
        }
    }
    sets.insert(0, most);
    for set in sets {
        let mut command = shell::cargo(["test", "--locked", "--no-fail-fast"]);
        command.args(set).env("STEADFAST_SKIPS", &skips);
        if let Some(python) = tools::python_with_judge() {
            command.env("STEADFAST_PYTHON", python);
        }
        if let Some(modules) = tools::node_modules_with_judge() {
            command.env("STEADFAST_NODE_MODULES", modules);
        }
        report.watch(&mut command)?;
    }
    println!("\nmistakes built into the core on purpose, each of which the tests must notice:");
    if let Err(error) =
        shell::run(&mut shell::cargo(["run", "--locked", "--quiet", "--package", "scenarios", "--bin", "mutants"]))
    {
        report.broken.push(error);
    }
    let skipped = std::fs::read_to_string(&skips).unwrap_or_default();
    report.conclude(&missing, &skipped)
}

/// What the suites said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Name, counts as printed, and whether it passed.
    suites: Vec<(String, String, bool)>,
    current: Option<String>,
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Runs of cargo that did not succeed.
    broken: Vec<String>,
}

impl Report {
    /// Runs a test command and keeps count of what it prints.
    fn watch(&mut self, command: &mut Command) -> Result<(), String> {
        let io = |error: std::io::Error| format!("{error}");
        // Cargo names the suite on one stream and the suite reports on the other; only together are they in order.
        let (reader, writer) = std::io::pipe().map_err(io)?;
        let shown = shell::shown(command);
        println!("{shown}");
        command.stdout(writer.try_clone().map_err(io)?).stderr(writer);
        let mut child = command.spawn().map_err(|error| format!("{shown} does not start: {error}"))?;
        // The command holds the writing ends; they must go for the reading end to see the end.
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.map_err(io)?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            self.take(&line);
        }
        let status = child.wait().map_err(io)?;
        self.end_suite("did not report", false);
        if !status.success() {
            self.broken.push(format!("{shown} ended with {status}"));
        }
        Ok(())
    }

    fn take(&mut self, line: &str) {
        let line = line.trim();
        if let Some(binary) = line.strip_prefix("Running ").and_then(|rest| rest.split_once(" (")) {
            self.end_suite("did not report", false);
            let file = binary.1.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
            let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
            self.current = Some(format!("{name}: {}", binary.0));
        } else if let Some(package) = line.strip_prefix("Doc-tests ") {
            self.end_suite("did not report", false);
            self.current = Some(format!("{package}: doc tests"));
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let mut counts = [0_u64; 3];
            for (count, word) in counts.iter_mut().zip([" passed", " failed", " ignored"]) {
                let before = result.split(word).next().unwrap_or_default();
                let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                *count = digits.parse().unwrap_or(0);
            }
            let [passed, failed, ignored] = counts;
            self.passed += passed;
            self.failed += failed;
            self.ignored += ignored;
            self.end_suite(&format!("{passed} passed, {failed} failed, {ignored} ignored"), result.starts_with("ok"));
        }
    }

    fn end_suite(&mut self, counts: &str, passed: bool) {
        if let Some(name) = self.current.take() {
            self.suites.push((name, counts.to_owned(), passed));
        }
    }

    fn conclude(self, missing: &[String], skipped: &str) -> Outcome {
        println!("\nsuites:");
        for (name, counts, passed) in &self.suites {
            // A binary without tests says nothing.
            if !passed || !counts.starts_with("0 passed, 0 failed, 0 ignored") {
                println!("  {} {name}: {counts}", if *passed { "ok    " } else { "FAILED" });
            }
        }
        for line in missing {
            println!("  missing: {line}");
        }
        for line in skipped.lines() {
            println!("  not run: {line}");
        }
        let total = format!(
            "{} passed, {} failed, {} ignored, {} not run",
            self.passed,
            self.failed,
            self.ignored,
            skipped.lines().count()
        );
        let mut wrong = self.broken;
        if self.passed == 0 {
            wrong.push("no test ran".into());
        }
        if !missing.is_empty() {
            wrong.push(format!("{} things that tests need are missing, so not everything was tested", missing.len()));
        }
        if wrong.is_empty() { Ok(Done::Ran(total)) } else { Err(format!("{total}\n  {}", wrong.join("\n  "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "   Compiling x v0.1.0
     Running unittests src/lib.rs (target/debug/deps/steadfast_core-0123abc)

running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Running tests/crash.rs (target/debug/deps/crash-0123abc)
   Doc-tests steadfast
test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";

    #[test]
    fn suites_are_counted_and_one_that_never_reports_has_failed() {
        let mut report = Report::default();
        OUTPUT.lines().for_each(|line| report.take(line));
        assert_eq!((report.passed, report.failed, report.ignored), (12, 3, 1));
        let shown: Vec<String> =
            report.suites.iter().map(|(name, counts, ok)| format!("{name}|{counts}|{ok}")).collect();
        assert_eq!(
            shown,
            [
                "steadfast_core: unittests src/lib.rs|2 passed, 0 failed, 1 ignored|true",
                "crash: tests/crash.rs|did not report|false",
                "steadfast: doc tests|10 passed, 3 failed, 0 ignored|false",
            ]
        );
    }

    #[test]
    fn a_missing_tool_or_no_test_at_all_is_not_a_pass() {
        let some = || Report { passed: 1, ..Report::default() };
        assert!(some().conclude(&[], "").is_ok());
        assert!(some().conclude(&["mosquitto".into()], "").is_err());
        assert!(Report::default().conclude(&[], "").is_err());
    }

    #[test]
    fn a_command_that_fails_is_reported_with_what_it_printed() {
        let mut report = Report::default();
        report.watch(&mut shell::program("sh", ["-c", "echo 'test result: ok. 1 passed; 0 failed'; exit 3"])).unwrap();
        assert_eq!(report.passed, 1);
        assert_eq!(report.broken.len(), 1);
    }
}
