//! Rules on what is written for people: links lead somewhere, promises of one
//! page are kept by another, and nothing names a place that readers have not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, Tree};
use crate::readme;
use crate::source;

/// Hosts that a text of this repository may point to; names reserved for
/// examples and addresses of the machine itself are free. A list of what is
/// allowed says no word about what is not.
const HOSTS: [&str; 9] = [
    "json-schema.org",
    "github.com",
    "rustup.rs",
    "www.rfc-editor.org",
    "datatracker.ietf.org",
    "www.w3.org",
    "keepachangelog.com",
    "semver.org",
    "www.apache.org",
];

/// Endings of host names that stand for no one, or for nobody outside one
/// network (RFC 2606, RFC 6761, RFC 6762).
const FREE: [&str; 10] = [
    ".lan",
    ".local",
    ".test",
    ".example",
    ".invalid",
    ".localhost",
    "localhost",
    "example.com",
    "example.org",
    "example.net",
];

/// Folders that only the machines of this project's makers have.
const FOREIGN: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("../sha", "red"),
    concat!("/ro", "ot/"),
];

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let root = &tree.place.root;
    let mut pages = BTreeMap::new();
    for path in source::files(root, Path::new(""))? {
        // Binary files, corpora among them, are no text and say nothing.
        let Ok(text) = fs::read_to_string(root.join(&path)) else {
            continue;
        };
        if path != Path::new("Cargo.lock") && !path.starts_with("fuzz/corpus") {
            hosts(&path, &text, &mut findings);
            foreign(&path, &text, &mut findings);
        }
        if path.extension().is_some_and(|e| e == "md") {
            pages.insert(path, text);
        }
    }
    for (path, text) in &pages {
        links(root, path, text, &pages, &mut findings);
    }
    let architecture = pages
        .get(Path::new("ARCHITECTURE.md"))
        .map_or("", String::as_str);
    let members = tree
        .workspace
        .members
        .iter()
        .map(|m| m.folder.to_string_lossy().into_owned());
    code_map(architecture, members, &mut findings);
    codes(tree, &pages, &mut findings);
    test_command(tree, &mut findings)?;
    Ok(findings)
}

fn hosts(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in text.lines().enumerate() {
        for scheme in ["http://", "https://"] {
            for (at, _) in line.match_indices(scheme) {
                let host = host_in(&line[at + scheme.len()..]);
                if !may_name(host) {
                    let place = format!("{}:{}", path.display(), number + 1);
                    let why = format!(
                        "names the host {host}: a page points only where every reader can go (the list is in xtask)"
                    );
                    findings.push(Finding::new(place, why));
                }
            }
        }
    }
}

/// The host of what follows a scheme; a name with a placeholder in it, as in
/// `{name}.localhost`, is one.
fn host_in(rest: &str) -> &str {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-._[]:@{}<>*$".contains(c)));
    let authority = &rest[..end.unwrap_or(rest.len())];
    let host = authority.rsplit('@').next().unwrap_or(authority);
    if let Some(end) = host.find(']').filter(|_| host.starts_with('[')) {
        return &host[..=end];
    }
    host.split(':').next().unwrap_or(host).trim_end_matches('.')
}

fn may_name(host: &str) -> bool {
    let address = host.starts_with('[') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let placeholder = !host.contains('.') || host.ends_with(['}', '>', ']']);
    let lower = host.to_ascii_lowercase();
    address
        || placeholder
        || HOSTS.contains(&lower.as_str())
        || FREE.iter().any(|free| lower.ends_with(free))
}

fn foreign(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in text.lines().enumerate() {
        for folder in FOREIGN.iter().filter(|folder| line.contains(**folder)) {
            let place = format!("{}:{}", path.display(), number + 1);
            findings.push(Finding::new(
                place,
                format!("names {folder}, which is a place of one machine"),
            ));
        }
    }
}

