//! Bytes between a visitor and a backend's stream, in both directions, each
//! ended on its own.
//!
//! Reads go straight into the stream's own buffer, and answers are written
//! from it. While nothing flows no buffer is held at all.

use std::sync::Arc;
use std::task::{Context, Poll};

use adit_link::{Fill, Stream};

use crate::rules::{Paces, Rule, Way};
use crate::visitor::Visitor;
use crate::ways::{HalfTime, TURN, others_first};

/// Read sizes: for keystrokes and for bulk.
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;

/// Which side did not end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Visitor,
    Backend,
}

impl Broken {
    /// What a log says of it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Visitor => "visitor went away",
            Self::Backend => "backend went away",
        }
    }
}

/// One stream on its way.
pub(crate) struct Carry {
    stream: Stream,
    read_size: usize,
    up_ended: bool,
    down_ended: bool,
    paces: Paces,
    half: HalfTime,
    /// Bytes from the visitor.
    pub(crate) received: u64,
    /// Bytes to the visitor.
    pub(crate) sent: u64,
}

impl Carry {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read_size: SMALL,
            up_ended: false,
            down_ended: false,
            paces: Paces::default(),
            half: HalfTime::default(),
            received: 0,
            sent: 0,
        }
    }

    /// No faster than these rules allow; what has moved already counts.
    pub(crate) fn paced(mut self, rules: [Option<Arc<Rule>>; 2]) -> Self {
        self.paces = Paces::new(rules.into_iter().flatten());
        let received = usize::try_from(self.received).unwrap_or(usize::MAX);
        self.paces.moved(Way::Up, received);
        self
    }

    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Takes bytes that were read from the visitor before; how many there was
    /// room for. They go out with the next flush.
    pub(crate) fn lead(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let count = self.stream.write(bytes).map_err(|_| Broken::Backend)?;
        self.received += count as u64;
        self.paces.moved(Way::Up, count);
        Ok(count)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.stream.poll_flush(cx).map_err(|_| Broken::Backend)
    }

    /// Moves what can be moved; ready when both directions have ended.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
    ) -> Poll<Result<(), Broken>> {
        // Also while neither side is read from.
        if self.stream.poll_cut(cx).is_ready() {
            return Poll::Ready(Err(Broken::Backend));
        }
        let up = self.poll_up(cx, visitor)?;
        let down = self.poll_down(cx, visitor)?;
        if down.is_pending() && visitor.has_unsent() {
            // Nothing else wakes the task for it; it waits for more anyway.
            if let Poll::Ready(sent) = visitor.poll_flush(cx) {
                sent.map_err(|_| Broken::Visitor)?;
            }
        }
        match (up.is_ready(), down.is_ready()) {
            (true, true) => Poll::Ready(Ok(())),
            (false, false) => Poll::Pending,
            _ => self.poll_half(cx),
        }
    }

    /// One direction has ended, the other is silent: nothing else tells
    /// whether anybody is still there.
    fn poll_half(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        // The other side may give up on what still comes.
        if self.down_ended && self.stream.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Broken::Backend));
        }
        let moved = self.received + self.sent;
        self.half.poll(cx, moved).map(|()| Err(Broken::Visitor))
    }

    /// Visitor to backend; ready when that direction has ended.
    fn poll_up(&mut self, cx: &mut Context<'_>, visitor: &mut Visitor) -> Result<Poll<()>, Broken> {
        let mut turn = TURN;
        loop {
            match self.stream.poll_flush(cx) {
                Poll::Ready(Ok(())) if self.up_ended => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Broken::Backend),
                Poll::Pending => return Ok(Poll::Pending),
            }
            if turn == 0 {
                return Ok(others_first(cx));
            }
            if visitor.ended {
                if self.down_ended {
                    self.stream.conclude();
                } else {
                    self.stream.finish();
                }
                self.up_ended = true;
                continue;
            }
            match visitor.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Broken::Visitor),
                Poll::Pending => return Ok(Poll::Pending),
            }
            let Poll::Ready(most) = self.paces.poll(cx, Way::Up) else {
                return Ok(Poll::Pending);
            };
            let room = self.stream.spare(self.read_size.min(most));
            let full = room.len();
            match visitor.poll_read(cx, room) {
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(Ok(count)) => {
                    self.read_size = if count == full { LARGE } else { SMALL };
                    self.received += count as u64;
                    turn = turn.saturating_sub(count);
                    self.paces.moved(Way::Up, count);
                    self.stream.commit(count).map_err(|_| Broken::Backend)?;
                }
                Poll::Ready(Err(_)) => return Err(Broken::Visitor),
                Poll::Pending => {
                    // Gives the room back.
                    let _ = self.stream.poll_flush(cx);
                    return Ok(Poll::Pending);
                }
            }
        }
    }

    /// Backend to visitor; ready when that direction has ended.
    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
    ) -> Result<Poll<()>, Broken> {
        if self.down_ended {
            return Ok(Poll::Ready(()));
        }
        let mut turn = TURN;
        loop {
            if turn == 0 {
                return Ok(others_first(cx));
            }
            let buffer = self.stream.buffer();
            if !buffer.is_empty() {
                let Poll::Ready(most) = self.paces.poll(cx, Way::Down) else {
                    return Ok(Poll::Pending);
                };
                let buffer = buffer.get(..most).unwrap_or(buffer);
                let Poll::Ready(written) = visitor.poll_write(cx, buffer, b"") else {
                    return Ok(Poll::Pending);
                };
                let count = written.map_err(|_| Broken::Visitor)?;
                self.stream.consume(count);
                self.sent += count as u64;
                turn = turn.saturating_sub(count);
                self.paces.moved(Way::Down, count);
                continue;
            }
            match self.stream.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data)) => {}
                Poll::Ready(Ok(Fill::End)) => {
                    let Poll::Ready(shut) = visitor.poll_shutdown(cx) else {
                        return Ok(Poll::Pending);
                    };
                    shut.map_err(|_| Broken::Visitor)?;
                    self.down_ended = true;
                    return Ok(Poll::Ready(()));
                }
                Poll::Ready(Err(_)) => return Err(Broken::Backend),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }
}
