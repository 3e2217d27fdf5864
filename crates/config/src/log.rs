//! How a process logs: the same keys in every configuration.

use crate::key::Key;
use crate::kind::Choice;

/// Form of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Least severity that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what may become one.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And each step.
    Trace,
}

/// `format`.
pub static LOG_FORMAT: Key<Choice<LogFormat>> = Key::or(
    "format",
    Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    "\"text\"",
    "Lines for people, or one JSON object a line.",
);

/// `level`.
pub static LOG_LEVEL: Key<Choice<LogLevel>> = Key::or(
    "level",
    Choice(&[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ]),
    "\"info\"",
    "Least severity that is written.",
);
