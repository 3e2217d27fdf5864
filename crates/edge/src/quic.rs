//! The QUIC door: the streams of its connections are served as the sockets of
//! the link door are.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_link::quic::{self, Judge, QuicError};
use adit_link::tasks::Tasks;
use tokio::runtime::Handle;

use crate::link::{self, LinkDoor};
use crate::metrics::Door;

/// Opens the door on a bound socket: it answers whoever holds a secret of this
/// edge and nobody else.
pub(crate) fn open(
    socket: UdpSocket,
    door: &Arc<LinkDoor>,
    channels: u16,
    doors: &Tasks,
) -> Result<quic::Door, QuicError> {
    let admission = Arc::clone(&door.admission);
    let judge: Judge = Arc::new(move |knock| admission.knows(knock));
    let ground = (doors, Arc::clone(&door.counters));
    quic::Door::open(socket, channels, (door.admission.identity(), judge), ground)
}

/// Serves each stream of each connection on the next worker.
pub(crate) async fn run(
    quic: quic::Door,
    door: Arc<LinkDoor>,
    doors: Tasks,
    links: Tasks,
    workers: Vec<Handle>,
) {
    let next = Arc::new(AtomicUsize::new(0));
    let stop = links.stopping().clone();
    let (streams, accepting) = (links.clone(), doors.stopping().clone());
    let unproved = Arc::clone(&door.unproved);
    let place = move || {
        let permit = unproved.enter();
        async move { permit.pushed_out().await }
    };
    let serve = move |socket, peer: SocketAddr| {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let metrics = Arc::clone(&door.metrics);
        metrics.doors.accepted.of(Door::Quic).add(1);
        let served = link::serve(Arc::clone(&door), socket, peer, stop.clone());
        let task = async move {
            let _open = metrics.doors.open.of(Door::Quic).hold();
            served.await;
        };
        let index = next.fetch_add(1, Ordering::Relaxed);
        match workers.get(index % workers.len().max(1)) {
            Some(worker) => streams.spawn_on(worker, task),
            None => streams.spawn(task),
        }
    };
    quic.serve(links, accepting, place, serve).await;
}

/// A bound socket for the door.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
