//! Reaches a target: resolve, judge, connect, TLS, all within one answer's time.
//!
//! An edge waits two seconds for the answer to a start, so everything here
//! shares 1.5 s; the rest belongs to the way there and back.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use adit_link::eyeballs::first_of;
use adit_model::Code;
use adit_wire::ResetReason;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::allowed::AllowedTargets;
use crate::datagrams::Addresses;
use crate::local::Local;
use crate::target::{Host, Place};

/// What an answer may take to travel to the edge.
const WAY_BACK: Duration = Duration::from_millis(500);
/// Longest time that reaching a target may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a resolved name is good for.
const RESOLVED_FOR: Duration = Duration::from_secs(5);
/// A target that has been silent for so long is asked whether it is there: one
/// that went away without a word would hold its stream for ever.
const IDLE: Duration = Duration::from_secs(60);
/// How often it is asked before the socket is given up.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why a target was not reached, in words for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotReached {
    pub(crate) code: Code,
    pub(crate) why: String,
}

impl NotReached {
    /// What the edge is told.
    pub(crate) fn reason(&self) -> ResetReason {
        match self.code {
            Code::TARGET_REFUSED | Code::TARGET_FORBIDDEN => ResetReason::TargetRefused,
            Code::TARGET_TLS => ResetReason::TargetTls,
            _ => ResetReason::TargetUnreachable,
        }
    }
}

impl fmt::Display for NotReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Reaches one target again and again.
pub(crate) struct Connector {
    place: Place,
    /// The target as its owner knows it.
    label: String,
    allowed: AllowedTargets,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    resolved: Mutex<Option<Resolved>>,
}

struct Resolved {
    until: Instant,
    addresses: Vec<SocketAddr>,
}

impl Connector {
    /// `tls` is needed for an `https://` target and unused for another.
    pub(crate) fn new(
        place: Place,
        label: String,
        allowed: AllowedTargets,
        tls: Option<&TlsConnector>,
    ) -> Self {
        let tls = match (&place, tls) {
            (
                Place::Tcp {
                    host, tls: true, ..
                },
                Some(tls),
            ) => server_name(host).map(|name| (tls.clone(), name)),
            _ => None,
        };
        Self {
            place,
            label,
            allowed,
            tls,
            resolved: Mutex::new(None),
        }
    }

    /// A socket that is ready for the first byte. The edge, which waits for
    /// `patience`, is told in time of what went wrong.
    pub(crate) async fn connect(&self, patience: Duration) -> Result<Local, NotReached> {
        let budget = patience.saturating_sub(WAY_BACK).min(LONGEST);
        let by = Instant::now() + budget;
        match &self.place {
            Place::Tcp { host, port, tls } => {
                let socket = self.connect_tcp(host, *port, by).await?;
                match &self.tls {
                    Some((connector, name)) => self.shake_hands(connector, name, socket, by).await,
                    None if *tls => Err(self.failed(Code::TARGET_TLS, "TLS cannot be used here")),
                    None => Ok(socket.into()),
                }
            }
            Place::Unix(path) if !self.allowed.allows_socket(path) => {
                Err(self.forbidden(&path.display().to_string()))
            }
            #[cfg(unix)]
            Place::Unix(path) => match in_time(by, UnixStream::connect(path)).await {
                Ok(socket) => Ok(socket.into()),
                Err(error) => Err(self.failed(code_of(&error), &error)),
            },
            #[cfg(not(unix))]
            Place::Unix(_) => Err(self.failed(Code::TARGET_UNREACHABLE, "no Unix sockets here")),
        }
    }

    /// Where datagrams go: the addresses in the order in which they are to be
    /// tried.
    pub(crate) async fn datagrams(&self, patience: Duration) -> Result<Addresses, NotReached> {
        let by = Instant::now() + patience.saturating_sub(WAY_BACK).min(LONGEST);
        match &self.place {
            Place::Tcp { host, port, .. } => {
                let found = self.resolve(host, *port, by).await?;
                let found = self.permitted(host, found)?;
                if let Some(first) = found.first() {
                    self.remember(&found, *first);
                }
                Addresses::new(found).map_err(|error| self.failed(code_of(&error), error))
            }
            Place::Unix(_) => Err(self.failed(Code::TARGET_UNREACHABLE, "no datagrams here")),
        }
    }

    /// What the system told of the target, in its owner's words.
    pub(crate) fn not_reached(&self, error: &io::Error) -> NotReached {
        self.failed(code_of(error), error)
    }

