//! The agent's one loop: dial, restore, serve, notice, dial again.
//!
//! At most one link is current. Another dial may be under way beside it (the
//! edge is going away, or another way leads to it); once that is live the old
//! link takes no more part, but carries its open streams to their end.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_link::agent::{AgentLink, DialConfig, DialError, LinkEvent, Unreached, Way};
use adit_link::tasks::Tasks;
use adit_model::Code;
use adit_wire::{Drain, Message, TunnelState, TunnelStatus};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::{Backoff, Last};
use crate::climb::Climb;
use crate::error::{AgentError, unreached};
use crate::events::{AgentEvent, Refusal, RefusalKind, Teller};
use crate::forgotten::Remembered;
use crate::forwards::{Door, Doors, With};
use crate::known::Known;
use crate::ladder::{Carriage, Ladder};
use crate::link::Link;
use crate::network::{Change, Network, here};
use crate::pin::Pins;
use crate::random;
use crate::tunnels::Tunnels;

/// Pause before a person is asked for the PIN once more.
const ASK_PIN_AGAIN: Duration = Duration::from_millis(500);
/// Earlier links that are kept for their streams: an edge could send this agent
/// away again and again.
const MOST_RETIRING: usize = 4;

mod dialling;

type Dialled = Result<(AgentLink, TaskTracker), DialError>;
type Attempt = Pin<Box<dyn Future<Output = Dialled> + Send>>;

pub(crate) struct Agent {
    known: Known,
    tunnels: Arc<Tunnels>,
    teller: Arc<Teller>,
    pins: Pins,
    /// All but what changes from dial to dial.
    dial: DialConfig,
    backoff: Backoff,
    network: Network,
    remembered: Remembered,
    ladder: Ladder,
    climb: Climb,
    link: Option<Link>,
    attempt: Option<Attempt>,
    /// A look for a better carrier while a link serves.
    looking: Option<Attempt>,
    /// Local doors to private tunnels of other agents.
    doors: Doors,
    /// Links whose streams go on to their end.
    retiring: Tasks,
    stopping: CancellationToken,
}

enum Step {
    Stop,
    Link(LinkEvent),
    Dialled(Dialled),
    LookUp,
    Looked(Dialled),
    Network(Change),
    AskAgain,
    Forgotten,
}

