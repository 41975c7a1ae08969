//! Starting other programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns the root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Returns the directory in which cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // Cargo reads a relative one from where it was started, which for the steps is the root.
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Returns a command that runs the cargo which runs this program, from the root, without standard input.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Returns a command that runs `program` from the root, without standard input.
pub(crate) fn program<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs `command` with its output on the terminal.
///
/// # Errors
/// What was run, when it cannot start or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{} does not start: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command))) }
}

/// Runs `command` and returns its standard output; standard error is kept for the error text.
///
/// # Errors
/// What was run and what it wrote, when it cannot start or does not succeed.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{} does not start: {error}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} ended with {}\n{}", shown(command), output.status, said.trim_end()));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{} wrote something that is not text", shown(command)))
}

/// Returns the first place of the search path that holds `program`, when there is one.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps daemons and network tools where an ordinary user's search path does not look.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|place| place.is_file())
}

/// Returns the command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Takes `--name VALUE` out of `arguments`.
///
/// # Errors
/// When the value is missing.
pub(crate) fn take_value(arguments: &mut Vec<String>, name: &str) -> Result<Option<String>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    if at + 1 >= arguments.len() {
        return Err(format!("{name} wants a value"));
    }
    arguments.remove(at);
    Ok(Some(arguments.remove(at)))
}

/// Takes `--name` out of `arguments`; true when it was there.
pub(crate) fn take_flag(arguments: &mut Vec<String>, name: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != name);
    arguments.len() != before
}

/// Refuses what a step does not know.
///
/// # Errors
/// When `arguments` is not empty.
pub(crate) fn expect_none(arguments: &[String]) -> Result<(), String> {
    match arguments.first() {
        None => Ok(()),
        Some(unknown) => Err(format!("unknown argument {unknown:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_and_what_is_left_is_refused() {
        let mut arguments: Vec<String> = ["--quick", "--json", "f", "x"].map(String::from).to_vec();
        assert_eq!(take_value(&mut arguments, "--json"), Ok(Some("f".into())));
        assert!(take_flag(&mut arguments, "--quick"));
        assert!(expect_none(&arguments).unwrap_err().contains("\"x\""));
        assert!(take_value(&mut vec!["--json".into()], "--json").is_err());
        assert_eq!(take_value(&mut Vec::new(), "--json"), Ok(None));
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_that_names_it() {
        let error = run(&mut program("surely-no-such-program", ["-x"])).unwrap_err();
        assert!(error.starts_with("surely-no-such-program -x does not start"), "{error}");
        assert_eq!(find("surely-no-such-program"), None);
    }
}
