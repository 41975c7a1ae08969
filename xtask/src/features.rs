//! `features`: clippy on every set of features of the libraries.

use crate::metadata::{Graph, Package};
use crate::{Done, Outcome, checks, shell};

/// From this number of features on, not every set is checked but none, each alone, each pair, and all.
const ALL_SETS_BELOW: usize = 5;

/// Checks every set of features that makes sense.
///
/// A manifest names features that exclude each other under `package.metadata.steadfast.conflicting-features`, a list
/// of lists. Features that start with `_` are private and belong to no set.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    if let Some(skipped) = checks::without("clippy", "clippy") {
        return Ok(skipped);
    }
    let graph = Graph::read(None, &[], &[])?;
    let mut count = 0_usize;
    for library in graph.libraries() {
        for set in sets(library) {
            println!("{} with [{}]", library.name, set.join(", "));
            let mut command = shell::cargo(["clippy", "--locked", "--no-default-features", "--package", &library.name]);
            command.args(["--features", &set.join(","), "--", "-D", "warnings"]);
            shell::run(&mut command)?;
            count += 1;
        }
    }
    Ok(Done::Ran(format!("{count} sets of features without warnings")))
}

/// Returns the largest set of public features of `package` in which none excludes another, in order of their names.
pub(crate) fn all(package: &Package) -> Vec<String> {
    let conflicts = conflicts(package);
    let mut set: Vec<String> = Vec::new();
    for feature in public(package) {
        set.push(feature);
        if !is_sound(&set, &conflicts) {
            set.pop();
        }
    }
    set
}

fn sets(package: &Package) -> Vec<Vec<String>> {
    let features = public(package);
    let mut sets = Vec::new();
    if features.len() < ALL_SETS_BELOW {
        for mask in 0..1_u32 << features.len() {
            let chosen = features.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
            sets.push(chosen.map(|(_, feature)| feature.clone()).collect());
        }
    } else {
        sets.push(Vec::new());
        for (at, feature) in features.iter().enumerate() {
            sets.push(vec![feature.clone()]);
            sets.extend(features[..at].iter().map(|other| vec![other.clone(), feature.clone()]));
        }
        sets.push(all(package));
    }
    let conflicts = conflicts(package);
    sets.retain(|set| is_sound(set, &conflicts));
    sets
}

fn public(package: &Package) -> Vec<String> {
    package.features.keys().filter(|name| *name != "default" && !name.starts_with('_')).cloned().collect()
}

fn conflicts(package: &Package) -> Vec<Vec<String>> {
    let stated = package.settings["conflicting-features"].as_array();
    let texts = |group: &serde_json::Value| {
        group.as_array().into_iter().flatten().filter_map(|name| name.as_str()).map(String::from).collect()
    };
    stated.into_iter().flatten().map(texts).collect()
}

fn is_sound(set: &[String], conflicts: &[Vec<String>]) -> bool {
    conflicts.iter().all(|group| group.iter().filter(|feature| set.contains(feature)).count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use semver::Version;
    use std::collections::BTreeMap;

    fn package(features: &[&str], conflicts: &str) -> Package {
        Package {
            id: String::new(),
            name: "p".into(),
            version: Version::new(0, 1, 0),
            licence: None,
            rust_version: None,
            member: true,
            from_registry: false,
            has_library: true,
            features: features.iter().map(|name| ((*name).into(), Vec::new())).collect::<BTreeMap<_, _>>(),
            asks: Vec::new(),
            settings: serde_json::from_str(&format!("{{\"conflicting-features\": {conflicts}}}")).unwrap(),
        }
    }

    #[test]
    fn every_set_without_a_conflict_is_checked() {
        let shown: Vec<String> = sets(&package(&["default", "a", "b", "c", "_private"], r#"[["a", "b"]]"#))
            .iter()
            .map(|set| set.join(""))
            .collect();
        assert_eq!(shown, ["", "a", "b", "c", "ac", "bc"]);
        assert_eq!(all(&package(&["a", "b", "c"], r#"[["a", "b"]]"#)), ["a", "c"]);
    }

    #[test]
    fn many_features_are_checked_alone_in_pairs_and_together() {
        assert_eq!(sets(&package(&["a", "b", "c", "d", "e"], "[]")).len(), 1 + 5 + 10 + 1);
    }
}
