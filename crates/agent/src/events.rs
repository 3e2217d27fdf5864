//! What an agent tells whoever started it, and how it never waits for them.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use adit_model::{Carrier, Code, ConnId, PublicKey, TunnelName};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use crate::standing::Standing;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// A dial begins.
    Connecting {
        /// `host:port` of the edge's link doors.
        addresses: Vec<String>,
    },
    /// The link is live; the tunnels are being opened.
    Connected {
        /// The key that the edge proved.
        edge: PublicKey,
        /// The address that answered.
        peer: SocketAddr,
        /// What the link's bytes travel in.
        carrier: Carrier,
        /// The edge's program version.
        version: String,
    },
    /// Visitors reach a tunnel.
    Live {
        /// Which.
        tunnel: TunnelName,
        /// Where visitors find it.
        url: String,
        /// Where it leads.
        target: String,
    },
    /// A target's certificate is not checked, as its settings say.
    InsecureTarget {
        /// Whose.
        tunnel: TunnelName,
        /// Which.
        target: String,
    },
    /// The link ended or could not be made; the agent dials again.
    Lost {
        /// Stable code of the cause.
        code: Code,
        /// The cause.
        why: String,
        /// When.
        retry_in: Duration,
    },
    /// The edge did not admit this agent.
    Refused(Refusal),
    /// The edge did not open a tunnel, or closed it.
    TunnelRefused {
        /// Which.
        tunnel: TunnelName,
        /// The edge's stable code; 0 for none.
        code: u16,
        /// The edge's words.
        text: String,
        /// When it is asked again.
        retry_in: Duration,
    },
    /// The edge says that a tunnel is open but does not serve.
    TunnelTrouble {
        /// Which.
        tunnel: TunnelName,
        /// The edge's stable code; 0 for none.
        code: u16,
        /// The edge's words.
        text: String,
    },
    /// A visitor's stream came or went. May be left out when many do.
    Visitor(Visitor),
    /// The service behind a tunnel does not serve; at most one each few
    /// seconds a tunnel.
    TargetTrouble {
        /// Which tunnel.
        tunnel: TunnelName,
        /// Stable code of the cause.
        code: Code,
        /// The cause, with the target's name.
        why: String,
    },
    /// Another process has taken this agent's place; it ends.
    Superseded,
    /// The edge is going away; the agent moves to the next.
    Draining {
        /// How long the edge lets open streams go on.
        seconds: u32,
    },
    /// Another edge answered than the one that is pinned; the agent ends.
    EdgeKeyChanged {
        /// The pinned key.
        expected: PublicKey,
        /// The key that was proved.
        presented: PublicKey,
    },
    /// Something could not be saved; the agent goes on without.
    NotSaved {
        /// What, where and why.
        why: String,
    },
    /// A measured round trip on the link. May be left out.
    Rtt(Duration),
    /// The agent was told to stop and waits for open streams.
    Stopping {
        /// How many there are.
        streams: usize,
    },
}

/// One visitor's stream.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// On which tunnel.
    pub tunnel: TunnelName,
    /// From where.
    pub address: SocketAddr,
    /// Its number on the edge.
    pub conn: ConnId,
    /// Whether it came or went.
    pub change: VisitorChange,
    /// Streams now open on the tunnel.
    pub open: u32,
    /// Streams since the agent started.
    pub ever: u64,
}

/// What happened to a visitor's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisitorChange {
    /// It began.
    Opened,
    /// It ended.
    Closed {
        /// Bytes from the visitor to the target.
        to_target: u64,
        /// Bytes from the target to the visitor.
        to_visitor: u64,
        /// Whether both directions ended in order.
        clean: bool,
    },
}

/// How an edge did not admit an agent. The exact cause stands in the edge's
/// log only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the edge said no, or nothing at all.
    pub kind: RefusalKind,
    /// The agent showed the secret that this edge once handed to it, rather
    /// than the join string.
    pub own_secret: bool,
    /// When the agent tries again; `None` when it ends.
    pub retry_in: Option<Duration>,
}

/// Whether the edge said no, or nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// It knows the secret and refused.
    Said,
    /// It would admit this agent if there was room.
    Full,
    /// It took the connection and stayed silent.
    Silent,
}

impl Refusal {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.kind {
            RefusalKind::Said => Code::REFUSED,
            RefusalKind::Full => Code::EDGE_FULL,
            RefusalKind::Silent => Code::EDGE_SILENT,
        }
    }

    /// What to do, in lines; with several possible causes each is a perhaps.
    #[must_use]
    pub fn remedies(&self) -> Vec<String> {
        match self.causes() {
            [one] => vec![(*one).to_owned()],
            many => many
                .iter()
                .map(|cause| format!("perhaps {cause}"))
                .collect(),
        }
    }

    /// The possible causes, each with who must act.
    #[must_use]
    pub fn causes(&self) -> &'static [&'static str] {
        match (self.kind, self.own_secret) {
            (RefusalKind::Said, false) => &[
                "the PIN was wrong or is not the current one: read it on the edge's console",
                "this agent's key is not on the edge's list: its owner must add it",
                "the one-time join string was used by another agent: ask the edge's owner for a new one",
            ],
            (RefusalKind::Said, true) => &[
                "the PIN was wrong or is not the current one: read it on the edge's console",
                "the edge's owner has revoked this agent: run adit edge forget, then join again with a new join string",
            ],
            (RefusalKind::Full, _) => &[
                "nothing is wrong here; the edge's owner must stop one of the others, or raise max_agents under [admission]",
            ],
            (RefusalKind::Silent, false) => &[
                "the join string is no longer valid, or of another edge: ask the edge's owner for a new one",
                "the clocks of this machine and of the edge differ by more than 35 seconds: set them",
                "this address is banned for a while after wrong PINs: wait",
                "something else than an edge listens at that address: check it with the edge's owner",
            ],
            (RefusalKind::Silent, true) => &[
                "the edge's owner has revoked this agent: run adit edge forget, then join again with a new join string",
                "the clocks of this machine and of the edge differ by more than 35 seconds: set them",
                "this address is banned for a while after wrong PINs: wait",
                "something else than an edge listens at that address: check it with the edge's owner",
            ],
        }
    }
}

