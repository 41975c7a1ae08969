//! `size`: what the core takes on a device, against goals and recorded bounds.

use crate::elf::{self, Sizes};
use crate::firmware_target::{self, Compiler};
use crate::no_std::write_crate;
use crate::{Done, Outcome, shell};
use serde_json::{Value, json};

/// One measure, by the feature of the probe that makes it.
struct Measure {
    feature: &'static str,
    what: &'static str,
    /// Bytes wished for.
    goal: Option<u64>,
    kind: Kind,
}

/// What the same work takes with a stack in C, and the share of it wished for: same target, same optimisation, no TLS and
/// no logging on either side. `docs/size.md` says how the bytes were measured.
struct Rival {
    feature: &'static str,
    name: &'static str,
    /// On riscv32imc and on thumbv7em.
    bytes: [u64; 2],
    /// Greatest ratio wished for, in hundredths.
    goal: u64,
}

const RIVALS: [Rival; 5] = [
    Rival { feature: "hub-whole", name: "azure-iot-sdk-c", bytes: [71_722, 60_706], goal: 65 },
    Rival { feature: "hub-whole", name: "azure-sdk-for-c + coreMQTT", bytes: [23_276, 20_234], goal: 200 },
    Rival { feature: "hub-dps-sas", name: "azure-iot-sdk-c", bytes: [69_844, 58_942], goal: 55 },
    Rival { feature: "hub-dps-sas", name: "azure-sdk-for-c + coreMQTT", bytes: [18_158, 15_184], goal: 200 },
    Rival { feature: "hub-x509", name: "azure-iot-sdk-c", bytes: [53_608, 44_452], goal: 45 },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flash,
    Ram,
}

const MEASURES: [Measure; 11] = [
    Measure {
        feature: "hub-whole",
        what: "IoT Hub and DPS with a shared key, whole: twin, methods, messages both ways",
        goal: None,
        kind: Kind::Flash,
    },
    Measure { feature: "whole-sas", what: "one hub with a shared key, whole", goal: None, kind: Kind::Flash },
    Measure { feature: "whole-x509", what: "one hub with a certificate, whole", goal: None, kind: Kind::Flash },
    Measure {
        feature: "hub-dps-sas",
        what: "IoT Hub and DPS with a shared key: telemetry, MQTT included",
        goal: None,
        kind: Kind::Flash,
    },
    Measure {
        feature: "hub-sas",
        what: "one hub with a shared key: telemetry, MQTT included",
        goal: None,
        kind: Kind::Flash,
    },
    Measure {
        feature: "hub-x509",
        what: "one hub with a certificate: telemetry, MQTT included",
        goal: Some(22 * 1024),
        kind: Kind::Flash,
    },
    Measure { feature: "codec", what: "of it PUBLISH out and every packet in", goal: None, kind: Kind::Flash },
    Measure { feature: "signing", what: "of it a key and HMAC-SHA256", goal: None, kind: Kind::Flash },
    Measure {
        feature: "files",
        what: "uploads of files, alone: JSON, names, texts and the back-off included",
        goal: None,
        kind: Kind::Flash,
    },
    Measure {
        feature: "way",
        what: "a proxy and WebSockets, alone: texts and random numbers included",
        goal: None,
        kind: Kind::Flash,
    },
    Measure {
        feature: "ram",
        what: "a link with an outbox of 8 messages and 2 KiB",
        goal: Some(4_128),
        kind: Kind::Ram,
    },
];

/// What a figure may not grow past; `--record` writes it.
const BOUNDS: &str = "xtask/size-bounds.toml";

/// Room for growth when bounds are recorded, in parts of a hundred.
const SLACK_PERCENT: u64 = 5;

