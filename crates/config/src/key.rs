//! The declaration of a configuration: keys, sections, the whole.

use crate::kind::{Complaint, Kind};
use crate::raw::Raw;

/// One key: everything there is to know about it.
#[derive(Clone, Copy, Debug)]
pub struct Key<K> {
    /// As it is written.
    pub name: &'static str,
    /// How its value is read.
    pub kind: K,
    /// The value when none is given, as TOML.
    pub default: Option<&'static str>,
    /// Whether its table is wrong without it.
    pub required: bool,
    /// One or two sentences for schema and reference.
    pub help: &'static str,
}

impl<K> Key<K> {
    /// A key that may be absent.
    #[must_use]
    pub const fn optional(name: &'static str, kind: K, help: &'static str) -> Self {
        Self {
            name,
            kind,
            default: None,
            required: false,
            help,
        }
    }

    /// A key with a default, written as TOML.
    #[must_use]
    pub const fn or(
        name: &'static str,
        kind: K,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default: Some(default),
            required: false,
            help,
        }
    }

    /// A key that its table must have.
    #[must_use]
    pub const fn required(name: &'static str, kind: K, help: &'static str) -> Self {
        Self {
            name,
            kind,
            default: None,
            required: true,
            help,
        }
    }
}

/// A key of whichever kind.
pub trait AnyKey: Sync {
    /// As it is written.
    fn name(&self) -> &'static str;
    /// The value when none is given, as TOML.
    fn default(&self) -> Option<&'static str>;
    /// Whether its table is wrong without it.
    fn required(&self) -> bool;
    /// One or two sentences.
    fn help(&self) -> &'static str;
    /// Whether the value must never be shown.
    fn is_secret(&self) -> bool;
    /// The JSON schema of its value.
    fn schema(&self) -> serde_json::Value;
    /// A few words on its value.
    fn describe(&self) -> String;
    /// All that is wrong with a value.
    fn complaints(&self, raw: Raw<'_>) -> Vec<Complaint>;
}

impl<K: Kind> AnyKey for Key<K> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn default(&self) -> Option<&'static str> {
        self.default
    }
    fn required(&self) -> bool {
        self.required
    }
    fn help(&self) -> &'static str {
        self.help
    }
    fn is_secret(&self) -> bool {
        self.kind.is_secret()
    }
    fn schema(&self) -> serde_json::Value {
        self.kind.schema()
    }
    fn describe(&self) -> String {
        self.kind.describe()
    }
    fn complaints(&self, raw: Raw<'_>) -> Vec<Complaint> {
        self.kind.complaints(raw)
    }
}

/// A table: `[name]`, or `[[name]]` when it may stand several times.
pub struct SectionSpec {
    /// As it is written, without brackets.
    pub name: &'static str,
    /// Whether it is written `[[name]]`.
    pub repeated: bool,
    /// What it is for.
    pub help: &'static str,
    /// Its keys.
    pub keys: &'static [&'static dyn AnyKey],
}

impl SectionSpec {
    /// The heading as it is written.
    #[must_use]
    pub fn heading(&self) -> String {
        if self.repeated {
            format!("[[{}]]", self.name)
        } else {
            format!("[{}]", self.name)
        }
    }

    /// The key of this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static dyn AnyKey> {
        self.keys.iter().copied().find(|key| key.name() == name)
    }

    /// The environment variable that overrides a key; a repeated table has
    /// none.
    #[must_use]
    pub fn variable(&self, key: &str) -> Option<String> {
        let name = format!("ADIT_{}_{key}", self.name).to_ascii_uppercase();
        (!self.repeated).then_some(name)
    }
}

/// A whole configuration file.
pub struct Spec {
    /// `server.toml`, for headings.
    pub title: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Its tables.
    pub sections: &'static [&'static SectionSpec],
}

impl Spec {
    /// The names of all variables that override a key.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        let of = |section: &&'static SectionSpec| {
            let section = *section;
            section
                .keys
                .iter()
                .filter_map(|key| section.variable(key.name()))
        };
        self.sections.iter().flat_map(of).collect()
    }
}
