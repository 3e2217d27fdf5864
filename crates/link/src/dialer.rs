//! Keeps as many idle data channels ready as the edge wants.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use adit_link_proto::{First, ProvedChannel, Purpose, Role, SessionKeys};
use adit_model::ConnId;
use adit_wire::AuthOk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::accept::datagrams;
use crate::agent::{DialConfig, StreamHandler, unix_now};
use crate::carrier::Socket;
use crate::channel::Channel;
use crate::counters::Counters;
use crate::entropy::random;
use crate::forward::{ForwardError, Place};
use crate::inner::Cut;
use crate::path::Path;
use crate::tasks::Tasks;
use crate::trunk::{Driver, Trunk};
use crate::uses::{Usage, Uses};
use crate::workers::worker_index;

/// How long a data channel may take to be set up.
const SETUP_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed dial, so that a full edge is not hammered.
const PAUSE: Duration = Duration::from_millis(500);
/// Most lines of all trunks together, above what an honest edge opens.
const MOST_LINES: usize = 16_384;
/// Most trunks, whatever the edge wants.
const MOST_TRUNKS: usize = 64;

/// Dials data channels for one link.
pub(crate) struct Dialer {
    path: Path,
    keys: Arc<SessionKeys>,
    handler: Arc<dyn StreamHandler>,
    tasks: Tasks,
    workers: Vec<tokio::runtime::Handle>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    max: usize,
    next_number: AtomicU64,
    next_worker: AtomicUsize,
    wanted: AtomicUsize,
    /// Channels that wait for a stream, those being dialled included.
    idle: Arc<Uses>,
    open: AtomicUsize,
    trunks_wanted: AtomicUsize,
    /// Those being dialled included.
    trunks: Arc<Uses>,
    /// Lines that are served.
    lines: Arc<Uses>,
    cuts: Mutex<Vec<Weak<Cut>>>,
}

