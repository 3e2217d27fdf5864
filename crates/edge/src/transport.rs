//! A visitor's connection: plain TCP, or TLS that this edge ends.
//!
//! Every door reads and writes through [`Transport`], and cannot tell the two
//! apart but for one thing: TLS seals what is written before the socket takes
//! it, so that who waits for something else has to [`Transport::poll_flush`]
//! first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

pub use crate::tls::stream::TlsStream;

/// A connection that bytes go through both ways.
#[derive(Debug)]
pub enum Transport {
    /// As it comes.
    Plain(TcpStream),
    /// Boxed: a plain visitor should hold no room for it.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// The socket below.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// Ready when a read would probably not wait; holds no buffer meanwhile.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_readable(cx),
        }
    }

    /// Reads into `room`: the bytes read, 0 at an end in order.
    ///
    /// # Errors
    /// The socket's; of TLS also that it was cut, or altered.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => {
                let mut buffer = ReadBuf::new(room);
                ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Self::Tls(tls) => tls.poll_read(cx, room),
        }
    }

    /// Writes two pieces as one; the bytes taken, never 0.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(match self {
            Self::Plain(socket) => {
                let socket = Pin::new(socket);
                if second.is_empty() {
                    socket.poll_write(cx, first)
                } else if first.is_empty() {
                    socket.poll_write(cx, second)
                } else {
                    socket.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)])
                }
            }
            Self::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(first), IoSlice::new(second)]),
        })?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(count))
    }

    /// As [`Transport::poll_write`], for the last bytes before the connection is
    /// closed at once: they and its end go together, in one segment where they
    /// fit.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self::Plain(socket) = self else {
            return self.poll_write(cx, first, second);
        };
        let (flags, mut nothing) = (
            SendFlags::MORE | SendFlags::NOSIGNAL,
            SendAncillaryBuffer::default(),
        );
        loop {
            ready!(socket.poll_write_ready(cx))?;
            let pieces = [IoSlice::new(first), IoSlice::new(second)];
            let send = || Ok(sendmsg(&*socket, &pieces, &mut nothing, flags)?);
            match socket.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Whether something that was written waits for the socket.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Ready when the socket has taken everything that was written.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Ends our direction, and says so where TLS can.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let count = ready!(self.get_mut().poll_read(cx, room))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write(cx, bytes, b"")
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
            Self::Tls(tls) => tls.poll_write(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown(cx)
    }
}
