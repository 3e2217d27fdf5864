use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::run::Ready;
use crate::settings::PinFrom;
use crate::whole::edge::TestEdge;

async fn agent_of(edge: &TestEdge, data: &Path, target: &str) -> Agent {
    let (unheard, _) = mpsc::channel(1);
    let teller = Arc::new(Teller::new(unheard));
    let settings = crate::whole::settings(None, data, &[target.to_owned()]);
    let tunnels = (settings.tunnels, settings.allowed_targets);
    let ready = Ready::prepare(Some(edge.join_string()), data.to_owned(), tunnels);
    let ready = ready.await.unwrap();
    let dial = ready.dial_config(Arc::clone(&teller)).unwrap();
    let pins = Pins::new(PinFrom::Nowhere);
    Agent::new(
        ready.known,
        ready.tunnels,
        teller,
        pins,
        dial,
        Carriage::default(),
    )
}

/// Goes on until a dial has ended; an answer that the link got before is not
/// heard as a sign that no other way is needed.
async fn dialled(agent: &mut Agent, stop: &CancellationToken) {
    loop {
        match agent.next_step(stop).await {
            Step::Dialled(Ok((link, streams))) => {
                return agent.on_live(link, streams).await.unwrap();
            }
            Step::Dialled(Err(error)) => return agent.on_failed(error).await.unwrap(),
            Step::Link(LinkEvent::Rtt(_)) => {}
            Step::Link(event) => agent.on_link(event).unwrap(),
            _ => {}
        }
    }
}

#[tokio::test]
async fn another_way_is_taken_at_once_and_the_old_one_ends_when_unused() {
    let mut edge = TestEdge::start().await;
    let data = tempfile::tempdir().unwrap();
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().to_string();
    let mut agent = agent_of(&edge, data.path(), &target).await;
    let stop = CancellationToken::new();
    agent.dial_after(Duration::ZERO, &[]);
    dialled(&mut agent, &stop).await;
    let old = edge.next().await;
    let mut visitor = old.io(1).await;
    visitor.write_all(b"x").await.unwrap();
    visitor.flush().await.unwrap();
    let (mut served, _) = service.accept().await.unwrap();
    served.read_u8().await.unwrap();

    agent.on_network(Change::Route);
    dialled(&mut agent, &stop).await;
    let new = edge.next().await;
    assert_eq!(new.instance, old.instance);
    assert!(agent.link.is_some() && agent.attempt.is_none());

    // The old link's stream goes on to its end, and the link with it.
    served.write_all(b"y").await.unwrap();
    visitor.read_u8().await.unwrap();
    assert!(!old.link.ended().is_cancelled());
    drop(served);
    visitor.shutdown().await.unwrap();
    visitor.0.end().await;
    old.link.ended().cancelled().await;
    assert!(!new.link.ended().is_cancelled());

    // A way that leads nowhere costs nothing: the link still answers.
    edge.policy().refuse = true;
    agent.on_network(Change::Woke);
    dialled(&mut agent, &stop).await;
    assert!(agent.link.is_some() && agent.attempt.is_some());
    while agent.attempt.is_some() {
        match agent.next_step(&stop).await {
            Step::Link(event) => agent.on_link(event).unwrap(),
            Step::Dialled(Err(error)) => agent.on_failed(error).await.unwrap(),
            _ => {}
        }
    }
    assert!(!new.link.ended().is_cancelled());
}

#[tokio::test]
async fn a_change_cuts_the_wait_short() {
    let mut edge = TestEdge::start().await;
    let data = tempfile::tempdir().unwrap();
    let mut agent = agent_of(&edge, data.path(), "9").await;
    let stop = CancellationToken::new();
    agent.dial_after(Duration::from_secs(600), &[]);
    agent.on_network(Change::Woke);
    dialled(&mut agent, &stop).await;
    edge.next().await;
    assert!(agent.link.is_some());
}

#[tokio::test]
async fn a_secret_that_another_process_was_handed_is_used() {
    let mut edge = TestEdge::start().await;
    let data = tempfile::tempdir().unwrap();
    let mut agent = agent_of(&edge, data.path(), "9").await;
    let join = edge.join_string();
    let folder = crate::DataFolder::open(data.path()).unwrap();
    let own = crate::whole::edge::secret(2);
    folder
        .save_secret(&join.edge, &join.addresses, &own)
        .unwrap();
    edge.policy().secrets = vec![own.clone()];
    let stop = CancellationToken::new();
    agent.dial_after(Duration::ZERO, &[]);
    dialled(&mut agent, &stop).await;
    assert!(agent.link.is_none(), "the join string is used up");
    dialled(&mut agent, &stop).await;
    assert_eq!(edge.next().await.secret, own);
}
