//! The one loop that drives a control channel, of edge and agent alike.
//!
//! Bytes in, messages out, timers, in turn; the state machine decides, this
//! loop only carries. Nothing is buffered while a link is idle: received bytes
//! go through a scratch buffer of the thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use adit_link_proto::{Control, ControlError, ControlEvent};
use adit_wire::Message;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::carrier::Socket;

/// Messages that may wait for a control channel; a peer that does not read
/// loses its link instead of growing this.
const OUTBOX: usize = 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Messages on their way to the other side.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<VecDeque<Message>>,
    added: Notify,
    most: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::with_tunnels(0)
    }
}

impl Outbox {
    /// An outbox that also holds a message for each of so many tunnels.
    #[must_use]
    pub fn with_tunnels(tunnels: usize) -> Self {
        Self {
            queue: Mutex::default(),
            added: Notify::new(),
            most: OUTBOX + tunnels,
        }
    }

    /// Queues a message; false when the queue is full and the link is to end.
    pub fn send(&self, message: Message) -> bool {
        self.queue_below(self.most, message)
    }

    /// Queues a message that can wait for another time, unless much waits.
    pub(crate) fn offer(&self, message: &Message) -> bool {
        self.queue_below(self.most / 2, message.clone())
    }

    fn queue_below(&self, most: usize, message: Message) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= most {
            return false;
        }
        queue.push_back(message);
        drop(queue);
        self.added.notify_one();
        true
    }

    fn take(&self) -> VecDeque<Message> {
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a control channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEnd {
    /// The other side closed it, or the socket failed.
    Closed,
    /// The other side was silent for too long.
    Dead,
    /// The other side broke the protocol, or bytes were altered on the way.
    Protocol,
    /// This side was told to stop, or its handler said so.
    Stopped,
}

impl ControlEnd {
    /// What to tell a person.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Closed => "the other side closed the connection",
            Self::Dead => "the other side stopped answering",
            Self::Protocol => "bytes on the link were altered or out of order",
            Self::Stopped => "stopped",
        }
    }
}

/// Drives `control` over `socket` until it ends; each event goes to `handle`,
/// which must not block. The state is boxed, because a future holds its
/// arguments twice.
pub async fn run_control(
    mut socket: Socket,
    mut control: Box<Control>,
    outbox: &Outbox,
    stop: &CancellationToken,
    mut handle: impl FnMut(ControlEvent) -> ControlFlow<()> + Send,
) -> ControlEnd {
    let mut unsent = Unsent::default();
    loop {
        let step =
            hand_over(&mut control, outbox).and_then(|()| pass_events(&mut control, &mut handle));
        match step {
            Ok(()) => {}
            Err(end) => {
                if end == ControlEnd::Stopped {
                    // Boxed: a link that lives holds no room for its end.
                    Box::pin(flush_last(&mut socket, &mut control, unsent, outbox)).await;
                }
                return end;
            }
        }
        let wake_at = control
            .poll_timeout()
            .map_or_else(far_future, Instant::from_std);
        tokio::select! {
            // What has arrived counts before a timer says that nothing did.
            biased;
            exchanged = poll_fn(|cx| exchange(&mut socket, &mut unsent, &mut control, cx)) => {
                if let Err(end) = exchanged {
                    return end;
                }
                // A peer that never stops sending must not stop the clock.
                if Instant::now() >= wake_at {
                    control.handle_timeout(now());
                }
            }
            () = outbox.added.notified() => {}
            () = tokio::time::sleep_until(wake_at) => control.handle_timeout(now()),
            () = stop.cancelled() => {
                Box::pin(flush_last(&mut socket, &mut control, unsent, outbox)).await;
                return ControlEnd::Stopped;
            }
        }
    }
}

