//! How things stand, by the events that were told: what a question at the
//! control socket is answered from.
//!
//! Bounded: a row for each of the agent's own tunnels and local ports.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_model::{Carrier, Code, PublicKey, TunnelName};

use crate::events::AgentEvent;

/// What events have said.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) link: Option<LiveLink>,
    /// Why there is no link, where that is known; since the first cause.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) stopping: bool,
    places: HashMap<TunnelName, Place>,
}

/// A live link.
#[derive(Clone, Debug)]
pub(crate) struct LiveLink {
    pub(crate) edge: PublicKey,
    pub(crate) peer: SocketAddr,
    pub(crate) carrier: Carrier,
    pub(crate) version: String,
    pub(crate) since: Instant,
    pub(crate) rtt: Option<Duration>,
}

/// A tunnel or a local port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) stand: Stand,
    pub(crate) url: Option<String>,
    /// The last, since it is live.
    pub(crate) trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stand {
    /// For a link, or for the edge's answer.
    #[default]
    Waiting,
    Live,
    Refused,
}

#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) code: Option<Code>,
    pub(crate) text: String,
    pub(crate) since: Instant,
}

impl Trouble {
    fn new(code: Option<Code>, text: &str) -> Option<Self> {
        Some(Self {
            code,
            text: text.to_owned(),
            since: Instant::now(),
        })
    }
}

impl Standing {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event in.
    pub(crate) fn take(&self, event: &AgentEvent) {
        let mut state = self.state();
        match event {
            AgentEvent::Connected {
                edge,
                peer,
                carrier,
                version,
            } => {
                state.leave(None);
                state.link = Some(LiveLink {
                    edge: *edge,
                    peer: *peer,
                    carrier: *carrier,
                    version: version.clone(),
                    since: Instant::now(),
                    rtt: None,
                });
            }
            AgentEvent::Rtt(rtt) => {
                if let Some(link) = &mut state.link {
                    link.rtt = Some(*rtt);
                }
            }
            AgentEvent::Live { tunnel, url, .. } => {
                *state.place(tunnel) = Place {
                    stand: Stand::Live,
                    url: Some(url.clone()),
                    trouble: None,
                };
            }
            AgentEvent::Stopping { .. } => state.stopping = true,
            other => state.take_trouble(other),
        }
    }
}

impl State {
    fn take_trouble(&mut self, event: &AgentEvent) {
        match event {
            AgentEvent::Lost { code, why, .. } => self.leave(Trouble::new(Some(*code), why)),
            AgentEvent::Refused(refusal) => {
                let code = refusal.code();
                self.leave(Trouble::new(Some(code), code.title));
            }
            AgentEvent::Draining { .. } => {
                let code = Code::DRAINING;
                self.leave(Trouble::new(Some(code), code.title));
            }
            AgentEvent::TunnelRefused {
                tunnel, code, text, ..
            } => {
                *self.place(tunnel) = Place {
                    stand: Stand::Refused,
                    url: None,
                    trouble: Trouble::new(Code::from_number(*code), text),
                };
            }
            AgentEvent::TunnelTrouble { tunnel, code, text } => {
                self.place(tunnel).trouble = Trouble::new(Code::from_number(*code), text);
            }
            AgentEvent::TargetTrouble { tunnel, code, why } => {
                self.place(tunnel).trouble = Trouble::new(Some(*code), why);
            }
            _ => {}
        }
    }

    /// There is no link, or another one: nothing is open there yet.
    fn leave(&mut self, trouble: Option<Trouble>) {
        let since = self.trouble.take().map(|earlier| earlier.since);
        self.trouble = trouble.map(|trouble| Trouble {
            since: since.unwrap_or(trouble.since),
            ..trouble
        });
        self.link = None;
        for place in self.places.values_mut() {
            (place.stand, place.url) = (Stand::Waiting, None);
        }
    }

    fn place(&mut self, name: &TunnelName) -> &mut Place {
        self.places.entry(name.clone()).or_default()
    }

    /// How a tunnel or a local port stands.
    pub(crate) fn of(&self, name: &TunnelName) -> Place {
        self.places.get(name).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> AgentEvent {
        AgentEvent::Connected {
            edge: PublicKey([1; 32]),
            peer: SocketAddr::from(([127, 0, 0, 1], 7400)),
            carrier: Carrier::Quic,
            version: "1".to_owned(),
        }
    }

    #[test]
    fn a_tunnel_is_live_as_long_as_its_link() {
        let (standing, app) = (Standing::default(), TunnelName::parse("app").unwrap());
        let stand = || standing.state().of(&app).stand;
        assert_eq!(stand(), Stand::Waiting);
        standing.take(&connected());
        standing.take(&AgentEvent::Rtt(Duration::from_millis(3)));
        standing.take(&AgentEvent::Live {
            tunnel: app.clone(),
            url: "http://app.test".to_owned(),
            target: "localhost:3000".to_owned(),
        });
        assert_eq!(stand(), Stand::Live);
        let link = standing.state().link.clone().unwrap();
        assert_eq!(link.rtt, Some(Duration::from_millis(3)));
        standing.take(&AgentEvent::Lost {
            code: Code::LINK_LOST,
            why: "it was cut".to_owned(),
            retry_in: Duration::ZERO,
        });
        assert_eq!(stand(), Stand::Waiting);
        let state = standing.state();
        assert!(state.link.is_none() && state.of(&app).url.is_none());
        let first = state.trouble.clone().unwrap();
        drop(state);
        standing.take(&AgentEvent::Lost {
            code: Code::EDGE_UNREACHABLE,
            why: "nobody is there".to_owned(),
            retry_in: Duration::ZERO,
        });
        let later = standing.state().trouble.clone().unwrap();
        assert_eq!(
            (&*first.text, &*later.text),
            ("it was cut", "nobody is there")
        );
        assert_eq!(later.since, first.since);
        standing.take(&connected());
        assert_eq!(stand(), Stand::Waiting);
        assert!(standing.state().trouble.is_none());
    }

    #[test]
    fn a_refused_tunnel_says_why_until_it_is_live() {
        let (standing, app) = (Standing::default(), TunnelName::parse("app").unwrap());
        standing.take(&connected());
        standing.take(&AgentEvent::TunnelRefused {
            tunnel: app.clone(),
            code: Code::TUNNEL_REFUSED.number,
            text: "taken".to_owned(),
            retry_in: Duration::from_secs(5),
        });
        let place = standing.state().of(&app);
        assert_eq!(place.stand, Stand::Refused);
        assert_eq!(place.trouble.unwrap().code, Some(Code::TUNNEL_REFUSED));
        standing.take(&AgentEvent::Live {
            tunnel: app.clone(),
            url: "http://app.test".to_owned(),
            target: "localhost:3000".to_owned(),
        });
        assert!(standing.state().of(&app).trouble.is_none());
    }
}
