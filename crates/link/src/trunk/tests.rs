use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_link_proto::Suite;
use adit_wire::{CREDIT_UNIT, FrameKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::tasks::Tasks;

/// A trunk, what becomes of it, and by hand its other end.
struct World {
    trunk: Arc<Trunk>,
    ended: oneshot::Receiver<io::Result<()>>,
    far: TcpStream,
    _tasks: Tasks,
}

impl World {
    async fn new(role: Role) -> Self {
        Self::serving(role, drop).await
    }

    async fn serving(role: Role, serve: impl Fn(Channel) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let keys = TrunkKeys::new(Suite::ChaCha20Poly1305, (1, 0), [7; 32]);
        let trunk = Trunk::new((keys, role), 4, Arc::default());
        let driver = Driver::new(Arc::clone(&trunk), near.unwrap());
        let (tell, ended) = oneshot::channel();
        let tasks = Tasks::new();
        tasks.spawn_until_stopped(async move {
            drop(tell.send(driver.run(serve, pending()).await));
        });
        Self {
            trunk,
            ended,
            far: far.unwrap().0,
            _tasks: tasks,
        }
    }

    fn line(&self) -> Line {
        let mut state = self.trunk.state();
        let (id, _) = state.keys.next_line(self.trunk.role).unwrap();
        state.slots.insert(id, Slot::default());
        Line::new(Arc::clone(&self.trunk), id)
    }

    async fn say(&mut self, kind: PieceKind, line: u32, count: u16) {
        let piece = Piece { kind, line, count };
        self.far.write_all(&piece.bytes()).await.unwrap();
        let payload = vec![b'x'; piece.payload()];
        self.far.write_all(&payload).await.unwrap();
    }

    async fn hear(&mut self) -> (Piece, Vec<u8>) {
        let mut head = [0; TRUNK_HEAD];
        self.far.read_exact(&mut head).await.unwrap();
        let piece = Piece::parse(head).unwrap();
        let mut payload = vec![0; piece.payload()];
        self.far.read_exact(&mut payload).await.unwrap();
        (piece, payload)
    }

    async fn refused(self, why: &str) {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.ended);
        let error = ended.await.expect(why).unwrap().expect_err(why);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{why}: {error}");
        assert!(self.trunk.is_over() && self.trunk.open().is_none(), "{why}");
    }
}

fn piece(kind: PieceKind, line: u32, count: u16) -> Piece {
    Piece { kind, line, count }
}

/// As many bytes as the line takes at once.
fn fill(line: &mut Line, bytes: &[u8]) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = 0;
    while let Poll::Ready(count) = Pin::new(&mut *line).poll_write(&mut cx, bytes) {
        taken += count.unwrap();
    }
    taken
}

#[tokio::test]
async fn a_line_that_is_not_read_holds_a_window_and_no_other_up() {
    let mut world = World::new(Role::Edge).await;
    let (mut stuck, mut other) = (world.line(), world.line());
    // Nobody has told that it took something.
    assert_eq!(fill(&mut stuck, &[7; 50_000]), LINE_WINDOW);
    other.write_all(b"hello").await.unwrap();
    let mut heard = 0;
    loop {
        let (head, payload) = world.hear().await;
        if head.line == 2 {
            assert_eq!(payload, b"hello");
            break;
        }
        heard += payload.len();
    }
    assert_eq!(heard, LINE_WINDOW);
    world.say(PieceKind::Credit, 1, 3).await;
    stuck.write_all(&[7; 3 * CREDIT_UNIT]).await.unwrap();
    assert_eq!(world.hear().await.0, piece(PieceKind::Data, 1, 3072));
    assert_eq!(fill(&mut stuck, b"more"), 0);

    // The other way it is the sender who must keep to it.
    for _ in 0..LINE_WINDOW / 0x8000 {
        world.say(PieceKind::Data, 2, 0x8000).await;
    }
    let mut first = [0; 0x8000];
    other.read_exact(&mut first).await.unwrap();
    world.say(PieceKind::Data, 2, 0x8000).await;
    world.say(PieceKind::Data, 2, 1).await;
    world.refused("a byte beyond the window").await;
}

