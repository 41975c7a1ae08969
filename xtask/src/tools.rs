//! What tests need beyond cargo, and how it is installed on Debian.

use crate::shell;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that must be there.
enum Sign {
    /// A program of the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

struct Need {
    sign: Sign,
    /// The Debian package that brings it.
    package: &'static str,
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need { sign: Sign::Program("cc"), package: "gcc", why: "ring and the C peer are compiled with it" },
    Need { sign: Sign::Program("mosquitto"), package: "mosquitto", why: "independent broker" },
    Need { sign: Sign::Program("mosquitto_sub"), package: "mosquitto-clients", why: "independent client" },
    Need {
        sign: Sign::File("/usr/include/MQTTAsync.h"),
        package: "libpaho-mqtt-dev",
        why: "independent client and peer",
    },
    Need { sign: Sign::Program("openssl"), package: "openssl", why: "keys in every form of PEM" },
    Need { sign: Sign::Program("softhsm2-util"), package: "softhsm2", why: "keys in a PKCS#11 token" },
    Need { sign: Sign::Program("swtpm"), package: "swtpm", why: "a TPM 2.0" },
    Need { sign: Sign::Program("ip"), package: "iproute2", why: "network faults" },
    Need { sign: Sign::Program("node"), package: "nodejs", why: "the official Node SDK as a judge" },
    Need { sign: Sign::Program("npm"), package: "npm", why: "installs the official Node SDK" },
    Need { sign: Sign::Program("nft"), package: "nftables", why: "network faults" },
];

/// The official Python SDK, which judges the local hub.
const PYTHON_JUDGE: &str = "azure-iot-device==2.14.0";

/// Where the packages of the official Node SDK are named with their versions and digests.
const NODE_JUDGE: &str = "tests/e2e/node";
const NODE_FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// Installs what is missing.
///
/// Returns one line per thing that is missing still, with the reason; tests that need it cannot count as passed.
pub(crate) fn install() -> Vec<String> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !need.is_there()).collect();
    let mut lines = Vec::new();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        println!("installing {}", packages.join(" "));
        let result = apt_get(&packages);
        for need in missing.iter().filter(|need| !need.is_there()) {
            let why = result.as_ref().err().map_or("the package did not bring it", String::as_str);
            lines.push(format!("{} ({}): {why}", need.package, need.why));
        }
    }
    if let Err(why) = python_judge() {
        lines.push(format!("{PYTHON_JUDGE} (the official SDK as a judge): {why}"));
    }
    if let Err(why) = node_judge() {
        lines.push(format!("the packages of {NODE_JUDGE} (the official Node SDK as a judge): {why}"));
    }
    lines
}

/// Says what is missing, and installs nothing.
pub(crate) fn missing() -> Vec<String> {
    let needs = NEEDS.iter().filter(|need| !need.is_there());
    let mut lines: Vec<String> = needs.map(|need| format!("{} ({})", need.package, need.why)).collect();
    if !python_with_judge().is_some_and(|python| has_judge(&python)) {
        lines.push(format!("{PYTHON_JUDGE} (the official SDK as a judge)"));
    }
    if !has_node_judge() {
        lines.push(format!("the packages of {NODE_JUDGE} (the official Node SDK as a judge)"));
    }
    lines
}

/// Returns the Python that has the official SDK, and sets it up if it is missing.
pub(crate) fn official_python_sdk() -> Result<PathBuf, String> {
    python_judge()?;
    python_with_judge().ok_or_else(|| "the official Python SDK was installed and is not there".into())
}

/// Returns the Python that has the official SDK, when it was set up.
pub(crate) fn python_with_judge() -> Option<PathBuf> {
    let python = judge_directory().join("bin/python");
    python.is_file().then_some(python)
}

/// Makes sure that `package` is there, which `sign` tells.
///
/// # Errors
/// Why it cannot be installed.
pub(crate) fn ensure_file(sign: &'static str, package: &'static str) -> Result<(), String> {
    if Path::new(sign).exists() {
        return Ok(());
    }
    apt_get(&[package])?;
    if Path::new(sign).exists() { Ok(()) } else { Err(format!("{package} did not bring {sign}")) }
}

impl Need {
    fn is_there(&self) -> bool {
        match self.sign {
            Sign::Program(name) => shell::find(name).is_some(),
            Sign::File(path) => Path::new(path).is_file(),
        }
    }
}

