//! What the edge tells its owner about itself: links, tunnels, traffic.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use adit_wire::TunnelKind;
use serde_json::{Value, json};

use crate::control;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// Reads the registry and the metrics when asked.
pub(crate) struct Status {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
}

impl Status {
    pub(crate) fn new(registry: Arc<Registry>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { registry, metrics })
    }

    fn links(&self) -> Vec<Value> {
        let link = |link: Arc<adit_link::edge::EdgeLink>| {
            let facts = link.facts();
            json!({
                "link": facts.id.0,
                "agent": facts.identity.to_string(),
                "address": facts.peer.to_string(),
                "visitors": link.in_use(),
                "idle_channels": link.idle(),
            })
        };
        self.registry.links().into_iter().map(link).collect()
    }

    fn tunnels(&self) -> Vec<Value> {
        let backends = self.registry.backends();
        let described = backends.iter().filter_map(|backend| {
            let tunnel = backend.as_tunnel()?;
            let traffic = &backend.traffic;
            Some(json!({
                "name": tunnel.name.as_str(),
                "kind": kind(tunnel.kind),
                "target": &*tunnel.options.target,
                "link": tunnel.link.facts().id.0,
                "visitors": traffic.active.load(Ordering::Relaxed),
                "requests": traffic.requests.load(Ordering::Relaxed),
                "failures": traffic.failures.load(Ordering::Relaxed),
                "bytes_in": traffic.bytes_in.load(Ordering::Relaxed),
                "bytes_out": traffic.bytes_out.load(Ordering::Relaxed),
            }))
        });
        described.collect()
    }
}

/// As `kind` in an agent's configuration.
fn kind(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Http => "http",
        TunnelKind::Tcp => "tcp",
        TunnelKind::Tls => "tls",
        TunnelKind::Other(_) => "other",
    }
}

impl control::Status for Status {
    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.metrics.uptime().as_secs(),
            "links": self.links(),
            "tunnels": self.tunnels(),
        })
    }
}
