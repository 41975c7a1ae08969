//! Prints the size of each type that an application of the core keeps in RAM, one per line, as name and bytes.

use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::text::Text;
use steadfast_core::{Assignment, Config, Link, Provisioned, RamOutbox};

type Settings = &'static Config<&'static str>;

fn main() {
    show::<Link<RamOutbox<1, 0>, Provisioned<Settings>>>("Link without room for messages");
    show::<Link<RamOutbox<16, 4096>, Provisioned<Settings>>>("Link with 16 messages in 4 KiB");
    show::<Config<&'static str>>("Config");
    show::<Assignment>("Assignment");
    show::<SymmetricKey>("SymmetricKey");
    show::<Text<'static>>("Text");
}

fn show<T>(name: &str) {
    println!("{name} {}", size_of::<T>());
}
