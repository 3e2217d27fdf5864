//! Secrets in a configuration: the value itself, or where it is kept.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A secret as it was configured.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// The value itself.
    Literal(Zeroizing<String>),
    /// `file:/path`: the content of a file, one trailing newline removed.
    File(PathBuf),
    /// `env:NAME`: the value of an environment variable.
    Variable(String),
}

impl SecretRef {
    /// Reads the text of a value; `None` when nothing stands behind the
    /// prefix.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = if let Some(path) = text.strip_prefix("file:") {
            Self::File(PathBuf::from(path))
        } else if let Some(name) = text.strip_prefix("env:") {
            Self::Variable(name.to_owned())
        } else {
            Self::Literal(Zeroizing::new(text.to_owned()))
        };
        let empty = match &parsed {
            Self::Literal(text) => text.is_empty(),
            Self::File(path) => path.as_os_str().is_empty(),
            Self::Variable(name) => name.is_empty() || name.contains(['=', '\0']),
        };
        (!empty).then_some(parsed)
    }

    /// Fetches the secret.
    ///
    /// # Errors
    /// A sentence that says what could not be read, never what was read.
    pub fn reveal(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&std::path::Path) -> Result<String, String>,
    ) -> Result<Zeroizing<String>, String> {
        let text = match self {
            Self::Literal(text) => return Ok(text.clone()),
            Self::File(path) => Zeroizing::new(
                read(path).map_err(|why| format!("{} cannot be read: {why}", path.display()))?,
            ),
            Self::Variable(name) => {
                Zeroizing::new(variable(name).ok_or_else(|| format!("variable {name} is not set"))?)
            }
        };
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(format!("{self:?} is empty"));
        }
        Ok(Zeroizing::new(line.to_owned()))
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("literal (hidden)"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_by_where_it_is_kept() {
        let env = |name: &str| (name == "SET").then(|| "value\r\n".to_owned());
        let read = |path: &std::path::Path| match path.to_str() {
            Some("/there") => Ok("from file\n".to_owned()),
            Some("/empty") => Ok("\n".to_owned()),
            _ => Err("no such file".to_owned()),
        };
        let reveal = |text: &str| {
            SecretRef::parse(text)
                .unwrap()
                .reveal(&env, &read)
                .map(|s| s.to_string())
        };
        assert_eq!(reveal("as it is").unwrap(), "as it is");
        assert_eq!(reveal("file:/there").unwrap(), "from file");
        assert_eq!(reveal("env:SET").unwrap(), "value");
        assert_eq!(
            reveal("file:/gone").unwrap_err(),
            "/gone cannot be read: no such file"
        );
        assert_eq!(reveal("file:/empty").unwrap_err(), "file /empty is empty");
        assert_eq!(reveal("env:GONE").unwrap_err(), "variable GONE is not set");
        for nothing in ["", "file:", "env:", "env:A=B"] {
            assert_eq!(SecretRef::parse(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_literal_hides_in_debug() {
        let secret = SecretRef::parse("do-not-show").unwrap();
        assert_eq!(format!("{secret:?}"), "literal (hidden)");
    }
}