    async fn connect_tcp(
        &self,
        host: &Host,
        port: u16,
        by: Instant,
    ) -> Result<TcpStream, NotReached> {
        let addresses = self.permitted(host, self.resolve(host, port, by).await?)?;
        let dial = |address| in_time(by, TcpStream::connect(address));
        let failures = match first_of(&addresses, dial).await {
            Ok((socket, answered)) => {
                tune(&socket);
                self.remember(&addresses, answered);
                return Ok(socket);
            }
            Err(failures) => failures,
        };
        *self.resolved() = None;
        let codes = failures.iter().map(|(_, error)| code_of(error));
        let code = codes.reduce(|a, b| if a == b { a } else { Code::TARGET_UNREACHABLE });
        let texts: Vec<_> = failures
            .iter()
            .map(|(address, error)| match host {
                // Told as the target already.
                Host::Address(_) => error.to_string(),
                Host::Name(_) => format!("{address}: {error}"),
            })
            .collect();
        let code = code.unwrap_or(Code::TARGET_UNKNOWN);
        Err(self.failed(code, texts.join("; ")))
    }

    async fn shake_hands(
        &self,
        connector: &TlsConnector,
        name: &ServerName<'static>,
        socket: TcpStream,
        by: Instant,
    ) -> Result<Local, NotReached> {
        match in_time(by, connector.connect(name.clone(), socket)).await {
            Ok(socket) => Ok(socket.into()),
            Err(error) => {
                let untrusted = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                    .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_)));
                let why = if untrusted {
                    format!("{error}; if it is self-signed on purpose, use --insecure-target")
                } else {
                    error.to_string()
                };
                Err(self.failed(Code::TARGET_TLS, why))
            }
        }
    }

    async fn resolve(
        &self,
        host: &Host,
        port: u16,
        by: Instant,
    ) -> Result<Vec<SocketAddr>, NotReached> {
        if let Some(known) = &*self.resolved()
            && known.until > Instant::now()
        {
            return Ok(known.addresses.clone());
        }
        if let Some(known) = host.known_addresses() {
            let sockets = known.into_iter().map(|ip| SocketAddr::new(ip, port));
            return Ok(sockets.collect());
        }
        let name = host.to_string();
        let found = in_time(by, tokio::net::lookup_host((name.as_str(), port))).await;
        let found = found.map_err(|error| {
            let why = format!("the name {name} does not resolve: {error}");
            self.failed(Code::TARGET_UNKNOWN, why)
        })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// Those that the agent's own list allows: a name may have got addresses
    /// that its owner never thought of.
    fn permitted(
        &self,
        host: &Host,
        found: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, NotReached> {
        let is_allowed = |address: &SocketAddr| self.allowed.allows(host, *address);
        let (mut allowed, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_allowed);
        if allowed.is_empty() && !others.is_empty() {
            let others: Vec<_> = others.iter().map(SocketAddr::to_string).collect();
            return Err(self.forbidden(&others.join(", ")));
        }
        allowed.truncate(MAX_ADDRESSES);
        Ok(allowed)
    }

    fn forbidden(&self, place: &str) -> NotReached {
        let why = format!("this agent's allowed_targets hold no {place}");
        self.failed(Code::TARGET_FORBIDDEN, why)
    }

    /// The address that answered is tried first next time.
    pub(crate) fn remember(&self, addresses: &[SocketAddr], answered: SocketAddr) {
        let answered = addresses.iter().position(|address| *address == answered);
        let answered = answered.unwrap_or(0);
        let mut resolved = self.resolved();
        let now = Instant::now();
        let current = resolved
            .as_ref()
            .is_some_and(|known| known.until > now && answered == 0);
        if current {
            return;
        }
        let mut addresses = addresses.to_vec();
        addresses.swap(0, answered);
        *resolved = Some(Resolved {
            until: now + RESOLVED_FOR,
            addresses,
        });
    }

    fn resolved(&self) -> std::sync::MutexGuard<'_, Option<Resolved>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, code: Code, why: impl fmt::Display) -> NotReached {
        NotReached {
            code,
            why: format!("{}: {why}", self.label),
        }
    }
}

/// What a socket can do without, where its system refuses.
fn tune(socket: &TcpStream) {
    // Without it small answers wait for acknowledgements.
    drop(socket.set_nodelay(true));
    let keepalive = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(PROBE_EVERY);
    drop(SockRef::from(socket).set_tcp_keepalive(&keepalive));
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Address(address) => Some(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned()).ok(),
    }
}

async fn in_time<T>(by: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout_at(by, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

fn code_of(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Code::TARGET_REFUSED,
        io::ErrorKind::TimedOut => Code::TARGET_SLOW,
        _ => Code::TARGET_UNREACHABLE,
    }
}

#[cfg(test)]
mod tests;
