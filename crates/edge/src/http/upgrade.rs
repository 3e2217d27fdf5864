//! After a 101: bytes, in both directions, each ended on its own.
//!
//! Reads go straight into the stream's own buffer, and answers are written
//! from it. While nothing flows the connection holds no buffer at all.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use adit_link::{Fill, Stream};
use adit_wire::{Delivered, ResetReason};

use super::buffer::Work;
use super::record::Fault;
use super::server::{Connection, Then};
use super::visitor::Visitor;
use crate::backend::Backend;

/// Read sizes: for keystrokes and for bulk.
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;

/// Why an upgraded connection did not end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Visitor,
    Backend,
}

struct Upgraded {
    stream: Stream,
    read_size: usize,
    up_ended: bool,
    down_ended: bool,
    received: u64,
    sent: u64,
}

impl Connection {
    /// Carries bytes until both directions have ended.
    pub(super) async fn upgraded(
        &mut self,
        work: &mut Work,
        stream: Stream,
        backend: &Arc<Backend>,
    ) -> Then {
        let http = &self.door.parts.metrics.http;
        http.upgrades.add(1);
        let _open = http.upgraded.hold();
        http.active.down();
        let mut upgraded = Upgraded {
            stream,
            read_size: SMALL,
            up_ended: false,
            down_ended: false,
            received: 0,
            sent: 0,
        };
        let visitor = &mut self.visitor;
        let mut end = poll_fn(|cx| upgraded.poll_leftover(cx, work)).await;
        if end.is_ok() {
            end = poll_fn(|cx| upgraded.poll(cx, visitor)).await;
        }
        self.door.parts.metrics.http.active.up();
        work.draft.received += upgraded.received;
        work.draft.sent += upgraded.sent;
        let traffic = &backend.traffic;
        traffic
            .bytes_in
            .fetch_add(upgraded.received, Ordering::Relaxed);
        traffic
            .bytes_out
            .fetch_add(upgraded.sent, Ordering::Relaxed);
        match end {
            Ok(()) => {
                upgraded.stream.retire(&self.door.parts.tasks);
                Then::Close
            }
            Err(broken) => {
                let cancelled = ResetReason::Cancelled;
                upgraded.stream.reset(cancelled, Delivered::Some);
                work.draft.fault = Some(Fault::Text(match broken {
                    Broken::Visitor => "visitor went away",
                    Broken::Backend => "backend went away",
                }));
                Then::Cut
            }
        }
    }
}

impl Upgraded {
    /// Sends on what came behind the request before the 101.
    fn poll_leftover(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Poll<Result<(), Broken>> {
        loop {
            let unread = work.input.unread();
            let count = self.stream.write(unread).map_err(|_| Broken::Backend)?;
            let all = count == unread.len();
            work.input.advance(count);
            self.received += count as u64;
            ready!(self.stream.poll_flush(cx)).map_err(|_| Broken::Backend)?;
            if all {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, visitor: &mut Visitor) -> Poll<Result<(), Broken>> {
        // Also while neither side is read from.
        if self.stream.poll_cut(cx).is_ready() {
            return Poll::Ready(Err(Broken::Backend));
        }
        let up = self.poll_up(cx, visitor)?;
        let down = self.poll_down(cx, visitor)?;
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Visitor to backend; ready when that direction has ended.
    fn poll_up(&mut self, cx: &mut Context<'_>, visitor: &mut Visitor) -> Result<Poll<()>, Broken> {
        loop {
            match self.stream.poll_flush(cx) {
                Poll::Ready(Ok(())) if self.up_ended => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Broken::Backend),
                Poll::Pending => return Ok(Poll::Pending),
            }
            if visitor.ended {
                self.stream.finish();
                self.up_ended = true;
                continue;
            }
            match visitor.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Broken::Visitor),
                Poll::Pending => return Ok(Poll::Pending),
            }
            let room = self.stream.spare(self.read_size);
            let full = room.len();
            match visitor.poll_read(cx, room) {
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(Ok(count)) => {
                    self.read_size = if count == full { LARGE } else { SMALL };
                    self.received += count as u64;
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
        loop {
            let buffer = self.stream.buffer();
            if !buffer.is_empty() {
                let Poll::Ready(written) = visitor.poll_write(cx, buffer, b"") else {
                    return Ok(Poll::Pending);
                };
                let count = written.map_err(|_| Broken::Visitor)?;
                self.stream.consume(count);
                self.sent += count as u64;
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
