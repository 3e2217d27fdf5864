//! A TCP tunnel: bytes in any order, each end on its own, and only where the
//! agent's own list allows.

use std::future::poll_fn;
use std::num::NonZeroU16;
use std::task::Poll;

use adit_link::StreamIo;
use adit_model::Code;
use adit_wire::TunnelKind;

use super::*;
use crate::settings::TunnelSettings;

fn tcp(world: &World, port: Option<u16>) -> AgentSettings {
    let mut settings = world.settings();
    settings.tunnels[0] = TunnelSettings {
        name: None,
        carries: Carries::tcp(
            world.target.parse().unwrap(),
            port.and_then(NonZeroU16::new),
        ),
        exclusive: false,
        compression: None,
    };
    settings
}

#[tokio::test]
async fn a_tcp_tunnel_is_opened_as_one_and_the_edge_says_where_it_is() {
    let mut world = World::new().await;
    for (port, url) in [
        (Some(2222), "tcp://edge.example.test:2222"),
        (None, "tcp://edge.example.test:20000"),
    ] {
        let mut agent = Running::start(tcp(&world, port));
        let open = world.edge.next().await.opened().await;
        assert_eq!(open.kind, TunnelKind::Tcp);
        assert_eq!(open.port.map(NonZeroU16::get), port);
        assert_eq!((open.host_header, open.auth), (None, None));
        assert_eq!(open.target, world.target, "no scheme");
        assert_eq!(agent.live().await, (open.name, url.to_owned()));
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_random_name_is_remembered_for_each_kind_alone() {
    let mut world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/app.sock", dir.path().display());
    let mut names = Vec::new();
    for is_tcp in [false, true, false, true] {
        let mut settings = world.settings();
        settings.tunnels[0].carries = if is_tcp {
            let target = socket.parse().unwrap();
            Carries::tcp(target, None)
        } else {
            Carries::http(socket.parse().unwrap())
        };
        let mut agent = Running::start(settings);
        world.edge.next().await;
        names.push(agent.live().await.0);
        agent.stop().await;
    }
    assert_ne!(names[0], names[1]);
    assert_eq!(names[..2], names[2..]);
}

/// An agent with a TCP tunnel, a visitor that has said nothing, and what the
/// service has of it: the edge asks for the stream before.
async fn visited(world: &mut World) -> (Running, StreamIo, TcpStream) {
    let mut agent = Running::start(tcp(world, None));
    let joined = world.edge.next().await;
    agent.live().await;
    let mut visitor = joined.io(1).await;
    visitor.flush().await.unwrap();
    let service = world.served().await;
    (agent, visitor, service)
}

#[tokio::test]
async fn a_service_that_greets_first_is_heard_first() {
    let mut world = World::new().await;
    let (agent, mut visitor, mut service) = visited(&mut world).await;
    service.write_all(b"SSH-2.0-service\r\n").await.unwrap();
    let mut greeting = [0; 17];
    visitor.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-service\r\n");

    // The visitor's end is an end for the service, which goes on speaking.
    visitor.write_all(b"bye").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut said = String::new();
    service.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "bye");
    service.write_all(b"and all the rest").await.unwrap();
    drop(service);
    let mut rest = String::new();
    visitor.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "and all the rest");
    assert!(visitor.0.end().await.is_some(), "the channel is used again");
    agent.stop().await;
}

#[tokio::test]
async fn a_service_that_says_nothing_has_taken_its_visitor_all_the_same() {
    let mut world = World::new().await;
    let (agent, mut visitor, _service) = visited(&mut world).await;
    let taken = poll_fn(|cx| match visitor.0.poll_fill(cx) {
        Poll::Pending if visitor.0.accepted() => Poll::Ready(()),
        found => found.map(|found| panic!("{found:?}")),
    });
    tokio::time::timeout(Duration::from_secs(1), taken)
        .await
        .expect("the answer waits for the service only for a moment");
    // Or its agent would wait for it.
    drop(visitor);
    agent.stop().await;
}

#[tokio::test]
async fn a_service_that_ends_first_still_listens() {
    let mut world = World::new().await;
    let (agent, mut visitor, mut service) = visited(&mut world).await;
    service.write_all(b"send it").await.unwrap();
    service.shutdown().await.unwrap();
    let mut said = String::new();
    visitor.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "send it");
    visitor.write_all(b"all of it").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut heard = String::new();
    service.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "all of it");
    assert!(visitor.0.end().await.is_some(), "the channel is used again");
    agent.stop().await;
}

#[tokio::test]
async fn what_the_agents_own_list_forbids_is_never_connected() {
    let mut world = World::new().await;
    let mut settings = tcp(&world, None);
    let entry = "10.0.0.0/8".parse().unwrap();
    settings.allowed_targets = AllowedTargets::only(vec![entry]);
    let mut agent = Running::start(settings);
    let joined = world.edge.next().await;
    agent.live().await;
    let error = broken(joined.stream(1).await).await;
    let StreamError::Reset { reason, delivered } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (reason, delivered),
        (ResetReason::TargetRefused, Delivered::None)
    );
    let (code, why) = agent
        .event(|event| match event {
            AgentEvent::TargetTrouble { code, why, .. } => Some((code, why)),
            _ => None,
        })
        .await;
    assert_eq!(code, Code::TARGET_FORBIDDEN);
    assert!(why.contains("allowed_targets"), "{why}");
    let knocked = world.service.into_std().unwrap().accept();
    assert_eq!(
        knocked.unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "nobody knocked"
    );
    agent.stop().await;
}
