//! Datagrams beside the streams of one QUIC connection (RFC 9221).
//!
//! One task reads those of the connection and gives each to the flow whose
//! channel it names. A flow that does not take them has a bounded queue; what
//! finds it full is dropped and counted, as a network would.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use adit_link_proto::{DATAGRAM_OVERHEAD, datagram_index};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use quinn::Connection;

use crate::counters::Counters;

/// Datagrams that may wait for one flow.
const WAITING: usize = 256;

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Bytes>>,
    waker: AtomicWaker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The datagrams of one connection.
pub struct Lanes {
    connection: Connection,
    flows: Mutex<HashMap<u32, Arc<Queue>>>,
    counters: Arc<Counters>,
}

impl Lanes {
    pub(crate) fn new(connection: Connection, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            connection,
            flows: Mutex::default(),
            counters,
        })
    }

    /// Hands datagrams to their flows until the connection ends.
    pub(crate) async fn run(&self) {
        while let Ok(datagram) = self.connection.read_datagram().await {
            let index = datagram_index(&datagram);
            let queue = index.and_then(|index| lock(&self.flows).get(&index).cloned());
            let taken = queue.is_some_and(|queue| {
                let mut waiting = lock(&queue.waiting);
                let has_room = waiting.len() < WAITING;
                if has_room {
                    waiting.push_back(datagram);
                }
                drop(waiting);
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
        let queue = Arc::default();
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
        match lock(&self.queue.waiting).pop_front() {
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
