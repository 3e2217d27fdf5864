//! What an agent says about itself: the shape of the answer.
//!
//! Described for users in `docs/status.md`. A field that the other side does
//! not know is skipped, and one that it does not send has its default.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_model::PublicKey;
use adit_wire::TunnelKind;
use serde::{Deserialize, Serialize};

use crate::events::Teller;
use crate::forwards::Facts;
use crate::standing::{LiveLink, Place, Stand, Trouble};
use crate::tunnels::{Tunnel, Tunnels};

/// A running agent at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentReport {
    /// Its identity.
    pub agent: String,
    /// Its process.
    pub process: u32,
    /// Its version.
    pub version: String,
    /// The moment, unix seconds.
    pub time: u64,
    /// Time since its start.
    pub uptime_seconds: u64,
    /// It waits for its open streams to end.
    pub stopping: bool,
    /// The link that serves; `None`: there is none now.
    pub link: Option<EdgeReport>,
    /// Why there is none, where that is known.
    pub trouble: Option<TroubleReport>,
    /// Its tunnels, as they were given.
    pub tunnels: Vec<OwnTunnel>,
    /// Its local ports to private tunnels of other agents.
    pub forwards: Vec<LocalPort>,
}

/// The edge that a link leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeReport {
    /// The key that it proved.
    pub edge: String,
    /// The address that answered.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When the link began, unix seconds.
    pub since: u64,
    /// Round-trip time in microseconds; none before the first heartbeat.
    pub rtt_us: Option<u64>,
    /// What carries it.
    pub carrier: String,
}

/// One of the agent's tunnels. Its counters begin with the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnTunnel {
    /// Its name.
    pub name: String,
    /// `http`, `tcp`, `udp`, `tls` or `private`.
    pub kind: String,
    /// `live`, `waiting` for the edge, or `refused` by it.
    pub state: String,
    /// Where visitors find it.
    pub url: Option<String>,
    /// Where it leads.
    pub target: String,
    /// Streams now open. One of HTTP carries request after request, also of
    /// several visitors, and waits a while for the next.
    pub streams: u64,
    /// Streams ever.
    pub streams_ever: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
    /// What went wrong last, since it is live.
    pub trouble: Option<TroubleReport>,
}

/// A local port to another agent's private tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalPort {
    /// The tunnel's name.
    pub name: String,
    /// Whose it is.
    pub peer: String,
    /// Where it is reached on this machine.
    pub listen: String,
    /// Connections now open.
    pub connections: u64,
    /// What went wrong last, since there is a link.
    pub trouble: Option<TroubleReport>,
}

/// Something that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TroubleReport {
    /// Its stable code, as `ADIT-4101`.
    pub code: Option<String>,
    /// What and why.
    pub text: String,
    /// When, unix seconds.
    pub since: u64,
}

/// What a report is made from.
pub(crate) struct Sources {
    pub(crate) identity: PublicKey,
    pub(crate) teller: Arc<Teller>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) forwards: Vec<Facts>,
    pub(crate) started: Instant,
}

impl Sources {
    pub(crate) fn report(&self) -> AgentReport {
        let now = Now::new();
        let state = self.teller.standing.state();
        let tunnel = |one: &Arc<Tunnel>| own_tunnel(one, state.of(&one.name), now);
        let forward = |one: &Facts| LocalPort {
            name: one.name.to_string(),
            peer: one.peer.to_string(),
            listen: one.address.to_string(),
            connections: one.open() as u64,
            trouble: state.of(&one.name).trouble.map(|what| now.trouble(&what)),
        };
        AgentReport {
            agent: self.identity.to_string(),
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: now.unix.as_secs(),
            uptime_seconds: self.started.elapsed().as_secs(),
            stopping: state.stopping,
            link: state.link.as_ref().map(|link| now.link(link)),
            trouble: state.trouble.as_ref().map(|what| now.trouble(what)),
            tunnels: self.tunnels.all().iter().map(tunnel).collect(),
            forwards: self.forwards.iter().map(forward).collect(),
        }
    }
}

fn own_tunnel(tunnel: &Tunnel, place: Place, now: Now) -> OwnTunnel {
    let counters = tunnel.counters();
    OwnTunnel {
        name: tunnel.name.to_string(),
        kind: word(tunnel.kind).to_owned(),
        state: match place.stand {
            Stand::Waiting => "waiting",
            Stand::Live => "live",
            Stand::Refused => "refused",
        }
        .to_owned(),
        url: place.url,
        target: tunnel.target.clone(),
        streams: counters.visitors_now.into(),
        streams_ever: counters.visitors_ever,
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
        trouble: place.trouble.map(|what| now.trouble(&what)),
    }
}

fn word(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Http => "http",
        TunnelKind::Tcp => "tcp",
        TunnelKind::Tls => "tls",
        TunnelKind::Udp => "udp",
        TunnelKind::Private => "private",
        TunnelKind::Other(_) => "other",
    }
}

/// The moment, by both clocks.
#[derive(Clone, Copy)]
struct Now {
    unix: Duration,
    at: Instant,
}

impl Now {
    fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            unix: unix.unwrap_or_default(),
            at: Instant::now(),
        }
    }

    fn unix_of(self, then: Instant) -> u64 {
        let age = self.at.saturating_duration_since(then);
        self.unix.saturating_sub(age).as_secs()
    }

    fn link(self, link: &LiveLink) -> EdgeReport {
        let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        EdgeReport {
            edge: link.edge.to_string(),
            address: link.peer.to_string(),
            version: link.version.clone(),
            since: self.unix_of(link.since),
            rtt_us: link.rtt.map(micros),
            carrier: link.carrier.to_string(),
        }
    }

    fn trouble(self, trouble: &Trouble) -> TroubleReport {
        TroubleReport {
            code: trouble.code.map(|code| code.to_string()),
            text: trouble.text.clone(),
            since: self.unix_of(trouble.since),
        }
    }
}