impl Dialer {
    pub(crate) fn new(
        config: &DialConfig,
        path: Path,
        keys: Arc<SessionKeys>,
        auth: &AuthOk,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            keys,
            handler: Arc::clone(&config.handler),
            tasks: config.tasks.clone(),
            workers: config.workers.clone(),
            counters: Arc::clone(&config.counters),
            stop,
            max: usize::from(auth.max_channels),
            next_number: AtomicU64::new(0),
            next_worker: AtomicUsize::new(worker_index()),
            wanted: AtomicUsize::new(0),
            idle: Arc::default(),
            open: AtomicUsize::new(0),
            trunks_wanted: AtomicUsize::new(0),
            trunks: Arc::default(),
            lines: Arc::default(),
            cuts: Mutex::default(),
        })
    }

    /// Ends every stream of the link. The edge fell silent: it cannot say that
    /// it has ended them, and where something in between still acknowledges
    /// bytes the system notices nothing either.
    pub(crate) fn cut(&self) {
        let cuts = std::mem::take(&mut *self.cuts());
        for cut in cuts.iter().filter_map(Weak::upgrade) {
            cut.cut();
        }
    }

    fn cuts(&self) -> MutexGuard<'_, Vec<Weak<Cut>>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The edge wants this many idle channels and trunks from now on.
    pub(crate) fn want(self: &Arc<Self>, idle: u16, trunks: u16) {
        self.wanted.store(usize::from(idle), Ordering::Relaxed);
        let trunks = usize::from(trunks).min(MOST_TRUNKS);
        self.trunks_wanted.store(trunks, Ordering::Relaxed);
        self.top_up();
        self.top_up_trunks();
    }

    /// A visitor waits: dial one more channel at once.
    pub(crate) fn dial_for(self: &Arc<Self>, conn: ConnId) {
        self.start_channel(Some(conn));
    }

    fn top_up(self: &Arc<Self>) {
        let wanted = self.wanted.load(Ordering::Relaxed);
        // No more turns than that: a worker that has ended drops each at once.
        for _ in 0..wanted {
            if self.idle.now() >= wanted || !self.start_channel(None) {
                break;
            }
        }
    }

    fn start_channel(self: &Arc<Self>, conn: Option<ConnId>) -> bool {
        if self.stop.is_cancelled() || self.open.load(Ordering::Relaxed) >= self.max {
            return false;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let dialer = Arc::clone(self);
        // Counted until they are dropped: a handler may panic.
        let (idle, place) = (Usage::of(&self.idle), Place(Arc::clone(self)));
        let task = async move {
            let failed = dialer.run_channel(conn, idle).await;
            drop(place);
            if failed
                && dialer
                    .stop
                    .run_until_cancelled(tokio::time::sleep(PAUSE))
                    .await
                    .is_some()
            {
                dialer.top_up();
            }
        };
        self.spawn(task);
        true
    }

    /// Starts a task on the next worker, or on that of its carrier.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if self.workers.is_empty() {
            return self.tasks.spawn_until_stopped(task);
        }
        let next = || self.next_worker.fetch_add(1, Ordering::Relaxed);
        let worker = self.path.worker().unwrap_or_else(next) % self.workers.len();
        let stop = self.tasks.stopping().clone();
        self.tasks.spawn_on(&self.workers[worker], async move {
            stop.run_until_cancelled(task).await;
        });
    }

    fn top_up_trunks(self: &Arc<Self>) {
        let wanted = self.trunks_wanted.load(Ordering::Relaxed);
        for _ in 0..wanted {
            if self.stop.is_cancelled() || self.trunks.now() >= wanted {
                break;
            }
            let (dialer, place) = (Arc::clone(self), Usage::of(&self.trunks));
            self.spawn(async move {
                let ran = dialer.run_trunk().await;
                tracing::debug!(?ran, "a trunk has ended");
                drop(place);
                let pause = tokio::time::sleep(PAUSE);
                if dialer.stop.run_until_cancelled(pause).await.is_some() {
                    dialer.top_up_trunks();
                }
            });
        }
    }

    /// Dials a trunk and serves its lines to its end.
    async fn run_trunk(self: &Arc<Self>) -> io::Result<()> {
        let (socket, proved, theirs) =
            tokio::time::timeout(SETUP_TIME, self.greet(Purpose::Trunk)).await??;
        let keys = self.keys.trunk(&proved, theirs);
        let keys = keys.map_err(io::Error::other)?;
        let Socket::Tcp(socket) = socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let counters = Arc::clone(&self.counters);
        let trunk = Trunk::new((keys, Role::Agent), self.max, counters);
        let serve = |line| {
            let counted = Usage::of(&self.lines);
            if self.lines.now() > MOST_LINES {
                return;
            }
            let dialer = Arc::clone(self);
            let serve = async move {
                dialer.serve_line(line).await;
                drop(counted);
            };
            self.tasks.spawn_until_stopped(serve);
        };
        let leave = self.stop.cancelled();
        Driver::new(trunk, socket).run(serve, leave).await
    }

    /// Serves one stream after the other, until the edge closes the line.
    async fn serve_line(&self, mut line: Channel) {
        self.watch_over(&line);
        loop {
            let waited = self.stop.run_until_cancelled(line.next_start()).await;
            let Some(Ok(incoming)) = waited else { return };
            match self.handler.handle(incoming).await {
                Some(back) if !self.stop.is_cancelled() => line = back,
                _ => return,
            }
        }
    }

    /// Serves one channel to its end; true when it could not be set up.
    async fn run_channel(self: &Arc<Self>, conn: Option<ConnId>, mut idle: Usage) -> bool {
        let setup = tokio::time::timeout(SETUP_TIME, self.set_up(conn)).await;
        let mut channel = match setup.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::debug!(%error, "a data channel could not be set up");
                return true;
            }
        };
        loop {
            let waited = self.stop.run_until_cancelled(channel.next_start()).await;
            drop(idle);
            let Some(Ok(incoming)) = waited else {
                return false;
            };
            self.top_up();
            match self.handler.handle(incoming).await {
                Some(back) if !self.stop.is_cancelled() => channel = back,
                _ => return false,
            }
            // However many wait: the edge may begin a stream on this one in
            // the same moment, so that closing what is too much is its part.
            idle = Usage::of(&self.idle);
        }
    }

    /// Dials a channel for a stream that this agent begins.
    pub(crate) async fn dial_forward(self: &Arc<Self>) -> Result<(Channel, Place), ForwardError> {
        if self.stop.is_cancelled() {
            return Err(ForwardError::Gone);
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.leave();
            return Err(ForwardError::Full);
        }
        let place = Place(Arc::clone(self));
        let setup = tokio::time::timeout(SETUP_TIME, self.connect(Purpose::Forward));
        match self.stop.run_until_cancelled(setup).await {
            None => Err(ForwardError::Gone),
            Some(Err(_)) => Err(ForwardError::Io(io::ErrorKind::TimedOut.into())),
            Some(Ok(channel)) => Ok((channel?, place)),
        }
    }

    /// A channel is over.
    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn set_up(&self, conn: Option<ConnId>) -> io::Result<Channel> {
        let mut channel = self.connect(Purpose::Streams).await?;
        if let Some(conn) = conn {
            channel.announce(conn).map_err(io::Error::other)?;
        }
        Ok(channel)
    }

    /// One more connection with the edge, and what its keys are drawn from.
    async fn greet(&self, purpose: Purpose) -> io::Result<(Socket, ProvedChannel, [u8; 16])> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (keys, now) = (&self.keys, unix_now());
        let (header, proved) = keys.channel_header(number, random()?, now, purpose);
        let id = First::parse(&header).id();
        let mut socket = self.path.open(id).await?;
        socket.write_all(&header).await?;
        socket.flush().await?;
        let mut theirs = [0; 16];
        socket.read_exact(&mut theirs).await?;
        Ok((socket, proved, theirs))
    }

    async fn connect(&self, purpose: Purpose) -> io::Result<Channel> {
        let (socket, proved, theirs) = self.greet(purpose).await?;
        let pair = self
            .keys
            .channel(&proved, theirs, Role::Agent)
            .map_err(io::Error::other)?;
        let datagrams = datagrams(&socket, || {
            self.keys.datagrams(&proved, theirs, Role::Agent)
        })?;
        let channel = Channel::new(socket, pair, Arc::clone(&self.counters));
        let channel = channel.with_datagrams(datagrams);
        self.watch_over(&channel);
        Ok(channel)
    }

    /// So that the channel ends when the edge falls silent.
    fn watch_over(&self, channel: &Channel) {
        if let Some(cut) = channel.cut_handle() {
            let mut cuts = self.cuts();
            if cuts.len() >= cuts.capacity() {
                cuts.retain(|cut| cut.strong_count() > 0);
            }
            cuts.push(Arc::downgrade(&cut));
        }
    }
}