/// Installs Debian packages, as root or through sudo when that asks no question.
///
/// # Errors
/// Why they cannot be installed.
pub(crate) fn apt_get(packages: &[&str]) -> Result<(), String> {
    let become_root: &[&str] = if is_root() {
        &[]
    } else if shell::run(&mut quiet("sudo", &["-n", "true"])).is_ok() {
        &["sudo", "-n"]
    } else {
        return Err(format!("apt-get needs root; run: apt-get install {}", packages.join(" ")));
    };
    let install = ["apt-get", "install", "-y", "--no-install-recommends"];
    let attempt = |arguments: &[&str]| {
        let line: Vec<&str> = become_root
            .iter()
            .chain(["env", "DEBIAN_FRONTEND=noninteractive"].iter())
            .chain(arguments)
            .copied()
            .collect();
        let (program, rest) = line.split_first().ok_or("nothing to run")?;
        shell::run(&mut shell::program(program, rest))
    };
    let line: Vec<&str> = install.iter().chain(packages).copied().collect();
    // A fresh machine has no package lists; an old one has stale ones.
    if attempt(&line).is_ok() {
        return Ok(());
    }
    attempt(&["apt-get", "update"])?;
    attempt(&line)
}

fn is_root() -> bool {
    shell::output_of(&mut shell::program("id", ["-u"])).is_ok_and(|id| id.trim() == "0")
}

fn quiet(program: &str, arguments: &[&str]) -> Command {
    let mut command = shell::program(program, arguments);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

fn judge_directory() -> PathBuf {
    shell::root().join("target/python-judge")
}

fn has_judge(python: &Path) -> bool {
    let version = PYTHON_JUDGE.split_once("==").map_or("", |(_, version)| version);
    let check = format!("import azure.iot.device.constant as c; assert c.VERSION == '{version}'");
    quiet(&python.display().to_string(), &["-c", &check]).status().is_ok_and(|status| status.success())
}

fn python_judge() -> Result<(), String> {
    if python_with_judge().is_some_and(|python| has_judge(&python)) {
        return Ok(());
    }
    let directory = judge_directory();
    println!("setting up {PYTHON_JUDGE}");
    let shown = directory.display().to_string();
    if shell::run(&mut quiet("python3", &["-m", "venv", "--clear", &shown])).is_err() {
        // Debian's python3 comes without what a virtual environment needs.
        apt_get(&["python3-venv"])?;
        shell::run(&mut shell::program("python3", ["-m", "venv", "--clear", &shown]))?;
    }
    let python = directory.join("bin/python");
    shell::run(&mut shell::program(
        &python,
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYTHON_JUDGE],
    ))?;
    if has_judge(&python) { Ok(()) } else { Err("it was installed and cannot be imported".into()) }
}

/// Returns the folder of Node's modules that has the official SDK, when it was set up.
pub(crate) fn node_modules_with_judge() -> Option<PathBuf> {
    let modules = node_directory().join("node_modules");
    modules.join("azure-iot-device/package.json").is_file().then_some(modules)
}

fn node_directory() -> PathBuf {
    shell::root().join("target/node-judge")
}

/// Tells whether the packages that are installed are those that are named.
fn has_node_judge() -> bool {
    let read = |folder: PathBuf, name: &str| std::fs::read(folder.join(name)).ok();
    node_modules_with_judge().is_some()
        && NODE_FILES.iter().all(|name| {
            let named = read(shell::root().join(NODE_JUDGE), name);
            named.is_some() && named == read(node_directory(), name)
        })
}

fn node_judge() -> Result<(), String> {
    if has_node_judge() {
        return Ok(());
    }
    let directory = node_directory();
    println!("setting up the packages of {NODE_JUDGE}");
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(failed)?;
    }
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let [packages, lock] = NODE_FILES;
    let copy = |name: &str| std::fs::copy(shell::root().join(NODE_JUDGE).join(name), directory.join(name));
    copy(packages).map_err(failed)?;
    copy(lock).map_err(failed)?;
    // Nothing of what is installed runs its own scripts: none of it needs to.
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let installed = shell::run(shell::program("npm", arguments).current_dir(&directory));
    if installed.is_err() {
        // The copies say that all is there.
        std::fs::remove_dir_all(&directory).map_err(failed)?;
    }
    installed
}
