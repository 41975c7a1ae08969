//! `deny`: what the dependencies bring along.
//!
//! The offline check reads `deny.toml`, `xtask/advisories.toml` and the graph that the lock file gives. When
//! cargo-deny is installed it reads the same `deny.toml` as well.

use crate::metadata::{Graph, Package};
use crate::{Done, Outcome, licence, shell};
use semver::VersionReq;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// Checks the dependencies.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    let policy = Policy::read()?;
    let graph = Graph::read(None, &["--all-features"], &policy.targets)?;
    let defaults = Graph::read(None, &[], &policy.targets)?;
    let mut findings = policy.findings(&graph);
    findings.extend(two_providers(&defaults));
    let needed = workspace_dependencies(&file("Cargo.toml")?)?;
    findings.extend(undocumented(&needed, &file("docs/dependencies.md")?));
    findings.extend(unused(&needed, &graph));
    if !findings.is_empty() {
        return Err(format!("{} findings\n  {}", findings.len(), findings.join("\n  ")));
    }
    let cargo_deny = if shell::find("cargo-deny").is_some() {
        shell::run(&mut shell::cargo(["deny", "--locked", "check", "bans", "licenses", "sources"]))?;
        "cargo-deny ran as well"
    } else {
        "cargo-deny is not installed, so only the offline check ran"
    };
    let borne = policy.borne.len();
    Ok(Done::Ran(format!(
        "{} packages clean, {borne} advisories borne with reason; {cargo_deny}",
        graph.packages.len()
    )))
}

/// What `deny.toml` and `xtask/advisories.toml` say.
struct Policy {
    targets: Vec<String>,
    licences: Vec<String>,
    /// Crate name and what it may be licensed under besides.
    exceptions: Vec<(String, Vec<String>)>,
    /// Crate name and reason.
    banned: Vec<(String, String)>,
    /// Crate and version that may stand beside another version.
    doubled: Vec<(String, VersionReq)>,
    /// Advisory id and reason.
    borne: Vec<(String, String)>,
    advisories: Vec<Advisory>,
}

struct Advisory {
    id: String,
    name: String,
    affected: VersionReq,
    about: String,
}

impl Policy {
    fn read() -> Result<Self, String> {
        Self::parse(&file("deny.toml")?, &file("xtask/advisories.toml")?)
    }

    fn parse(deny: &str, advisories: &str) -> Result<Self, String> {
        let deny: Table = deny.parse().map_err(|error| format!("deny.toml: {error}"))?;
        let advisories: Table = advisories.parse().map_err(|error| format!("advisories.toml: {error}"))?;
        let mut doubled = Vec::new();
        for entry in list(&deny, "bans", "skip") {
            let what = text(entry, "crate")?;
            text(entry, "reason")?;
            let (name, version) = what.split_once('@').ok_or_else(|| format!("bans.skip: {what} names no version"))?;
            doubled.push((name.to_owned(), requirement(version)?));
        }
        let mut exceptions = Vec::new();
        for entry in list(&deny, "licenses", "exceptions") {
            let allowed = entry.get("allow").and_then(Value::as_array).into_iter().flatten();
            exceptions.push((text(entry, "crate")?, allowed.filter_map(Value::as_str).map(String::from).collect()));
        }
        let mut borne = Vec::new();
        for entry in list(&deny, "advisories", "ignore") {
            borne.push((text(entry, "id")?, text(entry, "reason")?));
        }
        let mut banned = Vec::new();
        for entry in list(&deny, "bans", "deny") {
            banned.push((text(entry, "crate")?, text(entry, "reason")?));
        }
        let mut known = Vec::new();
        for entry in advisories.get("advisory").and_then(Value::as_array).into_iter().flatten() {
            let affected = requirement(&text(entry, "affected")?)?;
            known.push(Advisory {
                id: text(entry, "id")?,
                name: text(entry, "crate")?,
                affected,
                about: text(entry, "about")?,
            });
        }
        let names =
            |section, key| list(&deny, section, key).iter().filter_map(Value::as_str).map(String::from).collect();
        Ok(Self {
            targets: names("graph", "targets"),
            licences: names("licenses", "allow"),
            exceptions,
            banned,
            doubled,
            borne,
            advisories: known,
        })
    }

    fn findings(&self, graph: &Graph) -> Vec<String> {
        let mut findings = Vec::new();
        for package in &graph.packages {
            findings.extend(self.licence_finding(package));
            if !package.member && !package.from_registry {
                findings.push(format!("{} comes neither from the workspace nor from a registry", package.label()));
            }
            for (_, reason) in self.banned.iter().filter(|(name, _)| *name == package.name) {
                findings.push(format!("{} is banned: {reason}", package.label()));
            }
        }
        findings.extend(self.double_findings(graph));
        findings.extend(self.advisory_findings(graph));
        findings
    }

