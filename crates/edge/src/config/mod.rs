//! The edge's configuration: `server.toml`, environment, options.
//!
//! [`keys`] declares every key once; [`EdgeConfig::parse`] reads them into the
//! typed values below. Invariant: what is in an [`EdgeConfig`] needs no further
//! check, files of secrets included; what it leaves open (`secret`) the edge
//! makes at its first run.

mod auth;
mod certificate;
mod door_keys;
pub mod keys;
mod limit_keys;
mod read;
mod route;
mod rule;
mod udp;
mod url;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use adit_config::{Input, LogFormat, LogLevel, Mistakes};
use adit_model::{Domain, PortRanges, Psk, PublicKey};
use ipnet::IpNet;

use crate::rules::AgentSpec;
use crate::tls::CertificateFiles;

#[cfg(test)]
mod tests;

pub use self::auth::{BasicAuth, Password};
pub use self::route::RouteConfig;
pub use self::rule::TunnelRule;
pub use self::udp::Udp;
pub use self::url::PublicUrl;

/// The complete example that `adit config example server` prints.
pub const EXAMPLE: &str = include_str!("../../../../examples/server.toml");

/// Everything an edge is told.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// `[server]`.
    pub server: Server,
    /// `[doors]`.
    pub doors: Doors,
    /// `[admission]`.
    pub admission: Admission,
    /// `[link]`.
    pub link: Link,
    /// `[limits]`.
    pub limits: Limits,
    /// `[udp]`.
    pub udp: Udp,
    /// `[log]`.
    pub log: Log,
    /// `[[route]]`, no two for the same host and path.
    pub routes: Vec<RouteConfig>,
    /// `[[tunnel]]`, no two for the same name.
    pub rules: Vec<TunnelRule>,
    /// `[[agent]]`, no two of one identity.
    pub agents: Vec<AgentSpec>,
    /// `[[certificate]]`, each usable now.
    pub certificates: Vec<CertificateFiles>,
}

/// `[server]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Agents' tunnels appear as `<name>.<domain>`.
    pub domain: Domain,
    /// `host:port` that the join string carries; `None`: the link door's own
    /// address.
    pub public: Option<String>,
    /// How visitors reach the domain; `None`: at the HTTP door itself.
    pub url: Option<PublicUrl>,
    /// Where the edge keeps its identity, secrets and agents. It may not exist
    /// yet.
    pub data: PathBuf,
    /// Worker threads; `None`: one a core.
    pub workers: Option<NonZeroUsize>,
    /// How long streams may run on after SIGTERM.
    pub drain: Duration,
}

/// `[doors]`.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Visitors, plain HTTP.
    pub http: SocketAddr,
    /// Agents.
    pub link: SocketAddr,
    /// Agents over QUIC; `None`: switched off.
    pub quic: Option<SocketAddr>,
    /// Metrics and health, always a loopback address; `None`: switched off.
    pub api: Option<SocketAddr>,
    /// TLS that is passed on by name; `None`: switched off.
    pub tls: Option<SocketAddr>,
    /// Visitors, over TLS that ends here or is passed on by name; `None`:
    /// switched off.
    pub https: Option<SocketAddr>,
    /// Whether plain HTTP only leads to HTTPS.
    pub http_to_https: bool,
    /// The ports that TCP tunnels may have; none: no TCP tunnels.
    pub tcp_ports: PortRanges,
    /// Where those ports stand.
    pub tcp_bind: IpAddr,
    /// The ports that UDP tunnels may have; none: no UDP tunnels.
    pub udp_ports: PortRanges,
    /// Where those ports stand.
    pub udp_bind: IpAddr,
    /// Load balancers whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
    /// Proxies whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[admission]`.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The shared secret; `None`: the edge makes one and keeps it in its data
    /// folder.
    pub secret: Option<Psk>,
    /// Who is asked for the PIN.
    pub pin: PinPolicy,
    /// Which identities may join.
    pub keys: KeyPolicy,
    /// The identities of [`KeyPolicy::Listed`].
    pub allowed_keys: Vec<PublicKey>,
    /// Most agents with a live link; 0 = no limit.
    pub max_agents: u32,
}

