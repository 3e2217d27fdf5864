//! Writing to the terminal or to whatever stands in its place.

use std::io::{self, IsTerminal, Write};

use adit_config::Paint;

/// Prints facts: a line or more to stdout. A closed pipe is no failure of
/// ours: who closed it has read enough.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Prints facts that were asked for, byte by byte as they are.
///
/// # Errors
/// The output is closed or full.
pub(crate) fn print_whole(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Tells a person something: a line or more to stderr.
pub(crate) fn note(text: &str) {
    let mut out = io::stderr().lock();
    drop(writeln!(out, "{text}"));
}

/// Whether a person reads stdout.
pub(crate) fn is_person() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person can be asked: both directions are a terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether stdout may carry colour.
pub(crate) fn out_has_colour() -> bool {
    io::stdout().is_terminal() && colour_wanted()
}

/// How stderr may be painted.
pub(crate) fn note_paint() -> Paint {
    if io::stderr().is_terminal() && colour_wanted() {
        Paint::Colour
    } else {
        Paint::Plain
    }
}

/// See <https://no-color.org>; a dumb terminal shows no colours either.
fn colour_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Columns of the terminal.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0).max(20))
}

/// Replaces control characters: text of strangers must not steer the
/// terminal.
pub(crate) fn plain(text: &str) -> String {
    let replace = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

/// The program as it was called, for lines to copy: `adit`, or the path that
/// was typed.
pub(crate) fn program() -> String {
    std::env::args()
        .next()
        .filter(|name| name.contains('/'))
        .unwrap_or_else(|| "adit".to_owned())
}

/// Asks something on stderr, without ending the line.
pub(crate) fn ask(question: &str) {
    let mut out = io::stderr().lock();
    drop(write!(out, "{question}").and_then(|()| out.flush()));
}
