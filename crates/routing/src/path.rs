//! The normal form of a path, for matching only: a backend gets the original.

use std::borrow::Cow;

/// Why a path prefix was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not begin with a slash.
    #[error("a path begins with a slash")]
    NoSlash,
    /// Holds a query, a fragment, a backslash, a blank or a control character.
    #[error("a path holds no query, fragment, backslash or blank")]
    BadCharacter,
    /// Holds `.` or `..` as a segment.
    #[error("a path holds no . or .. segments")]
    DotSegment,
}

/// The normal form: escapes of unreserved characters (RFC 3986 §2.3) undone,
/// other escapes in upper case, parameters behind `;` cut off each segment,
/// empty segments merged. An escaped slash stays escaped: it is no separator.
/// `*` and the empty path count as `/`. Borrowed when nothing had to change.
#[must_use]
pub fn normal_path(path: &[u8]) -> Cow<'_, [u8]> {
    if path.first() != Some(&b'/') {
        return Cow::Borrowed(b"/");
    }
    let odd = |w: &[u8]| w == b"//";
    if !path.iter().any(|b| matches!(b, b'%' | b';')) && !path.windows(2).any(odd) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    let mut in_parameter = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'/' => {
                in_parameter = false;
                if out.last() != Some(&b'/') {
                    out.push(b'/');
                }
            }
            b';' => in_parameter = true,
            _ if in_parameter => {}
            b'%' => rest = escape(&mut out, rest),
            plain => out.push(plain),
        }
    }
    Cow::Owned(out)
}

/// Appends the escape whose digits `rest` begins with; returns what follows.
fn escape<'p>(out: &mut Vec<u8>, rest: &'p [u8]) -> &'p [u8] {
    let digit = |b: u8| char::from(b).to_digit(16);
    if let Some(([high, low], after)) = rest.split_first_chunk::<2>()
        && let (Some(h), Some(l)) = (digit(*high), digit(*low))
        && let Ok(value) = u8::try_from(h * 16 + l)
    {
        if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
            out.push(value);
        } else {
            let upper = [high.to_ascii_uppercase(), low.to_ascii_uppercase()];
            out.push(b'%');
            out.extend_from_slice(&upper);
        }
        return after;
    }
    out.push(b'%');
    rest
}

/// A route's path prefix in normal form, without a slash at its end; the empty
/// prefix leads everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathPrefix(Box<[u8]>);

impl PathPrefix {
    /// Parses a prefix such as `/api`; `/` is the empty prefix.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NoSlash);
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"?#\\;".contains(&b))
        {
            return Err(PathError::BadCharacter);
        }
        let normal = normal_path(text.as_bytes());
        let dots = |s: &[u8]| s == b"." || s == b"..";
        if normal.split(|b| *b == b'/').any(dots) {
            return Err(PathError::DotSegment);
        }
        let end = normal.strip_suffix(b"/").unwrap_or(&normal);
        Ok(Self(end.into()))
    }

    /// The normal form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Number of segments.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.iter().filter(|b| **b == b'/').count()
    }
}

impl std::borrow::Borrow<[u8]> for PathPrefix {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The prefixes of a normal path that end at a segment, longest first, of at
/// most `depth` segments.
pub(crate) fn prefixes(path: &[u8], depth: usize) -> impl Iterator<Item = &[u8]> {
    let cut = path
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'/')
        .nth(depth)
        .map_or(path.len(), |(at, _)| at);
    let mut next = path.get(..cut);
    std::iter::from_fn(move || {
        let current = next?;
        next = current
            .iter()
            .rposition(|b| *b == b'/')
            .and_then(|at| current.get(..at));
        Some(current)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> String {
        String::from_utf8(normal_path(path.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn spellings_of_one_path_meet() {
        for path in [
            "/admin/x",
            "//admin///x",
            "/%61dmin/x",
            "/admin;a=b/x",
            "/admin/%78",
        ] {
            assert_eq!(normal(path), "/admin/x");
        }
        assert_eq!(normal("/a%2fb"), "/a%2Fb");
        assert_eq!(normal("/a%c3%a4"), "/a%C3%A4");
        assert_eq!(normal("/"), "/");
        assert_eq!(normal("*"), "/");
        assert_eq!(normal(""), "/");
        assert!(matches!(normal_path(b"/a/b"), Cow::Borrowed(_)));
    }

    #[test]
    fn prefixes_end_at_segments() {
        let all = |path: &str, depth| -> Vec<String> {
            prefixes(path.as_bytes(), depth)
                .map(|p| String::from_utf8_lossy(p).into_owned())
                .collect()
        };
        assert_eq!(all("/a/b/c", 9), ["/a/b/c", "/a/b", "/a", ""]);
        assert_eq!(all("/a/b/c", 2), ["/a/b", "/a", ""]);
        assert_eq!(all("/a/", 9), ["/a/", "/a", ""]);
        assert_eq!(all("/a", 0), [""]);
        assert_eq!(all("/", 3), ["/", ""]);
    }

    #[test]
    fn bad_prefixes_are_refused() {
        let parse = |text| PathPrefix::parse(text).map(|p| p.as_bytes().to_vec());
        assert_eq!(parse("api"), Err(PathError::NoSlash));
        assert_eq!(parse("/a?b"), Err(PathError::BadCharacter));
        assert_eq!(parse("/a b"), Err(PathError::BadCharacter));
        assert_eq!(parse("/a/../b"), Err(PathError::DotSegment));
        assert_eq!(parse("/a/%2e%2E/b"), Err(PathError::DotSegment));
        assert_eq!(parse("/"), Ok(b"".to_vec()));
        assert_eq!(parse("//%61pi/"), Ok(b"/api".to_vec()));
    }

    proptest! {
        #[test]
        fn the_normal_form_is_stable(path in "/[a-c./%;25eEfF]{0,30}") {
            let once = normal_path(path.as_bytes()).into_owned();
            prop_assert_eq!(once.first(), Some(&b'/'));
            prop_assert!(!once.windows(2).any(|w| w == b"//"));
            prop_assert!(!once.contains(&b';'));
        }
    }
}
