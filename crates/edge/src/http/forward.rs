//! From a plan to an answer: picks a backend, opens a stream, pumps, and
//! moves on where nothing was delivered.
//!
//! A request is sent a second time only when that cannot do harm: to another
//! backend when this one got not one byte of it, or once more when it is
//! idempotent, nothing of an answer came, its body is still here, and the
//! budget of second tries allows it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use adit_http1::Upgrade;
use adit_link::edge::OpenError;
use adit_model::Code;
use adit_routing::Target;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buffer::Work;
use super::pump::{End, Exchange, Facts, Fail, Resend};
use super::record::Fault;
use super::respond::Extra;
use super::rewrite::{passes_upgrade, write_lead};
use super::route::{Opened, Plan, RETRY_SECONDS, Way, body_limit};
use super::server::{Connection, Then};
use crate::backend::{Backend, BackendError, Serving};
use crate::metrics::{BackendFailure, HttpRefusal};
use crate::registry::Picked;
use crate::rules::{AgentRules, Refused, enter};

/// Most backends that one request is tried on.
const MAX_TRIES: usize = 4;
/// Most agents whose rules are asked for one request, beside those.
const MAX_FULL: u8 = 64;
/// An agent's terminal hears of the same trouble this often at most.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// What is tried and what was tried.
struct Attempt {
    /// The password was checked against this.
    passed: Option<Arc<str>>,
    /// A second try of a request that may have been delivered was made.
    again: bool,
    /// The rules of agents.
    agents: AgentRules,
    /// The status that tells how the last backend failed.
    failure: Option<u16>,
}

impl Attempt {
    /// Whether another backend may be tried, after so many.
    fn goes_on(&self, tried: usize) -> bool {
        let full = self.agents.full();
        full < MAX_FULL && tried.saturating_sub(usize::from(full)) < MAX_TRIES
    }

    /// Counts the request under the rule for the backend's agent; false when
    /// that takes no more and another backend has to be found.
    fn agent_takes(&mut self, work: &mut Work, backend: &Backend) -> bool {
        // A second try of the same agent needs no second place.
        work.agent_visit = None;
        let visit = self.agents.enter(backend.agent_rule(), work.draft.client);
        let Some(visit) = visit else {
            work.tried.push(backend.id());
            return false;
        };
        work.agent_visit = visit;
        true
    }
}

/// An answer of the door's own, and what follows it.
struct Reply {
    status: u16,
    extra: Extra<'static>,
    keep_alive: bool,
}

/// What follows a failure.
enum Verdict {
    Again,
    Cut,
    Tell(Reply),
}

impl Connection {
    /// Forwards the request in `work`.
    pub(super) async fn forward(
        &mut self,
        work: &mut Work,
        plan: &Plan,
        stop: &CancellationToken,
    ) -> Then {
        self.door.pool().budget.earn();
        let mut attempt = Attempt {
            passed: None,
            again: false,
            agents: AgentRules::default(),
            failure: None,
        };
        let reply = loop {
            let backend = match self.pick(work, plan) {
                Picked::Backend(backend) if attempt.goes_on(work.tried.len()) => backend,
                Picked::Unknown if matches!(plan.way, Way::Label) && work.tried.is_empty() => {
                    break self.unknown(work);
                }
                _ => break self.no_backend(work, &attempt, stop),
            };
            if work.visit.is_none() {
                let refusals = &self.door.parts.metrics.limits.by_rule;
                match enter(backend.rule(), work.draft.client, refusals) {
                    Ok(visit) => work.visit = visit,
                    Err(refused) => break self.turned_away(work, refused, stop),
                }
            }
            if !attempt.agent_takes(work, &backend) {
                continue;
            }
            if let Some(auth) = auth_of(plan, &backend)
                && attempt.passed.as_ref() != Some(&auth)
            {
                if !self.may_enter(work, &auth).await {
                    break self.unauthorized(work, stop);
                }
                attempt.passed = Some(auth);
            }
            work.draft.backend = Some(Arc::clone(&backend));
            if let Err(error) = self.open(work, &backend, attempt.again).await {
                self.on_open_error(work, &backend, &error, &mut attempt);
                continue;
            }
            let has_auth = attempt.passed.is_some();
            write_lead(work, plan, &backend, &self.peer, has_auth);
            let fail = match self.exchange(work, plan, &backend, stop).await {
                Ok(then) => return then,
                Err(fail) => fail,
            };
            match self.on_failure(work, &backend, fail, &mut attempt, stop) {
                Verdict::Again => {}
                Verdict::Cut => return Then::Cut,
                Verdict::Tell(reply) => break reply,
            }
        };
        self.tell(work, reply.status, reply.extra, reply.keep_alive)
            .await
    }

