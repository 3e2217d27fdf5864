//! One stream, both ways, in one task.
//!
//! Bytes go from the target's socket straight into the room that the stream
//! lends, where they are sealed, and from the stream's buffer straight to the
//! socket: no copy in between. Each direction drains what is there before it
//! waits, each poll moves a bounded amount, and nothing more is read from the
//! target while the visitor's side has not taken what was read before.
//!
//! Invariants: the end of one direction ends only that direction; what a
//! target sent before it failed reaches the visitor; an end that is not in
//! order is a reset on one side and an aborted socket on the other.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_link::{Channel, Duplex, Fill, Stream, StreamError};
use adit_wire::{Delivered, ResetReason};
use tokio::time::{Sleep, sleep};

use crate::local::Local;

/// Bytes one poll may move before other tasks have their turn.
const TURN: usize = 512 * 1024;
/// Bytes to gather before they are handed to the kernel.
const BATCH: usize = 256 * 1024;
/// Smallest and largest read; the smallest fits a small buffer with the head
/// and tag of its frame and of the answer to the start.
const READS: (usize, usize) = (8 * 1024 - 128, 64 * 1024);

/// How long the answer to a start waits for the target's first bytes, so that
/// both go out in one write. A visitor's bytes do not wait for it, only what
/// comes behind the first 16 KiB of them and their end.
const ANSWER_WAITS: Duration = Duration::from_millis(2);

/// How a stream went.
#[derive(Debug)]
pub(crate) struct Carried {
    /// Bytes from the visitor to the target.
    pub(crate) to_target: u64,
    /// Bytes from the target to the visitor.
    pub(crate) to_visitor: u64,
    /// `None` when both directions ended in order.
    pub(crate) broken: Option<Broken>,
}

/// Why a stream ended before its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The visitor's side gave up, or its channel broke.
    Visitor(StreamError),
    /// The target failed in the middle.
    Target(io::Error),
}

/// Carries a stream to its end; then gives its channel back if it can be used
/// again. `moved` hears after each turn how many bytes there were until then,
/// to the target and to the visitor.
pub(crate) async fn pump<S: Duplex>(
    stream: S,
    local: Local,
    moved: impl FnMut(u64, u64),
) -> (Carried, Option<Channel>) {
    carry(Pump::new(stream, local), moved).await
}

/// The same for a stream whose start was not answered yet: nothing but the
/// answer waits to be sent.
pub(crate) async fn pump_answer(
    stream: Stream,
    local: Local,
    moved: impl FnMut(u64, u64),
) -> (Carried, Option<Channel>) {
    let mut pump = Pump::new(stream, local);
    pump.answer = Some(Box::pin(sleep(ANSWER_WAITS)));
    carry(pump, moved).await
}

async fn carry<S: Duplex>(
    mut pump: Pump<S>,
    mut moved: impl FnMut(u64, u64),
) -> (Carried, Option<Channel>) {
    let result = poll_fn(|cx| {
        let result = pump.poll(cx);
        moved(pump.to_target, pump.to_visitor);
        result
    })
    .await;
    let mut carried = Carried {
        to_target: pump.to_target,
        to_visitor: pump.to_visitor,
        broken: None,
    };
    let channel = match result {
        Ok(()) => {
            pump.local.ended_well();
            drop(pump.local);
            pump.stream.end().await
        }
        Err(broken) => {
            let reason = match &broken {
                Broken::Target(_) => Some(ResetReason::TargetClosed),
                // The edge does not see what was altered on its way here.
                Broken::Visitor(StreamError::Protocol) => Some(ResetReason::Protocol),
                Broken::Visitor(_) => None,
            };
            if let Some(reason) = reason {
                let delivered = match carried.to_target {
                    0 => Delivered::None,
                    _ => Delivered::Some,
                };
                pump.stream.reset(reason, delivered);
            }
            carried.broken = Some(broken);
            None
        }
    };
    (carried, channel)
}

/// From the visitor to the target.
enum Up {
    Open,
    /// The visitor has ended; the target is being told.
    Ending,
    Ended,
    /// The target takes no more; what it says may still be on its way.
    Refused(io::Error),
}

/// From the target to the visitor.
enum Down {
    Open,
    /// The target has ended; the visitor's side is being told.
    Ending,
    Ended,
    /// The target failed; what it sent before is being handed on.
    Failing(io::Error),
}

struct Pump<S> {
    stream: S,
    local: Local,
    up: Up,
    down: Down,
    /// Runs while the answer to the start waits.
    answer: Option<Pin<Box<Sleep>>>,
    /// How much to ask of the target at once.
    read: usize,
    to_target: u64,
    to_visitor: u64,
}

