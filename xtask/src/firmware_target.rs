//! Compilers for microcontrollers.
//!
//! Either rustup has the target installed, or Debian's `rustc-web`, `cargo-web` and `rust-web-src` build the core
//! library from source.

use crate::{shell, tools};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The targets whose figures are published: the ESP32-C3 and a Cortex-M4F.
pub(crate) const TARGETS: [&str; 2] = ["riscv32imc-unknown-none-elf", "thumbv7em-none-eabihf"];

/// A compiler for a target without an operating system.
pub(crate) enum Compiler {
    /// The toolchain that runs this program, with the target's core library installed.
    Rustup,
    /// Debian's compiler, which builds the core library itself.
    Debian,
}

impl Compiler {
    /// Finds a compiler for `target`.
    ///
    /// # Errors
    /// What could be installed.
    pub(crate) fn find(target: &str) -> Result<Self, String> {
        let sysroot = shell::output_of(&mut shell::program("rustc", ["--print", "sysroot"])).unwrap_or_default();
        if Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
            return Ok(Self::Rustup);
        }
        let sources = Path::new("/usr/lib/rustlib/src/rust/library/core");
        if Path::new("/usr/bin/rustc").is_file() && Path::new("/usr/bin/cargo").is_file() && sources.is_dir() {
            return Ok(Self::Debian);
        }
        Err("neither `rustup target add` nor Debian's rustc-web, cargo-web and rust-web-src installed it".into())
    }

    /// Returns a name for reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Rustup => "the installed target",
            Self::Debian => "Debian's compiler with its own core library",
        }
    }

    /// Returns the command that runs cargo's `subcommand` on the crate at `place` for `target`, optimised.
    pub(crate) fn cargo(&self, subcommand: &str, target: &str, place: &Path) -> Command {
        self.cargo_into(subcommand, target, place, &place.join("target"))
    }

    /// Returns that command with another target directory.
    pub(crate) fn cargo_into(&self, subcommand: &str, target: &str, place: &Path, directory: &Path) -> Command {
        self.cargo_with(&["core"], subcommand, target, place, directory)
    }

    /// Returns that command for a crate that needs these libraries.
    pub(crate) fn cargo_with(
        &self,
        libraries: &[&str],
        subcommand: &str,
        target: &str,
        place: &Path,
        directory: &Path,
    ) -> Command {
        let mut command = match self {
            Self::Rustup => shell::cargo([subcommand]),
            Self::Debian => {
                let libraries = format!("-Zbuild-std={}", libraries.join(","));
                let mut command = shell::program("/usr/bin/cargo", [subcommand, &libraries]);
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTUP_TOOLCHAIN");
                command
            }
        };
        command.args(["--quiet", "--release", "--target", target, "--manifest-path"]).arg(place.join("Cargo.toml"));
        command.arg("--target-dir").arg(directory);
        command
    }
}

/// Installs Debian's compiler where no compiler for the targets is at hand.
///
/// # Errors
/// Why that is not possible.
pub(crate) fn install() -> Result<(), String> {
    if TARGETS.iter().all(|target| Compiler::find(target).is_ok()) {
        return Ok(());
    }
    tools::apt_get(&["rustc-web", "cargo-web", "rust-web-src"])
}

/// Returns a linker for every target.
///
/// # Errors
/// What could be installed.
pub(crate) fn linker() -> Result<PathBuf, String> {
    let libraries = shell::output_of(&mut shell::program("rustc", ["--print", "target-libdir"]))?;
    let of_rustup = Path::new(libraries.trim()).parent().map(|host| host.join("bin/rust-lld"));
    let of_debian = ["ld.lld", "ld.lld-19"].into_iter().filter_map(shell::find);
    let mut found = of_rustup.into_iter().chain(of_debian).filter(|place| place.is_file());
    found.next().ok_or_else(|| "no linker: neither the toolchain's rust-lld nor lld is there".into())
}
