//! `size`: what the core takes on a device.

use crate::elf::{self, Sizes};
use crate::firmware_target::{self, Compiler};
use crate::no_std::write_crate;
use crate::{Done, Outcome, shell};
use serde_json::{Value, json};

/// The parts of the core whose size is of interest, by the feature of the probe that keeps each, and what each is.
const PARTS: [(&str, &str); 3] = [
    ("codec", "MQTT 3.1.1, both ways"),
    ("signing", "reading a key and signing with it (HMAC-SHA256)"),
    ("link", "the whole link: lifecycle, retry, outbox, provisioning, MQTT, signing"),
];

/// Measures the RAM that the core's types take, on this host, and the flash that its parts take on microcontrollers,
/// where a compiler for them is at hand; `--install` gets Debian's.
///
/// The figures of RAM are smaller on a microcontroller, where an address has 4 bytes.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let json = shell::take_value(&mut arguments, "--json")?;
    let install = shell::take_flag(&mut arguments, "--install");
    shell::expect_none(&arguments)?;
    if install {
        firmware_target::install()?;
    }

    let sizes = host_sizes()?;
    println!("| kept in RAM | bytes on this 64-bit host |\n|---|---:|");
    for (name, bytes) in &sizes {
        println!("| {name} | {bytes} |");
    }
    let mut rows: Vec<Value> =
        sizes.iter().map(|(name, bytes)| json!({"target": "host", "part": name, "ram": bytes})).collect();

    let mut absent = Vec::new();
    println!(
        "\n| target | part | flash | code | constants | start values | zeroed |\n|---|---|---:|---:|---:|---:|---:|"
    );
    for target in firmware_target::TARGETS {
        match Compiler::find(target) {
            Ok(compiler) => {
                for (part, what) in PARTS {
                    let sizes = flash_sizes(&compiler, target, part)?;
                    let Sizes { text, constants, data, zeroed } = sizes;
                    let flash = sizes.flash();
                    println!("| {target} | {what} | {flash} | {text} | {constants} | {data} | {zeroed} |");
                    rows.push(json!({"target": target, "part": part, "flash": flash, "code": text,
                        "constants": constants, "start_values": data, "zeroed": zeroed}));
                }
            }
            Err(why) => absent.push(format!("{target} was not measured: {why}")),
        }
    }
    if let Some(file) = json {
        let text = format!("{:#}\n", Value::from(rows));
        std::fs::write(shell::root().join(&file), text).map_err(|error| format!("{file}: {error}"))?;
    }
    let measured =
        format!("{} types and {} targets measured", sizes.len(), firmware_target::TARGETS.len() - absent.len());
    Ok(Done::Ran(std::iter::once(measured).chain(absent).collect::<Vec<_>>().join("; ")))
}

fn host_sizes() -> Result<Vec<(String, u64)>, String> {
    let place = write_crate("size-probe", HOST_MANIFEST, "src/main.rs", HOST_SOURCE)?;
    let mut command = shell::cargo(["run", "--quiet", "--manifest-path"]);
    command.arg(place.join("Cargo.toml")).arg("--target-dir").arg(place.join("target"));
    let mut sizes = Vec::new();
    for line in shell::output_of(&mut command)?.lines() {
        let (name, bytes) = line.rsplit_once(' ').ok_or_else(|| format!("the probe printed {line:?}"))?;
        sizes.push((name.to_owned(), bytes.parse().map_err(|_| format!("the probe printed {line:?}"))?));
    }
    Ok(sizes)
}

/// Links an image that holds `part` and nothing else, for size, and reads its sections.
fn flash_sizes(compiler: &Compiler, target: &str, part: &str) -> Result<Sizes, String> {
    let place = write_crate("flash-probe", FLASH_MANIFEST, "src/main.rs", FLASH_SOURCE)?;
    let mut command = compiler.cargo("rustc", target, &place);
    command.args(["--features", part, "--", "-C"]).arg(format!("linker={}", firmware_target::linker()?.display()));
    let script = place.join("flash-probe.x");
    std::fs::write(&script, FLASH_SCRIPT).map_err(|error| format!("{}: {error}", script.display()))?;
    command.arg("-C").arg(format!("link-arg=-T{}", script.display()));
    // Without standard error: the linker warns that there is no entry point. A failure shows it.
    shell::output_of(&mut command)?;
    let image = place.join("target").join(target).join("release/flash-probe");
    let bytes = std::fs::read(&image).map_err(|error| format!("{}: {error}", image.display()))?;
    elf::sizes(&bytes)
}

const HOST_MANIFEST: &str = include_str!("../templates/size-probe.toml");
const HOST_SOURCE: &str = include_str!("../templates/size-probe.rs");
const FLASH_MANIFEST: &str = include_str!("../templates/flash-probe.toml");
const FLASH_SOURCE: &str = include_str!("../templates/flash-probe.rs");
const FLASH_SCRIPT: &str = include_str!("../templates/flash-probe.x");