#[tokio::test]
async fn a_reader_gives_credit_back() {
    let mut world = World::new(Role::Edge).await;
    let mut line = world.line();
    let half = u16::try_from(LINE_WINDOW / 2 / CREDIT_UNIT).unwrap();
    for _ in 0..8 {
        world.say(PieceKind::Data, 1, 0x8000).await;
        world.say(PieceKind::Data, 1, 0x8000).await;
        let mut bytes = vec![0; LINE_WINDOW / 2];
        line.read_exact(&mut bytes).await.unwrap();
        assert_eq!(world.hear().await.0, piece(PieceKind::Credit, 1, half));
    }
    assert!(!world.trunk.is_over());
}

#[tokio::test]
async fn what_no_peer_says_ends_the_trunk() {
    for (why, kind, line, count) in [
        ("a line that an agent opens", PieceKind::Open, 2, 0),
        ("bytes of no line", PieceKind::Data, 2, 1),
        ("an answer that was not asked for", PieceKind::Pong, 0, 0),
        ("an end of no line", PieceKind::Close, 2, 0),
        ("credit of no line", PieceKind::Credit, 2, 1),
        ("credit that was not used", PieceKind::Credit, 1, 1),
    ] {
        let mut world = World::new(Role::Edge).await;
        let _line = world.line();
        world.say(kind, line, count).await;
        world.refused(why).await;
    }
    let mut world = World::new(Role::Edge).await;
    world.far.write_all(&[9; TRUNK_HEAD]).await.unwrap();
    world.refused("a head of no kind").await;

    let mut world = World::new(Role::Agent).await;
    world.say(PieceKind::Open, 2, 0).await;
    world.refused("a line out of its turn").await;

    let mut world = World::new(Role::Edge).await;
    let _line = world.line();
    world.say(PieceKind::Close, 1, 0).await;
    world.say(PieceKind::Data, 1, 1).await;
    world.refused("bytes after an end").await;
}

/// Its peer opens lines, and nobody serves them for long.
#[tokio::test]
async fn lines_have_a_limit_and_are_closed() {
    let mut world = World::new(Role::Agent).await;
    for id in 1..=9 {
        world.say(PieceKind::Open, id, 0).await;
        // Dropped at once, so that there is room for the next.
        assert_eq!(world.hear().await.0, piece(PieceKind::Close, id, 0));
        // What was under way then belongs to nobody.
        world.say(PieceKind::Data, id, 5).await;
        world.say(PieceKind::Credit, id, 5).await;
    }
    let edge = World::new(Role::Edge).await;
    let lines: Vec<_> = (0..4).map(|_| edge.trunk.open().unwrap()).collect();
    assert!(edge.trunk.open().is_none() && !edge.trunk.has_room());
    drop(lines);
    assert!(edge.trunk.open().is_some() && edge.trunk.has_room());
}

/// The edge may have closed some of them already.
#[tokio::test]
async fn an_agent_that_holds_its_lines_refuses_one_and_not_the_trunk() {
    let (keep, kept) = std::sync::mpsc::channel();
    let mut world = World::serving(Role::Agent, move |line| keep.send(line).unwrap()).await;
    for id in 1..=4 {
        world.say(PieceKind::Open, id, 0).await;
    }
    world.say(PieceKind::Close, 1, 0).await;
    world.say(PieceKind::Open, 5, 0).await;
    assert_eq!(world.hear().await.0, piece(PieceKind::Close, 5, 0));
    drop(kept.recv().unwrap());
    world.say(PieceKind::Open, 6, 0).await;
    world.say(PieceKind::Ping, 0, 0).await;
    assert_eq!(world.hear().await.0, piece(PieceKind::Pong, 0, 0));
    assert_eq!(kept.try_iter().count(), 4);
    assert!(!world.trunk.is_over());
}

