//! A value before its kind has looked at it: from the file or from the
//! environment, where everything is text.

use adit_model::Code;
use toml::de::DeValue;

use crate::kind::Complaint;

/// One value as it was written.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'v> {
    /// A TOML value.
    Toml(&'v DeValue<'v>),
    /// The text of an environment variable.
    Text(&'v str),
}

impl<'v> Raw<'v> {
    /// A text. `wanted` names what the key wants, for the complaint.
    ///
    /// # Errors
    /// Any other type of value.
    pub fn text(self, wanted: &str) -> Result<&'v str, Complaint> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Toml(DeValue::String(text)) => Ok(text.as_ref()),
            Self::Toml(value) => Err(self.mistyped(wanted, quoted(value))),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Any other type of value; a number beyond 64 bits.
    pub fn integer(self, wanted: &str) -> Result<i64, Complaint> {
        match self {
            Self::Toml(DeValue::Integer(number)) => {
                i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| Complaint {
                    code: Code::CONFIG_OUT_OF_RANGE,
                    predicate: format!("wants {wanted}, not {}", number.as_str()),
                    suggestion: None,
                    item: None,
                })
            }
            Self::Toml(DeValue::String(text)) => {
                let digits = text.trim().parse::<i64>().ok();
                let help = digits.map(|n| format!("write it without quotes: {n}"));
                Err(self.mistyped(wanted, help))
            }
            Self::Toml(_) => Err(self.mistyped(wanted, None)),
            Self::Text(text) => text.trim().parse().map_err(|_| self.mistyped(wanted, None)),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// Any other value.
    pub fn flag(self) -> Result<bool, Complaint> {
        const WANTED: &str = "true or false";
        let word = match self {
            Self::Toml(DeValue::Boolean(flag)) => return Ok(*flag),
            Self::Toml(DeValue::String(text)) => text.as_ref(),
            Self::Toml(_) => return Err(self.mistyped(WANTED, None)),
            Self::Text(text) => text,
        };
        let flag = match word.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        };
        match (self, flag) {
            (Self::Text("true" | "false"), Some(flag)) => Ok(flag),
            (Self::Text(_), _) => Err(self.mistyped(WANTED, flag.map(|f| format!("write {f}")))),
            (Self::Toml(_), flag) => Err(self.mistyped(
                WANTED,
                flag.map(|f| format!("write it without quotes: {f}")),
            )),
        }
    }

    /// The values of a list; in the environment they are separated by commas.
    ///
    /// # Errors
    /// Any other type of value.
    pub fn items(self, wanted: &str) -> Result<Vec<Self>, Complaint> {
        match self {
            Self::Toml(DeValue::Array(values)) => Ok(values
                .iter()
                .map(|value| Self::Toml(value.get_ref()))
                .collect()),
            Self::Toml(value) => {
                let shown = quoted_or_text(value);
                let help = shown.map(|text| format!("put it in brackets: [{text}]"));
                Err(self.mistyped(wanted, help))
            }
            Self::Text(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(Self::Text)
                .collect()),
        }
    }

    fn mistyped(self, wanted: &str, suggestion: Option<String>) -> Complaint {
        let found = match self {
            Self::Text(text) => format!("`{text}`"),
            Self::Toml(value) => match value {
                DeValue::String(_) => "a text".to_owned(),
                DeValue::Integer(number) => format!("the number {}", number.as_str()),
                DeValue::Float(number) => format!("the number {}", number.as_str()),
                DeValue::Boolean(flag) => format!("{flag}"),
                DeValue::Datetime(_) => "a date".to_owned(),
                DeValue::Array(_) => "a list".to_owned(),
                DeValue::Table(_) => "a table".to_owned(),
            },
        };
        Complaint {
            code: Code::CONFIG_WRONG_TYPE,
            predicate: format!("wants {wanted}, not {found}"),
            suggestion,
            item: None,
        }
    }
}

fn quoted(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(n) => Some(format!("put it in quotes: \"{}\"", n.as_str())),
        DeValue::Float(n) => Some(format!("put it in quotes: \"{}\"", n.as_str())),
        _ => None,
    }
}

fn quoted_or_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(format!("\"{text}\"")),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}
