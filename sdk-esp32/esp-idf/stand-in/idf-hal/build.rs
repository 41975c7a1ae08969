//! Passes on which parts of ESP-IDF there are.

fn main() {
    if let Ok(parts) = std::env::var("DEP_ESP_IDF_EMBUILD_CFG_ARGS") {
        println!("cargo::metadata=EMBUILD_CFG_ARGS={parts}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
