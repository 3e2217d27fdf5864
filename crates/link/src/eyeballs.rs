//! Reaches the first of several addresses that answers (RFC 8305, "happy
//! eyeballs").

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// How long an address has before the next is tried beside it (RFC 8305 §5,
/// Connection Attempt Delay).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The largest segment of a link's TCP connection: with the headers of IPv6
/// it fits in 1,280 bytes, which every path must carry (RFC 8200 §5). Paths
/// that swallow larger packets without a word are common, behind tunnels most
/// of all, and cost a connection that works until its first full packet.
const SEGMENT: u32 = 1220;

/// Addresses that did not answer, each with its reason, in the order in which
/// they gave up.
pub type Unanswered = Vec<(SocketAddr, io::Error)>;

/// The order to try addresses in: families by turns, beginning with the first
/// one's, each family in the order that was given (RFC 8305 §4).
#[must_use]
pub fn order(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let begins = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let of = |family: bool| addresses.iter().filter(move |a| a.is_ipv6() == family);
    let (mut first, mut second) = (of(begins), of(!begins));
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(first.next());
        ordered.extend(second.next());
    }
    ordered
}

/// Dials addresses in [`order`], the next one whenever one has failed or has
/// been silent for [`ATTEMPT_DELAY`]; the first that answers wins and the others
/// are dropped. How long one may take in all is up to `dial`.
///
/// # Errors
/// What each of them said.
pub async fn first_of<T, F>(
    addresses: &[SocketAddr],
    dial: impl Fn(SocketAddr) -> F,
) -> Result<(T, SocketAddr), Unanswered>
where
    F: Future<Output = io::Result<T>>,
{
    if let &[only] = addresses {
        // By far the most, and without a set of futures.
        let result = dial(only).await;
        return result
            .map(|reached| (reached, only))
            .map_err(|error| vec![(only, error)]);
    }
    let dial = &dial;
    let mut waiting = order(addresses).into_iter();
    let mut running = FuturesUnordered::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            running.push(async move { (address, dial(address).await) });
        } else if running.is_empty() {
            return Err(failed);
        }
        tokio::select! {
            Some((address, result)) = running.next() => match result {
                Ok(reached) => return Ok((reached, address)),
                Err(error) => failed.push((address, error)),
            },
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
}

/// Connects a link's socket to the first address that answers, none of which
/// may take longer than `limit`; see [`connect`].
///
/// # Errors
/// As [`first_of`].
pub async fn connect_first(
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<(TcpStream, SocketAddr), Unanswered> {
    first_of(addresses, |address| async move {
        match timeout(limit, connect(address)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    })
    .await
}

/// Connects one socket of a link, with segments that pass everywhere; both
/// directions keep to the size that the dialling side asks for. Within this
/// machine there is no such path, and larger ones cost less.
///
/// # Errors
/// The system's.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if !address.ip().to_canonical().is_loopback() {
        #[cfg(unix)]
        // A system without it has the segments that it would have had.
        drop(SockRef::from(&socket).set_tcp_mss(SEGMENT));
    }
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let wanted = addresses(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(order(&given), wanted);
        let given = addresses(&["1.0.0.1:1", "1.0.0.2:1", "[::1]:1"]);
        let wanted = addresses(&["1.0.0.1:1", "[::1]:1", "1.0.0.2:1"]);
        assert_eq!(order(&given), wanted);
        assert_eq!(order(&[]), []);
    }

    async fn after(milliseconds: u16) {
        let time = Duration::from_millis(milliseconds.into());
        drop(timeout(time, std::future::pending::<()>()).await);
    }

    /// Port 1 never answers, port 2 refuses after 10 ms, another answers after
    /// so many milliseconds.
    async fn dial(address: SocketAddr) -> io::Result<()> {
        match address.port() {
            1 => std::future::pending().await,
            2 => {
                after(10).await;
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            port => {
                after(port).await;
                Ok(())
            }
        }
    }

    async fn reached(texts: &[&str]) -> (SocketAddr, u128) {
        let begun = Instant::now();
        let ((), address) = first_of(&addresses(texts), dial).await.unwrap();
        (address, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_holds_the_next_up_for_a_quarter_of_a_second() {
        let live = "1.0.0.1:30".parse().unwrap();
        assert_eq!(reached(&["[::1]:1", "1.0.0.1:30"]).await, (live, 280));
        assert_eq!(
            reached(&["[::1]:1", "[::2]:1", "1.0.0.1:30"]).await,
            (live, 280)
        );
        assert_eq!(
            reached(&["1.0.0.3:1", "1.0.0.2:1", "1.0.0.1:30"]).await,
            (live, 530)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_refuses_holds_nothing_up() {
        let live = "1.0.0.1:30".parse().unwrap();
        assert_eq!(reached(&["[::1]:2", "1.0.0.1:30"]).await, (live, 40));
        // Nor does it where another is silent.
        let all = ["[::1]:1", "1.0.0.3:2", "1.0.0.1:30"];
        assert_eq!(reached(&all).await, (live, 290));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_may_still_win() {
        let slow = "1.0.0.1:300".parse().unwrap();
        assert_eq!(reached(&["1.0.0.1:300", "1.0.0.2:400"]).await, (slow, 300));
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_failed_are_named() {
        let all = addresses(&["1.0.0.1:2", "[::1]:2", "1.0.0.2:2"]);
        let failed = first_of(&all, dial).await.unwrap_err();
        let named: Vec<_> = failed.iter().map(|(address, _)| *address).collect();
        assert_eq!(named, order(&all));
        assert!(first_of(&[], dial).await.unwrap_err().is_empty());
    }

    #[tokio::test]
    async fn a_socket_of_a_link_is_connected() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = gone.local_addr().unwrap();
        drop(gone);
        let limit = Duration::from_secs(10);
        let (socket, peer) = connect_first(&[nobody, there], limit).await.unwrap();
        assert_eq!((peer, socket.peer_addr().unwrap()), (there, there));
        let failed = connect_first(&[nobody], limit).await.unwrap_err();
        assert_eq!(failed[0].1.kind(), io::ErrorKind::ConnectionRefused);
    }
}
