//! The project's commands: `cargo xtask <step>`.
//!
//! Continuous integration calls the same steps, so what passes here passes there.
#![expect(clippy::print_stdout, reason = "what a step found is its product, and it is read on a terminal")]

mod audit;
mod bench;
mod checks;
mod comparison;
mod elf;
mod features;
mod features_page;
mod firmware;
mod firmware_esp32;
mod firmware_target;
mod fleet;
mod licence;
mod metadata;
mod no_std;
mod package;
mod shell;
mod size;
mod stack;
mod suites;
mod tools;

use std::process::ExitCode;
use std::time::Instant;

/// How a step ended when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    /// It ran; the text says what it found, in one line.
    Ran(String),
    /// A tool is absent, so it did not run; the text says why.
    Skipped(String),
}

/// What a step returns; the error says what is wrong, and what to do about it where that is known.
type Outcome = Result<Done, String>;

struct Step {
    name: &'static str,
    about: &'static str,
    /// Part of `ci`.
    in_ci: bool,
    run: fn(&[String]) -> Outcome,
}

/// Every step, in the order in which `ci` runs them: cheap before dear.
const STEPS: &[Step] = &[
    Step { name: "fmt", about: "checks the formatting (`--fix` applies it)", in_ci: true, run: checks::fmt },
    Step {
        name: "deny",
        about: "checks licences, bans, advisories, duplicates and the TLS provider",
        in_ci: true,
        run: audit::run,
    },
    Step { name: "msrv", about: "checks the minimum supported Rust version", in_ci: true, run: checks::msrv },
    Step { name: "no-std", about: "proves that the core needs neither std nor alloc", in_ci: true, run: no_std::run },
    Step { name: "lint", about: "clippy on every target, warnings denied", in_ci: true, run: checks::lint },
    Step {
        name: "features",
        about: "clippy on every set of features of the libraries",
        in_ci: true,
        run: features::run,
    },
    Step { name: "doc", about: "builds the documentation, warnings denied", in_ci: true, run: checks::doc },
    Step {
        name: "package",
        about: "packages the libraries, and builds and runs a program with the packages",
        in_ci: true,
        run: package::run,
    },
    Step {
        name: "test",
        about: "installs what tests need and runs every suite (`--no-install` installs nothing)",
        in_ci: true,
        run: suites::run,
    },
    Step {
        name: "fleet",
        about: "simulates fleets and compares with docs/fleet.md (`--write` replaces it)",
        in_ci: true,
        run: fleet::run,
    },
    Step {
        name: "firmware",
        about: "boots a firmware image under QEMU against the local hub",
        in_ci: true,
        run: firmware::run,
    },
    Step {
        name: "size",
        about: "sizes of the core: RAM on this host, flash per target (`--json FILE`, `--install`)",
        in_ci: true,
        run: size::run,
    },
    Step {
        name: "esp32",
        about: "builds the ESP32-C3 image and makes it flashable; slow the first time",
        in_ci: false,
        run: firmware_esp32::run,
    },
    Step {
        name: "comparison",
        about: "the same faults for this SDK and the official Python SDK; writes docs/comparison.md",
        in_ci: false,
        run: comparison::run,
    },
    Step {
        name: "bench",
        about: "side-by-side benchmarks (`--json FILE`, `--quick`, `--strict`)",
        in_ci: false,
        run: bench::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        print!("{}", usage());
        return ExitCode::from(2);
    };
    match name.as_str() {
        "help" | "--help" | "-h" => {
            print!("{}", usage());
            ExitCode::SUCCESS
        }
        "ci" => ci(rest),
        name => match STEPS.iter().find(|step| step.name == name) {
            Some(step) => match (step.run)(rest) {
                Ok(Done::Ran(found)) => {
                    println!("{name}: {found}");
                    ExitCode::SUCCESS
                }
                Ok(Done::Skipped(why)) => {
                    println!("{name}: skipped: {why}");
                    ExitCode::SUCCESS
                }
                Err(why) => {
                    eprintln!("{name}: FAILED: {why}");
                    ExitCode::FAILURE
                }
            },
            None => {
                eprintln!("xtask: no step is called {name:?}\n{}", usage());
                ExitCode::from(2)
            }
        },
    }
}

/// Runs every step that belongs to continuous integration, also after a failure, and says how long each took.
fn ci(arguments: &[String]) -> ExitCode {
    if let Some(unknown) = arguments.first() {
        eprintln!("ci: unknown argument {unknown:?}");
        return ExitCode::from(2);
    }
    let mut lines = Vec::new();
    let mut failed = false;
    for step in STEPS.iter().filter(|step| step.in_ci) {
        println!("\n=== {} ===", step.name);
        let start = Instant::now();
        let (word, text) = match (step.run)(&[]) {
            Ok(Done::Ran(found)) => ("ok", found),
            Ok(Done::Skipped(why)) => ("skipped", why),
            Err(why) => {
                eprintln!("{}: FAILED: {why}", step.name);
                failed = true;
                ("FAILED", why)
            }
        };
        let first_line = text.lines().next().unwrap_or_default();
        lines.push(format!("{:<9} {word:<8} {:>6.1} s  {first_line}", step.name, start.elapsed().as_secs_f64()));
        println!("{}", lines.last().map(String::as_str).unwrap_or_default());
    }
    println!("\n=== summary ===\n{}", lines.join("\n"));
    if failed {
        println!("ci: FAILED");
        ExitCode::FAILURE
    } else {
        println!("ci: ok");
        ExitCode::SUCCESS
    }
}

fn usage() -> String {
    let mut text = String::from("Usage: cargo xtask <step> [arguments]\n\nSteps:\n");
    for step in STEPS {
        text.push_str(&format!("  {:<10} {}\n", step.name, step.about));
    }
    text.push_str("  ci         every step above but esp32, comparison and bench, with the time each took\n");
    text
}
