use std::net::SocketAddr;
use std::sync::Arc;

use adit_link_proto::{
    AgentEvent, AgentFresh, AgentHandshake, EdgeEvent, EdgeFresh, EdgeHandshake, First, Opener,
    PskKeys, Role, Sealer, SessionKeys, Suite, Suites, Timing, TrunkKeys,
};
use adit_model::{Carrier, Identity, InstanceId, LinkId, Psk};
use adit_wire::AuthOk;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::edge::LinkFacts;
use crate::trunk::Trunk;

/// Of a handshake between two sides in this process.
fn keys() -> Arc<SessionKeys> {
    let psk = PskKeys::new(&Psk::from_random(std::array::from_fn(|i| {
        (i * 29 + 3) as u8
    })));
    let [edge, agent] = [[1; 32], [2; 32]].map(|seed| Identity::from_seed(seed).unwrap());
    let (suites, now) = (Suites { aes: false }, std::time::Instant::now());
    let fresh = AgentFresh {
        ephemeral: [21; 32],
        nonce: [22; 16],
    };
    let (who, instance) = (Arc::new(agent), InstanceId([3; 16]));
    let mut agent =
        AgentHandshake::start(&psk, edge.public(), who, instance, 9, fresh, suites, "test")
            .unwrap();
    let first = First::parse(&agent.poll_transmit().unwrap().try_into().unwrap());
    let proved = first.prove_link(&psk, &edge.public()).unwrap();
    let fresh = EdgeFresh {
        ephemeral: [31; 32],
        nonce: [32; 16],
    };
    let mut edge = EdgeHandshake::start(&proved, &psk, &edge, fresh, suites, now).unwrap();
    agent.handle_input(&edge.poll_transmit().unwrap()).unwrap();
    edge.handle_input(&agent.poll_transmit().unwrap()).unwrap();
    assert!(matches!(
        edge.poll_event(),
        Some(EdgeEvent::AgentProved { .. })
    ));
    let welcome = AuthOk {
        link: LinkId(7),
        agent_secret: None,
        url_pattern: "http://{name}.test".into(),
        heartbeat_ms: 500,
        dead_ms: 3000,
        idle_channels: 8,
        max_channels: 64,
        version: "test".into(),
        doors: Vec::new(),
    };
    let timing = Timing {
        heartbeat: Duration::from_secs(10),
        dead: Duration::from_secs(20),
    };
    let (bytes, session) = edge.admit(&welcome, timing, now).unwrap();
    agent.handle_input(&bytes).unwrap();
    assert_eq!(agent.poll_event(), Some(AgentEvent::Live));
    session.keys
}

/// A link without an agent, as many of its idle channels and lines as a test
/// wants, and the other ends of the former.
struct World {
    link: Arc<EdgeLink>,
    trunk: Arc<Trunk>,
    far: Vec<TcpStream>,
}

impl World {
    async fn new(connections: usize, lines: usize) -> Self {
        let facts = LinkFacts {
            id: LinkId(7),
            identity: Identity::from_seed([2; 32]).unwrap().public(),
            instance: InstanceId([3; 16]),
            peer: SocketAddr::from(([127, 0, 0, 1], 9)),
            carrier: Carrier::Tcp,
            max_channels: 64,
            idle_channels: 8,
            workers: 2,
        };
        let link = EdgeLink::new(facts, keys(), Arc::default());
        let keys = TrunkKeys::new(Suite::ChaCha20Poly1305, (1, 0), [7; 32]);
        let trunk = Trunk::new((keys, Role::Edge), 64, Arc::default());
        let mut world = Self {
            link,
            trunk,
            far: Vec::new(),
        };
        for _ in 0..connections {
            let channel = world.connection().await;
            world.link.place(channel);
        }
        for _ in 0..lines {
            world.link.lines.give(world.trunk.open().unwrap());
        }
        world
    }

    async fn connection(&mut self) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        self.far.push(far.unwrap().0);
        let suite = Suite::ChaCha20Poly1305;
        let keys = (
            Sealer::new(suite, [2; 32]).unwrap(),
            Opener::new(suite, [1; 32]).unwrap(),
        );
        Channel::new(near.unwrap(), keys, Arc::default())
    }

    /// So many are wanted, and of those that wait so many were never used for a
    /// minute: what is kept of connections and lines.
    fn after_a_minute(&self, wanted: u16, unused: usize) -> (usize, usize) {
        self.link.wanted.store(wanted, Ordering::Relaxed);
        self.link.least_idle.store(unused, Ordering::Relaxed);
        let before = Instant::now().checked_sub(RESIZE_EVERY).unwrap();
        *lock(&self.link.resized) = before;
        self.link.sweep();
        (self.link.idle_connections(), self.link.lines.idle())
    }
}

/// What waits on lines is no channel too many: it costs no connection, and the
/// pool for what goes by connections of its own would be empty on busy links.
#[tokio::test]
async fn a_pool_is_trimmed_by_its_connections_and_not_by_idle_lines() {
    let world = World::new(6, 20).await;
    // Half of what was not used is no longer wanted: two connections close.
    assert_eq!(world.after_a_minute(6, 4), (4, 20));
    assert_eq!(world.link.idle(), 24);
    // As many as are wanted, and all were used: they stay.
    assert_eq!(world.after_a_minute(4, 0), (4, 20));
    // Nobody came by connections for minutes: they go, and lines stay.
    let mut kept = Vec::new();
    for wanted in [4, 2, 1] {
        kept.push(world.after_a_minute(wanted, usize::from(wanted)));
    }
    assert_eq!(kept, [(2, 20), (1, 20), (0, 20)]);
}

/// The lines have a time of their own, whatever the pool wants.
#[tokio::test(start_paused = true)]
async fn lines_that_nobody_used_are_closed_beside_a_pool_that_stays() {
    let mut world = World::new(3, 5).await;
    assert_eq!(world.after_a_minute(3, 0), (3, 5));
    tokio::time::advance(Duration::from_secs(15)).await;
    let young = world.trunk.open().unwrap();
    world.link.lines.give(young);
    let channel = world.connection().await;
    world.link.place(channel);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(world.after_a_minute(4, 0), (4, 1));
}

/// A pool that is large beside lines that wait takes back no more than it keeps.
#[tokio::test]
async fn what_comes_back_is_kept_up_to_what_is_wanted_beside_any_lines() {
    let mut world = World::new(0, 20).await;
    world.link.wanted.store(2, Ordering::Relaxed);
    for _ in 0..2 + SLACK + 5 {
        let channel = world.connection().await;
        world.link.place(channel);
    }
    assert_eq!(world.link.idle_connections(), 2 + SLACK);
    assert_eq!(world.link.lines.idle(), 20);
}
