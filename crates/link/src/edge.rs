//! The edge's side of a live link: its channels, its pool, its end.
//!
//! Idle channels wait in one queue a worker, so that a visitor finds one
//! without crossing threads. The pool's size follows demand: each miss asks
//! for more, a quiet minute for fewer, down to none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use adit_link_proto::SessionKeys;
use adit_model::{Carrier, InstanceId, LinkId, PublicKey};
use adit_wire::{Message, Start};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Home, Usage};
use crate::control::Outbox;
use crate::counters::Counters;
use crate::forward::Asked;
use crate::inner::Cut;
use crate::lines::Lines;
use crate::stream::{Stream, StreamError};
use crate::workers::worker_index;

/// Idle channels that are kept beyond the wanted number before some close.
const SLACK: usize = 8;
/// Channels that the agent is asked to dial at a time.
const ASKED: usize = 256;
/// How often the pool's size is looked at.
const RESIZE_EVERY: Duration = Duration::from_secs(60);

/// Who is at the other end, and what both agreed.
#[derive(Clone, Debug)]
pub struct LinkFacts {
    /// The link's id on this edge.
    pub id: LinkId,
    /// The agent's identity.
    pub identity: PublicKey,
    /// Its process.
    pub instance: InstanceId,
    /// Where its control channel came from.
    pub peer: std::net::SocketAddr,
    /// What its bytes travel in.
    pub carrier: Carrier,
    /// Most channels that the agent may open.
    pub max_channels: u16,
    /// Most idle channels that the agent is asked to keep.
    pub idle_channels: u16,
    /// Worker threads of this edge.
    pub workers: usize,
}

/// Why no stream could be opened on a link.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The link has ended.
    #[error("link has ended")]
    Gone,
    /// All channels are in use and the agent brought no other in time.
    #[error("agent brought no channel in time")]
    NoChannel,
    /// The link carries as many streams as it may.
    #[error("link is at its limit of channels")]
    Full,
    /// The channel failed at once.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// A live link on the edge.
pub struct EdgeLink {
    facts: LinkFacts,
    keys: Arc<SessionKeys>,
    outbox: Outbox,
    counters: Arc<Counters>,
    idle: Vec<Mutex<VecDeque<Channel>>>,
    lines: Lines,
    waiters: Mutex<Waiters>,
    cuts: Mutex<Vec<Weak<Cut>>>,
    in_use: Arc<AtomicUsize>,
    wanted: AtomicU16,
    least_idle: AtomicUsize,
    resized: Mutex<Instant>,
    began: Instant,
    /// Microseconds, the last and the least; 0 before the first was measured.
    rtt: [AtomicU32; 2],
    ended: CancellationToken,
}

/// Idle channels that a new link begins with: enough for a first visitor, next
/// to nothing for a link that nobody visits.
#[must_use]
pub fn first_idle(most: u16) -> u16 {
    most.min(1)
}

/// Visitors that found no idle channel, in their order.
#[derive(Default)]
struct Waiters {
    /// Those for whom the agent was asked to dial.
    asked: VecDeque<oneshot::Sender<Channel>>,
    /// Those who come later.
    later: VecDeque<(Message, oneshot::Sender<Channel>)>,
}

impl Waiters {
    fn len(&self) -> usize {
        self.asked.len() + self.later.len()
    }

    fn next(&mut self) -> Option<oneshot::Sender<Channel>> {
        let asked = self.asked.pop_front();
        asked.or_else(|| self.later.pop_front().map(|(_, waiter)| waiter))
    }
}