/// Who is asked for the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinPolicy {
    /// Identities that were never admitted.
    Enrol,
    /// Every identity once after each start of the edge.
    EveryStart,
    /// Nobody.
    Off,
}

/// Which identities may join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Each that passes the other checks; it is remembered.
    Enrolled,
    /// Those of [`Admission::allowed_keys`] only.
    Listed,
}

/// `[link]`.
#[derive(Clone, Debug)]
pub struct Link {
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which the other side counts as dead; above `heartbeat`.
    pub dead: Duration,
    /// How long a dropped link keeps its tunnels' names.
    pub grace: Duration,
    /// Idle channels that an agent keeps ready, when there is demand.
    pub idle_channels: u16,
    /// Most channels of one link, which is most visitors of one agent at a
    /// time.
    pub max_channels: u16,
    /// Most tunnels of one link.
    pub max_tunnels: u32,
}

/// `[limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections of all visitors; 0 = what descriptors allow.
    pub connections: u32,
    /// Open connections of one address; 0 = no limit.
    pub connections_per_address: u32,
    /// Requests of one address a second, on average; 0 = no limit.
    pub requests_per_second: u32,
    /// Requests that may come at once after a pause; 0 = one second's worth.
    pub request_burst: u32,
    /// A proxy that is trusted may do so many times more.
    pub trusted_factor: u32,
    /// Refusals within `ban_window` that lead to a ban; 0 = never.
    pub refusals_before_ban: u32,
    /// Wrong PINs within `ban_window` that lead to a ban; 0 = never.
    pub pins_before_ban: u32,
    /// Proofs of no known secret within `ban_window` that lead to a ban; 0 =
    /// never.
    pub proofs_before_ban: u32,
    /// Wrong user names or passwords within `ban_window` that lead to a ban;
    /// 0 = never.
    pub logins_before_ban: u32,
    /// TLS handshakes that were none within `ban_window` that lead to a ban; 0 =
    /// never.
    pub handshakes_before_ban: u32,
    /// Over which time failures are counted.
    pub ban_window: Duration,
    /// How long a ban lasts.
    pub ban: Duration,
    /// Most addresses that are remembered at a time.
    pub addresses: u32,
    /// Link sockets that have not proved a secret; one more pushes out the
    /// oldest.
    pub unproved: u32,
    /// Time for a request's head, from its first byte or the connection's
    /// start.
    pub head: Duration,
    /// Most bytes of a request's head.
    pub head_bytes: u32,
    /// How long a kept-alive connection may be silent between requests.
    pub idle: Duration,
    /// Most bytes of a request's body; `None` = no limit.
    pub body_bytes: Option<u64>,
    /// Least bytes a second of a body that is under way; 0 = no limit.
    pub body_rate: u32,
    /// Time for a backend to begin its answer; `None` = no limit.
    pub answer: Option<Duration>,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// Form of the lines.
    pub format: LogFormat,
    /// Least severity that is written.
    pub level: LogLevel,
    /// Whether each request and each visitor of other doors has a line.
    pub access: bool,
    /// Whether those lines show queries.
    pub queries: bool,
}

impl EdgeConfig {
    /// Reads a configuration; without a text, everything is default.
    ///
    /// # Errors
    /// Every mistake of text, environment and options at once.
    pub fn parse(input: Input<'_>) -> Result<Self, Mistakes> {
        read::edge(input)
    }

    /// What is right and still deserves a warning at start, a sentence each.
    #[must_use]
    pub fn remarks(&self) -> Vec<&'static str> {
        let admission = &self.admission;
        let unread = admission.keys == KeyPolicy::Enrolled && !admission.allowed_keys.is_empty();
        let remark = "`allowed_keys` is set and not looked at: every agent with the secret may join, \
                      unless keys = \"listed\"";
        let unused = self.doors.https.is_none() && !self.certificates.is_empty();
        let unused = unused.then_some(
            "`[[certificate]]` is set and not used: there is no HTTPS door (https under [doors])",
        );
        unread.then_some(remark).into_iter().chain(unused).collect()
    }
}
