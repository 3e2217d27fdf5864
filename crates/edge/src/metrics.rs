//! What the edge counts, as Prometheus text.
//!
//! One struct of plain atomics that every door and every link shares; nothing
//! here takes a lock, allocates or can fail while counting. Every label value
//! is known when the program is built. [`Metrics::render`] writes the page, the
//! process's own facts included.

pub mod kinds;
mod labels;
mod link;
mod page;
mod private;
mod process;
pub(crate) mod tunnels;

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::kinds::Counter;
use self::kinds::{Family, Gauge, Histogram};
pub use self::labels::{
    AdmissionOutcome, BackendFailure, Direction, Door, HttpRefusal, LimitRefusal, ProofFailure,
    StatusClass, TcpRefusal, TlsOutcome, UdpDrop,
};
pub use self::link::LinkMetrics;
use self::page::Page;
pub use self::private::PrivateMetrics;
pub use self::process::ProcessFacts;
pub(crate) use self::process::descriptor_limit;
use crate::rules::Refused;

/// All doors.
#[derive(Debug, Default)]
pub struct DoorMetrics {
    /// Connections accepted.
    pub accepted: Family<Door>,
    /// Connections open now.
    pub open: Family<Door, Gauge>,
    /// `accept` failed, for want of descriptors say.
    pub accept_errors: Family<Door>,
}

/// The HTTP door.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    /// Requests by the class of the status sent.
    pub requests: Family<StatusClass>,
    /// Requests under way now, upgraded connections apart.
    pub active: Gauge,
    /// From the end of the head to the end of the answer.
    pub seconds: Histogram,
    /// Refusals of the door itself.
    pub refused: Family<HttpRefusal>,
    /// Connections upgraded, to WebSocket say.
    pub upgrades: Counter,
    /// Upgraded connections open now.
    pub upgraded: Gauge,
    /// Bytes of visitors' connections.
    pub bytes: Family<Direction>,
    /// Failures of backends.
    pub backend_failures: Family<BackendFailure>,
    /// Requests moved to another backend before a byte was delivered.
    pub retries: Counter,
    /// Signed statistics requests answered.
    pub stats_answered: Counter,
}

/// The TCP door, all ports together.
#[derive(Debug, Default)]
pub struct TcpMetrics {
    /// Ports open now.
    pub ports: Gauge,
    /// Visitors that found nobody.
    pub refused: Family<TcpRefusal>,
    /// Visitors that a backend has taken.
    pub streams: Counter,
    /// Of these, open now.
    pub open: Gauge,
    /// Bytes of visitors' connections.
    pub bytes: Family<Direction>,
    /// Failures of backends.
    pub backend_failures: Family<BackendFailure>,
}

/// TLS that begins at the HTTPS door.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    /// Connections by how their handshake ended.
    pub handshakes: Family<TlsOutcome>,
    /// Handshakes done that went on with an earlier session.
    pub resumed: Counter,
    /// From the first message to the end of the handshake.
    pub seconds: Histogram,
    /// Certificates that are served now.
    pub certificates: Gauge,
    /// When the first of them ends, in unix seconds; 0 without any.
    pub expiry: Gauge,
    /// Changed files that were taken.
    pub reloads: Counter,
    /// Changed files that were not, because something is wrong with them.
    pub reload_failures: Counter,
}

/// The UDP door, all ports together.
#[derive(Debug, Default)]
pub struct UdpMetrics {
    /// Ports open now.
    pub ports: Gauge,
    /// Flows that a backend has taken.
    pub flows: Counter,
    /// Flows open now, those included that wait for a backend.
    pub open: Gauge,
    /// Datagrams carried.
    pub datagrams: Family<Direction>,
    /// Their bytes.
    pub bytes: Family<Direction>,
    /// Datagrams dropped.
    pub drops: Family<UdpDrop>,
    /// Failures of backends.
    pub backend_failures: Family<BackendFailure>,
}

/// Limits and bans.
#[derive(Debug, Default)]
pub struct LimitMetrics {
    /// Connections and requests turned away.
    pub refused: Family<LimitRefusal>,
    /// Visitors turned away by the owner's rules for tunnels.
    pub by_rule: Family<Refused>,
    /// Bans spoken.
    pub bans: Counter,
    /// Addresses remembered; set before a page is written.
    pub addresses: Gauge,
    /// Addresses banned; set before a page is written.
    pub banned: Gauge,
}

