//! The tunnels of one agent, the same on every link it has.
//!
//! Invariant: the table is made from the agent's own settings and never
//! grows; a stream for a tunnel that is not in it is refused.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_model::{Code, PublicKey, TunnelId, TunnelName};
use adit_wire::{
    Compression, Counters, MAX_STAT_TUNNELS, OpenTunnel, Stats, TunnelCounters, TunnelKind,
};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::AgentError;
use crate::allowed::AllowedTargets;
use crate::announce::ProxyProtocol;
use crate::connect::Connector;
use crate::settings::{By, Carries, Peers, TunnelSettings};
use crate::state::{DataFolder, HeldName};
use crate::tls;

/// A tunnel whose target fails is reported at most this often, a new cause at
/// once.
const REPORT_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Tunnel {
    pub(crate) id: TunnelId,
    pub(crate) name: TunnelName,
    pub(crate) connector: Connector,
    pub(crate) insecure: bool,
    pub(crate) target: String,
    pub(crate) kind: TunnelKind,
    /// Whether frames of its streams may be compressed.
    pub(crate) compression: Compression,
    port: Option<NonZeroU16>,
    /// How the target is told of its visitors.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Of a private tunnel: who may come in.
    pub(crate) peers: Option<Peers>,
    host_header: Option<String>,
    auth: Option<String>,
    exclusive: bool,
    open: AtomicU32,
    ever: AtomicU64,
    to_target: AtomicU64,
    to_visitor: AtomicU64,
    reported: Mutex<Option<(Instant, Code)>>,
    /// Keeps a remembered name this process's own.
    _held: Option<HeldName>,
}

impl Tunnel {
    /// The message that opens it.
    pub(crate) fn open_message(&self) -> OpenTunnel {
        OpenTunnel {
            tunnel: self.id,
            name: self.name.clone(),
            kind: self.kind,
            exclusive: self.exclusive,
            auth: self.auth.clone(),
            host_header: self.host_header.clone(),
            target: self.target.clone(),
            port: self.port,
            compression: self.compression,
        }
    }

    /// Where visitors find it: what the edge told, else what follows from its
    /// pattern. A pattern says nothing about ports.
    pub(crate) fn url(&self, told: Option<String>, pattern: &str) -> String {
        told.unwrap_or_else(|| match self.kind {
            TunnelKind::Http => pattern.replace("{name}", self.name.as_str()),
            _ => "unknown".to_owned(),
        })
    }