    fn pick(&self, work: &mut Work, plan: &Plan) -> Picked {
        let tried = std::mem::take(&mut work.tried);
        let picked = match (&plan.way, plan.route.as_ref().map(|r| &r.target)) {
            (Way::Upstream(backend), _) if tried.contains(&backend.id()) => Picked::Empty,
            (Way::Upstream(backend), _) => Picked::Backend(Arc::clone(backend)),
            (Way::Named, Some(Target::Tunnel(name))) => self.door.parts.pools.pick(name, &tried),
            _ => work.tunnel_name().map_or(Picked::Unknown, |name| {
                self.door.parts.pools.pick(name, &tried)
            }),
        };
        work.tried = tried;
        picked
    }

    /// Puts an idle stream or a new one into `work`.
    async fn open(
        &self,
        work: &mut Work,
        backend: &Arc<Backend>,
        fresh: bool,
    ) -> Result<(), BackendError> {
        let now = work.draft.started;
        if !fresh && let Some(stream) = self.door.take_stream(backend.id(), now) {
            if !backend.misplaced(&stream, now) {
                work.opened = Some(Opened {
                    stream,
                    reused: true,
                });
                return Ok(());
            }
            stream.retire(&self.door.parts.tasks);
        }
        // Boxed: a connection that waits should hold no room for it.
        work.tried.push(backend.id());
        let alone = backend
            .as_tunnel()
            .is_none_or(|tunnel| !self.door.parts.pools.has_other(&tunnel.name, &work.tried));
        work.tried.pop();
        let stream = Box::pin(backend.open_request(self.peer.address, alone, now)).await?;
        work.opened = Some(Opened {
            stream,
            reused: false,
        });
        Ok(())
    }

    async fn exchange(
        &mut self,
        work: &mut Work,
        plan: &Plan,
        backend: &Arc<Backend>,
        stop: &CancellationToken,
    ) -> Result<Then, Fail> {
        let _serving = Serving::begin(backend);
        let settings = &self.door.parts.settings;
        let answer_time = plan
            .options()
            .and_then(|o| o.response_timeout)
            .or(settings.answer_time);
        let request = work.head.view(work.input.head());
        let facts = Facts {
            plan,
            backend,
            peer: &self.peer,
            settings,
            started: work.draft.started,
            answer_time,
            body_limit: body_limit(&self.door, plan).unwrap_or(u64::MAX),
            upgrade: passes_upgrade(plan, &request),
            keep_alive: request.keep_alive() && !stop.is_cancelled(),
        };
        work.answer.reset();
        let (Some(opened), mut slot) = (work.opened.take(), work.slot.take().unwrap_or_default())
        else {
            return Err(Fail::Visitor);
        };
        let exchange = slot.insert(Exchange::new(opened, &request, &facts));
        let (visitor, timer) = (&mut self.visitor, &mut self.timer);
        let metrics = &self.door.parts.metrics.http;
        // The head was not the backend's.
        work.draft.count(metrics);
        let end = poll_fn(|cx| {
            let end = exchange.poll(cx, visitor, timer, work, &facts);
            work.draft.count_for(backend, metrics);
            end
        })
        .await;
        let exchange = slot.take();
        work.slot = Some(slot);
        match (end, exchange) {
            (Ok(End::Upgraded), Some(exchange)) => {
                let stream = exchange.into_stream();
                // Boxed for the same reason as an opening stream.
                Ok(Box::pin(self.upgraded(work, stream, backend)).await)
            }
            (Ok(End::Complete { reuse, keep_alive }), Some(exchange)) => {
                Ok(self.completed(work, backend, exchange, (reuse, keep_alive)))
            }
            (Err(fail), Some(exchange)) => {
                cancel(exchange.into_stream());
                Err(fail)
            }
            (_, None) => Err(Fail::Visitor),
        }
    }

