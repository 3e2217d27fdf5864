//! Takes the backend's own address out of answers, where it is exactly that.

use std::ops::Range;

use crate::{Authority, fields};

/// Where a backend lives, as it may name itself in its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    https: bool,
    authority: Authority,
}

impl Origin {
    /// Parses `host`, `host:port` or either behind `http://` or `https://`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return None,
            None => (false, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        Authority::parse(rest.as_bytes()).map(|authority| Self { https, authority })
    }

    fn port(&self) -> u16 {
        let default = if self.https { 443 } else { 80 };
        self.authority.port.unwrap_or(default)
    }

    fn is(&self, https: Option<bool>, other: &Authority) -> bool {
        let default = if https.unwrap_or(self.https) { 443 } else { 80 };
        https.is_none_or(|https| https == self.https)
            && self.authority.host == other.host
            && self.port() == other.port.unwrap_or(default)
    }
}

/// What to take out, and what to put in its place.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// The names of the backend.
    pub backend: &'a [Origin],
    /// The scheme the visitor used.
    pub scheme: &'a str,
    /// The Host the visitor used.
    pub host: &'a [u8],
}

impl Rewrite<'_> {
    /// Appends the value of a Location or Content-Location.
    pub(crate) fn location(&self, out: &mut Vec<u8>, value: &[u8]) {
        self.url(out, value, 0);
    }

    /// Appends the value of a Refresh: `seconds; url=…`.
    pub(crate) fn refresh(&self, out: &mut Vec<u8>, value: &[u8]) {
        let key = b"url=";
        let url = value
            .windows(key.len())
            .position(|w| w.eq_ignore_ascii_case(key))
            .map_or(value.len(), |at| at + key.len());
        let quoted = matches!(value.get(url), Some(b'"' | b'\''));
        self.url(out, value, url + usize::from(quoted));
    }

    /// Appends `value` with the origin of the URL at `at` exchanged.
    fn url(&self, out: &mut Vec<u8>, value: &[u8], at: usize) {
        let url = value.get(at..).unwrap_or_default();
        match self.own_origin(url) {
            Some(origin) => {
                out.extend_from_slice(value.get(..at).unwrap_or_default());
                if origin.start > 0 {
                    out.extend_from_slice(self.scheme.as_bytes());
                    out.extend_from_slice(b":");
                }
                out.extend_from_slice(b"//");
                out.extend_from_slice(self.host);
                out.extend_from_slice(url.get(origin.end..).unwrap_or_default());
            }
            None => out.extend_from_slice(value),
        }
    }

    /// Where scheme and authority of `url` end when they are the backend's;
    /// the range starts behind the scheme's colon.
    fn own_origin(&self, url: &[u8]) -> Option<Range<usize>> {
        let prefix = |p: &[u8]| {
            url.get(..p.len())
                .is_some_and(|u| u.eq_ignore_ascii_case(p))
        };
        let (https, slashes) = if prefix(b"http://") {
            (Some(false), 5)
        } else if prefix(b"https://") {
            (Some(true), 6)
        } else if prefix(b"//") {
            (None, 0)
        } else {
            return None;
        };
        let start = slashes + 2;
        let rest = url.get(start..)?;
        let length = rest
            .iter()
            .position(|b| b"/?#\"' ,;\\".contains(b))
            .unwrap_or(rest.len());
        let authority = Authority::parse(rest.get(..length)?)?;
        let named = self.backend.iter().any(|o| o.is(https, &authority));
        (named || self.is_own_port(&authority)).then_some(slashes..start + length)
    }

    /// Whether it is the visitor's host with the backend's port: a server puts
    /// both together that is shown the first and listens on the second.
    fn is_own_port(&self, authority: &Authority) -> bool {
        let Some(visitor) = Authority::parse(self.host) else {
            return false;
        };
        let port = authority.port.filter(|port| Some(*port) != visitor.port);
        let own = |port| self.backend.iter().any(|origin| origin.port() == port);
        visitor.host == authority.host && port.is_some_and(own)
    }

    /// Appends a Set-Cookie without a Domain that names the backend's host.
    pub(crate) fn cookie(&self, out: &mut Vec<u8>, value: &[u8]) {
        for (n, part) in value.split(|b| *b == b';').enumerate() {
            if n > 0 && self.is_own_domain(part) {
                continue;
            }
            if n > 0 {
                out.push(b';');
            }
            out.extend_from_slice(part);
        }
    }

    fn is_own_domain(&self, attribute: &[u8]) -> bool {
        let Some(at) = memchr::memchr(b'=', attribute) else {
            return false;
        };
        let (name, value) = attribute.split_at(at);
        let value = fields::trim(value.get(1..).unwrap_or_default());
        let value = value.strip_prefix(b".").unwrap_or(value);
        fields::trim(name).eq_ignore_ascii_case(b"domain")
            && self.backend.iter().any(|origin| {
                let host = origin.authority.host.as_str();
                value.eq_ignore_ascii_case(host.as_bytes())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Vec<Origin> {
        ["127.0.0.1:3000", "https://inner.test/"]
            .iter()
            .map(|t| Origin::parse(t).unwrap())
            .collect()
    }

    fn rewritten(f: impl Fn(&Rewrite<'_>, &mut Vec<u8>)) -> String {
        let rewrite = Rewrite {
            backend: &origins(),
            scheme: "https",
            host: b"app.test:8443",
        };
        let mut out = Vec::new();
        f(&rewrite, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_the_exact_origin_is_exchanged() {
        for (value, expected) in [
            ("http://127.0.0.1:3000/a?b#c", "https://app.test:8443/a?b#c"),
            ("HTTP://127.0.0.1:3000", "https://app.test:8443"),
            ("//127.0.0.1:3000/a", "//app.test:8443/a"),
            ("https://inner.test/a", "https://app.test:8443/a"),
            ("https://INNER.test:443?x", "https://app.test:8443?x"),
            ("http://inner.test/a", "http://inner.test/a"),
            ("https://127.0.0.1:3000/", "https://127.0.0.1:3000/"),
            ("http://127.0.0.1:3001/", "http://127.0.0.1:3001/"),
            ("http://app.test:3000/dir/", "https://app.test:8443/dir/"),
            ("http://app.test:9000/", "http://app.test:9000/"),
            ("https://app.test:8443/a", "https://app.test:8443/a"),
            ("https://app.test/a", "https://app.test/a"),
            ("http://127.0.0.1:30000/", "http://127.0.0.1:30000/"),
            ("http://u@127.0.0.1:3000/", "http://u@127.0.0.1:3000/"),
            (
                "http://127.0.0.1:3000.evil.test/",
                "http://127.0.0.1:3000.evil.test/",
            ),
            ("/relative", "/relative"),
            ("", ""),
        ] {
            assert_eq!(
                rewritten(|r, out| r.location(out, value.as_bytes())),
                expected
            );
        }
    }

    #[test]
    fn refresh_and_cookies() {
        for (value, expected) in [
            (
                "5; url=http://127.0.0.1:3000/a",
                "5; url=https://app.test:8443/a",
            ),
            (
                "5;URL='http://127.0.0.1:3000/a'",
                "5;URL='https://app.test:8443/a'",
            ),
            ("5", "5"),
            ("5; url=/a", "5; url=/a"),
        ] {
            assert_eq!(
                rewritten(|r, out| r.refresh(out, value.as_bytes())),
                expected
            );
        }
        for (value, expected) in [
            (
                "a=b; Path=/; Domain=127.0.0.1; Secure",
                "a=b; Path=/; Secure",
            ),
            ("a=b; domain = .Inner.test", "a=b"),
            ("a=b; Domain=app.test", "a=b; Domain=app.test"),
            ("domain=127.0.0.1", "domain=127.0.0.1"),
            ("a=b;;x", "a=b;;x"),
        ] {
            assert_eq!(
                rewritten(|r, out| r.cookie(out, value.as_bytes())),
                expected
            );
        }
    }
}
