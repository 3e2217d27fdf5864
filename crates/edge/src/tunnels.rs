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
use crate::registry::{Registry, TunnelRefusal};

/// A live link and what its agent may do.
pub(crate) struct Context<'a> {
    pub(crate) registry: &'a Registry,
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
            ControlEvent::Rtt(rtt) => {
                tracing::trace!(link = %self.link.facts().id, ?rtt, "round trip");
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn open(&self, open: &OpenTunnel) {
        let opened = self.check(open).and_then(|()| {
            let now = tokio::time::Instant::now().into_std();
            self.registry
                .open_tunnel(self.link.facts().id, open, now)
                .map_err(|refusal| match refusal {
                    TunnelRefusal::Taken => (
                        Code::TUNNEL_REFUSED.number,
                        "the name is taken on this edge".to_owned(),
                    ),
                    twice @ (TunnelRefusal::NumberInUse | TunnelRefusal::NameInUse) => {
                        (Code::TUNNEL_REFUSED.number, twice.to_string())
                    }
                    other => (Code::TOO_MANY_TUNNELS.number, other.to_string()),
                })
        });
        let link = self.link.facts().id;
        match opened {
            Ok(()) => {
                tracing::info!(%link, name = %open.name, target = %open.target, "tunnel is open");
                let url = self
                    .settings
                    .url_pattern
                    .replace("{name}", open.name.as_str());
                self.answer(open.tunnel, TunnelState::Live, Some(url), 0, String::new());
            }
            Err((code, why)) => {
                tracing::info!(%link, name = %open.name, why, "tunnel was refused");
                self.answer(open.tunnel, TunnelState::Refused, None, code, why);
            }
        }
    }

    fn check(&self, open: &OpenTunnel) -> Result<(), (u16, String)> {
        if open.kind != TunnelKind::Http {
            return Err((
                Code::TUNNEL_KIND.number,
                "this edge carries HTTP tunnels only".into(),
            ));
        }
        if let Some(login) = &open.auth {
            // What it costs to check is the agent's choice, within bounds.
            check_login(login).map_err(|why| (Code::BAD_AUTH.number, why.to_string()))?;
        }
        match &self.admitted.scope {
            Some(scope) if *scope != open.name => Err((
                Code::TUNNEL_REFUSED.number,
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
