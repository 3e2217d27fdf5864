//! An edge that is away: how often it is tried, and how soon it is found.

use std::time::{Duration, Instant};

use adit_model::{Code, JoinString};
use adit_wire::{Drain, Message};

use super::{Running, World, settings};
use crate::{AgentError, AgentEvent, PinFrom};

async fn lost(agent: &mut Running) -> (Code, Duration) {
    agent
        .event(|event| match event {
            AgentEvent::Lost { code, retry_in, .. } => Some((code, retry_in)),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn an_edge_that_was_away_for_long_is_found_within_two_seconds() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    world.edge.next().await;
    agent.live().await;
    world.edge.kill().await;
    let killed = Instant::now();
    assert_eq!(lost(&mut agent).await.0, Code::LINK_LOST);
    // Doubling pauses would stand above four seconds by then.
    while killed.elapsed() < Duration::from_secs(5) {
        let (code, retry_in) = lost(&mut agent).await;
        assert_eq!(code, Code::EDGE_UNREACHABLE);
        assert!(retry_in <= Duration::from_secs(1), "{retry_in:?}");
    }
    world.edge.restart().await;
    let back = Instant::now();
    world.edge.next().await;
    agent.live().await;
    let took = back.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_name_without_an_address_is_told_as_such() {
    let world = World::new().await;
    let join = JoinString {
        addresses: vec!["edge.invalid:7400".to_owned()],
        doors: Vec::new(),
        ..world.edge.join_string()
    };
    let data = world.data.path();
    let mut agent = Running::start(settings(Some(join.clone()), data, &["9".to_owned()]));
    assert_eq!(lost(&mut agent).await.0, Code::EDGE_NAME_UNKNOWN);
    agent.stop().await;
    let error = crate::join(
        join,
        data.to_owned(),
        PinFrom::Nowhere,
        crate::Carriage::default(),
    )
    .await;
    let error = error.map(|_| ()).unwrap_err();
    assert!(matches!(&error, AgentError::Unreachable { why, .. } if why.contains("edge.invalid")));
    assert_eq!(error.code(), Code::EDGE_NAME_UNKNOWN);
}

#[tokio::test]
async fn an_edge_that_sends_away_again_and_again_sends_nobody_in_circles() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let (began, mut links) = (Instant::now(), Vec::new());
    for _ in 0..9 {
        let joined = world.edge.next().await;
        agent.live().await;
        // It never ends the link that it sends away.
        joined.link.send(Message::Drain(Drain {
            seconds: u32::MAX,
            addresses: vec![world.edge.address.to_string()],
        }));
        links.push(joined);
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(3), "{took:?}");
    let kept = || links.iter().filter(|old| !old.link.ended().is_cancelled());
    let until = Instant::now() + Duration::from_secs(5);
    while kept().count() > 5 {
        assert!(Instant::now() < until, "{} links", kept().count());
        tokio::task::yield_now().await;
    }
    agent.stop.cancel();
}