/// Events that wait for a slow listener, the newest kept.
const WAITING: usize = 256;

/// Hands events over without ever waiting: a terminal that was stopped must
/// not stop the tunnels.
#[derive(Debug)]
pub(crate) struct Teller {
    /// How things stand by what was told, heard or not.
    pub(crate) standing: Standing,
    out: mpsc::Sender<AgentEvent>,
    waiting: Mutex<VecDeque<AgentEvent>>,
    /// The newest of each tunnel's visitors for whom there was no room.
    visitors: Mutex<HashMap<TunnelName, Visitor>>,
    added: Notify,
}

impl Teller {
    pub(crate) fn new(out: mpsc::Sender<AgentEvent>) -> Self {
        Self {
            standing: Standing::default(),
            out,
            waiting: Mutex::default(),
            visitors: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// An event that matters: kept until there is room for it.
    pub(crate) fn tell(&self, event: AgentEvent) {
        self.standing.take(&event);
        let mut waiting = self.waiting();
        if waiting.len() == WAITING {
            waiting.pop_front();
        }
        waiting.push_back(event);
        drop(waiting);
        self.added.notify_one();
    }

    /// An event that nobody misses when there are too many.
    pub(crate) fn mention(&self, event: AgentEvent) {
        self.standing.take(&event);
        if self.waiting().is_empty() {
            // Full or closed: then it is left out.
            drop(self.out.try_send(event));
        }
    }

    /// A visitor came or went. Of many the newest of a tunnel is told, which
    /// has the tunnel's true counts.
    pub(crate) fn visitor(&self, visitor: Visitor) {
        let mut visitors = self.visitors();
        if visitors.is_empty() && self.waiting().is_empty() {
            match self.out.try_send(AgentEvent::Visitor(visitor)) {
                Err(TrySendError::Full(AgentEvent::Visitor(visitor))) => {
                    visitors.insert(visitor.tunnel.clone(), visitor);
                }
                // Told, or nobody listens.
                _ => return,
            }
        } else {
            visitors.insert(visitor.tunnel.clone(), visitor);
        }
        drop(visitors);
        self.added.notify_one();
    }

    /// Hands waiting events over; never ends.
    pub(crate) async fn deliver(&self) {
        loop {
            while !self.waiting().is_empty() || !self.visitors().is_empty() {
                match self.out.reserve().await {
                    Ok(permit) => {
                        if let Some(event) = self.next() {
                            permit.send(event);
                        }
                    }
                    // Nobody listens.
                    Err(_) => {
                        self.waiting().clear();
                        self.visitors().clear();
                    }
                }
            }
            self.added.notified().await;
        }
    }

    /// Hands over what there is room for, at the end.
    pub(crate) fn last_words(&self) {
        while let Some(event) = self.next() {
            if self.out.try_send(event).is_err() {
                break;
            }
        }
    }

    /// What matters goes first.
    fn next(&self) -> Option<AgentEvent> {
        if let Some(event) = self.waiting().pop_front() {
            return Some(event);
        }
        let mut visitors = self.visitors();
        let tunnel = visitors.keys().next()?.clone();
        visitors.remove(&tunnel).map(AgentEvent::Visitor)
    }

    fn visitors(&self) -> std::sync::MutexGuard<'_, HashMap<TunnelName, Visitor>> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<AgentEvent>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_stops_loses_the_oldest_only() {
        let (out, mut events) = mpsc::channel(1);
        let teller = Teller::new(out);
        for seconds in 0..300 {
            teller.tell(AgentEvent::Draining { seconds });
        }
        teller.mention(AgentEvent::Superseded);
        let mut seen = Vec::new();
        while seen.len() < WAITING {
            tokio::select! {
                () = teller.deliver() => {}
                event = events.recv() => match event.unwrap() {
                    AgentEvent::Draining { seconds } => seen.push(seconds),
                    other => panic!("{other:?}"),
                },
            }
        }
        assert_eq!(seen, (44..300).collect::<Vec<_>>());
        teller.mention(AgentEvent::Superseded);
        assert!(matches!(events.recv().await, Some(AgentEvent::Superseded)));
    }

    fn visitor(ever: u64) -> Visitor {
        Visitor {
            tunnel: TunnelName::parse("app").unwrap(),
            address: "192.0.2.7:4660".parse().unwrap(),
            conn: ConnId(ever),
            change: VisitorChange::Opened,
            open: 1,
            ever,
        }
    }

    #[tokio::test]
    async fn of_many_visitors_the_last_is_told() {
        let (out, mut events) = mpsc::channel(2);
        let teller = Teller::new(out);
        (1..=100).for_each(|ever| teller.visitor(visitor(ever)));
        let mut told = Vec::new();
        while told.last() != Some(&100) {
            tokio::select! {
                () = teller.deliver() => {}
                event = events.recv() => match event.unwrap() {
                    AgentEvent::Visitor(visitor) => told.push(visitor.ever),
                    other => panic!("{other:?}"),
                },
            }
        }
        assert_eq!(told, [1, 2, 100]);
        teller.visitor(visitor(101));
        assert!(matches!(events.recv().await, Some(AgentEvent::Visitor(_))));
    }
}
