//! Visitors announced by a load balancer: the PROXY protocol, versions 1 and 2
//! (`doc/proxy-protocol.txt` of HAProxy).
//!
//! Only connections from configured networks begin with a header, and then
//! each of them must: a header of anybody else is what it looks like, a
//! request that is wrong. Not one byte behind a header is taken.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use ppp::HeaderResult;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for a header; a balancer sends it at once.
const DEADLINE: Duration = Duration::from_secs(5);
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before its addresses.
const FIXED: usize = 16;
/// Most bytes of a header of version 2 that are read: addresses of Unix
/// sockets and some extensions.
const MOST_V2: usize = 1024;
/// Most bytes of a line of version 1.
const MOST_V1: usize = 107;

/// Why a connection's header was not understood.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// It did not come, or not whole.
    #[error("no PROXY header came in time")]
    Slow,
    /// The connection ended or failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It begins with something else.
    #[error("the connection does not begin with a PROXY header")]
    NoHeader,
    /// More bytes than any balancer sends.
    #[error("the PROXY header is longer than any should be")]
    TooLong,
    /// It breaks the form.
    #[error("the PROXY header is malformed")]
    Malformed,
}

/// Whose connections are announced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Balancers(Vec<IpNet>);

impl Balancers {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether connections from there are announced.
    pub(crate) fn announce(&self, peer: SocketAddr) -> bool {
        self.0.iter().any(|net| net.contains(&peer.ip()))
    }

    /// The visitor behind a connection from `peer`; `None` when it was not
    /// announced as it should have been.
    pub(crate) async fn visitor(
        &self,
        socket: &mut TcpStream,
        peer: SocketAddr,
    ) -> Option<SocketAddr> {
        if !self.announce(peer) {
            return Some(peer);
        }
        match announced(socket).await {
            Ok(visitor) => {
                let visitor = visitor.unwrap_or(peer);
                Some((visitor.ip().to_canonical(), visitor.port()).into())
            }
            Err(error) => {
                tracing::info!(%peer, %error, "a load balancer's connection was closed");
                None
            }
        }
    }
}

/// Reads the header; `None` when the balancer speaks for itself.
async fn announced(socket: &mut TcpStream) -> Result<Option<SocketAddr>, AnnounceError> {
    let bytes = match timeout(DEADLINE, read(socket)).await {
        Ok(read) => read?,
        Err(_) => return Err(AnnounceError::Slow),
    };
    source(&bytes)
}

async fn read(socket: &mut TcpStream) -> Result<Vec<u8>, AnnounceError> {
    let mut bytes = vec![0; SIGNATURE.len()];
    socket.read_exact(&mut bytes).await?;
    if bytes == SIGNATURE {
        bytes.resize(FIXED, 0);
        socket.read_exact(&mut bytes[SIGNATURE.len()..]).await?;
        let length = FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > MOST_V2 {
            return Err(AnnounceError::TooLong);
        }
        bytes.resize(length, 0);
        socket.read_exact(&mut bytes[FIXED..]).await?;
    } else if bytes.starts_with(b"PROXY ") {
        while !bytes.ends_with(b"\r\n") {
            if bytes.len() == MOST_V1 {
                return Err(AnnounceError::TooLong);
            }
            bytes.push(socket.read_u8().await?);
        }
    } else {
        return Err(AnnounceError::NoHeader);
    }
    Ok(bytes)
}

/// The visitor's address in a whole header; `None` when the balancer speaks for
/// itself.
///
/// # Errors
/// [`AnnounceError::Malformed`].
pub fn source(header: &[u8]) -> Result<Option<SocketAddr>, AnnounceError> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            ppp::v1::Addresses::Tcp4(a) => Some((a.source_address, a.source_port).into()),
            ppp::v1::Addresses::Tcp6(a) => Some((a.source_address, a.source_port).into()),
            ppp::v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == ppp::v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            ppp::v2::Addresses::IPv4(a) => Some((a.source_address, a.source_port).into()),
            ppp::v2::Addresses::IPv6(a) => Some((a.source_address, a.source_port).into()),
            ppp::v2::Addresses::Unspecified | ppp::v2::Addresses::Unix(_) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(AnnounceError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What a connection that begins with `sent` and ends then is taken for,
    /// and what is left of it.
    async fn announce(sent: &[u8]) -> (Result<Option<SocketAddr>, AnnounceError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut balancer = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        balancer.write_all(sent).await.unwrap();
        balancer.shutdown().await.unwrap();
        let visitor = announced(&mut socket).await;
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        (visitor, rest)
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap();
        let fixed = [SIGNATURE.as_slice(), &[0x20 | command, family]].concat();
        [&fixed, length.to_be_bytes().as_slice(), addresses].concat()
    }

    #[tokio::test]
    async fn the_visitor_is_read_and_nothing_behind() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let six = [[0x20; 16], [0x21; 16]].concat();
        let cases = [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n".to_vec(),
                Some("192.0.2.7:4660"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 4660 80\r\n".to_vec(),
                Some("[2001:db8::7]:4660"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(1, 0x11, &four), Some("192.0.2.7:4660")),
            // With extensions behind the addresses.
            (
                v2(1, 0x11, &[&four[..], &[3, 0, 1, 0]].concat()),
                Some("192.0.2.7:4660"),
            ),
            (
                v2(1, 0x21, &[&six[..], &[0x12, 0x34, 0, 80]].concat()),
                Some("[2020:2020:2020:2020:2020:2020:2020:2020]:4660"),
            ),
            (v2(0, 0, &[]), None),
            (v2(1, 0, &[]), None),
        ];
        for (header, wanted) in cases {
            let (visitor, rest) = announce(&[&header[..], b"\r\nhello"].concat()).await;
            let wanted: Option<SocketAddr> = wanted.map(|text| text.parse().unwrap());
            assert_eq!(visitor.unwrap(), wanted, "{header:?}");
            assert_eq!(rest, b"\r\nhello", "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let cases = [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "NoHeader"),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n".to_vec(),
                "Malformed",
            ),
            (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(), "Malformed"),
            (long, "TooLong"),
            (v2(1, 0x11, &[1, 2, 3]), "Malformed"),
            (v2(2, 0x11, &[0; 12]), "Malformed"),
            (v2(1, 0x11, &[0; 2000]), "TooLong"),
            (b"PROXY".to_vec(), "Io"),
            (v2(1, 0x11, &[0; 12])[..20].to_vec(), "Io"),
        ];
        for (sent, wanted) in cases {
            let (visitor, _) = announce(&sent).await;
            let error = format!("{:?}", visitor.unwrap_err());
            assert!(error.starts_with(wanted), "{sent:?}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_balancer_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let balancer = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut socket, peer) = listener.accept().await.unwrap();
        let all = Balancers::new(vec!["127.0.0.0/8".parse().unwrap()]);
        assert_eq!(all.visitor(&mut socket, peer).await, None);
        let others = Balancers::new(vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(others.visitor(&mut socket, peer).await, Some(peer));
        drop(balancer);
    }
}
