//! Two sides of a link, joined by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link_proto::{
    AgentEvent, AgentFresh, AgentHandshake, EdgeEvent, EdgeFresh, EdgeHandshake, FIRST_LEN, First,
    PskKeys, Session, Suites, Timing,
};
use adit_model::{Identity, InstanceId, LinkId, Pin, Psk, PublicKey};
use adit_wire::AuthOk;

pub(crate) const UNIX: u64 = 1_700_000_000;
pub(crate) const AES: Suites = Suites { aes: true };
pub(crate) const CHACHA: Suites = Suites { aes: false };

pub(crate) fn identity(seed: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed([seed; 32]).unwrap())
}

pub(crate) fn psk(seed: u8) -> PskKeys {
    PskKeys::new(&Psk::from_random([seed; 32]))
}

pub(crate) fn pin() -> Pin {
    Pin::parse("ABC234").unwrap()
}

pub(crate) fn welcome() -> AuthOk {
    AuthOk {
        link: LinkId(7),
        agent_secret: Some(Psk::from_random(std::array::from_fn(|i| {
            (i * 91 + 5) as u8
        }))),
        url_pattern: "http://{name}.localhost:8080".into(),
        heartbeat_ms: 10_000,
        dead_ms: 20_000,
        idle_channels: 4,
        max_channels: 1000,
        version: "0.1.0".into(),
        doors: Vec::new(),
    }
}

pub(crate) fn agent(keys: &PskKeys, edge: PublicKey, suites: Suites) -> AgentHandshake {
    let fresh = AgentFresh {
        ephemeral: [21; 32],
        nonce: [22; 16],
    };
    let id = InstanceId([23; 16]);
    AgentHandshake::start(keys, edge, identity(2), id, UNIX, fresh, suites, "0.1.0").unwrap()
}

pub(crate) fn edge_fresh() -> EdgeFresh {
    EdgeFresh {
        ephemeral: [31; 32],
        nonce: [32; 16],
    }
}

pub(crate) fn first_of(agent: &mut AgentHandshake) -> First {
    let bytes: [u8; FIRST_LEN] = agent.poll_transmit().unwrap().try_into().unwrap();
    First::parse(&bytes)
}

pub(crate) fn edge(keys: &PskKeys, first: &First, suites: Suites, now: Instant) -> EdgeHandshake {
    let identity = identity(1);
    let proved = first.prove_link(keys, &identity.public()).unwrap();
    EdgeHandshake::start(&proved, keys, &identity, edge_fresh(), suites, now).unwrap()
}

/// An agent and an edge after the agent has proved itself.
pub(crate) fn proved(
    agent_has: Suites,
    edge_has: Suites,
    now: Instant,
) -> (AgentHandshake, EdgeHandshake) {
    let keys = psk(9);
    let mut agent = agent(&keys, identity(1).public(), agent_has);
    let first = first_of(&mut agent);
    let mut edge = edge(&keys, &first, edge_has, now);
    agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
    edge.handle_input(&agent.poll_transmit().unwrap()).unwrap();
    let Some(EdgeEvent::AgentProved { identity: who, .. }) = edge.poll_event() else {
        panic!("agent did not prove itself");
    };
    assert_eq!(who, identity(2).public());
    (agent, edge)
}

pub(crate) fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_secs(10),
        dead: Duration::from_secs(20),
    }
}

pub(crate) struct Pair {
    pub(crate) agent: Session,
    pub(crate) edge: Session,
    pub(crate) now: Instant,
}

/// A live link, with a PIN on the way.
pub(crate) fn live(agent_has: Suites, edge_has: Suites) -> Pair {
    let now = Instant::now();
    let (mut agent, mut edge) = proved(agent_has, edge_has, now);
    edge.ask_pin().unwrap();
    agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
    assert_eq!(agent.poll_event(), Some(AgentEvent::PinWanted));
    agent.offer_pin(&pin()).unwrap();
    edge.handle_input(&agent.poll_transmit().unwrap()).unwrap();
    let Some(EdgeEvent::PinOffered(proof)) = edge.poll_event() else {
        panic!("no PIN was offered");
    };
    assert!(proof.matches(&pin()));
    assert!(!proof.matches(&Pin::parse("ABC235").unwrap()));
    let (bytes, edge) = edge.admit(&welcome(), timing(), now).unwrap();
    agent.handle_input(&bytes).unwrap();
    assert_eq!(agent.poll_event(), Some(AgentEvent::Live));
    let (told, agent) = agent.finish(now).unwrap();
    assert_eq!(told, welcome());
    Pair { agent, edge, now }
}

impl Pair {
    /// Moves bytes until both sides are quiet.
    pub(crate) fn settle(&mut self) {
        loop {
            let to_edge = self.agent.control.poll_transmit();
            let to_agent = self.edge.control.poll_transmit();
            if let Some(bytes) = &to_edge {
                self.edge.control.handle_input(bytes, self.now).unwrap();
            }
            if let Some(bytes) = &to_agent {
                self.agent.control.handle_input(bytes, self.now).unwrap();
            }
            if to_edge.is_none() && to_agent.is_none() {
                return;
            }
        }
    }
}
