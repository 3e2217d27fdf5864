//! Bytes between the streams of two agents, in both directions, each ended on
//! its own. What they say to each other is sealed; the edge counts it and
//! keeps to the owner's pace.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_link::{Fill, Stream, StreamError};
use adit_wire::ResetReason;
use tokio::time::{Instant, Sleep, sleep};

use crate::rules::{Pace, Rule};

/// How long one direction may be silent after the other has ended.
const HALF_TIME: Duration = Duration::from_secs(300);
/// Most bytes that are handed on at once.
const MOST: usize = 64 * 1024;

/// Which side did not end in order, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) side: Side,
    pub(crate) reason: ResetReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Forwarder,
    Target,
}

impl Side {
    /// The other side hears of it in the same words.
    fn broke(self, error: &StreamError) -> Broken {
        let reason = match error {
            StreamError::Reset { reason, .. } => *reason,
            _ => ResetReason::Cancelled,
        };
        Broken { side: self, reason }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Two streams and what has moved between them.
pub(crate) struct Relay {
    pub(crate) forwarder: Stream,
    pub(crate) target: Stream,
    /// Ended: up, down.
    ended: [bool; 2],
    /// At most one for the tunnel and one for each of its agents.
    paces: Vec<Pace>,
    /// Runs while one direction alone has ended, with the bytes of its start.
    half: Option<(Pin<Box<Sleep>>, u64)>,
    /// Bytes from the forwarder.
    pub(crate) received: u64,
    /// Bytes to the forwarder.
    pub(crate) sent: u64,
}

impl Relay {
    pub(crate) fn new(forwarder: Stream, target: Stream) -> Self {
        Self {
            forwarder,
            target,
            ended: [false; 2],
            paces: Vec::new(),
            half: None,
            received: 0,
            sent: 0,
        }
    }

    /// No faster than this rule allows, too.
    pub(crate) fn paced(mut self, rule: Option<Arc<Rule>>) -> Self {
        self.paces.extend(rule.and_then(Pace::new));
        self
    }

    /// Moves what can be moved; ready when both directions have ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        // Also while neither side is read from.
        if let Poll::Ready(error) = self.forwarder.poll_cut(cx) {
            return Poll::Ready(Err(Side::Forwarder.broke(&error)));
        }
        if let Poll::Ready(error) = self.target.poll_cut(cx) {
            return Poll::Ready(Err(Side::Target.broke(&error)));
        }
        let up = self.poll_way(cx, Way::Up)?;
        let down = self.poll_way(cx, Way::Down)?;
        match (up.is_ready(), down.is_ready()) {
            (true, true) => Poll::Ready(Ok(())),
            (false, false) => Poll::Pending,
            _ => self.poll_half(cx),
        }
    }

    /// One direction has ended, the other is silent: whoever has ended may
    /// still give up on what comes, and nothing else tells whether anybody is
    /// there.
    fn poll_half(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.ended[0]
            && let Poll::Ready(error) = self.forwarder.poll_broken(cx)
        {
            return Poll::Ready(Err(Side::Forwarder.broke(&error)));
        }
        if self.ended[1]
            && let Poll::Ready(error) = self.target.poll_broken(cx)
        {
            return Poll::Ready(Err(Side::Target.broke(&error)));
        }
        let moved = self.received + self.sent;
        let (timer, since) = self
            .half
            .get_or_insert_with(|| (Box::pin(sleep(HALF_TIME)), moved));
        if *since != moved {
            timer.as_mut().reset(Instant::now() + HALF_TIME);
            *since = moved;
        }
        let timed_out = Broken {
            side: Side::Forwarder,
            reason: ResetReason::Timeout,
        };
        timer.as_mut().poll(cx).map(|()| Err(timed_out))
    }

    /// One direction; ready when it has ended and its end is sent.
    fn poll_way(&mut self, cx: &mut Context<'_>, way: Way) -> Result<Poll<()>, Broken> {
        let (from, to, ended, moved) = match way {
            Way::Up => (
                &mut self.forwarder,
                &mut self.target,
                &mut self.ended[0],
                &mut self.received,
            ),
            Way::Down => (
                &mut self.target,
                &mut self.forwarder,
                &mut self.ended[1],
                &mut self.sent,
            ),
        };
        let (near, far) = match way {
            Way::Up => (Side::Forwarder, Side::Target),
            Way::Down => (Side::Target, Side::Forwarder),
        };
        loop {
            match to.poll_flush(cx) {
                Poll::Ready(Ok(())) if *ended => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(far.broke(&error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
            let mut most = from.buffer().len().min(MOST);
            if most > 0 {
                for pace in &mut self.paces {
                    let ready = match way {
                        Way::Up => pace.poll_up(cx),
                        Way::Down => pace.poll_down(cx),
                    };
                    let Poll::Ready(bytes) = ready else {
                        return Ok(Poll::Pending);
                    };
                    most = most.min(bytes);
                }
                let bytes = from.buffer().get(..most).unwrap_or_default();
                let count = to.write(bytes).map_err(|error| far.broke(&error))?;
                from.consume(count);
                *moved += count as u64;
                for pace in &self.paces {
                    match way {
                        Way::Up => pace.moved_up(count),
                        Way::Down => pace.moved_down(count),
                    }
                }
                continue;
            }
            match from.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data)) => {}
                Poll::Ready(Ok(Fill::End)) => {
                    to.finish();
                    *ended = true;
                }
                Poll::Ready(Err(error)) => return Err(near.broke(&error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }
}
