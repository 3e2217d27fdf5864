//! One line of a trunk, as a carrier's connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use adit_model::Carrier;
use adit_wire::{CREDIT_UNIT, LINE_WINDOW, PieceKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{HIGH_WATER, Slot, State, Trunk};
use crate::carrier::Wire;

/// Closes its line when it is dropped.
pub(super) struct Line {
    trunk: Arc<Trunk>,
    id: u32,
}

impl Line {
    pub(super) fn new(trunk: Arc<Trunk>, id: u32) -> Self {
        Self { trunk, id }
    }

    /// Ready when there are bytes, or none will come.
    fn poll_there<'a>(
        &self,
        cx: &mut Context<'_>,
        state: &'a mut State,
    ) -> Poll<io::Result<&'a mut Slot>> {
        let Some(slot) = state.slots.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if slot.inbox.is_empty() && !slot.closed {
            remember(&mut slot.reader, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(slot))
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|old| old.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

impl Wire for Line {
    fn carrier(&self) -> Carrier {
        Carrier::Tcp
    }

    fn is_line(&self) -> bool {
        true
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_there(cx, &mut self.trunk.state()).map_ok(|_| ())
    }

    /// The end of a line never looks orderly: a stream's own end is sealed.
    fn abort(&mut self) {}
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.trunk.state();
        let slot = ready!(self.poll_there(cx, &mut state))?;
        let count = slot.inbox.len().min(into.remaining());
        into.put_slice(&slot.inbox.filled()[..count]);
        slot.inbox.start += count;
        slot.inbox.release_if_empty();
        slot.owed += count;
        if slot.owed < LINE_WINDOW / 2 || slot.closed {
            return Poll::Ready(Ok(()));
        }
        let units = u16::try_from(slot.owed / CREDIT_UNIT).unwrap_or(u16::MAX);
        slot.owed -= usize::from(units) * CREDIT_UNIT;
        state.queue(PieceKind::Credit, self.id, units, &[]);
        drop(state);
        self.trunk.driver.wake();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.trunk.state();
        let full = state.out.len() >= HIGH_WATER;
        let slot = state.slots.get_mut(&self.id);
        let Some(slot) = slot.filter(|slot| !slot.closed) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let allowed = bytes.len().min(slot.credit);
        let count = u16::try_from(allowed).unwrap_or(u16::MAX);
        if full || count == 0 {
            remember(&mut slot.writer, cx);
            if full && !std::mem::replace(&mut slot.blocked, true) {
                state.blocked.push_back(self.id);
            }
            return Poll::Pending;
        }
        slot.credit -= usize::from(count);
        state.queue(
            PieceKind::Data,
            self.id,
            count,
            &bytes[..usize::from(count)],
        );
        drop(state);
        self.trunk.driver.wake();
        Poll::Ready(Ok(count.into()))
    }

    /// What was written is the trunk's, which sends it by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = self.trunk.state();
        if state.forget(self.id) {
            state.queue(PieceKind::Close, self.id, 0, &[]);
        }
        drop(state);
        // Also for a trunk that waits for its last line.
        self.trunk.driver.wake();
    }
}
