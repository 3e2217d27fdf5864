//! The edge's lines: channels on the trunks of a near and busy link.
//!
//! Each worker has a trunk of its own, so that a line's bytes never cross
//! threads. The edge opens lines by itself, without asking the agent and
//! without waiting.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_link_proto::{ProvedChannel, Role};
use adit_model::Carrier;
use adit_wire::Start;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::carrier::Socket;
use crate::channel::Channel;
use crate::edge::{EdgeLink, OpenError};
use crate::entropy::random;
use crate::stream::Stream;
use crate::trunk::{Driver, Trunk};
use crate::workers::worker_index;

/// A link is near when its quickest answer took no longer. On a longer way a
/// lost segment, which holds up all lines of its trunk, costs more than the
/// kernel's passes.
const NEAR: Duration = Duration::from_millis(2);
/// Streams at a time from which on trunks pay.
const BUSY: usize = 16;
/// An idle line that was not used for this long is closed.
const UNUSED: Duration = Duration::from_secs(20);

/// The lines of a link, by worker.
pub(crate) struct Lines {
    workers: Vec<Mutex<OfWorker>>,
    asked: AtomicBool,
}

#[derive(Default)]
struct OfWorker {
    trunk: Option<Arc<Trunk>>,
    /// The one used last is at the end.
    idle: Vec<(Channel, Instant)>,
}

impl OfWorker {
    fn trunk(&self) -> Option<&Arc<Trunk>> {
        self.trunk.as_ref().filter(|trunk| !trunk.is_over())
    }
}

fn lock(of_worker: &Mutex<OfWorker>) -> MutexGuard<'_, OfWorker> {
    of_worker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            asked: AtomicBool::new(false),
        }
    }

    fn here(&self) -> MutexGuard<'_, OfWorker> {
        lock(&self.workers[worker_index() % self.workers.len()])
    }

    /// How many trunks the agent is asked to keep.
    pub(crate) fn wanted(&self) -> u16 {
        let all = u16::try_from(self.workers.len()).unwrap_or(u16::MAX);
        all * u16::from(self.asked.load(Ordering::Relaxed))
    }

    /// The calling worker's line that was used last, else a new one; and
    /// whether it is new.
    fn take(&self) -> Option<(Channel, bool)> {
        let mut here = self.here();
        let now = Instant::now();
        while let Some((mut channel, _)) = here.idle.pop() {
            if channel.is_alive(now) {
                return Some((channel, false));
            }
        }
        let channel = here.trunk()?.open()?;
        Some((channel, true))
    }

    /// Keeps a line for the next stream of this worker.
    pub(crate) fn give(&self, channel: Channel) {
        self.here().idle.push((channel, Instant::now()));
    }

    /// Closes what was not used for a while, and what is of no more use: nobody
    /// fills lines that carry nothing.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut here = self.here();
        here.idle.retain_mut(|(channel, since)| {
            now.duration_since(*since) < UNUSED && channel.is_alive(now)
        });
    }

    /// Idle lines.
    pub(crate) fn idle(&self) -> usize {
        self.workers.iter().map(|one| lock(one).idle.len()).sum()
    }

    /// The link is over.
    pub(crate) fn clear(&self) {
        for one in &self.workers {
            *lock(one) = OfWorker::default();
        }
    }

    /// Gives the trunk to a worker that has none; which.
    fn place(&self, trunk: &Arc<Trunk>) -> Option<usize> {
        let mut workers = self.workers.iter().enumerate();
        workers.find_map(|(index, one)| {
            let mut one = lock(one);
            if one.trunk().is_some() {
                return None;
            }
            one.trunk = Some(Arc::clone(trunk));
            Some(index)
        })
    }
}

/// Carries a trunk's lines until its connection or its link ends.
type RunTrunk = Pin<Box<dyn Future<Output = ()> + Send>>;

impl EdgeLink {
    /// As [`EdgeLink::open`], for a stream of small requests and answers that
    /// follow each other: on a line where the link has some.
    ///
    /// # Errors
    /// See [`OpenError`]; none of them has delivered anything.
    pub async fn open_small(self: &Arc<Self>, start: &Start) -> Result<Stream, OpenError> {
        if self.in_use() >= usize::from(self.facts().max_channels) {
            return Err(OpenError::Full);
        }
        if let Some((channel, new)) = self.lines().take() {
            if new {
                self.watch_over(&channel);
                self.count_line();
            }
            // The link may have been cut before the line was watched over.
            if self.ended().is_cancelled() {
                return Err(OpenError::Gone);
            }
            if let Ok(stream) = self.begin(channel, start) {
                return Ok(stream);
            }
        }
        self.ask_where_it_pays();
        self.open(start).await
    }

    /// Whether the calling worker has a trunk with room; asks for trunks where
    /// there is none and one would pay.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        let has = |here: &OfWorker| here.trunk().is_some_and(|trunk| trunk.has_room());
        let has_lines = has(&self.lines().here());
        if !has_lines {
            self.ask_where_it_pays();
        }
        has_lines
    }

    fn ask_where_it_pays(&self) {
        if self.in_use() >= BUSY && self.is_near() {
            self.ask_for_trunks();
        }
    }

    /// Asks the agent for a trunk for each worker.
    pub fn ask_for_trunks(&self) {
        if !self.lines().asked.swap(true, Ordering::Relaxed) {
            self.wish();
        }
    }

    /// Whether its bytes go by TCP, over a short way. None is shorter than
    /// within this machine, however late a busy one answers.
    fn is_near(&self) -> bool {
        let here = self.facts().peer.ip().to_canonical().is_loopback();
        let quick = || self.quickest().is_some_and(|rtt| rtt <= NEAR);
        self.facts().carrier == Carrier::Tcp && (here || quick())
    }

    /// Takes in a trunk that the agent has dialled: the worker that its task is
    /// to run on, and the task. `None` when every worker has one.
    ///
    /// # Errors
    /// The connection's or the random source's, or the keys are gone.
    pub async fn take_trunk(
        self: &Arc<Self>,
        socket: Socket,
        proved: &ProvedChannel,
    ) -> io::Result<Option<(usize, RunTrunk)>> {
        let Socket::Tcp(mut socket) = socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let ours: [u8; 16] = random()?;
        let keys = self.keys().trunk(proved, ours);
        let keys = keys.map_err(io::Error::other)?;
        socket.write_all(&ours).await?;
        let most = usize::from(self.facts().max_channels);
        let trunk = Trunk::new((keys, Role::Edge), most, self.counters());
        let Some(worker) = self.lines().place(&trunk) else {
            return Ok(None);
        };
        if self.ended().is_cancelled() {
            self.lines().clear();
            return Ok(None);
        }
        let ended = self.ended().clone().cancelled_owned();
        let run = async move {
            let here = socket.into_std().and_then(TcpStream::from_std);
            let ran = match here {
                Ok(socket) => Driver::new(trunk, socket).run(drop, ended).await,
                Err(error) => {
                    trunk.end();
                    Err(error)
                }
            };
            tracing::debug!(?ran, "a trunk has ended");
        };
        Ok(Some((worker, Box::pin(run))))
    }
}
