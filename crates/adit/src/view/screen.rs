//! The one place that draws. Whoever calls it may have to wait for the
//! terminal: the view's thread, the log's, and the one that asks a person.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::terminal;

/// A terminal with a block of lines that is drawn over and over, or a pipe.
pub(crate) struct Screen {
    live: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The block as it stands on the terminal.
    drawn: Vec<String>,
    /// A person is being asked: nothing may be drawn.
    paused: bool,
    /// The last frame that was not drawn for that reason.
    pending: Option<Vec<String>>,
}

impl Screen {
    /// A live view when a person reads stdout.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            live: terminal::is_person(),
            state: Mutex::default(),
        })
    }

    /// Whether a block is drawn at all.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Replaces the block.
    pub(crate) fn draw(&self, lines: &[String]) {
        let mut state = self.state();
        if state.paused {
            state.pending = Some(lines.to_vec());
        } else if state.drawn != lines {
            let mut out = io::stdout().lock();
            let drawn =
                erase(&mut out, state.drawn.len()).and_then(|()| write_block(&mut out, lines));
            drop(drawn);
            state.drawn = lines.to_vec();
        }
    }

    /// Prints a line above the block.
    pub(crate) fn say(&self, line: &str) {
        self.between(|| terminal::print(&terminal::plain(line)));
    }

    /// The log's way to stderr: above the block, where there is one.
    pub(crate) fn log(self: &Arc<Self>) -> Box<dyn Write + Send> {
        if self.live {
            Box::new(Above(Arc::clone(self)))
        } else {
            Box::new(io::stderr())
        }
    }

    /// Leaves the block as it stands; what follows is printed below it.
    pub(crate) fn leave(&self) {
        self.state().drawn.clear();
    }

    /// Takes the block away while a person is asked.
    pub(crate) fn pause(self: &Arc<Self>) -> Paused {
        let mut state = self.state();
        state.paused = true;
        let drawn = std::mem::take(&mut state.drawn);
        drop(erase(&mut io::stdout().lock(), drawn.len()));
        state.pending = Some(drawn);
        Paused(Arc::clone(self))
    }

    fn between(&self, write: impl FnOnce()) {
        let state = self.state();
        let block = state.drawn.len();
        drop(erase(&mut io::stdout().lock(), block));
        write();
        drop(write_block(&mut io::stdout().lock(), &state.drawn));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, nothing is drawn.
pub(crate) struct Paused(Arc<Screen>);

impl Drop for Paused {
    fn drop(&mut self) {
        let pending = {
            let mut state = self.0.state();
            state.paused = false;
            state.pending.take()
        };
        if let Some(lines) = pending.filter(|_| self.0.live) {
            self.0.draw(&lines);
        }
    }
}

/// Moves to the block's first line and clears from there (ECMA-48 CUU, ED).
fn erase(out: &mut impl Write, lines: usize) -> io::Result<()> {
    if lines > 0 {
        write!(out, "\x1b[{lines}A\r\x1b[J")?;
    }
    // What follows may go to stderr.
    out.flush()
}

fn write_block(out: &mut impl Write, lines: &[String]) -> io::Result<()> {
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// Stderr, above the block.
struct Above(Arc<Screen>);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = Ok(());
        self.0
            .between(|| written = io::stderr().lock().write_all(bytes));
        written.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_erased_by_as_many_lines_as_it_has() {
        let mut out = Vec::new();
        erase(&mut out, 0).unwrap();
        assert!(out.is_empty());
        erase(&mut out, 3).unwrap();
        write_block(&mut out, &["a".to_owned()]).unwrap();
        assert_eq!(out, b"\x1b[3A\r\x1b[Ja\n");
    }
}
