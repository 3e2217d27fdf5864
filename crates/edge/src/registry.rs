//! Who is connected now: live links and the pools of their tunnels.
//!
//! Below the route table, so that a tunnel that comes or goes never rebuilds
//! it. One lock, held for look-ups and changes only, never over an await. A
//! backend that vanishes is out of its pool before the next pick.

mod inner;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use adit_link::edge::EdgeLink;
use adit_link_proto::{ClaimRefused, Holder, ID_EPOCH, LeaseLimits, Leases, Owner, SecretId};
use adit_model::{LinkId, TunnelId, TunnelName};
use adit_wire::{MAX_STAT_TUNNELS, OpenTunnel, Stats, TunnelCounters, TunnelKind};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::timeout_at;

use crate::backend::{Backend, BackendId, Tunnel, TunnelOptions};
use crate::rules::Rules;
use crate::traffic::Ledger;

/// How long a visitor waits for an agent that is on its way back.
const WAIT_TIME: Duration = Duration::from_secs(5);

/// Why a tunnel was not opened. The agent learns the first as "taken",
/// whoever holds the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelRefusal {
    /// Someone else holds the name, or it is exclusive.
    #[error("name is taken")]
    Taken,
    /// The link holds as many tunnels as it may.
    #[error("link holds too many tunnels")]
    TooMany,
    /// The owner gives the agent no more of them.
    #[error("the agent has as many tunnels as the edge's owner gives it ({0})")]
    AgentFull(usize),
    /// The tunnel's number is in use on this link.
    #[error("tunnel number is in use")]
    NumberInUse,
    /// The link has a tunnel of this name open.
    #[error("link has a tunnel of this name")]
    NameInUse,
    /// The owner allows no more agents behind the name.
    #[error("the name has as many agents as the edge's owner allows ({0})")]
    TooManyAgents(u32),
    /// The name is in use for tunnels of another kind.
    #[error("the name is in use for another kind of tunnel")]
    OtherKind,
    /// The link is not live.
    #[error("link is not live")]
    NoLink,
}

/// What a pick found.
#[derive(Clone, Debug)]
pub enum Picked {
    /// A backend that was not tried yet.
    Backend(Arc<Backend>),
    /// The name is held, but no backend is left to try.
    Empty,
    /// Nobody holds the name.
    Unknown,
}

/// The backends that share a name; never empty, all of one kind.
#[derive(Debug)]
struct Pool {
    kind: TunnelKind,
    backends: Vec<Arc<Backend>>,
    next: AtomicUsize,
}

impl Pool {
    fn new(kind: TunnelKind) -> Self {
        Self {
            kind,
            backends: Vec::new(),
            next: AtomicUsize::new(0),
        }
    }

    fn has(&self, link: LinkId) -> bool {
        let mut tunnels = self.backends.iter().filter_map(|held| held.as_tunnel());
        tunnels.any(|tunnel| tunnel.link.facts().id == link)
    }
}

/// What holds for every link and name.
#[derive(Clone, Debug)]
pub struct RegistryRules {
    /// How long a name waits for its owner after its last link dropped.
    pub grace: Duration,
    /// Most tunnels of one link.
    pub max_tunnels: usize,
    /// Names that one agent at a time may serve, whatever it asks for.
    pub exclusive: HashSet<TunnelName>,
    /// What the owner says about tunnels.
    pub(crate) rules: Arc<Rules>,
}

struct LinkEntry {
    link: Arc<EdgeLink>,
    owner: Owner,
    tunnels: HashMap<TunnelId, (TunnelName, BackendId)>,
}

struct Inner {
    leases: Leases,
    rules: RegistryRules,
    pools: HashMap<TunnelName, Pool>,
    links: HashMap<LinkId, LinkEntry>,
    sessions: HashMap<SecretId, LinkId>,
    /// The epoch of the ids in `sessions`.
    epoch: u64,
    /// What the names carry, or carried, that are held or kept.
    kinds: HashMap<TunnelName, TunnelKind>,
}

