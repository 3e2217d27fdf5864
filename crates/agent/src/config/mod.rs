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
mod tunnels;

use std::path::PathBuf;
use std::time::Duration;

use adit_config::{Input, LogFormat, LogLevel, Mistakes, SecretRef};
use adit_link::proxy::Proxy;
use adit_model::{Carrier, JoinString};

use crate::allowed::AllowedTargets;
use crate::settings::{ForwardSettings, TunnelSettings};

/// The complete example that `adit config example client` prints.
pub const EXAMPLE: &str = include_str!("../../../../examples/client.toml");

/// Everything an agent is told.
#[derive(Debug)]
pub struct AgentConfig {
    /// `[agent]`.
    pub agent: Agent,
    /// `[[tunnel]]`, no two of one name.
    pub tunnels: Vec<TunnelSettings>,
    /// `[[forward]]`, no two of one address.
    pub forwards: Vec<ForwardSettings>,
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
    /// Where streams may lead at all; no tunnel is beyond it.
    pub allowed_targets: AllowedTargets,
    /// What the link's bytes travel in; `None`: what works.
    pub carrier: Option<Carrier>,
    /// The way out of this network.
    pub proxy: Option<Proxy>,
    /// Threads that carry visitors' streams; 0: one a core.
    pub workers: usize,
    /// How long streams may go on after the agent was told to stop.
    pub drain: Duration,
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
