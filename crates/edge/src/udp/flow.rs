//! One flow: a visitor's datagrams to an agent, and the answers back.
//!
//! While no agent has taken the flow its first datagrams are kept, so that
//! they can go to another agent. After that what waits for the link is bounded
//! by the link's own measure and the inbox; answers wait in the link while the
//! system's socket is full or the owner's rate is used up, until the agent
//! drops them on its side.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_link::told::is_too_large;
use adit_link::{Datagrams, Fill, StreamError};
use adit_wire::{Delivered, ResetReason, TunnelKind};
use tokio::time::{Instant, Sleep, sleep_until};

use super::census::Place;
use super::inbox::{Inbox, Queue};
use super::port::{Key, Port};
use super::{IdleTimes, UdpDoor};
use crate::access::Told;
use crate::backend::{Backend, Serving};
use crate::carry::Broken;
use crate::metrics::{BackendFailure, Direction, UdpDrop};
use crate::rules::{AgentRules, Paces, Rule, Visit, Way};

/// Most backends that one flow is tried on.
const MAX_TRIES: usize = 4;
/// How long a visitor whom no agent takes is not tried again: each try may
/// cost a channel, and a visitor repeats itself.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Answers that one poll may send before other tasks have their turn.
const TURN: usize = 256;

/// A flow's place in the table of its port, until this is dropped.
pub(super) struct Entry {
    port: Arc<Port>,
    key: Key,
    inbox: Arc<Inbox>,
}

impl Entry {
    pub(super) fn new(port: Arc<Port>, key: Key, inbox: Arc<Inbox>) -> Self {
        Self { port, key, inbox }
    }

    fn door(&self) -> &UdpDoor {
        &self.port.opened.door
    }

    /// What comes now is dropped.
    fn refuse(&self, why: UdpDrop) {
        let unread = self.inbox.refuse();
        self.door().dropped(why, unread);
    }

    /// The address that the visitor wrote to.
    fn own_address(&self) -> SocketAddr {
        let local = self.port.socket.local;
        let ip = self.key.own.unwrap_or(local.ip());
        (ip.to_canonical(), local.port()).into()
    }

    fn visitor(&self) -> SocketAddr {
        let from = self.key.from;
        (from.ip().to_canonical(), from.port()).into()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.port.forget(&self.key, &self.inbox);
        self.refuse(UdpDrop::Late);
    }
}

/// A flow that has begun.
pub(super) struct Flow {
    entry: Entry,
    _place: Place,
    _visit: Option<Visit>,
}

impl Flow {
    pub(super) fn new(entry: Entry, place: Place, visit: Option<Visit>) -> Self {
        Self {
            entry,
            _place: place,
            _visit: visit,
        }
    }
}

/// How a flow that an agent had taken has ended.
enum End {
    /// It was silent for too long, or the agent ended it.
    InOrder,
    /// The agent gave it up, or its link broke.
    Broken(StreamError),
}