    /// What becomes of the stream and of the connection after an answer.
    fn completed(
        &self,
        work: &mut Work,
        backend: &Arc<Backend>,
        exchange: Exchange,
        (reuse, keep_alive): (bool, bool),
    ) -> Then {
        let (clean, seconds) = (exchange.up.done, exchange.down.seconds);
        let stream = exchange.into_stream();
        let now = Instant::now();
        work.draft.ended = Some(now);
        let draft = &work.draft;
        backend.traffic.exchanged(draft.sent + draft.received, now);
        if reuse {
            self.door.give_stream(backend, stream, seconds, now);
        } else if clean {
            stream.retire(&self.door.parts.tasks);
        } else {
            cancel(stream);
        }
        let more = !self.visitor.ended || !work.input.unread().is_empty();
        match (keep_alive && more, clean) {
            (true, true) => Then::Keep,
            (_, true) => Then::Close,
            (_, false) => Then::Linger,
        }
    }

    fn on_failure(
        &self,
        work: &mut Work,
        backend: &Arc<Backend>,
        fail: Fail,
        attempt: &mut Attempt,
        stop: &CancellationToken,
    ) -> Verdict {
        let begun = !work.withdraw_answer();
        let (status, keep_alive) = match fail {
            Fail::Visitor => {
                work.draft.fault = Some(Fault::Text("visitor went away"));
                return Verdict::Cut;
            }
            Fail::Refuse {
                status,
                label,
                fault,
            } => {
                self.door.parts.metrics.http.refused.of(label).add(1);
                work.draft.fault = Some(fault);
                (status, false)
            }
            Fail::Backend {
                label,
                resend,
                code,
                fault,
            } => {
                self.count_failure(backend, label);
                self.report(backend, code, &fault);
                work.draft.fault = Some(fault);
                let status = match label {
                    BackendFailure::Timeout => 504,
                    _ => 502,
                };
                attempt.failure = Some(status);
                if !begun && self.may_try_again(work, backend, resend, attempt) {
                    work.draft.answered = None;
                    work.draft.received = work.input.head().len() as u64;
                    self.door.parts.metrics.http.retries.add(1);
                    return Verdict::Again;
                }
                (status, self.may_keep(work, stop))
            }
        };
        if begun {
            return Verdict::Cut;
        }
        Verdict::Tell(Reply {
            status,
            extra: Extra::Nothing,
            keep_alive,
        })
    }

    fn may_try_again(
        &self,
        work: &mut Work,
        backend: &Arc<Backend>,
        resend: Resend,
        attempt: &mut Attempt,
    ) -> bool {
        let request = work.head.view(work.input.head());
        // An upgrade may have done something already, whatever its method says.
        let idempotent = request.method().is_idempotent() && request.upgrade() == Upgrade::None;
        match resend {
            Resend::Never => return false,
            Resend::Elsewhere => work.tried.push(backend.id()),
            Resend::IfIdempotent { stale } => {
                if attempt.again || !idempotent || !self.door.pool().budget.spend() {
                    return false;
                }
                attempt.again = true;
                if !stale {
                    work.tried.push(backend.id());
                }
            }
        }
        work.input.rewind()
    }

    fn on_open_error(
        &self,
        work: &mut Work,
        backend: &Arc<Backend>,
        error: &BackendError,
        attempt: &mut Attempt,
    ) {
        work.tried.push(backend.id());
        attempt.failure = Some(match error {
            BackendError::Tunnel(OpenError::Gone | OpenError::Full | OpenError::NoChannel) => 503,
            _ => 502,
        });
        self.count_failure(backend, BackendFailure::Unreachable);
        tracing::info!(backend = %backend.label(), %error, "backend gave no stream");
        work.draft.fault = Some(Fault::Other(error.to_string()));
    }

