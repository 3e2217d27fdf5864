//! Rust sources as the rules see them: code apart from comments and literals,
//! live code apart from tests.
//!
//! This is no parser. It knows comments, literals and braces, which is what
//! it takes to look for a name without being fooled by a string, and to tell
//! the lines of a `#[cfg(test)]` item. Blanked text keeps its length and its
//! line breaks, so that a position means the same in all three texts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Below the repository's root.
    pub(crate) path: PathBuf,
    /// As it is on disk.
    pub(crate) text: String,
    /// Comments and the insides of literals blanked.
    pub(crate) code: String,
    /// `code` with the test items blanked; nothing where the file is a test.
    pub(crate) live: String,
}

impl Source {
    /// Takes a file's text; `test` where its folder or its module says that
    /// all of it is a test.
    pub(crate) fn new(path: PathBuf, text: String, test: bool) -> Self {
        let code = blank_comments_and_literals(&text);
        let live = if test {
            blank(&code)
        } else {
            blank_test_items(&code)
        };
        Self {
            path,
            text,
            code,
            live,
        }
    }

    /// `code` of the tests only.
    pub(crate) fn tests(&self) -> String {
        let pairs = self.code.bytes().zip(self.live.bytes());
        let only = pairs.map(|(code, live)| {
            if code == live && code != b'\n' {
                b' '
            } else {
                code
            }
        });
        String::from_utf8_lossy(&only.collect::<Vec<u8>>()).into_owned()
    }

    /// Lines that are not tests, comments and blank lines among them.
    pub(crate) fn live_lines(&self) -> usize {
        let lines = |text: &str| text.lines().count();
        let tests = test_items(&self.code);
        let tests: usize = tests.map(|(from, to)| lines(&self.code[from..to])).sum();
        if self.live.trim().is_empty() {
            0
        } else {
            lines(&self.text) - tests
        }
    }

    /// The number of the line, from 1, at a position.
    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }
}

/// Positions at which `name` stands as whole words; `name` may hold `::`, `(`
/// and the like.
pub(crate) fn names(code: &str, name: &str) -> Vec<usize> {
    let part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = code.as_bytes();
    let ends_in_word = name.as_bytes().last().is_some_and(|b| part(Some(b)));
    code.match_indices(name)
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || !part(bytes.get(at - 1)))
        .filter(|&at| !ends_in_word || !part(bytes.get(at + name.len())))
        .collect()
}

/// Every Rust source below `folder`, tests told by their place (`tests/`,
/// `benches/`, a module that its parent declares under `#[cfg(test)]`).
pub(crate) fn load(root: &Path, folder: &Path) -> Result<Vec<Source>, String> {
    let mut texts = Vec::new();
    for path in files(root, folder)? {
        if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(root.join(&path))
                .map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
            texts.push((path, text));
        }
    }
    let declared: BTreeSet<PathBuf> = texts
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    let test = |path: &Path| {
        declared
            .iter()
            .any(|d| path.starts_with(d) || path == d.with_extension("rs"))
            || path
                .components()
                .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "benches")
    };
    Ok(texts
        .into_iter()
        .map(|(path, text)| {
            let test = test(&path);
            Source::new(path, text, test)
        })
        .collect())
}

