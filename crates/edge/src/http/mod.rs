//! The HTTP door.
//!
//! Purpose: everything between a visitor's socket and a backend's stream.
//! [`serve_connection`] carries one visitor connection in one task: it reads a
//! head (`server`), decides (`route`), opens a backend's stream
//! (`forward`) and pumps both directions in one poll loop (`pump`,
//! `upgrade`). The grammar is `adit_http1`'s, the choice of route
//! `adit_routing`'s.
//!
//! Invariants:
//! - A request is parsed once; routing, limits, forwarding and the log read
//!   the same value.
//! - Bodies stream: what waits for a slow side is bounded, and the other side
//!   is not read meanwhile.
//! - A visitor that is silent holds no buffer.
//! - After a framing error of either side neither connection is used again.
//! - An answer that was cut short never looks complete.
//! - What the door says by itself comes from `respond` alone.

mod access_log;
mod buffer;
mod down;
mod enter;
mod forward;
mod handover;
mod idle;
mod pump;
mod rate;
mod record;
mod respond;
mod rewrite;
mod route;
mod server;
#[cfg(test)]
mod tests;
mod timer;
mod up;
mod upgrade;
mod visitor;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use adit_link::tasks::Tasks;
use adit_link::workers::worker_index;
use adit_model::TunnelName;
use adit_routing::{RouteTable, Target, Upstream};
use adit_wire::TunnelKind;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use self::buffer::Work;
pub use self::enter::serve_connection;
pub(crate) use self::enter::{Place, answer_plain, serve_counted};
pub use self::handover::{LinkUpgrade, Upgraded};
use self::idle::{Budget, IdleStreams};
pub use self::record::Record;
use self::record::RequestId;
pub(crate) use self::respond::civil;
use crate::access::AccessLog;
use crate::announced::Balancers;
use crate::backend::{Backend, BackendId};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::registry::{Picked, Registry};

/// What the door is told by the configuration.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Bounds of heads, of requests and of answers.
    pub head: adit_http1::Limits,
    /// Time for a head, from its first byte; also for the first byte of a new
    /// connection.
    pub head_time: Duration,
    /// How long a kept-alive connection may be silent between requests.
    pub idle_time: Duration,
    /// Bytes a second that a request body must come with, and an answer be
    /// taken with, while the visitor is waited for; 0 = no limit for requests.
    pub body_rate: u32,
    /// How far a request body may lag behind its rate.
    pub body_grace: Duration,
    /// Most bytes of a request body; a route may set less or more.
    pub body_bytes: Option<u64>,
    /// How far the taking of an answer may lag behind its rate; also how long a
    /// visitor that has ended its direction is waited for.
    pub stall_time: Duration,
    /// Longest wait for an answer to begin; a route may set its own.
    pub answer_time: Option<Duration>,
    /// How long an idle stream to a backend that names no time-out is kept.
    pub backend_idle: Duration,
    /// Proxies whose forwarded headers count.
    pub trusted: Vec<IpNet>,
    /// The port where visitors find HTTPS, when plain HTTP only leads there.
    pub https: Option<u16>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            head: adit_http1::Limits::default(),
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            body_rate: 500,
            body_grace: Duration::from_secs(10),
            body_bytes: None,
            stall_time: Duration::from_secs(60),
            answer_time: None,
            backend_idle: Duration::from_secs(4),
            trusted: Vec::new(),
            https: None,
        }
    }
}

/// Where the live tunnels of a name are found.
pub trait Pools: Send + Sync {
    /// The next backend of a name that is not among `tried`.
    fn pick(&self, name: &TunnelName, tried: &[BackendId]) -> Picked;
    /// Whether a backend of a name is not among `tried`.
    fn has_other(&self, name: &TunnelName, tried: &[BackendId]) -> bool;
}

impl Pools for Registry {
    fn pick(&self, name: &TunnelName, tried: &[BackendId]) -> Picked {
        Registry::pick(self, TunnelKind::Http, name, tried)
    }

    fn has_other(&self, name: &TunnelName, tried: &[BackendId]) -> bool {
        Registry::has_other(self, name, tried)
    }
}

/// Who knows which passwords are right.
pub trait Passwords: Send + Sync {
    /// What an earlier [`Passwords::verify`] of the same three found, if it is
    /// remembered; costs next to nothing.
    fn recall(&self, hash: &str, user: &str, password: &str) -> Option<bool>;

    /// Checks a password against `user:hash`, as slowly as the hash was made
    /// to be.
    fn verify(&self, hash: &str, user: &str, password: &str) -> bool;
}

/// A request to `/_sys/sync_stats`, without query and body, that carries each
/// of the three headers once.
#[derive(Clone, Copy, Debug)]
pub struct StatsRequest<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The path.
    pub path: &'a [u8],
    /// `X-Adit-Timestamp`.
    pub timestamp: &'a [u8],
    /// `X-Adit-Nonce`.
    pub nonce: &'a [u8],
    /// `X-Adit-Signature`.
    pub signature: &'a [u8],
    /// Who asks.
    pub client: IpAddr,
}

