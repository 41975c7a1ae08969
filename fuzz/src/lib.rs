//! Fuzz targets of Steadfast: functions that take any bytes and panic when a promise is broken.
//!
//! Each target is used twice. cargo-fuzz drives it with coverage (`fuzz_targets/`, feature `libfuzzer`), and
//! `tests/replay.rs` runs it on the stable compiler over the committed corpus and over seeded mutations of it. To add one,
//! write its file, name it in [`TARGETS`], and follow the README.

pub mod connection_string;
pub mod decode;
pub mod differential;
pub mod dps_json;
pub mod edge;
pub mod encode;
pub mod files;
pub mod hub;
pub mod link;
pub mod mutate;
mod source;
pub mod topics;
pub mod way;

/// A target: takes any bytes, panics when a promise is broken.
pub type Target = fn(&[u8]);

/// All targets by name, in alphabetical order; the corpus of each is the folder `corpora/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("connection_string", connection_string::target),
    ("decode", decode::target),
    ("differential", differential::target),
    ("dps_json", dps_json::target),
    ("edge", edge::target),
    ("encode", encode::target),
    ("files", files::target),
    ("hub", hub::target),
    ("link", link::target),
    ("topics", topics::target),
    ("way", way::target),
];
