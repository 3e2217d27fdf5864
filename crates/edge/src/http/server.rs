//! One visitor connection: head after head, each with its deadline.
//!
//! Between requests a connection holds its socket, its timer and nothing else;
//! buffers come with the first byte of a head. A head has an absolute
//! deadline, so that a slow sender of it gains nothing by sending slowly.

use std::future::{Future, poll_fn, ready};
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_http1::{Body, Framing, Name, Refusal};
use futures_util::future::Either;
use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::HttpDoor;
use super::buffer::Work;
use super::record::{Fault, Record};
use super::respond::{self, After, Extra};
use super::timer::Timer;
use super::visitor::Peer;
use crate::limits::{self, ConnectionPermit};
use crate::metrics::{HttpRefusal, LimitRefusal, StatusClass};
use crate::visitor::Visitor;

/// How long and how much of a refused request is read on, so that the refusal
/// is not lost to a reset.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// How long a request waits for the first chunk of its body, which mostly comes
/// with the head: what is malformed already there is refused before a backend
/// hears of it. A body that begins later is judged while it is passed on.
const FIRST_CHUNK_TIME: Duration = Duration::from_millis(100);

/// A visitor connection.
pub(super) struct Connection {
    pub(super) door: Place,
    pub(super) visitor: Visitor,
    pub(super) peer: Peer,
    pub(super) permit: ConnectionPermit,
    pub(super) timer: Timer,
    /// Present from the first byte of a head to the end of its answer.
    work: Option<Box<Work>>,
    /// The deadline of the head, or of the silence before it.
    wait_until: Option<Instant>,
    /// The head is whole; the first chunk of its body is waited for.
    parsed: bool,
    fresh: bool,
}

/// What a wait for a head ended with.
enum Next {
    Request,
    Refused(Refusal),
    Slow,
    Closed,
}

/// What becomes of a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Another request may follow.
    Keep,
    /// It ends.
    Close,
    /// It ends, and the visitor may still be sending.
    Linger,
    /// It ends in the middle of an answer.
    Cut,
}

/// The door, and one of its places for as long as this lives.
pub(super) struct Place(Arc<HttpDoor>);

