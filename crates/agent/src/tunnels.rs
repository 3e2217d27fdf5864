//! The tunnels of one agent, the same on every link it has.
//!
//! Invariant: the table is made from the agent's own settings and never
//! grows; a stream for a tunnel that is not in it is refused.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_model::{Code, PublicKey, TunnelId, TunnelName};
use adit_wire::{Counters, MAX_STAT_TUNNELS, OpenTunnel, Stats, TunnelCounters, TunnelKind};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::AgentError;
use crate::connect::Connector;
use crate::settings::TunnelSettings;
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
            kind: TunnelKind::Http,
            exclusive: self.exclusive,
            auth: self.auth.clone(),
            host_header: self.host_header.clone(),
            target: self.target.clone(),
            port: None,
        }
    }

    /// Streams now open and ever, this one included.
    pub(crate) fn stream_opened(&self) -> (u32, u64) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        (open, self.ever.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Streams still open and ever.
    pub(crate) fn stream_closed(&self, to_target: u64, to_visitor: u64) -> (u32, u64) {
        self.to_target.fetch_add(to_target, Ordering::Relaxed);
        self.to_visitor.fetch_add(to_visitor, Ordering::Relaxed);
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

    fn counters(&self) -> Counters {
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
        edge: &PublicKey,
        data: &DataFolder,
    ) -> Result<Self, AgentError> {
        let tls = Tls::for_all(&settings)?;
        let numbered = (1..).zip(settings);
        let all = numbered.map(|(id, one)| make(TunnelId(id), one, edge, data, &tls).map(Arc::new));
        Ok(Self {
            all: all.collect::<Result<_, _>>()?,
            closing: AtomicBool::new(false),
        })
    }

    pub(crate) fn all(&self) -> &[Arc<Tunnel>] {
        &self.all
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
            let mut with_tls = settings.iter().filter(|one| one.target.is_tls());
            with_tls.any(|one| one.insecure_target == insecure)
        };
        let verified = some(false).then(|| tls::connector(Some(tls::roots())));
        let insecure = some(true).then(|| tls::connector(None));
        Ok(Self {
            verified: verified.transpose()?,
            insecure: insecure.transpose()?,
        })
    }
}

fn make(
    id: TunnelId,
    settings: TunnelSettings,
    edge: &PublicKey,
    data: &DataFolder,
    tls: &Tls,
) -> Result<Tunnel, AgentError> {
    let target = settings.target.label();
    let (name, held) = match settings.name {
        Some(name) => (name, None),
        None => {
            let held = data.hold_name(edge, &target)?;
            (held.name().clone(), Some(held))
        }
    };
    let insecure = settings.insecure_target && settings.target.is_tls();
    let tls = if insecure {
        &tls.insecure
    } else {
        &tls.verified
    };
    Ok(Tunnel {
        id,
        name,
        connector: Connector::new(settings.target, tls.as_ref()),
        insecure,
        target,
        host_header: settings
            .host_header
            .map(|header| header.as_str().to_owned()),
        auth: settings.auth.map(|login| login.hash()).transpose()?,
        exclusive: settings.exclusive,
        open: AtomicU32::new(0),
        ever: AtomicU64::new(0),
        to_target: AtomicU64::new(0),
        to_visitor: AtomicU64::new(0),
        reported: Mutex::new(None),
        _held: held,
    })
}
