//! The whole agent against an edge that speaks the real protocol.

mod admission;
mod away;
mod carriers;
pub(crate) mod edge;
mod streams;
mod tcp;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adit_link::tasks::Tasks;
use adit_link::{Stream, StreamError};
use adit_model::{JoinString, Pin, TunnelName};
use adit_wire::{Delivered, Drain, Message, ResetReason};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::edge::{TestEdge, secret};
use crate::{
    AgentError, AgentEvent, AgentSettings, AllowedTargets, Carriage, Carries, DataFolder, Joining,
    PinFrom, RefusalKind, TunnelSettings, Visitor, VisitorChange,
};

/// A running agent.
struct Running {
    events: mpsc::Receiver<AgentEvent>,
    stop: CancellationToken,
    ended: oneshot::Receiver<Result<(), AgentError>>,
    _tasks: Tasks,
}

pub(crate) fn settings(join: Option<JoinString>, data: &Path, targets: &[String]) -> AgentSettings {
    let tunnel = |target: &String| TunnelSettings {
        name: None,
        carries: Carries::http(target.parse().unwrap()),
        exclusive: false,
        compression: None,
    };
    AgentSettings {
        join,
        data: data.to_owned(),
        forwards: Vec::new(),
        tunnels: targets.iter().map(tunnel).collect(),
        allowed_targets: AllowedTargets::default(),
        carriage: Carriage::default(),
        pin: PinFrom::Nowhere,
        workers: 0,
        drain: Duration::from_secs(10),
    }
}

impl Running {
    fn start(settings: AgentSettings) -> Self {
        let (tell, events) = mpsc::channel(64);
        let (done, ended) = oneshot::channel();
        let stop = CancellationToken::new();
        let tasks = Tasks::new();
        let stopped = stop.clone();
        tasks.spawn(async move {
            drop(done.send(crate::run(settings, tell, stopped).await));
        });
        Self {
            events,
            stop,
            ended,
            _tasks: tasks,
        }
    }

    /// The first event that `pick` takes.
    async fn event<T>(&mut self, mut pick: impl FnMut(AgentEvent) -> Option<T>) -> T {
        let find = async {
            loop {
                let event = self.events.recv().await.expect("the agent goes on");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), find).await;
        found.expect("the event comes in time")
    }

    async fn live(&mut self) -> (TunnelName, String) {
        self.event(|event| match event {
            AgentEvent::Live { tunnel, url, .. } => Some((tunnel, url)),
            _ => None,
        })
        .await
    }

    async fn ended(self) -> Result<(), AgentError> {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.ended).await;
        ended.expect("the agent ends in time").unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended().await.unwrap();
    }
}

async fn service() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    (listener, target)
}

struct World {
    edge: TestEdge,
    service: TcpListener,
    target: String,
    data: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (service, target) = service().await;
        Self {
            edge: TestEdge::start().await,
            service,
            target,
            data: tempfile::tempdir().unwrap(),
        }
    }

    fn settings(&self) -> AgentSettings {
        let join = Some(self.edge.join_string());
        settings(join, self.data.path(), std::slice::from_ref(&self.target))
    }

    fn agent(&self) -> Running {
        Running::start(self.settings())
    }

    async fn served(&self) -> TcpStream {
        self.service.accept().await.unwrap().0
    }
}

async fn broken(stream: Stream) -> StreamError {
    let mut stream = stream;
    std::future::poll_fn(|cx| {
        drop(stream.poll_flush(cx));
        stream.poll_fill(cx)
    })
    .await
    .unwrap_err()
}

#[tokio::test]
async fn a_lost_edge_is_dialled_again_and_names_are_kept() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let first = world.edge.next().await;
    let (name, _) = agent.live().await;
    world.edge.kill().await;
    let retry_in = agent
        .event(|event| match event {
            AgentEvent::Lost { retry_in, .. } => Some(retry_in),
            _ => None,
        })
        .await;
    assert!(retry_in <= Duration::from_millis(500), "{retry_in:?}");
    world.edge.restart().await;
    let mut again = world.edge.next().await;
    assert_eq!(again.opened().await.name, name);
    assert_eq!(agent.live().await.0, name);
    assert_eq!(again.instance, first.instance, "the same process");
    agent.stop().await;

    // Another process of the same agent has the same name.
    let mut agent = world.agent();
    let restarted = world.edge.next().await;
    assert_eq!(agent.live().await.0, name);
    assert_ne!(restarted.instance, first.instance);
    agent.stop().await;
}