/// Measures the RAM that the core's types take on this host, and what the core takes on microcontrollers, where a
/// compiler for them is at hand; `--install` gets Debian's, and continuous integration always does.
///
/// It fails when a figure is above its bound, or when a panic is linked.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let json = shell::take_value(&mut arguments, "--json")?;
    let install = shell::take_flag(&mut arguments, "--install");
    let record = shell::take_flag(&mut arguments, "--record");
    shell::expect_none(&arguments)?;
    if install || std::env::var_os("CI").is_some() {
        firmware_target::install()?;
    }

    let sizes = host_sizes()?;
    println!("| kept in RAM | bytes on this 64-bit host |\n|---|---:|");
    for (name, bytes) in &sizes {
        println!("| {name} | {bytes} |");
    }
    let mut rows: Vec<Value> =
        sizes.iter().map(|(name, bytes)| json!({"target": "host", "part": name, "ram": bytes})).collect();

    let bounds = if record { toml::Table::new() } else { read_bounds()? };
    let (mut absent, mut wrong, mut ratios, mut recorded) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    println!("\n| target | measure | bytes | goal | bound |\n|---|---|---:|---:|---:|");
    for target in firmware_target::TARGETS {
        let compiler = match Compiler::find(target) {
            Ok(compiler) => compiler,
            Err(why) => {
                absent.push(format!("{target} was not measured: {why}"));
                continue;
            }
        };
        recorded.push_str(&format!("[{target}]\n"));
        let mut measured = Vec::new();
        let empty = measure(&compiler, target, None)?;
        for Measure { feature, what, goal, kind } in MEASURES {
            let Image { sizes, panics } = measure(&compiler, target, Some(feature))?;
            let bytes = match kind {
                Kind::Flash => sizes.flash().saturating_sub(empty.sizes.flash()),
                Kind::Ram => sizes.zeroed.saturating_sub(empty.sizes.zeroed),
            };
            let bound = bounds.get(target).and_then(|of| of.get(feature)).and_then(toml::Value::as_integer);
            let bound = bound.and_then(|bound| u64::try_from(bound).ok());
            let goal_text = goal.map_or(String::new(), |goal| verdict(bytes, goal));
            println!(
                "| {target} | {what} | {bytes} | {goal_text} | {} |",
                bound.map_or(String::new(), |it| it.to_string())
            );
            rows.push(json!({"target": target, "part": feature, "bytes": bytes, "goal": goal, "bound": bound,
                "panics": panics}));
            measured.push((feature, bytes));
            recorded.push_str(&format!("{feature} = {}\n", bytes + bytes * SLACK_PERCENT / 100));
            if panics {
                wrong.push(format!("{target}, {feature}: something can panic"));
            }
            match bound {
                Some(bound) if bytes > bound => {
                    wrong.push(format!("{target}, {feature}: {bytes} bytes; the bound in {BOUNDS} is {bound}"));
                }
                None if !record => wrong.push(format!("{target}, {feature}: {BOUNDS} has no bound")),
                Some(_) | None => {}
            }
        }
        ratios.extend(compare(target, &measured));
    }
    println!("\n| target | measure | beside | ratio | goal |\n|---|---|---|---:|---|");
    println!("{}", ratios.join("\n"));
    if record {
        write(BOUNDS, &recorded)?;
    }
    if let Some(file) = json {
        write(&file, &format!("{:#}\n", Value::from(rows)))?;
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n  "));
    }
    let measured =
        format!("{} types and {} targets measured", sizes.len(), firmware_target::TARGETS.len() - absent.len());
    Ok(Done::Ran(std::iter::once(measured).chain(absent).collect::<Vec<_>>().join("; ")))
}

/// Rows that hold what was measured against what others take for the same work.
fn compare(target: &str, measured: &[(&str, u64)]) -> Vec<String> {
    let place = usize::from(!target.starts_with("riscv"));
    let row = |rival: &Rival| {
        let (feature, bytes) = measured.iter().find(|(feature, _)| *feature == rival.feature)?;
        let theirs = rival.bytes[place];
        let ratio = bytes * 1_000 / theirs;
        let word = if bytes * 100 <= theirs * rival.goal { "met" } else { "MISSED" };
        let shown = |thousandths: u64| format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
        let goal = shown(rival.goal * 10);
        Some(format!("| {target} | {feature} | {} {theirs} | {} | at most {goal}, {word} |", rival.name, shown(ratio)))
    };
    RIVALS.iter().filter_map(row).collect()
}

/// The goal, and by how much it is missed.
fn verdict(bytes: u64, goal: u64) -> String {
    if bytes <= goal { format!("{goal}, met") } else { format!("{goal}, missed by {}", bytes - goal) }
}

fn read_bounds() -> Result<toml::Table, String> {
    let text = std::fs::read_to_string(shell::root().join(BOUNDS)).map_err(|error| format!("{BOUNDS}: {error}"))?;
    text.parse().map_err(|error| format!("{BOUNDS}: {error}"))
}

fn write(file: &str, text: &str) -> Result<(), String> {
    std::fs::write(shell::root().join(file), text).map_err(|error| format!("{file}: {error}"))
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

struct Image {
    sizes: Sizes,
    panics: bool,
}

/// Links the probe with `feature`, for size, and looks at what was linked.
fn measure(compiler: &Compiler, target: &str, feature: Option<&str>) -> Result<Image, String> {
    let place = write_crate("core-probe", CORE_MANIFEST, "src/main.rs", CORE_SOURCE)?;
    let mut command = compiler.cargo("build", target, &place);
    command.args(feature.map(|feature| format!("--features={feature}")));
    let relax = if target.starts_with("riscv") { RELAX } else { "" };
    command.env("RUSTFLAGS", format!("{SMALL} {relax} -Clinker={}", firmware_target::linker()?.display()));
    shell::output_of(&mut command)?;
    let image = place.join("target").join(target).join("release/core-probe");
    let bytes = std::fs::read(&image).map_err(|error| format!("{}: {error}", image.display()))?;
    let panics = bytes.windows(PANIC.len()).any(|name| name == PANIC);
    Ok(Image { sizes: elf::sizes(&bytes)?, panics })
}

/// What `docs/size.md` advises for small images: the compact form of SHA-256, and functions that are small enough are
/// inlined, which `opt-level = "z"` hardly does.
const SMALL: &str = r#"--cfg sha2_backend="soft" --cfg sha2_backend_soft="compact" -Cllvm-args=-inline-threshold=40"#;

/// Lets the linker shorten calls on RISC-V.
const RELAX: &str = "-Ctarget-feature=+relax";

/// The function of the probe that only a panic calls.
const PANIC: &[u8] = b"steadfast_panic";

const HOST_MANIFEST: &str = include_str!("../templates/size-probe.toml");
const HOST_SOURCE: &str = include_str!("../templates/size-probe.rs");
const CORE_MANIFEST: &str = include_str!("../templates/core-probe.toml");
const CORE_SOURCE: &str = include_str!("../templates/core-probe.rs");