/// Runs a flow to its end.
pub(super) async fn run(flow: Flow) {
    let stop = flow.entry.port.opened.stop.clone();
    let lived = stop.run_until_cancelled(live(&flow.entry)).await;
    if lived == Some(Lived::Refused) {
        flow.entry.refuse(UdpDrop::NoBackend);
        let pause = tokio::time::sleep(REFUSED_FOR);
        stop.run_until_cancelled(pause).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lived {
    /// The next datagram begins another flow.
    Ended,
    /// Nobody takes it.
    Refused,
}

async fn live(entry: &Entry) -> Lived {
    let metrics = &entry.door().metrics.udp;
    let (log, whose) = (
        entry.door().log.as_ref(),
        (TunnelKind::Udp, &entry.port.opened.name),
    );
    let mut told = Told::begin(log, whose, entry.visitor().ip(), None);
    // Boxed: a flow should not hold room for how it began.
    let Some(begun) = Box::pin(begin(entry)).await else {
        tracing::debug!(peer = %entry.key.from, name = %entry.port.opened.name, "no backend took the flow");
        told.fault("no agent took it");
        return Lived::Refused;
    };
    metrics.flows.add(1);
    let backend = Arc::clone(&begun.backend);
    told.taken(&backend);
    let _serving = Serving::begin(&backend);
    let mut carry = begun.carry;
    let end = poll_fn(|cx| {
        let end = carry.poll(cx, entry);
        carry.moved.tell(entry, &backend, &mut told);
        end
    });
    let end = backend.closed().run_until_cancelled(end).await;
    let error = match end {
        // An agent that closes the tunnel waits for its flows.
        None if !entry.door().registry.has_lost(&backend) => None,
        None => Some(StreamError::Truncated),
        Some(End::InOrder) => None,
        Some(End::Broken(error)) => Some(error),
    };
    let Some(error) = error else {
        told.ended();
        carry.link.retire(&entry.door().tasks);
        return Lived::Ended;
    };
    told.fault(Broken::Backend.text());
    backend.traffic.failed();
    metrics.backend_failures.of(BackendFailure::Cut).add(1);
    carry.link.reset(ResetReason::Cancelled, Delivered::Some);
    let refused = matches!(
        error,
        StreamError::Reset {
            reason: ResetReason::TargetRefused | ResetReason::TargetUnreachable,
            ..
        }
    );
    let name = &entry.port.opened.name;
    let alone = !entry.door().registry.has_other(name, &[backend.id()]);
    if refused && alone {
        Lived::Refused
    } else {
        Lived::Ended
    }
}

/// A flow that a backend has taken.
struct Begun {
    backend: Arc<Backend>,
    carry: Carry,
    _visit: Option<Visit>,
}

/// Finds a backend that takes the flow.
async fn begin(entry: &Entry) -> Option<Begun> {
    let (door, name) = (entry.door(), &entry.port.opened.name);
    let (visitor, own) = (entry.visitor(), entry.own_address());
    let (mut tried, mut offers, mut lead) = (Vec::new(), 0, Queue::default());
    let mut agents = AgentRules::default();
    while offers < MAX_TRIES {
        let next = door.registry.next(TunnelKind::Udp, name, &tried);
        let Some(backend) = next.await else { break };
        tried.push(backend.id());
        let alone = !door.registry.has_other(name, &tried);
        let Some(visit) = agents.enter(backend.agent_rule(), visitor.ip()) else {
            continue;
        };
        offers += 1;
        let opened = backend.open_flow(visitor, own, alone, door.idle.told());
        let failed = match opened.await {
            Ok(mut link) => {
                lead.rewind();
                let taken = poll_fn(|cx| poll_taken(cx, &mut link, &mut lead, &entry.inbox));
                match taken.await {
                    Ok(held) => {
                        entry.inbox.open();
                        let now = Instant::now().into_std();
                        let rules = [door.rules.of(name, now), backend.agent_rule().cloned()];
                        return Some(Begun {
                            carry: Carry::new(link, lead, held, door.idle, rules),
                            backend,
                            _visit: visit,
                        });
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        backend.traffic.failed();
        let failures = &door.metrics.udp.backend_failures;
        failures.of(BackendFailure::Unreachable).add(1);
        tracing::debug!(backend = %backend.label(), error = failed, "backend did not take a flow");
    }
    agents.turned_away(&door.metrics.limits.by_rule);
    None
}

/// Sends what the visitor has sent, and waits until the agent has taken the
/// flow. Whether an answer has come already.
fn poll_taken(
    cx: &mut Context<'_>,
    link: &mut Datagrams,
    lead: &mut Queue,
    inbox: &Inbox,
) -> Poll<Result<bool, StreamError>> {
    inbox.register(cx.waker());
    inbox.collect(lead);
    while let Some(datagram) = lead.front() {
        if !link.send(datagram)? {
            break;
        }
        lead.pop();
    }
    // A socket that takes nothing now is asked again when it does.
    if let Poll::Ready(sent) = link.poll_flush(cx) {
        sent?;
    }
    match link.poll_next(cx)? {
        Poll::Ready(found) => Poll::Ready(Ok(found == Fill::Data)),
        Poll::Pending if link.accepted() => Poll::Ready(Ok(false)),
        Poll::Pending => Poll::Pending,
    }
}

/// What was moved and is not counted yet.
#[derive(Default)]
struct Moved {
    up: u64,
    up_bytes: u64,
    down: u64,
    down_bytes: u64,
    too_large: u64,
    unsendable: u64,
}

impl Moved {
    fn tell(&mut self, entry: &Entry, backend: &Backend, told: &mut Told) {
        let moved = std::mem::take(self);
        let metrics = &entry.door().metrics.udp;
        if moved.up + moved.down > 0 {
            backend.traffic.moved(moved.up_bytes, moved.down_bytes);
            told.moved(moved.up_bytes, moved.down_bytes);
            for (direction, count, bytes) in [
                (Direction::In, moved.up, moved.up_bytes),
                (Direction::Out, moved.down, moved.down_bytes),
            ] {
                metrics.datagrams.of(direction).add(count);
                metrics.bytes.of(direction).add(bytes);
            }
        }
        let lost = entry.inbox.dropped() + moved.too_large + moved.unsendable;
        if lost > 0 {
            backend.traffic.drops.fetch_add(lost, Ordering::Relaxed);
            metrics.drops.of(UdpDrop::TooLarge).add(moved.too_large);
            metrics.drops.of(UdpDrop::Unsendable).add(moved.unsendable);
        }
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Datagrams both ways.
struct Carry {
    link: Datagrams,
    /// What was taken out of the inbox.
    waiting: Queue,
    /// The link's datagram has not been sent to the visitor.
    held: bool,
    /// Set while the system's socket takes nothing.
    blocked: Option<Writable>,
    /// At most one for the tunnel and one for its agent.
    paces: Paces,
    idle: IdleTimes,
    timer: Pin<Box<Sleep>>,
    last: Instant,
    /// Datagrams each way.
    asked: u64,
    answered: u64,
    moved: Moved,
}

impl Carry {
    fn new(
        link: Datagrams,
        lead: Queue,
        held: bool,
        idle: IdleTimes,
        rules: [Option<Arc<Rule>>; 2],
    ) -> Self {
        let now = Instant::now();
        let (asked, asked_bytes) = lead.done();
        let paces = Paces::new(rules.into_iter().flatten());
        paces.moved(Way::Up, asked_bytes);
        Self {
            link,
            waiting: lead,
            held,
            blocked: None,
            paces,
            idle,
            timer: Box::pin(sleep_until(now + idle.usual.min(idle.answered))),
            last: now,
            asked: asked as u64,
            answered: 0,
            moved: Moved {
                up: asked as u64,
                up_bytes: asked_bytes as u64,
                ..Moved::default()
            },
        }
    }

    /// Moves what can be moved; ready at the flow's end.
    fn poll(&mut self, cx: &mut Context<'_>, entry: &Entry) -> Poll<End> {
        // Also while nothing is read from it.
        if let Poll::Ready(error) = self.link.poll_cut(cx) {
            return Poll::Ready(End::Broken(error));
        }
        let before = self.asked + self.answered;
        if let Err(error) = self.poll_up(cx, &entry.inbox) {
            return Poll::Ready(End::Broken(error));
        }
        match self.poll_down(cx, entry) {
            Poll::Ready(Ok(())) => return Poll::Ready(End::InOrder),
            Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error)),
            Poll::Pending => {}
        }
        if self.asked + self.answered != before {
            self.last = Instant::now();
        }
        self.poll_idle(cx).map(|()| End::InOrder)
    }

    /// Visitor to agent, as far as the link and the owner's rate allow.
    fn poll_up(&mut self, cx: &mut Context<'_>, inbox: &Inbox) -> Result<(), StreamError> {
        inbox.register(cx.waker());
        loop {
            let sent = self.link.poll_flush(cx)?;
            let gathered = self.gather(cx, inbox)?;
            if gathered == 0 || sent.is_pending() {
                return Ok(());
            }
        }
    }

    fn gather(&mut self, cx: &mut Context<'_>, inbox: &Inbox) -> Result<usize, StreamError> {
        let mut gathered = 0;
        loop {
            let Some(datagram) = self.waiting.front() else {
                inbox.take(&mut self.waiting);
                if self.waiting.left() == 0 {
                    return Ok(gathered);
                }
                continue;
            };
            if self.paces.poll(cx, Way::Up).is_pending() {
                return Ok(gathered);
            }
            if !self.link.send(datagram)? {
                return Ok(gathered);
            }
            let length = datagram.len();
            self.waiting.pop();
            gathered += 1;
            self.asked += 1;
            self.moved.up += 1;
            self.moved.up_bytes += length as u64;
            self.paces.moved(Way::Up, length);
        }
    }

    /// Agent to visitor; ready when the agent has ended the flow.
    fn poll_down(&mut self, cx: &mut Context<'_>, entry: &Entry) -> Poll<Result<(), StreamError>> {
        for _ in 0..TURN {
            if !self.held {
                match std::task::ready!(self.link.poll_next(cx))? {
                    Fill::Data => self.held = true,
                    Fill::End => return Poll::Ready(Ok(())),
                }
            }
            std::task::ready!(self.poll_answer(cx, entry));
            self.held = false;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends the answer that is held; ready when it is sent, or dropped.
    fn poll_answer(&mut self, cx: &mut Context<'_>, entry: &Entry) -> Poll<()> {
        if self.paces.poll(cx, Way::Down).is_pending() {
            return Poll::Pending;
        }
        let (port, key) = (&entry.port, entry.key);
        let datagram = self.link.datagram();
        loop {
            if let Some(blocked) = &mut self.blocked {
                // Its error is the next send's.
                let _ = std::task::ready!(blocked.as_mut().poll(cx));
                self.blocked = None;
            }
            match port.socket.send(key.from, key.own, datagram) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let port = Arc::clone(port);
                    self.blocked = Some(Box::pin(async move { port.socket.writable().await }));
                }
                Err(error) => {
                    if is_too_large(&error) {
                        self.moved.too_large += 1;
                    } else {
                        self.moved.unsendable += 1;
                    }
                    return Poll::Ready(());
                }
            }
        }
        let length = datagram.len();
        self.answered += 1;
        self.moved.down += 1;
        self.moved.down_bytes += length as u64;
        self.paces.moved(Way::Down, length);
        Poll::Ready(())
    }

    /// Ready when nothing has come for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.timer.as_mut().poll(cx));
            let done = self.asked == 1 && self.answered > 0;
            let most = if done {
                self.idle.answered.min(self.idle.usual)
            } else {
                self.idle.usual
            };
            if self.last.elapsed() >= most {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.last + most);
        }
    }
}
