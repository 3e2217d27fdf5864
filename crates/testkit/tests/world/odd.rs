//! Agents that speak the link protocol and do what no agent of ours would.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "code for tests alone, where a panic is how a test fails"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_agent::AgentEvent;
use adit_link::agent::{AgentLink, BoxFuture, DialConfig, LinkEvent, Spot, StreamHandler, dial};
use adit_link::tasks::Tasks;
use adit_link::tls::unverified;
use adit_link::{Channel, Incoming};
use adit_model::{Carrier, Identity, InstanceId, TunnelId, TunnelName};
use adit_testkit::python::Origin;
use adit_testkit::raw::Socket;
use adit_testkit::world::{AgentPlan, World};
use adit_testkit::{curl, wait};
use adit_wire::{Compression, Message, OpenTunnel, ResetReason, TunnelKind, TunnelState};

/// Serves nobody.
struct Nobody;

impl StreamHandler for Nobody {
    fn handle(&self, incoming: Incoming) -> BoxFuture<Option<Channel>> {
        Box::pin(async move {
            incoming.refuse(ResetReason::TargetRefused).await;
            None
        })
    }
}

async fn join(world: &World) -> AgentLink {
    let join = &world.facts().join;
    let spot = Spot {
        carrier: Carrier::Tcp,
        address: join.addresses[0].clone(),
        proxy: None,
    };
    let config = DialConfig {
        spots: vec![spot.clone()],
        tls: unverified().unwrap(),
        edge: join.edge,
        psk: join.credential.psk().clone(),
        identity: Arc::new(Identity::from_seed([9; 32]).unwrap()),
        instance: InstanceId([9; 16]),
        pin: None,
        tunnels: 2,
        handler: Arc::new(Nobody),
        tasks: Tasks::new(),
        workers: Vec::new(),
        counters: Arc::default(),
        version: "odd".to_owned(),
    };
    let peer = spot.address.parse().unwrap();
    dial(&config, &spot, peer, None).await.unwrap()
}

/// Opens the name under this number; what the edge says.
async fn open(link: &mut AgentLink, number: u32) -> TunnelState {
    let sent = link.send(Message::OpenTunnel(OpenTunnel {
        tunnel: TunnelId(number),
        name: TunnelName::parse("app").unwrap(),
        kind: TunnelKind::Http,
        exclusive: false,
        auth: None,
        host_header: None,
        target: "nowhere".to_owned(),
        port: None,
        compression: Compression::Off,
    }));
    assert!(sent);
    loop {
        match link.event().await {
            LinkEvent::Message(Message::TunnelStatus(status)) => {
                assert_eq!(status.tunnel, TunnelId(number));
                return status.state;
            }
            LinkEvent::Lost(why) => panic!("lost: {why:?}"),
            _ => {}
        }
    }
}

/// Otherwise the second would stay in the pool when the first is closed, and
/// whoever takes the name alone afterwards would share its visitors.
#[test]
fn a_name_is_open_once_on_a_link() {
    let world = World::with("[admission]\npin = \"off\"\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut link = runtime.block_on(join(&world));
    runtime.block_on(async {
        assert_eq!(open(&mut link, 1).await, TunnelState::Live);
        assert_eq!(open(&mut link, 2).await, TunnelState::Refused);
        assert!(link.send(Message::CloseTunnel {
            tunnel: TunnelId(1)
        }));
    });
    wait::until_true("the name is free", || {
        world.metric("adit_tunnels_open") == 0.0
    });
    let origin = Origin::start("echo", &["real"]);
    let mut plan = AgentPlan::new(&world, "app", origin.address);
    plan.settings.tunnels[0].exclusive = true;
    let agent = world.start_agent(plan);
    agent.wait("the name", |event| {
        matches!(event, AgentEvent::Live { .. }).then_some(())
    });
    for _ in 0..6 {
        let reply = curl::get(world.http(), "http://app.test/name");
        assert_eq!((reply.status, reply.body.as_str()), (200, "real"));
    }
}

/// One that never proves anything, and one that stops in the middle.
#[test]
fn strangers_do_not_hold_up_the_end_of_an_edge() {
    let mut world = World::new();
    let silent = Socket::dial(world.link());
    let half = Socket::send_to(world.link(), [7; 100]);
    let denied = Socket::send_to(world.link(), [7; 200]);
    wait::until_true("all three are in", || {
        world.metric("adit_link_unproved_open") == 3.0
    });
    let begun = Instant::now();
    assert!(world.stop_edge());
    // So long the edge waits for tasks that do not end by themselves.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop((silent, half, denied));
}
