//! Prints the size of each type that an application of the core keeps in RAM, one per line, as name and bytes.

fn main() {
    show::<steadfast_core::text::Text<'static>>("text::Text");
}

fn show<T>(name: &str) {
    println!("{name} {}", size_of::<T>());
}
