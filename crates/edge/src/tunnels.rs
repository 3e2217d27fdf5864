//! What agents ask for on their control channels.

use std::ops::ControlFlow;
use std::sync::Arc;

use adit_link::edge::EdgeLink;
use adit_link_proto::ControlEvent;
use adit_model::{Code, TunnelId};
use adit_wire::{Message, OpenTunnel, TunnelKind, TunnelState, TunnelStatus};

use crate::admission::Admitted;
use crate::auth::check_login;
use crate::link::LinkSettings;
use crate::ports::Ports;
use crate::registry::{Registry, TunnelRefusal};
use crate::rules::Rules;

/// Why a tunnel was not opened, for the agent.
type Refused = (Code, String);

/// A live link and what its agent may do.
pub(crate) struct Context<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) ports: &'a Ports,
    pub(crate) udp_ports: &'a Ports,
    pub(crate) rules: &'a Rules,
    pub(crate) link: &'a Arc<EdgeLink>,
    pub(crate) admitted: &'a Admitted,
    pub(crate) settings: &'a LinkSettings,
}

impl Context<'_> {
    /// Answers one event of the control channel.
    pub(crate) fn on_event(&self, event: ControlEvent) -> ControlFlow<()> {
        match event {
            ControlEvent::Message(Message::OpenTunnel(open)) => self.open(&open),
            ControlEvent::Message(Message::CloseTunnel { tunnel }) => self.close(tunnel),
            ControlEvent::Message(Message::StatsWanted) => self.stats(),
            ControlEvent::Message(Message::Error { code, text }) => {
                tracing::info!(link = %self.link.facts().id, code, text, "agent reports an error");
            }
            ControlEvent::Rtt(rtt) => self.link.set_rtt(rtt),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn open(&self, open: &OpenTunnel) {
        let opened = self.check(open).and_then(|()| match open.kind {
            TunnelKind::Tcp => self.open_port(self.ports, open),
            TunnelKind::Udp => self.open_port(self.udp_ports, open),
            TunnelKind::Tls => self.open_tls(open),
            TunnelKind::Private => self
                .register(open)
                .map(|()| format!("private:{}", open.name)),
            _ => self.register(open).map(|()| {
                let pattern = &self.settings.url_pattern;
                pattern.replace("{name}", open.name.as_str())
            }),
        });
        let link = self.link.facts().id;
        match opened {
            Ok(url) => {
                tracing::info!(%link, name = %open.name, target = %open.target, url, "tunnel is open");
                self.answer(open.tunnel, TunnelState::Live, Some(url), 0, String::new());
            }
            Err((code, why)) => {
                tracing::info!(%link, name = %open.name, %code, why, "tunnel was refused");
                let state = TunnelState::Refused;
                self.answer(open.tunnel, state, None, code.number, why);
            }
        }
    }

    /// Opens a tunnel with a port; the URL of it.
    fn open_port(&self, ports: &Ports, open: &OpenTunnel) -> Result<String, Refused> {
        let agent = self.rules.agent(&self.link.facts().identity);
        let own = agent.and_then(|agent| match open.kind {
            TunnelKind::Udp => agent.udp_ports.as_ref(),
            _ => agent.ports.as_ref(),
        });
        let port = ports.claim(&open.name, open.port, own, |name| {
            self.registry.has_live(name)
        });
        let port = port.map_err(|refusal| (refusal.code(), refusal.to_string()))?;
        let opened = self.register(open);
        ports.settle(&open.name, opened.is_ok(), |name| {
            self.registry.keeps(name, open.kind)
        });
        opened.map(|()| ports.url(port))
    }

    fn open_tls(&self, open: &OpenTunnel) -> Result<String, Refused> {
        let url = self.ports.tls_url(&open.name).ok_or_else(|| {
            let why = "this edge has no door for TLS tunnels (https or tls under [doors])";
            (Code::TUNNEL_KIND, why.to_owned())
        })?;
        self.register(open).map(|()| url)
    }

    fn register(&self, open: &OpenTunnel) -> Result<(), Refused> {
        let now = tokio::time::Instant::now().into_std();
        let opened = self.registry.open_tunnel(self.link.facts().id, open, now);
        opened.map_err(|refusal| match refusal {
            TunnelRefusal::Taken => (
                Code::TUNNEL_REFUSED,
                "the name is taken on this edge".to_owned(),
            ),
            twice @ (TunnelRefusal::NumberInUse
            | TunnelRefusal::NameInUse
            | TunnelRefusal::OtherKind
            | TunnelRefusal::TooManyAgents(_)) => (Code::TUNNEL_REFUSED, twice.to_string()),
            other => (Code::TOO_MANY_TUNNELS, other.to_string()),
        })
    }

    fn check(&self, open: &OpenTunnel) -> Result<(), Refused> {
        if let TunnelKind::Other(_) = open.kind {
            let why = "this edge carries HTTP, TCP, UDP, TLS and private tunnels only";
            return Err((Code::TUNNEL_KIND, why.into()));
        }
        if open.kind != TunnelKind::Http && open.auth.is_some() {
            // Nobody may believe that it is asked for.
            let why = "only an HTTP tunnel can ask its visitors for a password";
            return Err((Code::BAD_AUTH, why.into()));
        }
        if let Some(login) = &open.auth {
            // What it costs to check is the agent's choice, within bounds.
            check_login(login).map_err(|why| (Code::BAD_AUTH, why.to_string()))?;
        }
        match &self.admitted.scope {
            Some(scope) if *scope != open.name => Err((
                Code::TUNNEL_REFUSED,
                format!("the token that admitted this agent allows the name {scope} only"),
            )),
            _ => Ok(()),
        }
    }

    fn close(&self, tunnel: TunnelId) {
        if let Some(name) = self.registry.close_tunnel(
            self.link.facts().id,
            tunnel,
            tokio::time::Instant::now().into_std(),
        ) {
            for (ports, kind) in [
                (self.ports, TunnelKind::Tcp),
                (self.udp_ports, TunnelKind::Udp),
            ] {
                ports.closed(&name, |name| self.registry.keeps(name, kind));
            }
            tracing::info!(link = %self.link.facts().id, %name, "tunnel is closed");
            self.answer(tunnel, TunnelState::Closed, None, 0, String::new());
        }
    }

    fn answer(
        &self,
        tunnel: TunnelId,
        state: TunnelState,
        url: Option<String>,
        code: u16,
        text: String,
    ) {
        self.link.send(Message::TunnelStatus(TunnelStatus {
            tunnel,
            state,
            url,
            code,
            text,
        }));
    }

    fn stats(&self) {
        self.link
            .send(Message::Stats(self.registry.stats_of(self.link.facts().id)));
    }
}
