//! The streams of one connection, and what they hold together.
//!
//! Each may hold [`Room::stream`] that its reader has not taken, all of them
//! [`Room::link`]. Readers that pause must not fill the latter for those that
//! do not, the control channel among them: when the other side says that it is
//! held up by it, those that have paused longest are cut.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use adit_model::Carrier;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Held;
use crate::carrier::Wire;
use crate::counters::Counters;
use crate::lane::Lanes;
use crate::uses::Uses;

/// How often a connection with many streams is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Bytes that wait for a reader worth cutting: a channel that nobody uses has a
/// few. So many are held beside the connection's own for each one that is looked
/// at.
const MUCH: usize = 2 * 1024;
/// Paused readers that are cut at a look.
const AT_ONCE: usize = 8;

/// What a connection may hold that nobody has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of one stream: what is under way on 80 ms at 100 Mbit/s.
    pub(super) stream: u32,
    /// Bytes of all streams.
    pub(super) link: u32,
    /// Who has not read for so long may be cut.
    pub(super) paused: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            stream: 1024 * 1024,
            link: 64 * 1024 * 1024,
            paused: Duration::from_secs(5),
        }
    }
}

impl Room {
    /// Fewer streams cannot fill it.
    fn many(self) -> usize {
        usize::try_from(self.link / self.stream.max(1)).unwrap_or(usize::MAX)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One stream's way in.
struct Reader {
    recv: RecvStream,
    /// Taken off the front to see how much waits.
    first: Vec<u8>,
    /// What waited was given up.
    is_cut: bool,
    /// When somebody read last.
    read: Instant,
    /// Who waits for bytes.
    waker: Waker,
}

impl Reader {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.read = Instant::now();
        if self.is_cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if !self.first.is_empty() {
            let count = into.remaining().min(self.first.len());
            into.put_slice(&self.first[..count]);
            self.first.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let found = AsyncRead::poll_read(Pin::new(&mut self.recv), cx, into);
        if found.is_pending() {
            self.waker.clone_from(cx.waker());
        }
        found
    }

    /// Whether [`MUCH`] waits to be read.
    fn is_behind(&mut self) -> bool {
        let mut room = vec![0; MUCH.saturating_sub(self.first.len())];
        let mut into = ReadBuf::new(&mut room);
        // In the reader's name: whoever asks last is woken.
        let mut cx = Context::from_waker(&self.waker);
        let recv = Pin::new(&mut self.recv);
        let _end_or_bytes = AsyncRead::poll_read(recv, &mut cx, &mut into);
        self.first.extend_from_slice(into.filled());
        self.first.len() >= MUCH
    }

    /// Gives up what waits; the other side is told.
    fn cut(&mut self) {
        (self.first, self.is_cut) = (Vec::new(), true);
        // Fails only on a stream that is over.
        let _ = self.recv.stop(VarInt::from_u32(1));
        self.waker.wake_by_ref();
    }
}

/// The open streams of a connection.
pub(super) struct Streams {
    connection: Connection,
    room: Room,
    open: Mutex<HashMap<u64, Weak<Mutex<Reader>>>>,
    more: Notify,
    counters: Arc<Counters>,
}

impl Streams {
    pub(super) fn new(connection: Connection, room: Room, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            connection,
            room,
            open: Mutex::default(),
            more: Notify::new(),
            counters,
        })
    }

    /// A socket's worth of a stream.
    pub(super) fn add(
        self: &Arc<Self>,
        (send, recv): (SendStream, RecvStream),
        lanes: Arc<Lanes>,
        held: Held,
    ) -> Box<dyn Wire> {
        let reader = Arc::new(Mutex::new(Reader {
            recv,
            first: Vec::new(),
            is_cut: false,
            read: Instant::now(),
            waker: Waker::noop().clone(),
        }));
        let count = {
            let mut open = lock(&self.open);
            open.insert(send.id().index(), Arc::downgrade(&reader));
            open.len()
        };
        if count >= self.room.many() {
            self.more.notify_one();
        }
        Box::new(QuicStream {
            send,
            reader,
            lanes,
            streams: Arc::clone(self),
            held,
        })
    }

    /// Until the connection ends: sees that no paused reader holds others up.
    pub(super) async fn keep_flowing(&self) {
        // Said by the other side, and what it was allowed then.
        let (mut told, mut allowed) = (0, None);
        loop {
            self.more.notified().await;
            while lock(&self.open).len() >= self.room.many() {
                let stats = self.connection.stats();
                let (said, now) = (stats.frame_rx.data_blocked, stats.frame_tx.max_data);
                if said != told {
                    (told, allowed) = (said, Some(now));
                }
                if allowed == Some(now) {
                    self.cut_paused();
                } else {
                    allowed = None;
                }
                sleep(LOOK).await;
            }
        }
    }

    fn cut_paused(&self) {
        let open: Vec<_> = lock(&self.open)
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        let mut paused: Vec<_> = open
            .into_iter()
            .map(|reader| {
                let read = lock(&reader).read;
                (read, reader)
            })
            .filter(|(read, _)| read.elapsed() >= self.room.paused)
            .collect();
        paused.sort_by_key(|(read, _)| *read);
        let mut left = AT_ONCE;
        for (_, reader) in paused {
            let mut reader = lock(&reader);
            if left > 0 && reader.is_behind() {
                reader.cut();
                left -= 1;
            }
        }
        if left < AT_ONCE {
            let cut = AT_ONCE - left;
            let counter = &self.counters.paused_cut;
            counter.fetch_add(cut as u64, Ordering::Relaxed);
            tracing::warn!(
                cut,
                "paused readers have filled a QUIC link; the oldest were cut"
            );
        }
    }
}

/// One stream, both ways.
struct QuicStream {
    send: SendStream,
    reader: Arc<Mutex<Reader>>,
    lanes: Arc<Lanes>,
    streams: Arc<Streams>,
    held: Held,
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        lock(&self.streams.open).remove(&self.send.id().index());
    }
}

impl Wire for QuicStream {
    fn carrier(&self) -> Carrier {
        Carrier::Quic
    }

    fn lanes(&self) -> Option<(Arc<Lanes>, u32)> {
        let index = u32::try_from(self.send.id().index()).ok()?;
        Some((Arc::clone(&self.lanes), index))
    }

    fn proved(&self) {
        if let Held::Taken(guest, _) = &self.held {
            guest.proved();
        }
    }

    fn carries(&self, uses: &Arc<Uses>) {
        if let Held::Taken(guest, _) = &self.held {
            guest.life.carries(uses);
        }
    }

    fn abort(&mut self) {
        // Both fail only on a stream that is over.
        let _ = self.send.reset(VarInt::from_u32(1));
        let _ = lock(&self.reader).recv.stop(VarInt::from_u32(1));
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.reader).poll_read(cx, into)
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}
