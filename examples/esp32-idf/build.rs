//! Passes on to the linker what ESP-IDF's build says; without ESP-IDF there is nothing to pass on.

fn main() {
    embuild::espidf::sysenv::output();
}
