//! Who comes in: a visitor's connection before its first request.
//!
//! It takes one of the door's places and is counted for its address; who may
//! not come in is told so where that costs little.

use std::future::{Future, poll_fn, ready};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Either;
use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::HttpDoor;
use super::respond::{self, After, Extra};
use super::server::{Connection, poll_send};
use super::timer::Timer;
use crate::limits::{self, ConnectionPermit};
use crate::metrics::{HttpRefusal, LimitRefusal};
use crate::visitor::Visitor;

/// How long and how much of a refused request is read on, so that the refusal
/// is not lost to a reset.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// The door, and one of its places for as long as this lives.
pub(crate) struct Place(Arc<HttpDoor>);

impl Place {
    /// Takes one; counts the visitor as refused when none is left.
    pub(crate) fn take(door: Arc<HttpDoor>) -> Option<Self> {
        let place = door.parts.places.try_acquire();
        if place.map(SemaphorePermit::forget).is_ok() {
            return Some(Self(door));
        }
        let refused = &door.parts.metrics.limits.refused;
        refused.of(LimitRefusal::Full).add(1);
        None
    }
}

impl Deref for Place {
    type Target = Arc<HttpDoor>;

    fn deref(&self) -> &Arc<HttpDoor> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.parts.places.add_permits(1);
    }
}

/// Serves a visitor until the connection ends. `stop` ends it when no request
/// is under way, else after that request. The socket should have
/// `TCP_NODELAY`, from its listener: without it small answers may wait for
/// acknowledgements.
pub fn serve_connection(
    socket: TcpStream,
    peer: SocketAddr,
    door: Arc<HttpDoor>,
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let Some(place) = Place::take(door) else {
        return Either::Left(Either::Left(ready(())));
    };
    if place.parts.balancers.announce(peer) {
        // Boxed: other visitors should hold no room for it.
        let announced = serve_announced(socket, peer, place, stop);
        Either::Left(Either::Right(Box::pin(announced)))
    } else {
        Either::Right(serve_visitor(Visitor::new(socket), peer, place, stop))
    }
}

/// Serves a visitor whom a load balancer has to announce first.
async fn serve_announced(
    mut socket: TcpStream,
    peer: SocketAddr,
    place: Place,
    stop: CancellationToken,
) {
    let visitor = place.parts.balancers.visitor(&mut socket, peer);
    if let Some(Some(visitor)) = stop.run_until_cancelled(visitor).await {
        serve_visitor(Visitor::new(socket), visitor, place, stop).await;
    }
}

fn serve_visitor(
    visitor: Visitor,
    peer: SocketAddr,
    door: Place,
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let now = Instant::now().into_std();
    match door.parts.limits.connect(peer.ip(), now) {
        Ok(permit) => Either::Left(serve_counted(visitor, peer, (door, permit), stop)),
        // Boxed: those who may come in should hold no room for it.
        Err(refusal) => {
            let refused = &door.parts.metrics.http.refused;
            refused.of(HttpRefusal::Limited).add(1);
            Either::Right(Box::pin(async move {
                turn_away(visitor, &door, 429, limit_extra(refusal)).await;
            }))
        }
    }
}

/// Serves a visitor that was counted in. No function of its own that is
/// `async`: it would hold its arguments twice.
pub(crate) fn serve_counted(
    visitor: Visitor,
    peer: SocketAddr,
    (door, permit): (Place, ConnectionPermit),
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let mut connection = Connection::new(visitor, peer, door, permit);
    async move {
        if let Some(asked) = connection.run(&stop).await {
            // Boxed: visitors should hold no room for it.
            Box::pin(connection.hand_over(*asked)).await;
        }
    }
}

/// Tells a visitor that speaks plain HTTP where TLS is spoken that it is wrong.
pub(crate) async fn answer_plain(visitor: Visitor, door: &HttpDoor) {
    turn_away(visitor, door, 400, Extra::Nothing).await;
}

/// Answers a connection that is not served.
async fn turn_away(mut visitor: Visitor, door: &HttpDoor, status: u16, extra: Extra<'_>) {
    let Ok(_explained) = door.turned_away.try_acquire() else {
        return;
    };
    let mut work = door.take_work();
    respond::answer(&mut work.out.bytes, status, extra, After::CLOSE);
    let sent = poll_fn(|cx| poll_send(cx, &mut visitor, &mut work)).await;
    door.give_work(work);
    if sent.is_ok() {
        linger(&mut visitor, &mut Timer::default()).await;
    }
}

/// What a limit tells the visitor.
pub(super) fn limit_extra(refusal: limits::Refusal) -> Extra<'static> {
    let wait = match refusal {
        limits::Refusal::Banned { left } => left,
        limits::Refusal::TooManyRequests { retry_after } => retry_after,
        limits::Refusal::TooManyConnections => return Extra::Nothing,
    };
    Extra::RetryAfter(wait.as_secs() + 1)
}

/// Ends our direction, then reads and drops for a moment: a socket closed with
/// unread bytes is reset, and the visitor might lose the answer.
pub(super) async fn linger(visitor: &mut Visitor, timer: &mut Timer) {
    let until = Instant::now() + LINGER_TIME;
    let mut left = LINGER_BYTES;
    let mut scrap = Vec::new();
    poll_fn(|cx| {
        if visitor.poll_shutdown(cx).is_pending() {
            return timer.poll(cx, Some(until));
        }
        while left > 0 {
            match visitor.poll_readable(cx) {
                Poll::Ready(Ok(())) => scrap.resize(8192, 0),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return timer.poll(cx, Some(until)),
            }
            match visitor.poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => left = left.saturating_sub(count),
                Poll::Pending => return timer.poll(cx, Some(until)),
            }
        }
        Poll::Ready(())
    })
    .await;
}
