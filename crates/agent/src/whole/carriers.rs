//! An agent that may choose what its link's bytes travel in.

use std::time::{Duration, Instant};

use adit_model::Carrier;
use tokio::net::UdpSocket;

use super::edge::secret;
use super::{Running, World};
use crate::{AgentEvent, Carries};

impl Running {
    /// By which carrier the next link came up.
    async fn connected(&mut self) -> Carrier {
        self.event(|event| match event {
            AgentEvent::Connected { carrier, .. } => Some(carrier),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn a_carrier_whose_links_are_cut_again_and_again_is_tried_last() {
    let mut world = World::new().await;
    world.edge.open_quic();
    {
        let mut policy = world.edge.policy();
        (policy.cut, policy.hand_out) = (Some(Carrier::Tcp), Some(secret(2)));
        policy.secrets.push(secret(2));
    }
    let mut agent = world.agent();
    // One may be an edge that restarts.
    assert_eq!(agent.connected().await, Carrier::Tcp);
    assert_eq!(agent.connected().await, Carrier::Tcp);
    assert_eq!(agent.connected().await, Carrier::Quic);
    while world.edge.next().await.link.facts().carrier != Carrier::Quic {}
    assert_eq!(world.edge.dials(), 3);
    // It serves, and is remembered for this network.
    agent.stop().await;
    let mut agent = world.agent();
    assert_eq!(agent.connected().await, Carrier::Quic);
    agent.live().await;
    agent.stop().await;
}

/// An agent that likes QUIC best, for its datagrams.
fn with_datagrams(world: &World) -> Running {
    let mut settings = world.settings();
    settings.tunnels[0].carries = Carries::Datagrams {
        target: world.target.parse().unwrap(),
        port: None,
    };
    Running::start(settings)
}

#[tokio::test]
async fn a_network_that_swallows_udp_costs_a_second() {
    let mut world = World::new().await;
    let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = hole.local_addr().unwrap().port();
    world.edge.tell_door(Carrier::Quic, port);
    let began = Instant::now();
    let mut agent = with_datagrams(&world);
    assert_eq!(agent.connected().await, Carrier::Tcp);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    let joined = world.edge.next().await;
    assert_eq!(joined.link.facts().carrier, Carrier::Tcp);
    assert_eq!((world.edge.dials(), world.edge.proofs()), (1, 1));
    agent.stop().await;
}

#[tokio::test]
async fn a_carrier_that_connects_and_is_silent_is_left_behind() {
    let mut world = World::new().await;
    world.edge.open_quic();
    world.edge.policy().silent = Some(Carrier::Tcp);
    let began = Instant::now();
    let mut agent = world.agent();
    assert_eq!(agent.connected().await, Carrier::Quic);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    world.edge.next().await;
    // Both were asked; one was told who this agent is.
    assert_eq!((world.edge.dials(), world.edge.proofs()), (2, 1));
    agent.stop().await;
}

#[tokio::test]
async fn one_link_is_enough_where_two_would_come_up() {
    let mut world = World::new().await;
    world.edge.open_quic();
    {
        // The second begins while the first waits, and both are answered.
        let mut policy = world.edge.policy();
        policy.late = Some((Carrier::Tcp, Duration::from_millis(4050)));
    }
    let mut agent = world.agent();
    let carrier = agent.connected().await;
    let joined = world.edge.next().await;
    assert_eq!(joined.link.facts().carrier, carrier);
    assert_eq!(world.edge.proofs(), 1, "one was told who this agent is");
    agent.live().await;
    agent.stop().await;
}

/// It says nothing of what the network lets through, and not what its owner
/// wants the next time.
#[tokio::test]
async fn a_carrier_that_was_forced_is_not_remembered() {
    let mut world = World::new().await;
    world.edge.open_quic();
    {
        let mut policy = world.edge.policy();
        policy.hand_out = Some(secret(2));
        policy.secrets.push(secret(2));
    }
    for (only, wanted) in [
        (Some(Carrier::Quic), Carrier::Quic),
        (None, Carrier::Tcp),
        (Some(Carrier::Quic), Carrier::Quic),
        (None, Carrier::Tcp),
    ] {
        let mut settings = world.settings();
        settings.carriage.only = only;
        let mut agent = Running::start(settings);
        assert_eq!(agent.connected().await, wanted, "{only:?}");
        world.edge.next().await;
        agent.live().await;
        agent.stop().await;
    }
}
