//! A stream between two agents, sealed between them inside whatever carries it.
//!
//! Each frame of the inside is one `DATA` frame of the outside, sealed and
//! opened in the buffers of the outer stream: nothing is copied. Its end is a
//! sealed `FIN`; an outer end without one is a stream that was cut off.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_link_proto::{
    Opener, PEER_STREAM, PeerError, PeerEvent, PeerForwarder, PeerSession, PeerTarget,
};
use adit_model::PublicKey;
use adit_wire::{
    Delivered, FRAME_OVERHEAD, FrameKind, HEAD, LENGTH, MAX_PAYLOAD, ResetReason, TAG,
};

use crate::channel::Channel;
use crate::stream::{Fill, Stream, StreamError};

/// How long the other agent may take from one message to the next, once the
/// edge has brought both together.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The same for a forwarder, for whom the edge may wait for an agent.
const CONNECT_TIME: Duration = Duration::from_secs(30);

/// What moves bytes in both directions: a stream, or one sealed inside of it.
/// The methods are those of [`Stream`].
pub trait Duplex: Send + Sized {
    /// See [`Stream::buffer`].
    fn buffer(&self) -> &[u8];
    /// See [`Stream::consume`].
    fn consume(&mut self, count: usize);
    /// See [`Stream::poll_fill`]; called when nothing waits to be consumed.
    ///
    /// # Errors
    /// See [`StreamError`].
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, StreamError>>;
    /// See [`Stream::poll_broken`].
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<StreamError>;
    /// See [`Stream::spare`].
    fn spare(&mut self, want: usize) -> &mut [u8];
    /// See [`Stream::commit`].
    ///
    /// # Errors
    /// See [`StreamError`].
    fn commit(&mut self, count: usize) -> Result<(), StreamError>;
    /// See [`Stream::poll_flush`].
    ///
    /// # Errors
    /// See [`StreamError`].
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;
    /// See [`Stream::finish`].
    fn finish(&mut self);
    /// See [`Stream::conclude`].
    fn conclude(&mut self) {
        self.finish();
    }
    /// See [`Stream::reset`].
    fn reset(self, reason: ResetReason, delivered: Delivered);
    /// See [`Stream::end`].
    fn end(self) -> impl Future<Output = Option<Channel>> + Send;
}

impl Duplex for Stream {
    fn buffer(&self) -> &[u8] {
        Self::buffer(self)
    }

