//! Host names, domains and tunnel names.
//!
//! A [`HostName`] has one spelling (lower case, no trailing dot, IDNA as
//! punycode, no port), so that router, certificates, access rules and logs
//! cannot disagree about it.

use std::fmt;
use std::net::IpAddr;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left after trimming.
    #[error("name is empty")]
    Empty,
    /// DNS allows 253 octets for a name and 63 for a label (RFC 1035 §2.3.4).
    #[error("name is too long: at most 63 characters between two dots, 253 in all")]
    TooLong,
    /// A character, or a hyphen in a place, that DNS host names do not have.
    #[error("name may hold letters, digits and inner hyphens only")]
    BadCharacter,
}

/// Most octets of a host name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// Most octets of one label of it.
const MAX_LABEL: usize = 63;

/// A host name or an IP address literal as it stands in a `Host` header,
/// without its port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

impl HostName {
    /// Parses a name or an address literal (`[::1]` with its brackets).
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            return match inner.parse::<IpAddr>() {
                Ok(IpAddr::V6(v6)) => Ok(Self(format!("[{v6}]").into())),
                _ => Err(NameError::BadCharacter),
            };
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if is_plain_host(text.as_bytes()) {
            return Ok(Self(text.into()));
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| NameError::BadCharacter)?
        };
        check_labels(&ascii)?;
        Ok(Self(ascii.into()))
    }

    /// The one spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Already in the one spelling: the common case of a request, no allocation
/// besides the result.
fn is_plain_host(text: &[u8]) -> bool {
    let lower = text
        .iter()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'.' || *b == b'-');
    lower && std::str::from_utf8(text).is_ok_and(|t| check_labels(t).is_ok())
}

fn check_labels(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    name.split('.').try_for_each(check_label)
}

fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::BadCharacter);
    }
    if label.len() > MAX_LABEL {
        return Err(NameError::TooLong);
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if label.starts_with('-') || label.ends_with('-') || !label.bytes().all(inner) {
        return Err(NameError::BadCharacter);
    }
    Ok(())
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The domain under which an edge publishes tunnels: `<tunnel>.<domain>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(HostName);

impl Domain {
    /// Parses a domain.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        HostName::parse(text).map(Self)
    }

    /// The domain itself as a host name.
    #[must_use]
    pub fn host(&self) -> &HostName {
        &self.0
    }

    /// The host name of a tunnel.
    #[must_use]
    pub fn host_of(&self, tunnel: &TunnelName) -> HostName {
        HostName(format!("{}.{}", tunnel.as_str(), self.0).into())
    }

    /// The tunnel's label when `host` is exactly one label below the domain.
    #[must_use]
    pub fn label_of<'h>(&self, host: &'h HostName) -> Option<&'h str> {
        let label = host
            .as_str()
            .strip_suffix(self.0.as_str())?
            .strip_suffix('.')?;
        (!label.is_empty() && !label.contains('.')).then_some(label)
    }
}

/// The name of a tunnel: one DNS label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelName(Box<str>);

impl TunnelName {
    /// Parses one label; upper case is folded.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let label = text.to_ascii_lowercase();
        if label.is_empty() {
            return Err(NameError::Empty);
        }
        check_label(&label)?;
        if label.contains('_') {
            return Err(NameError::BadCharacter);
        }
        Ok(Self(label.into()))
    }

    /// A name nobody can guess: 80 random bits, 16 letters and digits.
    #[must_use]
    pub fn random(bytes: [u8; 10]) -> Self {
        let text = data_encoding::BASE32_NOPAD
            .encode(&bytes)
            .to_ascii_lowercase();
        Self(text.into())
    }

    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TunnelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_have_one_spelling() {
        let same = ["App.Example.Test", "app.example.test.", "app.example.test"];
        for text in same {
            assert_eq!(HostName::parse(text).unwrap().as_str(), "app.example.test");
        }
        assert_eq!(
            HostName::parse("bücher.test").unwrap().as_str(),
            "xn--bcher-kva.test"
        );
        assert_eq!(
            HostName::parse("[0:0:0:0:0:0:0:1]").unwrap().as_str(),
            "[::1]"
        );
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a/b",
            "a@b",
            "a:80",
            "[1.2.3.4]",
            "[::1",
        ] {
            assert!(HostName::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(HostName::parse(&"a".repeat(64)), Err(NameError::TooLong));
        assert_eq!(HostName::parse(&"a.".repeat(130)), Err(NameError::TooLong));
    }

    #[test]
    fn a_domain_knows_its_tunnels_by_one_label() {
        let domain = Domain::parse("example.test").unwrap();
        let tunnel = TunnelName::parse("App").unwrap();
        assert_eq!(domain.host_of(&tunnel).as_str(), "app.example.test");
        let label = |host: &str| {
            domain
                .label_of(&HostName::parse(host).unwrap())
                .map(str::to_owned)
        };
        assert_eq!(label("app.example.test").as_deref(), Some("app"));
        assert_eq!(label("example.test"), None);
        assert_eq!(label("a.b.example.test"), None);
        assert_eq!(label("appexample.test"), None);
    }
}
