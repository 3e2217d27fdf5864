//! The TCP and TLS doors: bytes of a visitor to a tunnel and back.
//!
//! A visitor's stream begins before its first byte, because many services
//! speak first. Until an agent has taken the stream, what the visitor sends is
//! kept, so that it can go to another agent; after that it is bytes both ways
//! until both directions have ended. An end that is not in order is a reset on
//! both sides, never a clean one.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use adit_link::tasks::Tasks;
use adit_link::{Stream, StreamError};
use adit_model::TunnelName;
use adit_wire::{Delivered, ResetReason, TunnelKind};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::access::{AccessLog, Told};
use crate::announced::Balancers;
use crate::backend::{Backend, Serving};
use crate::carry::{Broken, Carry};
use crate::limits::Limits;
use crate::metrics::{BackendFailure, LimitRefusal, Metrics, TcpRefusal};
use crate::registry::Registry;
use crate::rules::{AgentRules, Rules, Visit, enter};
use crate::sni::{ByName, NoName};
use crate::visitor::Visitor;
use crate::ways::Meter;

/// Most backends that one visitor is tried on.
const MAX_TRIES: usize = 4;
/// Most bytes that are kept of a visitor whose stream is not taken yet.
const LEAD: usize = 16 * 1024;

/// What all TCP ports share.
pub(crate) struct TcpDoor {
    pub(crate) registry: Arc<Registry>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Arc<Metrics>,
    /// One for each visitor of any door.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) balancers: Balancers,
    /// Where each visitor leaves a line.
    pub(crate) log: Option<Arc<AccessLog>>,
    /// Owner of channels on their way home.
    pub(crate) tasks: Tasks,
}

/// Where a visitor's bytes lead.
pub(crate) enum To {
    /// To the tunnel that its port belongs to.
    Port(TunnelName),
    /// To the one that its first message asks for.
    ByName(Arc<ByName>),
    /// The same, when the message was read already.
    Named(TunnelName, Vec<u8>),
}

/// What a visitor wants.
struct Wish {
    name: TunnelName,
    kind: TunnelKind,
    /// What was read of it to find that out.
    lead: Vec<u8>,
}

/// A visitor whose stream a backend has taken.
struct Taken {
    backend: Arc<Backend>,
    carry: Carry,
    told: Told,
    /// Counted under the rules of the tunnel and of its agent.
    _visits: [Option<Visit>; 2],
}

impl To {
    async fn wish(self, visitor: &mut Visitor) -> Result<Wish, NoName> {
        let (name, kind, lead) = match self {
            Self::Port(name) => (name, TunnelKind::Tcp, Vec::new()),
            Self::ByName(names) => {
                let (name, lead) = names.tunnel(visitor).await?;
                (name, TunnelKind::Tls, lead)
            }
            Self::Named(name, lead) => (name, TunnelKind::Tls, lead),
        };
        Ok(Wish { name, kind, lead })
    }
}

/// How a try to begin a stream ended.
enum Begun {
    Taken(Carry),
    /// Nothing was delivered: another backend may be tried.
    Elsewhere,
    /// Something was delivered, or the visitor is gone.
    Over(Broken),
}

impl TcpDoor {
    /// Serves a visitor.
    pub(crate) async fn serve(self: Arc<Self>, mut socket: TcpStream, peer: SocketAddr, to: To) {
        let Ok(_place) = self.places.try_acquire() else {
            return self.metrics.limits.refused.of(LimitRefusal::Full).add(1);
        };
        let stop = self.tasks.stopping();
        let announced = self.balancers.visitor(&mut socket, peer);
        let Some(Some(peer)) = stop.run_until_cancelled(announced).await else {
            return;
        };
        let mut visitor = Visitor::new(socket);
        visitor.busy = true;
        let now = Instant::now().into_std();
        let Ok(_permit) = self.limits.connect(peer.ip(), now) else {
            return;
        };
        self.serve_counted(visitor, peer, to).await;
    }

