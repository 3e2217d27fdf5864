//! A whole link between two sockets: handshake, channels, streams, ends.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "code for tests alone, where a panic is how a test fails"
)]

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use adit_link::accept::{answer_channel, next_event, read_first, silence_deadline};
use adit_link::agent::{AgentLink, BoxFuture, DialConfig, DialError, StreamHandler, dial};
use adit_link::control::run_control;
use adit_link::edge::{EdgeLink, LinkFacts, OpenError};
use adit_link::tasks::Tasks;
use adit_link::tls::unverified;
use adit_link::{
    Channel, Counters, Datagrams, Fill, Incoming, Socket, Stream, StreamError, entropy,
};
use adit_link_proto::{
    EdgeEvent, EdgeFresh, EdgeHandshake, First, PskKeys, Purpose, Suites, Timing,
};
use adit_model::{Carrier, ConnId, Identity, InstanceId, LinkId, Psk, PublicKey, TunnelId};
use adit_wire::{AuthOk, Delivered, Message, ResetReason, Start};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

mod carriers;
mod cuts;

use carriers::Door;

/// The handler of these tests: tunnel 1 echoes, 2 refuses, 3 drops the
/// channel in the middle, 4 never ends its direction, 5 says more than is
/// asked for and ends, 6 reads nothing of what it is told, 7 echoes datagrams and
/// says one more at the end, 8 takes a flow and sends bytes, 9 panics.
struct Handler;

impl StreamHandler for Handler {
    fn handle(&self, incoming: Incoming) -> BoxFuture<Option<Channel>> {
        Box::pin(async move {
            match incoming.start().tunnel.0 {
                1 => echo(incoming.accept().ok()?).await,
                3 => {
                    let mut stream = incoming.accept().ok()?;
                    send(&mut stream, b"half").await.ok()?;
                    None
                }
                4 => {
                    let mut stream = incoming.accept().ok()?;
                    send(&mut stream, b"x").await.ok()?;
                    std::future::pending().await
                }
                5 => {
                    let mut stream = incoming.accept().ok()?;
                    send(&mut stream, b"answer and more").await.ok()?;
                    stream.end().await
                }
                6 => {
                    let mut stream = incoming.accept().ok()?;
                    while poll_fn(|cx| stream.poll_fill(cx)).await.ok()? == Fill::Data {}
                    stream.end().await
                }
                7 => echo_datagrams(Datagrams::of(incoming.accept().ok()?)?).await,
                8 => {
                    let mut stream = incoming.accept().ok()?;
                    send(&mut stream, b"bytes").await.ok()?;
                    std::future::pending().await
                }
                9 => panic!("on purpose"),
                _ => {
                    incoming.refuse(ResetReason::TargetRefused).await;
                    None
                }
            }
        })
    }
}

async fn echo(mut stream: Stream) -> Option<Channel> {
    poll_fn(|cx| stream.poll_flush(cx)).await.ok()?;
    loop {
        while !stream.buffer().is_empty() {
            let bytes = stream.buffer().to_vec();
            let count = stream.write(&bytes).ok()?;
            stream.consume(count);
            poll_fn(|cx| stream.poll_flush(cx)).await.ok()?;
        }
        if poll_fn(|cx| stream.poll_fill(cx)).await.ok()? == Fill::End {
            return stream.end().await;
        }
    }
}

async fn echo_datagrams(mut flow: Datagrams) -> Option<Channel> {
    loop {
        poll_fn(|cx| flow.poll_flush(cx)).await.ok()?;
        let found = poll_fn(|cx| flow.poll_next(cx)).await.ok()?;
        let datagram = flow.datagram().to_vec();
        if found == Fill::End {
            // Nobody waits for it any more.
            assert!(flow.send(b"late").ok()?);
            return flow.end().await;
        }
        assert!(flow.send(&datagram).ok()?);
    }
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), StreamError> {
    let mut sent = 0;
    while sent < bytes.len() {
        sent += stream.write(&bytes[sent..])?;
        poll_fn(|cx| stream.poll_flush(cx)).await?;
    }
    Ok(())
}