    fn licence_finding(&self, package: &Package) -> Option<String> {
        let Some(expression) = &package.licence else { return Some(format!("{} states no licence", package.label())) };
        let besides = self.exceptions.iter().filter(|(name, _)| *name == package.name).flat_map(|(_, allowed)| allowed);
        let allowed: Vec<String> = self.licences.iter().chain(besides).cloned().collect();
        match licence::is_met(expression, &allowed) {
            Ok(true) => None,
            Ok(false) => Some(format!("{}: no allowed licence in {expression:?}", package.label())),
            Err(error) => Some(format!("{}: {error}", package.label())),
        }
    }

    fn double_findings(&self, graph: &Graph) -> Vec<String> {
        let mut findings = Vec::new();
        let mut by_name: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
        for package in &graph.packages {
            by_name.entry(&package.name).or_default().push(package);
        }
        for (name, packages) in &by_name {
            let unexplained = packages.iter().filter(|package| !self.may_be_doubled(package));
            if packages.len() > 1 && unexplained.count() > 1 {
                let versions: Vec<String> = packages.iter().map(|package| package.version.to_string()).collect();
                findings.push(format!("{name} is there {} times ({})", packages.len(), versions.join(", ")));
            }
        }
        for (name, version) in &self.doubled {
            let here = by_name.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
            if here.len() < 2 || !here.iter().any(|package| version.matches(&package.version)) {
                findings.push(format!("bans.skip: {name}@{version} is doubled no longer: remove the entry"));
            }
        }
        findings
    }

    fn may_be_doubled(&self, package: &Package) -> bool {
        self.doubled.iter().any(|(name, version)| *name == package.name && version.matches(&package.version))
    }

    fn advisory_findings(&self, graph: &Graph) -> Vec<String> {
        let mut findings = Vec::new();
        let mut hit = BTreeSet::new();
        for advisory in &self.advisories {
            let affected =
                |package: &&Package| package.name == advisory.name && advisory.affected.matches(&package.version);
            for package in graph.packages.iter().filter(affected) {
                hit.insert(advisory.id.as_str());
                if !self.borne.iter().any(|(id, _)| *id == advisory.id) {
                    findings.push(format!("{}: {} ({})", package.label(), advisory.id, advisory.about));
                }
            }
        }
        for (id, reason) in &self.borne {
            if !reason.contains("; ends when ") {
                findings.push(format!("advisories.ignore: {id} does not say when it ends"));
            }
            if !hit.contains(id.as_str()) {
                findings.push(format!("advisories.ignore: {id} concerns nothing here: remove the entry"));
            }
        }
        findings
    }
}

/// Finds libraries that reach both TLS providers with default features.
///
/// rustls then cannot choose its process default and panics in an application that asks for it.
fn two_providers(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for library in graph.libraries() {
        let needs = graph.reachable(library);
        if needs.contains("ring") && needs.contains("aws-lc-rs") {
            findings.push(format!("{} reaches two TLS providers, ring and aws-lc-rs", library.name));
        }
    }
    findings
}

/// Returns the names of the dependencies from outside that the root manifest lists.
fn workspace_dependencies(manifest: &str) -> Result<BTreeSet<String>, String> {
    let manifest: Table = manifest.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    let stated =
        manifest.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    let from_outside = stated.into_iter().flatten().filter(|(_, what)| what.get("path").is_none());
    Ok(from_outside.map(|(name, _)| name.clone()).collect())
}

/// Finds dependencies of the workspace without a line in the table of `docs/dependencies.md`, and lines without one.
fn undocumented(needed: &BTreeSet<String>, document: &str) -> Vec<String> {
    let lines = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let described: BTreeSet<String> = lines.map(String::from).collect();
    let missing = needed.difference(&described).map(|name| format!("docs/dependencies.md has no line for {name}"));
    let needless =
        described.difference(needed).map(|name| format!("docs/dependencies.md has a needless line for {name}"));
    missing.chain(needless).collect()
}

/// Finds dependencies of the workspace that no member asks for.
fn unused(needed: &BTreeSet<String>, graph: &Graph) -> Vec<String> {
    let asked: BTreeSet<&str> = graph.members().flat_map(|member| &member.asks).map(String::as_str).collect();
    let unused = needed.iter().filter(|name| !asked.contains(name.as_str()));
    unused.map(|name| format!("no member depends on {name}: remove it from the root manifest")).collect()
}

fn file(name: &str) -> Result<String, String> {
    std::fs::read_to_string(shell::root().join(name)).map_err(|error| format!("{name}: {error}"))
}

fn list<'t>(table: &'t Table, section: &str, key: &str) -> &'t [Value] {
    let found = table.get(section).and_then(|section| section.get(key)).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