    /// Serves a visitor that was counted in.
    pub(crate) async fn serve_counted(&self, mut visitor: Visitor, peer: SocketAddr, to: To) {
        // Whatever ends this early is no orderly end for the visitor.
        visitor.arm();
        let stop = self.tasks.stopping();
        // Nothing is under way until a backend has taken the stream. Boxed: who
        // waits for one should not hold room for all that comes after.
        let taken = stop.run_until_cancelled(self.take(&mut visitor, peer, to));
        if let Some(Some(taken)) = Box::pin(taken).await {
            let _serving = Serving::begin(&taken.backend);
            let carry = (taken.carry, taken.told);
            self.carry(&mut visitor, &taken.backend, carry).await;
        }
    }

    /// Finds out what the visitor wants, and a backend that takes it.
    async fn take(&self, visitor: &mut Visitor, peer: SocketAddr, to: To) -> Option<Taken> {
        let wish = to.wish(visitor).await.and_then(|wish| {
            // A rule is made for names that are there.
            let kept = self.registry.keeps(&wish.name, wish.kind);
            kept.then_some(wish).ok_or(NoName::Unknown)
        });
        let wish = match wish {
            Ok(wish) => wish,
            Err(why) => {
                tracing::debug!(%peer, %why, "a TLS connection leads nowhere");
                self.metrics.tcp.refused.of(TcpRefusal::NoName).add(1);
                return None;
            }
        };
        let (name, now) = (wish.name.clone(), Instant::now().into_std());
        let mut told = Told::begin(self.log.as_ref(), (wish.kind, &name), peer.ip(), None);
        let rule = self.rules.of(&name, now);
        let visit = match enter(rule.as_ref(), peer.ip(), &self.metrics.limits.by_rule) {
            Ok(visit) => visit,
            Err(refused) => {
                tracing::debug!(%peer, %name, %refused, "visitor was turned away");
                told.fault(refused.to_string());
                return None;
            }
        };
        let begun = match self.begin(visitor, peer, wish).await {
            Ok(begun) => begun,
            Err(broken) => {
                tracing::debug!(%peer, %name, "no backend took the visitor");
                self.metrics.tcp.refused.of(TcpRefusal::NoBackend).add(1);
                told.fault(broken.map_or("no agent took it", Broken::text));
                return None;
            }
        };
        let (backend, carry, agent_visit) = begun;
        told.taken(&backend);
        let carry = carry.paced([rule, backend.agent_rule().cloned()]);
        Some(Taken {
            backend,
            carry,
            told,
            _visits: [visit, agent_visit],
        })
    }

    /// Finds a backend that takes the stream; where it fails, what broke after
    /// it had begun.
    async fn begin(
        &self,
        visitor: &mut Visitor,
        peer: SocketAddr,
        wish: Wish,
    ) -> Result<(Arc<Backend>, Carry, Option<Visit>), Option<Broken>> {
        let Wish {
            name,
            kind,
            mut lead,
        } = wish;
        let (mut tried, mut offers, mut agents) = (Vec::new(), 0, AgentRules::default());
        let door = visitor.door();
        while offers < MAX_TRIES {
            let next = self.registry.next(kind, &name, &tried);
            let Some(backend) = next.await else { break };
            tried.push(backend.id());
            let alone = !self.registry.has_other(&name, &tried);
            let Some(agent_visit) = agents.enter(backend.agent_rule(), peer.ip()) else {
                continue;
            };
            offers += 1;
            let stream = match backend.open(peer, door, alone).await {
                Ok(stream) => stream,
                Err(error) => {
                    self.failed(&backend, &error);
                    continue;
                }
            };
            match self.offer(visitor, stream, &mut lead, &backend).await {
                Begun::Taken(carry) => return Ok((backend, carry, agent_visit)),
                Begun::Elsewhere => {}
                Begun::Over(broken) => return Err(Some(broken)),
            }
        }
        agents.turned_away(&self.metrics.limits.by_rule);
        Err(None)
    }

