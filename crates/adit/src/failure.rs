//! How a command fails: what happened, the code, what to do, the exit status.

use std::fmt::{self, Display};
use std::process::ExitCode;

use adit_config::{Mistakes, Paint};
use adit_model::Code;

use crate::{advice, logging, terminal};

/// A command's failure. Its text never holds a secret.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One thing went wrong.
    One {
        /// Its code, which decides the exit status.
        code: Code,
        /// What happened and why.
        what: String,
        /// What to do; `None`: what the code's paragraph says.
        remedy: Option<String>,
    },
    /// Mistakes in a configuration.
    Mistakes(Mistakes),
}

impl Failure {
    /// A failure whose remedy is the code's own.
    pub(crate) fn new(code: Code, what: impl Display) -> Self {
        Self::One {
            code,
            what: what.to_string(),
            remedy: None,
        }
    }

    /// A failure whose remedy depends on the case.
    pub(crate) fn with(code: Code, what: impl Display, remedy: impl Into<String>) -> Self {
        Self::One {
            code,
            what: what.to_string(),
            remedy: Some(remedy.into()),
        }
    }

    /// Its code, which decides the exit status.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::One { code, .. } => *code,
            Self::Mistakes(mistakes) => mistakes.code(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::One { code, what, remedy } => {
                let remedy = remedy.clone().or_else(|| advice::remedy(*code));
                let mut text = format!("error {code}: {}", terminal::plain(what));
                if let Some(remedy) = remedy {
                    for line in remedy.lines().flat_map(|line| wrap(line, 96)) {
                        text.push_str("\n    ");
                        text.push_str(&line);
                    }
                }
                text
            }
            Self::Mistakes(mistakes) => {
                let count = mistakes.all().len();
                let words = if count == 1 {
                    "1 mistake".to_owned()
                } else {
                    format!("{count} mistakes")
                };
                let shown = mistakes.render(terminal::note_paint());
                format!("{shown}\n{words}; nothing was started")
            }
        }
    }

    /// Tells it on stderr, where the command goes on.
    pub(crate) fn note(&self) {
        terminal::note(&self.text());
    }

    /// Tells it on stderr, below the log, and gives the exit status.
    pub(crate) fn tell(&self) -> ExitCode {
        logging::note(&self.text());
        ExitCode::from(self.code().fault().exit_status())
    }
}

impl Display for Failure {
    /// What happened, without code and remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One { what, .. } => f.write_str(what),
            Self::Mistakes(mistakes) => f.write_str(&mistakes.render(Paint::Plain)),
        }
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl From<std::io::Error> for Failure {
    /// Of writing to the output: the only input and output that commands do
    /// without a better name for its failure.
    fn from(error: std::io::Error) -> Self {
        Self::new(
            Code::OUTPUT_CLOSED,
            format!("the output could not be written: {error}"),
        )
    }
}

/// Breaks a text into lines of at most `width` characters, at blanks.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_what_to_do() {
        let failure = Failure::new(
            Code::PORT_IN_USE,
            "the HTTP door cannot listen on 127.0.0.1:8080: address in use",
        );
        let text = failure.text();
        assert!(text.starts_with("error ADIT-2001: the HTTP door cannot listen on 127.0.0.1:8080"));
        assert!(text.contains("\n    stop it (`ss -ltnp`"), "{text}");
        assert_eq!(failure.code().fault().exit_status(), 1);
    }

    #[test]
    fn a_remedy_of_the_case_stands_above_the_codes() {
        let failure = Failure::with(Code::USAGE, "a\u{1b}[31m", "do this");
        assert_eq!(
            failure.text(),
            "error ADIT-1001: a\u{fffd}[31m\n    do this"
        );
    }

    #[test]
    fn long_remedies_are_broken_at_blanks() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaaa b", 5), ["aaaaaaaa", "b"]);
    }
}
