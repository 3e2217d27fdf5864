//! The edge's first moments with a socket on the link door.
//!
//! Until a first message is proved not one byte is sent. Every failure looks
//! the same from outside: the socket is read and thrown away until a random
//! moment between 5 and 14 seconds after it was accepted, then closed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_link_proto::{
    AgentHandshake, DatagramKeys, EdgeHandshake, FIRST_LEN, HandshakeError, KeyError,
    ProvedChannel, Role, SessionKeys,
};
use adit_model::Carrier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::carrier::Socket;
use crate::channel::Channel;
use crate::counters::Counters;
use crate::entropy::random;

/// Earliest and latest close of a socket that proved nothing; the second that
/// is missing to 15 s is for an edge that has much else to do.
const SILENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(14));

/// When to close a socket that was accepted now, should it prove nothing.
///
/// # Errors
/// When the system has no random source.
pub fn silence_deadline() -> io::Result<Instant> {
    let spread = u64::try_from((SILENCE.1 - SILENCE.0).as_millis()).unwrap_or(0);
    let extra = u64::from_be_bytes(random()?) % spread.max(1);
    Ok(Instant::now() + SILENCE.0 + Duration::from_millis(extra))
}

/// Reads the first message; `None` when the peer ended or was too slow.
pub async fn read_first(socket: &mut Socket, deadline: Instant) -> Option<[u8; FIRST_LEN]> {
    let mut first = [0; FIRST_LEN];
    match tokio::time::timeout_at(deadline, socket.read_exact(&mut first)).await {
        Ok(Ok(_)) => Some(first),
        _ => None,
    }
}

/// Reads and forgets until the deadline, then closes with FIN.
pub async fn stay_silent(socket: &mut Socket, deadline: Instant) {
    let drain = async {
        let mut bytes = [0; 256];
        while matches!(socket.read(&mut bytes).await, Ok(count) if count > 0) {}
        // A peer that has ended is held as long as one that has not.
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout_at(deadline, drain).await;
    // What arrived since would turn the close into a RST.
    let mut rest = [0; 4096];
    while matches!(socket.try_read(&mut rest), Ok(count) if count > 0) {}
}

/// Answers a proved channel header: 16 random bytes, then sealed frames.
///
/// # Errors
/// When the socket or the random source fails, or the keys are gone.
pub async fn answer_channel(
    mut socket: Socket,
    proved: &ProvedChannel,
    keys: &SessionKeys,
    counters: Arc<Counters>,
) -> io::Result<Channel> {
    let ours: [u8; 16] = random()?;
    let pair = keys
        .channel(proved, ours, Role::Edge)
        .map_err(io::Error::other)?;
    let datagrams = datagrams(&socket, || keys.datagrams(proved, ours, Role::Edge))?;
    socket.write_all(&ours).await?;
    socket.flush().await?;
    Ok(Channel::new(socket, pair, counters).with_datagrams(datagrams))
}

/// Keys for datagrams, where the carrier has some.
pub(crate) fn datagrams(
    socket: &Socket,
    keys: impl FnOnce() -> Result<DatagramKeys, KeyError>,
) -> io::Result<Option<DatagramKeys>> {
    let wanted = socket.carrier() == Carrier::Quic;
    let made = wanted.then(keys).transpose();
    made.map_err(io::Error::other)
}

/// What the two handshakes have in common.
pub trait Handshake: Send {
    /// What it tells its driver.
    type Event: Send;
    /// Takes received bytes in.
    ///
    /// # Errors
    /// The handshake's.
    fn take(&mut self, bytes: &[u8]) -> Result<(), HandshakeError>;
    /// Bytes to send, if any.
    fn transmit(&mut self) -> Option<Vec<u8>>;
    /// The next event, if any.
    fn event(&mut self) -> Option<Self::Event>;
}

impl Handshake for EdgeHandshake {
    type Event = adit_link_proto::EdgeEvent;

    fn take(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.handle_input(bytes)
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.poll_transmit()
    }

    fn event(&mut self) -> Option<Self::Event> {
        self.poll_event()
    }
}

impl Handshake for AgentHandshake {
    type Event = adit_link_proto::AgentEvent;

    fn take(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.handle_input(bytes)
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.poll_transmit()
    }

    fn event(&mut self) -> Option<Self::Event> {
        self.poll_event()
    }
}

/// Why a handshake did not go on.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailure {
    /// The other side closed the socket.
    #[error("other side closed the connection")]
    Closed,
    /// The socket failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The other side proved something else than it had to.
    #[error(transparent)]
    Proof(#[from] HandshakeError),
}

/// Carries bytes until the handshake has an event.
///
/// # Errors
/// See [`HandshakeFailure`].
pub async fn next_event<H: Handshake>(
    socket: &mut Socket,
    handshake: &mut H,
) -> Result<H::Event, HandshakeFailure> {
    loop {
        send_all(socket, handshake).await?;
        if let Some(event) = handshake.event() {
            return Ok(event);
        }
        let mut bytes = [0; 1024];
        let count = socket.read(&mut bytes).await?;
        if count == 0 {
            return Err(HandshakeFailure::Closed);
        }
        handshake.take(&bytes[..count])?;
    }
}

/// Sends what the handshake has to send.
///
/// # Errors
/// The socket's.
pub async fn send_all<H: Handshake>(socket: &mut Socket, handshake: &mut H) -> io::Result<()> {
    while let Some(bytes) = handshake.transmit() {
        socket.write_all(&bytes).await?;
    }
    socket.flush().await
}
