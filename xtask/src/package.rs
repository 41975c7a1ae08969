//! `package`: packages the libraries, and builds and runs a program with what a user would download.

use crate::{Done, Outcome, shell};
use std::path::Path;

const LIBRARIES: [&str; 3] = ["steadfast-core", "steadfast", "steadfast-esp32"];

/// Packages the libraries, unpacks them apart from the workspace, and builds and runs a program that uses them.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    let mut command = shell::cargo(["package", "--quiet", "--no-verify", "--allow-dirty"]);
    for library in LIBRARIES {
        command.args(["--package", library]);
    }
    shell::output_of(&mut command)?;
    let place = shell::target_directory().join("xtask/package");
    let io = |error: std::io::Error| format!("{}: {error}", place.display());
    // What an earlier run unpacked may hold files that are packaged no more.
    if place.exists() {
        std::fs::remove_dir_all(&place).map_err(io)?;
    }
    std::fs::create_dir_all(place.join("program/src")).map_err(io)?;
    let mut files = 0;
    for library in LIBRARIES {
        let archive = format!("{library}-{}.crate", env!("CARGO_PKG_VERSION"));
        let archive = shell::target_directory().join("package").join(archive);
        let mut command = shell::program("tar", ["--extract", "--gzip", "--verbose", "--file"]);
        command.arg(&archive).arg("--directory").arg(&place);
        files += shell::output_of(&mut command)?.lines().count();
        has(
            &place.join(format!("{library}-{}", env!("CARGO_PKG_VERSION"))),
            &["Cargo.toml", "README.md", "src/lib.rs"],
        )?;
    }
    let program = place.join("program");
    let manifest = MANIFEST.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    std::fs::write(program.join("Cargo.toml"), manifest).map_err(io)?;
    std::fs::write(program.join("src/main.rs"), SOURCE).map_err(io)?;
    // The versions that everything else is tested with.
    std::fs::copy(shell::root().join("Cargo.lock"), program.join("Cargo.lock")).map_err(io)?;
    let mut command = shell::cargo(["run", "--quiet", "--manifest-path"]);
    command.arg(program.join("Cargo.toml")).arg("--target-dir").arg(place.join("target"));
    let said = shell::output_of(&mut command)?;
    if said.trim() != SAID {
        return Err(format!("the program said {said:?} in place of {SAID:?}"));
    }
    Ok(Done::Ran(format!("{} packages of {files} files, and a program that runs with them", LIBRARIES.len())))
}

fn has(package: &Path, files: &[&str]) -> Result<(), String> {
    match files.iter().find(|file| !package.join(file).is_file()) {
        Some(missing) => Err(format!("{} has no {missing}", package.display())),
        None => Ok(()),
    }
}

const MANIFEST: &str = include_str!("../templates/package-program.toml");
const SOURCE: &str = include_str!("../templates/package-program.rs");
const SAID: &str = "1 accepted, 1 queued; firmware: idle";
