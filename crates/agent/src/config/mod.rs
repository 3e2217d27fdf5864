//! The agent's configuration: `client.toml`, environment, options.
//!
//! [`keys`] declares every key once; [`AgentConfig::parse`] reads them into
//! the typed values below. Invariant: what is in an [`AgentConfig`] needs no
//! further check. The PIN stays a reference, because it is wanted by some
//! edges at some starts only and its place may be filled later.

pub mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use adit_config::{BasicAuth, Input, LogFormat, LogLevel, Mistakes, Origin, SecretRef};
use adit_model::{JoinString, TunnelName};

/// The complete example that `adit config example client` prints.
pub const EXAMPLE: &str = include_str!("../../../../examples/client.toml");

/// Everything an agent is told.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// `[agent]`.
    pub agent: Agent,
    /// `[[tunnel]]`, no two of one name.
    pub tunnels: Vec<TunnelConfig>,
    /// `[log]`.
    pub log: Log,
}

/// `[agent]`.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The edge to join; `None`: the one that is remembered in the data
    /// folder.
    pub edge: Option<JoinString>,
    /// Where identity, edges and names are kept. It may not exist yet.
    pub data: PathBuf,
    /// Where the PIN is, when the edge wants one; a literal is well formed.
    pub pin: Option<SecretRef>,
}

/// A `[[tunnel]]`.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// Its name; `None`: a random one that is remembered for the target.
    pub name: Option<TunnelName>,
    /// What it carries.
    pub kind: TunnelKind,
    /// The private service.
    pub target: Origin,
    /// The `Host` that the service is shown instead of the visitor's.
    pub host_header: Option<String>,
    /// Whether the certificate of an `https://` target goes unchecked.
    pub insecure_target: bool,
    /// What visitors must prove to the edge.
    pub auth: Option<BasicAuth>,
    /// Whether other agents may not share the name.
    pub exclusive: bool,
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// HTTP/1.1 requests, WebSockets included.
    Http,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// Form of the lines.
    pub format: LogFormat,
    /// Least severity that is written.
    pub level: LogLevel,
}

impl AgentConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Every mistake of text, environment and options at once.
    pub fn parse(input: Input<'_>) -> Result<Self, Mistakes> {
        read::agent(input)
    }
}
