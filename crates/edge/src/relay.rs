//! Bytes between the streams of two agents, in both directions, each ended on
//! its own. What they say to each other is sealed; the edge counts it and
//! keeps to the owner's pace.

use std::sync::Arc;
use std::task::{Context, Poll};

use adit_link::{Fill, Stream, StreamError};
use adit_wire::ResetReason;

use crate::rules::{Paces, Rule, Way};
use crate::ways::{HalfTime, TURN, others_first};

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

/// Two streams and what has moved between them.
pub(crate) struct Relay {
    pub(crate) forwarder: Stream,
    pub(crate) target: Stream,
    /// Ended: up, down.
    ended: [bool; 2],
    /// At most one for the tunnel and one for each of its agents.
    paces: Paces,
    half: HalfTime,
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
            paces: Paces::default(),
            half: HalfTime::default(),
            received: 0,
            sent: 0,
        }
    }

    /// No faster than this rule allows, too.
    pub(crate) fn paced(mut self, rule: Option<Arc<Rule>>) -> Self {
        self.paces.add(rule);
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
        let timed_out = Broken {
            side: Side::Forwarder,
            reason: ResetReason::Timeout,
        };
        self.half.poll(cx, moved).map(|()| Err(timed_out))
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
        let mut turn = TURN;
        loop {
            match to.poll_flush(cx) {
                Poll::Ready(Ok(())) if *ended => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(far.broke(&error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
            if turn == 0 {
                return Ok(others_first(cx));
            }
            let most = from.buffer().len().min(MOST);
            if most > 0 {
                let Poll::Ready(ready) = self.paces.poll(cx, way) else {
                    return Ok(Poll::Pending);
                };
                let most = most.min(ready);
                let bytes = from.buffer().get(..most).unwrap_or_default();
                let count = to.write(bytes).map_err(|error| far.broke(&error))?;
                from.consume(count);
                *moved += count as u64;
                turn = turn.saturating_sub(count);
                self.paces.moved(way, count);
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
