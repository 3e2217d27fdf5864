//! Who a visitor is, and its bytes in a request's buffer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};

use super::buffer::Input;
use crate::visitor::Visitor;

impl Visitor {
    /// Reads what there is room for in `input`. No room waits for ever: the
    /// caller has something else to wait for.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
        may_drop: bool,
    ) -> Poll<io::Result<usize>> {
        self.poll_fill_some(cx, input, may_drop, usize::MAX)
    }

    /// The same, of at most so many bytes, which is more than none.
    pub(super) fn poll_fill_some(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
        may_drop: bool,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let room = input.room(may_drop);
        let most = most.min(room.len());
        let room = room.get_mut(..most).unwrap_or_default();
        if room.is_empty() {
            return Poll::Pending;
        }
        let count = ready!(self.poll_read(cx, room))?;
        input.received(count);
        Poll::Ready(Ok(count))
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    text: AddressText,
    /// A proxy whose word about the visitor counts.
    pub(super) trusted: bool,
    /// It speaks TLS with this edge.
    pub(super) secure: bool,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, trusted: &[ipnet::IpNet]) -> Self {
        let ip = address.ip().to_canonical();
        Self {
            address,
            text: AddressText::of(ip),
            trusted: trusted.iter().any(|net| net.contains(&ip)),
            secure: false,
        }
    }

    /// The scheme of what it asks for.
    pub(super) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
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
