//! `firmware`: images for a machine without an operating system, booted against the local hub.

use std::path::Path;

use crate::firmware_target::{self, Compiler};
use crate::no_std::write_crate;
use crate::stack::{self, Stack};
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
    /// Functions, and bytes of stack that each with all that it calls may need at most: a tenth above what was measured.
    chains: [(&'static str, u64); 2],
}

const IMAGES: [Image; 2] = [
    Image {
        name: "plain",
        build: &[],
        judge: &[],
        stack_bound: "4294",
        chains: [("device", 1830), ("scenario", 7744)],
    },
    Image {
        name: "tls",
        build: &["--features", "tls"],
        judge: &["--tls"],
        stack_bound: "16900",
        chains: [("device", 1830), ("scenario", 20838)],
    },
];

/// The set-up and main loop of the README, of `examples/esp32-idf`, and of `examples/esp32-c3` (its task and, apart, what
/// a poll of it takes), without a board below; and bytes of stack that each may need at most.
const PROBES: [(&str, u64); 4] = [("readme", 7392), ("idf", 6670), ("bare", 9645), ("go", 4717)];

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
    let mut wrong = probe_stacks(&compiler, &linker)?;
    let mut flash = Vec::new();
    for Image { name, build, judge, stack_bound, chains } in IMAGES {
        let mut command = compiler.cargo_into("build", TARGET, &place, &directory);
        command.args(build).arg("--locked").env("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_LINKER", &linker);
        command.env("RUSTFLAGS", stack::FLAG).env("RUSTC_BOOTSTRAP", "1");
        shell::run(&mut command)?;

        let image = directory.join(name);
        let built = directory.join(TARGET).join("release/firmware-qemu");
        let bytes = std::fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
        std::fs::write(&image, &bytes).map_err(|error| format!("{}: {error}", image.display()))?;
        let sizes = elf::sizes(&bytes)?;
        let elf::Sizes { text, constants, data, zeroed } = sizes;
        println!("{name}: code {text}, constants {constants}, start values {data}, zeroed and stack {zeroed} bytes");
        flash.push(format!("{name} {} bytes", sizes.flash()));
        let stack = Stack::read(&bytes)?;
        for (function, bound) in chains {
            wrong.extend(hold(&stack, "firmware_qemu", function, bound)?);
        }

        let mut command = shell::cargo(["run", "--quiet", "--locked", "--package", "firmware-judge", "--"]);
        command.args(judge).args(["--stack-bound", stack_bound]).arg(&image);
        shell::run(&mut command)?;
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n  "));
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

/// Measures the stack of the examples that need a board; returns what is above its bound.
fn probe_stacks(compiler: &Compiler, linker: &Path) -> Result<Vec<String>, String> {
    let place = write_crate("stack-probe", PROBE_MANIFEST, "src/main.rs", PROBE_SOURCE)?;
    let mut command = compiler.cargo("build", TARGET, &place);
    command.env("RUSTC_BOOTSTRAP", "1");
    command.env("RUSTFLAGS", format!("{} -Clinker={}", stack::FLAG, linker.display()));
    shell::run(&mut command)?;
    let image = place.join("target").join(TARGET).join("release/stack-probe");
    let bytes = std::fs::read(&image).map_err(|error| format!("{}: {error}", image.display()))?;
    let stack = Stack::read(&bytes)?;
    let mut wrong = Vec::new();
    for (function, bound) in PROBES {
        wrong.extend(hold(&stack, "stack_probe", function, bound)?);
    }
    Ok(wrong)
}

/// Prints what a function needs of the stack, and returns a complaint when that is above `bound`.
fn hold(stack: &Stack, image: &str, function: &str, bound: u64) -> Result<Option<String>, String> {
    let chain = stack.of([image, function])?;
    let bytes = chain.bytes;
    print!("stack of {image}::{function}: {bytes} bytes, bound {bound}\n{}", stack.list(&chain));
    Ok((bytes > bound).then(|| format!("{image}::{function} needs {bytes} bytes of stack; the bound is {bound}")))
}

const PROBE_MANIFEST: &str = include_str!("../templates/stack-probe.toml");
const PROBE_SOURCE: &str = include_str!("../templates/stack-probe.rs");
