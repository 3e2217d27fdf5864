//! What keeps a QUIC door silent: datagrams of strangers end here.
//!
//! The system puts many datagrams of one sender together. They are handed on
//! one by one: the library keeps what it was handed while a byte of it waits
//! for its reader, and counts that byte only.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use adit_link_proto::{KNOCK_LEN, Knock, QuicStart};
use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::Judge;
use super::asking::Said;
use super::ids::Ids;
use crate::counters::Counters;

/// Most bytes that the system puts together: those of a UDP datagram.
const PIECE: usize = 64 * 1024;

/// Drops what strangers send, before anything answers it.
pub(super) struct Filter {
    inner: Arc<dyn AsyncUdpSocket>,
    batch: Mutex<Batch>,
    judge: Judge,
    ids: Arc<Ids>,
    counters: Arc<Counters>,
    /// Of an agent.
    said: Option<Said>,
}

impl Filter {
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        judge: Judge,
        (ids, counters): (Arc<Ids>, Arc<Counters>),
    ) -> Self {
        Self {
            inner,
            batch: Mutex::new(Batch::new()),
            judge,
            ids,
            counters,
            said: None,
        }
    }

    /// One that can ask the door which it speaks to.
    pub(super) fn of_agent(self) -> Self {
        Self {
            said: Some(Said::default()),
            ..self
        }
    }

    /// Sends a question to the door, once something was said to it.
    pub(super) fn ask(&self) {
        if let Some(said) = &self.said {
            said.ask(&*self.inner);
        }
    }

    /// Whether a datagram may be from an agent. Short headers name a
    /// connection that the library has, or are dropped there (RFC 9000 §17.3)
    /// unless this door made their id.
    fn lets_in(&self, datagram: &[u8]) -> bool {
        let known = match QuicStart::of(datagram) {
            QuicStart::Short => true,
            QuicStart::Long(id) => match <&[u8; KNOCK_LEN]>::try_from(id) {
                Ok(knock) => (self.judge)(&Knock::parse(knock)),
                Err(_) => self.ids.made(id),
            },
            QuicStart::Foreign => false,
        };
        if !known {
            let dropped = &self.counters.strangers_dropped;
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        known
    }
}

/// What the system gave at a time.
struct Batch {
    /// Messages, each in a piece of its own.
    room: Box<[u8]>,
    metas: [RecvMeta; BATCH_SIZE],
    /// How many came, the one whose turn it is, and where in it.
    count: usize,
    at: usize,
    offset: usize,
}

impl Batch {
    fn new() -> Self {
        Self {
            room: vec![0; PIECE * BATCH_SIZE].into(),
            metas: [RecvMeta::default(); BATCH_SIZE],
            count: 0,
            at: 0,
            offset: 0,
        }
    }

    fn poll_fill(
        &mut self,
        inner: &dyn AsyncUdpSocket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pieces = self.room.chunks_mut(PIECE);
        let mut pieces: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(pieces.next().unwrap_or_default()));
        self.count = ready!(inner.poll_recv(cx, &mut pieces, &mut self.metas))?;
        (self.at, self.offset) = (0, 0);
        Poll::Ready(Ok(()))
    }

    /// The next datagram of those that the system has put together: all but
    /// the last of a message are of a length.
    fn next(&mut self) -> Option<(&[u8], RecvMeta)> {
        loop {
            let meta = *self.metas.get(..self.count)?.get(self.at)?;
            let start = self.at * PIECE + self.offset;
            let left = meta.len.saturating_sub(self.offset);
            if left == 0 {
                (self.at, self.offset) = (self.at + 1, 0);
                continue;
            }
            let len = left.min(meta.stride.max(1));
            self.offset += len;
            let stride = len;
            let datagram = self.room.get(start..start + len)?;
            return Some((
                datagram,
                RecvMeta {
                    len,
                    stride,
                    ..meta
                },
            ));
        }
    }

    fn next_of(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<(&[u8], RecvMeta)> {
        loop {
            let (at, offset) = (self.at, self.offset);
            let (datagram, _) = self.next()?;
            if wanted(datagram) {
                // Once more, for the borrow of what is given.
                (self.at, self.offset) = (at, offset);
                return self.next();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.at >= self.count
    }
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
        if let Some(said) = &self.said {
            said.note(transmit);
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        if batch.is_empty() {
            ready!(batch.poll_fill(&*self.inner, cx))?;
        }
        let mut given = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
            let Some((found, of_it)) = batch.next_of(|datagram| self.lets_in(datagram)) else {
                break;
            };
            // Longer than the library has said that it takes: dropped.
            meta.len = 0;
            if let Some(room) = buf.get_mut(..found.len()) {
                room.copy_from_slice(found);
                *meta = of_it;
            }
            given += 1;
        }
        if given == 0
            && let Some(meta) = meta.first_mut()
        {
            // Nothing that anybody wants; others have their turn before more.
            (meta.len, given) = (0, 1);
        }
        Poll::Ready(Ok(given))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        1
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
        let mut batch = Batch::new();
        for (received, left) in [
            (["aabbcc", "d"], vec!["aa", "bb", "cc", "d"]),
            (["-abb-cd", "--"], vec!["bb", "d"]),
            (["", "aa-bc"], vec!["aa", "c"]),
            (["-a-b-", ""], vec![]),
        ] {
            for (at, bytes) in received.iter().enumerate() {
                let piece = &mut batch.room[at * PIECE..];
                piece[..bytes.len()].copy_from_slice(bytes.as_bytes());
                (batch.metas[at].len, batch.metas[at].stride) = (bytes.len(), 2);
            }
            (batch.count, batch.at, batch.offset) = (2, 0, 0);
            let mut found = Vec::new();
            while let Some((datagram, meta)) = batch.next_of(wanted) {
                assert_eq!((meta.len, meta.stride), (datagram.len(), datagram.len()));
                found.push(String::from_utf8(datagram.to_vec()).unwrap());
            }
            assert_eq!(found, left, "{received:?}");
            assert!(batch.is_empty());
        }
    }
}
