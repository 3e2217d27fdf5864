//! The one loop that drives a control channel, of edge and agent alike.
//!
//! Bytes in, messages out, timers, in turn; the state machine decides, this
//! loop only carries. Nothing is buffered while a link is idle: received bytes
//! go through a scratch buffer of the thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use adit_link_proto::{Control, ControlEvent};
use adit_wire::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Messages that may wait for a control channel; a peer that does not read
/// loses its link instead of growing this.
const OUTBOX: usize = 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Messages on their way to the other side.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<VecDeque<Message>>,
    added: Notify,
}

impl Outbox {
    /// Queues a message; false when the queue is full and the link is to end.
    pub fn send(&self, message: Message) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= OUTBOX {
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
    mut socket: TcpStream,
    mut control: Box<Control>,
    outbox: &Outbox,
    stop: &CancellationToken,
    mut handle: impl FnMut(ControlEvent) -> ControlFlow<()> + Send,
) -> ControlEnd {
    loop {
        for message in outbox.take() {
            if control.send(&message).is_err() {
                return ControlEnd::Protocol;
            }
        }
        while let Some(event) = control.poll_event() {
            match event {
                ControlEvent::WantEphemeral => {
                    let Ok(ephemeral) = crate::entropy::random() else {
                        return ControlEnd::Stopped;
                    };
                    if control.rekey(ephemeral, now()).is_err() {
                        return ControlEnd::Protocol;
                    }
                }
                ControlEvent::Dead => return ControlEnd::Dead,
                event => {
                    if handle(event).is_break() {
                        flush_last(&mut socket, &mut control, outbox).await;
                        return ControlEnd::Stopped;
                    }
                }
            }
        }
        while let Some(bytes) = control.poll_transmit() {
            let due = control.poll_timeout();
            if let Err(error) = write_until(&mut socket, &bytes, due, stop).await {
                return match error.kind() {
                    io::ErrorKind::TimedOut => ControlEnd::Dead,
                    _ => ControlEnd::Closed,
                };
            }
        }
        let wake_at = control
            .poll_timeout()
            .map_or_else(far_future, Instant::from_std);
        tokio::select! {
            // What has arrived counts before a timer says that nothing did.
            biased;
            ready = socket.readable() => match ready.and_then(|()| read_some(&socket, &mut control)) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return ControlEnd::Closed,
                Ok(None) => return ControlEnd::Protocol,
                Err(_) => return ControlEnd::Closed,
            },
            () = outbox.added.notified() => {}
            () = tokio::time::sleep_until(wake_at) => control.handle_timeout(now()),
            () = stop.cancelled() => {
                flush_last(&mut socket, &mut control, outbox).await;
                return ControlEnd::Stopped;
            }
        }
    }
}

/// The runtime's clock, so that a paused clock drives the state machine too.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn far_future() -> Instant {
    Instant::now() + std::time::Duration::from_secs(86_400)
}

/// Takes in what has arrived: false at the end, `None` when it was wrong.
fn read_some(socket: &TcpStream, control: &mut Control) -> io::Result<Option<bool>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(16 * 1024, 0);
        match socket.try_read(scratch) {
            Ok(0) => Ok(Some(false)),
            Ok(count) => Ok(control
                .handle_input(&scratch[..count], now())
                .ok()
                .map(|()| true)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(true)),
            Err(error) => Err(error),
        }
    })
}

/// A peer that does not read is given up when the next timer is due.
async fn write_until(
    socket: &mut TcpStream,
    bytes: &[u8],
    due: Option<std::time::Instant>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let patience = std::time::Duration::from_secs(20);
    let due = due.map_or_else(far_future, Instant::from_std) + patience;
    tokio::select! {
        written = socket.write_all(bytes) => written,
        () = tokio::time::sleep_until(due) => Err(io::ErrorKind::TimedOut.into()),
        () = stop.cancelled() => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// Sends what is queued, as far as the other side takes it within a second.
async fn flush_last(socket: &mut TcpStream, control: &mut Control, outbox: &Outbox) {
    for message in outbox.take() {
        if control.send(&message).is_err() {
            return;
        }
    }
    let write = async {
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
