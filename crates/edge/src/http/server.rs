//! One visitor connection: head after head, each with its deadline.
//!
//! Between requests a connection holds its socket, its timer and nothing else;
//! buffers come with the first byte of a head. A head has an absolute
//! deadline, so that a slow sender of it gains nothing by sending slowly.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_http1::{Body, Framing, Name, Refusal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::Work;
use super::enter::{LINGER_TIME, Place, linger};
use super::handover::{Asked, Upgraded};
use super::record::{Fault, Record};
use super::respond::{self, After, Extra};
use super::timer::Timer;
use super::visitor::Peer;
use crate::limits::ConnectionPermit;
use crate::metrics::{HttpRefusal, StatusClass};
use crate::visitor::Visitor;

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

impl Connection {
    pub(super) fn new(
        visitor: Visitor,
        peer: SocketAddr,
        door: Place,
        permit: ConnectionPermit,
    ) -> Self {
        let mut peer = Peer::new(peer, &door.parts.settings.trusted);
        peer.secure = visitor.served().is_some();
        Self {
            peer,
            door,
            visitor,
            permit,
            timer: Timer::default(),
            work: None,
            wait_until: None,
            parsed: false,
            fresh: true,
        }
    }

    /// Serves request after request, until the connection ends or is to be
    /// handed on.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Option<Box<Asked>> {
        let mut stopping = pin!(stop.cancelled());
        loop {
            let then = match poll_fn(|cx| self.poll_next(cx, stopping.as_mut())).await {
                Next::Request => match self.work.as_ref().and_then(|w| self.asks_for_link(w)) {
                    Some(asked) => return Some(asked),
                    None => self.serve(stop).await,
                },
                Next::Refused(refusal) => self.refuse(refusal).await,
                Next::Slow => self.slow_head().await,
                Next::Closed => Then::Close,
            };
            match then {
                Then::Keep => {}
                Then::Cut => break,
                Then::Close => {
                    self.close().await;
                    break;
                }
                Then::Linger => {
                    linger(&mut self.visitor, &mut self.timer).await;
                    break;
                }
            }
        }
        if let Some(work) = self.work.take() {
            self.door.give_work(work);
        }
        None
    }

    /// Gives the connection to whom it is for.
    pub(super) async fn hand_over(mut self, asked: Asked) {
        let Some(mut work) = self.work.take() else {
            return;
        };
        asked.answer(&mut work.out.bytes);
        let sent = self.send(&mut work).await;
        let early = work.input.unread().to_vec();
        work.next();
        self.door.give_work(work);
        // From here on it is no visitor's.
        let Self {
            visitor,
            permit,
            door,
            ..
        } = self;
        drop((permit, door));
        if let Some(transport) = visitor.into_transport().filter(|_| sent) {
            let peer = asked.peer;
            asked.hook.take(
                asked.id,
                Upgraded {
                    transport,
                    early,
                    peer,
                },
            );
        }
    }

    /// Says over TLS that the connection ends in order; elsewhere its end does.
    async fn close(&mut self) {
        if self.visitor.served().is_none() {
            return;
        }
        let until = Instant::now() + LINGER_TIME;
        poll_fn(|cx| {
            if self.visitor.poll_shutdown(cx).is_ready() {
                return Poll::Ready(());
            }
            self.timer.poll(cx, Some(until))
        })
        .await;
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
        self.send(work).await
    }

    /// Sends what waits in `out`; false when the visitor does not take it.
    async fn send(&mut self, work: &mut Work) -> bool {
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
    visitor.poll_flush(cx)
}
