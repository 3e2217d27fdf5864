//! The UDP loads: questions one at a time, and as many datagrams as pass.
//!
//! The service is this program once more, saying everything back. A datagram
//! carries its number, so that an answer counts once and to the right one; what
//! does not come back in time counts as an error, and the load goes on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::error::BenchError;
use crate::http::Seen;

/// Bytes of a question, and of a datagram in bulk.
const SIZES: (usize, usize) = (64, 1024);
/// Datagrams of a visitor that are on their way in bulk: all of them fit a socket of
/// the system's default size, so that the service itself loses none.
const WINDOW: usize = 8;
/// What has not come back by then is lost.
const LOST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(200));
/// Room of the service's socket.
const ROOM: usize = 65_536;

/// Says everything back, until it is stopped.
pub(crate) fn echo(address: SocketAddr) -> Result<(), BenchError> {
    let failed = || BenchError::io("echo datagrams");
    let socket = std::net::UdpSocket::bind(address).map_err(failed())?;
    let mut room = vec![0; ROOM];
    loop {
        let (count, from) = socket.recv_from(&mut room).map_err(failed())?;
        // A visitor that has gone is no reason to end.
        let _ = socket.send_to(room.get(..count).unwrap_or_default(), from);
    }
}

/// Whether a datagram comes back from there.
pub(crate) async fn passes(door: SocketAddr) -> bool {
    let seen = ask(door, 1, Duration::from_millis(20)).await;
    seen.answers > 0 && seen.errors == 0
}

/// Visitors that each send a question of 64 bytes when they have the answer to
/// the one before.
pub(crate) async fn ask(door: SocketAddr, visitors: usize, length: Duration) -> Seen {
    run(door, visitors, length, 1, SIZES.0, LOST.0).await
}

/// Visitors that each keep 8 datagrams of 1 KiB on their way.
pub(crate) async fn bulk(door: SocketAddr, visitors: usize, length: Duration) -> Seen {
    run(door, visitors, length, WINDOW, SIZES.1, LOST.1).await
}

async fn run(
    door: SocketAddr,
    visitors: usize,
    length: Duration,
    window: usize,
    size: usize,
    lost: Duration,
) -> Seen {
    let begun = Instant::now();
    let until = begun + length;
    let mut set = JoinSet::new();
    for _ in 0..visitors {
        set.spawn(async move {
            let mut seen = Seen::default();
            let end = visitor(door, until, (window, size, lost), &mut seen).await;
            seen.errors += u64::from(end.is_err());
            seen
        });
    }
    Seen::of(set, begun).await
}

async fn visitor(
    door: SocketAddr,
    until: Instant,
    (window, size, lost): (usize, usize, Duration),
    seen: &mut Seen,
) -> io::Result<()> {
    let any = SocketAddr::new([0, 0, 0, 0].into(), 0);
    let socket = UdpSocket::bind(any).await?;
    socket.connect(door).await?;
    let (mut datagram, mut answer) = (vec![7; size], vec![0; ROOM]);
    // When each of those on their way was sent, by its number.
    let mut sent: Vec<Option<(u64, Instant)>> = vec![None; window];
    let (mut next, mut first) = (0u64, 0);
    while Instant::now() < until {
        while sent.get(first).is_some_and(Option::is_none) {
            datagram[..8].copy_from_slice(&next.to_be_bytes());
            datagram[8..16].copy_from_slice(&(first as u64).to_be_bytes());
            // A refusal tells of an earlier one.
            if socket.send(&datagram).await.is_err() {
                seen.errors += 1;
            }
            sent[first] = Some((next, Instant::now()));
            next += 1;
            first = (first + 1) % window;
        }
        match timeout(lost, socket.recv(&mut answer)).await {
            Ok(Ok(count)) if count == size => {
                if let Some((place, begun)) = take(&mut sent, &answer) {
                    seen.answers += 1;
                    seen.bytes += size as u64;
                    let micros = begun.elapsed().as_micros();
                    seen.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
                    first = place;
                }
            }
            Ok(_) => seen.errors += 1,
            Err(_) => {
                seen.errors += sent.iter().flatten().count() as u64;
                sent.fill(None);
                first = 0;
            }
        }
    }
    Ok(())
}

/// The place of the datagram that an answer belongs to, and when it was sent;
/// `None` for one that counts as lost.
fn take(sent: &mut [Option<(u64, Instant)>], answer: &[u8]) -> Option<(usize, Instant)> {
    let number = u64::from_be_bytes(*answer.first_chunk::<8>()?);
    let place = u64::from_be_bytes(*answer.get(8..)?.first_chunk::<8>()?);
    let place = usize::try_from(place).ok()?;
    let slot = sent.get_mut(place)?;
    let (_, begun) = slot.take_if(|(held, _)| *held == number)?;
    Some((place, begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_back_is_counted_once() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let service = UdpSocket::bind(address).await.expect("a socket");
        let door = service.local_addr().expect("its address");
        // Each third one is lost, each other comes twice.
        let echo = async {
            let (mut room, mut count) = ([0; 2048], 0);
            loop {
                let (size, from) = service.recv_from(&mut room).await.expect("a datagram");
                count += 1;
                if count % 3 > 0 {
                    for _ in 0..2 {
                        let _ = service.send_to(&room[..size], from).await;
                    }
                }
            }
        };
        let load = bulk(door, 1, Duration::from_millis(700));
        let seen = tokio::select! {
            seen = load => seen,
            () = echo => panic!("it does not end"),
        };
        assert!(seen.answers > 0 && seen.errors > 0);
        assert_eq!(seen.bytes, seen.answers * 1024);
        assert_eq!(seen.micros.len() as u64, seen.answers);
    }
}
