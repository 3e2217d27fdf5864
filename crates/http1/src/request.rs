//! Request heads: parsed once, strictly, into spans that serve routing,
//! rules, logging and forwarding alike.
//!
//! Invariant: a [`RequestHead`] that [`RequestHead::parse`] accepted has one
//! reading only. Its target is in origin form (or `*`) after the authority was
//! found equal to Host, its body length is certain, and each field's part in
//! the connection is known.

use crate::fields::{self, Field, FieldsError, Single, Span};
use crate::scan::HeadScan;
use crate::scan::ScanError;
use crate::target::{self, TargetSpans};
use crate::{Authority, AuthorityCache, Framing, Name, Refusal};

/// Bounds of a head, in bytes and fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whole head.
    pub head: usize,
    /// Request target.
    pub target: usize,
    /// Field lines; values above 128 count as 128.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 * 1024,
            target: 16 * 1024,
            fields: 100,
        }
    }
}

/// Protocol version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// Methods whose semantics matter to an intermediary (RFC 9110 §9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`: the answer has no body.
    Head,
    /// `OPTIONS`: the only one with the target `*`.
    Options,
    /// `PUT`.
    Put,
    /// `DELETE`.
    Delete,
    /// Any other token.
    Other,
}

impl Method {
    fn of(token: &[u8]) -> Result<Self, Refusal> {
        Ok(match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" | b"TRACE" => return Err(Refusal::Method),
            _ => Self::Other,
        })
    }

    /// Whether sending the request twice means what sending it once does
    /// (RFC 9110 §9.2.2).
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Other)
    }
}

/// What the request asks to upgrade to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing, or not in a way that takes effect.
    #[default]
    None,
    /// `websocket` alone (RFC 6455 §4.1).
    WebSocket,
    /// One or more other protocols.
    Other,
}

/// A reusable parser of request heads.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    scan: HeadScan,
    start: usize,
    length: usize,
    method: Method,
    method_span: Span,
    target: TargetSpans,
    version: Version,
    fields: Vec<Field>,
    host: Span,
    authority: AuthorityCache,
    framing: Option<u64>,
    chunked: bool,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: Upgrade,
    upgrade_span: Span,
    wants_trailers: bool,
}

impl RequestHead {
    /// Makes ready for the next request.
    pub fn reset(&mut self) {
        self.scan = HeadScan::default();
        self.length = 0;
        self.target = TargetSpans::default();
        self.fields.clear();
    }

