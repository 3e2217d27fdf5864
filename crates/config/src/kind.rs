//! Kinds of values: how each is read, described and written as a JSON schema.

use std::net::SocketAddr;
use std::path::PathBuf;

use adit_model::Code;
use serde_json::json;

use crate::raw::Raw;
use crate::secret::SecretRef;

/// What a kind has to say against a value. The reader adds key and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Its stable code.
    pub code: Code,
    /// The sentence after the key's name: `wants a number, not a text`.
    pub predicate: String,
    /// What to write instead.
    pub suggestion: Option<String>,
    /// Which item of a list it is about, from 0.
    pub item: Option<usize>,
}

impl Complaint {
    /// A value that has the right type and the wrong form.
    #[must_use]
    pub fn form(predicate: String, suggestion: Option<String>) -> Self {
        Self {
            code: Code::CONFIG_BAD_VALUE,
            predicate,
            suggestion,
            item: None,
        }
    }

    /// It is about one item of a list.
    fn of(self, item: usize) -> Self {
        Self {
            item: Some(item),
            ..self
        }
    }
}

/// A kind of value.
pub trait Kind: Sync {
    /// What it becomes.
    type Value;

    /// Reads a value.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(&self, raw: Raw<'_>) -> Result<Self::Value, Complaint>;

    /// All that is wrong with a value: of a list, with each of its items.
    fn complaints(&self, raw: Raw<'_>) -> Vec<Complaint> {
        self.parse(raw).err().into_iter().collect()
    }

    /// Its JSON schema (2020-12), without title and description.
    fn schema(&self) -> serde_json::Value;

    /// A few words for the reference page: `number of seconds, 1 to 3600`.
    fn describe(&self) -> String;

    /// Whether the value must never be shown.
    fn is_secret(&self) -> bool {
        false
    }
}

/// A whole number with its range and unit.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Least value.
    pub min: u32,
    /// Greatest value.
    pub max: u32,
    /// `seconds`, `bytes`; empty when the number counts the key's own things.
    pub unit: &'static str,
    /// What 0 means where it is not a quantity: `no limit`.
    pub zero: &'static str,
}

impl Number {
    /// A number in a range.
    #[must_use]
    pub const fn new(min: u32, max: u32) -> Self {
        Self {
            min,
            max,
            unit: "",
            zero: "",
        }
    }

    /// Its unit.
    #[must_use]
    pub const fn of(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// What 0 means.
    #[must_use]
    pub const fn zero(mut self, meaning: &'static str) -> Self {
        self.zero = meaning;
        self
    }

    fn wanted(&self) -> String {
        let of = if self.unit.is_empty() {
            String::new()
        } else {
            format!(" of {}", self.unit)
        };
        let zero = if self.zero.is_empty() {
            String::new()
        } else {
            format!(" (0 = {})", self.zero)
        };
        format!("number{of} from {} to {}{zero}", self.min, self.max)
    }
}

impl Kind for Number {
    type Value = u32;

    fn parse(&self, raw: Raw<'_>) -> Result<u32, Complaint> {
        let wanted = format!("a {}", self.wanted());
        let number = raw.integer(&wanted)?;
        let fits = u32::try_from(number).ok();
        fits.filter(|n| (self.min..=self.max).contains(n))
            .ok_or_else(|| Complaint {
                code: Code::CONFIG_OUT_OF_RANGE,
                predicate: format!("wants {wanted}, not {number}"),
                suggestion: None,
                item: None,
            })
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "integer", "minimum": self.min, "maximum": self.max})
    }

    fn describe(&self) -> String {
        self.wanted()
    }
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug)]
pub struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn parse(&self, raw: Raw<'_>) -> Result<bool, Complaint> {
        raw.flag()
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "boolean"})
    }

    fn describe(&self) -> String {
        "true or false".to_owned()
    }
}

/// One word of a few.
#[derive(Clone, Copy, Debug)]
pub struct Choice<T: 'static>(
    /// Word and meaning.
    pub &'static [(&'static str, T)],
);

impl<T> Choice<T> {
    fn words(&self) -> Vec<&'static str> {
        self.0.iter().map(|(word, _)| *word).collect()
    }

    fn wanted(&self) -> String {
        let quoted: Vec<String> = self.words().iter().map(|w| format!("\"{w}\"")).collect();
        match quoted.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, before)) => format!("{} or {last}", before.join(", ")),
            None => String::new(),
        }
    }
}

impl<T: Copy + Sync> Kind for Choice<T> {
    type Value = T;

    fn parse(&self, raw: Raw<'_>) -> Result<T, Complaint> {
        let wanted = self.wanted();
        let text = raw.text(&wanted)?;
        let found = self.0.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let near = nearest(text, self.words());
            Complaint::form(
                format!("wants {wanted}, not `{text}`"),
                near.map(|word| format!("did you mean \"{word}\"?")),
            )
        })
    }

    fn schema(&self) -> serde_json::Value {
        json!({"enum": self.words()})
    }

    fn describe(&self) -> String {
        self.wanted()
    }
}

/// A socket address that a door listens on.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// Whether `"off"` is a value.
    pub optional: bool,
}

impl Address {
    const EXAMPLE: &'static str = "\"127.0.0.1:8080\"";

