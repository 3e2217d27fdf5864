//! The `Host` field and the authority of a target: one host, one optional
//! port, nothing else.

use adit_model::HostName;

/// A host with the port that stood behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The host in its one spelling.
    pub host: HostName,
    /// The port, when one was given.
    pub port: Option<u16>,
}

impl Authority {
    /// Parses `host[:port]` (RFC 9110 §7.2). User information, an empty port,
    /// port 0, characters outside ASCII and anything [`HostName`] refuses
    /// give `None`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if !bytes.is_ascii() {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let (host, port) = split_port(text)?;
        Some(Self {
            host: HostName::parse(host).ok()?,
            port,
        })
    }
}

fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let colon = match text.rfind(':') {
        Some(at) if !text.ends_with(']') => at,
        _ => return Some((text, None)),
    };
    let digits = &text[colon + 1..];
    let plain = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = digits.parse().ok().filter(|p| plain && *p != 0)?;
    Some((&text[..colon], Some(port)))
}

/// The last authority parsed: visitors repeat theirs with each request, so
/// that most requests cost one comparison and no allocation.
#[derive(Clone, Debug, Default)]
pub struct AuthorityCache {
    raw: Vec<u8>,
    parsed: Option<Authority>,
}

impl AuthorityCache {
    /// The authority that `raw` spells.
    pub fn parse(&mut self, raw: &[u8]) -> Option<&Authority> {
        if self.parsed.is_none() || self.raw != raw {
            self.parsed = Authority::parse(raw);
            self.raw.clear();
            self.raw.extend_from_slice(raw);
        }
        self.parsed.as_ref()
    }

    /// The result of the last [`AuthorityCache::parse`].
    #[must_use]
    pub fn last(&self) -> Option<&Authority> {
        self.parsed.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_told_apart() {
        let parse = |text: &str| {
            Authority::parse(text.as_bytes()).map(|a| (a.host.as_str().to_owned(), a.port))
        };
        assert_eq!(parse("A.test"), Some(("a.test".into(), None)));
        assert_eq!(parse("a.test.:80"), Some(("a.test".into(), Some(80))));
        assert_eq!(parse("[::1]:8080"), Some(("[::1]".into(), Some(8080))));
        assert_eq!(parse("[::1]"), Some(("[::1]".into(), None)));
        assert_eq!(parse("127.0.0.1:1"), Some(("127.0.0.1".into(), Some(1))));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for text in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a@b",
            "a/b",
            "a b",
            "a,b",
            "::1",
            "[::1",
            "[::1]x:80",
            "a?",
            "a#",
            "a\\b",
            "a%41",
            "b\u{fc}cher.test",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_cache_never_answers_for_another_host() {
        let mut cache = AuthorityCache::default();
        assert!(cache.parse(b"a.test").is_some());
        assert!(cache.parse(b"a@test").is_none());
        assert!(cache.parse(b"a@test").is_none());
        assert_eq!(
            cache.parse(b"b.test").map(|a| a.host.to_string()),
            Some("b.test".into())
        );
    }
}
