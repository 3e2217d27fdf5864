//! The sockets of a UDP port: one a worker, at one address.
//!
//! The system spreads visitors over them by address and port, so that a flow
//! stays with its worker; several datagrams come in one call, and a reply
//! leaves from the address that its visitor wrote to, also where the port
//! stands on all addresses.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What the system is asked to hold for us; it may give less.
const KERNEL_BUFFER: usize = 4 << 20;
/// Room for the largest datagram, or for several that came as one.
const ROOM: usize = 64 * 1024;

thread_local! {
    /// Where datagrams arrive; each is copied to its flow before the next
    /// call. Memory that nothing has arrived in is not there.
    static ARRIVALS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Binds `count` sockets to one address; `again`: sockets of ours may still
/// stand there.
///
/// # Errors
/// The system's: the port is in use, or not for this user, or the address is
/// none of this machine's.
pub(crate) fn bind(
    address: SocketAddr,
    count: usize,
    again: bool,
) -> io::Result<Vec<std::net::UdpSocket>> {
    let first = socket(address)?;
    if again {
        first.set_reuse_port(true)?;
    }
    first.bind(&address.into())?;
    let bound = first.local_addr()?.as_socket();
    let bound = bound.ok_or(io::ErrorKind::AddrNotAvailable)?;
    first.set_reuse_port(true)?;
    let mut sockets = vec![first.into()];
    for _ in 1..count {
        let next = socket(bound)?;
        next.set_reuse_port(true)?;
        next.bind(&bound.into())?;
        sockets.push(next.into());
    }
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // What is refused here costs datagrams in a burst, nothing else.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Datagrams of one sender, each `stride` long but for the last.
pub(super) struct Arrived<'a> {
    /// Who sent them.
    pub(super) from: SocketAddr,
    /// The address that they were sent to.
    pub(super) to: Option<IpAddr>,
    bytes: &'a [u8],
    stride: usize,
}

impl<'a> Arrived<'a> {
    /// One after the other.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty
            .into_iter()
            .chain(self.bytes.chunks(self.stride.max(1)))
    }
}

/// One socket of a port.
pub(super) struct Door {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Where it stands.
    pub(super) local: SocketAddr,
}

impl Door {
    /// Registers the socket with the calling runtime.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let state = UdpSocketState::new((&socket).into())?;
        may_fragment(&socket, local)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            state,
            local,
        })
    }

    /// The address of ours that a flow has, where that is not the socket's.
    pub(super) fn own(&self, to: Option<IpAddr>) -> Option<IpAddr> {
        to.filter(|_| self.local.ip().is_unspecified())
    }

    /// Waits until a datagram can be read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Waits until a datagram can be sent.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Reads what has arrived, as far as one call goes; false when that is
    /// nothing.
    pub(super) fn receive(&self, mut each: impl FnMut(&Arrived<'_>)) -> io::Result<bool> {
        ARRIVALS.with_borrow_mut(|room| {
            room.resize(BATCH_SIZE * ROOM, 0);
            let mut pieces = room.chunks_exact_mut(ROOM);
            let mut into: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(pieces.next().unwrap_or_default()));
            let mut facts = [RecvMeta::default(); BATCH_SIZE];
            let found = self.socket.try_io(Interest::READABLE, || {
                let socket = (&self.socket).into();
                self.state.recv(socket, &mut into, &mut facts)
            });
            let count = match found {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                found => found?,
            };
            for (bytes, fact) in into.iter().zip(&facts).take(count) {
                each(&Arrived {
                    from: fact.addr,
                    to: fact.dst_ip,
                    bytes: bytes.get(..fact.len).unwrap_or_default(),
                    stride: fact.stride,
                });
            }
            Ok(true)
        })
    }

    /// Sends one datagram, from our address `own` where that is given.
    pub(super) fn send(
        &self,
        to: SocketAddr,
        own: Option<IpAddr>,
        datagram: &[u8],
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: own,
        };
        self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.socket).into(), &transmit)
        })
    }
}

/// A large datagram travels in fragments, as from any socket; what reads
/// several datagrams at a time has forbidden it for the sake of QUIC.
#[cfg(target_os = "linux")]
fn may_fragment(socket: &std::net::UdpSocket, local: SocketAddr) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    };
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?;
    if local.is_ipv6() {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?;
        setsockopt(socket, sockopt::Ipv6DontFrag, &false)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn may_fragment(_: &std::net::UdpSocket, _: SocketAddr) -> io::Result<()> {
    Ok(())
}
