//! Response heads of backends, as strictly as requests: an answer that two
//! readers could delimit differently is not forwarded.

use crate::fields::{self, Field, FieldsError, Single, Span};
use crate::scan::HeadScan;
use crate::scan::ScanError;
use crate::{BadResponse, Framing, Limits, Name, Version};

/// A reusable parser of response heads.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    scan: HeadScan,
    length: usize,
    status: u16,
    version: Version,
    reason: Span,
    pub(crate) fields: Vec<Field>,
    pub(crate) content_length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
    upgrade: Option<Span>,
}

impl ResponseHead {
    /// Makes ready for the next response.
    pub fn reset(&mut self) {
        self.scan = HeadScan::default();
        self.length = 0;
    }

    /// Parses the head that `bytes` begins with; `Ok(false)` asks for more.
    ///
    /// # Errors
    /// [`BadResponse`]: the visitor gets a 502, the backend's stream ends.
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, BadResponse> {
        let found = match self.scan.find(bytes, limits.head, limits.head) {
            Ok(Some(found)) if found.start == 0 => found,
            Ok(None) => return begins_well(bytes),
            Err(ScanError::BareLf) => return Err(BadResponse::BareLf),
            Ok(Some(_)) | Err(ScanError::Start) => return Err(BadResponse::StatusLine),
            Err(ScanError::TooLarge | ScanError::LineTooLong) => {
                return Err(BadResponse::HeadTooLarge);
            }
        };
        let head = bytes.get(..found.end).unwrap_or_default();
        self.length = found.end;
        self.lines(head)?;
        self.check_framing(head)?;
        self.check_connection(head)?;
        Ok(true)
    }

    fn lines(&mut self, head: &[u8]) -> Result<(), BadResponse> {
        let mut array = fields::header_array();
        let mut response = httparse::Response::new(&mut []);
        let result = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            head,
            &mut array,
        );
        match result {
            Ok(httparse::Status::Complete(used)) if used == head.len() => {}
            Ok(_) => return Err(BadResponse::StatusLine),
            Err(httparse::Error::Status | httparse::Error::Token | httparse::Error::Version) => {
                return Err(BadResponse::StatusLine);
            }
            Err(error) => {
                return Err(match FieldsError::from(error) {
                    FieldsError::TooMany => BadResponse::HeadTooLarge,
                    FieldsError::Malformed => BadResponse::FieldLine,
                });
            }
        }
        self.status = response.code.unwrap_or_default();
        if !(100..=599).contains(&self.status) {
            return Err(BadResponse::StatusLine);
        }
        self.version = match response.version {
            Some(0) => Version::Http10,
            _ => Version::Http11,
        };
        self.reason = response
            .reason
            .map_or_else(Span::default, |r| Span::of(r.as_bytes(), head));
        fields::collect(&mut self.fields, response.headers, head);
        Ok(())
    }

    fn check_framing(&mut self, head: &[u8]) -> Result<(), BadResponse> {
        self.content_length = match fields::single(&self.fields, Name::ContentLength) {
            Single::Absent => None,
            Single::One(value) => {
                Some(fields::decimal(value.get(head)).ok_or(BadResponse::ContentLength)?)
            }
            Single::Several => return Err(BadResponse::ContentLength),
        };
        self.chunked = match fields::single(&self.fields, Name::TransferEncoding) {
            Single::Absent => false,
            _ if self.content_length.is_some() => return Err(BadResponse::TwoLengths),
            Single::One(value)
                if self.version == Version::Http11
                    && value.get(head).eq_ignore_ascii_case(b"chunked") =>
            {
                true
            }
            _ => return Err(BadResponse::TransferEncoding),
        };
        Ok(())
    }

    fn check_connection(&mut self, head: &[u8]) -> Result<(), BadResponse> {
        let facts =
            fields::apply_connection(&mut self.fields, head).ok_or(BadResponse::Connection)?;
        self.keep_alive = match self.version {
            Version::Http11 => !facts.close,
            Version::Http10 => facts.keep_alive && !facts.close,
        };
        self.upgrade = match fields::single(&self.fields, Name::Upgrade) {
            Single::One(value) if facts.upgrade => Some(value),
            _ => None,
        };
        Ok(())
    }

    /// Bytes of the head; 0 before it was parsed whole.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The parsed head with the bytes it was parsed from.
    #[must_use]
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Response<'a> {
        Response { head: self, bytes }
    }
}

