//! The reader: a text and an environment, checked against a [`Spec`].
//!
//! [`Document::read`] makes the first pass: grammar, unknown and misplaced
//! keys, types, forms, ranges, missing keys. The caller then takes typed
//! values section by section and may [`Document::complain`] about what only
//! it can see. A value that was complained about is never handed out, so a
//! caller that gets `None` for a key with a default knows that
//! [`Document::finish`] will fail.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use adit_model::Code;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use crate::excerpt::{Show, excerpt, spot};
use crate::key::{SectionSpec, Spec};
use crate::kind::nearest;
use crate::mistake::{Mistake, Mistakes, Where};
use crate::secret::SecretRef;
use crate::section::Section;
use crate::syntax;

/// What a configuration is read from. The closures keep files and environment
/// outside this crate.
pub struct Input<'i> {
    /// The TOML text; empty when there is no file.
    pub text: &'i str,
    /// The file's name for messages. Relative paths in `file:` references
    /// are taken from its folder.
    pub file: Option<&'i Path>,
    /// An environment variable's value.
    pub variable: &'i dyn Fn(&str) -> Option<String>,
    /// A file's text, or the system's words why not.
    pub read: &'i dyn Fn(&Path) -> Result<String, String>,
    /// Options of the command line that stand above file and environment.
    pub options: &'i [CommandOption<'i>],
}

/// An option of the command line that sets a key.
#[derive(Clone, Copy)]
pub struct CommandOption<'i> {
    /// The environment variable that sets the same key.
    pub variable: &'i str,
    /// The option as it is typed: `--domain`.
    pub name: &'i str,
    /// Its value.
    pub value: &'i str,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes of the text.
    Span(Range<usize>),
    /// The environment variable of this name.
    Variable(String),
    /// The option of the command line of this name.
    Argument(String),
    /// Nowhere: a default, or a table that is absent.
    Nowhere,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

