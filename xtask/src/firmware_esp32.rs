//! `esp32`: the image for the ESP32-C3, built and made flashable without a board.

use std::path::PathBuf;

use crate::firmware_target::{self, Compiler};
use crate::{Done, Outcome, shell, tools};

const TARGET: &str = "riscv32imc-unknown-none-elf";

/// What makes an image flashable; compiling it takes longer than everything else.
const ESPFLASH: &str = "4.7.0";

/// What the image is built with where the environment does not say: enough to build, not to connect.
const EXAMPLE: [(&str, &str); 7] = [
    ("WIFI_SSID", "example"),
    ("WIFI_PASSWORD", "example-password"),
    ("ID_SCOPE", "0ne00EMULATOR"),
    ("REGISTRATION_ID", "pump-7"),
    ("DEVICE_KEY", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="),
    ("GATEWAY", "192.168.1.10:8883"),
    ("BUILT_AT", "1780000000"),
];

/// Builds `examples/esp32-c3` and makes a flashable image of it; installs what is missing.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::expect_none(arguments)?;
    firmware_target::install()?;
    if firmware_target::linker().is_err() {
        tools::apt_get(&["lld-19"])?;
    }
    let compiler = Compiler::find(TARGET)?;
    let place = shell::root().join("examples/esp32-c3");
    let directory = shell::target_directory().join("xtask/esp32-c3");
    let mut build = compiler.cargo_with(&["core", "alloc"], "build", TARGET, &place, &directory);
    build.arg("--locked").current_dir(&place);
    build.env("CARGO_TARGET_RISCV32IMC_UNKNOWN_NONE_ELF_LINKER", firmware_target::linker()?);
    for (name, value) in EXAMPLE {
        if std::env::var_os(name).is_none() {
            build.env(name, value);
        }
    }
    if std::env::var_os("AUTHORITY").is_none() {
        // Nobody is trusted then.
        let nobody = directory.join("authority.der");
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        std::fs::write(&nobody, "").map_err(|error| format!("{}: {error}", nobody.display()))?;
        build.env("AUTHORITY", nobody);
    }
    shell::run(&mut build)?;

    let image = directory.join("esp32-c3.bin");
    let mut save = shell::program(espflash()?, ["save-image", "--chip", "esp32c3"]);
    shell::run(save.arg(directory.join(TARGET).join("release/esp32-c3")).arg(&image))?;
    let bytes = std::fs::metadata(&image).map_err(|error| format!("{}: {error}", image.display()))?.len();
    Ok(Done::Ran(format!("{} has {bytes} bytes", image.display())))
}

fn espflash() -> Result<PathBuf, String> {
    if let Some(found) = shell::find("espflash") {
        return Ok(found);
    }
    let root = shell::target_directory().join("xtask/tools");
    let own = root.join("bin/espflash");
    if !own.is_file() {
        println!("compiling espflash {ESPFLASH}; this takes ten minutes or more");
        let mut install = shell::cargo(["install", "--quiet", "--locked", "espflash", "--version", ESPFLASH, "--root"]);
        shell::run(install.arg(&root))?;
    }
    if own.is_file() { Ok(own) } else { Err("espflash was installed and is not there".into()) }
}
