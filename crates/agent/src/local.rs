//! The socket to a target, whatever its kind.
//!
//! Invariant: a socket that is dropped before [`Local::ended_well`] was said
//! is aborted, so that a service never takes a stream that was cut off for one
//! that ended.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

pub(crate) struct Local {
    socket: Socket,
}

enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl From<TcpStream> for Local {
    fn from(socket: TcpStream) -> Self {
        Self::new(Socket::Tcp(socket))
    }
}

impl From<TlsStream<TcpStream>> for Local {
    fn from(socket: TlsStream<TcpStream>) -> Self {
        Self::new(Socket::Tls(Box::new(socket)))
    }
}

#[cfg(unix)]
impl From<UnixStream> for Local {
    fn from(socket: UnixStream) -> Self {
        Self::new(Socket::Unix(socket))
    }
}

impl Local {
    /// Until both directions have ended in order, an end of the socket is a
    /// reset, however it comes about: also that of this process.
    fn new(socket: Socket) -> Self {
        let local = Self { socket };
        local.linger(Some(Duration::ZERO));
        local
    }

    /// Both directions have ended in order.
    pub(crate) fn ended_well(&self) {
        self.linger(None);
    }

    /// Best effort: it fails only on a socket that is gone already.
    fn linger(&self, time: Option<Duration>) {
        let tcp = match &self.socket {
            Socket::Tcp(socket) => socket,
            Socket::Tls(socket) => socket.get_ref().0,
            #[cfg(unix)]
            // It knows no reset: all that its service sees is an early end.
            Socket::Unix(_) => return,
        };
        drop(SockRef::from(tcp).set_linger(time));
    }

    /// Whether a read may find something. Only a hint: it saves holding a
    /// buffer while nothing arrives. TLS cannot tell without trying.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            Socket::Tcp(socket) => socket.poll_read_ready(cx),
            Socket::Tls(_) => Poll::Ready(Ok(())),
            #[cfg(unix)]
            Socket::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    /// Reads into `room`; 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(room);
        let read = match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, &mut into),
            Socket::Tls(socket) => Pin::new(socket).poll_read(cx, &mut into),
            #[cfg(unix)]
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, &mut into),
        };
        read.map_ok(|()| into.filled().len())
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Tls(socket) => Pin::new(socket).poll_write(cx, bytes),
            #[cfg(unix)]
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    /// Sends what comes before the first byte of a stream.
    pub(crate) async fn announce(&mut self, header: &[u8], within: Duration) -> io::Result<()> {
        let mut sent = 0;
        let all = poll_fn(|cx| {
            while sent < header.len() {
                match ready!(self.poll_write(cx, header.get(sent..).unwrap_or_default())) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(count) => sent += count,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(()))
        });
        match timeout(within, all).await {
            Ok(sent) => sent,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends what TLS holds back; nothing is held elsewhere.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tls(socket) => Pin::new(socket).poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ends our direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
            #[cfg(unix)]
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
