//! What cargo knows about the packages of a workspace.

use crate::shell;
use semver::Version;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A package of the dependency graph.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: Version,
    /// The licence expression, when one is stated.
    pub(crate) licence: Option<String>,
    pub(crate) rust_version: Option<Version>,
    /// True for the workspace's own.
    pub(crate) member: bool,
    /// True when it comes from a registry.
    pub(crate) from_registry: bool,
    pub(crate) has_library: bool,
    /// Features by name, each with what it switches on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// Names of the packages that its manifest asks for, those of its tests included.
    pub(crate) asks: Vec<String>,
    /// `package.metadata.steadfast` of the manifest.
    pub(crate) settings: Value,
}

impl Package {
    /// Returns `name version`.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

/// The packages and who needs whom outside of tests.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) packages: Vec<Package>,
    /// Normal and build dependencies by package id.
    needs: BTreeMap<String, Vec<String>>,
}

impl Graph {
    /// Asks cargo for the graph of the workspace at `manifest`, or of the main one.
    ///
    /// # Errors
    /// What cargo said.
    pub(crate) fn read(manifest: Option<&str>, arguments: &[&str], targets: &[String]) -> Result<Self, String> {
        let mut command = shell::cargo(["metadata", "--format-version", "1", "--locked"]);
        command.args(arguments);
        if let Some(manifest) = manifest {
            command.args(["--manifest-path", manifest]);
        }
        for target in targets {
            command.args(["--filter-platform", target]);
        }
        Self::parse(&shell::output_of(&mut command)?)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("cargo metadata: {error}"))?;
        let members: BTreeSet<&str> = texts(&value["workspace_members"]).collect();
        let nodes = list(&value["resolve"]["nodes"]);
        // What the chosen targets do not need is listed as a package and has no node.
        let resolved: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
        let mut packages = Vec::new();
        for entry in list(&value["packages"]) {
            let id = entry["id"].as_str().ok_or("cargo metadata: a package without id")?;
            if resolved.contains(id) {
                packages.push(package(entry, id, members.contains(id))?);
            }
        }
        let mut needs = BTreeMap::new();
        for node in nodes {
            let Some(id) = node["id"].as_str() else { continue };
            let dependencies = list(&node["deps"]).iter();
            let outside_of_tests = dependencies
                .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].as_str() != Some("dev")));
            needs.insert(
                id.to_owned(),
                outside_of_tests.filter_map(|dep| dep["pkg"].as_str()).map(String::from).collect(),
            );
        }
        Ok(Self { packages, needs })
    }

    /// Returns a graph of packages that need nothing.
    #[cfg(test)]
    pub(crate) fn of(packages: &[Package]) -> Self {
        Self { packages: packages.to_vec(), needs: BTreeMap::new() }
    }

    /// Returns the workspace's own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.member)
    }

    /// Returns the members that applications depend on: the core and its frontends.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = &Package> {
        self.members().filter(|package| package.has_library && LIBRARIES.contains(&package.name.as_str()))
    }

    /// Returns the names of all packages that `root` needs outside of its tests, itself included.
    pub(crate) fn reachable(&self, root: &Package) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![root.id.as_str()];
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(self.needs.get(id).into_iter().flatten().map(String::as_str));
            }
        }
        self.packages.iter().filter(|package| seen.contains(package.id.as_str())).map(|p| p.name.as_str()).collect()
    }
}

/// The packages that applications depend on.
const LIBRARIES: &[&str] = &["steadfast-core", "steadfast", "steadfast-esp32"];

fn package(entry: &Value, id: &str, member: bool) -> Result<Package, String> {
    let name = entry["name"].as_str().unwrap_or_default().to_owned();
    let version = entry["version"].as_str().unwrap_or_default();
    let version = Version::parse(version).map_err(|error| format!("{name} {version}: {error}"))?;
    let rust_version = match entry["rust_version"].as_str() {
        Some(text) => Some(rust_version(text).ok_or_else(|| format!("{name} states the Rust version {text:?}"))?),
        None => None,
    };
    let features = entry["features"].as_object().into_iter().flatten();
    Ok(Package {
        id: id.to_owned(),
        name,
        version,
        licence: entry["license"].as_str().map(String::from),
        rust_version,
        member,
        from_registry: entry["source"].as_str().is_some_and(|source| source.starts_with("registry+")),
        has_library: list(&entry["targets"]).iter().any(|target| texts(&target["kind"]).any(|kind| kind == "lib")),
        features: features.map(|(name, on)| (name.clone(), texts(on).map(String::from).collect())).collect(),
        asks: list(&entry["dependencies"])
            .iter()
            .filter_map(|asked| asked["name"].as_str())
            .map(String::from)
            .collect(),
        settings: entry["metadata"]["steadfast"].clone(),
    })
}

/// Reads `1.88` or `1.88.0`.
pub(crate) fn rust_version(text: &str) -> Option<Version> {
    let dots = text.matches('.').count();
    Version::parse(&format!("{text}{}", ".0".repeat(2_usize.saturating_sub(dots)))).ok()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{
        "workspace_members": ["own"],
        "packages": [
            {"id": "own", "name": "steadfast", "version": "0.1.0", "license": "MIT", "rust_version": "1.88", "source": null,
             "targets": [{"kind": ["lib"]}], "features": {"default": [], "x": ["dep:one"]}},
            {"id": "one", "name": "one", "version": "1.2.3", "license": "MIT", "rust_version": null,
             "source": "registry+somewhere", "targets": [{"kind": ["lib"]}], "features": {}},
            {"id": "two", "name": "two", "version": "2.0.0", "license": null, "rust_version": "1.70.1",
             "source": "git+somewhere", "targets": [{"kind": ["lib"]}], "features": {}},
            {"id": "other-platform", "name": "w", "version": "1.0.0", "license": null, "targets": [], "features": {}}],
        "resolve": {"nodes": [
            {"id": "own", "deps": [{"pkg": "one", "dep_kinds": [{"kind": null}]}, {"pkg": "two", "dep_kinds": [{"kind": "dev"}]}]},
            {"id": "one", "deps": []}, {"id": "two", "deps": []}]}}"#;

    #[test]
    fn what_only_tests_need_is_not_reachable() {
        let graph = Graph::parse(SMALL).unwrap();
        let own = graph.libraries().next().unwrap();
        assert_eq!(graph.reachable(own).into_iter().collect::<Vec<_>>(), ["one", "steadfast"]);
        assert_eq!(graph.packages.len(), 3, "a package of another platform is left out");
    }

    #[test]
    fn a_rust_version_may_leave_out_the_patch() {
        assert_eq!(rust_version("1.88"), Some(Version::new(1, 88, 0)));
        assert_eq!(rust_version("1.70.1"), Some(Version::new(1, 70, 1)));
        assert_eq!(rust_version("soon"), None);
    }
}