/// Sends what waits and takes in what has arrived; ready once something
/// arrived, or the connection is over.
fn exchange(
    socket: &mut Socket,
    unsent: &mut Unsent,
    control: &mut Control,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ControlEnd>> {
    if let Poll::Ready(Err(end)) = unsent.poll_send(socket, control, cx) {
        return Poll::Ready(Err(end));
    }
    poll_read_some(socket, control, cx)
}

/// Sealed bytes that the socket has not taken. While there are any, timers run
/// and input is read; what is sealed meanwhile waits in the state machine,
/// which bounds it.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    at: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Writes as much as the socket takes now.
    fn poll_send(
        &mut self,
        socket: &mut Socket,
        control: &mut Control,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ControlEnd>> {
        loop {
            if self.is_empty() {
                (self.bytes, self.at) = (control.poll_transmit().unwrap_or_default(), 0);
            }
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                let flushed = ready!(Pin::new(socket).poll_flush(cx));
                return Poll::Ready(flushed.map_err(|_| ControlEnd::Closed));
            }
            match ready!(Pin::new(&mut *socket).poll_write(cx, rest)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(ControlEnd::Closed)),
                Ok(count) => self.at += count,
            }
        }
    }
}

fn pass_events(
    control: &mut Control,
    handle: &mut impl FnMut(ControlEvent) -> ControlFlow<()>,
) -> Result<(), ControlEnd> {
    while let Some(event) = control.poll_event() {
        match event {
            ControlEvent::WantEphemeral => {
                let ephemeral = crate::entropy::random().map_err(|_| ControlEnd::Stopped)?;
                let asked = control.rekey(ephemeral, now());
                asked.map_err(|_| ControlEnd::Protocol)?;
            }
            ControlEvent::Dead => return Err(ControlEnd::Dead),
            event => {
                if handle(event).is_break() {
                    return Err(ControlEnd::Stopped);
                }
            }
        }
    }
    Ok(())
}

/// Seals what waits in the outbox. A message that no frame can carry is this
/// side's own fault: it is lost, and the link goes on.
fn hand_over(control: &mut Control, outbox: &Outbox) -> Result<(), ControlEnd> {
    for message in outbox.take() {
        match control.send(&message) {
            Ok(()) => {}
            Err(error @ (ControlError::Encode(_) | ControlError::Unexpected(_))) => {
                let kind = message.kind();
                tracing::error!(?kind, %error, "a message could not be sent");
            }
            Err(ControlError::Full) => return Err(ControlEnd::Dead),
            Err(_) => return Err(ControlEnd::Protocol),
        }
    }
    Ok(())
}

/// The runtime's clock, so that a paused clock drives the state machine too.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn far_future() -> Instant {
    Instant::now() + std::time::Duration::from_secs(86_400)
}

/// Takes in what has arrived.
fn poll_read_some(
    socket: &mut Socket,
    control: &mut Control,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ControlEnd>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(16 * 1024, 0);
        let mut into = ReadBuf::new(scratch);
        let read = ready!(Pin::new(socket).poll_read(cx, &mut into));
        if read.is_err() || into.filled().is_empty() {
            return Poll::Ready(Err(ControlEnd::Closed));
        }
        Poll::Ready(match control.handle_input(into.filled(), now()) {
            Ok(()) => Ok(()),
            // It asks and does not read the answers.
            Err(ControlError::Full) => Err(ControlEnd::Dead),
            Err(_) => Err(ControlEnd::Protocol),
        })
    })
}

/// Sends what is queued, as far as the other side takes it within a second.
async fn flush_last(socket: &mut Socket, control: &mut Control, unsent: Unsent, outbox: &Outbox) {
    if hand_over(control, outbox).is_err() {
        return;
    }
    let write = async {
        socket
            .write_all(unsent.bytes.get(unsent.at..).unwrap_or_default())
            .await?;
        while let Some(bytes) = control.poll_transmit() {
            socket.write_all(&bytes).await?;
        }
        socket.shutdown().await
    };
    let limit = std::time::Duration::from_secs(1);
    if !matches!(tokio::time::timeout(limit, write).await, Ok(Ok(()))) {
        tracing::debug!("the other side did not take the last messages");
    }
}
