use std::future::pending;
use std::time::Duration;

use adit_link_proto::PskKeys;
use adit_model::{Psk, PublicKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::entropy::random;

mod life;
mod resets;

const SOON: Duration = Duration::from_secs(30);

const EDGE: PublicKey = PublicKey([7; 32]);

fn edge() -> Identity {
    Identity::from_seed([7; 32]).unwrap()
}

fn keys() -> PskKeys {
    PskKeys::new(&Psk::from_random([1; 32]))
}

struct World {
    dialled: Dialled,
    /// Streams as the door serves them.
    taken: mpsc::Receiver<(Socket, SocketAddr)>,
    stop: CancellationToken,
    /// Of the door.
    counters: Arc<Counters>,
    hints: Arc<Hints>,
    /// Of the door's connections.
    links: Tasks,
    tasks: Tasks,
}

/// A door, and an agent's connection to it.
async fn world<P>(place: impl Fn() -> P + Send + 'static) -> World
where
    P: Future<Output = ()> + Send + 'static,
{
    world_with(Room::default(), place).await
}

async fn world_with<P>(room: Room, place: impl Fn() -> P + Send + 'static) -> World
where
    P: Future<Output = ()> + Send + 'static,
{
    let (tasks, links, stop) = (Tasks::new(), Tasks::new(), CancellationToken::new());
    let knock = Knock::make(&keys(), &EDGE, 1_000_000, [1, 2, 3, 4]);
    let judge: Judge = Arc::new(|knock: &Knock| knock.fits(&keys(), &EDGE));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let counters = Arc::<Counters>::default();
    let ground = (&tasks, Arc::clone(&counters));
    let door = Door::with(room, (socket, 100), (&edge(), judge), ground).unwrap();
    let hints = Arc::clone(&door.hints);
    let (give, taken) = mpsc::channel(16);
    let serve = move |socket, peer| give.try_send((socket, peer)).unwrap();
    tasks.spawn(door.serve(links.clone(), stop.clone(), place, serve));
    let config = crate::tls::unverified().unwrap();
    let dialled = Dialled::connect(
        address,
        "localhost",
        knock,
        &config,
        (&tasks, Arc::default()),
    );
    let dialled = timeout(SOON, dialled).await.unwrap().unwrap();
    World {
        dialled,
        taken,
        stop,
        counters,
        hints,
        links,
        tasks,
    }
}

impl World {
    /// A stream and its other end.
    async fn stream(&mut self) -> (Socket, Socket) {
        let mut ours = self.dialled.open().await.unwrap();
        ours.write_all(b"x").await.unwrap();
        (ours, self.next().await.0)
    }

    /// What the door serves next, and who it says that it is from.
    async fn next(&mut self) -> (Socket, SocketAddr) {
        timeout(SOON, self.taken.recv()).await.unwrap().unwrap()
    }

    async fn closed(&self) {
        let closed = self.dialled.connection.closed();
        timeout(SOON, closed).await.unwrap();
    }

    async fn end(self) {
        drop((self.dialled, self.taken));
        assert!(self.links.close(SOON).await);
        assert!(self.tasks.close(SOON).await);
    }
}

#[tokio::test]
async fn a_stranger_has_one_stream_and_little_room() {
    let mut world = world(pending).await;
    let (mut ours, theirs) = world.stream().await;
    let dialled = world.dialled.clone();
    let second = dialled.open();
    tokio::pin!(second);
    let much = vec![0; 4 * STRANGER_WINDOW as usize];
    let sent = ours.write_all(&much);
    tokio::pin!(sent);
    let halted = Duration::from_millis(300);
    assert!(timeout(halted, &mut second).await.is_err());
    assert!(timeout(halted, &mut sent).await.is_err());
    theirs.prepare().unwrap();
    timeout(SOON, &mut second).await.unwrap().unwrap();
    let mut theirs = theirs;
    let mut came = vec![0; 1 + much.len()];
    let (sent, came) = tokio::join!(
        timeout(SOON, sent),
        timeout(SOON, theirs.read_exact(&mut came))
    );
    sent.unwrap().unwrap();
    came.unwrap().unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_streams_whatever_the_agent_does() {
    let mut world = world(pending).await;
    let (ours, theirs) = world.stream().await;
    theirs.prepare().unwrap();
    drop(theirs);
    world.closed().await;
    drop(ours);
    world.end().await;
}

#[tokio::test]
async fn a_stranger_makes_room_for_newer_ones_and_an_agent_does_not() {
    let push = CancellationToken::new();
    let token = push.clone();
    let place = move || token.clone().cancelled_owned();
    let mut first = world(place.clone()).await;
    let (_ours, theirs) = first.stream().await;
    theirs.prepare().unwrap();
    let mut second = world(place).await;
    let (_other, _stranger) = second.stream().await;
    push.cancel();
    second.closed().await;
    assert_eq!(first.dialled.connection.close_reason(), None);
    drop(theirs);
    second.end().await;
    first.end().await;
}

#[tokio::test]
async fn a_closed_door_lets_nobody_in_and_cuts_nobody() {
    let mut world = world(pending).await;
    let (_first, theirs) = world.stream().await;
    theirs.prepare().unwrap();
    world.stop.cancel();
    let config = crate::tls::unverified().unwrap();
    let knock = Knock::make(&keys(), &EDGE, 1_000_000, [4, 3, 2, 1]);
    let address = world.dialled.connection.remote_address();
    let late = Dialled::connect(
        address,
        "localhost",
        knock,
        &config,
        (&world.tasks, Arc::default()),
    );
    let answered = timeout(Duration::from_millis(500), late).await;
    assert!(answered.is_err(), "a closed door answers");
    let (mut ours, mut theirs) = world.stream().await;
    theirs.write_all(b"y").await.unwrap();
    assert_eq!(ours.read_u8().await.unwrap(), b'y');
    assert!(world.links.close(SOON).await);
    world.closed().await;
    world.end().await;
}

/// What a small door holds of paused readers, for a test.
const fn small(paused: u64) -> Room {
    Room {
        stream: 64 * 1024,
        link: 640 * 1024,
        paused: Duration::from_secs(paused),
    }
}

impl World {
    /// A stream that is read, thirty that are not, and the bytes that these
    /// have taken.
    async fn with_paused(&mut self, room: Room) -> ((Socket, Socket), Vec<(Socket, Socket)>) {
        let reader = self.stream().await;
        reader.1.prepare().unwrap();
        let mut paused = Vec::new();
        while paused.len() < 30 {
            paused.push(self.stream().await);
        }
        let (much, mut sent) = (vec![0; 4 * room.stream as usize], 0);
        for (ours, _) in &mut paused {
            let mut count = 0;
            while count < much.len() {
                let more = timeout(Duration::from_millis(50), ours.write(&much[count..]));
                let Ok(more) = more.await else { break };
                count += more.unwrap();
            }
            assert!(count <= room.stream as usize, "{count} of one");
            sent += count;
        }
        let most = room.link as usize;
        assert!(sent >= most / 2, "{sent} of {most}");
        assert!(sent <= most || room.paused < SOON, "{sent} of {most}");
        (reader, paused)
    }
}

#[tokio::test]
async fn a_link_holds_no_more_than_its_room() {
    let room = small(3600);
    let mut world = world_with(room, pending).await;
    let held = world.with_paused(room).await;
    // Who takes what waits makes room for others.
    let ((mut near, mut reader), paused) = held;
    let sent = near.write_all(&[1; 1024 * 1024]);
    let mut came = vec![0; 1 + 1024 * 1024];
    let came = reader.read_exact(&mut came);
    tokio::pin!(sent, came);
    let halted = Duration::from_millis(300);
    assert!(timeout(halted, &mut came).await.is_err(), "beyond its room");
    drop(paused);
    let (sent, came) = tokio::join!(timeout(SOON, sent), timeout(SOON, came));
    sent.unwrap().unwrap();
    came.unwrap().unwrap();
    world.end().await;
}

#[tokio::test]
async fn readers_that_pause_do_not_hold_up_who_reads() {
    let room = small(1);
    let mut world = world_with(room, pending).await;
    let ((mut near, mut reader), paused) = world.with_paused(room).await;
    let much = vec![1; 4 * room.link as usize];
    let mut came = vec![0; 1 + much.len()];
    let (sent, read) = tokio::join!(
        timeout(SOON, near.write_all(&much)),
        timeout(SOON, reader.read_exact(&mut came))
    );
    sent.unwrap().unwrap();
    read.unwrap().unwrap();
    assert_eq!(came[1..], much);
    // Those that were cut know it; the rest read what was kept for them.
    let mut ends = (0, 0);
    for (_ours, mut theirs) in paused {
        match timeout(SOON, theirs.read(&mut [0; 1024])).await.unwrap() {
            Ok(_) => ends.0 += 1,
            Err(_) => ends.1 += 1,
        }
    }
    assert!(ends.0 > 0 && ends.1 > 0, "{ends:?}");
    assert_eq!(
        world.counters.paused_cut.load(Ordering::Relaxed),
        ends.1,
        "{ends:?}"
    );
    world.end().await;
}

/// Datagrams that begin as QUIC does, with ids of every length and all kinds of
/// packets.
fn garbage() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(), vec![0], vec![0x40; 1200]];
    for first in [0x40, 0x80, 0xc0, 0xd0, 0xe0, 0xf0, 0xff] {
        for version in [0u32, 1, 2, 0x0a1a_2a3a, 0xff00_001d, 0x6b33_43cf] {
            for length in 0..=21u8 {
                for size in [0, 1200] {
                    let id = random::<21>().unwrap();
                    let mut datagram = vec![first];
                    datagram.extend_from_slice(&version.to_be_bytes());
                    datagram.push(length);
                    datagram.extend_from_slice(&id[..length.into()]);
                    datagram.resize(datagram.len().max(size), 0);
                    all.push(datagram);
                }
            }
        }
    }
    all
}

#[tokio::test]
async fn garbage_draws_no_byte_and_ends_nothing() {
    let mut world = world(pending).await;
    let (mut ours, mut theirs) = world.stream().await;
    theirs.prepare().unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let door = world.dialled.connection.remote_address();
    for some in garbage().chunks(16) {
        for datagram in some {
            stranger.send_to(datagram, door).await.unwrap();
        }
        // The door takes what comes in its order, and has taken all of these.
        theirs.write_all(b"y").await.unwrap();
        let answered = timeout(SOON, ours.read_u8()).await;
        assert_eq!(answered.unwrap().unwrap(), b'y');
    }
    let (_second, _its_end) = world.stream().await;
    let heard = stranger.try_recv(&mut [0; 1500]);
    assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let dropped = world.counters.strangers_dropped.load(Ordering::Relaxed);
    assert!(dropped > 1000, "{dropped}");
    world.end().await;
}

/// A way between an agent and a door that writes down what the agent says.
async fn overheard(door: SocketAddr, tasks: &Tasks) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(door).await.unwrap();
    let address = near.local_addr().unwrap();
    let (heard, words) = mpsc::channel(1000);
    tasks.spawn_until_stopped(async move {
        let (mut there, mut back) = ([0; 2000], [0; 2000]);
        let mut agent = None;
        loop {
            tokio::select! {
                came = near.recv_from(&mut there) => {
                    let (count, from) = came.unwrap();
                    // One byte is a question to the system, from another port.
                    if count > 1 {
                        agent = Some(from);
                        let _full_is_enough = heard.try_send(there[..count].to_vec());
                    }
                    far.send(&there[..count]).await.unwrap();
                }
                came = far.recv(&mut back) => {
                    let count = came.unwrap();
                    near.send_to(&back[..count], agent.unwrap()).await.unwrap();
                }
            }
        }
    });
    (address, words)
}

/// Of a connection that is over, a repeated packet draws what tells its agent
/// so; nothing draws anything else.
#[tokio::test]
async fn what_was_overheard_draws_at_most_a_reset_when_it_is_repeated() {
    let mut world = world(pending).await;
    let (_kept, its_end) = world.stream().await;
    its_end.prepare().unwrap();
    let door = world.dialled.connection.remote_address();
    let (way, mut words) = overheard(door, &world.tasks).await;
    let knock = Knock::make(&keys(), &EDGE, 1_000_000, [9; 4]);
    let config = crate::tls::unverified().unwrap();
    let ground = (&world.tasks, Arc::default());
    let dialled = Dialled::connect(way, "localhost", knock, &config, ground);
    let dialled = timeout(SOON, dialled).await.unwrap().unwrap();
    let mut ours = dialled.open().await.unwrap();
    ours.write_all(&[7; 4000]).await.unwrap();
    let (mut theirs, _) = world.next().await;
    theirs.prepare().unwrap();
    theirs.read_exact(&mut [0; 4000]).await.unwrap();
    drop((theirs, ours));
    timeout(SOON, dialled.connection.closed()).await.unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut said = Vec::new();
    while let Ok(datagram) = words.try_recv() {
        said.push(datagram);
    }
    let (long, short): (Vec<_>, Vec<_>) = said.iter().partition(|one| one[0] & 0x80 != 0);
    assert!(!long.is_empty() && !short.is_empty(), "{said:?}");
    let mut heard = [0; 1500];
    // The library has to forget that connection first.
    let begun = Instant::now();
    loop {
        stranger.send_to(short[0], door).await.unwrap();
        let answer = timeout(Duration::from_millis(20), stranger.recv(&mut heard));
        if let Ok(count) = answer.await {
            assert!(count.unwrap() < short[0].len());
            break;
        }
        assert!(begun.elapsed() < SOON, "no reset");
    }
    // The door takes what comes in its order, and has taken all of these.
    drop(world.stream().await);
    while stranger.try_recv(&mut heard).is_ok() {}
    for _ in 0..20 {
        for datagram in &long {
            stranger.send_to(datagram, door).await.unwrap();
        }
        drop(world.stream().await);
        let heard = stranger.try_recv(&mut heard);
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    assert!(world.counters.knocks_refused.load(Ordering::Relaxed) > 0);
    world.end().await;
}

#[tokio::test]
async fn an_agent_answers_no_stranger() {
    let mut world = world(pending).await;
    let mut ours = world.dialled.open().await.unwrap();
    ours.write_all(b"x").await.unwrap();
    let (mut theirs, agent) = world.next().await;
    theirs.prepare().unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for some in garbage().chunks(16) {
        for datagram in some {
            stranger.send_to(datagram, agent).await.unwrap();
        }
        theirs.write_all(b"y").await.unwrap();
        let answered = timeout(SOON, ours.read_u8()).await;
        assert_eq!(answered.unwrap().unwrap(), b'y');
    }
    let heard = stranger.try_recv(&mut [0; 1500]);
    assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    world.end().await;
}

#[tokio::test]
async fn who_moves_is_blamed_at_the_address_that_shook_hands() {
    let mut world = world(pending).await;
    let door = world.dialled.connection.remote_address();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody: Judge = Arc::new(|_| false);
    let ground = (&world.tasks, Arc::default());
    let (endpoint, _) = silent(socket, None, nobody, ground).unwrap();
    let knock = Knock::make(&keys(), &EDGE, 1_000_000, [5; 4]);
    let tls = crate::tls::unverified().unwrap();
    let config = client_config(&tls, knock, Room::default()).unwrap();
    let connecting = endpoint.connect_with(config, door, "localhost").unwrap();
    let connection = timeout(SOON, connecting).await.unwrap().unwrap();
    let mut first = connection.open_bi().await.unwrap();
    first.0.write_all(b"x").await.unwrap();
    let (theirs, before) = world.next().await;
    theirs.prepare().unwrap();
    let moved = UdpSocket::bind("127.0.0.2:0").unwrap();
    endpoint.rebind(moved).unwrap();
    let mut second = connection.open_bi().await.unwrap();
    second.0.write_all(b"x").await.unwrap();
    let (mut again, after) = world.next().await;
    assert_eq!((before, after.ip()), (after, [127, 0, 0, 1].into()));
    // It has moved: the answer comes to where it is now.
    assert_eq!(endpoint.local_addr().unwrap().ip().to_string(), "127.0.0.2");
    again.write_all(b"y").await.unwrap();
    let mut answer = [0];
    timeout(SOON, second.1.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"y");
    endpoint.close(VarInt::from_u32(0), b"");
    drop((theirs, again, first, second, connection, endpoint));
    world.end().await;
}