impl Place {
    fn take(door: Arc<HttpDoor>) -> Result<Self, Arc<HttpDoor>> {
        let place = door.parts.places.try_acquire();
        if place.map(SemaphorePermit::forget).is_ok() {
            Ok(Self(door))
        } else {
            Err(door)
        }
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
    let place = match Place::take(door) {
        Ok(place) => place,
        Err(door) => {
            let refused = &door.parts.metrics.limits.refused;
            refused.of(LimitRefusal::Full).add(1);
            return Either::Left(Either::Left(ready(())));
        }
    };
    if place.parts.balancers.announce(peer) {
        // Boxed: other visitors should hold no room for it.
        let announced = serve_announced(socket, peer, place, stop);
        Either::Left(Either::Right(Box::pin(announced)))
    } else {
        Either::Right(serve_visitor(socket, peer, place, stop))
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
        serve_visitor(socket, visitor, place, stop).await;
    }
}

async fn serve_visitor(socket: TcpStream, peer: SocketAddr, door: Place, stop: CancellationToken) {
    let visitor = Visitor::new(socket);
    let now = Instant::now().into_std();
    match door.parts.limits.connect(peer.ip(), now) {
        Ok(permit) => {
            let mut connection = Connection {
                peer: Peer::new(peer, &door.parts.settings.trusted),
                door,
                visitor,
                permit,
                timer: Timer::default(),
                work: None,
                wait_until: None,
                parsed: false,
                fresh: true,
            };
            connection.run(&stop).await;
        }
        // Boxed: those who may come in should hold no room for it.
        Err(refusal) => Box::pin(turn_away(visitor, &door, refusal)).await,
    }
}

/// Answers a connection that its address may not have.
async fn turn_away(mut visitor: Visitor, door: &HttpDoor, refusal: limits::Refusal) {
    let Ok(_explained) = door.turned_away.try_acquire() else {
        return;
    };
    let mut work = door.take_work();
    let extra = limit_extra(refusal);
    respond::answer(&mut work.out.bytes, 429, extra, After::CLOSE);
    let sent = poll_fn(|cx| poll_send(cx, &mut visitor, &mut work)).await;
    door.parts
        .metrics
        .http
        .refused
        .of(HttpRefusal::Limited)
        .add(1);
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

impl Connection {
    async fn run(&mut self, stop: &CancellationToken) {
        let mut stopping = pin!(stop.cancelled());
        loop {
            let then = match poll_fn(|cx| self.poll_next(cx, stopping.as_mut())).await {
                Next::Request => self.serve(stop).await,
                Next::Refused(refusal) => self.refuse(refusal).await,
                Next::Slow => self.slow_head().await,
                Next::Closed => break,
            };
            match then {
                Then::Keep => {}
                Then::Close | Then::Cut => break,
                Then::Linger => {
                    linger(&mut self.visitor, &mut self.timer).await;
                    break;
                }
            }
        }
        if let Some(work) = self.work.take() {
            self.door.give_work(work);
        }
    }

    /// Waits for a whole head.
    fn poll_next<S: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        stopping: Pin<&mut S>,
    ) -> Poll<Next> {
        loop {
            let work = match &mut self.work {
                Some(work) => work,
                None => match self.visitor.poll_readable(cx) {
                    Poll::Ready(Ok(())) => self.work.insert(self.door.take_work()),
                    Poll::Ready(Err(_)) => return Poll::Ready(Next::Closed),
                    Poll::Pending => break,
                },
            };
            let was_parsed = self.parsed;
            match check_head(work, &mut self.parsed, &self.door.parts.settings.head) {
                Ok(true) => return self.begin_request(),
                Ok(false) if self.parsed && !was_parsed => {
                    self.wait_until = Some(Instant::now() + FIRST_CHUNK_TIME);
                }
                Ok(false) => {}
                Err(refusal) => return Poll::Ready(Next::Refused(refusal)),
            }
            let begun = work.has_begun(self.parsed);
            match self.visitor.poll_fill(cx, &mut work.input, false) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Closed),
                Poll::Ready(Ok(_)) if begun || self.fresh => {}
                Poll::Ready(Ok(_)) => self.wait_until = None,
                Poll::Pending => break,
            }
        }
        self.poll_wait(cx, stopping)
    }

    /// Nothing can be read now: gives unused buffers back and waits.
    fn poll_wait<S: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        stopping: Pin<&mut S>,
    ) -> Poll<Next> {
        let parsed = self.parsed;
        let begun = self.work.as_ref().is_some_and(|w| w.has_begun(parsed));
        if !begun {
            if let Some(work) = self.work.take() {
                self.door.give_work(work);
            }
            if stopping.poll(cx).is_ready() {
                return Poll::Ready(Next::Closed);
            }
        }
        let settings = &self.door.parts.settings;
        let time = if begun || self.fresh {
            settings.head_time
        } else {
            settings.idle_time
        };
        let until = *self.wait_until.get_or_insert_with(|| Instant::now() + time);
        ready!(self.timer.poll(cx, Some(until)));
        if self.parsed {
            return self.begin_request();
        }
        Poll::Ready(if begun { Next::Slow } else { Next::Closed })
    }

    fn begin_request(&mut self) -> Poll<Next> {
        self.wait_until = None;
        (self.parsed, self.fresh) = (false, false);
        Poll::Ready(Next::Request)
    }

    /// Serves the request whose head was read.
    async fn serve(&mut self, stop: &CancellationToken) -> Then {
        let Some(mut work) = self.work.take() else {
            return Then::Close;
        };
        work.begin();
        let http = &self.door.parts.metrics.http;
        http.active.up();
        self.visitor.busy = true;
        let then = self.respond(&mut work, stop).await;
        self.visitor.busy = then == Then::Cut;
        self.door.parts.metrics.http.active.down();
        let ended = work.draft.ended.unwrap_or_else(Instant::now);
        self.finish(&mut work, ended);
        work.next();
        if then == Then::Keep && !work.input.unread().is_empty() {
            // The next request is here already.
            self.wait_until = None;
            self.work = Some(work);
        } else {
            self.wait_until = Some(ended + self.door.parts.settings.idle_time);
            self.door.give_work(work);
        }
        then
    }

    /// Answers a head that was not understood.
    async fn refuse(&mut self, refusal: Refusal) -> Then {
        let label = match refusal.status() {
            413 | 414 | 431 => HttpRefusal::TooLarge,
            _ => HttpRefusal::Malformed,
        };
        self.refuse_head(refusal.status(), label, Fault::Refused(refusal))
            .await
    }

    async fn slow_head(&mut self) -> Then {
        let fault = Fault::Text("head did not come in time");
        self.refuse_head(408, HttpRefusal::Slow, fault).await
    }

    async fn refuse_head(&mut self, status: u16, label: HttpRefusal, fault: Fault) -> Then {
        let Some(mut work) = self.work.take() else {
            return Then::Close;
        };
        work.begin_refused();
        work.draft.client = self.peer.address.ip();
        work.draft.id = self.door.request_id();
        work.draft.fault = Some(fault);
        self.door.parts.metrics.http.refused.of(label).add(1);
        self.answer(&mut work, status, Extra::Nothing, After::CLOSE)
            .await;
        self.finish(&mut work, Instant::now());
        self.door.give_work(work);
        Then::Linger
    }

    /// Sends an answer of the door's own; says whether it was sent.
    pub(super) async fn answer(
        &mut self,
        work: &mut Work,
        status: u16,
        extra: Extra<'_>,
        after: After,
    ) -> bool {
        work.draft.status = status;
        respond::answer(&mut work.out.bytes, status, extra, after);
        let until = Instant::now() + self.door.parts.settings.stall_time;
        poll_fn(|cx| {
            if let Poll::Ready(sent) = poll_send(cx, &mut self.visitor, work) {
                return Poll::Ready(sent.is_ok());
            }
            self.timer.poll(cx, Some(until)).map(|()| false)
        })
        .await
    }

    /// Counts a request and writes its line.
    fn finish(&self, work: &mut Work, ended: Instant) {
        let draft = &mut work.draft;
        let http = &self.door.parts.metrics.http;
        let took = ended.saturating_duration_since(draft.started);
        http.seconds.observe(took);
        http.requests.of(class(draft.status)).add(1);
        draft.count(http);
        if let Some(log) = &self.door.parts.log {
            log.add(&record(work, took));
        }
    }
}