/// Where the edge is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not all doors are open yet.
    Starting,
    /// All doors are open.
    Ready,
    /// On its way down: no new links.
    Draining,
}

/// Everything counted.
#[derive(Debug)]
pub struct Metrics {
    /// All doors.
    pub doors: DoorMetrics,
    /// The HTTP door.
    pub http: HttpMetrics,
    /// The TCP door.
    pub tcp: TcpMetrics,
    /// TLS that begins at the HTTPS door.
    pub tls: TlsMetrics,
    /// The UDP door.
    pub udp: UdpMetrics,
    /// Private tunnels.
    pub private: PrivateMetrics,
    /// Links, tunnels and channels.
    pub link: LinkMetrics,
    /// Limits and bans.
    pub limits: LimitMetrics,
    phase: AtomicU8,
    started: SystemTime,
    clock: std::time::Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All zero; the uptime begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            doors: DoorMetrics::default(),
            http: HttpMetrics::default(),
            tcp: TcpMetrics::default(),
            tls: TlsMetrics::default(),
            udp: UdpMetrics::default(),
            private: PrivateMetrics::default(),
            link: LinkMetrics::default(),
            limits: LimitMetrics::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
            started: SystemTime::now(),
            clock: std::time::Instant::now(),
        }
    }

    /// Says where the edge is in its life.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Where the edge is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// When it began.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The sums of the edge's counters as one JSON object, for the statistics
    /// that its owner's agents may read.
    #[must_use]
    pub fn totals(&self) -> serde_json::Value {
        serde_json::json!({
            "requests": self.http.requests.to_json(),
            "requests_active": self.http.active.get(),
            "refusals": self.http.refused.to_json(),
            "backend_failures": self.http.backend_failures.to_json(),
            "upgrades": self.http.upgrades.get(),
            "upgraded_open": self.http.upgraded.get(),
            "bytes": self.http.bytes.to_json(),
            "tcp_streams": self.tcp.streams.get(),
            "tcp_open": self.tcp.open.get(),
            "tcp_bytes": self.tcp.bytes.to_json(),
            "udp_flows": self.udp.flows.get(),
            "udp_open": self.udp.open.get(),
            "udp_bytes": self.udp.bytes.to_json(),
            "udp_drops": self.udp.drops.to_json(),
            "private_streams": self.private.streams.get(),
            "private_open": self.private.open.get(),
            "private_bytes": self.private.bytes.to_json(),
            "links": self.link.links.get(),
            "tunnels": self.link.tunnels.get(),
            "streams": self.link.streams.get(),
            "admissions": self.link.admissions.to_json(),
            "proof_failures": self.link.proof_failures.to_json(),
            "limited": self.limits.refused.to_json(),
            "bans": self.limits.bans.get(),
        })
    }

    /// The page of `GET /metrics`, in the text format version 0.0.4.
    #[must_use]
    pub fn render(&self, facts: &ProcessFacts) -> String {
        let mut page = Page::default();
        self.render_process(&mut page, facts);
        self.doors.render(&mut page);
        self.http.render(&mut page);
        self.tcp.render(&mut page);
        self.tls.render(&mut page);
        self.udp.render(&mut page);
        self.private.render(&mut page);
        self.link.render(&mut page);
        self.link.render_admission(&mut page);
        self.limits.render(&mut page);
        page.finish()
    }

    fn render_process(&self, page: &mut Page, facts: &ProcessFacts) {
        let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        let help = "The version of this edge.";
        page.one("adit_build_info", help, "gauge", version, 1);
        let uptime = self.uptime().as_secs_f64();
        let help = "Time since the edge started.";
        page.one("adit_uptime_seconds", help, "gauge", "", uptime);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let help = "Start of the process in unix seconds.";
        let name = "process_start_time_seconds";
        page.one(name, help, "gauge", "", started.as_secs_f64());
        if let Some(bytes) = facts.resident_bytes {
            let help = "Resident memory.";
            page.one("process_resident_memory_bytes", help, "gauge", "", bytes);
        }
        if let Some(count) = facts.open_descriptors {
            page.one("process_open_fds", "Open descriptors.", "gauge", "", count);
        }
        if let Some(count) = facts.max_descriptors {
            let help = "Most descriptors that may be open.";
            page.one("process_max_fds", help, "gauge", "", count);
        }
        if let Some(seconds) = facts.cpu_seconds {
            let help = "User and system time used.";
            page.one("process_cpu_seconds_total", help, "counter", "", seconds);
        }
        if let Some(count) = facts.threads {
            page.one("process_threads", "Threads.", "gauge", "", count);
        }
    }
}

