//! What keeps a QUIC door silent: datagrams of strangers end here.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use adit_link_proto::{KNOCK_LEN, Knock};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, UdpPoller};

use super::Judge;

/// Drops what strangers send, before anything answers it.
pub(super) struct Filter {
    inner: Arc<dyn AsyncUdpSocket>,
    judge: Judge,
    ids: Box<dyn ConnectionIdGenerator>,
}

impl Filter {
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        judge: Judge,
        ids: Box<dyn ConnectionIdGenerator>,
    ) -> Self {
        Self { inner, judge, ids }
    }

    /// Whether a datagram may be from an agent. Short headers name a
    /// connection by an id that the library checks (RFC 9000 §17.3).
    fn lets_in(&self, datagram: &[u8]) -> bool {
        match Beginning::of(datagram) {
            Beginning::Short => true,
            Beginning::Long(id) => match <&[u8; KNOCK_LEN]>::try_from(id) {
                Ok(knock) => (self.judge)(&Knock::parse(knock)),
                Err(_) => self.ids.validate(&ConnectionId::new(id)).is_ok(),
            },
            Beginning::Foreign => false,
        }
    }
}

/// How a QUIC datagram begins (RFC 8999 §5, RFC 9000 §17.2).
enum Beginning<'a> {
    Short,
    /// Version 1, with its destination connection id.
    Long(&'a [u8]),
    /// Another version, or not QUIC.
    Foreign,
}

impl<'a> Beginning<'a> {
    fn of(datagram: &'a [u8]) -> Self {
        match datagram {
            [first, ..] if first & 0x80 == 0 => Self::Short,
            [_, 0, 0, 0, 1, length, rest @ ..] if usize::from(*length) <= KNOCK_LEN => rest
                .get(..usize::from(*length))
                .map_or(Self::Foreign, Self::Long),
            _ => Self::Foreign,
        }
    }
}

/// The system may hand over several datagrams of one sender as one, all but the
/// last of a length: keeps those that are wanted, at the front; their bytes.
fn keep(received: &mut [u8], stride: usize, wanted: impl Fn(&[u8]) -> bool) -> usize {
    let mut kept = 0;
    for start in (0..received.len()).step_by(stride.max(1)) {
        let end = received.len().min(start + stride.max(1));
        if wanted(&received[start..end]) {
            received.copy_within(start..end, kept);
            kept += end - start;
        }
    }
    kept
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Filter")
    }
}

impl AsyncUdpSocket for Filter {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
            let received = buf.get_mut(..meta.len).unwrap_or_default();
            meta.len = keep(received, meta.stride, |datagram| self.lets_in(datagram));
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_wanted_takes_no_other_with_it() {
        let wanted = |datagram: &[u8]| datagram[0] != b'-';
        for (received, left) in [
            ("aabbcc", "aabbcc"),
            ("-abb-cd", "bbd"),
            ("aa-bc", "aac"),
            ("-a-b-", ""),
            ("", ""),
        ] {
            let mut bytes = received.as_bytes().to_vec();
            let kept = keep(&mut bytes, 2, wanted);
            assert_eq!(&bytes[..kept], left.as_bytes(), "{received}");
        }
        assert_eq!(keep(&mut [b'a'; 3], 0, wanted), 3);
    }
}
