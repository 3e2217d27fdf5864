//! A stream that carries datagrams: a UDP flow.
//!
//! The one place where a datagram of a flow is handed to a link
//! ([`Datagrams::room`] and [`Datagrams::commit`], or [`Datagrams::send`]) and
//! where one comes out ([`Datagrams::poll_next`] and [`Datagrams::datagram`]).
//! Each is one `DATAGRAM` frame of the stream's channel, in order and never lost
//! in between; where the carrier has datagrams of its own those that fit go by
//! [`crate::lane`] instead, so that a lost one holds none of the others up.
//!
//! Invariants: a boundary is kept, empty datagrams too; what waits to be sent
//! is bounded by [`FULL`] and one datagram more, and whoever finds
//! [`Datagrams::is_full`] drops what comes.

use std::task::{Context, Poll, ready};

use adit_link_proto::DatagramFlow;
use adit_wire::{Delivered, MAX_PAYLOAD, ResetReason};

use crate::channel::Channel;
use crate::lane::Lane;
use crate::stream::{Fill, Stream, StreamError};
use crate::tasks::Tasks;

/// Most bytes of one datagram: a frame's payload, which is more than UDP has
/// over IPv4 (65,507) or, without jumbograms, over IPv6 (65,527).
pub const MAX_DATAGRAM: usize = MAX_PAYLOAD;
/// Bytes that may wait for the channel before datagrams are dropped: some
/// tenths of a second on a slow line, and one buffer of the largest size.
pub const FULL: usize = 128 * 1024;

/// Room that a datagram beside the stream may want.
const LARGEST: usize = 2048;

/// One flow of datagrams.
#[derive(Debug)]
pub struct Datagrams {
    stream: Stream,
    /// The way beside the stream, where the carrier has one.
    beside: Option<Box<Beside>>,
}

/// A flow's lane with its sealing.
#[derive(Debug)]
struct Beside {
    lane: Lane,
    flow: DatagramFlow,
    /// The datagram that came by it last, if that was the newest of all.
    found: Option<Vec<u8>>,
    /// Room of the ones before.
    spare: Vec<u8>,
}

impl Datagrams {
    /// The stream as a flow; `None` when it carries bytes.
    #[must_use]
    pub fn of(stream: Stream) -> Option<Self> {
        if !stream.flow.datagrams {
            return None;
        }
        let beside = stream.inner.lane().map(|(lane, flow)| {
            Box::new(Beside {
                lane,
                flow,
                found: None,
                spare: Vec::new(),
            })
        });
        Some(Self { stream, beside })
    }

    /// Whether the other side has taken the flow.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.stream.accepted()
    }

    /// The datagram that [`Datagrams::poll_next`] has found, until its next
    /// call.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        let beside = self.beside.as_ref();
        match beside.and_then(|beside| beside.found.as_ref()) {
            Some(found) => found,
            None => self.stream.buffer(),
        }
    }

    /// Waits for the next datagram; the one before is gone.
    ///
    /// # Errors
    /// See [`StreamError`]; after one the flow is of no more use.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, StreamError>> {
        match self.beside.as_mut().and_then(|beside| beside.found.take()) {
            Some(found) => self.keep_room(found),
            None => self.stream.consume(usize::MAX),
        }
        if let Poll::Ready(found) = self.stream.poll_fill(cx) {
            return Poll::Ready(found);
        }
        let keys = self.stream.inner.datagram_keys();
        let (Some(beside), Some(keys)) = (&mut self.beside, keys) else {
            return Poll::Pending;
        };
        loop {
            let sealed = ready!(beside.lane.poll_next(cx));
            let mut plain = std::mem::take(&mut beside.spare);
            // What does not open is of an earlier flow, repeated or forged.
            if beside.flow.open(keys, &sealed, &mut plain) {
                beside.found = Some(plain);
                return Poll::Ready(Ok(Fill::Data));
            }
            beside.spare = plain;
        }
    }

    fn keep_room(&mut self, found: Vec<u8>) {
        if let Some(beside) = &mut self.beside {
            beside.spare = found;
        }
    }

    /// Ready when the flow was ended from this side, see
    /// [`Stream::poll_cut`].
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.stream.poll_cut(cx)
    }

    /// Whether so much waits that what comes now is better dropped.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let beside = self.beside.as_ref();
        self.stream.inner.unsent() >= FULL
            || beside.is_some_and(|beside| !beside.lane.has_room(LARGEST))
    }

    /// Room for a datagram of up to `want` bytes (at most [`MAX_DATAGRAM`]);
    /// empty when the flow is full or has ended.
    pub fn room(&mut self, want: usize) -> &mut [u8] {
        if self.is_full() {
            return &mut [];
        }
        self.stream.spare(want)
    }

    /// Sends the first `count` bytes of the last [`Datagrams::room`], as one
    /// datagram.
    ///
    /// # Errors
    /// [`StreamError::Protocol`] when the channel's keys are used up.
    pub fn commit(&mut self, count: usize) -> Result<(), StreamError> {
        // The other side has no lane before it has taken the flow.
        if self.stream.accepted()
            && let Some(beside) = &mut self.beside
            && beside.lane.fits().is_some_and(|most| count <= most)
        {
            let inner = &mut self.stream.inner;
            if let Some(sealed) = inner.seal_beside(count, &mut beside.flow) {
                beside.lane.send(sealed);
                return Ok(());
            }
        }
        self.stream.inner.commit_datagram(count)
    }

    /// Copies a datagram; false when there is no room for it.
    ///
    /// # Errors
    /// As [`Datagrams::commit`].
    pub fn send(&mut self, datagram: &[u8]) -> Result<bool, StreamError> {
        // An empty room would do for an empty datagram.
        if self.is_full() || self.stream.finished() {
            return Ok(false);
        }
        let room = self.room(datagram.len());
        let Some(room) = room.get_mut(..datagram.len()) else {
            return Ok(false);
        };
        room.copy_from_slice(datagram);
        self.commit(datagram.len())?;
        Ok(true)
    }

    /// Hands everything committed to the kernel.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.stream.poll_flush(cx)
    }

    /// Gives the flow up, see [`Stream::reset`].
    pub fn reset(self, reason: ResetReason, delivered: Delivered) {
        self.stream.reset(reason, delivered);
    }

    /// Ends both directions in order, see [`Stream::end`]; what still comes is
    /// dropped.
    pub async fn end(self) -> Option<Channel> {
        self.stream.end().await
    }

    /// Ends the flow in the background; its channel goes home for another.
    pub fn retire(self, tasks: &Tasks) {
        self.stream.retire(tasks);
    }
}
