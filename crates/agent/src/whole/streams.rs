//! What an agent does for one visitor: both ends of a stream, and its failures.

use super::*;

#[tokio::test]
async fn a_visitor_reaches_the_service_and_both_ends_are_kept() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let mut joined = world.edge.next().await;
    let open = joined.opened().await;
    let (name, url) = agent.live().await;
    assert_eq!(open.name, name);
    assert_eq!(open.target, format!("http://{}", world.target));
    assert_eq!(url, format!("http://{name}.example.test"));

    for round in 1..=3u64 {
        let mut visitor = joined.io(open.tunnel.0).await;
        visitor.write_all(b"question").await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut service = world.served().await;
        let mut asked = String::new();
        service.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        service.write_all(b"an answer").await.unwrap();
        drop(service);
        let mut answer = String::new();
        visitor.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "an answer");
        assert!(
            visitor.0.end().await.is_some(),
            "the channel can be used again"
        );

        let closed = agent
            .event(|event| match event {
                AgentEvent::Visitor(visitor) if visitor.change != VisitorChange::Opened => {
                    Some(visitor)
                }
                _ => None,
            })
            .await;
        let Visitor {
            change, open, ever, ..
        } = closed;
        let expected = VisitorChange::Closed {
            to_target: 8,
            to_visitor: 9,
            clean: true,
        };
        assert_eq!((change, open, ever), (expected, 0, round));
    }
    agent.stop().await;
}

#[tokio::test]
async fn streams_are_carried_on_worker_threads_too() {
    let mut world = World::new().await;
    let mut settings = world.settings();
    settings.workers = 2;
    let mut agent = Running::start(settings);
    let joined = world.edge.next().await;
    agent.live().await;
    let mut visitors = Vec::new();
    for _ in 0..8 {
        visitors.push((joined.io(1).await, None));
    }
    for (visitor, service) in &mut visitors {
        visitor.write_all(b"x").await.unwrap();
        visitor.flush().await.unwrap();
        *service = Some(world.served().await);
    }
    for (mut visitor, service) in visitors {
        let mut service = service.unwrap();
        let mut byte = [0];
        service.read_exact(&mut byte).await.unwrap();
        service.write_all(&byte).await.unwrap();
        visitor.read_exact(&mut byte).await.unwrap();
        visitor.shutdown().await.unwrap();
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_service_that_is_down_is_told_to_both_sides() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let joined = world.edge.next().await;
    agent.live().await;
    let address: std::net::SocketAddr = world.target.parse().unwrap();
    world.service = service().await.0;
    let error = broken(joined.stream(1).await).await;
    let StreamError::Reset { reason, delivered } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (reason, delivered),
        (ResetReason::TargetRefused, Delivered::None)
    );
    let why = agent
        .event(|event| match event {
            AgentEvent::TargetTrouble { why, .. } => Some(why),
            _ => None,
        })
        .await;
    assert!(why.contains(&world.target), "{why}");

    // The tunnel is still there when the service is back.
    world.service = TcpListener::bind(address).await.unwrap();
    let mut visitor = joined.io(1).await;
    visitor.write_all(b"x").await.unwrap();
    visitor.flush().await.unwrap();
    let mut byte = [0];
    world.served().await.read_exact(&mut byte).await.unwrap();
    drop(visitor);
    agent.stop().await;
}

#[tokio::test]
async fn an_edge_reaches_nothing_but_the_agents_own_targets() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let joined = world.edge.next().await;
    agent.live().await;
    for tunnel in [0, 2, u32::MAX] {
        let error = broken(joined.stream(tunnel).await).await;
        let StreamError::Reset { reason, delivered } = error else {
            panic!("{error:?}")
        };
        assert_eq!(
            (reason, delivered),
            (ResetReason::NoSuchTunnel, Delivered::None)
        );
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_visitor_that_gives_up_after_its_question_frees_the_service() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let joined = world.edge.next().await;
    agent.live().await;
    let mut visitor = joined.io(1).await;
    visitor.write_all(b"question").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut service = world.served().await;
    let mut asked = Vec::new();
    service.read_to_end(&mut asked).await.unwrap();
    visitor.0.reset(ResetReason::Cancelled, Delivered::Some);
    // The service, which was thinking, notices on its socket.
    service.ready(Interest::ERROR).await.unwrap();
    assert!(service.take_error().unwrap().is_some());
    agent.stop().await;
}

#[tokio::test]
async fn what_a_service_said_before_it_failed_arrives() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let joined = world.edge.next().await;
    agent.live().await;
    let mut visitor = joined.io(1).await;
    visitor.write_all(b"a long upload").await.unwrap();
    visitor.flush().await.unwrap();
    let mut service = world.served().await;
    let mut some = [0; 1];
    service.read_exact(&mut some).await.unwrap();
    service.write_all(b"too large").await.unwrap();
    let mut early = [0; 9];
    visitor.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"too large");
    SockRef::from(&service)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(service);
    let error = broken(visitor.0).await;
    let StreamError::Reset { reason, delivered } = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (reason, delivered),
        (ResetReason::TargetClosed, Delivered::Some)
    );
    agent.stop().await;
}
