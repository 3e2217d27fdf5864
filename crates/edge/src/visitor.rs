//! The visitor's side of a connection, whatever door it came through.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::tls::Served;
use crate::transport::Transport;

/// The visitor's connection.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// `None` once it was handed on.
    transport: Option<Transport>,
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
        Self::over(Transport::Plain(socket))
    }

    pub(crate) fn over(transport: Transport) -> Self {
        Self {
            transport: Some(transport),
            ended: false,
            busy: false,
        }
    }

    /// The connection itself, for whom it goes on with.
    pub(crate) fn into_transport(mut self) -> Option<Transport> {
        self.busy = false;
        self.transport.take()
    }

    /// The socket of a plain connection.
    pub(crate) fn plain(&mut self) -> Option<&mut TcpStream> {
        match &mut self.transport {
            Some(Transport::Plain(socket)) => Some(socket),
            _ => None,
        }
    }

    fn get(&mut self) -> io::Result<&mut Transport> {
        let transport = self.transport.as_mut();
        transport.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What TLS that ends here has agreed on.
    pub(crate) fn served(&self) -> Option<&Served> {
        match &self.transport {
            Some(Transport::Tls(tls)) => Some(tls.served()),
            _ => None,
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
        if let Some(transport) = &self.transport {
            let _ = socket2::SockRef::from(transport.tcp()).set_linger(time);
        }
    }

    /// The address that the visitor reached.
    pub(crate) fn door(&self) -> Option<SocketAddr> {
        let door = self.transport.as_ref()?.tcp().local_addr().ok()?;
        Some((door.ip().to_canonical(), door.port()).into())
    }

    /// Ready when a read would not wait; holds no buffer meanwhile.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.transport {
            Some(transport) => transport.poll_readable(cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Reads into `room`: the bytes read, 0 at the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.get()?.poll_read(cx, room))?;
        self.ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// Writes two pieces as one; the bytes taken. Who waits for something else
    /// then has to flush first.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get()?.poll_write(cx, first, second)
    }

    /// As [`Visitor::poll_write`], for the last bytes before the connection is
    /// closed at once.
    pub(crate) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get()?.poll_write_last(cx, first, second)
    }

    /// Whether something that was written has not gone out.
    pub(crate) fn has_unsent(&self) -> bool {
        self.transport.as_ref().is_some_and(Transport::has_unsent)
    }

    /// Ready when everything that was written has gone out.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get()?.poll_flush(cx)
    }

    /// Ends our direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get()?.poll_shutdown(cx)
    }
}
