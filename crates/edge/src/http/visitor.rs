//! The visitor's side of a connection.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::Input;

/// The visitor's socket.
#[derive(Debug)]
pub(super) struct Visitor {
    socket: TcpStream,
    /// It has ended its direction.
    pub(super) ended: bool,
    /// An answer is under way: if the connection ends now, however that comes
    /// about, it must not look like the answer's end.
    pub(super) busy: bool,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if self.busy {
            // A reset instead of an end. Best effort: a socket that refuses is
            // gone already.
            let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Visitor {
    pub(super) fn new(socket: TcpStream) -> Self {
        // Without it a small answer may wait for an acknowledgement; a socket
        // that refuses the option is gone already.
        let _ = socket.set_nodelay(true);
        Self {
            socket,
            ended: false,
            busy: false,
        }
    }

    /// Ready when a read would not wait; holds no buffer meanwhile.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(cx)
    }

    /// Reads into `room`: the bytes read, 0 at the end.
    pub(super) fn poll_read(
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

    /// Reads what there is room for in `input`. No room waits for ever: the
    /// caller has something else to wait for.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
        may_drop: bool,
    ) -> Poll<io::Result<usize>> {
        let room = input.room(may_drop);
        if room.is_empty() {
            return Poll::Pending;
        }
        let count = ready!(self.poll_read(cx, room))?;
        input.received(count);
        Poll::Ready(Ok(count))
    }

    /// Writes two pieces as one; the bytes taken.
    pub(super) fn poll_write(
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
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    text: AddressText,
    /// A proxy whose word about the visitor counts.
    pub(super) trusted: bool,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, trusted: &[ipnet::IpNet]) -> Self {
        let ip = address.ip().to_canonical();
        Self {
            address,
            text: AddressText::of(ip),
            trusted: trusted.iter().any(|net| net.contains(&ip)),
        }
    }

    pub(super) fn text(&self) -> &str {
        self.text.as_str()
    }
}

/// An address as text, without an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressText {
    bytes: [u8; 45],
    length: u8,
}

impl AddressText {
    pub(super) fn of(address: IpAddr) -> Self {
        use std::io::Write;
        let mut bytes = [0; 45];
        let mut rest = &mut bytes[..];
        // 45 bytes hold the longest address.
        let _ = write!(rest, "{address}");
        let left = rest.len();
        Self {
            length: u8::try_from(bytes.len() - left).unwrap_or(0),
            bytes,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length));
        std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_whole() {
        for text in [
            "1.2.3.4",
            "2001:db8::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(AddressText::of(text.parse().unwrap()).as_str(), text);
        }
    }
}