async fn read_to_end(stream: &mut Stream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    loop {
        let count = stream.buffer().len();
        all.extend_from_slice(stream.buffer());
        stream.consume(count);
        if poll_fn(|cx| stream.poll_fill(cx)).await? == Fill::End && stream.buffer().is_empty() {
            return Ok(all);
        }
    }
}

/// Long enough for a busy machine, short enough to wait for an end.
const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(500),
    dead: Duration::from_millis(3000),
};

struct World {
    tasks: Tasks,
    counters: Arc<Counters>,
    link: watch::Receiver<Option<Arc<EdgeLink>>>,
    config: DialConfig,
    /// Streams go by lines of a trunk.
    lines: bool,
}

/// What a link's streams travel in.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Each in a connection of its own of this carrier.
    Carrier(Carrier),
    /// Together in a trunk.
    Lines,
}

fn psk() -> Psk {
    Psk::from_random(std::array::from_fn(|i| (i * 29 + 3) as u8))
}

impl World {
    async fn start(way: Way, max_channels: u16) -> Self {
        let tasks = Tasks::new();
        let counters = Arc::new(Counters::default());
        let carrier = match way {
            Way::Carrier(carrier) => carrier,
            Way::Lines => Carrier::Tcp,
        };
        let door = Door::open(carrier, &tasks, Arc::clone(&counters)).await;
        let mut world = Self::over(door, (tasks, counters), max_channels);
        world.lines = way == Way::Lines;
        world
    }

    fn behind(listener: TcpListener, max_channels: u16) -> Self {
        let ground = (Tasks::new(), Arc::default());
        Self::over(Door::Tcp(listener), ground, max_channels)
    }

    fn over(door: Door, (tasks, counters): (Tasks, Arc<Counters>), max_channels: u16) -> Self {
        let (tell, link) = watch::channel(None);
        let edge = Arc::new(Identity::from_seed([1; 32]).unwrap());
        let config = DialConfig {
            spots: vec![door.spot()],
            tls: unverified().unwrap(),
            edge: edge.public(),
            psk: psk(),
            identity: Arc::new(Identity::from_seed([2; 32]).unwrap()),
            instance: InstanceId([3; 16]),
            pin: None,
            tunnels: 4,
            handler: Arc::new(Handler),
            tasks: tasks.clone(),
            workers: Vec::new(),
            counters: Arc::default(),
            version: "test".into(),
        };
        let edge_tasks = tasks.clone();
        let edge_counters = Arc::clone(&counters);
        door.serve(&tasks, move |socket, peer| {
            let serve = serve(
                socket,
                peer,
                Arc::clone(&edge),
                Arc::clone(&edge_counters),
                tell.clone(),
                max_channels,
            );
            edge_tasks.spawn_until_stopped(serve);
        });
        Self {
            tasks,
            counters,
            link,
            config,
            lines: false,
        }
    }

    async fn join(&mut self) -> (AgentLink, Arc<EdgeLink>) {
        let agent = dialled(&self.config).await.unwrap();
        let link = self
            .link
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap();
        if self.lines {
            link.ask_for_trunks();
            while !link.has_lines() {
                tokio::task::yield_now().await;
            }
        }
        (agent, link)
    }
}

fn facts(
    identity: PublicKey,
    instance: InstanceId,
    peer: SocketAddr,
    max_channels: u16,
) -> LinkFacts {
    LinkFacts {
        id: LinkId(7),
        identity,
        instance,
        peer,
        carrier: Carrier::Tcp,
        max_channels,
        idle_channels: 2,
        workers: 1,
    }
}

fn welcome(facts: &LinkFacts) -> AuthOk {
    AuthOk {
        link: facts.id,
        agent_secret: None,
        url_pattern: "http://{name}.test".into(),
        heartbeat_ms: 500,
        dead_ms: 3000,
        idle_channels: 1,
        max_channels: facts.max_channels,
        version: "test".into(),
        doors: Vec::new(),
    }
}