/// A configuration that is being read.
pub struct Document<'i> {
    pub(crate) input: Input<'i>,
    spec: &'static Spec,
    file: String,
    table: DeTable<'i>,
    broken_lines: Vec<usize>,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'i> Document<'i> {
    /// Makes the first pass.
    #[must_use]
    pub fn read(spec: &'static Spec, input: Input<'i>) -> Self {
        let file = input
            .file
            .map_or_else(|| "configuration".to_owned(), |f| f.display().to_string());
        let syntax::Parsed {
            table,
            mistakes,
            broken_lines,
            broken_heading,
        } = syntax::parse(input.text, &file, spec);
        let whole = mistakes.is_empty();
        let document = Self {
            input,
            spec,
            file,
            table,
            broken_lines,
            mistakes: RefCell::new(mistakes),
        };
        // After a broken heading, tables and keys only look misplaced.
        if !broken_heading {
            document.check_names();
        }
        for section in spec.sections {
            for table in document.sections(section) {
                table.check(whole);
            }
        }
        document
    }

    /// The one table of a section that is not repeated.
    #[must_use]
    pub fn section(&self, spec: &'static SectionSpec) -> Section<'_> {
        let first = self.sections(spec).into_iter().next();
        first.unwrap_or(Section {
            document: self,
            spec,
            table: None,
            heading: Place::Nowhere,
        })
    }

    /// All tables of a section, in the order of the file. A section that is
    /// not repeated has exactly one, which may be empty.
    #[must_use]
    pub fn sections(&self, spec: &'static SectionSpec) -> Vec<Section<'_>> {
        let found = self.table.get_key_value(spec.name);
        let make = |table, span: Range<usize>| Section {
            document: self,
            spec,
            table: Some(table),
            heading: Place::Span(span),
        };
        match found.map(|(key, value)| (key.span(), value.span(), value.get_ref())) {
            Some((key, _, DeValue::Table(table))) if !spec.repeated => vec![make(table, key)],
            Some((_, _, DeValue::Array(items))) if spec.repeated => items
                .iter()
                .filter_map(|item| match item.get_ref() {
                    DeValue::Table(table) => Some(make(table, item.span())),
                    _ => None,
                })
                .collect(),
            _ if spec.repeated => Vec::new(),
            _ => vec![Section {
                document: self,
                spec,
                table: None,
                heading: Place::Nowhere,
            }],
        }
    }

    /// Records a mistake that only the caller can see.
    pub fn complain(&self, code: Code, place: &Place, sentence: &str, suggestion: Option<&str>) {
        self.record(
            code,
            place,
            Show::Known,
            sentence.to_owned(),
            suggestion.map(str::to_owned),
        );
    }

    /// The line of a place in the file, for a sentence that names two.
    #[must_use]
    pub fn line_of(&self, place: &Place) -> Option<usize> {
        match place {
            Place::Span(span) => Some(spot(self.input.text, span.start).line()),
            _ => None,
        }
    }

    /// The value of an environment variable, as it was given to the reader.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.input.variable)(name)
    }

    /// A path of the configuration: relative ones start at the file's folder.
    #[must_use]
    pub fn path(&self, path: &Path, place: &Place) -> std::path::PathBuf {
        match (place, self.input.file.and_then(Path::parent)) {
            (Place::Span(_), Some(folder)) => folder.join(path),
            _ => path.to_owned(),
        }
    }

    /// A reference whose file no longer depends on the configuration's folder.
    #[must_use]
    pub fn settled(&self, secret: &Placed<SecretRef>) -> SecretRef {
        match &secret.value {
            SecretRef::File(path) => SecretRef::File(self.path(path, &secret.place)),
            other => other.clone(),
        }
    }

    /// Fetches a secret from where it is kept; records why not.
    #[must_use]
    pub fn reveal(&self, key: &str, secret: &Placed<SecretRef>) -> Option<Zeroizing<String>> {
        let read = |path: &Path| (self.input.read)(&self.path(path, &secret.place));
        match secret.value.reveal(self.input.variable, &read) {
            Ok(text) => Some(text),
            Err(why) => {
                let sentence = format!("`{key}`: {why}");
                self.complain(Code::SECRET_UNREADABLE, &secret.place, &sentence, None);
                None
            }
        }
    }

    /// The value, when no mistake was found.
    ///
    /// # Errors
    /// All mistakes. A value that is absent without a mistake is one.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Mistakes> {
        let file = self.file;
        match (Mistakes::collect(self.mistakes.into_inner()), value) {
            (Some(mistakes), _) => Err(mistakes),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(Mistakes::one(Mistake {
                code: Code::CONFIG_BAD_VALUE,
                place: Where::WholeFile(file),
                excerpt: None,
                sentence: "the configuration is incomplete".to_owned(),
                suggestion: None,
            })),
        }
    }

    pub(crate) fn record(
        &self,
        code: Code,
        place: &Place,
        show: Show,
        sentence: String,
        suggestion: Option<String>,
    ) {
        // What such a line holds was guessed by the recovering parser.
        if self
            .line_of(place)
            .is_some_and(|line| self.broken_lines.contains(&line))
        {
            return;
        }
        let (location, excerpt) = match place {
            Place::Span(span) => (
                spot(self.input.text, span.start).place(&self.file),
                excerpt(self.input.text, span, self.spec, show),
            ),
            Place::Variable(name) => (Where::Variable(name.clone()), None),
            Place::Argument(name) => (Where::Argument(name.clone()), None),
            Place::Nowhere => (Where::WholeFile(self.file.clone()), None),
        };
        self.mistakes.borrow_mut().push(Mistake {
            code,
            place: location,
            excerpt,
            sentence,
            suggestion,
        });
    }

    /// Tables that are not known, or written with the wrong brackets.
    fn check_names(&self) {
        for (name, value) in &self.table {
            let place = Place::Span(name.span());
            let found = self.spec.sections.iter().find(|s| s.name == name.get_ref());
            let Some(section) = found else {
                self.unknown_at_top(name, value, &place);
                continue;
            };
            let fits = match value.get_ref() {
                DeValue::Table(_) => !section.repeated,
                DeValue::Array(items) => {
                    section.repeated && items.iter().all(|i| i.get_ref().is_table())
                }
                _ => false,
            };
            if !fits {
                let sentence = format!("`{}` is a table", section.name);
                let help = format!("write it as {}", section.heading());
                self.record(
                    Code::CONFIG_WRONG_TYPE,
                    &place,
                    Show::KeyOnly,
                    sentence,
                    Some(help),
                );
            }
        }
    }

    fn unknown_at_top(
        &self,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
    ) {
        let text = name.get_ref();
        let is_table = value.get_ref().is_table() || value.get_ref().is_array();
        let headings = || self.spec.sections.iter().map(|s| s.heading());
        let help = if is_table {
            let near = nearest(text, self.spec.sections.iter().map(|s| s.name));
            let near = near.and_then(|n| self.spec.sections.iter().find(|s| s.name == n));
            match near {
                Some(section) => format!("did you mean {}?", section.heading()),
                None => format!("tables are {}", headings().collect::<Vec<_>>().join(", ")),
            }
        } else {
            match self.home_of(text) {
                Some(heading) => format!("it belongs under {heading}"),
                None => self.meant(text).unwrap_or_else(|| {
                    format!(
                        "keys stand under {}",
                        headings().collect::<Vec<_>>().join(", ")
                    )
                }),
            }
        };
        let sentence = format!("`{text}` is not known here");
        self.record(
            Code::CONFIG_UNKNOWN_KEY,
            place,
            Show::KeyOnly,
            sentence,
            Some(help),
        );
    }

    /// The heading of the section that has a key of this name.
    pub(crate) fn home_of(&self, key: &str) -> Option<String> {
        let home = self.spec.sections.iter().find(|s| s.key(key).is_some())?;
        Some(home.heading())
    }

    /// The key of any section that was probably meant.
    pub(crate) fn meant(&self, key: &str) -> Option<String> {
        let all = self.spec.sections.iter().flat_map(|s| s.keys.iter());
        let word = nearest(key, all.map(|key| key.name()))?;
        let heading = self.home_of(word)?;
        Some(format!("did you mean `{word}` under {heading}?"))
    }
}
