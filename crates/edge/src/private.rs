//! Private tunnels: streams from agent to agent, through no public door.
//!
//! An agent asks for a tunnel by its name. Who may not have it, and for what
//! cause, learns one answer. Otherwise a backend of the name is offered the
//! stream, the next one where it does not take it, and then bytes are handed
//! on unread: the two agents have sealed them between each other.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use adit_link::edge::{EdgeLink, OpenError};
use adit_link::tasks::Tasks;
use adit_link::{Asked, Channel, Stream, StreamError};
use adit_model::TunnelName;
use adit_wire::{Delivered, ResetReason, TunnelKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::access::{AccessLog, Told};
use crate::backend::{Backend, Serving};
use crate::carry::Broken;
use crate::limits::Limits;
use crate::metrics::{BackendFailure, LimitRefusal, Metrics};
use crate::registry::Registry;
use crate::relay::{Relay, Side};
use crate::rules::{AgentRules, Rule, Rules, Visit, enter};
use crate::ways::Meter;

/// Most backends that one stream is tried on.
const MAX_TRIES: usize = 4;

/// What all streams between agents share.
pub(crate) struct PrivateDoor {
    pub(crate) registry: Arc<Registry>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Arc<Metrics>,
    /// One for each visitor of any door.
    pub(crate) places: Arc<Semaphore>,
    /// Where each stream leaves a line.
    pub(crate) log: Option<Arc<AccessLog>>,
    /// Owner of streams and of channels on their way home.
    pub(crate) tasks: Tasks,
}

/// A stream that a backend has taken.
struct Taken {
    backend: Arc<Backend>,
    stream: Stream,
    /// What the owner says about the agent that asks.
    own: Option<Arc<Rule>>,
    /// Counted under the rules of the tunnel, of its agent and of the one that
    /// asks.
    _visits: [Option<Visit>; 3],
    _place: OwnedSemaphorePermit,
}

impl PrivateDoor {
    /// Serves a channel that an agent has dialled for a stream of its own, in
    /// a task of its own.
    pub(crate) fn serve(self: &Arc<Self>, link: &Arc<EdgeLink>, channel: Channel) {
        let (door, link) = (Arc::clone(self), Arc::clone(link));
        self.tasks.spawn_until_stopped(async move {
            match link.take_forward(channel).await {
                Ok(asked) => door.answer(&link, asked).await,
                Err(OpenError::Gone) => {}
                Err(error) => tracing::debug!(link = %link.facts().id, %error, "no stream"),
            }
        });
    }

    async fn answer(&self, link: &Arc<EdgeLink>, asked: Asked) {
        let name = asked.forward().name.clone();
        let agent = link.facts().identity;
        let mut told = Told::default();
        match self.find(link, &name, &mut told).await {
            Ok(taken) => match asked.accept() {
                Ok(forwarder) => self.carry(forwarder, taken, told).await,
                Err(_) => {
                    told.fault(Broken::Visitor.text());
                    taken.stream.reset(ResetReason::Cancelled, Delivered::None);
                }
            },
            Err(reason) => {
                tracing::info!(%agent, %name, %reason, "no private tunnel for an agent");
                self.metrics.private.refused.add(1);
                asked.refuse(reason).await;
            }
        }
    }

    /// Finds a backend for an agent that may have it.
    async fn find(
        &self,
        link: &EdgeLink,
        name: &TunnelName,
        told: &mut Told,
    ) -> Result<Taken, ResetReason> {
        let facts = link.facts();
        let own = self.rules.agent(&facts.identity);
        let listed = own.and_then(|own| own.forward.as_ref());
        let permitted = listed.is_none_or(|names| names.contains(name));
        // A rule is made for names that are there.
        if !permitted || !self.registry.may_reach(facts.id, name) {
            return Err(ResetReason::NoSuchTunnel);
        }
        let (now, ip) = (Instant::now().into_std(), facts.peer.ip());
        let agent = Some(facts.identity);
        *told = Told::begin(self.log.as_ref(), (TunnelKind::Private, name), ip, agent);
        // Its link was there before the ban; what it begins now is new.
        if self.limits.banned(ip, now).is_some() {
            let refused = &self.metrics.limits.refused;
            refused.of(LimitRefusal::Banned).add(1);
            told.fault("address is banned");
            return Err(ResetReason::TooMany);
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            self.metrics.limits.refused.of(LimitRefusal::Full).add(1);
            told.fault("edge has as many visitors as it may");
            ResetReason::TooMany
        })?;
        let mut enter = |rule: Option<&Arc<Rule>>| {
            enter(rule, ip, &self.metrics.limits.by_rule).map_err(|refused| {
                told.fault(refused.to_string());
                ResetReason::TooMany
            })
        };
        let own = own.map(|own| Arc::clone(&own.rule));
        let visit = enter(self.rules.of(name, now).as_ref())?;
        let own_visit = enter(own.as_ref())?;
        let begun = self.begin(link, name, own.as_ref()).await;
        let (backend, stream, agent_visit) =
            begun.inspect_err(|_| told.fault("no agent took it"))?;
        told.taken(&backend);
        Ok(Taken {
            backend,
            stream,
            own,
            _visits: [visit, agent_visit, own_visit],
            _place: place,
        })
    }

    /// Finds a backend that takes the stream; under its `own` rule the agent
    /// that asks was counted in already.
    async fn begin(
        &self,
        link: &EdgeLink,
        name: &TunnelName,
        own: Option<&Arc<Rule>>,
    ) -> Result<(Arc<Backend>, Stream, Option<Visit>), ResetReason> {
        let facts = link.facts();
        let (mut tried, mut offers, mut agents) = (Vec::new(), 0, AgentRules::default());
        while offers < MAX_TRIES {
            let next = self.registry.next(TunnelKind::Private, name, &tried);
            let Some(backend) = next.await else { break };
            tried.push(backend.id());
            let alone = !self.registry.has_other(name, &tried);
            let rule = other_than(own, backend.agent_rule());
            let Some(agent_visit) = agents.enter(rule, facts.peer.ip()) else {
                continue;
            };
            offers += 1;
            let offered = async {
                let opened = backend.open_for(facts.peer, facts.identity, alone);
                let mut stream = opened.await.map_err(|error| error.to_string())?;
                let taken = poll_fn(|cx| poll_taken(&mut stream, cx)).await;
                taken.map_err(|error| error.to_string())?;
                Ok::<_, String>(stream)
            };
            match offered.await {
                Ok(stream) => return Ok((backend, stream, agent_visit)),
                // Not one byte has gone out: the next one may be asked.
                Err(error) => {
                    self.failed(&backend, BackendFailure::Unreachable);
                    let backend = backend.label();
                    tracing::info!(%backend, error, "backend did not take a stream");
                }
            }
        }
        agents.turned_away(&self.metrics.limits.by_rule);
        Err(ResetReason::TargetUnreachable)
    }

    fn failed(&self, backend: &Backend, how: BackendFailure) {
        backend.traffic.failed();
        self.metrics.private.backend_failures.of(how).add(1);
    }

    /// Bytes both ways.
    async fn carry(&self, forwarder: Stream, taken: Taken, mut told: Told) {
        let Taken {
            backend,
            stream,
            own,
            _visits,
            _place,
        } = taken;
        let _serving = Serving::begin(&backend);
        let metrics = &self.metrics.private;
        metrics.streams.add(1);
        let _open = metrics.open.hold();
        let mut relay = Relay::new(forwarder, stream)
            .paced(backend.rule().cloned())
            .paced(other_than(own.as_ref(), backend.agent_rule()).cloned())
            .paced(own);
        let mut meter = Meter::new(&backend, &metrics.bytes);
        let end = poll_fn(|cx| {
            let end = relay.poll(cx);
            meter.read((relay.received, relay.sent), &mut told);
            end
        })
        .await;
        match end {
            Ok(()) => {
                told.ended();
                relay.forwarder.retire(&self.tasks);
                relay.target.retire(&self.tasks);
            }
            Err(broken) => {
                told.fault(match broken.side {
                    Side::Forwarder => Broken::Visitor.text(),
                    Side::Target => Broken::Backend.text(),
                });
                if broken.side == Side::Target {
                    self.failed(&backend, BackendFailure::Cut);
                }
                let (reason, some) = (broken.reason, Delivered::Some);
                relay.forwarder.reset(reason, some);
                relay.target.reset(reason, some);
            }
        }
    }
}

/// The rule of the agent that serves, where it is not the one that asks: a
/// stream from an agent to itself counts once.
fn other_than<'r>(own: Option<&Arc<Rule>>, rule: Option<&'r Arc<Rule>>) -> Option<&'r Arc<Rule>> {
    rule.filter(|rule| !own.is_some_and(|own| Arc::ptr_eq(own, rule)))
}

/// Ready when the backend has taken the stream.
fn poll_taken(
    stream: &mut Stream,
    cx: &mut std::task::Context<'_>,
) -> Poll<Result<(), StreamError>> {
    loop {
        if let Poll::Ready(sent) = stream.poll_flush(cx) {
            sent?;
        }
        let found = stream.poll_fill(cx);
        if stream.accepted() {
            return Poll::Ready(Ok(()));
        }
        match found {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
}
