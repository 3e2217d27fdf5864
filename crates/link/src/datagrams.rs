//! A stream that carries datagrams: a UDP flow.
//!
//! The one place where a datagram of a flow is handed to a link
//! ([`Datagrams::room`] and [`Datagrams::commit`], or [`Datagrams::send`]) and
//! where one comes out ([`Datagrams::poll_next`] and [`Datagrams::datagram`]).
//! Here each is one `DATAGRAM` frame of the stream's channel, in order and
//! never lost in between; a transport that has datagrams of its own takes its
//! place behind the same calls.
//!
//! Invariants: a boundary is kept, empty datagrams too; what waits to be sent
//! is bounded by [`FULL`] and one datagram more, and whoever finds
//! [`Datagrams::is_full`] drops what comes.

use std::task::{Context, Poll};

use adit_wire::{Delivered, MAX_PAYLOAD, ResetReason};

use crate::channel::Channel;
use crate::stream::{Fill, Stream, StreamError};
use crate::tasks::Tasks;

/// Most bytes of one datagram: a frame's payload, which is more than UDP has
/// over IPv4 (65,507) or, without jumbograms, over IPv6 (65,527).
pub const MAX_DATAGRAM: usize = MAX_PAYLOAD;
/// Bytes that may wait for the channel before datagrams are dropped: some
/// tenths of a second on a slow line, and one buffer of the largest size.
pub const FULL: usize = 128 * 1024;

/// One flow of datagrams.
#[derive(Debug)]
pub struct Datagrams(Stream);

impl Datagrams {
    /// The stream as a flow; `None` when it carries bytes.
    #[must_use]
    pub fn of(stream: Stream) -> Option<Self> {
        stream.flow.datagrams.then_some(Self(stream))
    }

    /// Whether the other side has taken the flow.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.0.accepted()
    }

    /// The datagram that [`Datagrams::poll_next`] has found, until its next
    /// call.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        self.0.buffer()
    }

    /// Waits for the next datagram; the one before is gone.
    ///
    /// # Errors
    /// See [`StreamError`]; after one the flow is of no more use.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, StreamError>> {
        self.0.consume(usize::MAX);
        self.0.poll_fill(cx)
    }

    /// Ready when the flow was ended from this side, see
    /// [`Stream::poll_cut`].
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.0.poll_cut(cx)
    }

    /// Whether so much waits that what comes now is better dropped.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.inner.unsent() >= FULL
    }

    /// Room for a datagram of up to `want` bytes (at most [`MAX_DATAGRAM`]);
    /// empty when the flow is full or has ended.
    pub fn room(&mut self, want: usize) -> &mut [u8] {
        if self.is_full() {
            return &mut [];
        }
        self.0.spare(want)
    }

    /// Sends the first `count` bytes of the last [`Datagrams::room`], as one
    /// datagram.
    ///
    /// # Errors
    /// [`StreamError::Protocol`] when the channel's keys are used up.
    pub fn commit(&mut self, count: usize) -> Result<(), StreamError> {
        self.0.inner.commit_datagram(count)
    }

    /// Copies a datagram; false when there is no room for it.
    ///
    /// # Errors
    /// As [`Datagrams::commit`].
    pub fn send(&mut self, datagram: &[u8]) -> Result<bool, StreamError> {
        // An empty room would do for an empty datagram.
        if self.is_full() || self.0.finished() {
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
        self.0.poll_flush(cx)
    }

    /// Gives the flow up, see [`Stream::reset`].
    pub fn reset(self, reason: ResetReason, delivered: Delivered) {
        self.0.reset(reason, delivered);
    }

    /// Ends both directions in order, see [`Stream::end`]; what still comes is
    /// dropped.
    pub async fn end(self) -> Option<Channel> {
        self.0.end().await
    }

    /// Ends the flow in the background; its channel goes home for another.
    pub fn retire(self, tasks: &Tasks) {
        self.0.retire(tasks);
    }
}
