//! What a visitor has sent and its flow has not taken: a bounded queue between
//! the socket's reader and the flow's task, both on one worker.
//!
//! When it is full, the newest datagram is dropped and not the oldest: that
//! costs the same for each, keeps what began an exchange, and what waits is
//! little enough to be young. The two queues of a flow change places, so that
//! the lock is held for a copy in and for a swap. An empty queue holds no memory:
//! a worker keeps some for whichever of its flows is next, so that few datagrams
//! allocate, and thousands of flows that once had much to say cost nothing.

use std::cell::RefCell;
use std::mem::{swap, take};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// Datagrams that may come before a flow's stream is taken; all of them are
/// kept until then.
const OPENING: usize = 16;
/// Bytes that may wait, or are kept; one datagram always finds room.
const BYTES: usize = 64 * 1024;
/// Datagrams that may wait.
const COUNT: usize = 1024;
/// Rooms that a worker keeps, and the largest of them: 3 MiB.
const SPARE: (usize, usize) = (24, 2 * BYTES);

/// Bytes of datagrams, and the length of each.
type Room = (Vec<u8>, Vec<u16>);

thread_local! {
    static ROOMS: RefCell<Vec<Room>> = const { RefCell::new(Vec::new()) };
}

/// Datagrams one behind the other.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    lengths: Vec<u16>,
    /// The next one, and where its bytes begin.
    next: usize,
    at: usize,
}

impl Queue {
    fn push(&mut self, datagram: &[u8], length: u16) {
        if self.lengths.capacity() == 0 {
            let spare = ROOMS.with_borrow_mut(Vec::pop);
            (self.bytes, self.lengths) = spare.unwrap_or_default();
        }
        self.bytes.extend_from_slice(datagram);
        self.lengths.push(length);
    }

    /// The next datagram.
    pub(super) fn front(&self) -> Option<&[u8]> {
        let length = usize::from(*self.lengths.get(self.next)?);
        self.bytes.get(self.at..self.at + length)
    }

    /// Done with the next one.
    pub(super) fn pop(&mut self) {
        if let Some(length) = self.lengths.get(self.next) {
            self.at += usize::from(*length);
            self.next += 1;
        }
    }

    /// All of them are next again.
    pub(super) fn rewind(&mut self) {
        (self.next, self.at) = (0, 0);
    }

    /// Datagrams that are left.
    pub(super) fn left(&self) -> usize {
        self.lengths.len() - self.next
    }

    /// Datagrams that were taken out, and their bytes.
    pub(super) fn done(&self) -> (usize, usize) {
        (self.next, self.at)
    }

    /// Gives up what is in it, and its room.
    fn clear(&mut self) {
        let mut room = (take(&mut self.bytes), take(&mut self.lengths));
        self.rewind();
        if room.1.capacity() == 0 || room.0.capacity() > SPARE.1 {
            return;
        }
        room.0.clear();
        room.1.clear();
        ROOMS.with_borrow_mut(|rooms| {
            if rooms.len() < SPARE.0 {
                rooms.push(room);
            }
        });
    }

    fn append(&mut self, other: &mut Self) {
        if other.lengths.is_empty() {
            return;
        }
        self.bytes.extend_from_slice(&other.bytes);
        self.lengths.extend_from_slice(&other.lengths);
        other.clear();
    }
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No agent has taken it; what has come until now.
    Opening {
        count: usize,
        bytes: usize,
    },
    Open,
    /// No agent takes it: everything is dropped for a while.
    Refused,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Taken {
        /// It is time to let the flow take what waits.
        much: bool,
    },
    /// Too much waits.
    Full,
    /// No agent takes the flow.
    Refused,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    stage: Stage,
    /// Datagrams dropped since the flow asked.
    dropped: u64,
}

