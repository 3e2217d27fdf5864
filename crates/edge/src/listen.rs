//! Listeners, one a worker, and the loop that accepts from one.
//!
//! All listeners of a door share its address by `SO_REUSEPORT`, so that each
//! worker accepts for itself. The first is bound without it: a port that
//! another process holds, a second edge of ours included, is an error.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link::tasks::Tasks;
use adit_link::told::not_accepted;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Door, Metrics};
use crate::seldom::Seldom;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// A visitor that answers nothing for two minutes is gone.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);
/// Pause after a failed accept: the process is out of descriptors, and asking
/// again at once would only burn the processor.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds `count` listeners to one address.
///
/// # Errors
/// The system's: the port is in use, or not for this user, or the address is
/// none of this machine's.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    bind_first(socket(address)?, address, count)
}

/// The same where listeners of ours at this address may be about to close.
///
/// # Errors
/// As [`bind`]; a listener of this user's other processes is no error.
pub(crate) fn bind_again(
    address: SocketAddr,
    count: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    let first = socket(address)?;
    #[cfg(unix)]
    first.set_reuse_port(true)?;
    bind_first(first, address, count)
}

fn bind_first(
    first: Socket,
    address: SocketAddr,
    count: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    first.bind(&address.into())?;
    let bound = first
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut sockets = vec![first];
    #[cfg(unix)]
    sockets[0].set_reuse_port(true)?;
    #[cfg(unix)]
    for _ in 1..count {
        let next = socket(bound)?;
        next.set_reuse_port(true)?;
        next.bind(&bound.into())?;
        sockets.push(next);
    }
    sockets.into_iter().map(listen).collect()
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted edge takes its port back although old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Inherited by what it accepts: a small answer never waits for an
    // acknowledgement, and no call a connection is spent on it.
    socket.set_tcp_nodelay(true)?;
    // Inherited too: a visitor that vanished does not hold its stream for ever.
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<std::net::TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Which door a listener belongs to, and where its connections are counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The door.
    pub door: Door,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// What holds back lines about failed accepts; one for all doors, since
    /// they fail together.
    pub seldom: Arc<Seldom>,
}

/// Accepts until `stop`; each connection becomes a task of `streams`.
///
/// # Errors
/// When the runtime does not take the listener.
pub async fn accept<F>(
    listener: std::net::TcpListener,
    counted: Counted,
    stop: &CancellationToken,
    streams: &Tasks,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((socket, peer)) => {
                let served = serve(socket, unmapped(peer));
                counted.metrics.doors.accepted.of(counted.door).add(1);
                let Counted { door, metrics, .. } = counted.clone();
                streams.spawn(async move {
                    let _open = metrics.doors.open.of(door).hold();
                    served.await;
                });
            }
            Err(error) => {
                let Some(code) = not_accepted(&error) else {
                    continue;
                };
                counted.metrics.doors.accept_errors.of(counted.door).add(1);
                if let Some(times) = counted.seldom.one_more(Instant::now()) {
                    tracing::warn!(%code, %error, times, "connections could not be accepted");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// An IPv4 visitor of a dual-stack listener is an IPv4 visitor.
fn unmapped(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_also_between_edges() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(loopback, 3).unwrap();
        assert_eq!(first.len(), 3);
        let address = first[0].local_addr().unwrap();
        assert!(first.iter().all(|l| l.local_addr().unwrap() == address));
        let second = bind(address, 3).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }
}