impl Agent {
    pub(crate) fn new(
        known: Known,
        tunnels: Arc<Tunnels>,
        teller: Arc<Teller>,
        pins: Pins,
        dial: DialConfig,
        carriage: Carriage,
    ) -> Self {
        Self {
            remembered: known.watch(),
            known,
            ladder: Ladder::new(carriage, tunnels.has_datagrams()),
            climb: Climb::default(),
            looking: None,
            tunnels,
            teller,
            pins,
            retiring: dial.tasks.child(),
            dial,
            backoff: Backoff::new(Instant::now()),
            network: Network::new(),
            link: None,
            attempt: None,
            doors: Doors::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Opens local doors to private tunnels of other agents.
    pub(crate) fn open_doors(&mut self, doors: Vec<Door>) {
        let with = With {
            identity: Arc::clone(&self.dial.identity),
            teller: Arc::clone(&self.teller),
            stopping: self.stopping.clone(),
        };
        self.doors.serve(doors, &with, &self.dial.tasks);
    }

    /// Serves until told to stop, or until there is no sense in going on.
    pub(crate) async fn live(
        &mut self,
        stop: &CancellationToken,
        drain: Duration,
    ) -> Result<(), AgentError> {
        self.dial_after(Duration::ZERO, &[]);
        loop {
            match self.next_step(stop).await {
                Step::Stop => return self.stop(drain).await,
                Step::Forgotten => return Err(self.forgotten()),
                Step::Link(event) => self.on_link(event)?,
                Step::Dialled(Ok((link, streams))) => self.on_live(link, streams).await?,
                Step::Dialled(Err(error)) => self.on_failed(error).await?,
                Step::LookUp => self.look_up(),
                Step::Looked(Ok((link, streams))) => self.on_live(link, streams).await?,
                Step::Looked(Err(error)) => self.on_nothing_better(&error),
                Step::Network(change) => self.on_network(change),
                Step::AskAgain => self.ask_again(),
            }
        }
    }

    async fn next_step(&mut self, stop: &CancellationToken) -> Step {
        let due = self.link.as_ref().and_then(Link::ask_again_at);
        let look = self.climb.due().filter(|_| self.looking.is_none());
        tokio::select! {
            () = stop.cancelled() => Step::Stop,
            event = next_event(&mut self.link) => Step::Link(event),
            dialled = finished(&mut self.attempt) => Step::Dialled(dialled),
            looked = finished(&mut self.looking) => Step::Looked(looked),
            () = until(look) => Step::LookUp,
            change = self.network.changed() => Step::Network(change),
            () = self.remembered.gone() => Step::Forgotten,
            () = until(due) => Step::AskAgain,
        }
    }

    fn next_wait(&mut self, last: Last) -> Duration {
        // Without random bytes all waits are the shortest, but still grow.
        let jitter = random::bytes().map_or(0, u32::from_be_bytes);
        self.backoff.next(last, Instant::now(), jitter)
    }

    /// What ends the agent, and its links and open streams with it.
    fn forgotten(&self) -> AgentError {
        AgentError::Forgotten(self.known.edge)
    }

    async fn on_live(&mut self, link: AgentLink, streams: TaskTracker) -> Result<(), AgentError> {
        (self.attempt, self.looking) = (None, None);
        // What is learnt now would be remembered again.
        if self.remembered.is_gone() {
            return Err(self.forgotten());
        }
        self.pins.accepted();
        let way = self.ladder.chooses().then(here);
        let learnt = [
            self.known.learn(&link).await,
            self.known.learn_way(&link, way).await,
        ];
        for error in learnt.into_iter().filter_map(Result::err) {
            let why = error.to_string();
            self.teller.tell(AgentEvent::NotSaved { why });
        }
        let carrier = link.spot().carrier;
        let known = &self.known;
        let above = self.ladder.above(carrier, &known.addresses, &known.doors);
        self.climb.on_live(!above.is_empty(), Instant::now());
        self.remembered.look();
        self.network.towards(link.peer());
        self.teller.tell(AgentEvent::Connected {
            edge: self.known.edge,
            peer: link.peer(),
            carrier,
            version: link.auth().version.clone(),
        });
        let forwards = link.forwards();
        self.doors.lead(forwards, streams.clone(), &self.teller);
        let link = Link::new(link, streams);
        for tunnel in self.tunnels.all() {
            link.send(Message::OpenTunnel(tunnel.open_message()));
        }
        if let Some(old) = self.link.replace(link) {
            self.retire(old, None);
        }
        Ok(())
    }

    async fn on_failed(&mut self, error: DialError) -> Result<(), AgentError> {
        self.attempt = None;
        let wait = self.next_wait(match &error {
            DialError::Unreachable(Unreached {
                way: Way::Refused, ..
            }) => Last::Refused,
            _ => Last::Other,
        });
        if self.link.is_some() {
            // The current link still serves; its own end tells the rest.
            tracing::info!(%error, "another way to the edge could not be used");
            self.dial_after(wait, &[]);
            return Ok(());
        }
        if matches!(error, DialError::Silent | DialError::Refused) && self.known.refresh().await {
            self.dial_after(Duration::ZERO, &[]);
            return Ok(());
        }
        match error {
            DialError::Refused => self.on_refused(RefusalKind::Said)?,
            DialError::Full => self.on_refused(RefusalKind::Full)?,
            DialError::PinWanted => return Err(AgentError::PinAbsent),
            DialError::WrongEdge {
                expected,
                presented,
            } => {
                self.teller.tell(AgentEvent::EdgeKeyChanged {
                    expected,
                    presented,
                });
                return Err(AgentError::WrongEdge {
                    expected,
                    presented,
                });
            }
            // A person typed longer than the edge waits.
            DialError::Silent if self.pins.is_unjudged() => self.dial_after(Duration::ZERO, &[]),
            DialError::Silent => {
                self.refused(RefusalKind::Silent, Some(wait));
                self.dial_after(wait, &[]);
            }
            DialError::Broken(why) => self.lost(Code::PROTOCOL, why, wait),
            DialError::Unreachable(Unreached { why, way }) => self.lost(unreached(way), why, wait),
            DialError::Io(error) => self.lost(Code::EDGE_UNREACHABLE, error.to_string(), wait),
        }
        Ok(())
    }

    fn on_refused(&mut self, kind: RefusalKind) -> Result<(), AgentError> {
        let again = kind == RefusalKind::Said && self.pins.ask_again();
        let refusal = self.refused(kind, again.then_some(ASK_PIN_AGAIN));
        if !again {
            return Err(AgentError::Refused(refusal));
        }
        self.dial_after(ASK_PIN_AGAIN, &[]);
        Ok(())
    }

    fn refused(&mut self, kind: RefusalKind, retry_in: Option<Duration>) -> Refusal {
        let refusal = Refusal {
            kind,
            own_secret: self.known.own_secret,
            retry_in,
        };
        self.teller.tell(AgentEvent::Refused(refusal.clone()));
        refusal
    }

    fn lost(&mut self, code: Code, why: String, retry_in: Duration) {
        tracing::debug!(%code, %why, ?retry_in, "no link");
        self.teller.tell(AgentEvent::Lost {
            code,
            why,
            retry_in,
        });
        self.dial_after(retry_in, &[]);
    }

    fn on_link(&mut self, event: LinkEvent) -> Result<(), AgentError> {
        match event {
            LinkEvent::Rtt(rtt) => {
                // It answers: no other way is needed.
                self.attempt = None;
                self.teller.mention(AgentEvent::Rtt(rtt));
            }
            LinkEvent::Message(message) => self.on_message(message),
            LinkEvent::Drain(drain) => self.on_drain(&drain),
            LinkEvent::Superseded => {
                self.teller.tell(AgentEvent::Superseded);
                return Err(AgentError::Superseded);
            }
            LinkEvent::Lost(end) => return self.on_lost(end.why()),
        }
        Ok(())
    }

    fn on_lost(&mut self, why: &str) -> Result<(), AgentError> {
        let Some(link) = self.link.take() else {
            return Ok(());
        };
        self.doors.wait();
        self.judge(&link);
        if link.was_well() {
            self.backoff.reset(Instant::now());
        }
        let (code, why) = link
            .last_words()
            .unwrap_or((Code::LINK_LOST, why.to_owned()));
        if code == Code::REVOKED {
            return Err(AgentError::Revoked);
        }
        let wait = self.next_wait(Last::Other);
        self.lost(code, why, wait);
        Ok(())
    }

    fn on_drain(&mut self, drain: &Drain) {
        let Some(link) = self.link.take() else { return };
        self.doors.wait();
        self.teller.tell(AgentEvent::Draining {
            seconds: drain.seconds,
        });
        let seconds = Duration::from_secs(u64::from(drain.seconds));
        let was_well = link.was_well();
        self.retire(link, Some(seconds));
        if was_well {
            self.backoff.reset(Instant::now());
        }
        // Where it names nobody else it needs a moment to come back. Whoever
        // it names has to prove the same key, and sends nobody in circles.
        let wait = if drain.addresses.is_empty() || !was_well {
            self.next_wait(Last::Other)
        } else {
            Duration::ZERO
        };
        self.dial_after(wait, &drain.addresses);
    }

    fn on_message(&mut self, message: Message) {
        let Some(link) = &mut self.link else { return };
        match message {
            Message::TunnelStatus(status) => self.on_status(status),
            Message::StatsWanted => link.send(Message::Stats(self.tunnels.stats())),
            Message::Error { code, text } => link.says(code, text),
            other => tracing::debug!(kind = ?other.kind(), "a message that needs no answer"),
        }
    }

    fn on_status(&mut self, status: TunnelStatus) {
        let Some(tunnel) = self.tunnels.get(status.tunnel) else {
            return;
        };
        let Some(link) = &mut self.link else { return };
        let (name, code, text) = (tunnel.name.clone(), status.code, status.text);
        match status.state {
            TunnelState::Live => {
                link.opened(tunnel.id);
                let pattern = &link.link.auth().url_pattern;
                self.teller.tell(AgentEvent::Live {
                    url: tunnel.url(status.url, pattern),
                    target: tunnel.target.clone(),
                    tunnel: name,
                });
            }
            TunnelState::Trouble => self.teller.tell(AgentEvent::TunnelTrouble {
                tunnel: name,
                code,
                text,
            }),
            TunnelState::Refused | TunnelState::Closed => {
                let retry_in = link.ask_later(tunnel.id);
                self.teller.tell(AgentEvent::TunnelRefused {
                    tunnel: name,
                    code,
                    text,
                    retry_in,
                });
            }
        }
    }

    fn ask_again(&mut self) {
        let Some(link) = &mut self.link else { return };
        for id in link.due() {
            if let Some(tunnel) = self.tunnels.get(id) {
                link.send(Message::OpenTunnel(tunnel.open_message()));
            }
        }
    }

    fn on_network(&mut self, change: Change) {
        // A dial that is under way may hang on the old way, unless a person
        // is just being asked something.
        if self.pins.is_asking() {
            return;
        }
        tracing::info!(?change, "dialling at once");
        self.climb.trust();
        self.backoff.reset(Instant::now());
        self.dial_after(Duration::ZERO, &[]);
    }

    /// Lets a link's open streams go on: to their end, or, where the edge may
    /// still begin some, until the edge ends the link or `limit` has passed.
    fn retire(&self, mut old: Link, limit: Option<Duration>) {
        if self.retiring.len() >= MOST_RETIRING {
            tracing::warn!("too many earlier links are still in use; one was ended");
            return;
        }
        let stopping = self.stopping.clone();
        self.retiring.spawn_until_stopped(async move {
            let ended = async { while !matches!(old.link.event().await, LinkEvent::Lost(_)) {} };
            let unused = async {
                if limit.is_some() {
                    stopping.cancelled().await;
                }
                old.streams.close();
                old.streams.wait().await;
            };
            tokio::select! {
                () = ended => {}
                () = unused => {}
                () = until(limit.map(|limit| Instant::now() + limit)) => {}
            }
        });
    }

    /// Takes no more streams, waits for the open ones, ends the link.
    async fn stop(&mut self, drain: Duration) -> Result<(), AgentError> {
        self.attempt = None;
        self.tunnels.close();
        self.stopping.cancel();
        let streams = self.tunnels.open_streams() + self.doors.open_streams();
        self.teller.tell(AgentEvent::Stopping { streams });
        let ended = async {
            if let Some(link) = &mut self.link {
                for tunnel in self.tunnels.all() {
                    let tunnel = tunnel.id;
                    link.send(Message::CloseTunnel { tunnel });
                }
                link.streams.close();
                link.streams.wait().await;
            }
            self.retiring.drained(drain).await;
        };
        tokio::select! {
            ended = timeout(drain, ended) => if ended.is_err() {
                tracing::info!("open streams were cut at the end of the wait");
            },
            () = self.remembered.gone() => return Err(self.forgotten()),
        }
        if let Some(link) = self.link.take() {
            link.link.close();
        }
        Ok(())
    }
}

async fn next_event(link: &mut Option<Link>) -> LinkEvent {
    match link {
        Some(link) => link.link.event().await,
        None => pending().await,
    }
}

async fn finished(attempt: &mut Option<Attempt>) -> Dialled {
    match attempt {
        Some(attempt) => attempt.await,
        None => pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Runs `work` while events are handed over.
pub(crate) async fn telling<T>(teller: &Teller, work: impl Future<Output = T>) -> T {
    let deliver = async {
        teller.deliver().await;
        pending::<Infallible>().await
    };
    let done = tokio::select! {
        done = work => done,
        never = deliver => match never {},
    };
    teller.last_words();
    done
}

#[cfg(test)]
mod tests;
