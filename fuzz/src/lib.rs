//! Fuzzing for every parser of foreign bytes.
//!
//! A target is a check over bytes. It is run over each file of its corpus, over
//! inputs made by editing those files, and over bytes made of nothing; the
//! edits are what brings a random input past the first length or checksum.
//! `cargo xtask test` makes a few thousand inputs a target, `cargo xtask fuzz`
//! a million.
//!
//! An input that broke something is printed with its seed; put it into the
//! target's corpus, so that it is replayed for ever.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "code for tests alone, where a panic is how a test fails"
)]

use std::path::PathBuf;

mod edit;

pub use edit::edited;

/// Inputs of a run that asks for no number: what a debug build does in about a
/// second.
const INPUTS: usize = 20_000;
/// Most bytes of the script that an input is made from.
const MAX_SCRIPT: usize = 1024;

/// The files of a target's corpus with their names.
///
/// # Panics
/// When there is none: a target without a corpus checks nothing of value.
#[must_use]
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("the corpus {}: {e}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry of a corpus").path();
            let bytes = std::fs::read(&path).expect("a file of a corpus");
            let name = path.file_name().unwrap_or_default();
            (name.to_string_lossy().into_owned(), bytes)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    files
}

/// Where a target's corpus lies.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// Asks that the corpus holds an input which the code can make itself, under
/// this name. A run with `ADIT_WRITE_CORPUS` in its environment writes it.
///
/// # Panics
/// When the corpus does not hold it.
pub fn holds(target: &str, name: &str, input: &[u8]) {
    let file = folder(target).join(name);
    if std::env::var_os("ADIT_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(folder(target)).expect("the folder of a corpus");
        std::fs::write(&file, input).expect("a file of a corpus");
    }
    let found = std::fs::read(&file).unwrap_or_default();
    assert!(
        found == input,
        "{} is not what this version writes: run this with ADIT_WRITE_CORPUS=1, and keep the old file under another name",
        file.display()
    );
}

/// Replays a target's corpus, then hands it inputs made from it.
///
/// # Panics
/// When the check does.
pub fn target(name: &str, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let corpus = corpus(name);
    for (_, bytes) in &corpus {
        check(bytes);
    }
    let samples: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    bolero::check!(name = name)
        .with_iterations(INPUTS)
        .with_max_len(MAX_SCRIPT)
        .for_each(|script| check(&edited(&samples, script)));
}

/// The same for a check that makes its own inputs from a script of random
/// bytes: sequences of calls rather than one text. Its corpus holds scripts.
///
/// # Panics
/// When the check does.
pub fn scripted(name: &str, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    for (_, script) in corpus(name) {
        check(&script);
    }
    bolero::check!(name = name)
        .with_iterations(INPUTS)
        .with_max_len(MAX_SCRIPT)
        .for_each(|script: &[u8]| check(script));
}