    /// Waits until the backend has taken the stream; what the visitor sends
    /// meanwhile goes along, and stays in `lead`.
    async fn offer(
        &self,
        visitor: &mut Visitor,
        stream: Stream,
        lead: &mut Vec<u8>,
        backend: &Backend,
    ) -> Begun {
        let mut offer = Offer { stream, given: 0 };
        match poll_fn(|cx| offer.poll(cx, visitor, lead)).await {
            Ok(()) => {
                let mut carry = Carry::new(offer.stream);
                carry.received = lead.len() as u64;
                *lead = Vec::new();
                Begun::Taken(carry)
            }
            Err(None) => {
                offer.stream.reset(ResetReason::Cancelled, Delivered::Some);
                Begun::Over(Broken::Visitor)
            }
            Err(Some(error)) => {
                self.failed(backend, &error);
                match error {
                    StreamError::Reset {
                        delivered: Delivered::None,
                        ..
                    } => Begun::Elsewhere,
                    // Not one byte went out that could have been delivered.
                    StreamError::Unanswered | StreamError::Truncated | StreamError::Io(_)
                        if lead.is_empty() =>
                    {
                        Begun::Elsewhere
                    }
                    _ => Begun::Over(Broken::Backend),
                }
            }
        }
    }

    fn failed(&self, backend: &Backend, error: &impl std::fmt::Display) {
        backend.traffic.failed();
        let failures = &self.metrics.tcp.backend_failures;
        failures.of(BackendFailure::Unreachable).add(1);
        tracing::info!(backend = %backend.label(), %error, "backend did not take a stream");
    }

    /// Bytes both ways.
    async fn carry(
        &self,
        visitor: &mut Visitor,
        backend: &Backend,
        (mut carry, mut told): (Carry, Told),
    ) {
        let metrics = &self.metrics.tcp;
        metrics.streams.add(1);
        let _open = metrics.open.hold();
        let mut meter = Meter::new(backend, &metrics.bytes);
        let end = poll_fn(|cx| {
            let end = carry.poll(cx, visitor);
            meter.read((carry.received, carry.sent), &mut told);
            end
        })
        .await;
        match end {
            Ok(()) => {
                visitor.disarm();
                told.ended();
                carry.into_stream().retire(&self.tasks);
            }
            Err(broken) => {
                told.fault(broken.text());
                if broken == Broken::Backend {
                    backend.traffic.failed();
                    metrics.backend_failures.of(BackendFailure::Cut).add(1);
                }
                let stream = carry.into_stream();
                stream.reset(ResetReason::Cancelled, Delivered::Some);
            }
        }
    }
}

/// A stream that is not taken yet.
struct Offer {
    stream: Stream,
    /// How much of the lead this stream has.
    given: usize,
}

impl Offer {
    /// Ready when the stream is taken; the error is `None` when the visitor
    /// has gone.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        lead: &mut Vec<u8>,
    ) -> Poll<Result<(), Option<StreamError>>> {
        loop {
            // What it has said by now goes out with the start, in one write.
            let said = self.poll_lead(cx, visitor, lead)?;
            let unsent = lead.get(self.given..).unwrap_or_default();
            self.given += self.stream.write(unsent).map_err(Some)?;
            // A socket that takes nothing now is asked again when it does.
            if let Poll::Ready(sent) = self.stream.poll_flush(cx) {
                sent.map_err(Some)?;
            }
            let found = self.stream.poll_fill(cx);
            if let Poll::Ready(Err(error)) = found {
                return Poll::Ready(Err(Some(error)));
            }
            if self.stream.accepted() && self.given == lead.len() {
                return Poll::Ready(Ok(()));
            }
            if !said {
                return Poll::Pending;
            }
        }
    }

    /// Reads what the visitor says first; whether there was something.
    fn poll_lead(
        &self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
        lead: &mut Vec<u8>,
    ) -> Result<bool, Option<StreamError>> {
        if visitor.ended || lead.len() >= LEAD {
            return Ok(false);
        }
        match visitor.poll_readable(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(None),
            Poll::Pending => return Ok(false),
        }
        let before = lead.len();
        lead.resize(LEAD, 0);
        let read = visitor.poll_read(cx, lead.get_mut(before..).unwrap_or_default());
        let count = match &read {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        lead.truncate(before + count);
        match read {
            Poll::Ready(Ok(_)) => Ok(count > 0),
            Poll::Ready(Err(_)) => Err(None),
            Poll::Pending => Ok(false),
        }
    }
}