fn links(
    root: &Path,
    path: &Path,
    text: &str,
    pages: &BTreeMap<PathBuf, String>,
    findings: &mut Vec<Finding>,
) {
    for target in targets(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = path.parent().unwrap_or(Path::new(""));
        let to = if file.is_empty() {
            path.to_path_buf()
        } else {
            plain(&folder.join(file))
        };
        if !root.join(&to).exists() {
            findings.push(Finding::new(
                path.display(),
                format!("links to {target}, which is not there"),
            ));
            continue;
        }
        let page = pages.get(&to).filter(|_| !anchor.is_empty());
        if page.is_some_and(|page| !anchors(page).any(|a| a == anchor)) {
            findings.push(Finding::new(
                path.display(),
                format!("links to {target}, a page without that heading"),
            ));
        }
    }
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// Where the links and pictures of a page lead, its code blocks left out.
fn targets(markdown: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(markdown) {
        let inline = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        found.extend(inline.map(|(target, _)| target.split(' ').next().unwrap_or(target)));
        for attribute in ["src=\"", "srcset=\"", "href=\""] {
            let values = line
                .split(attribute)
                .skip(1)
                .filter_map(|rest| rest.split_once('"'));
            found.extend(values.map(|(target, _)| target));
        }
    }
    found
}

fn prose(markdown: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    markdown.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// The anchors of a page's headings, made as the common renderers do.
fn anchors(markdown: &str) -> impl Iterator<Item = String> {
    prose(markdown)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
}

/// Every crate has one row of the code map, and every row is a crate.
fn code_map(
    architecture: &str,
    folders: impl Iterator<Item = String>,
    findings: &mut Vec<Finding>,
) {
    let mut rows: BTreeMap<&str, u32> = BTreeMap::new();
    for line in architecture.lines() {
        let row = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split_once('`'));
        if let Some((folder, _)) = row.filter(|(folder, _)| !folder.contains(' ')) {
            *rows.entry(folder).or_default() += 1;
        }
    }
    for folder in folders {
        match rows.remove(folder.as_str()) {
            Some(1) => {}
            Some(_) => findings.push(Finding::new(
                "ARCHITECTURE.md",
                format!("lists {folder} more than once"),
            )),
            None => findings.push(Finding::new(
                "ARCHITECTURE.md",
                format!("does not list {folder}: each crate has one row with its invariant"),
            )),
        }
    }
    for folder in rows.into_keys().filter(|row| row.starts_with("crates/")) {
        findings.push(Finding::new(
            "ARCHITECTURE.md",
            format!("lists {folder}, which is no crate"),
        ));
    }
}

/// A code that a source or a page mentions has one paragraph.
fn codes(tree: &Tree, pages: &BTreeMap<PathBuf, String>, findings: &mut Vec<Finding>) {
    let list = Path::new("docs/errors.md");
    let Some(errors) = pages.get(list) else {
        return;
    };
    let mut described: BTreeMap<&str, u32> = BTreeMap::new();
    for line in errors.lines().filter(|line| line.starts_with('#')) {
        code_words(line).for_each(|code| *described.entry(code).or_default() += 1);
    }
    for (code, _) in described.iter().filter(|(_, times)| **times > 1) {
        findings.push(Finding::new(
            list.display(),
            format!("{code} has two headings: a code is never reused"),
        ));
    }
    let texts = tree
        .sources
        .iter()
        .filter(|s| !s.path.starts_with("xtask"))
        .map(|s| (&s.path, &s.text));
    for (path, text) in texts.chain(pages) {
        for code in code_words(text).filter(|code| !described.contains_key(code)) {
            findings.push(Finding::new(
                path.display(),
                format!("mentions {code}, which docs/errors.md does not explain"),
            ));
        }
    }
}

fn code_words(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("ADIT-").filter_map(|(at, _)| {
        let word = text.get(at..at + 9)?;
        word[5..]
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then_some(word)
    })
}

/// What the continuous integration runs is what the README tells its reader.
fn test_command(tree: &Tree, findings: &mut Vec<Finding>) -> Result<(), String> {
    let script = fs::read_to_string(tree.place.root.join(".ci/run"))
        .map_err(|e| format!(".ci/run cannot be read: {e}"))?;
    let commands = readme::commands(tree.place)?;
    let run = script
        .lines()
        .filter_map(|line| line.strip_prefix("exec "))
        .next_back();
    if !run.is_some_and(|run| commands.iter().any(|c| c == run)) {
        findings.push(Finding::new(
            ".ci/run",
            "ends in `exec` of a command that stands in the README",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_examples_and_placeholders() {
        for (text, host) in [
            ("app.example.test:7400/path", "app.example.test"),
            ("[::1]:80/", "[::1]"),
            ("user:pw@host.test.", "host.test"),
            ("{name}.localhost:8080`", "{name}.localhost"),
        ] {
            assert_eq!(host_in(text), host);
            assert!(may_name(host), "{host}");
        }
        assert!(!may_name("registry.io") && !may_name("evil.test.io"));
        let mut findings = Vec::new();
        let text = concat!(
            "see http",
            "s://some.registry.io/x and http",
            "://127.0.0.1:1/"
        );
        hosts(Path::new("a.md"), text, &mut findings);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].why.contains("some.registry.io"));
    }

    #[test]
    fn places_of_one_machine_are_found() {
        let mut findings = Vec::new();
        foreign(
            Path::new("a.md"),
            &format!("x\nsee {}y", FOREIGN[0]),
            &mut findings,
        );
        assert_eq!(findings[0].place, "a.md:2");
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = "# One thing\n[a](src/main.rs) [b](#one-thing) ![c](gone.svg)\n```\n[d](no)\n```\n<img src=\"no.svg\"> [e](#other)\n";
        let path = PathBuf::from("page.md");
        let pages = BTreeMap::from([(path.clone(), page.to_owned())]);
        // The page itself need not lie on the disk for links to files beside it.
        let mut findings = Vec::new();
        let own: Vec<&str> = targets(page);
        assert_eq!(
            own,
            ["src/main.rs", "#one-thing", "gone.svg", "#other", "no.svg"]
        );
        links(
            root,
            &path,
            &page.replace("(#", "(Cargo.toml#"),
            &pages,
            &mut findings,
        );
        let whys: Vec<&str> = findings.iter().map(|f| f.why.as_str()).collect();
        assert_eq!(
            whys,
            [
                "links to gone.svg, which is not there",
                "links to no.svg, which is not there"
            ]
        );
        assert_eq!(
            anchors("## What `works`, today\n").next().unwrap(),
            "what-works-today"
        );
        assert_eq!(plain(Path::new("docs/../a/./b")), Path::new("a/b"));
    }

    #[test]
    fn the_code_map_lists_each_crate_once() {
        let page =
            "| `crates/a` | x |\n| `crates/b` | y |\n| `crates/b` | z |\n| `crates/gone` | w |\n";
        let mut findings = Vec::new();
        let folders = ["crates/a", "crates/b", "crates/c"].map(str::to_owned);
        code_map(page, folders.into_iter(), &mut findings);
        assert_eq!(findings.len(), 3, "{findings:?}");
    }

    #[test]
    fn codes_are_found_in_any_text() {
        let text = "failed with ADIT-1203, see ADIT-12x4 and ADIT-9";
        assert_eq!(code_words(text).collect::<Vec<_>>(), ["ADIT-1203"]);
    }
}