/// Every file below `folder`, build output and hidden folders left out except
/// those that belong to the repository.
pub(crate) fn files(root: &Path, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(at) = waiting.pop() {
        let entries = fs::read_dir(root.join(&at))
            .map_err(|e| format!("{} cannot be read: {e}", at.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = at.join(&*name);
            let hidden =
                name.starts_with('.') && !matches!(&*name, ".ci" | ".cargo" | ".gitignore");
            let skipped = matches!(&*name, "target" | "node_modules" | "__pycache__");
            match entry.file_type() {
                _ if hidden || skipped => {}
                Ok(kind) if kind.is_dir() => waiting.push(path),
                Ok(kind) if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The folders of the modules that a file declares as tests.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let code = blank_comments_and_literals(text);
    let stem = path.file_stem().unwrap_or_default();
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = if ["lib", "main", "mod"].iter().any(|s| stem == *s) {
        parent.to_path_buf()
    } else {
        parent.join(stem)
    };
    let after = code
        .match_indices(TEST)
        .map(|(at, _)| code[at + TEST.len()..].trim_start());
    after
        .filter_map(|rest| {
            rest.strip_prefix("pub(crate) ")
                .unwrap_or(rest)
                .strip_prefix("mod ")
        })
        .filter_map(|rest| rest.split_once(';'))
        .filter(|(name, _)| !name.contains('{'))
        .map(|(name, _)| folder.join(name.trim()))
        .collect()
}

const TEST: &str = "#[cfg(test)]";

fn blank(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    blank_range(&mut bytes, 0, code.len());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn blank_range(bytes: &mut [u8], from: usize, to: usize) {
    for byte in &mut bytes[from..to] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn blank_test_items(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (from, to) in test_items(code) {
        blank_range(&mut bytes, from, to);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the outermost test items begin and end.
fn test_items(code: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut after = 0;
    std::iter::from_fn(move || {
        let from = after + code[after..].find(TEST)?;
        after = end_of_item(code.as_bytes(), from + TEST.len());
        Some((from, after))
    })
}

/// The end of the item that begins at or after `at`: its closing brace, or the
/// semicolon of one without a body.
fn end_of_item(code: &[u8], at: usize) -> usize {
    let mut depth = 0usize;
    for (index, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && *byte == b'}' {
                    return index + 1;
                }
            }
            b';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank_comments_and_literals(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (from, to, next) = literal_at(text.as_bytes(), at);
        blank_range(&mut bytes, from, to);
        at = next;
    }
    // Blanking whole literals and comments leaves no character cut in two.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What to blank at a position, and where to go on.
fn literal_at(text: &[u8], at: usize) -> (usize, usize, usize) {
    let rest = &text[at..];
    if rest.starts_with(b"//") {
        let end = find(text, at, b"\n").unwrap_or(text.len());
        return (at, end, end);
    }
    if rest.starts_with(b"/*") {
        let end = end_of_comment(text, at);
        return (at, end, end);
    }
    let word_before = at > 0 && (text[at - 1].is_ascii_alphanumeric() || text[at - 1] == b'_');
    if let Some(hashes) = raw_string(rest).filter(|_| !word_before) {
        let open = at + 1 + usize::from(rest[0] != b'r') + hashes + 1;
        let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        let end = find(text, open, &close).unwrap_or(text.len());
        return (open, end, (end + close.len()).min(text.len()));
    }
    match rest[0] {
        b'"' => {
            let end = end_of_quoted(text, at + 1, b'"');
            (at + 1, end, (end + 1).min(text.len()))
        }
        b'\'' if is_character(rest) => {
            let end = end_of_quoted(text, at + 1, b'\'');
            (at + 1, end, (end + 1).min(text.len()))
        }
        _ => (at, at, at + 1),
    }
}

/// The number of hashes of a raw string that begins here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let ([b'b' | b'c', b'r', after @ ..] | [b'r', after @ ..]) = rest else {
        return None;
    };
    let hashes = after.iter().take_while(|b| **b == b'#').count();
    (after.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// A character literal, and no lifetime.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(b) if b.is_ascii() => rest.get(2) == Some(&b'\''),
        Some(_) => rest[2..].iter().take(4).any(|b| *b == b'\''),
        None => false,
    }
}

fn end_of_quoted(text: &[u8], mut at: usize, quote: u8) -> usize {
    while at < text.len() && text[at] != quote {
        at += 1 + usize::from(text[at] == b'\\');
    }
    at.min(text.len())
}

fn end_of_comment(text: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0usize);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn find(text: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    let found = text
        .get(from..)?
        .windows(what.len())
        .position(|w| w == what)?;
    Some(from + found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A live source of this text.
    pub(crate) fn source(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.into(), false)
    }

    #[test]
    fn comments_and_literals_are_blank_and_lifetimes_are_not() {
        let text = "fn a<'t>(x: &'t str) { // sleep(\n let s = \"sleep( \\\" sleep(\"; \
                    /* sleep( /* sleep( */ sleep( */ let c = '\"'; let r = r#\"sleep(\"\"#; wake('\\''); sleep(x) }";
        let found = source("a.rs", text);
        assert_eq!(found.code.len(), text.len());
        assert_eq!(names(&found.code, "sleep(").len(), 1);
        assert_eq!(names(&found.code, "wake").len(), 1);
        assert!(found.code.contains("&'t str"));
    }

    #[test]
    fn characters_beyond_ascii_keep_their_place() {
        let text = "let a = 'é'; let b = \"grün\"; // schön\nfn c() {}\n";
        let found = source("a.rs", text);
        assert_eq!(found.code.len(), text.len());
        assert!(found.code.ends_with("\nfn c() {}\n"));
    }

    #[test]
    fn names_are_whole_words() {
        let code = "tokio::spawn(x); my_tokio; tokios; (tokio)";
        assert_eq!(names(code, "tokio").len(), 2);
        assert_eq!(names(code, "tokio::spawn").len(), 1);
        assert_eq!(names("unsleep(1); sleep(2)", "sleep("), [12]);
    }

    #[test]
    fn test_items_are_told_from_live_code() {
        let text = "fn live() {}\n\n#[cfg(test)]\nmod tests {\n    fn t() { let a = [1; 2]; }\n\n    // why\n    fn u() {}\n}\nfn more() {}\n";
        let found = source("a.rs", text);
        assert!(found.live.contains("live") && found.live.contains("more"));
        assert!(!found.live.contains("fn t"));
        assert!(found.tests().contains("fn u") && !found.tests().contains("more"));
        assert_eq!(found.live_lines(), 3);
    }

    #[test]
    fn a_whole_file_of_tests_has_no_live_lines() {
        let found = Source::new("a.rs".into(), "//! head\n\nfn t() {}\n".into(), true);
        assert_eq!(found.live.trim(), "");
        assert_eq!(found.live_lines(), 0);
    }

    #[test]
    fn modules_declared_as_tests_are_found_beside_their_parent() {
        let lib = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod inner { fn a() {} }\n";
        assert_eq!(
            test_modules(Path::new("c/src/lib.rs"), lib),
            [PathBuf::from("c/src/tests")]
        );
        let deep = "#[cfg(test)]\npub(crate) mod cases;\n";
        let found = test_modules(Path::new("c/src/head.rs"), deep);
        assert_eq!(found, [PathBuf::from("c/src/head/cases")]);
    }
}
