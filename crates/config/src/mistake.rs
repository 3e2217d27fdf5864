//! A mistake in a configuration, and how it is told.

use std::fmt;

use adit_model::Code;

/// Where a mistake stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Where {
    /// In the file.
    File {
        /// As it was named to the reader.
        file: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// In the file as a whole: something is absent.
    WholeFile(String),
    /// In an environment variable of this name.
    Variable(String),
    /// In what was typed: an option or an argument of the command line.
    Argument(String),
}

/// The line of a mistake, fit to be printed: no control characters, the
/// values of secrets left out, long lines cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The text of the line, or the part of it around the mistake.
    pub text: String,
    /// First character of the mistake within `text`, from 0.
    pub start: usize,
    /// How many characters it has, at least 1.
    pub length: usize,
}

/// One mistake: what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Its stable code.
    pub code: Code,
    /// Where it stands.
    pub place: Where,
    /// The line of the file, when the place is in one.
    pub excerpt: Option<Excerpt>,
    /// What is wrong, as a sentence without its final dot.
    pub sentence: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// Whether the rendering may use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Plain text, the same for pipes, files and `NO_COLOR`.
    Plain,
    /// ANSI colours, besides the same words.
    Colour,
}

impl Paint {
    fn wrap(self, sgr: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{sgr}m{text}\x1b[0m"),
        }
    }
}

impl Mistake {
    /// The mistake as a compiler would show it, without a final newline.
    #[must_use]
    pub fn render(&self, paint: Paint) -> String {
        let mut out = format!(
            "{}: {} {}",
            paint.wrap("1", &visible(&self.place.to_string())),
            paint.wrap("1;31", &format!("error {}:", self.code)),
            visible(&self.sentence)
        );
        let help = self.suggestion.as_deref().map(visible);
        let help = help.as_deref();
        let Some(excerpt) = &self.excerpt else {
            if let Some(help) = help {
                out.push_str(&format!("\n    {}", paint.wrap("36", help)));
            }
            return out;
        };
        let line = match &self.place {
            Where::File { line, .. } => line.to_string(),
            _ => String::new(),
        };
        let (margin, bar) = (line.len().max(4), paint.wrap("34", "|"));
        out.push_str(&format!(
            "\n{} {bar} {}",
            paint.wrap("34", &format!("{line:>margin$}")),
            excerpt.text
        ));
        let carets = paint.wrap("1;31", &"^".repeat(excerpt.length));
        let indent = " ".repeat(excerpt.start);
        out.push_str(&format!("\n{:margin$} {bar} {indent}{carets}", ""));
        if let Some(help) = help {
            out.push_str(&format!(" {}", paint.wrap("36", help)));
        }
        out
    }
}

/// Control characters of a quoted value would steer the terminal.
fn visible(text: &str) -> String {
    let replace = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::WholeFile(file) => f.write_str(file),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Argument(name) => write!(f, "argument {name}"),
        }
    }
}

/// All mistakes of one configuration, in the order of the file, those of the
/// environment last. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Sorts the mistakes; `None` when there is none.
    #[must_use]
    pub fn collect(mut mistakes: Vec<Mistake>) -> Option<Self> {
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        mistakes.dedup();
        (!mistakes.is_empty()).then_some(Self(mistakes))
    }

    /// One mistake alone.
    #[must_use]
    pub fn one(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }

    /// The same mistakes with variables of the environment under the names
    /// that `name` gives them; `None` keeps a name.
    #[must_use]
    pub fn with_variables_as(mut self, name: &dyn Fn(&str) -> Option<String>) -> Self {
        for mistake in &mut self.0 {
            if let Where::Variable(variable) = &mut mistake.place
                && let Some(other) = name(variable)
            {
                *variable = other;
            }
        }
        self
    }

    /// The mistake of a file that could not be read at all.
    #[must_use]
    pub fn unreadable(file: &str, why: &str) -> Self {
        Self::one(Mistake {
            code: Code::CONFIG_UNREADABLE,
            place: Where::WholeFile(file.to_owned()),
            excerpt: None,
            sentence: format!("the file cannot be read: {why}"),
            suggestion: Some("`adit config example` prints a complete one".to_owned()),
        })
    }

    /// The mistakes, at least one.
    #[must_use]
    pub fn all(&self) -> &[Mistake] {
        &self.0
    }

    /// The code of the first one: it decides the exit status.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.first().map_or(Code::CONFIG_BAD_VALUE, |m| m.code)
    }

    /// All of them as text, each on its own lines, without a final newline.
    #[must_use]
    pub fn render(&self, paint: Paint) -> String {
        let each: Vec<String> = self.0.iter().map(|m| m.render(paint)).collect();
        each.join("\n")
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Paint::Plain))
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake() -> Mistake {
        Mistake {
            code: Code::CONFIG_UNKNOWN_KEY,
            place: Where::File {
                file: "server.toml".to_owned(),
                line: 12_345,
                column: 3,
            },
            excerpt: Some(Excerpt {
                text: "  domian = …".to_owned(),
                start: 2,
                length: 6,
            }),
            sentence: "`domian` is not a key of [server]\u{1b}[2J".to_owned(),
            suggestion: Some("did you mean `domain`?".to_owned()),
        }
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let plain = mistake().render(Paint::Plain);
        assert_eq!(
            plain,
            "server.toml:12345:3: error ADIT-1103: `domian` is not a key of [server]\u{fffd}[2J\n\
             12345 |   domian = …\n      \
             |   ^^^^^^ did you mean `domain`?"
        );
        let colour = mistake().render(Paint::Colour);
        let mut without = colour.clone();
        for sgr in ["1", "1;31", "34", "36", "0"] {
            without = without.replace(&format!("\u{1b}[{sgr}m"), "");
        }
        assert_eq!(without, plain);
        assert_ne!(colour, plain);
    }

    #[test]
    fn mistakes_stand_in_the_order_of_the_file_and_each_once() {
        let mut later = mistake();
        later.place = Where::Variable("ADIT_X".to_owned());
        let mistakes = Mistakes::collect(vec![later.clone(), mistake(), later.clone()]).unwrap();
        assert_eq!(mistakes.all(), [mistake(), later]);
        assert_eq!(Mistakes::collect(Vec::new()), None);
    }
}
