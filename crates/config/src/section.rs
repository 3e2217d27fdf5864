//! One table of a document: typed values by key, and the first pass over it.

use adit_model::Code;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::document::{Document, Place, Placed};
use crate::excerpt::Show;
use crate::key::{AnyKey, Key, SectionSpec};
use crate::kind::{Complaint, Kind, nearest};
use crate::raw::Raw;

/// One table of a document.
pub struct Section<'d> {
    pub(crate) document: &'d Document<'d>,
    pub(crate) spec: &'static SectionSpec,
    pub(crate) table: Option<&'d DeTable<'d>>,
    pub(crate) heading: Place,
}

impl<'d> Section<'d> {
    /// The value of a key: from the environment, else the file, else the
    /// default. `None` when it has none of these, or a mistake was recorded.
    #[must_use]
    pub fn get<K: Kind>(&self, key: &Key<K>) -> Option<K::Value> {
        if let Some(given) = self.given(key) {
            return Some(given.value);
        }
        // A value that is there and wrong must not turn into the default.
        if self.is_given(key.name) {
            return None;
        }
        let default = DeValue::parse(key.default?).ok()?;
        key.kind.parse(Raw::Toml(default.get_ref())).ok()
    }

    /// The value of a key and its place, when it was given and is right.
    #[must_use]
    pub fn given<K: Kind>(&self, key: &Key<K>) -> Option<Placed<K::Value>> {
        if let Some((place, text)) = self.outside(key.name) {
            let value = key.kind.parse(Raw::Text(&text)).ok()?;
            return Some(Placed { value, place });
        }
        let written = self.table?.get(key.name)?;
        let value = key.kind.parse(Raw::Toml(written.get_ref())).ok()?;
        Some(Placed {
            value,
            place: Place::Span(written.span()),
        })
    }

    /// Whether a key stands in the file or the environment, right or wrong.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.outside(key).is_some() || self.table.is_some_and(|t| t.contains_key(key))
    }

    /// The place of a key's value, else of the section's heading.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Place {
        if let Some((place, _)) = self.outside(key) {
            return place;
        }
        match self.table.and_then(|t| t.get_key_value(key)) {
            Some((name, _)) => Place::Span(name.span()),
            None => self.heading.clone(),
        }
    }

    /// The place of the section's heading.
    #[must_use]
    pub fn heading(&self) -> &Place {
        &self.heading
    }

    /// Records a mistake in this section.
    pub fn complain(&self, code: Code, key: &str, sentence: &str, suggestion: Option<&str>) {
        let place = self.place_of(key);
        self.document.complain(code, &place, sentence, suggestion);
    }

    /// A value from outside the file: an option, else a variable.
    fn outside(&self, key: &str) -> Option<(Place, String)> {
        let name = self.spec.variable(key)?;
        let input = &self.document.input;
        if let Some(option) = input.options.iter().find(|o| o.variable == name) {
            let place = Place::Argument(option.name.to_owned());
            return Some((place, option.value.to_owned()));
        }
        let text = (input.variable)(&name)?;
        Some((Place::Variable(name), text))
    }

    /// The first pass over one table. `whole`: the file's grammar was right,
    /// so that what is missing is truly missing.
    pub(crate) fn check(&self, whole: bool) {
        for (name, value) in self.table.into_iter().flatten() {
            match self.spec.key(name.get_ref()) {
                Some(key) => self.check_value(key, value),
                None => self.unknown(name),
            }
        }
        for key in self.spec.keys {
            if let Some((place, text)) = self.outside(key.name()) {
                for complaint in key.complaints(Raw::Text(&text)) {
                    self.reject(*key, complaint, &place);
                }
            }
            if whole && key.required() && !self.is_given(key.name()) {
                let sentence = format!("{} has no `{}`", self.spec.heading(), key.name());
                let help = format!("add `{}`: {}", key.name(), key.help());
                self.document.record(
                    Code::CONFIG_MISSING,
                    &self.heading,
                    Show::Known,
                    sentence,
                    Some(help),
                );
            }
        }
    }

    fn check_value(&self, key: &'static dyn AnyKey, value: &Spanned<DeValue<'_>>) {
        for complaint in key.complaints(Raw::Toml(value.get_ref())) {
            let item = complaint.item.and_then(|at| value.get_ref().get(at));
            let span = item.map_or_else(|| value.span(), Spanned::span);
            self.reject(key, complaint, &Place::Span(span));
        }
    }

    fn reject(&self, key: &'static dyn AnyKey, complaint: Complaint, place: &Place) {
        let show = if key.is_secret() {
            Show::KeyOnly
        } else {
            Show::Known
        };
        let sentence = format!("`{}` {}", key.name(), complaint.predicate);
        self.document
            .record(complaint.code, place, show, sentence, complaint.suggestion);
    }

    fn unknown(&self, name: &Spanned<DeString<'_>>) {
        let text = name.get_ref();
        let near = nearest(text, self.spec.keys.iter().map(|key| key.name()));
        let help = match (near, self.document.home_of(text)) {
            (_, Some(heading)) => format!("it belongs under {heading}"),
            (Some(word), None) => format!("did you mean `{word}`?"),
            (None, None) => self
                .document
                .meant(text)
                .unwrap_or_else(|| self.known_keys()),
        };
        let sentence = format!("`{text}` is not a key of {}", self.spec.heading());
        let place = Place::Span(name.span());
        self.document.record(
            Code::CONFIG_UNKNOWN_KEY,
            &place,
            Show::KeyOnly,
            sentence,
            Some(help),
        );
    }

    fn known_keys(&self) -> String {
        let known: Vec<&str> = self.spec.keys.iter().map(|key| key.name()).collect();
        if known.len() > 8 {
            return "`adit config example` shows every key".to_owned();
        }
        format!("keys of {}: {}", self.spec.heading(), known.join(", "))
    }
}
