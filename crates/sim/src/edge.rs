//! An edge: admits agents, leases names, carries visitors.

mod links;
mod visits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link_proto::{
    Control, EdgeHandshake, FIRST_LEN, Holder, LeaseLimits, Leases, PskKeys, ReplayCache, Seen,
    SessionKeys, WallClock,
};
use adit_model::{Identity, LinkId, PublicKey, TunnelId, TunnelName};

use crate::clock::HostClock;
use crate::model::LeaseModel;
use crate::net::{Arrival, Conn, Net, Side};
use crate::rng::Rng;

use visits::{Channel, Visit};

/// How long names wait for their owner.
pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// How long a visitor waits for a channel and its answer.
const VISIT_TIME: Duration = Duration::from_secs(12);
const IDLE_CHANNELS: u16 = 2;
/// An idle channel that was silent for this long is pinged.
const PING_AFTER: Duration = Duration::from_secs(20);
/// An idle channel that was silent for this long is given up.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What a visitor got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its own words back, from this agent.
    Answered(PublicKey),
    /// Nothing; it was told so.
    Failed,
}

enum Peer {
    /// Nothing is proved yet.
    First {
        input: Vec<u8>,
        until: Instant,
    },
    /// Nothing will be: bytes are thrown away until then.
    Silent {
        until: Instant,
    },
    Shaking(Box<EdgeHandshake>),
    Control(LinkId),
    Channel(Box<Channel>),
}

struct Link {
    conn: Conn,
    control: Control,
    keys: Arc<SessionKeys>,
    holder: Holder,
    tunnels: BTreeMap<TunnelId, TunnelName>,
    used: BTreeSet<u64>,
}

/// A simulated edge.
pub struct Edge {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Its host's clocks.
    pub clock: HostClock,
    /// What visitors got, by their numbers; none while they wait.
    pub visits: BTreeMap<u64, Option<Outcome>>,
    /// Connections that got a byte from the edge.
    pub(crate) spoken_to: BTreeSet<Conn>,
    /// Links that ever came alive.
    pub links_ever: u64,
    psk: Arc<PskKeys>,
    rng: Rng,
    wall: WallClock,
    replay: ReplayCache,
    /// What a kill leaves behind.
    disk: Vec<Seen>,
    accepted: BTreeSet<[u8; 16]>,
    leases: Leases,
    model: LeaseModel,
    peers: BTreeMap<Conn, Peer>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    waiting: Vec<(LinkId, TunnelId, Visit)>,
    feed_at: Instant,
}

impl Edge {
    pub(crate) fn new(psk: Arc<PskKeys>, clock: HostClock, rng: Rng, now: Instant) -> Self {
        let identity = Identity::from_seed([200; 32]).expect("any seed is a key");
        Self {
            identity: Arc::new(identity),
            visits: BTreeMap::new(),
            spoken_to: BTreeSet::new(),
            links_ever: 0,
            psk,
            rng,
            wall: WallClock::new(clock.boot(now), clock.wall(now)),
            clock,
            replay: ReplayCache::new(500, 400),
            disk: Vec::new(),
            accepted: BTreeSet::new(),
            leases: new_leases(),
            model: LeaseModel::new(GRACE),
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            waiting: Vec::new(),
            feed_at: now,
        }
    }

    /// The agents that hold a name.
    #[must_use]
    pub fn holders(&self, name: &TunnelName) -> Vec<PublicKey> {
        self.leases.holders(name).map(|(h, _)| h.identity).collect()
    }

    /// Live links.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether a connection is a live link's control channel.
    #[must_use]
    pub fn is_control(&self, conn: Conn) -> bool {
        matches!(self.peers.get(&conn), Some(Peer::Control(_)))
    }

    /// Connections that it knows.
    #[must_use]
    pub fn conns(&self) -> Vec<Conn> {
        self.peers.keys().copied().collect()
    }

