//! Streams that an agent begins: to a private tunnel of another agent.
//!
//! The agent dials a channel for each and says `FORWARD` on it; the edge takes
//! the stream or refuses it. Such a channel carries one stream and ends.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_wire::{Forward, FrameKind, ResetReason};

use crate::agent::AgentLink;
use crate::channel::{Channel, refuse};
use crate::dialer::Dialer;
use crate::inner::Inner;
use crate::stream::{Flow, Stream, StreamError};
use crate::uses::Usage;

/// How long the edge waits for the agent's first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// How long an agent waits for the edge's answer: longer than the edge waits
/// for an agent that is on its way back, and for its answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why an agent got no stream.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The link is over.
    #[error("link to the edge has ended")]
    Gone,
    /// The link has as many channels as it may.
    #[error("link is at its limit of channels")]
    Full,
    /// The channel could not be set up.
    #[error("channel to the edge could not be set up: {0}")]
    Io(#[from] std::io::Error),
    /// The stream could not be begun.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Begins streams on a live link of an agent.
#[derive(Clone)]
pub struct Forwards(pub(crate) Arc<Dialer>);

impl Forwards {
    /// Asks for a stream to a private tunnel; the answer comes with the first
    /// [`Stream::poll_fill`].
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn open(&self, forward: &Forward) -> Result<ForwardStream, ForwardError> {
        let (channel, place) = self.0.dial_forward().await?;
        let mut body = Vec::with_capacity(128);
        let encoded = forward.encode(&mut body);
        encoded.map_err(|_| StreamError::Protocol)?;
        let first = (FrameKind::FORWARD, &body[..]);
        let stream = Stream::open(channel.inner, None, first, PATIENCE, Flow::default())?;
        Ok(ForwardStream { stream, place })
    }
}

impl fmt::Debug for Forwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forwards")
    }
}

/// A stream that this agent has begun.
#[derive(Debug)]
pub struct ForwardStream {
    /// The stream.
    pub stream: Stream,
    /// To be kept while the stream lasts: its channel counts.
    pub place: Place,
}

/// Counts a channel of a link until dropped.
pub struct Place(pub(crate) Arc<Dialer>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl AgentLink {
    /// What begins streams on this link.
    #[must_use]
    pub fn forwards(&self) -> Forwards {
        Forwards(Arc::clone(&self.dialer))
    }
}

/// A stream that an agent asks for, on the edge.
pub struct Asked {
    forward: Forward,
    inner: Box<Inner>,
    usage: Usage,
}

impl Channel {
    /// The edge waits for the agent's wish.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when none comes in time; others when the agent
    /// broke the protocol.
    pub(crate) async fn next_forward(mut self, usage: Usage) -> Result<Asked, StreamError> {
        let asked = poll_fn(|cx| self.poll_forward(cx));
        let asked = tokio::time::timeout(FIRST_FRAME, asked).await;
        let forward = asked.unwrap_or(Err(StreamError::Truncated))?;
        Ok(Asked {
            forward,
            inner: self.inner,
            usage,
        })
    }

    fn poll_forward(&mut self, cx: &mut Context<'_>) -> Poll<Result<Forward, StreamError>> {
        self.inner.watch(cx)?;
        let Some(frame) = ready!(self.inner.poll_frame(cx))? else {
            return Poll::Ready(Err(StreamError::Truncated));
        };
        if frame.kind != FrameKind::FORWARD {
            return Poll::Ready(Err(StreamError::Protocol));
        }
        let forward = Forward::decode(self.inner.payload(&frame));
        let forward = forward.map_err(|_| StreamError::Protocol)?;
        Poll::Ready(self.expect_stream(frame.stream).map(|()| forward))
    }
}

impl Asked {
    /// Where to.
    #[must_use]
    pub fn forward(&self) -> &Forward {
        &self.forward
    }

    /// Takes the stream; the answer goes out with the first flush.
    ///
    /// # Errors
    /// [`StreamError::Protocol`] when the agent has broken it.
    pub fn accept(self) -> Result<Stream, StreamError> {
        let flow = Flow {
            usage: Some(self.usage),
            ..Flow::default()
        };
        Stream::take(self.inner, flow)
    }

    /// Refuses the stream and waits up to a second until the agent knows.
    pub async fn refuse(self, reason: ResetReason) {
        refuse(self.inner, reason).await;
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asked({:?})", self.forward)
    }
}