fn record(work: &Work, took: Duration) -> Record<'_> {
    let draft = &work.draft;
    let request = work.head.view(work.input.head());
    let target = request.target();
    Record {
        id: draft.id.as_bytes(),
        client: draft.client,
        method: request.method_name(),
        host: request.host(),
        path: if work.input.head().is_empty() {
            b""
        } else {
            target.path
        },
        query: target.query,
        user_agent: request.value(Name::UserAgent),
        referer: request.value(Name::Referer),
        status: draft.status,
        received: draft.received,
        sent: draft.sent,
        took,
        waited: draft
            .answered
            .map(|at| at.saturating_duration_since(draft.started)),
        backend: draft.backend.as_ref().map(|b| &**b.label()),
        fault: draft.fault.as_ref(),
    }
}

fn class(status: u16) -> StatusClass {
    match status {
        100..=199 => StatusClass::Informational,
        200..=299 => StatusClass::Success,
        300..=399 => StatusClass::Redirection,
        400..=499 => StatusClass::ClientError,
        500..=599 => StatusClass::ServerError,
        _ => StatusClass::Nothing,
    }
}

/// Parses what came so far. The first chunk's size line belongs to what must
/// be right before a backend hears of the request.
fn check_head(
    work: &mut Work,
    parsed: &mut bool,
    limits: &adit_http1::Limits,
) -> Result<bool, Refusal> {
    if !*parsed {
        let unread = work.input.unread();
        if unread.is_empty() || !work.head.parse(unread, limits)? {
            return Ok(false);
        }
        work.input.keep(work.head.length());
        *parsed = true;
    }
    let request = work.head.view(work.input.head());
    if request.framing() != Framing::Chunked || request.expects_continue() {
        return Ok(true);
    }
    let step = Body::new(Framing::Chunked).decode(work.input.unread())?;
    Ok(!step.data.is_empty() || step.done)
}

/// Sends what waits in `out`.
pub(super) fn poll_send(
    cx: &mut Context<'_>,
    visitor: &mut Visitor,
    work: &mut Work,
) -> Poll<std::io::Result<()>> {
    while !work.out.pending().is_empty() {
        let count = ready!(visitor.poll_write(cx, work.out.pending(), b""))?;
        work.out.advance(count);
        work.draft.sent += count as u64;
    }
    Poll::Ready(Ok(()))
}

/// Ends our direction, then reads and drops for a moment: a socket closed with
/// unread bytes is reset, and the visitor might lose the answer.
async fn linger(visitor: &mut Visitor, timer: &mut Timer) {
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
