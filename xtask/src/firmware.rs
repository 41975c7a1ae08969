//! `firmware`: an image for a machine without an operating system, booted against the local hub.

use crate::firmware_target::{self, Compiler};
use crate::{Done, Outcome, elf, shell, tools};

/// The instruction set of the ESP32-C3.
const TARGET: &str = "riscv32imc-unknown-none-elf";

const EMULATOR: &str = "qemu-system-riscv32";

/// Builds the image, boots it under QEMU, and lets the local hub's ledger judge its story.
///
/// What is missing is installed. Where that is not possible the step is skipped, but fails in continuous integration.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    match prepare() {
        Ok(()) => {}
        Err(why) if std::env::var_os("CI").is_none() => return Ok(Done::Skipped(why)),
        Err(why) => return Err(why),
    }
    let compiler = Compiler::find(TARGET)?;
    let place = shell::root().join("examples/firmware-qemu");
    let directory = shell::target_directory().join("xtask/firmware");
    let mut build = compiler.cargo_into("build", TARGET, &place, &directory);
    build.arg("--locked").env("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_LINKER", firmware_target::linker()?);
    shell::run(&mut build)?;

    let image = directory.join(TARGET).join("release/firmware-qemu");
    let bytes = std::fs::read(&image).map_err(|error| format!("{}: {error}", image.display()))?;
    let elf::Sizes { text, constants, data, zeroed } = elf::sizes(&bytes)?;
    println!("image: code {text}, constants {constants}, start values {data}, zeroed and stack {zeroed} bytes");

    let mut judge = shell::cargo(["run", "--quiet", "--locked", "--package", "firmware-judge", "--"]);
    shell::run(judge.arg(&image))?;
    Ok(Done::Ran(format!("booted and judged ({}); flash {} bytes", compiler.name(), text + constants + data)))
}

fn prepare() -> Result<(), String> {
    firmware_target::install()?;
    if shell::find(EMULATOR).is_none() {
        tools::apt_get(&["qemu-system-misc"])?;
    }
    if firmware_target::linker().is_err() {
        tools::apt_get(&["lld-19"])?;
    }
    if shell::find(EMULATOR).is_some() { Ok(()) } else { Err(format!("{EMULATOR} is not there")) }
}
