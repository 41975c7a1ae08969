//! Checks that `docs/features.md` has evidence for each of its cells, and that the tests it names exist.

use crate::shell;
use std::collections::BTreeSet;

const PAGE: &str = "docs/features.md";

/// Where the tests of the second and third column of our own evidence are.
const FOLDERS: [&str; 2] = ["tests/scenarios/tests/scenarios", "tests/e2e/tests"];

/// Checks the page.
///
/// # Errors
/// Every key without evidence, every evidence without a cell, and every test that is not there.
pub(crate) fn check() -> Result<(), String> {
    let root = shell::root();
    let page = std::fs::read_to_string(root.join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    let wrong = flaws(&page, &read);
    if wrong.is_empty() { Ok(()) } else { Err(format!("{PAGE}:\n  {}", wrong.join("\n  "))) }
}

fn flaws(page: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let (table, evidence) = page.split_once("\n## Evidence").unwrap_or((page, ""));
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        for cell in cells.iter().skip(1) {
            match cell.trim().strip_suffix(']').and_then(|cell| cell.rsplit_once('[')) {
                Some((_, key)) => drop(used.insert(key.to_owned())),
                None => wrong.push(format!("{:?} has a cell without a key: {cell:?}", cells[0].trim())),
            }
        }
        if cells.len() != 7 {
            wrong.push(format!("{:?} has {} cells", cells[0].trim(), cells.len()));
        }
    }
    let mut given = BTreeSet::new();
    for line in evidence.lines() {
        if let Some(row) = line.strip_prefix("| ").filter(|row| !row.starts_with('|')) {
            let cells: Vec<_> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
            given.insert(cells[0].to_owned());
            for (folder, cell) in FOLDERS.iter().zip(cells.iter().skip(1)) {
                wrong.extend(tests(cell).filter_map(|(file, test)| {
                    let path = format!("{folder}/{file}.rs");
                    let there = read(&path).is_some_and(|text| text.contains(&format!("fn {test}(")));
                    (!there).then(|| format!("{path} has no test {test}"))
                }));
            }
        } else {
            // Several short ones may share a line.
            let words = line.split_whitespace();
            given.extend(words.filter(|word| is_key(word)).map(str::to_owned));
        }
    }
    wrong.extend(used.difference(&given).map(|key| format!("[{key}] has no evidence")));
    let ours = given.iter().filter(|key| key.len() == 1);
    wrong.extend(ours.filter(|key| !used.contains(*key)).map(|key| format!("{key} belongs to no cell")));
    wrong
}

/// The tests that a cell names as `file::test`.
fn tests(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    let words = cell.split([',', ';', ' ']).map(str::trim);
    words.filter_map(|word| word.split_once("::"))
}

fn is_key(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|letter| "CSPNER".contains(letter))
        && word.len() > 1
        && letters.all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "| | us | C | S | P | N | E |\n|---|---|---|---|---|---|---|\n";

    fn found(row: &str, evidence: &str) -> Vec<String> {
        let page = format!("{HEAD}{row}\n## Evidence\n{evidence}");
        flaws(&page, &|file| (file == "tests/e2e/tests/a.rs").then(|| "async fn works(pipe: Pipe)".into()))
    }

    #[test]
    fn a_page_with_evidence_for_every_cell_is_right() {
        let row = "| Thing | yes [a] | no [C1] | no [S1] | no [P1] | no [N1] | no [E1] |\n";
        let evidence = "| a | b | a::works |\n* C1 x. S1 y\n* P1 z N1 z E1 z\n";
        assert_eq!(found(row, evidence), Vec::<String>::new());
    }

    #[test]
    fn a_key_a_test_and_an_evidence_that_lead_nowhere_are_told() {
        let row = "| Thing | yes [a] | no [C1] | no | no [P1] | no [N1] | no [E1] |\n";
        let evidence = "| a | | a::fails |\n| b | | |\n* C1 P1 N1\n";
        let told = found(row, evidence).join("\n");
        for flaw in ["without a key", "a.rs has no test fails", "[E1] has no evidence", "b belongs to no cell"] {
            assert!(told.contains(flaw), "{told}");
        }
    }
}