fn duration(micros: &AtomicU32) -> Option<Duration> {
    let micros = micros.load(Ordering::Relaxed);
    (micros > 0).then(|| Duration::from_micros(micros.into()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EdgeLink {
    /// A link whose handshake is done.
    #[must_use]
    pub fn new(facts: LinkFacts, keys: Arc<SessionKeys>, counters: Arc<Counters>) -> Arc<Self> {
        let idle: Vec<_> = (0..facts.workers.max(1))
            .map(|_| Mutex::default())
            .collect();
        Arc::new(Self {
            wanted: AtomicU16::new(first_idle(facts.idle_channels)),
            facts,
            keys,
            outbox: Outbox::default(),
            counters,
            lines: Lines::new(idle.len()),
            idle,
            waiters: Mutex::default(),
            cuts: Mutex::default(),
            in_use: Arc::default(),
            least_idle: AtomicUsize::new(0),
            resized: Mutex::new(Instant::now()),
            began: Instant::now(),
            rtt: [const { AtomicU32::new(0) }; 2],
            ended: CancellationToken::new(),
        })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn facts(&self) -> &LinkFacts {
        &self.facts
    }

    /// The keys from which its data channels are derived.
    #[must_use]
    pub fn keys(&self) -> &Arc<SessionKeys> {
        &self.keys
    }

    /// Messages to the agent.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Cancelled when the link ends; cancelling it ends the link.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Time since the handshake.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes in the newest round-trip time of the control channel.
    pub fn set_rtt(&self, rtt: Duration) {
        let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        let [last, least] = &self.rtt;
        last.store(micros.max(1), Ordering::Relaxed);
        let before = least.load(Ordering::Relaxed);
        if before == 0 || micros < before {
            least.store(micros.max(1), Ordering::Relaxed);
        }
    }

    /// The round-trip time measured last, to a microsecond; `None` before the
    /// first heartbeat was answered.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        duration(&self.rtt[0])
    }

    /// The least round-trip time of all: what the way itself takes.
    pub(crate) fn quickest(&self) -> Option<Duration> {
        duration(&self.rtt[1])
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Streams that are open now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Visitors that wait for a channel.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.waiters).len()
    }

    /// Channels that wait for a stream.
    #[must_use]
    pub fn idle(&self) -> usize {
        let channels: usize = self.idle.iter().map(|queue| lock(queue).len()).sum();
        channels + self.lines.idle()
    }

    /// Ends the link and every stream on it, now.
    pub fn cut(&self) {
        self.ended.cancel();
        *lock(&self.waiters) = Waiters::default();
        for cut in lock(&self.cuts).drain(..) {
            if let Some(cut) = cut.upgrade() {
                cut.cut();
            }
        }
        for queue in &self.idle {
            lock(queue).clear();
        }
        self.lines.clear();
    }

    /// Sends a message; a link whose agent does not read is cut.
    pub fn send(&self, message: Message) {
        if !self.outbox.send(message) {
            tracing::warn!(link = %self.facts.id, "agent does not read its control channel");
            self.cut();
        }
    }

    /// Takes in a data channel that the agent has dialled.
    pub fn add_channel(self: &Arc<Self>, channel: Channel) {
        if self.ended.is_cancelled() {
            return;
        }
        self.watch_over(&channel);
        self.count_channel();
        self.place(channel);
        if self.ended.is_cancelled() {
            self.cut();
        }
    }

    /// Takes in a channel that the agent has dialled for a stream of its own,
    /// and waits for its wish.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn take_forward(&self, channel: Channel) -> Result<Asked, OpenError> {
        self.watch_over(&channel);
        if self.ended.is_cancelled() {
            return Err(OpenError::Gone);
        }
        if self.in_use() >= usize::from(self.facts.max_channels) {
            return Err(OpenError::Full);
        }
        let usage = Usage::of(&self.in_use);
        self.count_channel();
        self.counters.streams_opened.fetch_add(1, Ordering::Relaxed);
        Ok(channel.next_forward(usage).await?)
    }

    pub(crate) fn count_channel(&self) {
        let opened = &self.counters.channels_opened;
        opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_line(&self) {
        let opened = &self.counters.lines_opened;
        opened.fetch_add(1, Ordering::Relaxed);
    }

    /// So that the channel ends with the link.
    pub(crate) fn watch_over(&self, channel: &Channel) {
        if let Some(cut) = channel.cut_handle() {
            let mut cuts = lock(&self.cuts);
            if cuts.len() >= cuts.capacity() {
                cuts.retain(|cut| cut.strong_count() > 0);
            }
            cuts.push(Arc::downgrade(&cut));
        }
    }

    /// Gives a free channel to the first visitor that waits, else to the pool.
    fn place(&self, mut channel: Channel) {
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

    /// Opens a stream, from the pool or on a channel that the agent dials now.
    ///
    /// # Errors
    /// See [`OpenError`]; none of them has delivered anything.
    pub async fn open(self: &Arc<Self>, start: &Start) -> Result<Stream, OpenError> {
        while let Some(channel) = self.take_idle() {
            if let Ok(stream) = self.begin(channel, start) {
                return Ok(stream);
            }
        }
        let channel = self.wait_for_channel(start).await?;
        Ok(self.begin(channel.move_here().ok_or(OpenError::NoChannel)?, start)?)
    }

    pub(crate) fn begin(
        self: &Arc<Self>,
        channel: Channel,
        start: &Start,
    ) -> Result<Stream, StreamError> {
        self.counters.streams_opened.fetch_add(1, Ordering::Relaxed);
        if channel.is_used() {
            self.counters
                .streams_recycled
                .fetch_add(1, Ordering::Relaxed);
        }
        let home = Arc::clone(self) as Arc<dyn Home>;
        channel.begin(home, start, Usage::of(&self.in_use))
    }

    /// The channel used last on this worker, else one of another worker.
    fn take_idle(&self) -> Option<Channel> {
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

    async fn wait_for_channel(&self, start: &Start) -> Result<Channel, OpenError> {
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
        let mut excess = self.idle().saturating_sub(wanted);
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

impl Home for EdgeLink {
    fn recycle(self: Arc<Self>, channel: Channel) {
        if self.ended.is_cancelled() {
            return;
        }
        if channel.is_line() {
            self.lines.give(channel);
        } else {
            self.place(channel);
        }
    }
}

impl std::fmt::Debug for EdgeLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EdgeLink({})", self.facts.id)
    }
}
