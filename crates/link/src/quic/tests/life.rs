//! Agents that are gone, and hints that lie about agents that are not.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit};

use super::*;
use crate::uses::{Usage, Uses};

/// A way to a door that can be broken off as a killed process breaks it off.
struct Way {
    world: World,
    dialled: Dialled,
    way: Tasks,
}

async fn way() -> Way {
    let world = world(pending).await;
    let door = world.dialled.connection.remote_address();
    let way = Tasks::new();
    let (address, mut words) = overheard(door, &way).await;
    way.spawn_until_stopped(async move { while words.recv().await.is_some() {} });
    let knock = Knock::make(&keys(), &EDGE, 1_000_000, [6; 4]);
    let config = crate::tls::unverified().unwrap();
    let ground = (&world.tasks, Arc::default());
    let dialled = Dialled::connect(address, "localhost", knock, &config, ground);
    let dialled = timeout(SOON, dialled).await.unwrap().unwrap();
    Way {
        world,
        dialled,
        way,
    }
}

impl Way {
    /// A stream and its other end, which is the edge's.
    async fn stream(&mut self) -> (Socket, Socket) {
        let mut ours = self.dialled.open().await.unwrap();
        ours.write_all(b"x").await.unwrap();
        let mut theirs = self.world.next().await.0;
        theirs.prepare().unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        (ours, theirs)
    }

    async fn end(self) {
        drop(self.dialled);
        self.world.end().await;
    }
}

#[tokio::test]
async fn who_is_killed_is_missed_within_a_second() {
    let mut way = way().await;
    let (ours, mut idle) = way.stream().await;
    let uses = Arc::<Uses>::default();
    idle.carries(&uses);
    let usage = Usage::of(&uses);
    let killed = Instant::now();
    assert!(way.way.close(SOON).await);
    let ended = timeout(SOON, idle.read_u8()).await.unwrap();
    let took = killed.elapsed();
    assert!(ended.is_err(), "{ended:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop((ours, idle, usage));
    way.end().await;
}

#[tokio::test]
async fn hints_that_lie_cost_a_few_questions_and_end_nothing() {
    let mut way = way().await;
    let (mut ours, mut theirs) = way.stream().await;
    let (mut near, its_end) = way.world.stream().await;
    near.write_all(b"y").await.unwrap();
    its_end.prepare().unwrap();
    let agent = way.world.dialled.connection.clone();
    let told = way.world.hints.addresses();
    assert_eq!(told.len(), 2, "{told:?}");
    let began = Instant::now();
    let mut count = 0u32;
    while began.elapsed() < Duration::from_secs(2) {
        for address in &told {
            way.world.hints.tell(*address);
        }
        count += 1;
        theirs.write_all(b"z").await.unwrap();
        assert_eq!(timeout(SOON, ours.read_u8()).await.unwrap().unwrap(), b'z');
    }
    for connection in [&agent, &way.dialled.connection] {
        assert_eq!(connection.close_reason(), None);
        let asked = connection.stats().frame_rx.datagram;
        assert!((1..=5).contains(&asked), "{asked} for {count} hints");
    }
    drop((ours, theirs, near, its_end, agent));
    assert!(way.way.close(SOON).await);
    way.end().await;
}

/// A refusal is told by the system with whatever is sent next.
#[tokio::test]
async fn a_refused_datagram_costs_nobody_else_one() {
    for (own, other) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "::ffff:127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let other: IpAddr = other.parse().unwrap();
        let tasks = Tasks::new();
        let hints = Arc::<Hints>::default();
        let door = UdpSocket::bind(own).unwrap();
        door.set_nonblocking(true).unwrap();
        let door = refusals::wrap(door, &hints, &tasks).unwrap();
        let alive = UdpSocket::bind((other.to_canonical(), 0)).unwrap();
        alive.set_read_timeout(Some(SOON)).unwrap();
        let gone = {
            let gone = UdpSocket::bind((other.to_canonical(), 0)).unwrap();
            SocketAddr::new(other, gone.local_addr().unwrap().port())
        };
        let alive_at = SocketAddr::new(other, alive.local_addr().unwrap().port());
        let hinted = hints.watch(gone);
        let mut poller = Arc::clone(&door).create_io_poller();
        for round in 0..100u8 {
            for (destination, contents) in [(gone, [0]), (alive_at, [round])] {
                let transmit = Transmit {
                    destination,
                    ecn: None,
                    contents: &contents,
                    segment_size: None,
                    src_ip: None,
                };
                while door.try_send(&transmit).is_err() {
                    let ready = poll_fn(|cx| poller.as_mut().poll_writable(cx));
                    timeout(SOON, ready).await.unwrap().unwrap();
                }
            }
            let mut came = [0; 2];
            assert_eq!(alive.recv(&mut came).unwrap(), 1);
            assert_eq!(came[0], round);
        }
        timeout(SOON, hinted.notified()).await.unwrap();
        // What arrives at the door still does.
        let port = door.local_addr().unwrap().port();
        alive
            .send_to(&[9; 7], (other.to_canonical(), port))
            .unwrap();
        let mut room = vec![0; 64 * 1024];
        let mut metas = [RecvMeta::default()];
        let came = poll_fn(|cx| door.poll_recv(cx, &mut [IoSliceMut::new(&mut room)], &mut metas));
        assert_eq!(timeout(SOON, came).await.unwrap().unwrap(), 1);
        assert_eq!((metas[0].len, metas[0].addr), (7, alive_at));
        drop(door);
        assert!(tasks.close(SOON).await);
    }
}
