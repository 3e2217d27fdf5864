//! Who reads and writes a trunk's connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use adit_link_proto::{Opener, Role, Sealer};
use adit_wire::{CREDIT_UNIT, LINE_WINDOW, Part, Piece, PieceKind, Pieces, TRUNK_HEAD};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{MOST, Slot, State, Trunk, violation};
use crate::buffer::{Buffer, ReadSize};
use crate::channel::{Channel, IDLE_LIMIT, PING_AFTER};

/// Reads in one turn, before other tasks have theirs.
const READS: usize = 8;

/// The connection of a trunk. Its lines end with it.
pub(crate) struct Driver {
    trunk: Arc<Trunk>,
    socket: TcpStream,
    rx: Buffer,
    read_size: ReadSize,
    pieces: Pieces,
    tx: Buffer,
    heard: Instant,
    tick: Interval,
}

/// What a read brought about.
#[derive(Default)]
struct News {
    wakers: Vec<Waker>,
    opened: Vec<(u32, (Sealer, Opener))>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.trunk.end();
    }
}

impl Driver {
    pub(crate) fn new(trunk: Arc<Trunk>, socket: TcpStream) -> Self {
        let heard = Instant::now();
        let mut tick = interval_at(heard + PING_AFTER, PING_AFTER);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            trunk,
            socket,
            rx: Buffer::default(),
            read_size: ReadSize::default(),
            pieces: Pieces::default(),
            tx: Buffer::default(),
            heard,
            tick,
        }
    }

    /// Carries all lines until the connection ends, or until it has none after
    /// `leave`. Agent: each line that the edge opens goes to `serve`.
    ///
    /// # Errors
    /// The connection's, or what the peer did that none does.
    pub(crate) async fn run(
        mut self,
        serve: impl Fn(Channel),
        leave: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (mut leave, mut leaving) = (pin!(leave), false);
        poll_fn(|cx| {
            leaving = leaving || leave.as_mut().poll(cx).is_ready();
            self.trunk.driver.register(cx.waker());
            if let Poll::Ready(ended) = self.poll(cx, &serve) {
                return Poll::Ready(ended);
            }
            if leaving && self.is_done() {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    /// Whether no line is left; what the agent has said to the end goes out
    /// before it leaves.
    fn is_done(&self) -> bool {
        let state = self.trunk.state();
        let unsaid = !self.tx.is_empty() || !state.out.is_empty();
        state.slots.is_empty() && (self.trunk.role == Role::Edge || !unsaid)
    }

    fn poll(&mut self, cx: &mut Context<'_>, serve: &impl Fn(Channel)) -> Poll<io::Result<()>> {
        self.poll_silence(cx)?;
        if let Poll::Ready(ended) = self.poll_read(cx, serve) {
            return Poll::Ready(ended);
        }
        self.poll_write(cx)
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.tick.poll_tick(cx).is_ready() {
            let silent = self.heard.elapsed();
            if silent >= IDLE_LIMIT {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if silent >= PING_AFTER / 2 {
                let mut state = self.trunk.state();
                state.asked = true;
                state.queue(PieceKind::Ping, 0, 0, &[]);
            }
        }
        Ok(())
    }

    /// Pending unless the connection has failed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.tx.is_empty() {
                self.tx.release_if_empty();
                let mut state = self.trunk.state();
                if state.out.is_empty() {
                    return Poll::Pending;
                }
                std::mem::swap(&mut self.tx, &mut state.out);
                let blocked = state.unblock();
                drop(state);
                blocked.into_iter().for_each(Waker::wake);
            }
            let written = Pin::new(&mut self.socket).poll_write(cx, self.tx.filled());
            self.tx.start += ready!(written)?;
        }
    }

    /// Ready when the connection has ended.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        serve: &impl Fn(Channel),
    ) -> Poll<io::Result<()>> {
        for _ in 0..READS {
            // No buffer is held while nothing arrives.
            if self.rx.is_empty() && self.socket.poll_read_ready(cx)?.is_pending() {
                return Poll::Pending;
            }
            self.rx.reserve(self.read_size.bytes() - TRUNK_HEAD);
            let room = self.rx.room();
            let asked = room.len();
            let mut into = ReadBuf::new(room);
            let found = Pin::new(&mut self.socket).poll_read(cx, &mut into)?;
            let count = into.filled().len();
            if found.is_pending() {
                self.rx.release_if_empty();
                return Poll::Pending;
            }
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            self.rx.end += count;
            self.read_size.learn(count, asked);
            self.heard = Instant::now();
            self.take_apart(serve)?;
            self.rx.release_if_empty();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_apart(&mut self, serve: &impl Fn(Channel)) -> io::Result<()> {
        let mut news = News::default();
        let taken = self.take_pieces(&mut news);
        for (id, keys) in news.opened {
            serve(self.trunk.channel(id, keys));
        }
        // Also before an error: nobody else knows of them any more.
        news.wakers.into_iter().for_each(Waker::wake);
        taken
    }

    fn take_pieces(&mut self, news: &mut News) -> io::Result<()> {
        let mut state = self.trunk.state();
        loop {
            let input = self.rx.filled();
            let part = self.pieces.next(input);
            let taken = match part.map_err(|error| violation(&error.to_string()))? {
                Part::Missing => break,
                Part::Payload { line, bytes } => {
                    let bytes = input.get(..bytes).unwrap_or_default();
                    news.wakers.extend(Trunk::deliver(&mut state, line, bytes)?);
                    bytes.len()
                }
                Part::Head(piece) if piece.kind == PieceKind::Open => {
                    self.trunk.admit(&mut state, piece.line, news)?;
                    TRUNK_HEAD
                }
                Part::Opening(piece) | Part::Head(piece) => {
                    heed(&mut state, piece, news)?;
                    TRUNK_HEAD
                }
            };
            self.rx.start += taken;
        }
        if state.out.len() > MOST {
            return Err(violation("the peer does not read"));
        }
        Ok(())
    }
}

impl Trunk {
    /// The edge opens a line; only it does, one after the other.
    fn admit(&self, state: &mut State, id: u32, news: &mut News) -> io::Result<()> {
        if self.role == Role::Edge {
            return Err(violation("a line that an agent opens"));
        }
        let keys = state.keys.next_line(self.role).map_err(io::Error::other)?;
        if keys.0 != id {
            return Err(violation("a line out of its turn"));
        }
        if state.slots.len() >= self.most {
            // Tasks may still hold some that the edge has closed.
            state.queue(PieceKind::Close, id, 0, &[]);
            return Ok(());
        }
        state.slots.insert(id, Slot::default());
        news.opened.push(keys);
        Ok(())
    }
}

/// Takes in a piece without payload.
fn heed(state: &mut State, piece: Piece, news: &mut News) -> io::Result<()> {
    if piece.line > state.keys.last() {
        return Err(violation("a line that was never opened"));
    }
    match piece.kind {
        PieceKind::Ping => state.queue(PieceKind::Pong, 0, 0, &[]),
        PieceKind::Pong if !std::mem::take(&mut state.asked) => {
            return Err(violation("an answer that was not asked for"));
        }
        PieceKind::Pong | PieceKind::Data | PieceKind::Open => {}
        PieceKind::Close => {
            if let Some(slot) = state.slots.get_mut(&piece.line) {
                news.wakers.extend(slot.close());
            }
        }
        PieceKind::Credit => {
            if let Some(slot) = state.slots.get_mut(&piece.line) {
                slot.credit += usize::from(piece.count) * CREDIT_UNIT;
                if slot.credit > LINE_WINDOW {
                    return Err(violation("more credit than was used"));
                }
                news.wakers.extend(slot.writer.take());
            }
        }
    }
    Ok(())
}
