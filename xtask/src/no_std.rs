//! `no-std`: proof that the core needs neither std nor alloc.
//!
//! A static library without std, with its own panic handler and without an allocator, is linked to the core. If any
//! crate below the core used std, the compiler would find two panic handlers; if any used alloc, it would miss the
//! allocator. This runs with the host's compiler alone. Where a compiler for a microcontroller is at hand, the same
//! library is built for it too.

use crate::firmware_target::{self, Compiler};
use crate::{Done, Outcome, shell};
use std::path::{Path, PathBuf};

/// Builds the proof.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    let place = write_crate("no-std-proof", MANIFEST, "src/lib.rs", SOURCE)?;
    let mut command = shell::cargo(["build", "--quiet", "--release", "--manifest-path"]);
    command.arg(place.join("Cargo.toml")).arg("--target-dir").arg(place.join("target"));
    shell::run(&mut command)?;
    let mut found = String::from("the core links without std and without an allocator on the host");
    for target in firmware_target::TARGETS {
        match Compiler::find(target) {
            Ok(compiler) => {
                shell::run(&mut compiler.cargo("build", target, &place))?;
                found.push_str(&format!("; for {target} as well ({})", compiler.name()));
            }
            Err(why) => found.push_str(&format!("; {target} was not built: {why}")),
        }
    }
    Ok(Done::Ran(found))
}

/// Writes a crate that depends on the core into the target directory, outside of the workspace, with the versions that
/// the workspace has locked and `source` at `path`; returns where it is.
pub(crate) fn write_crate(name: &str, manifest: &str, path: &str, source: &str) -> Result<PathBuf, String> {
    let place = shell::target_directory().join("xtask").join(name);
    let core = shell::root().join("sdk-core");
    std::fs::create_dir_all(place.join("src")).map_err(|error| format!("{}: {error}", place.display()))?;
    let lock =
        std::fs::read_to_string(shell::root().join("Cargo.lock")).map_err(|error| format!("Cargo.lock: {error}"))?;
    write(&place.join("Cargo.toml"), &manifest.replace("@CORE@", &core.display().to_string()))?;
    write(&place.join(path), source)?;
    write(&place.join("Cargo.lock"), &lock)?;
    Ok(place)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

const MANIFEST: &str = include_str!("../templates/no-std-proof.toml");
const SOURCE: &str = include_str!("../templates/no-std-proof.rs");
