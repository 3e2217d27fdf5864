//! The visitor's side of a connection, whatever door it came through.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The visitor's socket.
#[derive(Debug)]
pub(crate) struct Visitor {
    socket: TcpStream,
    /// It has ended its direction.
    pub(crate) ended: bool,
    /// An answer is under way: if the connection ends now, however that comes
    /// about, it must not look like the answer's end.
    pub(crate) busy: bool,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if self.busy {
            // A reset instead of an end.
            self.linger(Some(Duration::ZERO));
        }
    }
}

impl Visitor {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            ended: false,
            busy: false,
        }
    }

    /// From now on an end of this process, too, is a reset for the visitor and
    /// not what looks like an end in order.
    pub(crate) fn arm(&mut self) {
        self.busy = true;
        self.linger(Some(Duration::ZERO));
    }

    /// Everything was said: it ends in order.
    pub(crate) fn disarm(&mut self) {
        self.busy = false;
        self.linger(None);
    }

    /// Best effort: a socket that refuses is gone already.
    fn linger(&self, time: Option<Duration>) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(time);
    }

    /// The address that the visitor reached.
    pub(crate) fn door(&self) -> Option<SocketAddr> {
        let door = self.socket.local_addr().ok()?;
        Some((door.ip().to_canonical(), door.port()).into())
    }

    /// Ready when a read would not wait; holds no buffer meanwhile.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(cx)
    }

    /// Reads into `room`: the bytes read, 0 at the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        self.ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// Writes two pieces as one; the bytes taken.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        let count = ready!(if second.is_empty() {
            socket.poll_write(cx, first)
        } else if first.is_empty() {
            socket.poll_write(cx, second)
        } else {
            socket.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)])
        })?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(count))
    }

    /// Ends our direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
