//! An agent that may choose what its link's bytes travel in.

use adit_model::Carrier;

use super::edge::secret;
use super::{Running, World};
use crate::AgentEvent;

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