    /// Killed and started again at once: its memory is gone, its disk is not.
    pub(crate) fn restart(&mut self, now: Instant, net: &mut Net) {
        for conn in self.conns() {
            net.close(conn, Side::Edge, now);
        }
        let visits = self.peers.values().filter_map(|peer| match peer {
            Peer::Channel(channel) => channel.visit.as_ref().map(|v| v.number),
            _ => None,
        });
        let visits: Vec<u64> = visits.collect();
        for number in visits
            .into_iter()
            .chain(self.waiting.iter().map(|(_, _, v)| v.number))
        {
            self.visits.insert(number, Some(Outcome::Failed));
        }
        self.peers.clear();
        self.links.clear();
        self.waiting.clear();
        self.leases = new_leases();
        self.model.forget();
        self.wall = WallClock::new(self.clock.boot(now), self.clock.wall(now));
        self.replay = ReplayCache::new(500, 400);
        self.replay.restore(self.disk.iter().copied());
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        let peers = self.peers.values().filter_map(|peer| match peer {
            Peer::First { until, .. } | Peer::Silent { until } => Some(*until),
            Peer::Shaking(shaking) => Some(shaking.deadline()),
            Peer::Control(_) => None,
            Peer::Channel(channel) => Some(channel.due()),
        });
        let links = self.links.values().filter_map(|l| l.control.poll_timeout());
        let waiting = self.waiting.iter().map(|(_, _, visit)| visit.until);
        peers
            .chain(links)
            .chain(waiting)
            .chain([self.feed_at])
            .min()
    }

    pub(crate) fn on_time(&mut self, now: Instant, net: &mut Net) {
        if self.feed_at <= now {
            self.feed_at = now + Duration::from_secs(1);
            let (boot, wall) = (self.clock.boot(now), self.clock.wall(now));
            if self.wall.feed(boot, wall).is_some() {
                self.replay.reanchor(self.wall.not_before());
            }
        }
        for conn in self.conns() {
            let over = match self.peers.get(&conn) {
                Some(Peer::First { until, .. } | Peer::Silent { until }) => *until <= now,
                Some(Peer::Shaking(s)) => s.deadline() <= now,
                Some(Peer::Channel(c)) => c.due() <= now && (c.visit.is_some() || c.pinged),
                _ => false,
            };
            if over {
                self.drop_peer(conn, now, net);
            } else {
                self.ping(conn, now, net);
            }
        }
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            if let Some(link) = self.links.get_mut(&id) {
                link.control.handle_timeout(now);
            }
            self.drive(id, now, net);
        }
        self.waiting.retain(|(_, _, visit)| {
            if visit.until <= now {
                self.visits.insert(visit.number, Some(Outcome::Failed));
            }
            visit.until > now
        });
    }

    pub(crate) fn on_arrival(&mut self, conn: Conn, what: Arrival, now: Instant, net: &mut Net) {
        let until = now + Duration::from_secs(5 + self.rng.below(10));
        let input = Vec::new();
        let peer = self
            .peers
            .entry(conn)
            .or_insert(Peer::First { input, until });
        let Arrival::Bytes(bytes) = what else {
            return self.drop_peer(conn, now, net);
        };
        match peer {
            Peer::Silent { .. } => {}
            Peer::First { input, until } => {
                input.extend_from_slice(&bytes);
                if input.len() >= FIRST_LEN {
                    let (input, until) = (std::mem::take(input), *until);
                    *peer = Peer::Silent { until };
                    self.on_first(conn, &input, now, net);
                }
            }
            Peer::Shaking(shaking) => {
                if shaking.handle_input(&bytes).is_err() {
                    return self.drop_peer(conn, now, net);
                }
                self.on_shaking(conn, now, net);
            }
            Peer::Control(id) => {
                let id = *id;
                let link = self
                    .links
                    .get_mut(&id)
                    .expect("a control channel has its link");
                if link.control.handle_input(&bytes, now).is_err() {
                    return self.end_link(id, now, net);
                }
                self.drive(id, now, net);
            }
            Peer::Channel(_) => self.on_channel(conn, &bytes, now, net),
        }
    }

    fn drop_peer(&mut self, conn: Conn, now: Instant, net: &mut Net) {
        match self.peers.remove(&conn) {
            Some(Peer::Control(id)) => self.end_link(id, now, net),
            Some(Peer::Channel(channel)) => {
                if let Some(visit) = channel.visit {
                    self.visits.insert(visit.number, Some(Outcome::Failed));
                }
            }
            _ => {}
        }
        net.close(conn, Side::Edge, now);
    }

    /// # Panics
    /// When the books differ from the model.
    pub(crate) fn check(&self, names: &[TunnelName], now: Instant) {
        self.model.check(&self.leases, names, now);
        for name in names {
            for (holder, _) in self.leases.holders(name) {
                let link = self.links.get(&holder.link);
                let link = link.expect("a holder's link is live");
                assert!(link.tunnels.values().any(|held| held == name));
            }
        }
        assert!(self.replay.len() <= 500);
        for link in self.links.values() {
            assert!(
                !link.control.is_over(),
                "a link that is over is still there"
            );
        }
    }
}

fn new_leases() -> Leases {
    Leases::new(LeaseLimits {
        grace: GRACE,
        ..LeaseLimits::default()
    })
}
