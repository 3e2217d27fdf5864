//! The edge's side of a live link: its channels, its streams, its end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use adit_link_proto::SessionKeys;
use adit_model::{Carrier, InstanceId, LinkId, PublicKey};
use adit_wire::{Message, Start};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Home};
use crate::control::Outbox;
use crate::counters::Counters;
use crate::forward::Asked;
use crate::inner::Cut;
use crate::lines::Lines;
use crate::stream::{Stream, StreamError};
use crate::uses::{Usage, Uses};

mod pool;

use pool::Waiters;

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
    in_use: Arc<Uses>,
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
        self.in_use.now()
    }

    /// Visitors that wait for a channel.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.waiters).len()
    }

    /// Channels that wait for a stream.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle_connections() + self.lines.idle()
    }

    /// Those with a connection of their own.
    fn idle_connections(&self) -> usize {
        self.idle.iter().map(|queue| lock(queue).len()).sum()
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

    /// So that the channel ends with the link, and its carrier knows when the
    /// link has streams.
    pub(crate) fn watch_over(&self, channel: &Channel) {
        channel.inner.socket.carries(&self.in_use);
        if let Some(cut) = channel.cut_handle() {
            let mut cuts = lock(&self.cuts);
            if cuts.len() >= cuts.capacity() {
                cuts.retain(|cut| cut.strong_count() > 0);
            }
            cuts.push(Arc::downgrade(&cut));
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
}

impl Home for EdgeLink {
    fn recycle(self: Arc<Self>, channel: Channel) {
        if self.ended.is_cancelled() {
            return;
        }
        if channel.is_line() {
            self.lines.give(channel);
            // It may have ended meanwhile.
            if self.ended.is_cancelled() {
                self.lines.clear();
            }
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