async fn serve(
    mut socket: Socket,
    peer: SocketAddr,
    identity: Arc<Identity>,
    counters: Arc<Counters>,
    tell: watch::Sender<Option<Arc<EdgeLink>>>,
    max_channels: u16,
) {
    let deadline = silence_deadline().unwrap();
    let Some(bytes) = read_first(&mut socket, deadline).await else {
        return;
    };
    let first = First::parse(&bytes);
    let current = tell.borrow().clone();
    if let Some(link) = current
        && let Some(proved) = link.keys().prove_channel(&first)
    {
        assert!(link.keys().burn(proved.number));
        if proved.purpose == Purpose::Trunk {
            let (_, run) = link.take_trunk(socket, &proved).await.unwrap().unwrap();
            return run.await;
        }
        link.add_channel(
            answer_channel(socket, &proved, link.keys(), counters)
                .await
                .unwrap(),
        );
        return;
    }
    let keys = PskKeys::new(&psk());
    let Some(proved) = first.prove_link(&keys, &identity.public()) else {
        return;
    };
    socket.prepare().unwrap();
    let fresh = EdgeFresh {
        ephemeral: entropy::random().unwrap(),
        nonce: entropy::random().unwrap(),
    };
    let now = Instant::now();
    let mut hs =
        EdgeHandshake::start(&proved, &keys, &identity, fresh, Suites { aes: true }, now).unwrap();
    let EdgeEvent::AgentProved {
        identity, instance, ..
    } = next_event(&mut socket, &mut hs).await.unwrap()
    else {
        panic!()
    };
    let facts = facts(identity, instance, peer, max_channels);
    let auth = welcome(&facts);
    let timing = TIMING;
    let (bytes, session) = hs.admit(&auth, timing, now).unwrap();
    let link = EdgeLink::new(facts, session.keys, counters);
    tell.send_replace(Some(Arc::clone(&link)));
    socket.write_all(&bytes).await.unwrap();
    socket.flush().await.unwrap();
    run_control(
        socket,
        Box::new(session.control),
        link.outbox(),
        link.ended(),
        |_| ControlFlow::Continue(()),
    )
    .await;
    link.cut();
}

async fn dialled(config: &DialConfig) -> Result<AgentLink, DialError> {
    let spot = &config.spots[0];
    dial(config, spot, spot.address.parse().unwrap(), None).await
}

fn start(tunnel: u32) -> Start {
    Start {
        tunnel: TunnelId(tunnel),
        conn: ConnId(9),
        visitor: "127.0.0.1:5".parse().unwrap(),
        patience_ms: 10_000,
        door: None,
        idle_ms: None,
        forwarder: None,
    }
}

/// Of a stream that carries datagrams.
fn flow(tunnel: u32) -> Start {
    Start {
        idle_ms: NonZeroU32::new(60_000),
        forwarder: None,
        ..start(tunnel)
    }
}