/// The queue of one flow.
#[derive(Debug)]
pub(super) struct Inbox {
    shared: Mutex<Shared>,
    waker: AtomicWaker,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let shared = Shared {
            queue: Queue::default(),
            stage: Stage::Opening { count: 0, bytes: 0 },
            dropped: 0,
        };
        Self {
            shared: Mutex::new(shared),
            waker: AtomicWaker::new(),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flow is woken when a datagram comes.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// One more; the flow hears of it.
    pub(super) fn push(&self, datagram: &[u8]) -> Pushed {
        let mut shared = self.shared();
        let Ok(length) = u16::try_from(datagram.len()) else {
            return Pushed::Full;
        };
        let (waiting, count) = (shared.queue.bytes.len(), shared.queue.lengths.len());
        let (held, has_room) = match shared.stage {
            Stage::Refused => return Pushed::Refused,
            Stage::Open => (waiting, count < COUNT),
            Stage::Opening { count, bytes } => (bytes, count < OPENING),
        };
        if !has_room || (held > 0 && held + datagram.len() > BYTES) {
            shared.dropped += 1;
            return Pushed::Full;
        }
        if let Stage::Opening { count, bytes } = &mut shared.stage {
            *count += 1;
            *bytes += datagram.len();
        }
        shared.queue.push(datagram, length);
        let much = waiting > BYTES / 2 || count > COUNT / 2;
        drop(shared);
        self.waker.wake();
        Pushed::Taken { much }
    }

    /// Moves what waits to `queue`, behind what is left in there.
    pub(super) fn take(&self, queue: &mut Queue) {
        let mut shared = self.shared();
        if queue.left() == 0 {
            queue.clear();
            swap(&mut shared.queue, queue);
        } else {
            queue.append(&mut shared.queue);
        }
    }

    /// The same for a flow that may have to begin anew: nothing in `queue` is
    /// given up.
    pub(super) fn collect(&self, queue: &mut Queue) {
        queue.append(&mut self.shared().queue);
    }

    /// An agent has taken the flow.
    pub(super) fn open(&self) {
        self.shared().stage = Stage::Open;
    }

    /// No agent takes it. Datagrams that nobody will read.
    pub(super) fn refuse(&self) -> usize {
        let mut shared = self.shared();
        shared.stage = Stage::Refused;
        let left = shared.queue.left();
        shared.queue.clear();
        left
    }

    /// Datagrams dropped since the last call.
    pub(super) fn dropped(&self) -> u64 {
        take(&mut self.shared().dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(queue: &mut Queue) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(datagram) = queue.front() {
            found.push(datagram.to_vec());
            queue.pop();
        }
        found
    }

    const TAKEN: Pushed = Pushed::Taken { much: false };

    #[test]
    fn boundaries_and_order_are_kept() {
        let (inbox, mut queue) = (Inbox::new(), Queue::default());
        for datagram in [&b"one"[..], b"", b"three"] {
            assert_eq!(inbox.push(datagram), TAKEN);
        }
        inbox.collect(&mut queue);
        assert_eq!(all(&mut queue), [&b"one"[..], b"", b"three"]);
        // Another agent is given everything once more, and what came since.
        assert_eq!(inbox.push(b"four"), TAKEN);
        inbox.collect(&mut queue);
        queue.rewind();
        assert_eq!(queue.left(), 4);
        queue.pop();
        inbox.push(b"five");
        inbox.take(&mut queue);
        assert_eq!(all(&mut queue), [&b""[..], b"three", b"four", b"five"]);
        inbox.take(&mut queue);
        assert_eq!((queue.left(), queue.front()), (0, None));
    }

    #[test]
    fn few_datagrams_wait_for_an_agent() {
        let (inbox, mut queue) = (Inbox::new(), Queue::default());
        for _ in 0..OPENING {
            assert_eq!(inbox.push(b"x"), TAKEN);
            inbox.collect(&mut queue);
        }
        assert_eq!(inbox.push(b"x"), Pushed::Full);
        assert_eq!(inbox.dropped(), 1);
        inbox.open();
        assert_eq!(inbox.push(b"x"), TAKEN);
        assert_eq!(inbox.refuse(), 1);
        assert_eq!(inbox.push(b"x"), Pushed::Refused);
    }

    #[test]
    fn few_bytes_are_kept_for_an_agent() {
        let (inbox, mut queue) = (Inbox::new(), Queue::default());
        assert_eq!(inbox.push(&[0; 65_000]), TAKEN);
        inbox.collect(&mut queue);
        assert_eq!(inbox.push(&[0; 1000]), Pushed::Full);
        assert_eq!(inbox.push(&[0; 500]), TAKEN);
        inbox.collect(&mut queue);
        assert_eq!(queue.left(), 2);
    }

    #[test]
    fn a_flow_at_rest_holds_no_room() {
        let (inbox, mut queue) = (Inbox::new(), Queue::default());
        inbox.open();
        let room = |queue: &Queue| (queue.bytes.capacity(), queue.lengths.capacity());
        for size in [10, 1400, 20_000] {
            for _ in 0..3 {
                assert_ne!(inbox.push(&vec![0; size]), Pushed::Full);
            }
            inbox.take(&mut queue);
            assert_eq!(room(&inbox.shared().queue), (0, 0), "{size}");
            assert_eq!(all(&mut queue).len(), 3);
            inbox.take(&mut queue);
            assert_eq!(room(&queue), (0, 0), "{size}");
        }
        let kept = ROOMS.with_borrow(|rooms| (rooms.len(), rooms[0].0.capacity()));
        assert_eq!(kept.0, 1, "each took the one before");
        assert!((60_000..=SPARE.1).contains(&kept.1), "{kept:?}");
        inbox.push(b"x");
        assert!(ROOMS.with_borrow(Vec::is_empty));
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_in_number() {
        let inbox = Inbox::new();
        inbox.open();
        assert_eq!(inbox.push(&[0; 65_527]), TAKEN);
        assert_eq!(inbox.push(&[0; 10]), Pushed::Full);
        let mut queue = Queue::default();
        inbox.take(&mut queue);
        let taken = (0..2 * COUNT).filter(|_| inbox.push(b"") != Pushed::Full);
        assert_eq!(taken.count(), COUNT);
        inbox.take(&mut queue);
        let of_200 = (0..COUNT).map(|_| inbox.push(&[0; 200]));
        let taken: Vec<_> = of_200.filter(|pushed| *pushed != Pushed::Full).collect();
        assert_eq!(taken.len(), BYTES / 200);
        assert_eq!(taken.first(), Some(&TAKEN));
        assert_eq!(taken.last(), Some(&Pushed::Taken { much: true }));
    }
}