#[tokio::test]
async fn lines_open_in_their_order_whoever_speaks_first() {
    let mut world = World::new(Role::Edge).await;
    let lines: Vec<_> = (0..3).map(|_| world.trunk.open().unwrap()).collect();
    let mut lines = lines.into_iter();
    let (mut first, second, mut third) = (
        lines.next().unwrap(),
        lines.next().unwrap(),
        lines.next().unwrap(),
    );
    third.inner.queue(FrameKind::PING, &[]).unwrap();
    poll_fn(|cx| third.inner.poll_flush(cx)).await.unwrap();
    drop(second);
    first.inner.queue(FrameKind::PING, &[]).unwrap();
    poll_fn(|cx| first.inner.poll_flush(cx)).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..6 {
        let (head, _) = world.hear().await;
        heard.push((head.kind, head.line));
    }
    let expected = [
        (PieceKind::Open, 1),
        (PieceKind::Open, 2),
        (PieceKind::Open, 3),
        (PieceKind::Data, 3),
        (PieceKind::Close, 2),
        (PieceKind::Data, 1),
    ];
    assert_eq!(heard, expected);
}

/// Who sleeps on a line hears of the end, too, that came with its last bytes.
#[tokio::test]
async fn a_violation_wakes_every_reader() {
    let mut world = World::new(Role::Edge).await;
    let mut line = world.line();
    let read = async {
        let mut all = Vec::new();
        line.read_to_end(&mut all).await.unwrap();
        all
    };
    let speak = async {
        while world.trunk.state().slots[&1].reader.is_none() {
            tokio::task::yield_now().await;
        }
        let mut bytes = piece(PieceKind::Data, 1, 1).bytes().to_vec();
        bytes.push(b'x');
        bytes.extend([9; TRUNK_HEAD]);
        world.far.write_all(&bytes).await.unwrap();
    };
    let both = async { tokio::join!(read, speak).0 };
    let all = tokio::time::timeout(Duration::from_secs(10), both).await;
    assert_eq!(all.unwrap(), b"x");
}

/// It opens lines without end and reads none of the answers.
#[tokio::test]
async fn a_peer_that_does_not_read_is_given_up() {
    let mut world = World::new(Role::Agent).await;
    for id in 1.. {
        let open = piece(PieceKind::Open, id, 0).bytes();
        if id > 1_000_000 || world.far.write_all(&open).await.is_err() {
            break;
        }
    }
    world.refused("answers that nobody reads").await;
}

/// A peer that goes on about lines that are over, more than the connection and
/// all buffers hold: nothing of it is kept or answered, and who has a line is
/// served meanwhile.
#[tokio::test]
async fn what_is_said_to_lines_that_are_over_is_not_kept() {
    const ROUNDS: usize = 8;
    let mut world = World::new(Role::Edge).await;
    let mut live = world.line();
    let dead: Vec<_> = (0..3).map(|_| world.line()).collect();
    drop(dead);
    for id in 2..=4 {
        assert_eq!(world.hear().await.0, piece(PieceKind::Close, id, 0));
    }
    let mut flood = Vec::new();
    for (kind, count) in [
        (PieceKind::Data, u16::MAX),
        // More than a line that lives could be given.
        (PieceKind::Credit, u16::MAX),
        (PieceKind::Close, 0),
        (PieceKind::Data, 1),
    ] {
        for id in 2..=4 {
            let piece = piece(kind, id, count);
            flood.extend(piece.bytes());
            flood.resize(flood.len() + piece.payload(), b'x');
        }
    }
    let mut all = flood.repeat(16);
    let question = piece(PieceKind::Data, 1, 1);
    all.extend(question.bytes());
    all.push(b'?');
    let trunk = Arc::clone(&world.trunk);
    let served = async {
        for _ in 0..ROUNDS {
            let mut asked = [0];
            live.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"?");
            let state = trunk.state();
            assert_eq!((state.slots.len(), state.out.len()), (1, 0));
        }
    };
    let flooding = async {
        for _ in 0..ROUNDS {
            world.far.write_all(&all).await.unwrap();
        }
    };
    let both = async { tokio::join!(served, flooding) };
    let done = tokio::time::timeout(Duration::from_secs(60), both).await;
    done.expect("a line is served beside it");
    // Nothing was answered, and nothing of it was a violation.
    live.write_all(b"still here").await.unwrap();
    assert_eq!(world.hear().await.1, b"still here");
    assert!(!world.trunk.is_over());
}

