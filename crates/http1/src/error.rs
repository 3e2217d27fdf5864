//! Why a message was refused, and the status that says so.

/// Why a request was refused. [`Refusal::status`] is all that the visitor
/// learns; the message is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// A line ends in LF without CR (RFC 9112 §2.2).
    #[error("a line ends in a bare line feed")]
    BareLf,
    /// The request line is not `method SP target SP version`.
    #[error("request line is malformed")]
    RequestLine,
    /// A field line is malformed: folded, blank before its colon, a control
    /// character, no colon, an empty name.
    #[error("a header line is malformed")]
    FieldLine,
    /// The version is not HTTP/1.0 or HTTP/1.1.
    #[error("protocol version is not supported")]
    Version,
    /// More bytes or fields than a head may have.
    #[error("head is too large")]
    HeadTooLarge,
    /// More bytes than a target may have.
    #[error("request target is too long")]
    TargetTooLong,
    /// A character that a request target must not have.
    #[error("request target holds a forbidden character")]
    TargetCharacter,
    /// A path that could be read in two ways: dot segments, `%00`, a
    /// backslash, a malformed escape.
    #[error("request path is ambiguous")]
    AmbiguousPath,
    /// A form of target that does not fit the method.
    #[error("request target has the wrong form")]
    TargetForm,
    /// No Host, several, or one that is no host.
    #[error("host is missing, repeated or malformed")]
    Host,
    /// The target names another host than the Host field.
    #[error("target and host disagree")]
    HostMismatch,
    /// Content-Length is repeated, a list, or not a number.
    #[error("content length is malformed")]
    ContentLength,
    /// Transfer-Encoding is anything but one `chunked` in HTTP/1.1.
    #[error("transfer encoding is malformed")]
    TransferEncoding,
    /// Both Content-Length and Transfer-Encoding.
    #[error("content length and transfer encoding together")]
    TwoLengths,
    /// Connection is no list of tokens, or one that is too long.
    #[error("connection header is malformed")]
    Connection,
    /// An upgrade is asked for and a body announced.
    #[error("upgrade with a body")]
    UpgradeWithBody,
    /// An expectation other than `100-continue`.
    #[error("expectation is not supported")]
    Expectation,
    /// CONNECT or TRACE.
    #[error("method is not allowed")]
    Method,
    /// The body breaks its framing.
    #[error("{0}")]
    Body(#[from] BodyError),
}

impl Refusal {
    /// The status code (RFC 9110 §15.5) of the refusal.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::HeadTooLarge => 431,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::Method => 405,
            _ => 400,
        }
    }
}

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyError {
    /// A chunk size line is not hexadecimal digits, extensions and CRLF.
    #[error("a chunk size line is malformed")]
    ChunkLine,
    /// A chunk's data is not followed by CRLF.
    #[error("a chunk is longer than its size")]
    ChunkEnd,
    /// The trailer section is malformed, too large, or names framing fields.
    #[error("trailers are malformed")]
    Trailers,
    /// The sender stopped before the body's end.
    #[error("body ended early")]
    Truncated,
}

/// Why a backend's answer was refused; the visitor gets a 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadResponse {
    /// A line ends in LF without CR.
    #[error("a line of the answer ends in a bare line feed")]
    BareLf,
    /// The status line is malformed.
    #[error("status line is malformed")]
    StatusLine,
    /// A field line is malformed.
    #[error("a header line of the answer is malformed")]
    FieldLine,
    /// More bytes or fields than a head may have.
    #[error("head of the answer is too large")]
    HeadTooLarge,
    /// Content-Length is repeated, a list, or not a number.
    #[error("content length of the answer is malformed")]
    ContentLength,
    /// Transfer-Encoding is anything but one `chunked` in HTTP/1.1.
    #[error("transfer encoding of the answer is malformed")]
    TransferEncoding,
    /// Both Content-Length and Transfer-Encoding.
    #[error("content length and transfer encoding together in the answer")]
    TwoLengths,
    /// Connection is no list of tokens.
    #[error("connection header of the answer is malformed")]
    Connection,
    /// A 101 that was not asked for, or to another protocol.
    #[error("answer switches protocols unasked")]
    Unasked,
}
