//! The commands that the README promises, read from the README itself, so
//! that what a reader types is what the test command runs.

use std::fs;

use crate::shell::Place;

/// The command lines of the README's code blocks: a leading `$ ` and a comment
/// after two spaces are taken off.
pub(crate) fn commands(place: &Place) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(place.root.join("README.md"))
        .map_err(|e| format!("README.md cannot be read: {e}"))?;
    Ok(commands_in(&text))
}

/// The one command of the README that begins with `beginning`, in words.
pub(crate) fn command(place: &Place, beginning: &str) -> Result<Vec<String>, String> {
    let found = commands(place)?
        .into_iter()
        .find(|line| line.starts_with(beginning))
        .ok_or_else(|| format!("README.md has no line `{beginning}` in a code block"))?;
    Ok(found.split_whitespace().map(str::to_owned).collect())
}

fn commands_in(markdown: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            let line = line.trim();
            let line = line.strip_prefix("$ ").unwrap_or(line);
            let line = line.split_once("  #").map_or(line, |(command, _)| command);
            if !line.is_empty() && !line.starts_with('#') {
                found.push(line.trim_end().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_the_lines_of_code_blocks() {
        let text = "cargo no\n```sh\n$ cargo run -- demo   # look\n# a comment\n\ncargo xtask test\n```\ncargo no\n";
        assert_eq!(commands_in(text), ["cargo run -- demo", "cargo xtask test"]);
    }
}
