use super::kinds::{Counter, Family, Gauge};
use super::labels::{BackendFailure, Direction};
use super::page::Page;

/// Private tunnels, all together.
#[derive(Debug, Default)]
pub struct PrivateMetrics {
    /// Agents that got no stream.
    pub refused: Counter,
    /// Streams that began.
    pub streams: Counter,
    /// Of these, open now.
    pub open: Gauge,
    /// Their bytes, sealed as they are.
    pub bytes: Family<Direction>,
    /// Failures of backends.
    pub backend_failures: Family<BackendFailure>,
}

impl PrivateMetrics {
    pub(super) fn render(&self, page: &mut Page) {
        let help = "Streams from agent to agent that were refused.";
        page.counter("adit_private_refused_total", help, &self.refused);
        let help = "Streams from agent to agent.";
        page.counter("adit_private_streams_total", help, &self.streams);
        let help = "Of these, open now.";
        page.gauge("adit_private_streams_open", help, &self.open);
        let help = "Bytes of these streams.";
        page.family("adit_private_bytes_total", help, &self.bytes);
        let help = "Streams from agent to agent that a backend failed.";
        let name = "adit_private_backend_failures_total";
        page.family(name, help, &self.backend_failures);
    }
}
