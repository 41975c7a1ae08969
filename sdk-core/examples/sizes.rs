//! Prints the RAM of the core's types on this machine.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::mem::size_of;

use steadfast_core::{Config, Event, Link, Output, Provisioned, RamOutbox, Seed};

type Settings = &'static Config<&'static str>;

fn main() {
    let outbox = size_of::<RamOutbox<8, 2048>>();
    let link = size_of::<Link<RamOutbox<8, 2048>, Provisioned<Settings>>>();
    println!("| type | bytes |\n|---|---|");
    println!("| Link with an outbox of 8 messages and 2,048 bytes | {link} |");
    println!("| the outbox in it | {outbox} |");
    println!("| Link without an outbox | {} |", link - outbox);
    println!("| Config of static texts | {} |", size_of::<Config<&'static str>>());
    println!("| Output | {} |", size_of::<Output<'_, Event>>());
    println!("| Seed | {} |", size_of::<Seed>());
}