async fn datagrams_keep_their_boundaries_and_their_channel(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let sizes = [0, 1, 1200, 65_507, 0, 9000, 65_536, 3];
    for round in 0..5u8 {
        let stream = link.open_small(&flow(7)).await.unwrap();
        let mut flow = Datagrams::of(stream).unwrap();
        let mut sent: Vec<_> = sizes.iter().map(|size| vec![round; *size]).collect();
        let mut sending = sent.clone().into_iter();
        let mut back = Vec::new();
        while back.len() < sent.len() {
            while !flow.is_full()
                && let Some(datagram) = sending.next()
            {
                assert!(flow.send(&datagram).unwrap());
            }
            let found = poll_fn(|cx| {
                let _ = flow.poll_flush(cx).map(Result::unwrap);
                flow.poll_next(cx)
            });
            assert_eq!(found.await.unwrap(), Fill::Data);
            back.push(flow.datagram().to_vec());
        }
        if way == Way::Carrier(Carrier::Quic) {
            // They may overtake each other.
            back.sort();
            sent.sort();
        }
        assert!(back == sent);
        // The datagram that comes after our end costs nothing.
        flow.retire(&world.tasks);
        while link.in_use() > 0 {
            tokio::task::yield_now().await;
        }
    }
    // Small ones go beside the stream, where there is such a way.
    let beside = world.counters.datagrams_beside.load(Ordering::Relaxed);
    assert_eq!(beside > 0, way == Way::Carrier(Carrier::Quic), "{beside}");
    assert_eq!(world.counters.streams_opened.load(Ordering::Relaxed), 5);
    assert!(world.counters.streams_recycled.load(Ordering::Relaxed) >= 2);
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn a_flow_that_is_full_takes_no_more(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let mut flow = Datagrams::of(link.open_small(&flow(7)).await.unwrap()).unwrap();
    let datagram = [7; 60_000];
    let taken = (0..10).filter(|_| flow.send(&datagram).unwrap()).count();
    assert_eq!(taken, 3, "what is above 128 KiB is not queued");
    assert!(flow.is_full() && flow.room(1).is_empty() && !flow.send(b"").unwrap());
    poll_fn(|cx| flow.poll_flush(cx)).await.unwrap();
    assert!(!flow.is_full());
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn bytes_and_datagrams_do_not_mix(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let mut flow_of_bytes = Datagrams::of(link.open_small(&flow(8)).await.unwrap()).unwrap();
    poll_fn(|cx| flow_of_bytes.poll_flush(cx)).await.unwrap();
    let broken = poll_fn(|cx| flow_of_bytes.poll_next(cx)).await;
    assert!(matches!(broken, Err(StreamError::Protocol)), "{broken:?}");
    assert!(Datagrams::of(link.open_small(&start(1)).await.unwrap()).is_none());
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn streams_follow_each_other_on_one_channel(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let mut text = vec![0u8; 1_000_000];
    for round in 0..5u8 {
        text.fill(round);
        let mut stream = link.open_small(&start(1)).await.unwrap();
        let mut back = Vec::new();
        let mut sent = 0;
        while back.len() < text.len() {
            if sent < text.len() {
                sent += stream.write(&text[sent..]).unwrap();
            }
            poll_fn(|cx| {
                let _ = stream.poll_flush(cx).map(Result::unwrap);
                stream.poll_fill(cx)
            })
            .await
            .unwrap();
            back.extend_from_slice(stream.buffer());
            stream.consume(usize::MAX);
        }
        assert!(back == text);
        assert!(stream.accepted() && stream.is_quiet());
        stream.retire(&world.tasks);
        while link.in_use() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(world.counters.streams_opened.load(Ordering::Relaxed), 5);
    assert!(world.counters.streams_recycled.load(Ordering::Relaxed) >= 2);
    assert!(world.tasks.close(Duration::from_secs(5)).await);
}

/// What a stream left unread is not the next stream's.
async fn unread_bytes_end_a_channel(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    for tunnel in [5, 6] {
        let mut stream = link.open_small(&start(tunnel)).await.unwrap();
        stream.write(b"question").unwrap();
        stream.finish();
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        while poll_fn(|cx| stream.poll_fill(cx)).await.unwrap() == Fill::Data {}
        assert_eq!(stream.buffer().is_empty(), tunnel == 6);
        // The side that left bytes unread gives the channel up.
        assert!(stream.end().await.is_none(), "{tunnel}");
        let mut next = link.open_small(&start(1)).await.unwrap();
        next.write(b"mine").unwrap();
        next.finish();
        poll_fn(|cx| next.poll_flush(cx)).await.unwrap();
        assert_eq!(read_to_end(&mut next).await.unwrap(), b"mine");
        next.retire(&world.tasks);
    }
    world.tasks.close(Duration::from_secs(5)).await;
}

/// More visitors at once than messages may wait on a control channel.
async fn a_crowd_does_not_cost_the_link(way: Way) {
    let mut world = World::start(way, 4096).await;
    let (_agent, link) = world.join().await;
    let visit = async || {
        let mut stream = link.open_small(&start(1)).await?;
        stream.write(b"here").unwrap();
        stream.finish();
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"here");
        stream.retire(&world.tasks);
        Ok::<_, OpenError>(())
    };
    let crowd: Vec<_> = (0..3000).map(|_| visit()).collect();
    let served = futures_util::future::join_all(crowd).await;
    let refused = served.iter().filter(|visit| visit.is_err()).count();
    assert!(!link.ended().is_cancelled(), "the link was cut");
    assert_eq!(refused, 0);
    world.tasks.close(Duration::from_secs(5)).await;
}

/// Nobody waits for a line.
#[tokio::test]
async fn a_visitor_that_leaves_waits_no_more() {
    for carrier in [Carrier::Tcp, Carrier::Quic, Carrier::WebSocket] {
        leave_early(Way::Carrier(carrier)).await;
    }
}

async fn leave_early(way: Way) {
    let mut world = World::start(way, 4096).await;
    let (_agent, link) = world.join().await;
    let start = start(1);
    let mut waiting: Vec<_> = (0..1000)
        .map(|_| Box::pin(link.open_small(&start)))
        .collect();
    poll_fn(|cx| {
        for one in &mut waiting {
            assert!(one.as_mut().poll(cx).is_pending() || link.waiting() == 0);
        }
        Poll::Ready(())
    })
    .await;
    assert!(link.waiting() >= 998);
    drop(waiting);
    assert_eq!(link.waiting(), 0);
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn half_close_is_kept_both_ways(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let mut stream = link.open_small(&start(1)).await.unwrap();
    stream.write(b"last words").unwrap();
    stream.finish();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await.unwrap(), b"last words");
    assert!(stream.end().await.is_some());
    world.tasks.close(Duration::from_secs(5)).await;
}

/// Who ends last says in the same write that it has handed on everything.
async fn the_last_end_is_also_a_receipt(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    for _ in 0..3 {
        let mut stream = link.open_small(&start(5)).await.unwrap();
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"answer and more");
        stream.conclude();
        assert!(stream.finished() && stream.has_unsent());
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        stream.retire(&world.tasks);
        while link.in_use() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(world.counters.streams_recycled.load(Ordering::Relaxed) >= 1);
    // Before the other side has ended it is no receipt: more may come.
    let mut stream = link.open_small(&start(1)).await.unwrap();
    stream.write(b"last words").unwrap();
    stream.conclude();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await.unwrap(), b"last words");
    assert!(stream.end().await.is_some());
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn a_refusal_has_its_reason_and_delivered_nothing(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let mut stream = link.open_small(&start(2)).await.unwrap();
    stream.write(&[7; 100_000]).unwrap();
    let error = poll_fn(|cx| {
        let _ = stream.poll_flush(cx);
        stream.poll_fill(cx)
    })
    .await
    .unwrap_err();
    assert!(
        matches!(
            error,
            StreamError::Reset {
                reason: ResetReason::TargetRefused,
                delivered: Delivered::None
            }
        ),
        "{error:?}"
    );
    world.tasks.close(Duration::from_secs(5)).await;
}

/// A bug in one stream costs no later one its place.
async fn a_handler_that_panics_gives_its_place_back(way: Way) {
    let mut world = World::start(way, 3).await;
    let (_agent, link) = world.join().await;
    let visit = async |tunnel| {
        let mut stream = link.open_small(&start(tunnel)).await.unwrap();
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        read_to_end(&mut stream).await
    };
    let visits = async {
        for _ in 0..6 {
            visit(9).await.unwrap_err();
            while link.in_use() > 0 {
                tokio::task::yield_now().await;
            }
        }
        visit(5).await.unwrap()
    };
    let last = tokio::time::timeout(Duration::from_secs(20), visits).await;
    assert_eq!(last.unwrap(), b"answer and more");
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn a_channel_that_ends_early_is_no_clean_end(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let mut stream = link.open_small(&start(3)).await.unwrap();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    let error = read_to_end(&mut stream).await.unwrap_err();
    assert!(
        matches!(error, StreamError::Truncated | StreamError::Io(_)),
        "{error:?}"
    );
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn cutting_a_link_wakes_its_streams(way: Way) {
    let mut world = World::start(way, 16).await;
    let (mut agent, link) = world.join().await;
    let mut stream = link.open_small(&start(4)).await.unwrap();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    poll_fn(|cx| stream.poll_fill(cx)).await.unwrap();
    stream.consume(usize::MAX);
    let cut = async { link.cut() };
    let (ended, ()) = tokio::join!(poll_fn(|cx| stream.poll_fill(cx)), cut);
    assert!(matches!(ended, Err(StreamError::Truncated)));
    assert!(matches!(
        link.open_small(&start(1)).await,
        Err(OpenError::Gone)
    ));
    loop {
        if let adit_link::agent::LinkEvent::Lost(_) = agent.event().await {
            break;
        }
    }
    world.tasks.close(Duration::from_secs(5)).await;
}

/// Also one from which nothing is read, because its visitor reads nothing.
async fn a_stream_that_nobody_reads_is_told_of_the_cut(way: Way) {
    let mut world = World::start(way, 16).await;
    let (_agent, link) = world.join().await;
    let mut stream = link.open_small(&start(4)).await.unwrap();
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    let told = async { poll_fn(|cx| stream.poll_cut(cx)).await };
    let cut = async { link.cut() };
    let (error, ()) = tokio::join!(told, cut);
    assert!(matches!(error, StreamError::Truncated), "{error}");
    world.tasks.close(Duration::from_secs(5)).await;
}

async fn a_link_has_a_limit_of_channels(way: Way) {
    let mut world = World::start(way, 2).await;
    let (_agent, link) = world.join().await;
    let first = link.open_small(&start(1)).await.unwrap();
    let _second = link.open_small(&start(1)).await.unwrap();
    assert!(matches!(
        link.open_small(&start(1)).await,
        Err(OpenError::Full)
    ));
    first.retire(&world.tasks);
    while link.in_use() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(link.open_small(&start(1)).await.is_ok());
    world.tasks.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_wrong_secret_meets_silence() {
    let world = World::start(Way::Carrier(Carrier::Tcp), 2).await;
    let config = DialConfig {
        psk: Psk::from_random(std::array::from_fn(|i| i as u8)),
        ..world.config.clone()
    };
    assert!(matches!(dialled(&config).await, Err(DialError::Silent)));
    world.tasks.close(Duration::from_secs(5)).await;
}

/// Passes the agent's bytes on, and back what fits into small buffers until
/// `deaf`.
async fn small_way(to: SocketAddr, tasks: &Tasks, deaf: &watch::Sender<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut deaf = deaf.subscribe();
    tasks.spawn_until_stopped(async move {
        let (agent, _) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let edge = socket.connect(to).await.unwrap();
        let (mut from_agent, mut to_agent) = agent.into_split();
        let (mut from_edge, mut to_edge) = edge.into_split();
        let back = async {
            tokio::select! {
                _ = tokio::io::copy(&mut from_edge, &mut to_agent) => {}
                _ = deaf.wait_for(|deaf| *deaf) => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(tokio::io::copy(&mut from_agent, &mut to_edge), back)
            .0
            .ok();
    });
    address
}

/// Heartbeats of the agent still come, what is asked of it does not arrive, and
/// the edge's writes wait: its clock must not.
#[tokio::test]
async fn a_peer_that_does_not_read_is_dead_in_time() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let to = listener.local_addr().unwrap();
    let mut world = World::behind(listener, 16);
    let deaf = watch::Sender::new(false);
    world.config.spots[0].address = small_way(to, &world.tasks, &deaf).await.to_string();
    let (_agent, link) = world.join().await;
    deaf.send_replace(true);
    for _ in 0..100 {
        let text = "x".repeat(1000);
        assert!(link.outbox().send(Message::Error { code: 1, text }));
    }
    let ended = tokio::time::timeout(TIMING.dead * 3, link.ended().cancelled());
    ended.await.expect("its silence was not noticed");
    world.tasks.close(Duration::from_secs(5)).await;
}

/// What a link promises, whatever its bytes travel in.
macro_rules! conformance {
    ($($carrier:ident = $which:expr;)*) => {
        $(mod $carrier {
            use super::*;

            conformance!(@ $which;
                datagrams_keep_their_boundaries_and_their_channel
                a_flow_that_is_full_takes_no_more
                bytes_and_datagrams_do_not_mix
                streams_follow_each_other_on_one_channel
                unread_bytes_end_a_channel
                a_crowd_does_not_cost_the_link
                half_close_is_kept_both_ways
                the_last_end_is_also_a_receipt
                a_refusal_has_its_reason_and_delivered_nothing
                a_channel_that_ends_early_is_no_clean_end
                a_handler_that_panics_gives_its_place_back
                cutting_a_link_wakes_its_streams
                a_stream_that_nobody_reads_is_told_of_the_cut
                a_link_has_a_limit_of_channels
            );
        })*
    };
    (@ $which:expr; $($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            super::$name($which).await;
        })*
    };
}

conformance! {
    tcp = Way::Carrier(Carrier::Tcp);
    quic = Way::Carrier(Carrier::Quic);
    websocket = Way::Carrier(Carrier::WebSocket);
    lines = Way::Lines;
}