/// Live links and their tunnels.
pub struct Registry {
    inner: RwLock<Inner>,
    /// A tunnel was opened.
    opened: Notify,
    /// What tunnels have carried, those that are away included.
    ledger: Arc<Ledger>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(rules: RegistryRules) -> Arc<Self> {
        let leases = Leases::new(LeaseLimits {
            grace: rules.grace,
            ..LeaseLimits::default()
        });
        let inner = Inner {
            leases,
            rules,
            pools: HashMap::new(),
            links: HashMap::new(),
            sessions: HashMap::new(),
            epoch: 0,
            kinds: HashMap::new(),
        };
        Arc::new(Self {
            inner: RwLock::new(inner),
            opened: Notify::new(),
            ledger: Arc::default(),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a link whose agent was admitted.
    pub fn add_link(&self, link: Arc<EdgeLink>, owner: Owner, unix: u64) {
        let mut inner = self.write();
        let id = link.facts().id;
        for session in link.keys().ids_around(unix) {
            inner.sessions.insert(session, id);
        }
        inner.links.insert(
            id,
            LinkEntry {
                link,
                owner,
                tunnels: HashMap::new(),
            },
        );
    }

    /// Makes the session ids of this moment known; called more often than
    /// their epoch is long. The ids of both neighbouring epochs are known, so
    /// that once an epoch is enough.
    pub fn refresh_sessions(&self, unix: u64) {
        let mut inner = self.write();
        let epoch = unix / ID_EPOCH;
        if inner.epoch == epoch {
            return;
        }
        inner.epoch = epoch;
        let mut sessions = HashMap::with_capacity(inner.links.len() * 3);
        for (id, entry) in &inner.links {
            sessions.extend(
                entry
                    .link
                    .keys()
                    .ids_around(unix)
                    .map(|session| (session, *id)),
            );
        }
        inner.sessions = sessions;
    }

    /// The link whose data channel begins with this id.
    #[must_use]
    pub fn session(&self, id: SecretId) -> Option<Arc<EdgeLink>> {
        let inner = self.read();
        let link = inner.sessions.get(&id)?;
        inner.links.get(link).map(|entry| Arc::clone(&entry.link))
    }

    /// Removes a link and its tunnels; their names are kept for their owner
    /// for the grace time.
    pub fn remove_link(&self, id: LinkId, now: Instant) {
        let mut inner = self.write();
        inner.leases.release(id, now);
        let Some(entry) = inner.links.remove(&id) else {
            return;
        };
        inner.sessions.retain(|_, link| *link != id);
        for (name, backend) in entry.tunnels.into_values() {
            inner.remove_backend(&name, backend);
        }
        drop(inner);
        entry.link.cut();
    }

    /// Opens a tunnel for a link. Agents that the new one fences are told and
    /// lose the name at once.
    ///
    /// # Errors
    /// See [`TunnelRefusal`].
    pub fn open_tunnel(
        &self,
        id: LinkId,
        open: &OpenTunnel,
        now: Instant,
    ) -> Result<(), TunnelRefusal> {
        let mut inner = self.write();
        let entry = inner.check(id, open)?;
        let link = Arc::clone(&entry.link);
        let facts = link.facts();
        let holder = Holder {
            link: id,
            identity: facts.identity,
            instance: facts.instance,
            owner: entry.owner,
        };
        let rule = inner.rules.rules.of(&open.name, now);
        let most = rule.as_ref().map_or(0, |rule| rule.spec().max_agents);
        let agent_rule = inner.rules.rules.agent(&holder.identity);
        let agent_rule = agent_rule.map(|agent| Arc::clone(&agent.rule));
        inner.has_room(&holder, &open.name, most)?;
        // One at a time: the newest process of an identity takes over.
        let exclusive = open.exclusive || most == 1 || inner.rules.exclusive.contains(&open.name);
        let claim = inner.leases.claim(&open.name, holder, exclusive, now);
        let claim = claim.map_err(|refused| match refused {
            ClaimRefused::TooMany => TunnelRefusal::TooMany,
            ClaimRefused::OtherOwner | ClaimRefused::Exclusive => TunnelRefusal::Taken,
        })?;
        inner.kinds.insert(open.name.clone(), open.kind);
        for fenced in claim.fenced {
            inner.fence(fenced, &open.name);
        }
        let options = TunnelOptions {
            auth: open.auth.as_deref().map(Into::into),
            host_header: open.host_header.as_deref().map(Into::into),
            target: open.target.as_str().into(),
            compression: open.compression,
        };
        let tunnel = Tunnel {
            link,
            tunnel: open.tunnel,
            name: open.name.clone(),
            kind: open.kind,
            rule,
            agent_rule,
            options,
        };
        let traffic = self.ledger.open(&open.name, open.kind, holder.identity);
        let backend = Arc::new(Backend::tunnel(tunnel, traffic));
        let id_of_backend = backend.id();
        inner
            .pools
            .entry(open.name.clone())
            .or_insert_with(|| Pool::new(open.kind))
            .backends
            .push(backend);
        if let Some(entry) = inner.links.get_mut(&id) {
            entry
                .tunnels
                .insert(open.tunnel, (open.name.clone(), id_of_backend));
        }
        drop(inner);
        self.opened.notify_waiters();
        Ok(())
    }

    /// Completes when the next tunnel is opened after it was first polled.
    pub fn next_opened(&self) -> Notified<'_> {
        self.opened.notified()
    }

    /// Whether somebody serves the name now.
    #[must_use]
    pub fn has_live(&self, name: &TunnelName) -> bool {
        self.read().pools.contains_key(name)
    }

    /// Whether a tunnel of this kind and name is live, or its name is kept for
    /// it.
    #[must_use]
    pub fn keeps(&self, name: &TunnelName, kind: TunnelKind) -> bool {
        let inner = self.read();
        inner.leases.is_taken(name) && inner.kinds.get(name) == Some(&kind)
    }

    /// Whether an agent may ask for a private tunnel of this name: it is there,
    /// or kept, and belongs to the agent's own owner.
    pub(crate) fn may_reach(&self, id: LinkId, name: &TunnelName) -> bool {
        let inner = self.read();
        let Some(entry) = inner.links.get(&id) else {
            return false;
        };
        let pool = inner.pools.get(name);
        inner.leases.owner(name) == Some(entry.owner)
            && pool.is_none_or(|pool| pool.kind == TunnelKind::Private)
    }

    /// Closes one tunnel of a link; its name is free at once.
    pub fn close_tunnel(&self, id: LinkId, tunnel: TunnelId, now: Instant) -> Option<TunnelName> {
        let mut inner = self.write();
        let (name, backend) = inner.links.get_mut(&id)?.tunnels.remove(&tunnel)?;
        inner.leases.close(id, &name, now);
        inner.remove_backend(&name, backend);
        Some(name)
    }

    /// The next backend of a name and kind, round robin, that is not among
    /// `tried`.
    #[must_use]
    pub fn pick(&self, kind: TunnelKind, name: &TunnelName, tried: &[BackendId]) -> Picked {
        let inner = self.read();
        let Some(pool) = inner.pools.get(name) else {
            return if inner.leases.is_taken(name) {
                Picked::Empty
            } else {
                Picked::Unknown
            };
        };
        if pool.kind != kind {
            return Picked::Unknown;
        }
        let count = pool.backends.len();
        let first = pool.next.fetch_add(1, Ordering::Relaxed);
        (0..count)
            .map(|step| &pool.backends[first.wrapping_add(step) % count])
            .find(|backend| !tried.contains(&backend.id()))
            .map_or(Picked::Empty, |backend| {
                Picked::Backend(Arc::clone(backend))
            })
    }

    /// The next backend as [`Registry::pick`] finds it; waits for the first one,
    /// when the name is kept for an agent that lost its link.
    pub(crate) async fn next(
        &self,
        kind: TunnelKind,
        name: &TunnelName,
        tried: &[BackendId],
    ) -> Option<Arc<Backend>> {
        let until = tokio::time::Instant::now() + WAIT_TIME;
        loop {
            let mut opened = pin!(self.next_opened());
            opened.as_mut().enable();
            match self.pick(kind, name, tried) {
                Picked::Backend(backend) => return Some(backend),
                Picked::Empty if tried.is_empty() => timeout_at(until, opened).await.ok()?,
                Picked::Empty | Picked::Unknown => return None,
            }
        }
    }

    /// Whether a backend of a name is not among `tried`.
    #[must_use]
    pub fn has_other(&self, name: &TunnelName, tried: &[BackendId]) -> bool {
        let inner = self.read();
        inner.pools.get(name).is_some_and(|pool| {
            let mut backends = pool.backends.iter();
            backends.any(|backend| !tried.contains(&backend.id()))
        })
    }

    /// Whether the backend still serves.
    #[must_use]
    pub fn is_live(&self, backend: &Backend) -> bool {
        backend
            .as_tunnel()
            .is_none_or(|tunnel| !tunnel.link.ended().is_cancelled())
    }

    /// Whether its link is not among the live ones any more; when the backend
    /// is closed, that tells a lost agent from one that has closed the tunnel.
    #[must_use]
    pub(crate) fn has_lost(&self, backend: &Backend) -> bool {
        let tunnel = backend.as_tunnel();
        tunnel.is_some_and(|tunnel| !self.read().links.contains_key(&tunnel.link.facts().id))
    }

    /// All live links.
    #[must_use]
    pub fn links(&self) -> Vec<Arc<EdgeLink>> {
        self.read()
            .links
            .values()
            .map(|entry| Arc::clone(&entry.link))
            .collect()
    }

    /// All live tunnels.
    #[must_use]
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.read()
            .pools
            .values()
            .flat_map(|pool| pool.backends.iter().map(Arc::clone))
            .collect()
    }

    /// How many tunnels are live.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.read()
            .links
            .values()
            .map(|entry| entry.tunnels.len())
            .sum()
    }

