//! Keeps as many idle data channels ready as the edge wants.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use adit_link_proto::{First, Role, SessionKeys};
use adit_model::ConnId;
use adit_wire::AuthOk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::accept::datagrams;
use crate::agent::{DialConfig, StreamHandler, unix_now};
use crate::channel::Channel;
use crate::counters::Counters;
use crate::entropy::random;
use crate::forward::{ForwardError, Place};
use crate::inner::Cut;
use crate::path::Path;
use crate::tasks::Tasks;
use crate::workers::worker_index;

/// How long a data channel may take to be set up.
const SETUP_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed dial, so that a full edge is not hammered.
const PAUSE: Duration = Duration::from_millis(500);

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
    idle: AtomicUsize,
    open: AtomicUsize,
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
            idle: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
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

    /// The edge wants this many idle channels from now on.
    pub(crate) fn want(self: &Arc<Self>, idle: u16) {
        self.wanted.store(usize::from(idle), Ordering::Relaxed);
        self.top_up();
    }

    /// A visitor waits: dial one more channel at once.
    pub(crate) fn dial_for(self: &Arc<Self>, conn: ConnId) {
        self.start_channel(Some(conn));
    }

    fn top_up(self: &Arc<Self>) {
        while self.idle.load(Ordering::Relaxed) < self.wanted.load(Ordering::Relaxed) {
            if !self.start_channel(None) {
                break;
            }
        }
    }

    fn start_channel(self: &Arc<Self>, conn: Option<ConnId>) -> bool {
        if self.stop.is_cancelled() || self.open.load(Ordering::Relaxed) >= self.max {
            return false;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        self.idle.fetch_add(1, Ordering::Relaxed);
        let dialer = Arc::clone(self);
        let task = async move {
            let failed = dialer.run_channel(conn).await;
            dialer.open.fetch_sub(1, Ordering::Relaxed);
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
        if self.workers.is_empty() {
            self.tasks.spawn_until_stopped(task);
        } else {
            let worker = self.next_worker.fetch_add(1, Ordering::Relaxed) % self.workers.len();
            let stop = self.tasks.stopping().clone();
            self.tasks.spawn_on(&self.workers[worker], async move {
                stop.run_until_cancelled(task).await;
            });
        }
        true
    }

    /// Serves one channel to its end; true when it could not be set up.
    async fn run_channel(self: &Arc<Self>, conn: Option<ConnId>) -> bool {
        let setup = tokio::time::timeout(SETUP_TIME, self.set_up(conn)).await;
        let mut channel = match setup.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::debug!(%error, "a data channel could not be set up");
                self.idle.fetch_sub(1, Ordering::Relaxed);
                return true;
            }
        };
        loop {
            let waited = self.stop.run_until_cancelled(channel.next_start()).await;
            self.idle.fetch_sub(1, Ordering::Relaxed);
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
            self.idle.fetch_add(1, Ordering::Relaxed);
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
        let setup = tokio::time::timeout(SETUP_TIME, self.connect(true));
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
        let mut channel = self.connect(false).await?;
        if let Some(conn) = conn {
            channel.announce(conn).map_err(io::Error::other)?;
        }
        Ok(channel)
    }

    async fn connect(&self, forward: bool) -> io::Result<Channel> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let ours: [u8; 16] = random()?;
        let (header, proved) = if forward {
            self.keys.forward_header(number, ours, unix_now())
        } else {
            self.keys.channel_header(number, ours, unix_now())
        };
        let id = First::parse(&header).id();
        let mut socket = self.path.open(id).await?;
        socket.write_all(&header).await?;
        socket.flush().await?;
        let mut theirs = [0; 16];
        socket.read_exact(&mut theirs).await?;
        let pair = self
            .keys
            .channel(&proved, theirs, Role::Agent)
            .map_err(io::Error::other)?;
        let datagrams = datagrams(&socket, || {
            self.keys.datagrams(&proved, theirs, Role::Agent)
        })?;
        let channel = Channel::new(socket, pair, Arc::clone(&self.counters));
        let channel = channel.with_datagrams(datagrams);
        if let Some(cut) = channel.cut_handle() {
            let mut cuts = self.cuts();
            if cuts.len() >= cuts.capacity() {
                cuts.retain(|cut| cut.strong_count() > 0);
            }
            cuts.push(Arc::downgrade(&cut));
        }
        Ok(channel)
    }
}
