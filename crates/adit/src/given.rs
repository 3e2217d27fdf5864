//! Secrets as they are given on a command line: best by reference.

use std::io::{self, BufRead};

use adit_model::Code;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::terminal;

/// Most bytes that are read of a secret from stdin.
const MAX: u64 = 16 * 1024;

/// The value of an option that holds a secret, as the configuration reads it.
///
/// `-` takes the first line of stdin; `file:` and `env:` stay references; a
/// value that stands in the arguments itself is taken with a warning, because
/// every user of the machine can read the arguments of its processes.
///
/// # Errors
/// Stdin has no line.
pub(crate) fn secret(
    option: &str,
    variable: &str,
    value: Option<&str>,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(value) = value else { return Ok(None) };
    if value == "-" {
        return first_line(option, io::stdin().lock()).map(Some);
    }
    if !value.starts_with("file:") && !value.starts_with("env:") {
        terminal::note(&format!(
            "warning: {option} was given as an argument, which other users of this machine can read; \
             better: {variable} in the environment, {option} file:PATH, or {option} - for stdin"
        ));
    }
    Ok(Some(Zeroizing::new(value.to_owned())))
}

fn first_line(option: &str, from: impl BufRead) -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    let read = io::Read::take(from, MAX).read_line(&mut line);
    let text = line.trim();
    match read {
        Ok(_) if !text.is_empty() => Ok(Zeroizing::new(text.to_owned())),
        Ok(_) => Err(nothing(option, "it is empty")),
        Err(error) => Err(nothing(option, &error.to_string())),
    }
}

fn nothing(option: &str, why: &str) -> Failure {
    let what = format!("{option} - reads one line from stdin: {why}");
    let remedy = format!("pass the value by a pipe, or give {option} another way");
    Failure::with(Code::SECRET_UNREADABLE, what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_stdin_is_the_value() {
        let line = first_line("--edge", &b"  adit1abc \r\nmore\n"[..]).unwrap();
        assert_eq!(line.as_str(), "adit1abc");
        for nothing in [&b""[..], b"\n", b" \n x"] {
            assert!(first_line("--edge", nothing).is_err());
        }
    }

    #[test]
    fn references_stay_references() {
        let value = secret("--pin", "ADIT_PIN", Some("file:/run/pin"))
            .unwrap()
            .unwrap();
        assert_eq!(value.as_str(), "file:/run/pin");
        assert!(secret("--pin", "ADIT_PIN", None).unwrap().is_none());
    }
}