    /// Parses the head that `bytes` begins with. `Ok(false)` asks for more:
    /// call again with the same bytes and those that followed.
    ///
    /// # Errors
    /// [`Refusal`]: answer with its status and close; nothing behind a
    /// refused head can be trusted.
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        // Method, version and three blanks come to less than this.
        let line_limit = limits.target + 64;
        let found = match self.scan.find(bytes, limits.head, line_limit) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(false),
            Err(ScanError::BareLf) => return Err(Refusal::BareLf),
            Err(ScanError::Start) => return Err(Refusal::RequestLine),
            Err(ScanError::TooLarge) => return Err(Refusal::HeadTooLarge),
            Err(ScanError::LineTooLong) => return Err(Refusal::TargetTooLong),
        };
        let head = bytes.get(..found.end).unwrap_or_default();
        self.start = found.start;
        self.length = found.end;
        self.request_line(head, limits)?;
        self.field_lines(head, limits)?;
        self.check_host(head)?;
        self.check_framing(head)?;
        self.check_connection(head)?;
        Ok(true)
    }

    fn request_line(&mut self, head: &[u8], limits: &Limits) -> Result<(), Refusal> {
        let line_end = memchr::memchr(b'\r', head.get(self.start..).unwrap_or_default())
            .map_or(head.len(), |n| self.start + n);
        let line = head.get(self.start..line_end).unwrap_or_default();
        let mut parts = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::RequestLine);
        };
        if !crate::name::is_token(method) || target.is_empty() {
            return Err(Refusal::RequestLine);
        }
        self.version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refusal::Version);
            }
            _ => return Err(Refusal::RequestLine),
        };
        if target.len() > limits.target {
            return Err(Refusal::TargetTooLong);
        }
        self.method = Method::of(method)?;
        self.method_span = Span::of(method, head);
        let base = Span::of(target, head).range().start;
        self.target = target::parse(target, base, self.method == Method::Options)?;
        Ok(())
    }

    fn field_lines(&mut self, head: &[u8], limits: &Limits) -> Result<(), Refusal> {
        let mut array = fields::header_array();
        let room = limits.fields.min(array.len());
        let mut request = httparse::Request::new(&mut []);
        let bytes = head.get(self.start..).unwrap_or_default();
        let slots = array.get_mut(..room).unwrap_or_default();
        match request.parse_with_uninit_headers(bytes, slots) {
            Ok(httparse::Status::Complete(used)) if used == bytes.len() => {}
            Ok(_) => return Err(Refusal::FieldLine),
            Err(error) => {
                return Err(match FieldsError::from(error) {
                    FieldsError::TooMany => Refusal::HeadTooLarge,
                    FieldsError::Malformed => Refusal::FieldLine,
                });
            }
        }
        fields::collect(&mut self.fields, request.headers, head);
        Ok(())
    }

    fn check_host(&mut self, head: &[u8]) -> Result<(), Refusal> {
        let Single::One(host) = fields::single(&self.fields, Name::Host) else {
            return Err(Refusal::Host);
        };
        self.host = host;
        let authority = self.authority.parse(host.get(head)).ok_or(Refusal::Host)?;
        if let Some(span) = self.target.authority {
            let target = Authority::parse(span.get(head)).ok_or(Refusal::Host)?;
            if target != *authority {
                return Err(Refusal::HostMismatch);
            }
        }
        Ok(())
    }

    fn check_framing(&mut self, head: &[u8]) -> Result<(), Refusal> {
        self.framing = match fields::single(&self.fields, Name::ContentLength) {
            Single::Absent => None,
            Single::One(value) => {
                Some(fields::decimal(value.get(head)).ok_or(Refusal::ContentLength)?)
            }
            Single::Several => return Err(Refusal::ContentLength),
        };
        self.chunked = match fields::single(&self.fields, Name::TransferEncoding) {
            Single::Absent => false,
            _ if self.framing.is_some() => return Err(Refusal::TwoLengths),
            Single::One(value)
                if self.version == Version::Http11
                    && value.get(head).eq_ignore_ascii_case(b"chunked") =>
            {
                true
            }
            _ => return Err(Refusal::TransferEncoding),
        };
        self.expects_continue = match fields::single(&self.fields, Name::Expect) {
            Single::Absent => false,
            Single::One(value) if value.get(head).eq_ignore_ascii_case(b"100-continue") => {
                self.version == Version::Http11 && self.has_body()
            }
            _ => return Err(Refusal::Expectation),
        };
        Ok(())
    }

    fn check_connection(&mut self, head: &[u8]) -> Result<(), Refusal> {
        let facts = fields::apply_connection(&mut self.fields, head).ok_or(Refusal::Connection)?;
        self.keep_alive = match self.version {
            Version::Http11 => !facts.close,
            Version::Http10 => facts.keep_alive && !facts.close,
        };
        self.upgrade = Upgrade::None;
        match fields::single(&self.fields, Name::Upgrade) {
            Single::Absent => {}
            _ if self.has_body() => return Err(Refusal::UpgradeWithBody),
            Single::One(value) if facts.upgrade && self.version == Version::Http11 => {
                self.upgrade_span = value;
                self.upgrade = if !value.get(head).eq_ignore_ascii_case(b"websocket") {
                    Upgrade::Other
                } else if self.method == Method::Get {
                    Upgrade::WebSocket
                } else {
                    Upgrade::None
                };
            }
            Single::One(_) | Single::Several => {}
        }
        self.wants_trailers = self.fields.iter().any(|f| {
            f.id == Name::Te
                && fields::list(f.value.get(head)).any(|t| t.eq_ignore_ascii_case(b"trailers"))
        });
        Ok(())
    }

    fn has_body(&self) -> bool {
        self.chunked || self.framing.is_some_and(|n| n > 0)
    }

    /// Bytes of the head, an empty line before it included; 0 before a head
    /// was parsed whole.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The parsed head with the bytes it was parsed from.
    #[must_use]
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Request<'a> {
        Request { head: self, bytes }
    }
}

/// The path and query of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Begins with a slash, or is `*`.
    pub path: &'a [u8],
    /// What stands behind the question mark, when there is one.
    pub query: Option<&'a [u8]>,
}

/// A parsed request head and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    head: &'a RequestHead,
    bytes: &'a [u8],
}

impl<'a> Request<'a> {
    /// The method's class.
    #[must_use]
    pub fn method(&self) -> Method {
        self.head.method
    }

