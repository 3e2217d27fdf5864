//! What the edge tells its owner about itself: doors, links, tunnels, traffic.
//!
//! Invariant: a report is bounded, however many links and tunnels there are;
//! what has no room is counted in its totals.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_link::edge::EdgeLink;
use adit_model::PortRanges;
use adit_wire::TunnelKind;
use serde_json::Value;

use crate::backend::{Backend, Tunnel};
use crate::config;
use crate::control::{
    self, CertificateReport, DoorReport, LinkReport, Report, Totals, TunnelReport,
};
use crate::limits::Limits;
use crate::metrics::kinds::{Counter, Family, Gauge};
use crate::metrics::{Direction, Metrics};
use crate::ports::Ports;
use crate::registry::Registry;
use crate::tls::{Certificate, Certificates, Source};
use crate::traffic;

/// Most links and most tunnels of a report: some megabytes, far below what the
/// other side takes.
const MAX_ROWS: usize = 10_000;

/// Where an edge listens.
pub(crate) struct At {
    pub(crate) http: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) link: SocketAddr,
    pub(crate) quic: Option<SocketAddr>,
    pub(crate) api: Option<SocketAddr>,
}

impl At {
    /// All doors, with those whose ports are opened for tunnels.
    pub(crate) fn doors(&self, settings: &config::Doors) -> Vec<DoorReport> {
        let door = |(door, address): (&str, SocketAddr)| DoorReport {
            door: door.to_owned(),
            address: address.to_string(),
            ports: None,
        };
        let of_ports = |door: &str, bind: IpAddr, ports: &PortRanges| DoorReport {
            door: door.to_owned(),
            address: bind.to_string(),
            ports: Some(ports.to_string()),
        };
        let ranges = [
            ("tcp", settings.tcp_bind, &settings.tcp_ports),
            ("udp", settings.udp_bind, &settings.udp_ports),
        ];
        let open = ranges.into_iter().filter(|(_, _, ports)| !ports.is_empty());
        let open = open.map(|(door, bind, ports)| of_ports(door, bind, ports));
        let named = [
            Some(("http", self.http)),
            self.https.map(|address| ("https", address)),
            self.tls.map(|address| ("tls", address)),
            Some(("link", self.link)),
            self.quic.map(|address| ("quic", address)),
            self.api.map(|address| ("api", address)),
        ];
        named.into_iter().flatten().map(door).chain(open).collect()
    }
}

/// The parts that are asked for a report.
pub(crate) struct Sources {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) udp_ports: Arc<Ports>,
    pub(crate) doors: Vec<DoorReport>,
    /// The HTTPS door's, where it is open.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// Where visitors find an HTTP tunnel, `{name}` in it.
    pub(crate) url_pattern: String,
}

/// Asks the sources when it is asked.
pub(crate) struct Status(Sources);

impl Status {
    pub(crate) fn new(sources: Sources) -> Arc<Self> {
        Arc::new(Self(sources))
    }