    fn count_failure(&self, backend: &Backend, label: BackendFailure) {
        backend.traffic.failed();
        let http = &self.door.parts.metrics.http;
        http.backend_failures.of(label).add(1);
    }

    /// Tells the owner, who alone can mend it.
    fn report(&self, backend: &Backend, code: Option<Code>, fault: &Fault) {
        tracing::info!(backend = %backend.label(), %fault, "backend failed a request");
        let Some(code) = code else { return };
        let now = Instant::now();
        let mut pool = self.door.pool();
        let recent = pool.trouble.is_some_and(|(id, at)| {
            id == backend.id() && now.saturating_duration_since(at) < TROUBLE_PAUSE
        });
        if !recent {
            pool.trouble = Some((backend.id(), now));
            drop(pool);
            backend.report_trouble(code.number, &fault.to_string());
        }
    }

    fn unknown(&self, work: &mut Work) -> Reply {
        let refused = &self.door.parts.metrics.http.refused;
        refused.of(HttpRefusal::UnknownHost).add(1);
        work.draft.fault = Some(Fault::Text("no such host"));
        Reply {
            status: 404,
            extra: Extra::Nothing,
            keep_alive: false,
        }
    }

    fn turned_away(&self, work: &mut Work, refused: Refused, stop: &CancellationToken) -> Reply {
        let metrics = &self.door.parts.metrics;
        metrics.http.refused.of(HttpRefusal::Limited).add(1);
        work.draft.fault = Some(Fault::Other(refused.to_string()));
        let (status, extra) = match refused {
            Refused::Address | Refused::NotGuest => (403, Extra::Nothing),
            Refused::Full => (503, Extra::RetryAfter(RETRY_SECONDS)),
            Refused::AddressFull | Refused::TooFast => (429, Extra::RetryAfter(1)),
        };
        Reply {
            status,
            extra,
            keep_alive: self.may_keep(work, stop),
        }
    }

    fn unauthorized(&self, work: &mut Work, stop: &CancellationToken) -> Reply {
        let refused = &self.door.parts.metrics.http.refused;
        refused.of(HttpRefusal::Unauthorized).add(1);
        work.draft.fault = Some(Fault::Text("user name or password is wrong or missing"));
        Reply {
            status: 401,
            extra: Extra::Authenticate,
            keep_alive: self.may_keep(work, stop),
        }
    }

    fn no_backend(&self, work: &mut Work, attempt: &Attempt, stop: &CancellationToken) -> Reply {
        let metrics = &self.door.parts.metrics;
        let status = if let Some(refused) = attempt.agents.turned_away(&metrics.limits.by_rule) {
            // Whatever befell the others: one may take it in a moment.
            metrics.http.refused.of(HttpRefusal::Limited).add(1);
            work.draft.fault = Some(Fault::Other(format!("agent's rule: {refused}")));
            503
        } else if let Some(status) = attempt.failure {
            status
        } else {
            metrics.http.refused.of(HttpRefusal::NoBackend).add(1);
            let code = Code::NO_BACKEND;
            work.draft.fault = Some(Fault::Other(format!("{code}: {}", code.title)));
            503
        };
        let extra = match status {
            503 => Extra::RetryAfter(RETRY_SECONDS),
            _ => Extra::Nothing,
        };
        Reply {
            status,
            extra,
            keep_alive: self.may_keep(work, stop),
        }
    }
}

/// What the visitor must prove: the route's word, else the tunnel's.
fn auth_of(plan: &Plan, backend: &Backend) -> Option<Arc<str>> {
    let of_route = plan.options().and_then(|o| o.auth.clone());
    of_route.or_else(|| backend.as_tunnel()?.options.auth.clone())
}

fn cancel(stream: adit_link::Stream) {
    stream.reset(
        adit_wire::ResetReason::Cancelled,
        adit_wire::Delivered::Some,
    );
}
