use adit_link::Stream;
use adit_link::tasks::Tasks;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

/// A visitor and a target with a pump between them.
struct World {
    visitor: TcpStream,
    target: TcpStream,
    carried: oneshot::Receiver<Carried>,
    tasks: Tasks,
}

async fn world() -> World {
    let (visitor, near) = pair().await;
    let (local, target) = pair().await;
    let (tell, carried) = oneshot::channel();
    let tasks = Tasks::new();
    tasks.spawn_until_stopped(async move {
        let (carried, _) = pump(Stream::plain(near), local.into(), |_, _| {}).await;
        drop(tell.send(carried));
    });
    World {
        visitor,
        target,
        carried,
        tasks,
    }
}

fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn send(socket: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) {
    socket.write_all(bytes).await.unwrap();
    socket.shutdown().await.unwrap();
}

async fn receive(socket: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn bytes_go_both_ways_at_once() {
    let world = world().await;
    let (up, down) = (noise(5_000_001, 1), noise(7_000_003, 2));
    let (mut visitor_in, mut visitor_out) = world.visitor.into_split();
    let (mut target_in, mut target_out) = world.target.into_split();
    let ((), (), got_up, got_down) = tokio::join!(
        send(&mut visitor_out, &up),
        send(&mut target_out, &down),
        receive(&mut target_in),
        receive(&mut visitor_in),
    );
    assert!(got_up == up && got_down == down);
    let carried = world.carried.await.unwrap();
    assert!(carried.broken.is_none());
    assert_eq!(carried.to_target, up.len() as u64);
    assert_eq!(carried.to_visitor, down.len() as u64);
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    // The visitor ends first; the target answers afterwards.
    let mut world = world().await;
    send(&mut world.visitor, b"question").await;
    assert_eq!(receive(&mut world.target).await, b"question");
    send(&mut world.target, b"answer").await;
    assert_eq!(receive(&mut world.visitor).await, b"answer");
    assert!(world.carried.await.unwrap().broken.is_none());

    // The target ends first; the visitor goes on.
    let mut world = self::world().await;
    send(&mut world.target, b"greeting").await;
    assert_eq!(receive(&mut world.visitor).await, b"greeting");
    send(&mut world.visitor, b"late").await;
    assert_eq!(receive(&mut world.target).await, b"late");
    assert!(world.carried.await.unwrap().broken.is_none());
}

#[tokio::test]
async fn a_slow_reader_stops_its_target_and_loses_nothing() {
    let mut world = world().await;
    let block = noise(64 * 1024, 3);
    let mut sent = 0;
    // A write that does not go through for this long has been stopped.
    let still = Duration::from_millis(300);
    while let Ok(written) = timeout(still, world.target.write(&block[sent % block.len()..])).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "the target is never stopped");
    }
    // The other direction does not mind.
    world.visitor.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    world.target.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");

    world.target.shutdown().await.unwrap();
    let got = receive(&mut world.visitor).await;
    assert_eq!(got.len(), sent);
    assert!(
        got.chunks(block.len())
            .all(|chunk| block.starts_with(chunk))
    );
    world.visitor.shutdown().await.unwrap();
    assert!(world.carried.await.unwrap().broken.is_none());
}

/// Closes with RST.
fn abort(socket: TcpStream) {
    let linger = Some(Duration::ZERO);
    SockRef::from(&socket).set_linger(linger).unwrap();
    drop(socket);
}

async fn assert_reset(socket: &mut TcpStream) {
    let mut bytes = Vec::new();
    let error = socket.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_target_that_fails_never_looks_as_if_it_had_ended() {
    let mut world = world().await;
    world.visitor.write_all(b"question").await.unwrap();
    let mut question = [0; 8];
    world.target.read_exact(&mut question).await.unwrap();
    abort(world.target);
    assert_reset(&mut world.visitor).await;
    let carried = world.carried.await.unwrap();
    assert!(
        matches!(carried.broken, Some(Broken::Target(_))),
        "{carried:?}"
    );
    assert_eq!(carried.to_target, 8);
}

#[tokio::test]
async fn a_visitor_that_gives_up_is_not_an_end_to_the_target() {
    let mut world = world().await;
    world.visitor.write_all(b"half a que").await.unwrap();
    let mut some = [0; 4];
    world.target.read_exact(&mut some).await.unwrap();
    abort(world.visitor);
    assert_reset(&mut world.target).await;
    let carried = world.carried.await.unwrap();
    assert!(
        matches!(carried.broken, Some(Broken::Visitor(_))),
        "{carried:?}"
    );
}

#[tokio::test]
async fn a_pump_that_is_stopped_aborts_its_target() {
    let mut world = world().await;
    world.visitor.write_all(b"x").await.unwrap();
    let mut some = [0; 1];
    world.target.read_exact(&mut some).await.unwrap();
    assert!(world.tasks.close(Duration::from_secs(5)).await);
    assert_reset(&mut world.target).await;
    assert!(world.carried.await.is_err());
}

#[test]
fn reads_follow_the_flow() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ((_a, near), (local, _b)) = runtime.block_on(async { (pair().await, pair().await) });
    let _inside = runtime.enter();
    let mut pump = Pump::new(Stream::plain(near), local.into());
    assert_eq!(pump.read, READS.0);
    for _ in 0..3 {
        pump.learn(pump.read, pump.read);
    }
    assert_eq!(pump.read, READS.1);
    pump.learn(READS.1 / 2, READS.1);
    assert_eq!(pump.read, READS.1, "half full is still a flow");
    pump.learn(100, READS.1);
    assert_eq!(pump.read, READS.0);
}