    fn report(&self) -> Report {
        let now = SystemTime::now();
        let metrics = &self.0.metrics;
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: unix(now).as_secs(),
            started: unix(metrics.started()).as_secs(),
            uptime_seconds: metrics.uptime().as_secs(),
            doors: self.0.doors.clone(),
            certificates: self.certificates(),
            links: self.links(unix(now)),
            tunnels: self.tunnels(),
            totals: self.totals(),
        }
    }

    fn certificates(&self) -> Vec<CertificateReport> {
        let all = self.0.certificates.as_ref().map(|all| all.all());
        let row = |(source, one): (Source, Arc<Certificate>)| CertificateReport {
            names: one.names().iter().map(ToString::to_string).collect(),
            source: source.text().to_owned(),
            not_after: one.not_after(),
            sha256: one.fingerprint(),
        };
        let all = all.unwrap_or_default();
        all.into_iter().take(MAX_ROWS).map(row).collect()
    }

    fn links(&self, now: Duration) -> Vec<LinkReport> {
        let links = busiest(self.0.registry.links(), |link| link.in_use() as u64);
        let mut rows: Vec<_> = links.iter().map(|link| link_row(link, now)).collect();
        rows.sort_unstable_by_key(|row| row.link);
        rows
    }

    fn tunnels(&self) -> Vec<TunnelReport> {
        let traffic = |backend: &Arc<Backend>| {
            let counters = backend.traffic.counters();
            counters.bytes_in.saturating_add(counters.bytes_out)
        };
        let backends = busiest(self.0.registry.backends(), traffic);
        let row = |backend: &Arc<Backend>| Some(self.tunnel_row(backend, backend.as_tunnel()?));
        let mut rows: Vec<_> = backends.iter().filter_map(row).collect();
        rows.sort_unstable_by(|a, b| (&a.name, a.link).cmp(&(&b.name, b.link)));
        rows
    }

    fn tunnel_row(&self, backend: &Backend, tunnel: &Tunnel) -> TunnelReport {
        let name = tunnel.name.as_str();
        let url = match tunnel.kind {
            TunnelKind::Http => Some(self.0.url_pattern.replace("{name}", name)),
            TunnelKind::Tcp => self.0.ports.url_of(&tunnel.name),
            TunnelKind::Tls => self.0.ports.tls_url(&tunnel.name),
            TunnelKind::Udp => self.0.udp_ports.url_of(&tunnel.name),
            TunnelKind::Private => Some(format!("private:{name}")),
            TunnelKind::Other(_) => None,
        };
        let facts = tunnel.link.facts();
        let counters = backend.traffic.counters();
        TunnelReport {
            name: name.to_owned(),
            kind: traffic::word(tunnel.kind).to_owned(),
            url,
            target: tunnel.options.target.to_string(),
            link: facts.id.0,
            agent: facts.identity.to_string(),
            visitors: counters.visitors_now.into(),
            requests: counters.visitors_ever,
            failures: backend.traffic.failures.load(Ordering::Relaxed),
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            drops: backend.traffic.drops.load(Ordering::Relaxed),
        }
    }

    fn totals(&self) -> Totals {
        let metrics = &self.0.metrics;
        let Metrics {
            http,
            tcp,
            udp,
            private,
            ..
        } = &**metrics;
        let bytes = |direction| {
            let all = [&http.bytes, &tcp.bytes, &udp.bytes, &private.bytes];
            all.map(|bytes| bytes.of(direction).get()).iter().sum()
        };
        let failures = [
            &http.backend_failures,
            &tcp.backend_failures,
            &udp.backend_failures,
            &private.backend_failures,
        ];
        let open = [
            &http.active,
            &http.upgraded,
            &tcp.open,
            &udp.open,
            &private.open,
        ];
        let begun = [&tcp.streams, &udp.flows, &private.streams];
        Totals {
            links: metrics.link.links.get(),
            tunnels: self.0.registry.tunnels() as u64,
            visitors: open.map(Gauge::get).iter().sum(),
            requests: http.requests.sum() + begun.map(Counter::get).iter().sum::<u64>(),
            failures: failures.map(Family::sum).iter().sum(),
            drops: udp.drops.sum(),
            refused: metrics.limits.refused.sum() + metrics.limits.by_rule.sum(),
            banned: self.0.limits.census(Instant::now()).banned as u64,
            bytes_in: bytes(Direction::In),
            bytes_out: bytes(Direction::Out),
        }
    }
}

impl control::Status for Status {
    fn status(&self) -> Value {
        serde_json::to_value(self.report()).unwrap_or_default()
    }
}

fn link_row(link: &EdgeLink, now: Duration) -> LinkReport {
    let facts = link.facts();
    let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
    LinkReport {
        link: facts.id.0,
        agent: facts.identity.to_string(),
        address: facts.peer.to_string(),
        since: now.saturating_sub(link.age()).as_secs(),
        rtt_us: link.rtt().map(micros),
        carrier: facts.carrier.to_string(),
        idle_channels: link.idle(),
        busy_channels: link.in_use(),
    }
}

/// All, or as many as there is room for, the heaviest first.
fn busiest<T>(mut all: Vec<T>, weight: impl Fn(&T) -> u64) -> Vec<T> {
    if all.len() > MAX_ROWS {
        // The weights change meanwhile: each is looked at once.
        all.sort_by_cached_key(|one| Reverse(weight(one)));
        all.truncate(MAX_ROWS);
    }
    all
}

fn unix(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_room_for_the_busiest() {
        assert_eq!(busiest(vec![1, 3, 2], |n| *n), [1, 3, 2]);
        let most = MAX_ROWS as u64;
        let kept = busiest((0..most + 5).collect(), |n| *n);
        assert_eq!((kept.len(), kept[0]), (MAX_ROWS, most + 4));
        assert_eq!(kept.last(), Some(&5));
    }
}