    /// What tunnels have carried since the edge's start.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What the tunnels of one link have carried.
    #[must_use]
    pub fn stats_of(&self, id: LinkId) -> Stats {
        let inner = self.read();
        let Some(entry) = inner.links.get(&id) else {
            return Stats::default();
        };
        let mut stats = Stats::default();
        for (tunnel, (name, backend)) in entry.tunnels.iter().take(MAX_STAT_TUNNELS) {
            let pool = inner.pools.get(name).map_or(&[][..], |pool| &pool.backends);
            let Some(backend) = pool.iter().find(|held| held.id() == *backend) else {
                continue;
            };
            let counters = backend.traffic.counters();
            stats.total.visitors_now += counters.visitors_now;
            stats.total.visitors_ever += counters.visitors_ever;
            stats.total.bytes_in += counters.bytes_in;
            stats.total.bytes_out += counters.bytes_out;
            stats.tunnels.push(TunnelCounters {
                tunnel: *tunnel,
                counters,
            });
        }
        stats
    }

    /// Forgets names whose grace time is over.
    pub fn expire(&self, now: Instant) {
        let mut inner = self.write();
        inner.leases.expire(now);
        let Inner { leases, kinds, .. } = &mut *inner;
        kinds.retain(|name, _| leases.is_taken(name));
    }
}