    fn consume(&mut self, count: usize) {
        Self::consume(self, count);
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, StreamError>> {
        Self::poll_fill(self, cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        Self::poll_broken(self, cx)
    }

    fn spare(&mut self, want: usize) -> &mut [u8] {
        Self::spare(self, want)
    }

    fn commit(&mut self, count: usize) -> Result<(), StreamError> {
        Self::commit(self, count)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Self::poll_flush(self, cx)
    }

    fn finish(&mut self) {
        Self::finish(self);
    }

    fn conclude(&mut self) {
        Self::conclude(self);
    }

    fn reset(self, reason: ResetReason, delivered: Delivered) {
        Self::reset(self, reason, delivered);
    }

    fn end(self) -> impl Future<Output = Option<Channel>> + Send {
        Self::end(self)
    }
}

/// Why two agents did not come together.
#[derive(Debug, thiserror::Error)]
pub enum PeerFailure {
    /// The stream between them failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The other side proved something else than it had to.
    #[error(transparent)]
    Proof(#[from] PeerError),
    /// The target lets nobody in with this identity.
    #[error("the other agent does not let this one in")]
    Refused,
    /// The other side took too long.
    #[error("the other agent did not answer")]
    Slow,
}

/// A stream that is sealed between two agents.
#[derive(Debug)]
pub struct PeerStream {
    outer: Stream,
    session: PeerSession,
    /// The opened frame at the front of the outer buffer: where its bytes
    /// begin and end, and its length.
    opened: Option<(usize, usize, usize)>,
    fin_queued: bool,
    fin_received: bool,
}

impl PeerStream {
    fn new(outer: Stream, session: PeerSession) -> Self {
        Self {
            outer,
            session,
            opened: None,
            fin_queued: false,
            fin_received: false,
        }
    }

    /// Forwarder: comes together with the target at the other end.
    ///
    /// # Errors
    /// See [`PeerFailure`]; the other side is told that it is over.
    pub async fn connect(
        mut outer: Stream,
        mut handshake: PeerForwarder,
    ) -> Result<Self, PeerFailure> {
        let met = async {
            loop {
                send(&mut outer, handshake.poll_transmit()).await?;
                match handshake.poll_event() {
                    Some(PeerEvent::Live) => return Ok(()),
                    Some(_) => return Err(PeerFailure::Refused),
                    None => {}
                }
                take(&mut outer, |bytes| handshake.handle_input(bytes)).await?;
            }
        };
        let met = tokio::time::timeout(CONNECT_TIME, met).await;
        match met.unwrap_or(Err(PeerFailure::Slow)) {
            Ok(()) => Ok(Self::new(outer, handshake.finish()?)),
            Err(failure) => Err(give_up(outer, failure)),
        }
    }

    /// Target: comes together with a forwarder whose identity `admits`.
    ///
    /// # Errors
    /// As [`PeerStream::connect`].
    pub async fn accept(
        mut outer: Stream,
        mut handshake: PeerTarget,
        admits: impl Fn(&PublicKey) -> bool,
    ) -> Result<(Self, PublicKey), PeerFailure> {
        let met = async {
            loop {
                if let Some(PeerEvent::Proved(identity)) = handshake.poll_event() {
                    let known = Some(identity).filter(|identity| admits(identity));
                    handshake.decide(known.is_some())?;
                    send(&mut outer, handshake.poll_transmit()).await?;
                    return known.ok_or(PeerFailure::Refused);
                }
                send(&mut outer, handshake.poll_transmit()).await?;
                take(&mut outer, |bytes| handshake.handle_input(bytes)).await?;
            }
        };
        let met = tokio::time::timeout(HANDSHAKE_TIME, met).await;
        match met.unwrap_or(Err(PeerFailure::Slow)) {
            Ok(identity) => Ok((Self::new(outer, handshake.finish()?), identity)),
            // The verdict tells it; a reset could overtake it.
            Err(PeerFailure::Refused) => {
                outer.finish();
                drop(outer.end().await);
                Err(PeerFailure::Refused)
            }
            Err(failure) => Err(give_up(outer, failure)),
        }
    }

    /// Opens the next frame where it stands; false while it is not whole.
    fn open_next(&mut self) -> Result<bool, StreamError> {
        let bytes = self.outer.buffer();
        let Some(head) = bytes.first_chunk::<LENGTH>() else {
            return Ok(false);
        };
        let length = Opener::frame_len(head).map_err(|_| StreamError::Protocol)?;
        if bytes.len() < length {
            return Ok(false);
        }
        let frame = self.outer.inner.readable_mut().get_mut(..length);
        let frame = frame.ok_or(StreamError::Protocol)?;
        let opened = self.session.opener.open(frame);
        let opened = opened.map_err(|_| StreamError::Protocol)?;
        if opened.flags != 0 || opened.stream != PEER_STREAM || self.fin_received {
            return Err(StreamError::Protocol);
        }
        match opened.kind {
            FrameKind::DATA => {
                let payload = opened.payload;
                self.opened = Some((payload.start, payload.end, length));
                // An empty frame is gone at once.
                self.consume(0);
            }
            FrameKind::FIN if opened.payload.is_empty() => {
                self.fin_received = true;
                self.outer.consume(length);
            }
            _ => return Err(StreamError::Protocol),
        }
        Ok(true)
    }
}

impl Duplex for PeerStream {
    fn buffer(&self) -> &[u8] {
        let (start, end) = self.opened.map_or((0, 0), |(start, end, _)| (start, end));
        self.outer.buffer().get(start..end).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        if let Some((start, end, length)) = &mut self.opened {
            *start = (*start + count).min(*end);
            if start == end {
                let length = *length;
                self.opened = None;
                self.outer.consume(length);
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, StreamError>> {
        loop {
            if self.opened.is_some() {
                return Poll::Ready(Ok(Fill::Data));
            }
            if self.fin_received {
                return Poll::Ready(Ok(Fill::End));
            }
            if self.open_next()? {
                continue;
            }
            if ready!(self.outer.poll_fill(cx))? == Fill::End {
                return Poll::Ready(Err(StreamError::Truncated));
            }
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if !self.fin_received {
            return Poll::Pending;
        }
        while !self.outer.ended() {
            match ready!(self.outer.poll_fill(cx)) {
                Ok(Fill::Data) if self.outer.buffer().is_empty() => {}
                // Behind its end.
                Ok(Fill::Data) => return Poll::Ready(StreamError::Protocol),
                Ok(Fill::End) => break,
                Err(error) => return Poll::Ready(error),
            }
        }
        self.outer.poll_broken(cx)
    }

    fn spare(&mut self, want: usize) -> &mut [u8] {
        if self.fin_queued {
            return &mut [];
        }
        let want = want.clamp(1, MAX_PAYLOAD - FRAME_OVERHEAD);
        let room = self.outer.spare(want + FRAME_OVERHEAD);
        room.get_mut(HEAD..HEAD + want).unwrap_or_default()
    }

    fn commit(&mut self, count: usize) -> Result<(), StreamError> {
        if count == 0 {
            return Ok(());
        }
        self.seal(FrameKind::DATA, count)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.outer.poll_flush(cx)
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.fin_queued, true) {
            return;
        }
        // Without room for it the other side takes the end for a cut: it is.
        if self.seal(FrameKind::FIN, 0).is_ok() {
            self.outer.finish();
        }
    }

    fn reset(self, reason: ResetReason, delivered: Delivered) {
        self.outer.reset(reason, delivered);
    }

    fn end(self) -> impl Future<Output = Option<Channel>> + Send {
        self.outer.end()
    }
}

impl PeerStream {
    fn seal(&mut self, kind: FrameKind, count: usize) -> Result<(), StreamError> {
        let length = HEAD + count + TAG;
        let frame = self.outer.spare(length).get_mut(..length);
        let frame = frame.ok_or(StreamError::Protocol)?;
        let sealed = self.session.sealer.seal(kind, 0, PEER_STREAM, frame);
        sealed.map_err(|_| StreamError::Protocol)?;
        self.outer.commit(length)
    }
}

async fn send(outer: &mut Stream, bytes: Option<Vec<u8>>) -> Result<(), PeerFailure> {
    let bytes = bytes.unwrap_or_default();
    // What a handshake says fits what may wait.
    if outer.write(&bytes)? != bytes.len() {
        return Err(StreamError::Protocol.into());
    }
    poll_fn(|cx| outer.poll_flush(cx)).await?;
    Ok(())
}

async fn take(
    outer: &mut Stream,
    handle: impl FnOnce(&[u8]) -> Result<usize, PeerError>,
) -> Result<(), PeerFailure> {
    if poll_fn(|cx| outer.poll_fill(cx)).await? == Fill::End {
        return Err(StreamError::Truncated.into());
    }
    let taken = handle(outer.buffer())?;
    outer.consume(taken);
    Ok(())
}

fn give_up(outer: Stream, failure: PeerFailure) -> PeerFailure {
    let reason = match failure {
        PeerFailure::Slow => ResetReason::Timeout,
        PeerFailure::Proof(_) => ResetReason::Protocol,
        _ => ResetReason::Cancelled,
    };
    outer.reset(reason, Delivered::None);
    failure
}
