//! Lines of the file as they may be shown: positions, masking of secrets,
//! cutting of long lines.

use std::ops::Range;

use crate::key::Spec;
use crate::mistake::{Excerpt, Where};

/// Most characters of a line that are shown.
const WIDTH: usize = 96;

/// How much of a line may be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The value may hold a secret, or an unknown key's value might.
    KeyOnly,
    /// As far as its key is known not to be a secret.
    Known,
}

/// Line and column of a byte offset, and the line it is in.
pub(crate) struct Spot<'t> {
    line: usize,
    column: usize,
    text: &'t str,
    /// Byte offset of the line's start.
    start: usize,
}

pub(crate) fn spot(text: &str, offset: usize) -> Spot<'_> {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let end = text[start..].find('\n').map_or(text.len(), |n| start + n);
    Spot {
        line: before.matches('\n').count() + 1,
        column: text[start..offset].chars().count() + 1,
        text: text[start..end].trim_end_matches('\r'),
        start,
    }
}

impl Spot<'_> {
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    pub(crate) fn text(&self) -> &str {
        self.text
    }

    pub(crate) fn place(&self, file: &str) -> Where {
        Where::File {
            file: file.to_owned(),
            line: self.line,
            column: self.column,
        }
    }
}

/// The line of `span`, with the part in `span` marked.
pub(crate) fn excerpt(text: &str, span: &Range<usize>, spec: &Spec, show: Show) -> Option<Excerpt> {
    let spot = spot(text, span.start);
    if in_long_string(&text[..spot.start]) || spot.text.trim().is_empty() {
        return None;
    }
    let from = spot.column - 1;
    // A mark at the carriage return of a line stands behind its text.
    let end = span.end.min(spot.start + spot.text.len()).max(span.start);
    let marked = text.get(span.start..end).map_or(1, |t| t.chars().count());
    let secret = show == Show::KeyOnly || !is_known_open(spot.text, spec);
    let shown = if secret {
        mask(spot.text)
    } else {
        spot.text.to_owned()
    };
    let chars: Vec<char> = shown.chars().map(plain).collect();
    // A mark never stands behind the sign of what was left out.
    let last = chars.len().saturating_sub(usize::from(secret));
    let from = from.min(last);
    let length = marked.max(1).min(chars.len().saturating_sub(from).max(1));
    Some(cut(&chars, from, length))
}

/// Whether the text so far ends inside a string of several lines.
fn in_long_string(before: &str) -> bool {
    ["\"\"\"", "'''"]
        .iter()
        .any(|quote| before.matches(quote).count() % 2 == 1)
}

/// Whether the line is a heading, a comment, or the assignment of a key that
/// is known and holds no secret.
fn is_known_open(line: &str, spec: &Spec) -> bool {
    let line = line.trim_start();
    let inline_table = line.contains('{');
    if line.starts_with('#') || (line.starts_with('[') && !line.contains('=')) {
        return true;
    }
    let word: String = line
        .chars()
        .take_while(|c| c.is_alphanumeric() || "_-.".contains(*c))
        .collect();
    let name = word.rsplit('.').next().unwrap_or(&word);
    let known = spec
        .sections
        .iter()
        .filter_map(|section| section.key(name))
        .collect::<Vec<_>>();
    !inline_table && !known.is_empty() && known.iter().all(|key| !key.is_secret())
}

/// Everything after the first word and its equals sign left out.
fn mask(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let word_end = line[indent..]
        .find(|c: char| c.is_whitespace() || c == '=')
        .map_or(line.len(), |n| indent + n);
    let rest = &line[word_end..];
    let kept = rest.len() - rest.trim_start_matches([' ', '\t', '=']).len();
    let head = &line[..word_end + kept];
    if word_end + kept < line.len() {
        format!("{head}…")
    } else {
        head.to_owned()
    }
}

fn plain(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

fn cut(chars: &[char], from: usize, length: usize) -> Excerpt {
    if chars.len() <= WIDTH {
        return Excerpt {
            text: chars.iter().collect(),
            start: from,
            length,
        };
    }
    let first = from.saturating_sub(WIDTH / 3);
    let last = (first + WIDTH).min(chars.len());
    let mut text: String = chars[first..last].iter().collect();
    let mut start = from - first;
    if first > 0 {
        text.insert(0, '…');
        start += 1;
    }
    if last < chars.len() {
        text.push('…');
    }
    let length = length
        .min(text.chars().count().saturating_sub(start))
        .max(1);
    Excerpt {
        text,
        start,
        length,
    }
}
