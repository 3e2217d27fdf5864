//! `cargo xtask tidy`: the rules of this repository that no compiler checks.
//!
//! A rule answers with findings: a place, and a sentence that says why it is
//! a rule. Rules look at sources, manifests and pages; none changes a file.

mod codes;
mod dependencies;
mod pages;
mod sources;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use crate::metadata::Workspace;
use crate::shell::Place;
use crate::source::{self, Source};

/// A breach of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    place: String,
    why: String,
}

impl Finding {
    fn new(place: impl fmt::Display, why: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            why: why.into(),
        }
    }

    fn at(source: &Source, position: usize, why: impl Into<String>) -> Self {
        let line = source.line_of(position);
        Self::new(format_args!("{}:{line}", source.path.display()), why)
    }
}

/// Everything the rules look at.
struct Tree<'p> {
    place: &'p Place,
    workspace: Workspace,
    sources: Vec<Source>,
}

/// The command: prints the findings.
pub(crate) fn run(place: &Place) -> Result<ExitCode, String> {
    match check(place) {
        Ok(()) => {
            println!("tidy");
            Ok(ExitCode::SUCCESS)
        }
        Err(findings) => Err(findings),
    }
}

/// All rules; the error lists every finding.
pub(crate) fn check(place: &Place) -> Result<(), String> {
    let tree = Tree {
        place,
        workspace: Workspace::load(place)?,
        sources: source::load(&place.root, Path::new(""))?,
    };
    let mut findings = sources::check(&tree.sources);
    findings.extend(codes::check(&tree.sources));
    findings.extend(dependencies::check(&tree)?);
    findings.extend(pages::check(&tree)?);
    if findings.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = findings
        .iter()
        .map(|Finding { place, why }| format!("{place}: {why}"))
        .collect();
    Err(lines.join("\n"))
}
