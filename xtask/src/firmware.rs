//! `firmware`: images for a machine without an operating system, booted against the local hub.

use crate::firmware_target::{self, Compiler};
use crate::{Done, Outcome, elf, shell, tools};

/// The instruction set of the ESP32-C3.
const TARGET: &str = "riscv32imc-unknown-none-elf";

const EMULATOR: &str = "qemu-system-riscv32";

/// One image.
struct Image {
    name: &'static str,
    build: &'static [&'static str],
    judge: &'static [&'static str],
    /// Bytes of stack that it may use at most: a tenth above what was measured.
    stack_bound: &'static str,
}

const IMAGES: [Image; 2] = [
    Image { name: "plain", build: &[], judge: &[], stack_bound: "6195" },
    Image { name: "tls", build: &["--features", "tls"], judge: &["--tls"], stack_bound: "16900" },
];

/// Builds the images, boots them under QEMU, and lets the local hub's ledger judge their scenarios.
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
    let linker = firmware_target::linker()?;
    let mut flash = Vec::new();
    for Image { name, build, judge, stack_bound } in IMAGES {
        let mut command = compiler.cargo_into("build", TARGET, &place, &directory);
        command.args(build).arg("--locked").env("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_LINKER", &linker);
        shell::run(&mut command)?;

        let image = directory.join(name);
        let built = directory.join(TARGET).join("release/firmware-qemu");
        let bytes = std::fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
        std::fs::write(&image, &bytes).map_err(|error| format!("{}: {error}", image.display()))?;
        let sizes = elf::sizes(&bytes)?;
        let elf::Sizes { text, constants, data, zeroed } = sizes;
        println!("{name}: code {text}, constants {constants}, start values {data}, zeroed and stack {zeroed} bytes");
        flash.push(format!("{name} {} bytes", sizes.flash()));

        let mut command = shell::cargo(["run", "--quiet", "--locked", "--package", "firmware-judge", "--"]);
        command.args(judge).args(["--stack-bound", stack_bound]).arg(&image);
        shell::run(&mut command)?;
    }
    Ok(Done::Ran(format!("booted and judged ({}); flash: {}", compiler.name(), flash.join(", "))))
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
