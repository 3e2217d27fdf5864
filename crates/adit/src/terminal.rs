//! Writing to the terminal or to whatever stands in its place.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use adit_config::Paint;
use adit_edge::lines::{LAST_LINES, Lines};
use adit_model::Code;
use serde::Serialize;

use crate::failure::Failure;

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

/// Prints a value that was asked for as one line of JSON.
///
/// # Errors
/// The output is closed or full.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    print_whole(&format!("{text}\n"))
}

/// The stdout of a process that serves meanwhile: nobody waits for who reads
/// it, but for a moment, so that lines of stdout and of the log keep their
/// order.
pub(crate) struct Facts(Lines);

impl Facts {
    /// Opens it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn open() -> Result<Self, Failure> {
        // Of facts there are never so many that some are dropped, and who
        // closed the pipe has read enough.
        let lines = Lines::start("stdout", Duration::ZERO, io::stdout(), |_, _| {});
        lines
            .map(Self)
            .map_err(|error| Failure::new(Code::RUNTIME_FAILED, format!("no thread: {error}")))
    }

    /// Prints a line or more, and waits for their way out at most a second.
    pub(crate) fn print(&self, text: &str) {
        self.add(text);
        self.0.flush(LAST_LINES);
    }

    /// Prints a line or more and waits for nothing.
    pub(crate) fn add(&self, text: &str) {
        self.0.push(format!("{text}\n").as_bytes());
    }
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

/// Rows of the terminal.
pub(crate) fn height() -> usize {
    terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0).max(2))
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
