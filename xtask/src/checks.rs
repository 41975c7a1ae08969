//! `fmt`, `lint`, `doc` and `msrv`.

use crate::metadata::Graph;
use crate::{Done, Outcome, features, features_page, shell};

/// Checks the formatting, or applies it with `--fix`.
pub(crate) fn fmt(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let fix = shell::take_flag(&mut arguments, "--fix");
    shell::expect_none(&arguments)?;
    if let Some(skipped) = without("fmt", "rustfmt") {
        return Ok(skipped);
    }
    let mut command = shell::cargo(["fmt", "--all"]);
    if !fix {
        command.arg("--check");
    }
    shell::run(&mut command)?;
    Ok(Done::Ran(if fix { "applied" } else { "as it should be" }.into()))
}

/// Where the glue to ESP-IDF and its example meet the real esp-idf-svc without ESP-IDF.
const STAND_IN: &str = "sdk-esp32/esp-idf/stand-in";

/// Runs clippy on every target of the workspace, and on the glue to ESP-IDF over its stand-in.
pub(crate) fn lint(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    if let Some(skipped) = without("clippy", "clippy") {
        return Ok(skipped);
    }
    shell::run(&mut shell::cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    let mut glue = shell::cargo(["clippy", "--locked", "-p", "esp32-idf", "-p", "steadfast-esp-idf"]);
    glue.args(["-p", "esp-idf-stand-in", "--target-dir"]).arg(shell::target_directory().join("xtask/esp-idf"));
    shell::run(glue.args(["--", "-D", "warnings"]).current_dir(shell::root().join(STAND_IN)))?;
    Ok(Done::Ran("no warnings".into()))
}

/// Says why a step cannot run when cargo has no `subcommand`, which `component` of the toolchain brings.
pub(crate) fn without(subcommand: &str, component: &str) -> Option<Done> {
    let asked = shell::output_of(&mut shell::cargo([subcommand, "--version"]));
    asked.is_err().then(|| Done::Skipped(format!("no {component}; run: rustup component add {component}")))
}

/// Builds the documentation of the workspace, and that of the libraries with their features, and checks that the page
/// of features has its evidence.
pub(crate) fn doc(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    let graph = Graph::read(None, &[], &[])?;
    document(&["--workspace".into()])?;
    for library in graph.libraries() {
        let features = features::all(library);
        if !features.is_empty() {
            document(&["--package".into(), library.name.clone(), "--features".into(), features.join(",")])?;
        }
    }
    features_page::check()?;
    Ok(Done::Ran("no warnings".into()))
}

fn document(arguments: &[String]) -> Result<(), String> {
    let mut command = shell::cargo(["doc", "--no-deps", "--locked"]);
    shell::run(command.args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Checks that the Rust version is stated once, that no dependency asks for a newer one, and, when that very toolchain
/// is installed, that everything compiles with it.
pub(crate) fn msrv(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    let graph = Graph::read(None, &["--all-features"], &["x86_64-unknown-linux-gnu".into()])?;
    let stated = graph.members().find_map(|member| member.rust_version.clone());
    let stated = stated.ok_or("the workspace states no rust-version")?;
    let mut findings = Vec::new();
    for package in &graph.packages {
        match &package.rust_version {
            Some(version) if package.member && *version != stated => {
                findings.push(format!("{} states {version} itself; inherit the workspace's", package.name));
            }
            None if package.member => findings.push(format!("{} does not inherit the rust-version", package.name)),
            Some(version) if *version > stated => findings.push(format!("{} needs Rust {version}", package.label())),
            Some(_) | None => {}
        }
    }
    if !findings.is_empty() {
        return Err(format!("the minimum is {stated}\n  {}", findings.join("\n  ")));
    }
    let toolchain = installed_toolchain(&format!("{}.{}", stated.major, stated.minor));
    let compiled = match toolchain {
        Some(toolchain) => {
            let mut command =
                shell::program("rustup", ["run", &toolchain, "cargo", "check", "--workspace", "--locked"]);
            command.arg("--target-dir").arg(shell::target_directory().join("msrv"));
            // Set by the cargo that runs this program; they would make the other toolchain use this one's compiler.
            for variable in ["RUSTC", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN"] {
                command.env_remove(variable);
            }
            shell::run(&mut command)?;
            format!("the workspace compiles with {toolchain}")
        }
        None => "that toolchain is not installed, so nothing was compiled with it".into(),
    };
    Ok(Done::Ran(format!("{stated}: no package needs more; {compiled}")))
}

/// Returns the full name of an installed toolchain of `version`, such as `1.88`.
fn installed_toolchain(version: &str) -> Option<String> {
    let listed = shell::output_of(&mut shell::program("rustup", ["toolchain", "list"])).ok()?;
    let mut names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.find(|name| name.strip_prefix(version).is_some_and(|rest| rest.starts_with(['.', '-']))).map(String::from)
}
