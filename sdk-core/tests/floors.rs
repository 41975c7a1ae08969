//! The floors of the core: which module may use which, as its sources say.
#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the lowest floor up. One uses what stands on a lower floor, or, on its own, what stands before it.
const FLOORS: [&[&str]; 8] = [
    // Words that know nothing.
    &["queue", "time", "text", "rng", "ledger", "scan", "json"],
    // The wire, and what can go wrong on it.
    &["mqtt", "failure", "outbox", "timer", "retry"],
    // What goes into a link and comes out of it.
    &["io", "status"],
    // The engine: session, attempts, back-off. It knows no service.
    &["link"],
    // Names, keys and tokens of Azure IoT, and transports below MQTT: values and text.
    &["azure", "transport"],
    // The settings.
    &["config"],
    // A profile for each service, with its services over a link, and the one that is chosen when the program runs.
    &["iothub", "dps", "broker", "checked", "any_profile"],
    // What runs beside a link.
    &["upload", "edge"],
];

#[test]
fn a_module_uses_those_of_lower_floors_and_nothing_goes_round_in_a_circle() {
    let mut place = BTreeMap::new();
    for (floor, modules) in FLOORS.iter().enumerate() {
        for (number, module) in modules.iter().enumerate() {
            place.insert((*module).to_owned(), (floor, number));
        }
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut met = BTreeSet::new();
    for path in files(&sources) {
        let module = module_of(path.strip_prefix(&sources).unwrap());
        if module == "lib" {
            continue;
        }
        let Some(own) = place.get(&module) else { panic!("{module} stands on no floor") };
        met.insert(module.clone());
        for (line, used) in used_by(&fs::read_to_string(&path).unwrap()) {
            let Some(other) = place.get(&used) else {
                wrong.push(format!("{}:{line}: name the module of what is used, not crate::{used}", path.display()));
                continue;
            };
            if other > own {
                wrong.push(format!("{}:{line}: {module} uses {used}, which stands above it", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(met.len(), place.len(), "each module on the floors is there");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The first part of a path, without its ending.
fn module_of(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The names after `crate::`, with their lines. Tests, which may use anything, and comments, which only point somewhere,
/// are left out.
fn used_by(source: &str) -> Vec<(usize, String)> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let name: String = rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            found.push((number + 1, name));
        }
    }
    found
}
