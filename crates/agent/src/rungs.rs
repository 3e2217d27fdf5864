//! The rungs of one round of dialling, beside each other.
//!
//! A network may swallow what a carrier sends: the next one begins when the one
//! before has been silent for a while, and the first to which the edge proves
//! itself goes on alone. Those that it leaves behind have told the edge nothing
//! of this agent, and have their turn again when it comes to nothing after all.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_link::race::{Race, Turn};
use tokio::time::{Instant, sleep_until};

/// How long a rung has before the next begins beside it.
const DELAY: Duration = Duration::from_secs(1);
/// The same for one that has a connection and waits for the edge, which may
/// have many agents to answer.
const CONNECTED: Duration = Duration::from_secs(4);

/// A rung that is tried now.
struct Running<F> {
    number: usize,
    dial: Pin<Box<F>>,
}

/// What happened.
enum Step<T, E> {
    Ended(usize, Result<T, E>),
    /// The first one goes on alone.
    Taken,
    Late,
}

/// One round.
struct Round<F> {
    race: Arc<Race>,
    waiting: VecDeque<usize>,
    running: Vec<Running<F>>,
    /// The rung that is tried only when no other is.
    last: Option<usize>,
    /// When the last one began; `None` when the next need not wait.
    began: Option<Instant>,
}

/// Dials `count` rungs, best first; the one at `last` only when the others have
/// failed. The first that does not fail ends the round.
///
/// # Errors
/// What each of them said, in the order in which they gave up.
pub(crate) async fn first_of<T, E, F>(
    count: usize,
    last: Option<usize>,
    dial: impl Fn(usize, Turn) -> F,
) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut round = Round {
        race: Race::new(),
        waiting: (0..count).collect(),
        running: Vec::new(),
        last,
        began: None,
    };
    let mut failed = Vec::new();
    loop {
        if round.may_begin() {
            round.begin(&dial);
        } else if round.running.is_empty() {
            return Err(failed);
        }
        match round.next().await {
            Step::Ended(_, Ok(done)) => return Ok(done),
            Step::Ended(number, Err(error)) => {
                failed.push(error);
                if round.race.first() == Some(number) {
                    round.race.again();
                }
                round.began = None;
            }
            Step::Taken => round.alone(),
            Step::Late => {}
        }
    }
}

impl<F> Round<F> {
    /// Whether the next rung may be tried now.
    fn may_begin(&self) -> bool {
        let Some(next) = self.waiting.front() else {
            return false;
        };
        if self.running.is_empty() {
            return true;
        }
        self.race.first().is_none() && self.last != Some(*next) && Instant::now() >= self.due()
    }

    /// When the next one begins beside those that run.
    fn due(&self) -> Instant {
        let mut running = self.running.iter();
        let waits = running.any(|rung| self.race.is_connected(rung.number));
        let began = self
            .began
            .map(|began| began + if waits { CONNECTED } else { DELAY });
        began.unwrap_or_else(Instant::now)
    }

    fn begin(&mut self, dial: impl Fn(usize, Turn) -> F) {
        if let Some(number) = self.waiting.pop_front() {
            let dial = Box::pin(dial(number, self.race.turn(number)));
            self.running.push(Running { number, dial });
            self.began = Some(Instant::now());
        }
    }

    /// Gives the others up, for now.
    fn alone(&mut self) {
        let Some(first) = self.race.first() else {
            return;
        };
        let others = self.running.extract_if(.., |rung| rung.number != first);
        let others: Vec<_> = others.map(|rung| rung.number).collect();
        for number in others.into_iter().rev() {
            self.waiting.push_front(number);
        }
    }
}

impl<T, E, F: Future<Output = Result<T, E>>> Round<F> {
    async fn next(&mut self) -> Step<T, E> {
        let mut due = self.due();
        let mut timer = Box::pin(sleep_until(due));
        poll_fn(|cx| {
            let step = self.poll_running(cx);
            if step.is_ready() {
                return step;
            }
            // A connection that came about gives its rung more time.
            let now = self.due();
            if now != due {
                due = now;
                timer.as_mut().reset(due);
            }
            let others = self.race.first().is_none() && self.has_next();
            if others && timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Step::Late);
            }
            Poll::Pending
        })
        .await
    }

    fn has_next(&self) -> bool {
        let next = self.waiting.front();
        next.is_some_and(|next| self.last != Some(*next))
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<Step<T, E>> {
        for at in 0..self.running.len() {
            let Some(rung) = self.running.get_mut(at) else {
                break;
            };
            if let Poll::Ready(end) = rung.dial.as_mut().poll(cx) {
                let number = rung.number;
                drop(self.running.remove(at));
                return Poll::Ready(Step::Ended(number, end));
            }
        }
        if self.running.len() > 1 && self.race.first().is_some() {
            return Poll::Ready(Step::Taken);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