    /// Streams now open and ever, this one included.
    pub(crate) fn stream_opened(&self) -> (u32, u64) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        (open, self.ever.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A stream has carried so many bytes more.
    pub(crate) fn moved(&self, to_target: u64, to_visitor: u64) {
        for (sum, more) in [(&self.to_target, to_target), (&self.to_visitor, to_visitor)] {
            if more > 0 {
                sum.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Streams still open and ever.
    pub(crate) fn stream_closed(&self) -> (u32, u64) {
        let open = self.open.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        (open, self.ever.load(Ordering::Relaxed))
    }

    /// Whether a failure of the target is news.
    pub(crate) fn is_news(&self, code: Code) -> bool {
        let now = Instant::now();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reported
            .is_some_and(|(at, known)| known == code && now.duration_since(at) < REPORT_EVERY);
        if !known {
            *reported = Some((now, code));
        }
        !known
    }

    /// What it has carried since the agent started.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            visitors_now: self.open.load(Ordering::Relaxed),
            visitors_ever: self.ever.load(Ordering::Relaxed),
            bytes_in: self.to_target.load(Ordering::Relaxed),
            bytes_out: self.to_visitor.load(Ordering::Relaxed),
        }
    }
}

/// All tunnels of the agent.
pub(crate) struct Tunnels {
    all: Vec<Arc<Tunnel>>,
    closing: AtomicBool,
}

impl Tunnels {
    /// Makes the table: names, password hashes, TLS. Blocks on files.
    pub(crate) fn new(
        settings: Vec<TunnelSettings>,
        allowed: AllowedTargets,
        edge: &PublicKey,
        data: &DataFolder,
    ) -> Result<Self, AgentError> {
        let common = Common {
            tls: Tls::for_all(&settings)?,
            allowed,
            edge,
            data,
        };
        let numbered = (1..).zip(settings);
        let all = numbered.map(|(id, one)| make(TunnelId(id), one, &common).map(Arc::new));
        Ok(Self {
            all: all.collect::<Result<_, _>>()?,
            closing: AtomicBool::new(false),
        })
    }

    pub(crate) fn all(&self) -> &[Arc<Tunnel>] {
        &self.all
    }

    /// Whether some tunnel carries datagrams.
    pub(crate) fn has_datagrams(&self) -> bool {
        let mut all = self.all.iter();
        all.any(|tunnel| tunnel.open_message().kind == TunnelKind::Udp)
    }

    pub(crate) fn get(&self, id: TunnelId) -> Option<&Arc<Tunnel>> {
        let index = usize::try_from(id.0).ok()?.checked_sub(1)?;
        self.all.get(index)
    }

    /// From now on no stream is taken.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Streams now open.
    pub(crate) fn open_streams(&self) -> usize {
        let open = self.all.iter().map(|t| t.open.load(Ordering::Relaxed));
        open.fold(0, |sum, n| {
            sum.saturating_add(usize::try_from(n).unwrap_or(0))
        })
    }

    /// What was carried since the agent started.
    pub(crate) fn stats(&self) -> Stats {
        let mut total = Counters::default();
        let mut tunnels = Vec::new();
        for tunnel in &self.all {
            let counters = tunnel.counters();
            total.visitors_now = total.visitors_now.saturating_add(counters.visitors_now);
            total.visitors_ever += counters.visitors_ever;
            total.bytes_in += counters.bytes_in;
            total.bytes_out += counters.bytes_out;
            if tunnels.len() < MAX_STAT_TUNNELS {
                tunnels.push(TunnelCounters {
                    tunnel: tunnel.id,
                    counters,
                });
            }
        }
        Stats { total, tunnels }
    }
}

/// Set up only for what some tunnel needs.
struct Tls {
    verified: Option<TlsConnector>,
    insecure: Option<TlsConnector>,
}

impl Tls {
    fn for_all(settings: &[TunnelSettings]) -> Result<Self, AgentError> {
        let some = |insecure| {
            let mut with_tls = settings.iter().filter_map(|one| one.carries.insecure_tls());
            with_tls.any(|one| one == insecure)
        };
        let verified = some(false).then(|| tls::connector(Some(tls::roots())));
        let insecure = some(true).then(|| tls::connector(None));
        Ok(Self {
            verified: verified.transpose()?,
            insecure: insecure.transpose()?,
        })
    }
}

/// What all tunnels are made with.
struct Common<'a> {
    tls: Tls,
    allowed: AllowedTargets,
    edge: &'a PublicKey,
    data: &'a DataFolder,
}

fn make(id: TunnelId, settings: TunnelSettings, common: &Common<'_>) -> Result<Tunnel, AgentError> {
    let target = settings.carries.label();
    let (name, held) = match settings.name {
        Some(name) => (name, None),
        None => {
            let held = common
                .data
                .hold_name(common.edge, &remembered_for(&settings.carries))?;
            (held.name().clone(), Some(held))
        }
    };
    let insecure = settings.carries.insecure_tls() == Some(true);
    let tls = if insecure {
        &common.tls.insecure
    } else {
        &common.tls.verified
    };
    let proxy_protocol = match &settings.carries {
        Carries::Bytes { proxy_protocol, .. } => *proxy_protocol,
        Carries::Http { .. } | Carries::Datagrams { .. } => None,
    };
    let peers = settings.carries.peers().cloned();
    let by_kind = settings.carries.compression();
    let place = settings.carries.place().clone();
    let connector = Connector::new(place, target.clone(), common.allowed.clone(), tls.as_ref());
    let (kind, port, host_header, auth) = match settings.carries {
        Carries::Http {
            host_header, auth, ..
        } => (TunnelKind::Http, None, host_header, auth),
        Carries::Bytes { by, .. } => match by {
            By::Port(port) => (TunnelKind::Tcp, port, None, None),
            By::TlsName => (TunnelKind::Tls, None, None, None),
            By::Agents(_) => (TunnelKind::Private, None, None, None),
        },
        Carries::Datagrams { port, .. } => (TunnelKind::Udp, port, None, None),
    };
    Ok(Tunnel {
        id,
        name,
        connector,
        insecure,
        target,
        kind,
        compression: settings.compression.unwrap_or(by_kind),
        port,
        proxy_protocol,
        peers,
        host_header: host_header.map(|header| header.as_str().to_owned()),
        auth: auth.map(|login| login.hash()).transpose()?,
        exclusive: settings.exclusive,
        open: AtomicU32::new(0),
        ever: AtomicU64::new(0),
        to_target: AtomicU64::new(0),
        to_visitor: AtomicU64::new(0),
        reported: Mutex::new(None),
        _held: held,
    })
}

/// What a random name is remembered for. Two kinds that lead to one socket are
/// two tunnels, each with its name.
fn remembered_for(carries: &Carries) -> String {
    let label = carries.label();
    match carries {
        Carries::Http { .. } => label,
        Carries::Bytes {
            by: By::Port(_), ..
        } => format!("tcp {label}"),
        Carries::Bytes {
            by: By::TlsName, ..
        } => format!("tls {label}"),
        Carries::Datagrams { .. } => format!("udp {label}"),
        Carries::Bytes {
            by: By::Agents(_), ..
        } => format!("private {label}"),
    }
}
