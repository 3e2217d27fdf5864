//! A data channel between two streams: one sealed TCP connection.
//!
//! The edge begins streams, the agent takes or refuses them. A channel goes
//! back for another stream only after both sides have said that they are done
//! with the last one.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use adit_link_proto::{DatagramKeys, Opener, Sealer};
use adit_model::ConnId;
use adit_wire::{DataConnReady, Delivered, FrameKind, Reset, ResetReason, Start};
use tokio::time::Instant;

use crate::carrier::Socket;
use crate::counters::Counters;
use crate::inner::{Cut, Inner, Sealed};
use crate::stream::{Flow, Stream, StreamError};
use crate::uses::Usage;

/// An idle channel that heard nothing for this long is closed by either side.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// The edge pings an idle channel after this long.
pub const PING_AFTER: Duration = Duration::from_secs(20);
/// How long a refusal waits for its confirmation.
const CONFIRM_TIME: Duration = Duration::from_secs(1);

/// Where a channel goes when its stream has ended in order.
pub(crate) trait Home: Send + Sync {
    fn recycle(self: Arc<Self>, channel: Channel);
}

/// A channel that carries no stream now.
pub struct Channel {
    pub(crate) inner: Box<Inner>,
    /// Set between the end of a stream and [`Channel::go_home`] only: an idle
    /// channel must not keep the link alive that holds it.
    home: Option<Arc<dyn Home>>,
    heard: Instant,
    pinged: bool,
    /// The agent has named the visitor for whom it dialled.
    announced: bool,
}

impl Channel {
    /// A channel over a socket whose keys are agreed.
    #[must_use]
    pub fn new(
        socket: impl Into<Socket>,
        (sealer, opener): (Sealer, Opener),
        counters: Arc<Counters>,
    ) -> Self {
        let sealed = Sealed::new(sealer, opener, counters);
        Self::resume(Box::new(Inner::new(socket.into(), Some(sealed))), None)
    }

    /// With keys for datagrams, where its carrier has some.
    #[must_use]
    pub fn with_datagrams(mut self, keys: Option<DatagramKeys>) -> Self {
        if let Some(sealed) = &mut self.inner.sealed {
            sealed.datagrams = keys.map(Box::new);
        }
        self
    }

    pub(crate) fn resume(mut inner: Box<Inner>, home: Option<Arc<dyn Home>>) -> Self {
        if let Some(sealed) = &mut inner.sealed {
            sealed.packer = None;
        }
        Self {
            inner,
            home,
            heard: Instant::now(),
            pinged: false,
            announced: false,
        }
    }

    pub(crate) fn go_home(mut self) {
        if let Some(home) = self.home.take() {
            home.recycle(self);
        }
    }

    pub(crate) fn cut_handle(&self) -> Option<Arc<Cut>> {
        self.inner
            .sealed
            .as_ref()
            .map(|sealed| Arc::clone(&sealed.cut))
    }

    /// Whether it is a line of a trunk.
    pub(crate) fn is_line(&self) -> bool {
        self.inner.socket.is_line()
    }

    /// Whether a stream has used the channel before.
    pub(crate) fn is_used(&self) -> bool {
        self.inner
            .sealed
            .as_ref()
            .is_some_and(|sealed| sealed.stream > 0)
    }

    /// Moves the socket to the runtime of the calling worker.
    pub(crate) fn move_here(mut self) -> Option<Self> {
        self.inner = Box::new(self.inner.move_here().ok()?);
        Some(self)
    }

    /// The edge begins a stream; afterwards the channel goes to `home`.
    pub(crate) fn begin(
        self,
        home: Arc<dyn Home>,
        start: &Start,
        usage: Usage,
    ) -> Result<Stream, StreamError> {
        Stream::begin(self.inner, Some(home), start, Some(usage))
    }

