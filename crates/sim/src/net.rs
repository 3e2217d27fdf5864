//! A network of byte streams that fail in every way that a network can.
//!
//! Within one direction of one connection bytes arrive in order, in pieces of
//! any size, late when a piece was lost and sent again; across connections
//! there is no order. Faults on top: cut, swallowed without a word (half-open),
//! and what only an attacker does: altered, repeated, swapped, removed bytes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Who dialled.
    Agent,
    /// Who listens.
    Edge,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Agent => Self::Edge,
            Self::Edge => Self::Agent,
        }
    }
}

/// What an attacker does to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mangle {
    /// Flips one bit.
    Flip,
    /// Sends a piece twice.
    Repeat,
    /// Removes a piece.
    Remove,
    /// Swaps two pieces.
    Swap,
}

/// What arrives at an end.
#[derive(Debug)]
pub(crate) enum Arrival {
    Bytes(Vec<u8>),
    Closed,
}

/// One direction of a connection, named by where it leads.
#[derive(Debug, Default)]
struct Pipe {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    closed: Option<Instant>,
    /// Nothing arrives any more and nobody is told.
    swallows: bool,
    mangle: Option<Mangle>,
    /// The first bytes ever sent here, for an attacker's notebook.
    begun_with: Vec<u8>,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    pipes: BTreeMap<(Conn, Side), Pipe>,
    rng: Rng,
    next: u64,
    notebook: Vec<Vec<u8>>,
    /// Percent of pieces that are lost once and arrive late.
    pub loss: u64,
    /// Pieces that an attacker has touched.
    pub mangled: u64,
}

impl Net {
    /// A network without connections.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            pipes: BTreeMap::new(),
            rng,
            next: 0,
            notebook: Vec::new(),
            loss: 2,
            mangled: 0,
        }
    }

    pub(crate) fn connect(&mut self) -> Conn {
        self.next += 1;
        let conn = Conn(self.next);
        for side in [Side::Agent, Side::Edge] {
            self.pipes.insert((conn, side), Pipe::default());
        }
        conn
    }

    /// Sends bytes from one end to the other.
    pub(crate) fn send(&mut self, conn: Conn, from: Side, bytes: &[u8], now: Instant) {
        let to = from.other();
        let Some(pipe) = self.pipes.get_mut(&(conn, to)) else {
            return;
        };
        note(&mut self.notebook, &mut pipe.begun_with, to, bytes);
        if pipe.swallows || pipe.closed.is_some() {
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = 1 + self.rng.index(rest.len().min(1500));
            let size = if self.rng.chance(50) {
                rest.len()
            } else {
                size
            };
            let (piece, after) = rest.split_at(size);
            rest = after;
            let mut at = now + Duration::from_micros(200 + self.rng.below(80_000));
            if self.rng.chance(self.loss) {
                at += Duration::from_millis(200 + self.rng.below(1500));
            }
            let last = pipe.pieces.back().map_or(now, |(at, _)| *at);
            pipe.pieces.push_back((at.max(last), piece.to_vec()));
        }
        if let Some(how) = pipe.mangle.take() {
            if mangle(&mut pipe.pieces, how, &mut self.rng) {
                self.mangled += 1;
            } else {
                pipe.mangle = Some(how);
            }
        }
    }

    /// One end closes; the other learns of it after what was sent before.
    pub(crate) fn close(&mut self, conn: Conn, from: Side, now: Instant) {
        let last = |pipe: &Pipe| pipe.pieces.back().map_or(now, |(at, _)| *at);
        if let Some(pipe) = self.pipes.get_mut(&(conn, from.other())) {
            let at = last(pipe).max(now + Duration::from_millis(1));
            pipe.closed.get_or_insert(at);
        }
        self.pipes.remove(&(conn, from));
    }

    /// The connection is reset: both ends learn of it, bytes on their way are
    /// lost.
    pub fn cut(&mut self, conn: Conn, now: Instant) {
        for side in [Side::Agent, Side::Edge] {
            if let Some(pipe) = self.pipes.get_mut(&(conn, side))
                && !pipe.swallows
            {
                pipe.pieces.clear();
                pipe.closed = Some(now + Duration::from_millis(1 + self.rng.below(40)));
            }
        }
    }

    /// From now on nothing arrives at `to`, and nobody is told.
    pub fn swallow(&mut self, conn: Conn, to: Side) {
        if let Some(pipe) = self.pipes.get_mut(&(conn, to)) {
            pipe.swallows = true;
            pipe.pieces.clear();
        }
    }

    /// An attacker touches the next bytes to `to`.
    pub fn mangle(&mut self, conn: Conn, to: Side, how: Mangle) {
        if let Some(pipe) = self.pipes.get_mut(&(conn, to)) {
            pipe.mangle = Some(how);
        }
    }

    /// The attacker goes away.
    pub fn stop_mangling(&mut self) {
        for pipe in self.pipes.values_mut() {
            pipe.mangle = None;
        }
    }

    /// Beginnings of connections that an attacker has written down: 128 bytes
    /// and what came with them.
    #[must_use]
    pub fn notebook(&self) -> &[Vec<u8>] {
        &self.notebook
    }

    /// When the next thing arrives.
    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        let first = |pipe: &Pipe| match pipe.pieces.front() {
            Some((at, _)) => Some(*at),
            None => pipe.closed,
        };
        self.pipes.values().filter_map(first).min()
    }

    /// Takes what has arrived by now, in the order of its arrival.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<(Conn, Side, Arrival)> {
        let mut arrived = Vec::new();
        let mut over = Vec::new();
        for (&(conn, side), pipe) in &mut self.pipes {
            while pipe.pieces.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((at, piece)) = pipe.pieces.pop_front() {
                    arrived.push((at, conn, side, Arrival::Bytes(piece)));
                }
            }
            if pipe.pieces.is_empty() && pipe.closed.is_some_and(|at| at <= now) {
                arrived.push((now, conn, side, Arrival::Closed));
                over.push((conn, side));
            }
        }
        for end in over {
            self.pipes.remove(&end);
        }
        arrived.sort_by_key(|(at, ..)| *at);
        arrived
            .into_iter()
            .map(|(_, c, s, what)| (c, s, what))
            .collect()
    }
}

fn note(notebook: &mut Vec<Vec<u8>>, begun: &mut Vec<u8>, to: Side, bytes: &[u8]) {
    const PAGE: usize = 128 + 64;
    if to != Side::Edge || begun.len() >= PAGE {
        return;
    }
    let before = begun.len();
    begun.extend_from_slice(&bytes[..bytes.len().min(PAGE - before)]);
    if before < 128 && begun.len() >= 128 && notebook.len() < 64 {
        notebook.push(begun.clone());
    }
}

/// Touches the last pieces; false when there are too few.
fn mangle(pieces: &mut VecDeque<(Instant, Vec<u8>)>, how: Mangle, rng: &mut Rng) -> bool {
    let Some((at, piece)) = pieces.back_mut() else {
        return false;
    };
    match how {
        Mangle::Flip => {
            let byte = rng.index(piece.len());
            piece[byte] ^= 1 << rng.below(8);
        }
        Mangle::Repeat => {
            let again = (*at, piece.clone());
            pieces.push_back(again);
        }
        Mangle::Remove => {
            pieces.pop_back();
        }
        Mangle::Swap => {
            let last = pieces.len() - 1;
            if last == 0 || pieces[last].1 == pieces[last - 1].1 {
                return false;
            }
            let (earlier, later) = (pieces[last - 1].1.clone(), pieces[last].1.clone());
            (pieces[last - 1].1, pieces[last].1) = (later, earlier);
        }
    }
    true
}
