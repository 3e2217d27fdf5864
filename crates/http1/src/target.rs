//! Request targets (RFC 9112 §3.2): their characters, their forms, and paths
//! that could be read in two ways.

use crate::Refusal;
use crate::fields::Span;

/// Where the parts of a target lie in the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetSpans {
    /// The authority of an absolute-form target.
    pub(crate) authority: Option<Span>,
    /// The path; empty in an absolute form without one.
    pub(crate) path: Span,
    /// The query, without its question mark.
    pub(crate) query: Option<Span>,
}

/// Splits and checks a target that begins at `base` of the head.
pub(crate) fn parse(target: &[u8], base: usize, is_options: bool) -> Result<TargetSpans, Refusal> {
    if !target.iter().all(|b| is_target_byte(*b)) {
        return Err(Refusal::TargetCharacter);
    }
    if target == b"*" {
        return if is_options {
            Ok(TargetSpans {
                path: Span::new(base, base + 1),
                ..TargetSpans::default()
            })
        } else {
            Err(Refusal::TargetForm)
        };
    }
    let path_at = if target.first() == Some(&b'/') {
        0
    } else {
        let after = scheme_length(target).ok_or(Refusal::TargetForm)?;
        let rest = target.get(after..).unwrap_or_default();
        after
            + rest
                .iter()
                .position(|b| matches!(b, b'/' | b'?'))
                .unwrap_or(rest.len())
    };
    let rest = target.get(path_at..).unwrap_or_default();
    let mark = memchr::memchr(b'?', rest);
    let path_end = path_at + mark.unwrap_or(rest.len());
    check_path(target.get(path_at..path_end).unwrap_or_default())?;
    Ok(TargetSpans {
        authority: scheme_length(target)
            .filter(|_| path_at > 0)
            .map(|start| Span::new(base + start, base + path_at)),
        path: Span::new(base + path_at, base + path_end),
        query: mark.map(|_| Span::new(base + path_end + 1, base + target.len())),
    })
}

fn scheme_length(target: &[u8]) -> Option<usize> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|s| {
        target
            .get(..s.len())
            .filter(|t| t.eq_ignore_ascii_case(s))
            .map(<[u8]>::len)
    })
}

/// Printable ASCII without the characters that RFC 3986 bars and browsers
/// always escape. A fragment is never part of a target.
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>')
}

/// Refuses what a backend could resolve to another path than the one that was
/// routed: dot segments in raw and escaped forms (an escaped slash or a `;`
/// parameter ends the segment for this purpose), `%00`, backslashes, and
/// malformed escapes.
fn check_path(path: &[u8]) -> Result<(), Refusal> {
    // Dots at the start of the segment, while nothing else was seen in it.
    let mut dots = Some(0u32);
    let mut bytes = path.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'%' => match unescape(bytes.next(), bytes.next()) {
                Some(0 | b'\\') | None => return Err(Refusal::AmbiguousPath),
                Some(decoded) => decoded,
            },
            b'\\' => return Err(Refusal::AmbiguousPath),
            plain => plain,
        };
        dots = match byte {
            b'/' => end_segment(dots).map(|()| Some(0))?,
            b';' => end_segment(dots).map(|()| None)?,
            b'.' => dots.map(|n| n + 1),
            _ => None,
        };
    }
    end_segment(dots)
}

fn end_segment(dots: Option<u32>) -> Result<(), Refusal> {
    match dots {
        Some(1 | 2) => Err(Refusal::AmbiguousPath),
        _ => Ok(()),
    }
}

fn unescape(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    u8::try_from(digit(high?)? * 16 + digit(low?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(target: &str) -> Result<String, Refusal> {
        parse(target.as_bytes(), 0, false).map(|t| target[t.path.range()].to_owned())
    }

    #[test]
    fn a_target_is_split() {
        let target = "http://a.test:80/p/q?x=/../y";
        let spans = parse(target.as_bytes(), 10, false).unwrap();
        assert_eq!(spans.authority, Some(Span::new(17, 26)));
        assert_eq!(spans.path, Span::new(26, 30));
        assert_eq!(spans.query, Some(Span::new(31, 10 + target.len())));
        assert_eq!(path_of("http://a.test").unwrap(), "");
        assert_eq!(path_of("HTTPS://a.test?x").unwrap(), "");
        assert!(parse(b"*", 0, true).is_ok());
    }

    #[test]
    fn harmless_paths_pass() {
        for path in [
            "/",
            "/a",
            "/a/",
            "//a",
            "/...",
            "/.well-known",
            "/a..b",
            "/a%2Fb",
            "/a.",
            "/..a",
            "/%7Euser",
            "/a;v=1",
            "/a|b",
            "/%252e%252e/",
            "/a%0d",
        ] {
            assert_eq!(path_of(path).as_deref(), Ok(path));
        }
    }

    #[test]
    fn ambiguous_paths_do_not() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/.%2E/b",
            "/a/%2e",
            "/a/..;/b",
            "/a/..%2fb",
            "/%2e%2e%2fb",
            "/a%00",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%",
            "/a%4",
            "/a%zz",
            "http://a.test/../b",
            "/a/..;x=1/b",
        ] {
            assert_eq!(path_of(path), Err(Refusal::AmbiguousPath), "{path}");
        }
        assert_eq!(path_of("/?a=\\&b=%").as_deref(), Ok("/"));
    }

    #[test]
    fn wrong_characters_and_forms_are_refused() {
        for target in ["/a#b", "/a\"", "/<a>", "/\u{e4}", "/a\u{7f}"] {
            assert_eq!(path_of(target), Err(Refusal::TargetCharacter), "{target}");
        }
        for target in ["*", "a.test:80", "ftp://a.test/", "a", "?x", "http:/a"] {
            assert_eq!(path_of(target), Err(Refusal::TargetForm), "{target}");
        }
    }
}
