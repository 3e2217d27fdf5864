//! A stream for code that knows only tokio's traits.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::carrier::Socket;
use crate::stream::{Fill, Stream, StreamError};

/// A [`Stream`] behind tokio's traits, for code that knows only those.
#[derive(Debug)]
pub struct StreamIo(pub Stream);

fn to_io(error: StreamError) -> io::Error {
    match error {
        StreamError::Io(error) => error,
        StreamError::Truncated => io::Error::new(io::ErrorKind::UnexpectedEof, error),
        other => io::Error::new(io::ErrorKind::ConnectionReset, other),
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.0.buffer().is_empty() {
            if ready!(self.0.poll_fill(cx)).map_err(to_io)? == Fill::End {
                return Poll::Ready(Ok(()));
            }
        }
        let count = self.0.buffer().len().min(into.remaining());
        into.put_slice(&self.0.buffer()[..count]);
        self.0.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut count = self.0.write(bytes).map_err(to_io)?;
        if count == 0 && !bytes.is_empty() {
            ready!(self.0.poll_flush(cx)).map_err(to_io)?;
            count = self.0.write(bytes).map_err(to_io)?;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.finish();
        self.0.poll_flush(cx).map_err(to_io)
    }
}

impl Stream {
    /// The socket of a stream that is not sealed, while nothing that it brought
    /// waits to be consumed.
    #[must_use]
    pub fn bare(&self) -> Option<&TcpStream> {
        match (&self.inner.socket, &self.inner.sealed) {
            (Socket::Tcp(socket), None) if self.inner.rx.is_empty() => Some(socket),
            _ => None,
        }
    }

    /// Whether it goes by a line of a trunk.
    #[must_use]
    pub fn is_line(&self) -> bool {
        self.inner.socket.is_line()
    }

    /// Copies as much of `bytes` as fits before a flush; returns how much.
    ///
    /// # Errors
    /// As [`Stream::commit`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        let mut written = 0;
        while written < bytes.len() {
            let room = self.spare(bytes.len() - written);
            let count = room.len().min(bytes.len() - written);
            if count == 0 {
                break;
            }
            room[..count].copy_from_slice(&bytes[written..written + count]);
            self.commit(count)?;
            written += count;
        }
        Ok(written)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.inner.sealed.is_some() {
            "sealed"
        } else {
            "plain"
        };
        write!(f, "Stream({kind})")
    }
}
