//! A link's pool of idle channels, and the visitors that wait for one.
//!
//! Idle channels wait in one queue a worker, so that a visitor finds one
//! without crossing threads. The pool's size follows demand: each miss asks
//! for more, a quiet minute for fewer, down to none.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_wire::{Message, Start};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{EdgeLink, OpenError, lock};
use crate::channel::Channel;
use crate::workers::worker_index;

/// Idle channels that are kept beyond the wanted number before some close.
const SLACK: usize = 8;
/// Channels that the agent is asked to dial at a time.
const ASKED: usize = 256;
/// How often the pool's size is looked at.
const RESIZE_EVERY: Duration = Duration::from_secs(60);

/// Visitors that found no idle channel, in their order.
#[derive(Default)]
pub(super) struct Waiters {
    /// Those for whom the agent was asked to dial.
    asked: VecDeque<oneshot::Sender<Channel>>,
    /// Those who come later.
    later: VecDeque<(Message, oneshot::Sender<Channel>)>,
}

impl Waiters {
    pub(super) fn len(&self) -> usize {
        self.asked.len() + self.later.len()
    }

    fn next(&mut self) -> Option<oneshot::Sender<Channel>> {
        let asked = self.asked.pop_front();
        asked.or_else(|| self.later.pop_front().map(|(_, waiter)| waiter))
    }
}

impl EdgeLink {
    /// Gives a free channel to the first visitor that waits, else to the pool.
    pub(super) fn place(&self, mut channel: Channel) {
        loop {
            let Some(waiter) = lock(&self.waiters).next() else {
                break;
            };
            match waiter.send(channel) {
                Ok(()) => return,
                Err(back) => channel = back,
            }
        }
        let kept = usize::from(self.wanted.load(Ordering::Relaxed)) + SLACK;
        let mut queue = lock(&self.idle[worker_index() % self.idle.len()]);
        if queue.len() < kept {
            queue.push_back(channel);
        }
    }

    /// The channel used last on this worker, else one of another worker.
    pub(super) fn take_idle(&self) -> Option<Channel> {
        let here = worker_index() % self.idle.len();
        let now = Instant::now();
        for step in 0..self.idle.len() {
            let queue = &self.idle[(here + step) % self.idle.len()];
            loop {
                let Some(mut channel) = lock(queue).pop_back() else {
                    break;
                };
                if !channel.is_alive(now) {
                    continue;
                }
                self.note_idle();
                if step == 0 {
                    return Some(channel);
                }
                if let Some(moved) = channel.move_here() {
                    return Some(moved);
                }
            }
        }
        None
    }

    fn note_idle(&self) {
        let here = &self.idle[worker_index() % self.idle.len()];
        self.least_idle
            .fetch_min(lock(here).len(), Ordering::Relaxed);
    }

    pub(super) async fn wait_for_channel(&self, start: &Start) -> Result<Channel, OpenError> {
        self.counters.pool_misses.fetch_add(1, Ordering::Relaxed);
        let (give, take) = oneshot::channel();
        let ask = Message::IncomingConn {
            tunnel: start.tunnel,
            conn: start.conn,
        };
        if !self.enqueue(ask, give) {
            return Err(OpenError::Full);
        }
        // However the wait ends, another visitor may be asked for then.
        let _ask_for_others = AskMore(self);
        self.ask_more();
        self.want_more();
        if self.ended.is_cancelled() {
            return Err(OpenError::Gone);
        }
        match tokio::time::timeout(start.patience(), take).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(_)) => Err(OpenError::Gone),
            Err(_) => Err(OpenError::NoChannel),
        }
    }

    /// False when as many visitors are here as the link may carry.
    fn enqueue(&self, ask: Message, waiter: oneshot::Sender<Channel>) -> bool {
        let mut waiters = lock(&self.waiters);
        let room = self.in_use() + waiters.len() < usize::from(self.facts.max_channels);
        if room {
            waiters.later.push_back((ask, waiter));
        }
        room
    }

    /// Asks the agent to dial for those who wait, not for all of them at once:
    /// a crowd of visitors must not fill the control channel.
    fn ask_more(&self) {
        let mut waiters = lock(&self.waiters);
        waiters.asked.retain(|waiter| !waiter.is_closed());
        while waiters.asked.len() < ASKED {
            let Some((ask, waiter)) = waiters.later.pop_front() else {
                return;
            };
            if waiter.is_closed() {
                continue;
            }
            if !self.outbox.offer(&ask) {
                waiters.later.push_front((ask, waiter));
                return;
            }
            waiters.asked.push_back(waiter);
        }
    }

    /// A miss: a quarter of what is in use should wait, at least two more.
    fn want_more(&self) {
        let before = self.wanted.load(Ordering::Relaxed);
        let quarter = u16::try_from(self.in_use() / 4).unwrap_or(u16::MAX);
        let after = before.max(quarter).max(2).min(self.facts.idle_channels);
        self.least_idle.store(0, Ordering::Relaxed);
        if after != before {
            self.wanted.store(after, Ordering::Relaxed);
            self.wish();
        }
    }

    /// Tells the agent what it is to keep ready.
    pub(crate) fn wish(&self) {
        self.send(Message::ChannelsWanted {
            idle: self.wanted.load(Ordering::Relaxed),
            trunks: self.lines.wanted(),
        });
    }

    /// Looks after the idle channels of the calling worker: drops what is
    /// dead, pings what was silent, shrinks what nobody used for a minute.
    pub fn sweep(&self) {
        let now = Instant::now();
        let queue = &self.idle[worker_index() % self.idle.len()];
        let mut channels = std::mem::take(&mut *lock(queue));
        channels.retain_mut(|channel| channel.is_alive(now) && channel.keep_alive(now));
        let mut held = lock(queue);
        channels.append(&mut held);
        *held = channels;
        drop(held);
        self.lines.sweep(now);
        // Visitors for whom nothing was asked while the outbox was full.
        self.ask_more();
        self.want_less(now);
    }

    fn want_less(&self, now: Instant) {
        let mut resized = lock(&self.resized);
        if now.duration_since(*resized) < RESIZE_EVERY {
            return;
        }
        *resized = now;
        drop(resized);
        let unused = self.least_idle.swap(usize::MAX, Ordering::Relaxed);
        let before = self.wanted.load(Ordering::Relaxed);
        if unused == 0 || before == 0 {
            return;
        }
        let unused = u16::try_from(unused).unwrap_or(u16::MAX);
        let after = before.saturating_sub(unused.div_ceil(2).max(1));
        self.wanted.store(after, Ordering::Relaxed);
        self.wish();
        self.trim(usize::from(after));
    }

    fn trim(&self, wanted: usize) {
        let mut excess = self.idle_connections().saturating_sub(wanted);
        for queue in &self.idle {
            let mut queue = lock(queue);
            while excess > 0 && queue.pop_front().is_some() {
                excess -= 1;
            }
        }
    }
}

/// Asks for the next visitors when one no longer waits.
struct AskMore<'a>(&'a EdgeLink);

impl Drop for AskMore<'_> {
    fn drop(&mut self) {
        self.0.ask_more();
    }
}

#[cfg(test)]
mod tests;
