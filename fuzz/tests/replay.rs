//! Every target over its corpus and over seeded mutations of it.
//!
//! `STEADFAST_FUZZ_SEED` and `STEADFAST_FUZZ_ROUNDS` choose other mutations and another number of them per target.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use steadfast_fuzz::mutate::Mutator;
use steadfast_fuzz::{TARGETS, Target};

/// Seed unless the environment names one.
const SEED: u64 = 0x5eed_fa57;
/// Mutated inputs per target unless the environment names a number.
const ROUNDS: u64 = 20_000;

#[test]
fn targets_are_named_once_and_in_order() {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(names.is_sorted_by(|before, after| before < after), "{names:?}");
}

#[test]
fn every_folder_of_inputs_has_its_target() {
    let folders = std::fs::read_dir(corpora()).expect("the corpora are there");
    for folder in folders {
        let name = folder.expect("the corpora can be listed").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?}");
    }
}

#[test]
fn every_target_passes_its_corpus() {
    for (name, target) in TARGETS {
        for (file, input) in corpus(name) {
            run(*target, &input, || format!("{name} fails on corpora/{name}/{file}"));
        }
    }
}

#[test]
fn every_target_passes_mutations_of_its_corpus() {
    let seed = from_environment("STEADFAST_FUZZ_SEED").unwrap_or(SEED);
    let rounds = from_environment("STEADFAST_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    println!("seed {seed}, {rounds} inputs per target");
    for (name, target) in TARGETS {
        let corpus: Vec<_> = corpus(name).into_iter().map(|(_, input)| input).collect();
        let mut mutator = Mutator::new(seed);
        for round in 0..rounds {
            let input = mutator.next_input(&corpus);
            run(*target, &input, || format!("{name} fails in round {round} of seed {seed}"));
        }
    }
}

fn run(target: Target, input: &[u8], place: impl FnOnce() -> String) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let digits: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{} with the bytes {digits}", place());
    }
}

/// Returns the inputs of a target with their file names, in order of these.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(files) = std::fs::read_dir(corpora().join(name)) else {
        panic!("corpora/{name} is missing; a target needs inputs to start from");
    };
    let mut inputs: Vec<_> = files
        .map(|file| {
            let file = file.expect("the corpus can be listed");
            let input = std::fs::read(file.path()).expect("the corpus can be read");
            (file.file_name().to_string_lossy().into_owned(), input)
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "corpora/{name} is empty");
    inputs
}

fn corpora() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora")
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; it has to be a number")))
}
