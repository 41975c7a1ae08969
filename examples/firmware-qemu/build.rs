//! Tells the linker where memory is.

fn main() {
    println!("cargo:rerun-if-changed=link.x");
    println!("cargo:rustc-link-arg=-T{}/link.x", env!("CARGO_MANIFEST_DIR"));
}
