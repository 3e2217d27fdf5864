//! Mistakes against the grammar of TOML: all of them, in our words.

use std::ops::Range;

use adit_model::Code;
use toml::de::{DeTable, Error};

use crate::excerpt::{Show, excerpt, spot};
use crate::key::Spec;
use crate::mistake::Mistake;

/// What the recovering parser made of a text.
pub(crate) struct Parsed<'t> {
    /// What could be read.
    pub(crate) table: DeTable<'t>,
    /// What could not.
    pub(crate) mistakes: Vec<Mistake>,
    /// The lines, from 1, of the mistakes.
    pub(crate) broken_lines: Vec<usize>,
    /// Whether one of them is a heading.
    pub(crate) broken_heading: bool,
}

/// Parses what can be parsed.
pub(crate) fn parse<'t>(text: &'t str, file: &str, spec: &Spec) -> Parsed<'t> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<Mistake> = Vec::new();
    let mut lines: Vec<usize> = Vec::new();
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = spot(text, span.start).line();
        // What follows on the same line is the echo of the first mistake.
        if lines.contains(&line) || is_echo(text, &span, error, &lines) {
            continue;
        }
        lines.push(line);
        mistakes.push(mistake(text, file, spec, &span, error));
    }
    let heading = |line: &usize| {
        let text = text.lines().nth(line - 1).unwrap_or_default();
        text.trim_start().starts_with('[')
    };
    Parsed {
        table: table.into_inner(),
        mistakes,
        broken_heading: lines.iter().any(heading),
        broken_lines: lines,
    }
}

/// A repeated table after a broken heading is reported as doubled by the
/// recovering parser.
fn is_echo(text: &str, span: &Range<usize>, error: &Error, before: &[usize]) -> bool {
    let doubled = error.message().starts_with("duplicate key");
    let repeated = text[..span.start.min(text.len())].ends_with("[[");
    doubled && repeated && !before.is_empty()
}

fn mistake(text: &str, file: &str, spec: &Spec, span: &Range<usize>, error: &Error) -> Mistake {
    let place = spot(text, span.start).place(file);
    if error.message().starts_with("duplicate key") {
        let name = text.get(span.clone()).unwrap_or_default();
        let first = first_of(text, span.start, name);
        let sentence = match first {
            Some(line) => format!("`{name}` stands here a second time, first in line {line}"),
            None => format!("`{name}` stands here a second time"),
        };
        return Mistake {
            code: Code::CONFIG_DUPLICATE,
            place,
            excerpt: excerpt(text, span, spec, Show::Known),
            sentence,
            suggestion: Some("remove one of both".to_owned()),
        };
    }
    let (what, wanted) = match error.message().split_once(", expected ") {
        Some((what, wanted)) => (what, Some(wanted)),
        None => (error.message(), None),
    };
    Mistake {
        code: Code::CONFIG_SYNTAX,
        place,
        excerpt: excerpt(text, span, spec, Show::Known),
        sentence: plainly(what).to_owned(),
        suggestion: remedy(what).or_else(|| wanted.map(|wanted| format!("expected {wanted}"))),
    }
}

/// The parser's commonest words, as a person would say them.
fn plainly(what: &str) -> &str {
    match what {
        "invalid basic string" | "invalid literal string" => "a text is not closed",
        "unclosed array" => "a list is not closed",
        "unclosed table" | "unclosed array table" => "a heading is not closed",
        "unclosed inline table" => "an inline table is not closed",
        "key with no value" => "a key stands without a value",
        "string values must be quoted" => "a value is missing or not in quotes",
        "missing escaped value" => "a backslash begins no known escape",
        other => other,
    }
}

/// What to do, where the parser's expectation would not help a person.
fn remedy(what: &str) -> Option<String> {
    let words = match what {
        "string values must be quoted" => "write a text in quotes",
        "missing escaped value" => "write it twice, or use single quotes around the text",
        _ => return None,
    };
    Some(words.to_owned())
}

/// The line of the nearest earlier key or heading of this name.
fn first_of(text: &str, offset: usize, name: &str) -> Option<usize> {
    let here = spot(text, offset);
    let before: Vec<&str> = text.lines().take(here.line() - 1).collect();
    let heading = here.text().trim_start().starts_with('[');
    let matches = |line: &str| {
        let line = line.trim_start();
        if heading {
            return line.trim_matches(['[', ']', ' ']) == name && line.starts_with('[');
        }
        line.strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    before
        .iter()
        .rposition(|line| matches(line))
        .map(|at| at + 1)
}
