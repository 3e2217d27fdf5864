//! What is known about a request when it is over.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Backend;
use crate::metrics::{Direction, HttpMetrics};

/// The id of a request: made here, or a trusted proxy's.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId {
    bytes: [u8; Self::LONGEST],
    length: u8,
}

impl RequestId {
    /// Most bytes of a proxy's id.
    const LONGEST: usize = 64;

    /// An id of 32 hexadecimal digits.
    pub(super) fn made(high: u64, low: u64) -> Self {
        let mut bytes = [0; Self::LONGEST];
        for (n, byte) in bytes.iter_mut().take(32).enumerate() {
            let word = if n < 16 { high } else { low };
            let nibble = (word >> (60 - 4 * (n % 16))) & 0xf;
            *byte = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)];
        }
        Self { bytes, length: 32 }
    }

    /// A proxy's id, when it is one word of printable ASCII.
    pub(super) fn given(text: &[u8]) -> Option<Self> {
        let fits = (1..=Self::LONGEST).contains(&text.len());
        if !fits || !text.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut bytes = [0; Self::LONGEST];
        bytes
            .iter_mut()
            .zip(text)
            .for_each(|(to, from)| *to = *from);
        Some(Self {
            bytes,
            length: u8::try_from(text.len()).unwrap_or(0),
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

/// Why a request went wrong, for the log.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Refused(adit_http1::Refusal),
    BadAnswer(adit_http1::BadResponse),
    BadBody(adit_http1::BodyError),
    Text(&'static str),
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => why.fmt(f),
            Self::BadAnswer(why) => why.fmt(f),
            Self::BadBody(why) => write!(f, "answer: {why}"),
            Self::Text(why) => f.write_str(why),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// What is gathered while a request is under way.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: RequestId,
    pub(super) started: Instant,
    /// When the answer began to come.
    pub(super) answered: Option<Instant>,
    /// When it was sent whole.
    pub(super) ended: Option<Instant>,
    /// 0 while no status was sent.
    pub(super) status: u16,
    /// Bytes from the visitor, head included.
    pub(super) received: u64,
    /// Bytes to the visitor, head included.
    pub(super) sent: u64,
    /// Of both, what was counted already.
    counted: (u64, u64),
    /// Where in what is sent the final answer begins.
    pub(super) head_at: u64,
    pub(super) client: IpAddr,
    /// See [`adit_http1::Client::hops`].
    pub(super) hops: usize,
    pub(super) backend: Option<Arc<Backend>>,
    pub(super) fault: Option<Fault>,
}

impl Draft {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            id: RequestId::made(0, 0),
            started: now,
            answered: None,
            ended: None,
            status: 0,
            received: 0,
            sent: 0,
            counted: (0, 0),
            head_at: 0,
            client: IpAddr::from([0, 0, 0, 0]),
            hops: 0,
            backend: None,
            fault: None,
        }
    }

    /// Counts what came and went since the last time, and tells it. A body may
    /// take hours, so that it is counted as it goes; one that is sent again is
    /// counted once.
    pub(super) fn count(&mut self, metrics: &HttpMetrics) -> (u64, u64) {
        let received = self.received.saturating_sub(self.counted.0);
        let sent = self.sent.saturating_sub(self.counted.1);
        for (direction, bytes) in [(Direction::In, received), (Direction::Out, sent)] {
            if bytes > 0 {
                metrics.bytes.of(direction).add(bytes);
            }
        }
        self.counted = (self.counted.0 + received, self.counted.1 + sent);
        (received, sent)
    }

    /// The same for a backend.
    pub(super) fn count_for(&mut self, backend: &Backend, metrics: &HttpMetrics) {
        let (received, sent) = self.count(metrics);
        if received + sent > 0 {
            backend.traffic.moved(received, sent);
        }
    }
}

/// One request, as the access log shows it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    /// Empty when no head was understood, as are host and path.
    pub method: &'a [u8],
    /// The host asked for.
    pub host: &'a [u8],
    /// The path.
    pub path: &'a [u8],
    /// The query.
    pub query: Option<&'a [u8]>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`.
    pub referer: Option<&'a [u8]>,
    /// The status sent; 0 for none.
    pub status: u16,
    /// Bytes from the visitor, head included.
    pub received: u64,
    /// Bytes to the visitor, head included.
    pub sent: u64,
    /// From the end of the head to the end of the answer.
    pub took: Duration,
    /// From the end of the head to the beginning of the answer.
    pub waited: Option<Duration>,
    /// The backend that answered, or was asked last.
    pub backend: Option<&'a str>,
    /// What went wrong.
    pub(super) fault: Option<&'a Fault>,
}

impl<'a> Record<'a> {
    /// What of it is written: without queries (RFC 3986 §3.4), its own and the
    /// one in `Referer`, unless they are wanted.
    pub(super) fn shown(&self, queries: bool) -> Self {
        if queries {
            return *self;
        }
        Self {
            query: None,
            referer: self.referer.map(before_query),
            ..*self
        }
    }
}

fn before_query(url: &[u8]) -> &[u8] {
    url.split(|byte| *byte == b'?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words() {
        let made = RequestId::made(0x0123_4567_89ab_cdef, 1);
        assert_eq!(made.as_bytes(), b"0123456789abcdef0000000000000001");
        assert_eq!(RequestId::given(b"a-b").unwrap().as_bytes(), b"a-b");
        for bad in [&b""[..], b"a b", b"a\xff", &[b'a'; 65]] {
            assert!(RequestId::given(bad).is_none());
        }
    }
}
