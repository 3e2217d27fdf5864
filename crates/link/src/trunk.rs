//! Trunks: one TCP connection of a near link that carries many lines, each a
//! [`Channel`] like any other.
//!
//! Where the way is short, a small request costs the kernel's passes between
//! edge and agent more than anything else, and each pass moves one request.
//! What the lines of a trunk have to send is written together, as much as is
//! there when the other tasks of the worker have had their turn.
//!
//! A trunk adds no secrecy and no meaning: each line has keys of its own, so
//! that bytes which were altered, moved to another line or left out end a
//! stream but never pass for its end. A line that is not read holds at most
//! [`LINE_WINDOW`] bytes and holds up no other.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use adit_link_proto::{Opener, Role, Sealer, TrunkKeys};
use adit_wire::{LINE_WINDOW, Piece, PieceKind, TRUNK_HEAD};
use futures_util::task::AtomicWaker;

use crate::buffer::Buffer;
use crate::carrier::Wire;
use crate::channel::Channel;
use crate::counters::Counters;

mod driver;
mod line;

pub(crate) use driver::Driver;
use line::Line;

/// What may wait for the connection before writers have to.
const HIGH_WATER: usize = 192 * 1024;
/// What may wait with the small pieces that nobody holds back; above it the
/// peer has stopped reading.
const MOST: usize = 2 * HIGH_WATER;

/// What the lines of a trunk share.
pub(crate) struct Trunk {
    state: Mutex<State>,
    /// Whoever reads and writes the connection.
    driver: AtomicWaker,
    role: Role,
    /// Most lines at a time.
    most: usize,
    counters: Arc<Counters>,
}

struct State {
    /// Of the next line; its number follows the last one's.
    keys: TrunkKeys,
    /// Pieces that wait for the connection.
    out: Buffer,
    slots: HashMap<u32, Slot>,
    /// Lines whose writers wait for room in `out`, in the order in which they
    /// came, so that none is passed by for good.
    blocked: VecDeque<u32>,
    /// The peer was asked for a sign of life.
    asked: bool,
    /// The connection has ended.
    over: bool,
}

/// One line.
struct Slot {
    inbox: Buffer,
    /// Bytes that the reader took and the peer does not know of.
    owed: usize,
    /// Bytes that may still be sent.
    credit: usize,
    /// The peer has closed it.
    closed: bool,
    /// It stands among the blocked ones.
    blocked: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            inbox: Buffer::default(),
            owed: 0,
            credit: LINE_WINDOW,
            closed: false,
            blocked: false,
            reader: None,
            writer: None,
        }
    }
}

impl Slot {
    fn close(&mut self) -> impl Iterator<Item = Waker> {
        self.closed = true;
        self.reader.take().into_iter().chain(self.writer.take())
    }
}

impl State {
    /// There is room in `out` again: whom to wake.
    fn unblock(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::with_capacity(self.blocked.len());
        for id in self.blocked.drain(..) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.blocked = false;
                wakers.extend(slot.writer.take());
            }
        }
        wakers
    }

    /// The line is over on this side; whether the peer has to be told.
    fn forget(&mut self, id: u32) -> bool {
        let Some(slot) = self.slots.remove(&id) else {
            return false;
        };
        if slot.blocked {
            self.blocked.retain(|other| *other != id);
        }
        !self.over && !slot.closed
    }

    /// Queues a piece; `payload` belongs to one of data.
    fn queue(&mut self, kind: PieceKind, line: u32, count: u16, payload: &[u8]) {
        let piece = Piece { kind, line, count };
        let length = TRUNK_HEAD + payload.len();
        self.out.reserve(length);
        let (head, rest) = self.out.room().split_at_mut(TRUNK_HEAD);
        head.copy_from_slice(&piece.bytes());
        rest[..payload.len()].copy_from_slice(payload);
        self.out.end += length;
    }
}

impl Trunk {
    /// A trunk with lines for the side that plays `role`, `most` at a time.
    pub(crate) fn new(
        (keys, role): (TrunkKeys, Role),
        most: usize,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                keys,
                out: Buffer::default(),
                slots: HashMap::new(),
                blocked: VecDeque::new(),
                asked: false,
                over: false,
            }),
            driver: AtomicWaker::new(),
            role,
            most,
            counters,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its connection has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Whether [`Trunk::open`] would open a line.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        !state.over && state.slots.len() < self.most && state.keys.last() < u32::MAX
    }

    /// Edge: a new line; `None` when there can be no more.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Channel> {
        let mut state = self.state();
        if state.over || state.slots.len() >= self.most {
            return None;
        }
        let (id, keys) = state.keys.next_line(self.role).ok()?;
        state.slots.insert(id, Slot::default());
        // At once, so that lines open in their order whoever speaks first.
        state.queue(PieceKind::Open, id, 0, &[]);
        drop(state);
        self.driver.wake();
        Some(self.channel(id, keys))
    }

    fn channel(self: &Arc<Self>, id: u32, keys: (Sealer, Opener)) -> Channel {
        let line: Box<dyn Wire> = Box::new(Line::new(Arc::clone(self), id));
        Channel::new(line, keys, Arc::clone(&self.counters))
    }

    /// The connection has ended: so have its lines.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.over = true;
        let mut wakers = Vec::new();
        for slot in state.slots.values_mut() {
            wakers.extend(slot.close());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Puts bytes of a line where its reader finds them; whom to wake. What
    /// nobody reads any more is forgotten.
    fn deliver(state: &mut State, id: u32, bytes: &[u8]) -> io::Result<Option<Waker>> {
        let Some(slot) = state.slots.get_mut(&id) else {
            return Ok(None);
        };
        if slot.closed || slot.inbox.len() + bytes.len() > LINE_WINDOW {
            return Err(violation("bytes beyond a line's credit or end"));
        }
        slot.inbox.reserve(bytes.len());
        slot.inbox.room()[..bytes.len()].copy_from_slice(bytes);
        slot.inbox.end += bytes.len();
        Ok(slot.reader.take())
    }
}

fn violation(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
