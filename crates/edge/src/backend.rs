//! Backends: one live place that can carry a visitor's stream for a service.
//!
//! A door cannot tell an agent's tunnel from an upstream of the edge's own
//! network: both open a [`Stream`].

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_link::edge::{EdgeLink, OpenError};
use adit_link::{Datagrams, Stream};
use adit_model::{ConnId, PublicKey, TunnelId, TunnelName};
use adit_wire::{Compression, Message, Start, TunnelKind, TunnelState, TunnelStatus};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rules::Rule;
pub use crate::traffic::Traffic;

/// How long an upstream may take to answer a connect.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long an agent may take to reach its target when no other could be tried:
/// long enough for a lost SYN or two to be sent again (RFC 6298 §2).
const LONG_PATIENCE_MS: u16 = 10_000;

static NEXT_BACKEND: AtomicU64 = AtomicU64::new(1);
static NEXT_CONN: AtomicU64 = AtomicU64::new(1);

/// Tells backends apart, for pools of idle streams and for logs; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(u64);

impl BackendId {
    fn next() -> Self {
        Self(NEXT_BACKEND.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a backend gave no stream. None of these has delivered anything.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The agent gave none.
    #[error(transparent)]
    Tunnel(#[from] OpenError),
    /// The upstream's host has no address.
    #[error("upstream {0} cannot be resolved")]
    Unresolved(String),
    /// The upstream takes no connection.
    #[error("upstream {0} cannot be reached: {1}")]
    Unreachable(String, std::io::Error),
    /// What it carries are bytes.
    #[error("backend carries no datagrams")]
    NoDatagrams,
}

/// What an agent asked for when it opened its tunnel.
#[derive(Clone, Debug, Default)]
pub struct TunnelOptions {
    /// `user:PHC hash` that visitors must prove.
    pub auth: Option<Arc<str>>,
    /// The `Host` header that the service wants to see.
    pub host_header: Option<Arc<str>>,
    /// What the agent calls its target, for people.
    pub target: Arc<str>,
    /// Whether frames of its streams may be compressed.
    pub compression: Compression,
}

/// An agent's tunnel as a backend.
pub struct Tunnel {
    /// Its link.
    pub link: Arc<EdgeLink>,
    /// Its number on the link.
    pub tunnel: TunnelId,
    /// The name that it serves.
    pub name: TunnelName,
    /// What it carries.
    pub kind: TunnelKind,
    /// What the owner says about the name.
    pub(crate) rule: Option<Arc<Rule>>,
    /// What the owner says about its agent.
    pub(crate) agent_rule: Option<Arc<Rule>>,
    /// What the agent asked for.
    pub options: TunnelOptions,
}

impl Tunnel {
    /// How a stream of it begins. Where no other backend could be tried, there
    /// is more patience.
    fn start(&self, visitor: SocketAddr, alone: bool) -> Start {
        Start {
            tunnel: self.tunnel,
            conn: ConnId(NEXT_CONN.fetch_add(1, Ordering::Relaxed)),
            visitor,
            patience_ms: if alone {
                LONG_PATIENCE_MS
            } else {
                Start::PATIENCE_MS
            },
            door: None,
            idle_ms: None,
            forwarder: None,
        }
    }
}

/// One backend.
pub struct Backend {
    id: BackendId,
    label: Arc<str>,
    kind: Kind,
    closed: CancellationToken,
    /// Visitor streams and bytes, for statistics.
    pub traffic: Arc<Traffic>,
}

enum Kind {
    Tunnel(Tunnel),
    Upstream(Arc<str>),
}

/// Counts a visitor or request of a backend while it is under way.
pub(crate) struct Serving<'b>(&'b Backend);

impl<'b> Serving<'b> {
    pub(crate) fn begin(backend: &'b Backend) -> Self {
        backend.traffic.active.fetch_add(1, Ordering::Relaxed);
        backend.traffic.requests.fetch_add(1, Ordering::Relaxed);
        Self(backend)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.traffic.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backend {
    /// A tunnel, and where it is counted.
    #[must_use]
    pub fn tunnel(tunnel: Tunnel, traffic: Arc<Traffic>) -> Self {
        let label = format!("{}@{}", tunnel.name, short_key(&tunnel.link)).into();
        Self {
            id: BackendId::next(),
            label,
            kind: Kind::Tunnel(tunnel),
            closed: CancellationToken::new(),
            traffic,
        }
    }

    /// A TCP address `host:port` that the edge dials itself.
    #[must_use]
    pub fn upstream(address: &str) -> Self {
        let address: Arc<str> = address.into();
        let label = Arc::clone(&address);
        Self {
            id: BackendId::next(),
            label,
            kind: Kind::Upstream(address),
            closed: CancellationToken::new(),
            traffic: Arc::default(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// It is out of its pool: nothing new begins on it.
    pub fn close(&self) {
        self.traffic.leave();
        self.closed.cancel();
    }

    /// Whether it is out of its pool. Its idle streams are of no more use, and
    /// an agent that wants to stop waits for them.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Cancelled when it is out of its pool.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// What the access log calls it.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The tunnel behind it, if it is one.
    #[must_use]
    pub fn as_tunnel(&self) -> Option<&Tunnel> {
        match &self.kind {
            Kind::Tunnel(tunnel) => Some(tunnel),
            Kind::Upstream(_) => None,
        }
    }

    /// What the owner says about its name.
    pub(crate) fn rule(&self) -> Option<&Arc<Rule>> {
        self.as_tunnel()?.rule.as_ref()
    }

    /// What the owner says about its agent.
    pub(crate) fn agent_rule(&self) -> Option<&Arc<Rule>> {
        self.as_tunnel()?.agent_rule.as_ref()
    }

    /// The authority (`host:port`) that the service itself knows, where the
    /// edge knows it: redirects to it are rewritten.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        match &self.kind {
            Kind::Tunnel(tunnel) => tunnel.options.host_header.as_deref(),
            Kind::Upstream(address) => Some(address),
        }
    }

    /// Opens a stream for a visitor of `door`, where that counts; `alone`: there
    /// is no other backend to try, so that waiting is better than giving up.
    ///
    /// # Errors
    /// See [`BackendError`].
    pub async fn open(
        &self,
        visitor: SocketAddr,
        door: Option<SocketAddr>,
        alone: bool,
    ) -> Result<Stream, BackendError> {
        match &self.kind {
            Kind::Tunnel(tunnel) => {
                let start = Start {
                    door,
                    ..tunnel.start(visitor, alone)
                };
                let mut stream = tunnel.link.open(&start).await?;
                stream.compress(tunnel.options.compression);
                Ok(stream)
            }
            Kind::Upstream(address) => connect(address).await,
        }
    }

    /// Opens a stream for a request of `now`; `alone` as for [`Backend::open`].
    ///
    /// # Errors
    /// See [`BackendError`].
    pub(crate) async fn open_request(
        &self,
        visitor: SocketAddr,
        alone: bool,
        now: Instant,
    ) -> Result<Stream, BackendError> {
        let tunnel = match &self.kind {
            Kind::Tunnel(tunnel) if self.traffic.suits_line(false, now) => tunnel,
            _ => return self.open(visitor, None, alone).await,
        };
        let start = tunnel.start(visitor, alone);
        let mut stream = tunnel.link.open_small(&start).await?;
        stream.compress(tunnel.options.compression);
        Ok(stream)
    }

    /// Whether a request of `now` would better take another stream: a line where
    /// it suits one, a connection of its own where it does not.
    pub(crate) fn misplaced(&self, stream: &Stream, now: Instant) -> bool {
        let on_line = stream.is_line();
        let has_lines = |tunnel: &Tunnel| tunnel.link.has_lines();
        match self.traffic.suits_line(on_line, now) {
            true => !on_line && self.as_tunnel().is_some_and(has_lines),
            false => on_line,
        }
    }

    /// Opens a flow of datagrams for a visitor of `door`, over after `idle_ms`
    /// without one; `alone` as for [`Backend::open`].
    ///
    /// # Errors
    /// See [`BackendError`].
    pub(crate) async fn open_flow(
        &self,
        visitor: SocketAddr,
        door: SocketAddr,
        alone: bool,
        idle_ms: NonZeroU32,
    ) -> Result<Datagrams, BackendError> {
        let stream = match &self.kind {
            Kind::Tunnel(tunnel) => {
                let start = Start {
                    door: Some(door),
                    idle_ms: Some(idle_ms),
                    ..tunnel.start(visitor, alone)
                };
                tunnel.link.open(&start).await?
            }
            Kind::Upstream(_) => return Err(BackendError::NoDatagrams),
        };
        Datagrams::of(stream).ok_or(BackendError::NoDatagrams)
    }

    /// Opens a stream of a private tunnel for another agent.
    ///
    /// # Errors
    /// See [`BackendError`].
    pub(crate) async fn open_for(
        &self,
        address: SocketAddr,
        forwarder: PublicKey,
        alone: bool,
    ) -> Result<Stream, BackendError> {
        let Kind::Tunnel(tunnel) = &self.kind else {
            return Err(OpenError::Gone.into());
        };
        let start = Start {
            forwarder: Some(forwarder),
            ..tunnel.start(address, alone)
        };
        Ok(tunnel.link.open(&start).await?)
    }

    /// Tells the agent's terminal what keeps its visitors from the service.
    pub fn report_trouble(&self, code: u16, text: &str) {
        if let Kind::Tunnel(tunnel) = &self.kind {
            tunnel.link.send(Message::TunnelStatus(TunnelStatus {
                tunnel: tunnel.tunnel,
                state: TunnelState::Trouble,
                url: None,
                code,
                text: format!("{}: {text}", tunnel.options.target),
            }));
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.label)
    }
}

/// Enough of an identity to tell agents apart in a log.
fn short_key(link: &EdgeLink) -> String {
    let key = link.facts().identity.to_string();
    key.trim_start_matches("ed25519:").chars().take(8).collect()
}

async fn connect(address: &str) -> Result<Stream, BackendError> {
    let found = tokio::net::lookup_host(address).await;
    let found = found.map_err(|_| BackendError::Unresolved(address.to_owned()))?;
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for peer in found {
        match tokio::time::timeout(CONNECT_TIME, TcpStream::connect(peer)).await {
            Ok(Ok(socket)) => {
                // Without it a small answer may wait for an acknowledgement.
                if let Err(error) = socket.set_nodelay(true) {
                    last = error;
                    continue;
                }
                return Ok(Stream::plain(socket));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(BackendError::Unreachable(address.to_owned(), last))
}