impl DoorMetrics {
    fn render(&self, page: &mut Page) {
        let help = "Connections accepted.";
        page.family("adit_connections_total", help, &self.accepted);
        page.gauges("adit_connections_open", "Connections open now.", &self.open);
        let help = "Times that accepting a connection failed.";
        page.family("adit_accept_errors_total", help, &self.accept_errors);
    }
}

impl HttpMetrics {
    fn render(&self, page: &mut Page) {
        let help = "Requests by class of the status sent.";
        page.family("adit_http_requests_total", help, &self.requests);
        let help = "Requests under way now.";
        page.gauge("adit_http_requests_active", help, &self.active);
        let help = "Time from the request's head to the end of its answer.";
        page.histogram("adit_http_request_seconds", help, &self.seconds);
        let help = "Requests refused by the door itself.";
        page.family("adit_http_refusals_total", help, &self.refused);
        let help = "Connections upgraded.";
        page.counter("adit_http_upgrades_total", help, &self.upgrades);
        let help = "Upgraded connections open now.";
        page.gauge("adit_http_upgraded_open", help, &self.upgraded);
        let help = "Bytes of visitors' connections.";
        page.family("adit_http_bytes_total", help, &self.bytes);
        let help = "Requests that a backend failed.";
        let name = "adit_http_backend_failures_total";
        page.family(name, help, &self.backend_failures);
        let help = "Requests moved to another backend.";
        page.counter("adit_http_retries_total", help, &self.retries);
        let help = "Signed statistics requests answered.";
        let name = "adit_sync_stats_answered_total";
        page.counter(name, help, &self.stats_answered);
    }
}

impl TcpMetrics {
    fn render(&self, page: &mut Page) {
        let help = "Public ports of TCP tunnels open now.";
        page.gauge("adit_tcp_ports_open", help, &self.ports);
        let help = "Visitors of TCP and TLS tunnels that found nobody.";
        page.family("adit_tcp_refusals_total", help, &self.refused);
        let help = "Visitors of TCP tunnels that a backend has taken.";
        page.counter("adit_tcp_streams_total", help, &self.streams);
        let help = "Visitors of TCP tunnels that are carried now.";
        page.gauge("adit_tcp_streams_open", help, &self.open);
        let help = "Bytes of visitors of TCP tunnels.";
        page.family("adit_tcp_bytes_total", help, &self.bytes);
        let help = "Visitors of TCP tunnels that a backend failed.";
        let name = "adit_tcp_backend_failures_total";
        page.family(name, help, &self.backend_failures);
    }
}

impl TlsMetrics {
    fn render(&self, page: &mut Page) {
        let help = "Connections of the HTTPS door by how their handshake ended.";
        page.family("adit_tls_handshakes_total", help, &self.handshakes);
        let help = "Handshakes that went on with an earlier session.";
        page.counter("adit_tls_resumed_total", help, &self.resumed);
        let help = "Time from the first message to the end of the handshake.";
        page.histogram("adit_tls_handshake_seconds", help, &self.seconds);
        let help = "Certificates that are served.";
        page.gauge("adit_tls_certificates", help, &self.certificates);
        let help = "When the first certificate ends, in unix seconds; 0 without any.";
        page.gauge("adit_tls_certificate_expiry_seconds", help, &self.expiry);
        let help = "Changed certificate files that were taken.";
        page.counter("adit_tls_reloads_total", help, &self.reloads);
        let help = "Changed certificate files that could not be used.";
        page.counter(
            "adit_tls_reload_failures_total",
            help,
            &self.reload_failures,
        );
    }
}

