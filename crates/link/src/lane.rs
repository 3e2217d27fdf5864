//! Datagrams beside the streams of one QUIC connection (RFC 9221).
//!
//! One task reads those of the connection and gives each to the flow whose
//! channel it names. A flow that does not take them has a bounded queue, and so
//! have all flows of a connection together; what finds it full is dropped and
//! counted, as a network would.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use adit_link_proto::{DATAGRAM_OVERHEAD, datagram_index};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use quinn::Connection;

use crate::counters::Counters;

/// Datagrams that may wait for one flow.
const WAITING: usize = 256;
/// Bytes that may wait for all flows of a connection.
const BYTES: usize = 8 * 1024 * 1024;
/// What one that waits costs beside its bytes.
const EACH: usize = 128;

struct Queue {
    waiting: Mutex<VecDeque<Bytes>>,
    waker: AtomicWaker,
    /// What waits for all flows.
    all: Arc<AtomicUsize>,
}

impl Queue {
    /// False when there is no room.
    fn push(&self, datagram: Bytes) -> bool {
        let size = datagram.len() + EACH;
        let mut waiting = lock(&self.waiting);
        // One task pushes for all flows: what it sees free stays free.
        if waiting.len() >= WAITING || self.all.load(Ordering::Relaxed) + size > BYTES {
            return false;
        }
        self.all.fetch_add(size, Ordering::Relaxed);
        waiting.push_back(datagram);
        true
    }

    fn pop(&self) -> Option<Bytes> {
        let datagram = lock(&self.waiting).pop_front()?;
        let size = datagram.len() + EACH;
        self.all.fetch_sub(size, Ordering::Relaxed);
        Some(datagram)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The datagrams of one connection.
pub struct Lanes {
    connection: Connection,
    flows: Mutex<HashMap<u32, Arc<Queue>>>,
    waiting: Arc<AtomicUsize>,
    counters: Arc<Counters>,
}

impl Lanes {
    pub(crate) fn new(connection: Connection, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            connection,
            flows: Mutex::default(),
            waiting: Arc::default(),
            counters,
        })
    }

    /// Hands datagrams to their flows until the connection ends.
    pub(crate) async fn run(&self) {
        while let Ok(datagram) = self.connection.read_datagram().await {
            // A question whether this side lives; the library has answered it.
            if datagram.is_empty() {
                continue;
            }
            let index = datagram_index(&datagram);
            let queue = index.and_then(|index| lock(&self.flows).get(&index).cloned());
            let taken = queue.is_some_and(|queue| {
                let has_room = queue.push(datagram);
                queue.waker.wake();
                has_room
            });
            if !taken {
                self.dropped();
            }
        }
    }

    fn dropped(&self) {
        self.counters
            .datagrams_dropped
            .fetch_add(1, Ordering::Relaxed);
    }

    /// The lane of the channel at `index`, until it is dropped.
    pub(crate) fn lane(self: &Arc<Self>, index: u32) -> Lane {
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            waker: AtomicWaker::new(),
            all: Arc::clone(&self.waiting),
        });
        lock(&self.flows).insert(index, Arc::clone(&queue));
        Lane {
            lanes: Arc::clone(self),
            index,
            queue,
        }
    }
}

/// The datagrams of one channel.
pub(crate) struct Lane {
    lanes: Arc<Lanes>,
    index: u32,
    queue: Arc<Queue>,
}

impl Lane {
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Most bytes of a datagram that fits now, before sealing; `None` when the
    /// other side takes none.
    pub(crate) fn fits(&self) -> Option<usize> {
        let most = self.lanes.connection.max_datagram_size()?;
        most.checked_sub(DATAGRAM_OVERHEAD)
    }

    /// Whether `length` sealed bytes can wait to be sent.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        self.lanes.connection.datagram_send_buffer_space() >= length
    }

    /// Sends one; a connection that has ended tells so by its streams.
    pub(crate) fn send(&self, sealed: Vec<u8>) {
        match self.lanes.connection.send_datagram(sealed.into()) {
            Ok(()) => {
                let sent = &self.lanes.counters.datagrams_beside;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => self.lanes.dropped(),
        }
    }

    /// The next one that has arrived.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.queue.waker.register(cx.waker());
        match self.queue.pop() {
            Some(datagram) => Poll::Ready(datagram),
            None => Poll::Pending,
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut flows = lock(&self.lanes.flows);
        // The channel's next flow may have its lane already.
        let is_own = |queue: &Arc<Queue>| Arc::ptr_eq(queue, &self.queue);
        if flows.get(&self.index).is_some_and(is_own) {
            flows.remove(&self.index);
        }
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lane({})", self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_for_a_flow_and_for_all_of_them() {
        let all = Arc::new(AtomicUsize::new(0));
        let queue = || Queue {
            waiting: Mutex::default(),
            waker: AtomicWaker::new(),
            all: Arc::clone(&all),
        };
        let datagram = |length| Bytes::from(vec![0; length]);
        let fill = |queue: &Queue, length| {
            let pushed = (0..2 * WAITING).filter(|_| queue.push(datagram(length)));
            pushed.count()
        };
        let one = queue();
        assert_eq!(fill(&one, 0), WAITING);
        let mut flows = Vec::new();
        while all.load(Ordering::Relaxed) + 1400 + EACH <= BYTES {
            flows.push(queue());
            assert!(fill(&flows[flows.len() - 1], 1400) > 0);
        }
        assert!(flows.len() < 32 && !queue().push(datagram(1400)));
        assert_eq!(one.pop(), Some(datagram(0)));
        drop(flows);
        assert_eq!(fill(&one, 1400), 1);
        drop(one);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
