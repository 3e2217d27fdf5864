//! Links by WebSocket: what the HTTP doors hand on becomes a socket of the
//! link door.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_link::tasks::Tasks;
use adit_link::websocket::{Base, taken};
use adit_link_proto::SecretId;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::{LinkUpgrade, Upgraded};
use crate::link::{self, LinkDoor};
use crate::metrics::Door;
use crate::transport::Transport;

/// Takes WebSockets whose path names a secret or a session of this edge.
pub(crate) struct ByWebSocket {
    pub(crate) door: Arc<LinkDoor>,
    /// Owner of links.
    pub(crate) links: Tasks,
}

impl LinkUpgrade for ByWebSocket {
    fn knows(&self, id: [u8; 8]) -> bool {
        let id = SecretId(id);
        self.door.registry.session(id).is_some() || self.door.admission.names_secret(id)
    }

    fn take(&self, _: [u8; 8], upgraded: Upgraded) {
        let door = Arc::clone(&self.door);
        let stop = self.links.stopping().clone();
        let metrics = Arc::clone(&self.door.metrics);
        metrics.doors.accepted.of(Door::WebSocket).add(1);
        self.links.spawn(async move {
            let _open = metrics.doors.open.of(Door::WebSocket).hold();
            let socket = taken(Whole(upgraded.transport), upgraded.early).await;
            link::serve(door, socket, upgraded.peer, stop).await;
        });
    }
}

/// A visitor's connection of which nothing is HTTP any more.
struct Whole(Transport);

impl Base for Whole {
    fn abort(&mut self) {
        // Refused only by a socket that is broken already.
        let _ = SockRef::from(self.0.tcp()).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Whole {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.0), cx, into)
    }
}

impl AsyncWrite for Whole {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.0), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}