/// A parsed response head and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub(crate) head: &'a ResponseHead,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Response<'a> {
    /// The status code, 100 to 599.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The reason phrase; may be empty.
    #[must_use]
    pub fn reason(&self) -> &'a [u8] {
        self.head.reason.get(self.bytes)
    }

    /// Whether an interim response (RFC 9110 §15.2); 101 is none.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status() < 200 && self.status() != 101
    }

    /// How the body is delimited in answer to a request, by RFC 9112 §6.3.
    #[must_use]
    pub fn framing(&self, to_head: bool) -> Framing {
        match (self.status(), self.head.content_length) {
            (100..=199 | 204 | 304, _) => Framing::None,
            _ if to_head => Framing::None,
            _ if self.head.chunked => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length),
            _ => Framing::UntilClose,
        }
    }

    /// Whether the coding is chunked (announced, for an answer to HEAD).
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.head.chunked
    }

    /// Whether the backend keeps the connection after this response.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// The seconds of `Keep-Alive: timeout=N`.
    #[must_use]
    pub fn keep_alive_seconds(&self) -> Option<u64> {
        let field = self.head.fields.iter().find(|f| f.id == Name::KeepAlive)?;
        fields::list(field.value.get(self.bytes)).find_map(|parameter| {
            let (name, value) = parameter.split_at_checked(b"timeout=".len())?;
            name.eq_ignore_ascii_case(b"timeout=")
                .then(|| fields::decimal(value))?
        })
    }

    /// Whether a field of this class is there.
    #[must_use]
    pub fn has(&self, id: Name) -> bool {
        self.head.fields.iter().any(|f| f.id == id)
    }

    /// Whether a field is there in which a backend may name itself.
    #[must_use]
    pub fn may_name_origin(&self) -> bool {
        self.head.fields.iter().any(|f| {
            matches!(
                f.id,
                Name::Location | Name::ContentLocation | Name::Refresh | Name::SetCookie
            )
        })
    }

    /// The protocol that a 101 switches to.
    #[must_use]
    pub fn upgrade_value(&self) -> Option<&'a [u8]> {
        self.head.upgrade.map(|span| span.get(self.bytes))
    }
}

/// Whether an answer may still come of the first bytes of a head: what greets
/// in another protocol and then waits is refused before it ends a head.
fn begins_well(bytes: &[u8]) -> Result<bool, BadResponse> {
    let start = b"HTTP/1.";
    if bytes.iter().zip(start).all(|(one, other)| one == other) {
        Ok(false)
    } else {
        Err(BadResponse::StatusLine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ResponseHead, BadResponse> {
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes(), &Limits::default())
            .map(|whole| assert!(whole, "{text:?}"))
            .map(|()| head)
    }

    #[test]
    fn bodies_end_where_the_rfc_says() {
        let framing = |text: &str, to_head| {
            let text = format!("{text}\r\n\r\n");
            parse(&text).unwrap().view(text.as_bytes()).framing(to_head)
        };
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5";
        assert_eq!(framing(length, false), Framing::Length(5));
        assert_eq!(framing(length, true), Framing::None);
        assert_eq!(
            framing("HTTP/1.1 204 No\r\nContent-Length: 5", false),
            Framing::None
        );
        assert_eq!(
            framing("HTTP/1.1 304 No\r\nContent-Length: 5", false),
            Framing::None
        );
        assert_eq!(framing("HTTP/1.1 100 Go", false), Framing::None);
        assert_eq!(framing("HTTP/1.1 200", false), Framing::UntilClose);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED";
        assert_eq!(framing(chunked, false), Framing::Chunked);
    }

    #[test]
    fn another_protocol_is_refused_at_its_first_bytes() {
        let parse = |text: &str| ResponseHead::default().parse(text.as_bytes(), &Limits::default());
        for begun in ["", "H", "HTTP/1.", "HTTP/1.1 200 OK\r\nA: b"] {
            assert_eq!(parse(begun), Ok(false), "{begun}");
        }
        for other in ["2", "220 mail\r\n", "HTTP/2", "SSH-2.0-x\r\n", "\r\n"] {
            assert_eq!(parse(other), Err(BadResponse::StatusLine), "{other}");
        }
    }

    #[test]
    fn doubtful_answers_are_refused() {
        for (text, error) in [
            ("HTTP/1.1 200 OK\nA: b\r\n\r\n", BadResponse::BareLf),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", BadResponse::StatusLine),
            ("HTTP/2.0 200 OK\r\n\r\n", BadResponse::StatusLine),
            ("HTTP/1.1 20 OK\r\n\r\n", BadResponse::StatusLine),
            ("HTTP/1.1 099 OK\r\n\r\n", BadResponse::StatusLine),
            ("HTTP/1.1 600 OK\r\n\r\n", BadResponse::StatusLine),
            ("SSH-2.0-OpenSSH\r\n\r\n", BadResponse::StatusLine),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
                BadResponse::FieldLine,
            ),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", BadResponse::FieldLine),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                BadResponse::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                BadResponse::TwoLengths,
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                BadResponse::TransferEncoding,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                BadResponse::TransferEncoding,
            ),
        ] {
            assert_eq!(parse(text).err(), Some(error), "{text:?}");
        }
    }

    #[test]
    fn keep_alive_is_read() {
        let read = |text: &str| {
            let head = parse(text).unwrap();
            let view = head.view(text.as_bytes());
            (view.keep_alive(), view.keep_alive_seconds())
        };
        let text = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\n\r\n";
        assert_eq!(read(text), (true, Some(5)));
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
            (false, None)
        );
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\n"), (false, None));
        assert_eq!(
            read("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n"),
            (true, None)
        );
    }
}
