//! Stable error codes, `ADIT-1203`: each has a paragraph in `docs/errors.md`.

use std::fmt;

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The person at this terminal: wrong use or configuration.
    Yours,
    /// The machine: a port, a file, a disk.
    Machine,
    /// The other side of the link.
    OtherSide,
    /// The way between.
    Network,
}

/// A stable error code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code {
    /// The number behind `ADIT-`.
    pub number: u16,
    /// A few words.
    pub title: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ADIT-{}", self.number)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
