//! A visitor's byte stream to a backend, over a channel or a plain socket.
//!
//! More than `AsyncRead + AsyncWrite`: it lends its buffers (fill and consume,
//! spare and commit with room for sealing), keeps the end of each direction
//! apart from a reset with its reason, and knows whether a start was answered.
//! [`crate::StreamIo`] adapts it to the tokio traits.
//!
//! A truncated stream is always an error, never a clean end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use adit_wire::{Delivered, FrameKind, Reset, ResetReason, Start};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::channel::{Channel, Home};
use crate::inner::{Frame, Inner};
use crate::tasks::Tasks;
use crate::uses::Usage;

/// How long the orderly end of a stream may take before its channel is closed.
const END_TIME: Duration = Duration::from_secs(10);

/// Why a stream ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side gave up, with its reason and whether bytes of ours had
    /// reached the service.
    #[error("stream was reset: {reason}")]
    Reset {
        /// Its reason.
        reason: ResetReason,
        /// Whether anything was delivered.
        delivered: Delivered,
    },
    /// Nobody answered the start within its patience; what was sent may or may
    /// not have been delivered.
    #[error("stream was not answered")]
    Unanswered,
    /// The channel or socket ended in the middle.
    #[error("stream was cut off")]
    Truncated,
    /// The socket failed.
    #[error("socket failed: {0}")]
    Io(#[source] io::Error),
    /// The other side broke the protocol; its channel is closed.
    #[error("other side broke the link protocol")]
    Protocol,
}

/// What [`Stream::poll_fill`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// [`Stream::buffer`] grew.
    Data,
    /// The other side has ended its direction; nothing more will come.
    End,
}

/// Where a stream stands.
#[derive(Default)]
pub(crate) struct Flow {
    pub(crate) accepted: bool,
    /// It carries datagrams, and nothing else.
    pub(crate) datagrams: bool,
    pub(crate) fin_queued: bool,
    /// Plain sockets: shut for writing.
    pub(crate) plain_shut: bool,
    pub(crate) done_queued: bool,
    pub(crate) fin_received: bool,
    pub(crate) done_received: bool,
    pub(crate) answer_by: Option<Pin<Box<Sleep>>>,
    pub(crate) usage: Option<Usage>,
}

/// One visitor stream.
pub struct Stream {
    pub(crate) inner: Box<Inner>,
    pub(crate) flow: Flow,
    home: Option<Arc<dyn Home>>,
}

impl Stream {
    /// A stream over a socket that is not sealed.
    #[must_use]
    pub fn plain(socket: TcpStream) -> Self {
        let flow = Flow {
            accepted: true,
            ..Flow::default()
        };
        Self {
            inner: Box::new(Inner::new(socket.into(), None)),
            flow,
            home: None,
        }
    }

    /// Begins a stream on a channel; the start goes out with the first flush.
    pub(crate) fn begin(
        inner: Box<Inner>,
        home: Option<Arc<dyn Home>>,
        start: &Start,
        usage: Option<Usage>,
    ) -> Result<Self, StreamError> {
        let mut body = Vec::with_capacity(96);
        start.encode(&mut body);
        let flow = Flow {
            datagrams: start.idle_ms.is_some(),
            usage,
            ..Flow::default()
        };
        let first = (FrameKind::START, &body[..]);
        Self::open(inner, home, first, start.patience(), flow)
    }

    /// Begins a stream by its first frame.
    pub(crate) fn open(
        mut inner: Box<Inner>,
        home: Option<Arc<dyn Home>>,
        (kind, body): (FrameKind, &[u8]),
        patience: Duration,
        mut flow: Flow,
    ) -> Result<Self, StreamError> {
        unread_ends_here(&inner)?;
        if let Some(sealed) = &mut inner.sealed {
            sealed.stream = sealed.stream.checked_add(1).ok_or(StreamError::Protocol)?;
        }
        inner.queue(kind, body)?;
        flow.answer_by = Some(Box::pin(tokio::time::sleep(patience)));
        Ok(Self { inner, flow, home })
    }

    /// Takes a stream that the other side began.
    pub(crate) fn take(mut inner: Box<Inner>, mut flow: Flow) -> Result<Self, StreamError> {
        unread_ends_here(&inner)?;
        inner.queue(FrameKind::ACCEPTED, &[])?;
        flow.accepted = true;
        Ok(Self {
            inner,
            flow,
            home: None,
        })
    }

