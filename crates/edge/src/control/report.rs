//! What `adit status` is told: the shape of the answer.
//!
//! Described for users in `docs/status.md`. A field that the other side does
//! not know is skipped, and one that it does not send has its default.

use serde::{Deserialize, Serialize};

/// A running edge at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The edge's version.
    pub version: String,
    /// The moment, unix seconds of the edge's clock.
    pub time: u64,
    /// When the edge started, unix seconds; the same as long as it runs, so
    /// that a restart shows.
    pub started: u64,
    /// Time since then, by a clock that nobody sets.
    pub uptime_seconds: u64,
    /// Its doors.
    pub doors: Vec<DoorReport>,
    /// The certificates of the HTTPS door.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateReport>,
    /// The live links, the oldest first.
    pub links: Vec<LinkReport>,
    /// The live tunnels by name.
    pub tunnels: Vec<TunnelReport>,
    /// Everything together.
    pub totals: Totals,
}

/// A public listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorReport {
    /// `http`, `https`, `tls`, `link`, `quic`, `api`, `tcp` or `udp`.
    pub door: String,
    /// `address:port`; of the TCP and UDP doors the address alone.
    pub address: String,
    /// The ports that those may open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
}

/// A certificate that visitors are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateReport {
    /// The names that it is good for.
    pub names: Vec<String>,
    /// `file` or `generated`.
    pub source: String,
    /// Its end, unix seconds.
    pub not_after: u64,
    /// SHA-256 of it, in hexadecimal pairs.
    pub sha256: String,
}

/// An agent's link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkReport {
    /// Its number, never twice while the edge runs.
    pub link: u64,
    /// The agent's identity.
    pub agent: String,
    /// Where its control channel comes from.
    pub address: String,
    /// When it began, unix seconds of the edge's clock.
    pub since: u64,
    /// Round-trip time in microseconds; none before the first heartbeat.
    pub rtt_us: Option<u64>,
    /// What carries it.
    pub carrier: String,
    /// Data channels that wait for a visitor.
    pub idle_channels: usize,
    /// Data channels that carry one.
    pub busy_channels: usize,
}

/// An agent's tunnel. Its counters begin with the edge, and are kept while the
/// agent is away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelReport {
    /// Its name; agents that share it have a row each.
    pub name: String,
    /// `http`, `tcp`, `udp`, `tls` or `private`.
    pub kind: String,
    /// Where visitors find it.
    pub url: Option<String>,
    /// What the agent calls its target.
    pub target: String,
    /// The number of its link.
    pub link: u64,
    /// The agent's identity.
    pub agent: String,
    /// Requests and streams that it carries now.
    pub visitors: u64,
    /// Requests and streams that it took.
    pub requests: u64,
    /// Those that it did not take or did not bring to an end.
    pub failures: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
    /// Datagrams of its flows that the edge dropped.
    pub drops: u64,
}

/// All doors since the edge's start, tunnels that are gone and upstreams of
/// the edge's own included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Links live now, those included that the report has no room for.
    pub links: u64,
    /// Tunnels live now, likewise.
    pub tunnels: u64,
    /// Requests and streams under way now.
    pub visitors: u64,
    /// Requests answered, refusals included; streams and UDP flows begun.
    pub requests: u64,
    /// Times that a backend failed one of them.
    pub failures: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
    /// Datagrams dropped.
    pub drops: u64,
    /// Times that a limit or a rule turned a request or a visitor away.
    pub refused: u64,
    /// Addresses that are banned now.
    pub banned: u64,
}
