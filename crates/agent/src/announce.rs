//! Telling a service who its visitor is: the PROXY protocol, in front of a
//! stream's bytes.

use std::net::{IpAddr, SocketAddr};

use ppp::v2;

/// Which form of the header a service reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

impl ProxyProtocol {
    /// The header for a visitor who reached the edge at `door`.
    pub(crate) fn header(self, visitor: SocketAddr, door: Option<SocketAddr>) -> Vec<u8> {
        let (from, to) = alike(visitor, door.unwrap_or(unknown(visitor)));
        match self {
            Self::V1 => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from_port, to_port) = (from.port(), to.port());
                let line = format!(
                    "PROXY {family} {} {} {from_port} {to_port}\r\n",
                    from.ip(),
                    to.ip()
                );
                line.into_bytes()
            }
            Self::V2 => {
                let command = v2::Version::Two | v2::Command::Proxy;
                let header = v2::Builder::with_addresses(command, v2::Protocol::Stream, (from, to));
                // Fails only above 64 KiB of extensions, and there are none.
                header.build().unwrap_or_default()
            }
        }
    }
}

/// Both addresses of one family, as the header has them.
fn alike(from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    let six = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (six(from), six(to))
}

/// No address, of the family of another.
fn unknown(other: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if other.is_ipv4() {
        [0; 4].into()
    } else {
        [0u16; 8].into()
    };
    SocketAddr::new(ip, 0)
}

#[cfg(test)]
mod tests {
    use ppp::HeaderResult;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_what_others_read() {
        let (four, six) = (at("192.0.2.7:4660"), at("[2001:db8::7]:4660"));
        let (door4, door6) = (at("198.51.100.1:2222"), at("[2001:db8::1]:2222"));
        let text = |visitor, door| {
            let header = ProxyProtocol::V1.header(visitor, door);
            assert!(matches!(
                HeaderResult::parse(&header),
                HeaderResult::V1(Ok(_))
            ));
            String::from_utf8(header).unwrap()
        };
        assert_eq!(
            text(four, Some(door4)),
            "PROXY TCP4 192.0.2.7 198.51.100.1 4660 2222\r\n"
        );
        assert_eq!(
            text(six, Some(door6)),
            "PROXY TCP6 2001:db8::7 2001:db8::1 4660 2222\r\n"
        );
        assert_eq!(text(four, None), "PROXY TCP4 192.0.2.7 0.0.0.0 4660 0\r\n");
        assert!(text(four, Some(door6)).starts_with("PROXY TCP6 ::ffff:192.0.2.7 "));
        for (visitor, door) in [(four, door4), (six, door6), (six, door4)] {
            let header = ProxyProtocol::V2.header(visitor, Some(door));
            let HeaderResult::V2(Ok(read)) = HeaderResult::parse(&header) else {
                panic!("a header of version 2: {header:?}")
            };
            let from: SocketAddr = match read.addresses {
                v2::Addresses::IPv4(a) => (a.source_address, a.source_port).into(),
                v2::Addresses::IPv6(a) => (a.source_address, a.source_port).into(),
                other => panic!("{other:?}"),
            };
            assert_eq!((from, read.command), (visitor, v2::Command::Proxy));
        }
    }
}