    fn wanted(self) -> &'static str {
        if self.optional {
            "an address and port, or \"off\""
        } else {
            "an address and port"
        }
    }

    fn suggest(text: &str) -> String {
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
            return format!(
                "\"127.0.0.1:{port}\" for this machine only, \"0.0.0.0:{port}\" for everybody"
            );
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            return format!("write the address itself: \"127.0.0.1:{port}\"");
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            let bracketed = if text.contains(':') {
                format!("[{text}]")
            } else {
                text.to_owned()
            };
            return format!("add the port: \"{bracketed}:8080\"");
        }
        format!("write it like {}", Self::EXAMPLE)
    }
}

impl Kind for Address {
    /// `None` is `"off"`.
    type Value = Option<SocketAddr>;

    fn parse(&self, raw: Raw<'_>) -> Result<Self::Value, Complaint> {
        let wanted = self.wanted();
        let text = raw.text(wanted).map_err(|complaint| Complaint {
            suggestion: raw.integer("").ok().map(|n| Self::suggest(&n.to_string())),
            ..complaint
        })?;
        let text = text.trim();
        if self.optional && text == "off" {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            Complaint::form(
                format!("wants {wanted}, not `{text}`"),
                Some(Self::suggest(text)),
            )
        })
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "string", "examples": ["127.0.0.1:8080", "[::1]:8080"]})
    }

    fn describe(&self) -> String {
        self.wanted().trim_start_matches("an ").to_owned()
    }
}

/// A folder of the file system.
#[derive(Clone, Copy, Debug)]
pub struct Folder;

impl Kind for Folder {
    type Value = PathBuf;

    fn parse(&self, raw: Raw<'_>) -> Result<PathBuf, Complaint> {
        let text = raw.text("a path in quotes")?;
        if text.is_empty() || text.contains('\0') {
            let help = Some("write it like \"/var/lib/adit\"".to_owned());
            return Err(Complaint::form(
                "wants a path, not an empty text".to_owned(),
                help,
            ));
        }
        if text.starts_with("~/") {
            let help = Some("write the whole path: ~ is a habit of shells".to_owned());
            return Err(Complaint::form(format!("wants a path, not `{text}`"), help));
        }
        Ok(PathBuf::from(text))
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "string", "minLength": 1})
    }

    fn describe(&self) -> String {
        "path".to_owned()
    }
}

/// A secret: literal, `file:` or `env:`. Complaints never repeat it.
#[derive(Clone, Copy, Debug)]
pub struct SecretText;

impl Kind for SecretText {
    type Value = SecretRef;

    fn parse(&self, raw: Raw<'_>) -> Result<SecretRef, Complaint> {
        const WANTED: &str = "a text: the value, \"file:/path\" or \"env:NAME\"";
        let text = raw.text(WANTED).map_err(|complaint| Complaint {
            predicate: format!("wants {WANTED}"),
            suggestion: Some("put it in quotes".to_owned()),
            ..complaint
        })?;
        SecretRef::parse(text).ok_or_else(|| {
            let help = "write \"file:/path\" or \"env:NAME\"".to_owned();
            Complaint::form(format!("wants {WANTED}, not an empty one"), Some(help))
        })
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "string", "minLength": 1, "examples": ["file:/etc/adit/secret", "env:ADIT_SECRET"]})
    }

    fn describe(&self) -> String {
        "literal, `file:…` or `env:…`".to_owned()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// A text that a function of another crate parses.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<T: 'static> {
    /// With its article: `a host name`.
    pub wanted: &'static str,
    /// A value that is right.
    pub example: &'static str,
    /// The parser; its error says what is wrong, as a clause.
    pub parse: fn(&str) -> Result<T, String>,
}

impl<T> Kind for Parsed<T> {
    type Value = T;

    fn parse(&self, raw: Raw<'_>) -> Result<T, Complaint> {
        let text = raw.text(self.wanted)?;
        (self.parse)(text).map_err(|why| {
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            Complaint::form(
                format!("wants {}, not `{text}`{why}", self.wanted),
                Some(format!("write it like \"{}\"", self.example)),
            )
        })
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "string", "examples": [self.example]})
    }

    fn describe(&self) -> String {
        let words = self.wanted;
        let bare = words
            .strip_prefix("a ")
            .or_else(|| words.strip_prefix("an "));
        bare.unwrap_or(words).to_owned()
    }
}

const LIST: &str = "a list in brackets";

/// A list of values of one kind.
#[derive(Clone, Copy, Debug)]
pub struct ListOf<K>(
    /// The kind of each.
    pub K,
);

impl<K: Kind> Kind for ListOf<K> {
    type Value = Vec<K::Value>;

    fn parse(&self, raw: Raw<'_>) -> Result<Self::Value, Complaint> {
        let items = raw.items(LIST)?;
        let parse = |(at, item)| self.0.parse(item).map_err(|complaint| complaint.of(at));
        items.into_iter().enumerate().map(parse).collect()
    }

    fn complaints(&self, raw: Raw<'_>) -> Vec<Complaint> {
        let items = match raw.items(LIST) {
            Ok(items) => items,
            Err(no_list) => return vec![no_list],
        };
        let numbered = items.into_iter().enumerate();
        let complaints = numbered.flat_map(|(at, item)| {
            let complaints = self.0.complaints(item).into_iter();
            complaints.map(move |complaint| complaint.of(at))
        });
        complaints.collect()
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "array", "items": self.0.schema()})
    }

    fn describe(&self) -> String {
        format!("list: {}", self.0.describe())
    }

    fn is_secret(&self) -> bool {
        self.0.is_secret()
    }
}

/// The known word that was probably meant.
pub(crate) fn nearest<'w>(text: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let text = text.to_lowercase();
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&text, word), word))
        .filter(|(distance, word)| {
            *distance <= allowed || (text.len() > 3 && word.contains(text.as_str()))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