fn text(entry: &Value, key: &str) -> Result<String, String> {
    let found = entry.get(key).and_then(Value::as_str).map(String::from);
    found.ok_or_else(|| format!("an entry has no {key:?}: {entry:?}"))
}

fn requirement(text: &str) -> Result<VersionReq, String> {
    VersionReq::parse(text).map_err(|error| format!("{text:?} is not a version requirement: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use semver::Version;

    fn package(name: &str, version: &str, licence: &str) -> Package {
        Package {
            id: format!("{name}@{version}"),
            name: name.into(),
            version: Version::parse(version).unwrap(),
            licence: Some(licence.into()),
            rust_version: None,
            member: false,
            from_registry: true,
            has_library: true,
            features: BTreeMap::new(),
            asks: Vec::new(),
            settings: serde_json::Value::Null,
        }
    }

    fn findings(deny: &str, packages: &[Package]) -> Vec<String> {
        let advisories = r#"
            [[advisory]]
            id = "RUSTSEC-0000-0001"
            crate = "old"
            affected = "<2"
            about = "unmaintained""#;
        let deny = format!("[licenses]\nallow = [\"MIT\"]\n{deny}");
        Policy::parse(&deny, advisories).unwrap().findings(&Graph::of(packages))
    }

    #[test]
    fn a_licence_off_the_list_is_found() {
        assert_eq!(findings("", &[package("a", "1.0.0", "MIT OR GPL-3.0-only")]), [""; 0]);
        assert_eq!(
            findings("", &[package("a", "1.0.0", "GPL-3.0-only")]),
            ["a 1.0.0: no allowed licence in \"GPL-3.0-only\""]
        );
    }

    #[test]
    fn a_banned_crate_is_found() {
        let deny = r#"[bans]
            deny = [{ crate = "a", reason = "because" }]"#;
        assert_eq!(findings(deny, &[package("a", "1.0.0", "MIT")]), ["a 1.0.0 is banned: because"]);
    }

    #[test]
    fn a_second_version_is_found_unless_it_is_listed_and_a_needless_entry_is_found_too() {
        let both = [package("a", "1.0.0", "MIT"), package("a", "2.0.0", "MIT")];
        let listed = r#"[bans]
            skip = [{ crate = "a@1", reason = "because" }]"#;
        assert_eq!(findings("", &both), ["a is there 2 times (1.0.0, 2.0.0)"]);
        assert_eq!(findings(listed, &both), [""; 0]);
        assert_eq!(findings(listed, &both[1..]), ["bans.skip: a@^1 is doubled no longer: remove the entry"]);
    }

    #[test]
    fn an_advisory_is_found_unless_it_is_borne_until_a_stated_end() {
        let old = [package("old", "1.9.0", "MIT")];
        let borne =
            |reason| format!("[advisories]\nignore = [{{ id = \"RUSTSEC-0000-0001\", reason = \"{reason}\" }}]");
        assert_eq!(findings("", &old), ["old 1.9.0: RUSTSEC-0000-0001 (unmaintained)"]);
        assert_eq!(findings(&borne("off by default; ends when it is gone"), &old), [""; 0]);
        assert_eq!(findings(&borne("off by default"), &old).len(), 1);
        assert_eq!(findings(&borne("x; ends when y"), &[package("old", "2.0.0", "MIT")]).len(), 1);
    }

    #[test]
    fn a_licence_may_be_allowed_for_one_crate() {
        let deny = "exceptions = [{ allow = [\"NCSA\"], crate = \"a\" }]";
        assert_eq!(findings(deny, &[package("a", "1.0.0", "MIT AND NCSA")]), [""; 0]);
        assert_eq!(findings(deny, &[package("b", "1.0.0", "MIT AND NCSA")]).len(), 1);
    }

    #[test]
    fn a_dependency_without_a_line_and_a_line_without_a_dependency_are_found() {
        let manifest = "[workspace.dependencies]\na = \"1\"\nb = \"1\"\nown = { path = \"own\" }";
        let needed = workspace_dependencies(manifest).unwrap();
        let found = undocumented(&needed, "| crate | why |\n| `a` | x |\n| `c` | y |");
        assert_eq!(found, ["docs/dependencies.md has no line for b", "docs/dependencies.md has a needless line for c"]);
    }

    #[test]
    fn a_dependency_that_no_member_asks_for_is_found() {
        let mut member = package("own", "1.0.0", "MIT");
        (member.member, member.asks) = (true, vec!["a".into()]);
        let needed = ["a", "b"].map(String::from).into();
        assert_eq!(
            unused(&needed, &Graph::of(&[member])),
            ["no member depends on b: remove it from the root manifest"]
        );
    }

    #[test]
    fn the_files_of_the_project_can_be_read() {
        Policy::read().unwrap();
    }
}