    /// The edge's look at an idle channel: false when it is of no more use.
    pub(crate) fn is_alive(&mut self, now: Instant) -> bool {
        if !self.inner.readable().is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.inner.poll_frame(&mut cx) {
                // What was not asked for could come without end.
                Poll::Ready(Ok(Some(frame))) => match frame.kind {
                    FrameKind::PONG if self.pinged => (self.heard, self.pinged) = (now, false),
                    FrameKind::DATA_CONN_READY if !self.announced => {
                        (self.heard, self.announced) = (now, true);
                    }
                    _ => return false,
                },
                Poll::Ready(_) => return false,
                Poll::Pending => return now.duration_since(self.heard) < IDLE_LIMIT,
            }
        }
    }

    /// Pings the agent when it has been silent for a while.
    pub(crate) fn keep_alive(&mut self, now: Instant) -> bool {
        if self.pinged || now.duration_since(self.heard) < PING_AFTER {
            return true;
        }
        self.pinged = true;
        let mut cx = Context::from_waker(Waker::noop());
        self.inner.queue(FrameKind::PING, &[]).is_ok()
            && matches!(
                self.inner.poll_flush(&mut cx),
                Poll::Ready(Ok(())) | Poll::Pending
            )
    }

    /// The agent names the visitor that made it dial this channel.
    pub(crate) fn announce(&mut self, conn: ConnId) -> Result<(), StreamError> {
        let mut body = Vec::with_capacity(16);
        DataConnReady { conn }.encode(&mut body);
        self.inner.queue(FrameKind::DATA_CONN_READY, &body)
    }

    /// The agent waits for the next stream.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when the edge closed the channel or was
    /// silent for [`IDLE_LIMIT`]; others when it broke the protocol.
    pub async fn next_start(mut self) -> Result<Incoming, StreamError> {
        let mut quiet = Box::pin(tokio::time::sleep(IDLE_LIMIT));
        let start = poll_fn(|cx| {
            let found = self.poll_start(cx, |now| quiet.as_mut().reset(now + IDLE_LIMIT));
            if found.is_pending() && quiet.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(StreamError::Truncated));
            }
            found
        })
        .await;
        match start {
            Ok(start) => Ok(Incoming {
                start,
                inner: self.inner,
            }),
            Err(error) => {
                if matches!(error, StreamError::Protocol) {
                    self.complain();
                }
                Err(error)
            }
        }
    }

    /// Tells the edge that its frames do not arrive as they were sent. Nothing
    /// of the stream that it may have begun was delivered.
    fn complain(&mut self) {
        let Some(sealed) = &mut self.inner.sealed else {
            return;
        };
        sealed.stream = sealed.stream.saturating_add(1);
        let mut body = Vec::with_capacity(8);
        let (reason, delivered) = (ResetReason::Protocol, Delivered::None);
        Reset { reason, delivered }.encode(&mut body);
        if self.inner.queue(FrameKind::RESET, &body).is_ok() {
            let mut cx = Context::from_waker(Waker::noop());
            // As far as the socket takes it at once.
            let _ = self.inner.poll_flush(&mut cx);
        }
    }

    fn poll_start(
        &mut self,
        cx: &mut Context<'_>,
        mut heard: impl FnMut(Instant),
    ) -> Poll<Result<Start, StreamError>> {
        loop {
            self.inner.watch(cx)?;
            if let Poll::Ready(sent) = self.inner.poll_flush(cx) {
                sent?;
            }
            let Some(frame) = ready!(self.inner.poll_frame(cx))? else {
                return Poll::Ready(Err(StreamError::Truncated));
            };
            heard(Instant::now());
            match frame.kind {
                FrameKind::PING => self.inner.queue(FrameKind::PONG, &[])?,
                FrameKind::START => {
                    let start = Start::decode(self.inner.payload(&frame));
                    let start = start.map_err(|_| StreamError::Protocol)?;
                    return Poll::Ready(self.expect_stream(frame.stream).map(|()| start));
                }
                _ => return Poll::Ready(Err(StreamError::Protocol)),
            }
        }
    }

    /// Streams of a channel are numbered without a gap.
    pub(crate) fn expect_stream(&mut self, number: u32) -> Result<(), StreamError> {
        let sealed = self.inner.sealed.as_mut().ok_or(StreamError::Protocol)?;
        if sealed.stream.checked_add(1) != Some(number) {
            return Err(StreamError::Protocol);
        }
        sealed.stream = number;
        Ok(())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

/// A stream that the edge began and the agent has not answered.
pub struct Incoming {
    start: Start,
    inner: Box<Inner>,
}

impl Incoming {
    /// Which tunnel, and for whom.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Takes the stream; the answer goes out with the first flush.
    ///
    /// # Errors
    /// [`StreamError::Protocol`] when the channel's keys are used up.
    pub fn accept(self) -> Result<Stream, StreamError> {
        let flow = Flow {
            datagrams: self.start.idle_ms.is_some(),
            ..Flow::default()
        };
        Stream::take(self.inner, flow)
    }

    /// Refuses the stream, nothing delivered, and waits up to a second until
    /// the edge knows; the channel is closed.
    pub async fn refuse(self, reason: ResetReason) {
        refuse(self.inner, reason).await;
    }
}

/// Refuses a stream that was not taken.
pub(crate) async fn refuse(mut inner: Box<Inner>, reason: ResetReason) {
    let mut body = Vec::with_capacity(8);
    Reset {
        reason,
        delivered: Delivered::None,
    }
    .encode(&mut body);
    if inner.queue(FrameKind::RESET, &body).is_err() {
        return;
    }
    let confirmed = poll_fn(|cx| poll_confirmed(&mut inner, cx));
    // Without an answer in time the other side learns by the closed socket.
    let _ = tokio::time::timeout(CONFIRM_TIME, confirmed).await;
}

fn poll_confirmed(inner: &mut Inner, cx: &mut Context<'_>) -> Poll<()> {
    if !matches!(inner.poll_flush(cx), Poll::Ready(Ok(())) | Poll::Pending) {
        return Poll::Ready(());
    }
    loop {
        match ready!(inner.poll_frame(cx)) {
            Ok(Some(frame)) if frame.kind != FrameKind::RESET_ACK => inner.consume(usize::MAX),
            _ => return Poll::Ready(()),
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({:?})", self.start)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use adit_link_proto::Suite;
    use adit_wire::{HEAD, TAG};
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const THEIRS: [u8; 32] = [1; 32];

    /// A channel, and by hand its other end.
    async fn channel() -> (Channel, TcpStream, Sealer, Arc<Counters>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let suite = Suite::ChaCha20Poly1305;
        let keys = (
            Sealer::new(suite, [2; 32]).unwrap(),
            Opener::new(suite, THEIRS).unwrap(),
        );
        let counters = Arc::new(Counters::default());
        let channel = Channel::new(near.unwrap(), keys, Arc::clone(&counters));
        let sealer = Sealer::new(suite, THEIRS).unwrap();
        (channel, far.unwrap().0, sealer, counters)
    }

    async fn say(far: &mut TcpStream, sealer: &mut Sealer, kind: FrameKind, flags: u8) {
        let mut frame = [0; HEAD + TAG];
        sealer.seal(kind, flags, 0, &mut frame).unwrap();
        far.write_all(&frame).await.unwrap();
    }

    /// Until the channel has noticed.
    async fn until(channel: &mut Channel, done: impl Fn(&Channel, bool) -> bool) {
        let look = async {
            loop {
                let alive = channel.is_alive(Instant::now());
                if done(channel, alive) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), look)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn an_idle_channel_hears_what_it_asked_for_and_nothing_else() {
        let (mut asked, mut far, mut sealer, _) = channel().await;
        asked.pinged = true;
        say(&mut far, &mut sealer, FrameKind::PONG, 0).await;
        until(&mut asked, |channel, alive| alive && !channel.pinged).await;
        // A second one could be the first of a million.
        say(&mut far, &mut sealer, FrameKind::PONG, 0).await;
        until(&mut asked, |_, alive| !alive).await;

        let (mut named, mut far, mut sealer, _) = channel().await;
        for _ in 0..2 {
            let mut frame = Vec::new();
            let mut body = Vec::new();
            DataConnReady { conn: ConnId(1) }.encode(&mut body);
            let kind = FrameKind::DATA_CONN_READY;
            sealer.append(kind, 0, &body, &mut frame).unwrap();
            far.write_all(&frame).await.unwrap();
        }
        until(&mut named, |_, alive| !alive).await;
    }

    #[tokio::test]
    async fn a_flag_that_is_reserved_ends_a_channel() {
        let (channel, mut far, mut sealer, counters) = channel().await;
        say(&mut far, &mut sealer, FrameKind::PING, 1).await;
        let ended = channel.next_start().await.map(drop);
        assert!(matches!(ended, Err(StreamError::Protocol)), "{ended:?}");
        assert_eq!(counters.bad_frames.load(Ordering::Relaxed), 1);
    }
}
