//! The whole agent against an edge that speaks the real protocol.

mod away;
pub(crate) mod edge;

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
    AgentError, AgentEvent, AgentSettings, DataFolder, Joining, PinFrom, RefusalKind,
    TunnelSettings, Visitor, VisitorChange,
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
        target: target.parse().unwrap(),
        host_header: None,
        insecure_target: false,
        auth: None,
        exclusive: false,
    };
    AgentSettings {
        join,
        data: data.to_owned(),
        tunnels: targets.iter().map(tunnel).collect(),
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
async fn the_agents_own_secret_replaces_the_join_string_for_good() {
    let mut world = World::new().await;
    {
        let mut policy = world.edge.policy();
        policy.hand_out = Some(secret(2));
        policy.secrets.push(secret(2));
    }
    let mut agent = world.agent();
    assert_eq!(world.edge.next().await.secret, secret(1));
    agent.live().await;
    world.edge.kill().await;
    world.edge.restart().await;
    assert_eq!(
        world.edge.next().await.secret,
        secret(2),
        "from the next link on"
    );
    agent.stop().await;

    // Revoked: the join string would still be good, and is not tried.
    world
        .edge
        .policy()
        .secrets
        .retain(|known| *known != secret(2));
    let mut agent = world.agent();
    for _ in 0..2 {
        let refusal = agent
            .event(|event| match event {
                AgentEvent::Refused(refusal) => Some(refusal),
                _ => None,
            })
            .await;
        assert_eq!(refusal.kind, RefusalKind::Silent);
        assert!(refusal.own_secret && refusal.retry_in.is_some());
        assert!(refusal.causes()[0].contains("adit edge forget"));
    }
    agent.stop().await;
    assert!(world.edge.joined.try_recv().is_err());

    // Forgotten, the join string is used again.
    let data = DataFolder::open(world.data.path()).unwrap();
    assert!(data.forget(&world.edge.join_string().edge).unwrap());
    let agent = world.agent();
    assert_eq!(world.edge.next().await.secret, secret(1));
    agent.stop().await;
}

#[tokio::test]
async fn a_refusal_ends_the_agent() {
    let world = World::new().await;
    world.edge.policy().refuse = true;
    let agent = world.agent();
    let error = agent.ended().await.unwrap_err();
    let AgentError::Refused(refusal) = &error else {
        panic!("{error}")
    };
    assert_eq!(refusal.retry_in, None);
    assert_eq!(error.code().to_string(), "ADIT-3006");
    assert_eq!(world.edge.dials(), 1);
}

fn pin(n: u32) -> Pin {
    Pin::from_random([n; 6])
}

#[tokio::test]
async fn the_pin_is_asked_only_when_it_is_wanted() {
    let mut world = World::new().await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let source: adit_link::agent::PinSource = Arc::new(move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Some(pin(n)) })
    });
    let with_pin = |pin| {
        let mut settings = world.settings();
        settings.pin = pin;
        settings
    };
    let asking = || PinFrom::Asked(Arc::clone(&source));
    let (unasked, wanted, fixed) = (
        with_pin(asking()),
        with_pin(asking()),
        with_pin(PinFrom::Fixed(pin(7))),
    );
    let absent = with_pin(PinFrom::Nowhere);

    let agent = Running::start(unasked);
    world.edge.next().await;
    agent.stop().await;
    assert_eq!(asked.load(Ordering::Relaxed), 0);

    // The second one typed is right.
    world.edge.policy().pin = Some(pin(1));
    let mut agent = Running::start(wanted);
    let retry = agent
        .event(|event| match event {
            AgentEvent::Refused(refusal) => Some(refusal.retry_in),
            _ => None,
        })
        .await;
    assert!(retry.is_some());
    world.edge.next().await;
    agent.stop().await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);

    // A fixed one that is wrong is not tried again, it would ban the address.
    let dials = world.edge.dials();
    let error = Running::start(fixed).ended().await.unwrap_err();
    assert!(matches!(error, AgentError::Refused(_)), "{error}");
    assert_eq!(world.edge.dials(), dials + 1);

    let error = Running::start(absent).ended().await.unwrap_err();
    assert!(matches!(error, AgentError::PinAbsent), "{error}");
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

#[tokio::test]
async fn joining_proves_the_string_and_remembers_the_edge() {
    let mut world = World::new().await;
    let data = DataFolder::open(world.data.path()).unwrap();
    let join = |world: &World, from| {
        crate::join(world.edge.join_string(), world.data.path().to_owned(), from)
    };

    world.edge.policy().refuse = true;
    let error = join(&world, PinFrom::Nowhere).await.unwrap_err();
    assert!(matches!(error, AgentError::Refused(_)), "{error}");
    assert!(data.joined().unwrap().is_none(), "nothing is remembered");
    let targets = std::slice::from_ref(&world.target);
    let unjoined = Running::start(settings(None, world.data.path(), targets));
    let error = unjoined.ended().await.unwrap_err();
    assert!(matches!(error, AgentError::NotJoined), "{error}");

    {
        let mut policy = world.edge.policy();
        policy.refuse = false;
        policy.pin = Some(pin(3));
        policy.hand_out = Some(secret(2));
        policy.secrets.push(secret(2));
    }
    let fixed = || PinFrom::Fixed(pin(3));
    let (edge, joining) = join(&world, fixed()).await.unwrap();
    assert_eq!(
        (edge, joining),
        (world.edge.join_string().edge, Joining::New)
    );
    world.edge.next().await;
    let known = data.joined().unwrap().unwrap();
    assert_eq!((known.secret, known.join), (Some(secret(2)), None));

    let (_, joining) = join(&world, fixed()).await.unwrap();
    assert_eq!(joining, Joining::Known);
    // What is given counts, should what is remembered be revoked.
    let given = world.edge.join_string().credential.psk().clone();
    assert_eq!(world.edge.next().await.secret, given);

    // From now on no join string is needed.
    world.edge.policy().pin = None;
    let mut agent = Running::start(settings(None, world.data.path(), targets));
    assert_eq!(world.edge.next().await.secret, secret(2));
    agent.live().await;
    agent.stop().await;
}
