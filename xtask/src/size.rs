//! `size`: what the core takes on a device.

use crate::no_std::write_crate;
use crate::{Done, Outcome, shell};
use serde_json::json;

/// Measures the RAM that the core's types take, on this host.
///
/// The figures of a microcontroller are smaller where a type holds addresses or `usize`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let json = shell::take_value(&mut arguments, "--json")?;
    shell::expect_none(&arguments)?;
    let sizes = host_sizes()?;
    println!("| type | bytes on this 64-bit host |\n|---|---:|");
    for (name, bytes) in &sizes {
        println!("| `{name}` | {bytes} |");
    }
    if let Some(file) = json {
        let rows: Vec<_> =
            sizes.iter().map(|(name, bytes)| json!({"type": name, "target": "host", "bytes": bytes})).collect();
        let text = format!("{:#}\n", json!(rows));
        std::fs::write(shell::root().join(&file), text).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(Done::Ran(format!("{} types measured on this host", sizes.len())))
}

fn host_sizes() -> Result<Vec<(String, u64)>, String> {
    let place = write_crate("size-probe", MANIFEST, "src/main.rs", SOURCE)?;
    let mut command = shell::cargo(["run", "--quiet", "--manifest-path"]);
    command.arg(place.join("Cargo.toml")).arg("--target-dir").arg(place.join("target"));
    let mut sizes = Vec::new();
    for line in shell::output_of(&mut command)?.lines() {
        let (name, bytes) = line.rsplit_once(' ').ok_or_else(|| format!("the probe printed {line:?}"))?;
        sizes.push((name.to_owned(), bytes.parse().map_err(|_| format!("the probe printed {line:?}"))?));
    }
    Ok(sizes)
}

const MANIFEST: &str = include_str!("../templates/size-probe.toml");
const SOURCE: &str = include_str!("../templates/size-probe.rs");