impl UdpMetrics {
    fn render(&self, page: &mut Page) {
        let help = "Public ports of UDP tunnels open now.";
        page.gauge("adit_udp_ports_open", help, &self.ports);
        let help = "Flows of UDP tunnels that a backend has taken.";
        page.counter("adit_udp_flows_total", help, &self.flows);
        let help = "Flows of UDP tunnels open now.";
        page.gauge("adit_udp_flows_open", help, &self.open);
        let help = "Datagrams of UDP tunnels carried.";
        page.family("adit_udp_datagrams_total", help, &self.datagrams);
        let help = "Bytes of datagrams of UDP tunnels carried.";
        page.family("adit_udp_bytes_total", help, &self.bytes);
        let help = "Datagrams of UDP tunnels dropped.";
        page.family("adit_udp_drops_total", help, &self.drops);
        let help = "Flows of UDP tunnels that a backend failed.";
        let name = "adit_udp_backend_failures_total";
        page.family(name, help, &self.backend_failures);
    }
}

impl LimitMetrics {
    fn render(&self, page: &mut Page) {
        let help = "Connections and requests turned away by a limit.";
        page.family("adit_limit_refusals_total", help, &self.refused);
        let help = "Visitors turned away by the owner's rules for tunnels.";
        page.family("adit_tunnel_refusals_total", help, &self.by_rule);
        page.counter("adit_bans_total", "Bans spoken.", &self.bans);
        let help = "Addresses remembered by the limits.";
        page.gauge("adit_limit_addresses", help, &self.addresses);
        let help = "Addresses banned now.";
        page.gauge("adit_banned_addresses", help, &self.banned);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::kinds::Label;
    use super::*;

    /// The grammar of the text format: each family has one HELP and one TYPE
    /// before its samples, no series stands twice, each value is a number.
    pub(super) fn check(page: &str) -> HashSet<String> {
        let (mut families, mut series) = (HashSet::new(), HashSet::new());
        let (mut family, mut kind, mut help) = (String::new(), "", "");
        assert!(page.ends_with('\n'));
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, _) = rest.split_once(' ').unwrap();
                assert!(families.insert(name.to_owned()), "{name} twice");
                (family, kind, help) = (name.to_owned(), "", name);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').unwrap();
                assert_eq!((name, kind), (help, ""), "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&of));
                kind = of;
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let bare = name.split('{').next().unwrap();
                let tail = bare.strip_prefix(family.as_str()).unwrap();
                let tails: &[&str] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(tails.contains(&tail), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(name.to_owned()), "{line} twice");
                assert_eq!(kind == "counter", bare.ends_with("_total"), "{line}");
            }
        }
        series
    }

    #[test]
    fn the_page_keeps_the_grammar_and_shows_what_was_counted() {
        let metrics = Metrics::new();
        metrics.http.requests.of(StatusClass::Success).add(3);
        metrics
            .link
            .admissions
            .of(AdmissionOutcome::WrongPin)
            .add(2);
        metrics.http.seconds.observe(Duration::from_millis(3));
        metrics.limits.banned.set(7);
        let page = metrics.render(&ProcessFacts::read());
        let series = check(&page);
        assert!(series.contains("process_resident_memory_bytes"));
        for line in [
            "adit_http_requests_total{class=\"2xx\"} 3",
            "adit_http_requests_total{class=\"5xx\"} 0",
            "adit_admissions_total{outcome=\"wrong_pin\"} 2",
            "adit_http_request_seconds_bucket{le=\"0.0025\"} 0",
            "adit_http_request_seconds_bucket{le=\"0.005\"} 1",
            "adit_http_request_seconds_bucket{le=\"+Inf\"} 1",
            "adit_http_request_seconds_sum 0.003",
            "adit_http_request_seconds_count 1",
            "adit_banned_addresses 7",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_system_that_tells_nothing_leaves_its_lines_out() {
        let page = Metrics::new().render(&ProcessFacts::default());
        check(&page);
        assert!(!page.contains("process_open_fds"));
    }

    #[test]
    fn labels_know_their_place() {
        for (index, outcome) in AdmissionOutcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), index);
        }
    }
}
