//! What a door says of connections that were those of a process before, and
//! how an agent comes to ask.

use aws_lc_rs::hmac;
use quinn::ConnectionIdGenerator;

use super::*;

/// The least that a reset may have (RFC 9000 §10.3), which is shorter than what
/// it answers.
const LEAST: usize = 21;

/// A stranger, and the door of a world.
struct Stranger {
    socket: tokio::net::UdpSocket,
    door: SocketAddr,
}

impl Stranger {
    async fn at(world: &World) -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let door = world.dialled.connection.remote_address();
        Self { socket, door }
    }

    /// What an earlier process of this door has made ids with.
    fn earlier(&self) -> (Maker, hmac::Key) {
        let keys = QuicDoorKeys::new(&edge(), self.door);
        let maker = Maker::new(Arc::new(Ids::of_door(keys.ids).unwrap()));
        (maker, keys.resets)
    }

    async fn say(&self, id: &[u8], size: usize) {
        let mut packet = vec![0x40];
        packet.extend_from_slice(id);
        packet.extend_from_slice(&random::<32>().unwrap());
        packet.resize(size, 7);
        self.socket.send_to(&packet, self.door).await.unwrap();
    }

    /// The answer to a packet with this id.
    async fn reset(&self, key: &hmac::Key, id: &[u8], size: usize) -> Vec<u8> {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            // One of two that follow each other closely has none.
            self.say(id, size).await;
            let mut room = vec![0; 2000];
            let came = timeout(Duration::from_millis(50), self.socket.recv(&mut room));
            if let Ok(count) = came.await {
                room.truncate(count.unwrap());
                if room.ends_with(&token(key, id)) {
                    return room;
                }
            }
        }
        panic!("no reset for {size} bytes");
    }

    /// That nothing answers what was said, after all of it was read.
    async fn hears_nothing(&self, world: &mut World) {
        let (_ours, _theirs) = world.stream().await;
        let heard = self.socket.try_recv(&mut [0; 2000]);
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

fn token(key: &hmac::Key, id: &[u8]) -> Vec<u8> {
    hmac::sign(key, id).as_ref()[..16].to_vec()
}

/// A world whose agent may have many streams.
async fn open_world() -> (World, (Socket, Socket)) {
    let mut world = world(pending).await;
    let first = world.stream().await;
    first.1.prepare().unwrap();
    (world, first)
}

#[tokio::test]
async fn a_door_resets_what_a_process_before_it_has_begun() {
    let (world, _first) = open_world().await;
    let stranger = Stranger::at(&world).await;
    let (mut maker, resets) = stranger.earlier();
    for size in [LEAST + 1, LEAST + 2, 31, 43, 44, 100, 1200, 1400] {
        let id = maker.generate_cid();
        let answer = stranger.reset(&resets, &id, size).await;
        assert!((LEAST..size).contains(&answer.len()), "{size}");
        assert_eq!(answer[0] & 0xc0, 0x40, "{size}");
    }
    world.end().await;
}

#[tokio::test]
async fn no_other_id_draws_a_reset() {
    let (mut world, _first) = open_world().await;
    let stranger = Stranger::at(&world).await;
    let (mut maker, resets) = stranger.earlier();
    for _ in 0..10 {
        for _ in 0..100 {
            stranger
                .say(&random::<{ ids::LENGTH }>().unwrap(), 1200)
                .await;
        }
        stranger.hears_nothing(&mut world).await;
    }
    let id = maker.generate_cid().to_vec();
    for bit in 0..id.len() * 8 {
        let mut altered = id.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        stranger.say(&altered, 1200).await;
    }
    stranger.hears_nothing(&mut world).await;
    // One of another door, of the same edge and of another one.
    let next_door = SocketAddr::new(stranger.door.ip(), stranger.door.port() ^ 1);
    let other = Identity::from_seed([8; 32]).unwrap();
    for keys in [
        QuicDoorKeys::new(&edge(), next_door),
        QuicDoorKeys::new(&other, stranger.door),
    ] {
        let mut maker = Maker::new(Arc::new(Ids::of_door(keys.ids).unwrap()));
        stranger.say(&maker.generate_cid(), 1200).await;
    }
    // What is no longer than a reset, so that two doors never answer each
    // other for ever; and a reset itself.
    for size in 1 + ids::LENGTH..=LEAST {
        stranger.say(&id, size).await;
    }
    stranger.hears_nothing(&mut world).await;
    let reset = stranger.reset(&resets, &id, 1200).await;
    drop(world.stream().await);
    while stranger.socket.try_recv(&mut [0; 2000]).is_ok() {}
    stranger
        .socket
        .send_to(&reset, stranger.door)
        .await
        .unwrap();
    stranger.hears_nothing(&mut world).await;
    world.end().await;
}

#[tokio::test]
async fn resets_are_bounded_whoever_asks_for_them() {
    let (mut world, _first) = open_world().await;
    let stranger = Stranger::at(&world).await;
    let (mut maker, _) = stranger.earlier();
    let began = Instant::now();
    let mut resets = 0;
    for _ in 0..50 {
        for _ in 0..40 {
            stranger.say(&maker.generate_cid(), 60).await;
        }
        let (_ours, _theirs) = world.stream().await;
        while stranger.socket.try_recv(&mut [0; 2000]).is_ok() {
            resets += 1;
        }
    }
    let most = began.elapsed().as_millis() / RESET_EVERY.as_millis() + 1;
    assert!((1..=most).contains(&resets), "{resets} of {most}");
    world.end().await;
}

/// A way to a door; once `killed`, what answers questions there is the door's
/// next process. Tells of each question.
async fn way(world: &World, killed: &CancellationToken) -> (SocketAddr, mpsc::Receiver<()>) {
    let door = world.dialled.connection.remote_address();
    let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(door).await.unwrap();
    let address = near.local_addr().unwrap();
    let (asked, questions) = mpsc::channel(100);
    let (killed, key) = (killed.clone(), QuicDoorKeys::new(&edge(), door).resets);
    world.tasks.spawn_until_stopped(async move {
        let (mut there, mut back, mut agent) = ([0; 2000], [0; 2000], None);
        loop {
            tokio::select! {
                came = near.recv_from(&mut there) => {
                    let (count, from) = came.unwrap();
                    // One byte is a question to the system, from another port.
                    agent = (count > 1).then_some(from).or(agent);
                    let is_question = count == asking::LENGTH;
                    if is_question {
                        let _full_is_enough = asked.try_send(());
                    }
                    if !killed.is_cancelled() {
                        far.send(&there[..count]).await.unwrap();
                    } else if is_question {
                        let id = &there[1..=ids::LENGTH];
                        let reset = [&[0x40; 20][..], &token(&key, id)].concat();
                        near.send_to(&reset, from).await.unwrap();
                    }
                }
                came = far.recv(&mut back) => {
                    let count = came.unwrap();
                    near.send_to(&back[..count], agent.unwrap()).await.unwrap();
                }
            }
        }
    });
    (address, questions)
}

#[tokio::test]
async fn an_agent_that_has_nothing_to_say_asks_and_hears_the_answer() {
    let (mut world, _first) = open_world().await;
    let killed = CancellationToken::new();
    let (way, mut questions) = way(&world, &killed).await;
    let knock = Knock::make(&keys(), &EDGE, 1_000_000, [8; 4]);
    let config = crate::tls::unverified().unwrap();
    let ground = (&world.tasks, Arc::default());
    let dialled = Dialled::connect(way, "localhost", knock, &config, ground);
    let dialled = timeout(SOON, dialled).await.unwrap().unwrap();
    let mut ours = dialled.open().await.unwrap();
    ours.write_all(b"x").await.unwrap();
    let (mut theirs, _) = world.next().await;
    theirs.prepare().unwrap();
    theirs.read_u8().await.unwrap();
    // A few questions, which a living door does not mind.
    for _ in 0..2 {
        timeout(SOON, questions.recv()).await.unwrap().unwrap();
    }
    theirs.write_all(b"y").await.unwrap();
    assert_eq!(timeout(SOON, ours.read_u8()).await.unwrap().unwrap(), b'y');
    killed.cancel();
    let since = Instant::now();
    let over = timeout(SOON, dialled.connection.closed()).await.unwrap();
    let took = since.elapsed();
    assert_eq!(over, quinn::ConnectionError::Reset);
    let most = asking::ASK_EVERY + Duration::from_secs(1);
    assert!(took < most, "{took:?}");
    drop((ours, theirs, dialled));
    world.end().await;
}