    /// Received bytes that were not consumed.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.inner.readable()
    }

    /// Marks the first `count` bytes of [`Stream::buffer`] as used.
    pub fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }

    /// Whether the other side has taken the stream.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.flow.accepted
    }

    /// Whether bytes wait for [`Stream::poll_flush`].
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.inner.has_unsent()
    }

    /// Waits for more bytes than [`Stream::buffer`] has, or for the end.
    ///
    /// # Errors
    /// See [`StreamError`]; after one the stream is of no more use.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, StreamError>> {
        if self.flow.fin_received {
            return Poll::Ready(Ok(Fill::End));
        }
        if self.inner.sealed.is_none() {
            let more = ready!(self.inner.poll_plain(cx)).map_err(StreamError::Io)?;
            self.flow.fin_received = !more;
            return Poll::Ready(Ok(if more { Fill::Data } else { Fill::End }));
        }
        self.inner.watch(cx)?;
        let found = self.poll_sealed(cx, |flow, kind| {
            matches!(kind, FrameKind::DATA | FrameKind::DATAGRAM) || flow.fin_received
        });
        if found.is_pending() {
            return self.poll_unanswered(cx);
        }
        ready!(found)?;
        Poll::Ready(Ok(if self.flow.fin_received {
            Fill::End
        } else {
            Fill::Data
        }))
    }

    /// Ready when the stream was ended from this side, as when its agent is
    /// revoked: also while nothing is read from it.
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match self.inner.watch(cx) {
            Err(error) => Poll::Ready(error),
            Ok(()) => Poll::Pending,
        }
    }

    /// Ready when a channel's other side gives up after it ended its direction.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if self.inner.sealed.is_none() || !self.flow.fin_received {
            return Poll::Pending;
        }
        if let Err(error) = self.inner.watch(cx) {
            return Poll::Ready(error);
        }
        match self.poll_sealed(cx, |flow, _| flow.done_received) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            _ => Poll::Pending,
        }
    }

    /// Takes frames in until `enough`.
    fn poll_sealed(
        &mut self,
        cx: &mut Context<'_>,
        enough: impl Fn(&Flow, FrameKind) -> bool,
    ) -> Poll<Result<(), StreamError>> {
        loop {
            let Some(frame) = ready!(self.inner.poll_frame(cx))? else {
                return Poll::Ready(Err(StreamError::Truncated));
            };
            self.on_frame(&frame, cx)?;
            if enough(&self.flow, frame.kind) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_unanswered(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, StreamError>> {
        if self.flow.accepted {
            self.flow.answer_by = None;
        }
        if let Some(sleep) = &mut self.flow.answer_by {
            ready!(sleep.as_mut().poll(cx));
            return Poll::Ready(Err(StreamError::Unanswered));
        }
        Poll::Pending
    }

    fn on_frame(&mut self, frame: &Frame, cx: &mut Context<'_>) -> Result<(), StreamError> {
        match frame.kind {
            FrameKind::PING => {
                self.inner.queue(FrameKind::PONG, &[])?;
                // What cannot be sent now goes with the next flush.
                if let Poll::Ready(sent) = self.inner.poll_flush(cx) {
                    sent?;
                }
                return Ok(());
            }
            FrameKind::PONG | FrameKind::DATA_CONN_READY => return Ok(()),
            _ => {}
        }
        let current = self.inner.sealed.as_ref().map_or(0, |sealed| sealed.stream);
        if frame.stream != current {
            return Err(StreamError::Protocol);
        }
        match frame.kind {
            // Bytes and ends come behind the acceptance, or nothing is known of it.
            FrameKind::DATA | FrameKind::DATAGRAM
                if self.flow.accepted
                    && !self.flow.fin_received
                    && self.flow.datagrams == (frame.kind == FrameKind::DATAGRAM) =>
            {
                Ok(())
            }
            FrameKind::ACCEPTED if !self.flow.accepted => {
                self.flow.accepted = true;
                Ok(())
            }
            FrameKind::FIN if self.flow.accepted && !self.flow.fin_received => {
                self.flow.fin_received = true;
                Ok(())
            }
            FrameKind::DONE if self.flow.fin_received => {
                self.flow.done_received = true;
                Ok(())
            }
            FrameKind::RESET => Err(self.on_reset(frame, cx)),
            _ => Err(StreamError::Protocol),
        }
    }

    /// Confirms a reset, so that its sender may close without losing it.
    fn on_reset(&mut self, frame: &Frame, cx: &mut Context<'_>) -> StreamError {
        let Ok(Reset { reason, delivered }) = Reset::decode(self.inner.payload(frame)) else {
            return StreamError::Protocol;
        };
        if reason == ResetReason::Protocol
            && let Some(sealed) = &self.inner.sealed
        {
            sealed.counters.bad_frames.fetch_add(1, Ordering::Relaxed);
        }
        if self.inner.queue(FrameKind::RESET_ACK, &[]).is_ok() {
            let _ = self.inner.poll_flush(cx);
        }
        StreamError::Reset { reason, delivered }
    }

    /// Room to write up to `want` bytes into (at most 64 KiB); empty when so
    /// much waits already that [`Stream::poll_flush`] has to come first.
    pub fn spare(&mut self, want: usize) -> &mut [u8] {
        if self.flow.fin_queued {
            &mut []
        } else {
            self.inner.spare(want)
        }
    }

    /// Sends the first `count` bytes of the last [`Stream::spare`].
    ///
    /// # Errors
    /// [`StreamError::Protocol`] when the channel's keys are used up.
    pub fn commit(&mut self, count: usize) -> Result<(), StreamError> {
        self.inner.commit(count)
    }

    /// Hands everything committed to the kernel, the end of our direction too.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.inner.watch(cx)?;
        ready!(self.inner.poll_flush(cx))?;
        if self.flow.fin_queued && self.inner.sealed.is_none() && !self.flow.plain_shut {
            ready!(Pin::new(&mut self.inner.socket).poll_shutdown(cx)).map_err(StreamError::Io)?;
            self.flow.plain_shut = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our direction; goes out with the next flush.
    pub fn finish(&mut self) {
        if self.flow.fin_queued {
            return;
        }
        self.flow.fin_queued = true;
        if self.inner.sealed.is_some() && self.inner.queue(FrameKind::FIN, &[]).is_err() {
            self.cut();
        }
    }

    /// [`Stream::finish`] for who has handed on all that the other side sent:
    /// when that has ended, the receipt for it goes out in the same write.
    pub fn conclude(&mut self) {
        self.finish();
        let all = self.flow.fin_received && self.inner.readable().is_empty();
        if all && self.inner.sealed.is_some() && !self.flow.done_queued {
            self.flow.done_queued = true;
            if self.inner.queue(FrameKind::DONE, &[]).is_err() {
                self.cut();
            }
        }
    }

    /// Whether our direction has ended.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.flow.fin_queued
    }

    /// Whether the other side has ended its direction.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.flow.fin_received
    }

    /// Gives the stream up. A sealed channel tells the other side why, as far
    /// as its socket takes it at once, and is closed.
    pub fn reset(mut self, reason: ResetReason, delivered: Delivered) {
        let mut told = false;
        if self.inner.sealed.is_some() {
            let mut body = Vec::with_capacity(8);
            Reset { reason, delivered }.encode(&mut body);
            if self.inner.queue(FrameKind::RESET, &body).is_ok() {
                let mut cx = Context::from_waker(Waker::noop());
                told = matches!(self.inner.poll_flush(&mut cx), Poll::Ready(Ok(())));
            }
            self.cut();
        }
        if !told {
            // Unsent bytes must not look like a clean end: RST instead of FIN.
            self.inner.socket.abort();
        }
    }

    fn cut(&self) {
        if let Some(sealed) = &self.inner.sealed {
            sealed.cut.cut();
        }
    }

    /// Whether a kept-alive stream may carry another request: it is open, and
    /// the service has sent nothing and ended nothing.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.buffer().is_empty() && !self.flow.fin_queued && self.poll_fill(&mut cx).is_pending()
    }

    /// Ends both directions in order; gives the channel back for another
    /// stream. `None` when it was plain, or could not be ended cleanly.
    pub async fn end(mut self) -> Option<Channel> {
        self.finish();
        self.inner.sealed.as_ref()?;
        let ended = tokio::time::timeout(END_TIME, poll_fn(|cx| self.poll_end(cx)));
        match ended.await {
            Ok(Ok(())) => Some(self.into_channel()),
            _ => None,
        }
    }

    fn into_channel(mut self) -> Channel {
        self.flow.usage = None;
        Channel::resume(self.inner, self.home)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.flow.fin_received {
            ready!(self.poll_flush(cx))?;
            if ready!(self.poll_fill(cx))? == Fill::Data && !self.drop_late() {
                // Nobody will read it: the stream did not end in order.
                return Poll::Ready(Err(StreamError::Protocol));
            }
        }
        if !self.inner.readable().is_empty() && !self.drop_late() {
            // The other side still gets the end of what it reads.
            ready!(self.poll_flush(cx))?;
            unread_ends_here(&self.inner)?;
        }
        if !self.flow.done_queued {
            self.flow.done_queued = true;
            self.inner.queue(FrameKind::DONE, &[])?;
        }
        ready!(self.poll_flush(cx))?;
        if !self.flow.done_received {
            self.inner.watch(cx)?;
            ready!(self.poll_sealed(cx, |flow, _| flow.done_received))?;
        }
        Poll::Ready(Ok(()))
    }

    /// A datagram that comes late is lost, as datagrams are: the channel stays
    /// good. False for bytes.
    fn drop_late(&mut self) -> bool {
        if self.flow.datagrams {
            self.inner.consume(usize::MAX);
        }
        self.flow.datagrams
    }

    /// Ends the stream; its channel goes home for another. What is not ended at
    /// once ends in the background.
    pub fn retire(mut self, tasks: &Tasks) {
        self.finish();
        if self.inner.sealed.is_none() {
            return;
        }
        // The other side's receipt may have come with its end.
        match self.poll_end(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => return self.into_channel().go_home(),
            Poll::Ready(Err(_)) => return,
            Poll::Pending => {}
        }
        tasks.spawn_until_stopped(async move {
            if let Some(channel) = self.end().await {
                channel.go_home();
            }
        });
    }
}

/// What one stream left unread must never be read by the next one.
fn unread_ends_here(inner: &Inner) -> Result<(), StreamError> {
    if inner.readable().is_empty() {
        Ok(())
    } else {
        Err(StreamError::Protocol)
    }
}
