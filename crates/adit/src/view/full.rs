//! The whole terminal, for a while: on its other screen, so that the first one
//! is as it was when the view goes away.
//!
//! [`Screen`](super::Screen) draws a block among other lines. A block that may
//! be as high as the terminal, and lives while that is made smaller, needs a
//! place of its own.

use std::io::{self, Write};

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{self, SignalKind};

/// To the other screen, with the cursor hidden (xterm, DECTCEM).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Back, with the cursor shown.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The other screen; left when dropped.
pub(crate) struct FullScreen {
    resized: unix::Signal,
    suspended: unix::Signal,
}

impl FullScreen {
    /// Goes there.
    ///
    /// # Errors
    /// The system takes no handler of signals.
    pub(crate) fn enter() -> io::Result<Self> {
        let entered = Self {
            resized: unix::signal(SignalKind::window_change())?,
            suspended: unix::signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?,
        };
        put(ENTER);
        Ok(entered)
    }

    /// Draws lines in place of what stands there: fewer than the terminal has.
    pub(crate) fn draw(&self, lines: &[String]) {
        put(&frame(lines));
    }

    /// Completes when the lines are to be drawn anew: the terminal has another
    /// size, or shows something else since Ctrl-Z.
    pub(crate) async fn disturbed(&mut self) {
        tokio::select! {
            _ = self.resized.recv() => {}
            _ = self.suspended.recv() => {
                put(LEAVE);
                // The shell takes over until it lets this process go on.
                let _ = kill_process(getpid(), Signal::STOP);
                put(ENTER);
            }
        }
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        put(LEAVE);
    }
}

/// Each line is cleared before it is written: after the last column there is
/// no place from which to clear (ECMA-48 CUP, EL, ED).
fn frame(lines: &[String]) -> String {
    let mut text = "\x1b[H".to_owned();
    for line in lines {
        text.push_str("\x1b[2K");
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\x1b[J");
    text
}

/// A terminal that is gone ends the program by a signal.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_leaves_nothing_of_the_one_before() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(frame(&lines), "\x1b[H\x1b[2Ka\r\n\x1b[2Kb\r\n\x1b[J");
    }
}
