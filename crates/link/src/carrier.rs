//! What a link's bytes travel in: one connection of a carrier.
//!
//! The control channel of a link and each of its data channels has one
//! [`Socket`]. TCP is a variant of its own, so that the common path is called
//! directly; every other carrier is a boxed [`Wire`].
//!
//! Invariants: no carrier adds meaning, bytes go in and come out in order; the
//! link's own handshake runs inside each of them, so none has to be trusted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use adit_model::Carrier;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::lane::{Lane, Lanes};
use crate::uses::Uses;

/// A connection of a carrier other than TCP.
pub trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Which carrier.
    fn carrier(&self) -> Carrier;
    /// The peer has proved a secret: what bounds strangers bounds it no more.
    fn proved(&self) {}
    /// It carries streams of a link that has these.
    fn carries(&self, _uses: &Arc<Uses>) {}
    /// Where its datagrams go, if the carrier has some, and this connection's
    /// index among them.
    fn lanes(&self) -> Option<(Arc<Lanes>, u32)> {
        None
    }
    /// Ready when a read may give something; also when only a read can tell.
    fn poll_readable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    /// Whether it shares its connection with others, as a line of a trunk.
    fn is_line(&self) -> bool {
        false
    }
    /// From now on the connection's end must not look orderly to the peer.
    fn abort(&mut self);
}

/// One connection of a carrier.
pub enum Socket {
    /// TCP itself.
    Tcp(TcpStream),
    /// Another carrier, and whether written bytes may wait inside it.
    Other(Box<dyn Wire>, bool),
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl From<Box<dyn Wire>> for Socket {
    fn from(wire: Box<dyn Wire>) -> Self {
        Self::Other(wire, false)
    }
}

impl Socket {
    /// Which carrier.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        match self {
            Self::Tcp(_) => Carrier::Tcp,
            Self::Other(wire, _) => wire.carrier(),
        }
    }

    /// Sets what a link's socket needs, once its peer has proved a secret.
    ///
    /// # Errors
    /// The system's.
    pub fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => crate::socket::prepare(socket),
            Self::Other(wire, _) => {
                wire.proved();
                Ok(())
            }
        }
    }

    /// It carries streams of a link that has these.
    pub(crate) fn carries(&self, uses: &Arc<Uses>) {
        if let Self::Other(wire, _) = self {
            wire.carries(uses);
        }
    }

    /// The lane of its datagrams, if its carrier has some.
    pub(crate) fn lane(&self) -> Option<Lane> {
        let Self::Other(wire, _) = self else {
            return None;
        };
        wire.lanes().map(|(lanes, index)| lanes.lane(index))
    }

    /// Ready when a read may give something; also when only a read can tell.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Other(wire, _) => wire.poll_readable(cx),
        }
    }

    /// Whether it is a line of a trunk.
    pub(crate) fn is_line(&self) -> bool {
        matches!(self, Self::Other(wire, _) if wire.is_line())
    }

    /// Reads what is there now; `WouldBlock` when that is nothing.
    pub(crate) fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(self).poll_read(&mut cx, &mut into) {
            Poll::Ready(Ok(())) => Ok(into.filled().len()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether bytes that were written have not all left the carrier.
    pub(crate) fn has_unflushed(&self) -> bool {
        matches!(self, Self::Other(_, true))
    }

    /// Unsent bytes must not look like a clean end: a TCP connection is reset
    /// when it is dropped, another carrier as it can.
    pub(crate) fn abort(&mut self) {
        match self {
            Self::Tcp(socket) => {
                // Refused only by a socket that is broken already.
                let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
            }
            Self::Other(wire, _) => wire.abort(),
        }
    }

    /// The same connection on the calling runtime. Other carriers are woken
    /// across threads wherever they are.
    pub(crate) fn move_here(self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => Ok(Self::Tcp(TcpStream::from_std(socket.into_std()?)?)),
            other @ Self::Other(..) => Ok(other),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Other(wire, _) => Pin::new(wire).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Other(wire, unflushed) => {
                *unflushed = true;
                Pin::new(wire).poll_write(cx, bytes)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Other(_, false) => Poll::Ready(Ok(())),
            Self::Other(wire, unflushed) => {
                ready!(Pin::new(wire).poll_flush(cx))?;
                *unflushed = false;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Other(wire, _) => Pin::new(wire).poll_shutdown(cx),
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.carrier())
    }
}
