//! Rules that look at one Rust source at a time.

use std::path::Path;

use super::Finding;
use crate::source::{Source, names};

/// Longest file, tests left out: what a reader takes in at one sitting.
const MAX_LINES: usize = 500;
/// A module above this has a head that says what it is for.
const HEAD_FROM: usize = 150;
/// The one place that waits by the clock, so that tests need not.
const WAITS: &str = "crates/testkit/src/wait.rs";

/// Marks of work that was put off.
const MARKS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Crates whose code is for tests alone.
const TEST_CRATES: [&str; 3] = ["crates/testkit", "crates/sim", "fuzz"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        length(source, &mut findings);
        head(source, &mut findings);
        put_off(source, &mut findings);
        sleeps(source, &mut findings);
        exceptions(source, &mut findings);
    }
    findings
}

fn length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.live_lines();
    if lines > MAX_LINES {
        let why = format!(
            "has {lines} lines without its tests: above {MAX_LINES} it is split into modules"
        );
        findings.push(Finding::new(source.path.display(), why));
    }
}

fn head(source: &Source, findings: &mut Vec<Finding>) {
    let root = source.path.ends_with("src/lib.rs");
    let has = source.text.trim_start().starts_with("//!");
    let lines = source.live_lines();
    if !has && (root || lines > HEAD_FROM) {
        let why = format!(
            "begins without `//!`: a crate, and a module over {HEAD_FROM} lines ({lines} here), says its purpose and invariants first"
        );
        findings.push(Finding::new(source.path.display(), why));
    }
}

fn put_off(source: &Source, findings: &mut Vec<Finding>) {
    for mark in MARKS {
        for at in names(&source.text, mark) {
            let why = format!("{mark}: what is not done is not in the tree");
            findings.push(Finding::at(source, at, why));
        }
    }
    for at in source.code.match_indices("#[ignore").map(|(at, _)| at) {
        let why = "an ignored test is a test that fails in silence: mend it or remove it";
        findings.push(Finding::at(source, at, why));
    }
}

fn sleeps(source: &Source, findings: &mut Vec<Finding>) {
    if source.path == Path::new(WAITS) {
        return;
    }
    let for_tests = TEST_CRATES
        .iter()
        .any(|folder| source.path.starts_with(folder));
    let tests = if for_tests {
        source.code.clone()
    } else {
        source.tests()
    };
    for at in names(&tests, "sleep(") {
        let why = "a test that sleeps is slow or wrong: wait for the condition, or pause the clock";
        findings.push(Finding::at(source, at, why));
    }
}

fn exceptions(source: &Source, findings: &mut Vec<Finding>) {
    for attribute in ["#[allow(", "#![allow("] {
        for (at, _) in source.code.match_indices(attribute) {
            let why =
                "an exception is `expect(lint, reason = \"…\")`, which goes away with its cause";
            findings.push(Finding::at(source, at, why));
        }
    }
    for (at, _) in source.code.match_indices("unsafe ") {
        let before = &source.text[..at];
        let said = before
            .lines()
            .rev()
            .take(8)
            .any(|line| line.contains("SAFETY"));
        if names(&source.code[at..], "unsafe").first() == Some(&0) && !said {
            findings.push(Finding::at(
                source,
                at,
                "unsafe code says why it is sound, in a SAFETY comment",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source;

    fn whys(found: &Source) -> Vec<String> {
        check(std::slice::from_ref(found))
            .into_iter()
            .map(|f| f.place)
            .collect()
    }

    #[test]
    fn long_files_and_headless_modules_are_found() {
        let long = "fn a() {}\n".repeat(MAX_LINES + 1);
        assert_eq!(whys(&source("a.rs", &long)), ["a.rs", "a.rs"]);
        let headed = format!("//! Why.\n{}", "fn a() {}\n".repeat(MAX_LINES - 1));
        assert!(whys(&source("a.rs", &headed)).is_empty());
        let tests = format!("//! Why.\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(whys(&source("a.rs", &tests)).is_empty());
        assert_eq!(
            whys(&source("crates/x/src/lib.rs", "fn a() {}\n")),
            ["crates/x/src/lib.rs"]
        );
        assert!(whys(&source("crates/x/src/short.rs", "fn a() {}\n")).is_empty());
    }

    #[test]
    fn sleeping_and_ignored_tests_are_found_with_their_line() {
        let text = "fn live() { sleep(1) }\n#[cfg(test)]\nmod tests {\n#[ignore]\nfn t() { tokio::time::sleep(x) }\n}\n";
        assert_eq!(whys(&source("a.rs", text)), ["a.rs:4", "a.rs:5"]);
        assert_eq!(
            whys(&source("crates/testkit/src/a.rs", "fn a() { sleep(1) }")).len(),
            1
        );
        assert!(whys(&source(WAITS, "fn a() { sleep(1) }")).is_empty());
    }

    #[test]
    fn marks_and_unreasoned_exceptions_are_found() {
        let text = format!("// {}: later\n#[allow(dead_code)]\nfn a() {{}}\n", MARKS[0]);
        assert_eq!(whys(&source("a.rs", &text)), ["a.rs:1", "a.rs:2"]);
    }

    #[test]
    fn unsafe_code_needs_its_comment() {
        assert_eq!(
            whys(&source("a.rs", "fn a() { unsafe { b() } }\n")),
            ["a.rs:1"]
        );
        let said = "fn a() {\n // SAFETY: b has no preconditions\n unsafe { b() }\n}\n";
        assert!(whys(&source("a.rs", said)).is_empty());
    }
}