impl<S: Duplex> Pump<S> {
    fn new(stream: S, local: Local) -> Self {
        Self {
            stream,
            local,
            up: Up::Open,
            down: Down::Open,
            answer: None,
            read: READS.0,
            to_target: 0,
            to_visitor: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let up = self.poll_up(cx)?;
        let down = self.poll_down(cx)?;
        if down.is_pending() {
            return Poll::Pending;
        }
        if let Up::Refused(error) = &mut self.up {
            let error = std::mem::replace(error, io::ErrorKind::BrokenPipe.into());
            return Poll::Ready(Err(Broken::Target(error)));
        }
        up.map(Ok)
    }

    /// Ready when this direction has ended.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut turn = TURN;
        loop {
            match &self.up {
                Up::Open | Up::Refused(_) if self.stream.buffer().is_empty() => {
                    if let Poll::Ready(Err(error)) = self.local.poll_flush(cx) {
                        self.refused(error);
                    }
                    match ready!(self.stream.poll_fill(cx)).map_err(Broken::Visitor)? {
                        Fill::Data => {}
                        Fill::End if matches!(self.up, Up::Open) => self.up = Up::Ending,
                        Fill::End => return Poll::Pending,
                    }
                }
                Up::Open if turn == 0 => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Up::Open => match ready!(self.local.poll_write(cx, self.stream.buffer())) {
                    Ok(0) => self.refused(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.stream.consume(count);
                        self.to_target += count as u64;
                        turn = turn.saturating_sub(count);
                    }
                    Err(error) => self.refused(error),
                },
                Up::Refused(_) => {
                    let rest = self.stream.buffer().len();
                    self.stream.consume(rest);
                }
                Up::Ending => {
                    // A target that has closed already needs no telling.
                    drop(ready!(self.local.poll_shutdown(cx)));
                    self.up = Up::Ended;
                }
                Up::Ended => {
                    // The visitor's side may still give up on the answer.
                    return match self.stream.poll_broken(cx) {
                        Poll::Ready(error) => Poll::Ready(Err(Broken::Visitor(error))),
                        Poll::Pending => Poll::Ready(Ok(())),
                    };
                }
            }
        }
    }

    fn refused(&mut self, error: io::Error) {
        if matches!(self.up, Up::Open) {
            self.up = Up::Refused(error);
        }
    }

    /// Ready when this direction has ended.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut turn = TURN;
        loop {
            // Nothing more is read while what was read waits for the visitor.
            // This also sends the answer to the start, and gives buffers back.
            if !self.answer_waits(cx) {
                ready!(self.stream.poll_flush(cx)).map_err(Broken::Visitor)?;
            }
            match &mut self.down {
                Down::Open => {}
                Down::Ending | Down::Ended => {
                    self.down = Down::Ended;
                    return Poll::Ready(Ok(()));
                }
                Down::Failing(error) => {
                    let error = std::mem::replace(error, io::ErrorKind::BrokenPipe.into());
                    return Poll::Ready(Err(Broken::Target(error)));
                }
            }
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let gathered = self.gather(cx, turn.min(BATCH))?;
            if gathered == 0 && matches!(self.down, Down::Open) {
                if self.answer.is_none() {
                    // A read that found nothing may have taken a buffer.
                    ready!(self.stream.poll_flush(cx)).map_err(Broken::Visitor)?;
                }
                return Poll::Pending;
            }
            turn = turn.saturating_sub(gathered);
        }
    }

    /// Whether the answer to the start still waits for the target.
    fn answer_waits(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(answer) = &mut self.answer else {
            return false;
        };
        let silent = self.to_visitor == 0 && matches!(self.down, Down::Open);
        if silent && answer.as_mut().poll(cx).is_pending() {
            return true;
        }
        self.answer = None;
        false
    }

    /// Reads what the target has, about `most` bytes; 0 when that is nothing,
    /// and the task is woken when there is more.
    fn gather(&mut self, cx: &mut Context<'_>, most: usize) -> Result<usize, Broken> {
        let mut gathered = 0;
        while gathered < most {
            match self.local.poll_readable(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.down = Down::Failing(error);
                    break;
                }
            }
            let room = self.stream.spare(self.read);
            let asked = room.len();
            if asked == 0 {
                break;
            }
            match self.local.poll_read(cx, room) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => {
                    // A target that has had everything and has said everything.
                    if matches!(self.up, Up::Ended) {
                        self.stream.conclude();
                    } else {
                        self.stream.finish();
                    }
                    self.down = Down::Ending;
                    break;
                }
                Poll::Ready(Ok(count)) => {
                    self.stream.commit(count).map_err(Broken::Visitor)?;
                    self.to_visitor += count as u64;
                    gathered += count;
                    self.learn(count, asked);
                }
                Poll::Ready(Err(error)) => {
                    self.down = Down::Failing(error);
                    break;
                }
            }
        }
        Ok(gathered)
    }

    /// Asks for more while reads come back full, for little when little comes.
    fn learn(&mut self, count: usize, asked: usize) {
        if count == asked {
            self.read = (self.read * 4).min(READS.1);
        } else if count < READS.0 / 2 {
            self.read = READS.0;
        }
    }
}

#[cfg(test)]
mod tests;
