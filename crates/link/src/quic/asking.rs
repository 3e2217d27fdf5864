//! What an agent asks its edge beside what QUIC itself does: whether anybody
//! listens there, and later whether it is another process by now.
//!
//! A process that was killed says nothing. The next one at its door does not
//! have the connection, but knows that the door made its id and answers what
//! comes to it with a stateless reset (RFC 9000 §10.3). So the agent speaks now
//! and then, whatever QUIC itself waits for: its loss recovery asks more and
//! more rarely, and a connection that nobody uses says nothing at all.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn::udp::Transmit;

use super::filter::Filter;
use crate::entropy::random;

/// How often a door is asked.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(2);
/// A short header's first byte and the longest id that may follow it.
const HEAD: usize = 1 + 20;
/// Bytes of a question. A reset is shorter than what it answers and has 21 at
/// least, 41 where it is not to be told from other packets.
pub(super) const LENGTH: usize = HEAD + 22;

/// The beginning of the last packet that was said, with the door's id in it.
#[derive(Default)]
pub(super) struct Said(Mutex<Option<(SocketAddr, [u8; HEAD])>>);

impl Said {
    /// Something is about to be sent.
    pub(super) fn note(&self, transmit: &Transmit<'_>) {
        if let Some(head) = transmit.contents.first_chunk::<HEAD>()
            && head[0] & 0x80 == 0
        {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((transmit.destination, *head));
        }
    }

    /// A door that has the connection takes this for a damaged packet and says
    /// nothing.
    pub(super) fn ask(&self, socket: &dyn AsyncUdpSocket) {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some((destination, head)), Ok(mut contents)) = (last, random::<LENGTH>()) else {
            return;
        };
        contents[..HEAD].copy_from_slice(&head);
        let question = Transmit {
            destination,
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        if let Err(error) = socket.try_send(&question) {
            tracing::debug!(%error, "a question could not be sent");
        }
    }
}

/// Never ready.
pub(super) async fn keep_asking(filter: &Filter) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        filter.ask();
    }
}

/// Ready when `peer` says that nobody listens there: QUIC itself would go on
/// asking. A door of ours says nothing to the one byte that is sent.
pub(super) async fn refused(any: SocketAddr, peer: SocketAddr) -> io::Error {
    let asked = async {
        let socket = tokio::net::UdpSocket::bind(any).await?;
        socket.connect(peer).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0]).await
    };
    match asked.await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
        _ => std::future::pending().await,
    }
}