#[tokio::test]
async fn a_superseded_agent_does_not_dial_again() {
    let mut world = World::new().await;
    let agent = world.agent();
    let joined = world.edge.next().await;
    joined.link.send(Message::Superseded);
    let error = agent.ended().await.unwrap_err();
    assert!(matches!(error, AgentError::Superseded), "{error}");
    assert_eq!(world.edge.dials(), 1);
}

#[tokio::test]
async fn a_draining_edge_keeps_its_streams_while_the_agent_moves() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let old = world.edge.next().await;
    let (name, _) = agent.live().await;
    let mut visitor = old.io(1).await;
    visitor.write_all(b"x").await.unwrap();
    visitor.flush().await.unwrap();
    let mut service = world.served().await;
    old.link.send(Message::Drain(Drain {
        seconds: 30,
        // One is not an edge, one is this edge.
        addresses: vec![world.target.clone(), world.edge.address.to_string()],
    }));
    agent
        .event(|event| matches!(event, AgentEvent::Draining { seconds: 30 }).then_some(()))
        .await;
    // The address that is no edge gets a first message and no answer.
    let mut stranger = world.served().await;
    let mut first = [0; 128];
    stranger.read_exact(&mut first).await.unwrap();
    drop(stranger);
    let new = world.edge.next().await;
    assert_eq!(agent.live().await.0, name);
    assert_eq!(new.instance, old.instance);

    let mut byte = [0];
    service.read_exact(&mut byte).await.unwrap();
    service.write_all(b"y").await.unwrap();
    visitor.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"y", "the old link's stream goes on");
    drop((visitor, service));
    agent.stop().await;
}

#[tokio::test]
async fn every_address_of_an_edge_has_its_turn() {
    let mut world = World::new().await;
    let (deaf, deaf_address) = service().await;
    let nobody = service().await.1;
    let mut settings = world.settings();
    let join = settings.join.as_mut().unwrap();
    join.addresses.insert(0, "no-such-host.invalid:7400".into());
    join.addresses.insert(1, nobody);
    join.addresses.insert(2, deaf_address);
    let agent = Running::start(settings);
    let (mut caller, _) = deaf.accept().await.unwrap();
    caller.read_exact(&mut [0; 128]).await.unwrap();
    drop(caller);
    world.edge.next().await;
    assert_eq!(world.edge.dials(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_tunnel_is_asked_for_again() {
    let mut world = World::new().await;
    world.edge.policy().refuse_tunnels = 1;
    let mut agent = world.agent();
    let mut joined = world.edge.next().await;
    let (code, text) = agent
        .event(|event| match event {
            AgentEvent::TunnelRefused { code, text, .. } => Some((code, text)),
            _ => None,
        })
        .await;
    assert_eq!((code, text.as_str()), (4001, "taken"));
    assert_eq!(joined.opened().await, joined.opened().await);
    agent.live().await;
    assert_eq!(world.edge.dials(), 1, "on the same link");
    agent.stop().await;
}

#[tokio::test]
async fn stopping_closes_tunnels_and_lets_streams_end() {
    let mut world = World::new().await;
    let mut agent = world.agent();
    let mut joined = world.edge.next().await;
    agent.live().await;
    let mut visitor = joined.io(1).await;
    visitor.write_all(b"x").await.unwrap();
    visitor.flush().await.unwrap();
    let mut service = world.served().await;
    service.read_u8().await.unwrap();
    agent.stop.cancel();
    let streams = agent
        .event(|event| match event {
            AgentEvent::Stopping { streams } => Some(streams),
            _ => None,
        })
        .await;
    assert_eq!(streams, 1);
    while !matches!(
        joined.messages.recv().await,
        Some(Message::CloseTunnel { .. })
    ) {}
    let error = broken(joined.stream(1).await).await;
    assert!(
        matches!(
            error,
            StreamError::Reset {
                reason: ResetReason::Draining,
                ..
            }
        ),
        "{error:?}"
    );
    // The open one is carried to its end.
    service.write_all(b"all of it").await.unwrap();
    drop(service);
    let mut all = String::new();
    visitor.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "all of it");
    visitor.shutdown().await.unwrap();
    visitor.0.end().await;
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_at_the_deadline() {
    let mut world = World::new().await;
    let mut settings = world.settings();
    settings.drain = Duration::from_millis(200);
    let mut agent = Running::start(settings);
    let joined = world.edge.next().await;
    agent.live().await;
    let mut visitor = joined.io(1).await;
    visitor.write_all(b"x").await.unwrap();
    visitor.flush().await.unwrap();
    let mut service = world.served().await;
    service.read_u8().await.unwrap();
    agent.stop().await;
    let error = service.read_u8().await.unwrap_err();
    assert_ne!(
        error.kind(),
        std::io::ErrorKind::UnexpectedEof,
        "no clean end"
    );
}