/// Who answers signed requests for statistics.
pub trait SyncStats: Send + Sync {
    /// The sealed statistics, or `None` for a request that is not signed
    /// rightly: it is then a request like any other.
    fn answer(&self, request: &StatsRequest<'_>) -> Option<Vec<u8>>;
}

/// A route table with the backends of its upstreams.
#[derive(Debug)]
pub struct Routes {
    table: RouteTable,
    upstreams: HashMap<Upstream, Arc<Backend>>,
}

impl Routes {
    /// Takes a table; upstreams that `before` had keep their idle streams.
    #[must_use]
    pub fn new(table: RouteTable, before: Option<&Self>) -> Self {
        let mut upstreams = HashMap::new();
        for route in table.routes() {
            if let Target::Upstream(upstream) = &route.target {
                let known = before.and_then(|b| b.upstreams.get(upstream));
                let backend = known.map_or_else(
                    || Arc::new(Backend::upstream(&upstream.to_string())),
                    Arc::clone,
                );
                upstreams.insert(upstream.clone(), backend);
            }
        }
        Self { table, upstreams }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &RouteTable {
        &self.table
    }
}

/// What a door is made of.
pub struct DoorParts {
    /// The configuration's word.
    pub settings: HttpSettings,
    /// Live tunnels.
    pub pools: Arc<dyn Pools>,
    /// Limits by address.
    pub limits: Arc<Limits>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// One for each visitor's connection that may be open.
    pub places: Arc<Semaphore>,
    /// Who announces visitors.
    pub(crate) balancers: Balancers,
    /// Passwords of routes and tunnels.
    pub passwords: Arc<dyn Passwords>,
    /// The signed statistics.
    pub stats: Arc<dyn SyncStats>,
    /// Where each request leaves a line.
    pub log: Option<Arc<AccessLog>>,
    /// Owner of what goes on after a connection: channels on their way home.
    pub tasks: Tasks,
    /// Worker threads that serve.
    pub workers: usize,
}

/// What one worker keeps for its connections.
#[derive(Default)]
struct WorkerPool {
    #[expect(
        clippy::vec_box,
        reason = "handed to and fro without moving what is large"
    )]
    works: Vec<Box<Work>>,
    streams: IdleStreams,
    budget: Budget,
    /// The last trouble that an agent was told of.
    trouble: Option<(BackendId, tokio::time::Instant)>,
}

/// Most buffers that a worker keeps for later.
const KEPT_WORKS: usize = 128;

/// Visitors at a time who are told that their address may not come in; others
/// are closed without a word, because a refusal must not cost descriptors.
const TURNED_AWAY: usize = 64;

/// The HTTP door; all workers share one.
pub struct HttpDoor {
    parts: DoorParts,
    routes: ArcSwap<Routes>,
    pools: Box<[Mutex<WorkerPool>]>,
    ids: [RandomState; 2],
    next_id: AtomicU64,
    /// Password checks take a core for a while: so many at a time.
    checks: Semaphore,
    /// One for each visitor to whom a refusal is explained.
    turned_away: Semaphore,
    /// Who takes connections for links.
    link: OnceLock<Arc<dyn LinkUpgrade>>,
}

impl HttpDoor {
    /// A door.
    #[must_use]
    pub fn new(parts: DoorParts, table: RouteTable) -> Arc<Self> {
        let pools = (0..parts.workers.max(1))
            .map(|_| Mutex::default())
            .collect();
        Arc::new(Self {
            routes: ArcSwap::from_pointee(Routes::new(table, None)),
            pools,
            ids: [RandomState::new(), RandomState::new()],
            next_id: AtomicU64::new(0),
            checks: Semaphore::new(2),
            turned_away: Semaphore::new(TURNED_AWAY),
            link: OnceLock::new(),
            parts,
        })
    }

    /// Replaces the route table; a stream keeps the route it began with.
    pub fn set_table(&self, table: RouteTable) {
        let before = self.routes.load_full();
        self.routes
            .store(Arc::new(Routes::new(table, Some(&before))));
    }

    /// The current routes.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    fn pool(&self) -> MutexGuard<'_, WorkerPool> {
        let index = worker_index() % self.pools.len();
        // The pool stays usable whatever a panicking task did to it.
        self.pools[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take_work(&self) -> Box<Work> {
        let pooled = self.pool().works.pop();
        pooled.unwrap_or_else(Work::new)
    }

    fn give_work(&self, mut work: Box<Work>) {
        work.reset();
        let mut pool = self.pool();
        if pool.works.len() < KEPT_WORKS {
            pool.works.push(work);
        }
    }

    /// An id that no other request of this edge has, and that does not tell
    /// anything about theirs: two keyed hashes of a count.
    fn request_id(&self) -> RequestId {
        let count = self.next_id.fetch_add(1, Ordering::Relaxed);
        let [high, low] = &self.ids;
        RequestId::made(high.hash_one(count), low.hash_one(count))
    }
}

impl std::fmt::Debug for HttpDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDoor").finish_non_exhaustive()
    }
}