#[tokio::test]
async fn the_connections_end_is_the_end_of_all_lines() {
    let mut world = World::new(Role::Edge).await;
    let mut line = world.line();
    world.say(PieceKind::Data, 1, 3).await;
    let mut some = [0];
    line.read_exact(&mut some).await.unwrap();
    drop(world.far);
    assert!(world.ended.await.unwrap().is_ok());
    // What came before is there.
    let mut rest = Vec::new();
    line.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"xx");
    assert!(line.write_all(b"?").await.is_err());
    assert!(world.trunk.open().is_none());
}

#[tokio::test]
async fn writers_wait_while_the_connection_takes_nothing() {
    let mut world = World::new(Role::Edge).await;
    let mut lines: Vec<_> = (0..200).map(|_| world.line()).collect();
    let mut last = lines.pop().unwrap();
    let mut taken = 0;
    // The system's own buffers are full at some time.
    for line in &mut lines {
        taken += fill(line, &[1; 60_000]);
        tokio::task::yield_now().await;
    }
    assert!(taken < lines.len() * LINE_WINDOW, "the connection took all");
    let waiting = world.trunk.state().out.len();
    assert!((HIGH_WATER..HIGH_WATER + 0x1_0000 + TRUNK_HEAD).contains(&waiting));
    let read = async {
        let mut heard = 0;
        while heard < taken + 4 {
            heard += world.hear().await.1.len();
        }
    };
    let (written, ()) = tokio::join!(last.write_all(b"late"), read);
    written.unwrap();
}

/// Notes whose turn it is.
struct Turn(u32, Arc<Mutex<Vec<u32>>>);

impl std::task::Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn writers_that_wait_have_their_turn_in_the_order_in_which_they_came() {
    let keys = TrunkKeys::new(Suite::ChaCha20Poly1305, (1, 0), [7; 32]);
    let trunk = Trunk::new((keys, Role::Edge), 100, Arc::default());
    let line = |id| {
        trunk.state().slots.insert(id, Slot::default());
        Line::new(Arc::clone(&trunk), id)
    };
    let mut lines: Vec<_> = (1..=40).map(line).collect();
    for line in &mut lines[..2] {
        fill(line, &[7; 50_000]);
    }
    let turns = Arc::<Mutex<Vec<u32>>>::default();
    let mut wait = |id: u32| {
        let waker = Waker::from(Arc::new(Turn(id, Arc::clone(&turns))));
        let line = Pin::new(&mut lines[id as usize - 1]);
        let asked = line.poll_write(&mut Context::from_waker(&waker), b"x");
        assert!(asked.is_pending());
    };
    let order = (0..30).map(|n| 3 + n * 7 % 31).collect::<Vec<_>>();
    // Who asks twice has one turn.
    order.iter().chain(&order).for_each(|id| wait(*id));
    // And who is gone has none.
    let gone = order[10];
    drop(lines.remove(gone as usize - 1));
    let left: Vec<_> = order.into_iter().filter(|id| *id != gone).collect();
    let wakers = trunk.state().unblock();
    wakers.into_iter().for_each(Waker::wake);
    assert_eq!(*turns.lock().unwrap(), left);
    assert!(trunk.state().unblock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_asked_and_given_up() {
    let mut world = World::new(Role::Edge).await;
    let _line = world.line();
    assert_eq!(world.hear().await.0, piece(PieceKind::Ping, 0, 0));
    world.say(PieceKind::Pong, 0, 0).await;
    for _ in 0..2 {
        assert_eq!(world.hear().await.0, piece(PieceKind::Ping, 0, 0));
    }
    let ended = (&mut world.ended).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);

    let mut world = World::new(Role::Edge).await;
    world.say(PieceKind::Ping, 0, 0).await;
    assert_eq!(world.hear().await.0, piece(PieceKind::Pong, 0, 0));
}

#[tokio::test]
async fn a_line_reads_in_any_portions() {
    let mut world = World::new(Role::Edge).await;
    let mut line = world.line();
    world.say(PieceKind::Data, 1, 10).await;
    let mut heard = 0;
    while heard < 10 {
        let (mut room, mut cx) = ([0; 3], Context::from_waker(Waker::noop()));
        let mut into = ReadBuf::new(&mut room);
        if Pin::new(&mut line).poll_read(&mut cx, &mut into).is_ready() {
            heard += into.filled().len();
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(heard, 10);
}
