//! Field lines as spans of the head they stand in.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::{BodyError, Name};

/// Most fields of one head or trailer section that the arrays on the stack
/// can hold; configured limits lie at or below it.
pub(crate) const MAX_FIELDS: usize = 128;
/// Most names that Connection may list besides the usual tokens.
const MAX_LISTED: usize = 32;

/// A part of a head, as offsets from the head's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span `start..end`; heads are far below 4 GiB.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            start: narrow(start),
            end: narrow(end),
        }
    }

    /// Where `part` lies in `whole`; `part` must be a piece of it.
    pub(crate) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        Self::new(start, start.saturating_add(part.len()))
    }

    /// The span as a range.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes of the span; empty when `bytes` is not the head it was made
    /// from.
    #[must_use]
    pub fn get(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// What the name means.
    pub id: Name,
    /// Whether Connection lists it, so that it ends at this hop.
    pub listed: bool,
    /// The name as it was written.
    pub name: Span,
    /// The value without surrounding blanks.
    pub value: Span,
}

/// Why httparse's headers were not taken.
pub(crate) enum FieldsError {
    TooMany,
    Malformed,
}

impl From<httparse::Error> for FieldsError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooMany,
            _ => Self::Malformed,
        }
    }
}

/// The uninitialised array that httparse fills, on the stack.
pub(crate) fn header_array<'b>() -> [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS] {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// Takes over what httparse found in `whole`.
pub(crate) fn collect(fields: &mut Vec<Field>, headers: &[httparse::Header<'_>], whole: &[u8]) {
    fields.clear();
    fields.extend(headers.iter().map(|header| Field {
        id: Name::of(header.name.as_bytes()),
        listed: false,
        name: Span::of(header.name.as_bytes(), whole),
        value: Span::of(header.value, whole),
    }));
}

/// What the Connection fields say about the connection itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionFacts {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

/// Reads the Connection fields and marks the fields they list. `None` when
/// they are no lists of tokens, or list too many.
pub(crate) fn apply_connection(fields: &mut [Field], bytes: &[u8]) -> Option<ConnectionFacts> {
    let mut facts = ConnectionFacts::default();
    let mut listed = 0;
    for at in 0..fields.len() {
        if fields[at].id != Name::Connection {
            continue;
        }
        for token in list(fields[at].value.get(bytes)) {
            if !crate::name::is_token(token) {
                return None;
            }
            if token.eq_ignore_ascii_case(b"close") {
                facts.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                facts.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                facts.upgrade = true;
            } else if !token.eq_ignore_ascii_case(b"te") {
                listed += 1;
                if listed > MAX_LISTED {
                    return None;
                }
                mark(fields, bytes, token);
            }
        }
    }
    Some(facts)
}

fn mark(fields: &mut [Field], bytes: &[u8], token: &[u8]) {
    for field in fields {
        if field.name.get(bytes).eq_ignore_ascii_case(token) {
            field.listed = true;
        }
    }
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), empty ones
/// skipped.
pub(crate) fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// Removes spaces and tabs at both ends.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `1*DIGIT` below 10^18.
pub(crate) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

/// The one field of a kind, or how it fails to be one.
pub(crate) enum Single {
    Absent,
    One(Span),
    Several,
}

/// Looks for the only field of kind `id`.
pub(crate) fn single(fields: &[Field], id: Name) -> Single {
    let mut found = fields.iter().filter(|f| f.id == id);
    match (found.next(), found.next()) {
        (None, _) => Single::Absent,
        (Some(one), None) => Single::One(one.value),
        (Some(_), Some(_)) => Single::Several,
    }
}

/// The fields of a trailer section (RFC 9112 §7.1.2), reusable.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    pub(crate) fields: Vec<Field>,
}

impl Trailers {
    /// Parses the trailer section that [`crate::Step::trailers`] points at.
    ///
    /// # Errors
    /// [`BodyError::Trailers`] for malformed lines and for names that may not
    /// stand in trailers because they would change framing or routing.
    pub fn parse(&mut self, section: &[u8]) -> Result<(), BodyError> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        match httparse::parse_headers(section, &mut headers) {
            Ok(httparse::Status::Complete((used, found))) if used == section.len() => {
                collect(&mut self.fields, found, section);
            }
            _ => return Err(BodyError::Trailers),
        }
        if self.fields.iter().any(|f| f.id.is_framing()) {
            return Err(BodyError::Trailers);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_skip_blanks_and_empty_elements() {
        let elements: Vec<_> = list(b" a,,\tb ,c").collect();
        assert_eq!(elements, [b"a", b"b", b"c"]);
        assert_eq!(list(b" , ").count(), 0);
    }

    #[test]
    fn decimals_are_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(
            decimal(b"999999999999999999"),
            Some(999_999_999_999_999_999)
        );
        for bad in [
            &b""[..],
            b"+1",
            b"-1",
            b"1 ",
            b"0x1",
            b"1,1",
            b"1000000000000000000",
        ] {
            assert_eq!(decimal(bad), None);
        }
    }

    #[test]
    fn trailers_may_not_frame() {
        let mut trailers = Trailers::default();
        assert!(trailers.parse(b"X-Sum: 1\r\n\r\n").is_ok());
        assert_eq!(trailers.fields.len(), 1);
        for bad in [
            &b"Content-Length: 1\r\n\r\n"[..],
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"Host: a\r\n\r\n",
            b"X : 1\r\n\r\n",
            b"X: 1\r\n 2\r\n\r\n",
            b"X: 1\r\n",
            b"X: 1\r\n\r\nmore",
        ] {
            assert_eq!(trailers.parse(bad), Err(BodyError::Trailers));
        }
    }
}