    /// The method as it was written.
    #[must_use]
    pub fn method_name(&self) -> &'a [u8] {
        self.head.method_span.get(self.bytes)
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> Target<'a> {
        let path = self.head.target.path.get(self.bytes);
        let empty: &[u8] = if self.head.method == Method::Options {
            b"*"
        } else {
            b"/"
        };
        Target {
            path: if path.is_empty() { empty } else { path },
            query: self.head.target.query.map(|q| q.get(self.bytes)),
        }
    }

    /// The version the visitor speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The host asked for; `None` only before a head was parsed.
    #[must_use]
    pub fn authority(&self) -> Option<&'a Authority> {
        self.head.authority.last()
    }

    /// The Host field's value as it was written.
    #[must_use]
    pub fn host(&self) -> &'a [u8] {
        self.head.host.get(self.bytes)
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        match self.head.framing {
            _ if self.head.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::None,
        }
    }

    /// Whether a body of at least one byte is announced.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.head.has_body()
    }

    /// Whether the visitor keeps the connection for another request.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// Whether the visitor waits for a 100 before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.head.expects_continue
    }

    /// The upgrade asked for.
    #[must_use]
    pub fn upgrade(&self) -> Upgrade {
        self.head.upgrade
    }

    /// The value of Upgrade when [`Request::upgrade`] is not `None`.
    #[must_use]
    pub fn upgrade_value(&self) -> &'a [u8] {
        self.head.upgrade_span.get(self.bytes)
    }

    /// Whether the visitor reads trailers (`TE: trailers`).
    #[must_use]
    pub fn wants_trailers(&self) -> bool {
        self.head.wants_trailers
    }

    /// All fields, in order.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = (Field, &'a [u8], &'a [u8])> {
        let bytes = self.bytes;
        self.head
            .fields
            .iter()
            .map(move |f| (*f, f.name.get(bytes), f.value.get(bytes)))
    }

    /// The first value of a field by its class.
    #[must_use]
    pub fn value(&self, id: Name) -> Option<&'a [u8]> {
        self.fields()
            .find_map(|(field, _, value)| (field.id == id).then_some(value))
    }

    /// The only value of a field by its name in lower case; `None` when it is
    /// absent or repeated.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = self
            .fields()
            .filter(|(_, n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        let (_, _, value) = found.next()?;
        found.next().is_none().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<bool, Refusal> {
        RequestHead::default().parse(text.as_bytes(), &Limits::default())
    }

    fn with(fields: &str) -> Result<bool, Refusal> {
        parse(&format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
    }

    #[test]
    fn a_usual_request_is_read() {
        let text = "GET /p?q=1 HTTP/1.1\r\nHost: A.test:8080\r\nAccept: */*\r\n\r\nnext";
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(true));
        assert_eq!(head.length(), text.len() - 4);
        let request = head.view(text.as_bytes());
        assert_eq!(request.method_name(), b"GET");
        assert_eq!(request.target().path, b"/p");
        assert_eq!(request.target().query, Some(&b"q=1"[..]));
        assert_eq!(request.host(), b"A.test:8080");
        let authority = request.authority().unwrap();
        assert_eq!(
            (authority.host.as_str(), authority.port),
            ("a.test", Some(8080))
        );
        assert!(request.keep_alive() && !request.has_body());
        assert_eq!(request.only("accept"), Some(&b"*/*"[..]));
    }

    #[test]
    fn request_lines() {
        for (line, refusal) in [
            ("GET / HTTP/1.2", Refusal::Version),
            ("GET / HTTP/2.0", Refusal::Version),
            ("GET / HTTP/0.9", Refusal::Version),
            ("GET / http/1.1", Refusal::RequestLine),
            ("GET / HTTP/1.10", Refusal::RequestLine),
            ("GET / HTTP/1", Refusal::RequestLine),
            ("GET /", Refusal::RequestLine),
            ("GET  / HTTP/1.1", Refusal::RequestLine),
            ("GET /  HTTP/1.1", Refusal::RequestLine),
            ("GET / HTTP/1.1 ", Refusal::RequestLine),
            ("GET\t/\tHTTP/1.1", Refusal::RequestLine),
            (" GET / HTTP/1.1", Refusal::RequestLine),
            ("G@T / HTTP/1.1", Refusal::RequestLine),
            ("CONNECT a.test:80 HTTP/1.1", Refusal::Method),
            ("TRACE / HTTP/1.1", Refusal::Method),
            ("GET * HTTP/1.1", Refusal::TargetForm),
            ("GET a.test HTTP/1.1", Refusal::TargetForm),
            ("GET http://b.test/ HTTP/1.1", Refusal::HostMismatch),
            ("GET http://a.test:81/ HTTP/1.1", Refusal::HostMismatch),
            ("GET http://x@a.test/ HTTP/1.1", Refusal::Host),
            ("GET /#x HTTP/1.1", Refusal::TargetCharacter),
            ("GET /a/../b HTTP/1.1", Refusal::AmbiguousPath),
        ] {
            let text = format!("{line}\r\nHost: a.test\r\n\r\n");
            assert_eq!(parse(&text), Err(refusal), "{line}");
        }
        for line in [
            "GET http://a.test/ HTTP/1.1",
            "GET HTTP://A.test HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "PROPFIND / HTTP/1.0",
            "M-SEARCH / HTTP/1.1",
        ] {
            let text = format!("{line}\r\nHost: a.test\r\n\r\n");
            assert_eq!(parse(&text), Ok(true), "{line}");
        }
    }

    #[test]
    fn field_lines() {
        for (fields, refusal) in [
            ("X : 1\r\n", Refusal::FieldLine),
            ("X: 1\r\n 2\r\n", Refusal::FieldLine),
            ("X: 1\r\n\t2\r\n", Refusal::FieldLine),
            (" X: 1\r\n", Refusal::FieldLine),
            ("X: a\0b\r\n", Refusal::FieldLine),
            ("X: a\x0bb\r\n", Refusal::FieldLine),
            ("X: a\rb\r\n", Refusal::FieldLine),
            ("X\r\n", Refusal::FieldLine),
            (": 1\r\n", Refusal::FieldLine),
            ("X(: 1\r\n", Refusal::FieldLine),
            ("X: 1\nY: 2\r\n", Refusal::BareLf),
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n",
                Refusal::ContentLength,
            ),
            ("Content-Length: 1, 1\r\n", Refusal::ContentLength),
            ("Content-Length: +1\r\n", Refusal::ContentLength),
            ("Content-Length:\r\n", Refusal::ContentLength),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                Refusal::TwoLengths,
            ),
            ("Transfer-Encoding: gzip\r\n", Refusal::TransferEncoding),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                Refusal::TransferEncoding,
            ),
            ("Transfer-Encoding: ,chunked\r\n", Refusal::TransferEncoding),
            (
                "Transfer-Encoding: chunked;q=1\r\n",
                Refusal::TransferEncoding,
            ),
            ("Host: a.test\r\n", Refusal::Host),
            ("Connection: a b\r\n", Refusal::Connection),
            ("Expect: 200-ok\r\n", Refusal::Expectation),
            (
                "Upgrade: websocket\r\nContent-Length: 1\r\n",
                Refusal::UpgradeWithBody,
            ),
        ] {
            assert_eq!(with(fields), Err(refusal), "{fields:?}");
        }
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), Ok(true));
        assert_eq!(with("Upgrade: foo\r\nContent-Length: 0\r\n"), Ok(true));
        let chunked10 = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(chunked10), Err(Refusal::TransferEncoding));
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::Host));
    }

    #[test]
    fn limits() {
        let long = "a".repeat(17 * 1024);
        let text = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(parse(&text), Err(Refusal::TargetTooLong));
        assert_eq!(parse(&text[..17 * 1024]), Err(Refusal::TargetTooLong));
        let text = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "a".repeat(66_000)
        );
        assert_eq!(parse(&text), Err(Refusal::HeadTooLarge));
        assert_eq!(with(&"X: 1\r\n".repeat(99)), Ok(true));
        assert_eq!(with(&"X: 1\r\n".repeat(100)), Err(Refusal::HeadTooLarge));
        assert_eq!(with(&"X: 1\r\n".repeat(5000)), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn upgrades_and_connections() {
        let read = |fields: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let mut head = RequestHead::default();
            assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(true));
            (
                head.upgrade,
                head.keep_alive,
                head.fields.iter().filter(|f| f.listed).count(),
            )
        };
        let ws = "Upgrade: WebSocket\r\n";
        assert_eq!(
            read(&format!("{ws}Connection: keep-alive, Upgrade\r\n")).0,
            Upgrade::WebSocket
        );
        assert_eq!(read(ws).0, Upgrade::None);
        assert_eq!(
            read("Upgrade: h2c\r\nConnection: upgrade\r\n").0,
            Upgrade::Other
        );
        assert!(!read("Connection: foo\r\nConnection: Close\r\n").1);
        assert_eq!(read("Cookie: a\r\nConnection: cookie, te\r\n").2, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_the_same_whole_or_split(
            middle in prop::collection::vec(
                prop::sample::select(b"GETHost:/a.%2e 1\r\n\r\n,;chunked\0".to_vec()), 0..80),
            step in 1usize..7,
        ) {
            let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &middle, b"\r\n\r\n"].concat();
            let whole = RequestHead::default().parse(&bytes, &Limits::default());
            let mut head = RequestHead::default();
            let mut split = Ok(false);
            for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
                split = head.parse(&bytes[..end], &Limits::default());
                if split != Ok(false) {
                    break;
                }
            }
            prop_assert_eq!(split.is_ok(), whole.is_ok());
        }
    }
}
