//! Local doors to private tunnels of other agents.
//!
//! Each door listens on this machine. For each connection the edge is asked for
//! a stream to the tunnel, inside which this agent and the other one prove to
//! each other who they are; only then do bytes pass, sealed between the two.
//!
//! An agent that stops takes no more connections; those that are open count as
//! streams of the link that carries them, so that they go on to their end.
//!
//! Invariant: a connection that does not come through, or breaks off, is reset,
//! never ended in order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_link::socket::suites;
use adit_link::tasks::Tasks;
use adit_link::told::not_accepted;
use adit_link::{ForwardError, Forwards, PeerFailure, PeerStream, StreamError};
use adit_link_proto::{PeerError, PeerForwarder};
use adit_model::{Code, ConnId, Identity, PublicKey, TunnelName};
use adit_wire::{Forward, ResetReason};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::error::AgentError;
use crate::events::{AgentEvent, Teller};
use crate::local::Local;
use crate::pump::{Broken, pump};
use crate::random;
use crate::settings::ForwardSettings;

/// How long a connection waits for a link that is on its way back.
const WAIT_TIME: Duration = Duration::from_secs(5);
/// Connections of one door at a time.
const MOST: usize = 4096;
/// Pause after a failed accept: descriptors may be free then.
const PAUSE: Duration = Duration::from_millis(100);
/// A cause is told at most this often, a new one at once.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A local port that listens.
pub(crate) struct Door {
    settings: ForwardSettings,
    listener: TcpListener,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    places: Arc<Semaphore>,
}

/// What is told of a door while it serves.
pub(crate) struct Facts {
    /// The tunnel that it leads to.
    pub(crate) name: TunnelName,
    /// Whose that is.
    pub(crate) peer: PublicKey,
    pub(crate) address: SocketAddr,
    places: Arc<Semaphore>,
}

impl Facts {
    /// Connections now open.
    pub(crate) fn open(&self) -> usize {
        MOST.saturating_sub(self.places.available_permits())
    }
}

impl Door {
    /// Opens the local ports.
    ///
    /// # Errors
    /// [`AgentError::Listen`] for the first that cannot be opened.
    pub(crate) async fn open(all: Vec<ForwardSettings>) -> Result<Vec<Self>, AgentError> {
        let mut doors = Vec::with_capacity(all.len());
        for settings in all {
            let listener = TcpListener::bind(settings.listen).await;
            let opened = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (address, listener) = opened.map_err(|why| AgentError::Listen {
                address: settings.listen,
                why,
            })?;
            doors.push(Self {
                settings,
                listener,
                address,
                places: Arc::new(Semaphore::new(MOST)),
            });
        }
        Ok(doors)
    }

    /// What is told of it when somebody asks.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            name: self.settings.name.clone(),
            peer: self.settings.peer,
            address: self.address,
            places: Arc::clone(&self.places),
        }
    }

    /// What is told of it once the edge is reached.
    fn live(&self) -> AgentEvent {
        AgentEvent::Live {
            tunnel: self.settings.name.clone(),
            url: format!("tcp://{}", self.address),
            target: format!("{} of {}", self.settings.name, self.settings.peer),
        }
    }

    /// Serves its connections until the tasks are stopped.
    fn serve(self, doors: &Doors, with: &With, tasks: &Tasks) {
        let open = Arc::new(Open {
            settings: self.settings,
            with: with.clone(),
            way: doors.way.subscribe(),
            all: doors.open.clone(),
            next: AtomicU64::new(1),
            reported: Mutex::new(None),
        });
        let (listener, of_streams) = (self.listener, tasks.clone());
        let stopping = with.stopping.clone();
        let places = self.places;
        tasks.spawn_until_stopped(async move {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopping.cancelled() => return,
                };
                let socket = match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        if let Some(code) = not_accepted(&error) {
                            let why = format!("a connection was not accepted: {error}");
                            open.report(Failed(code, why));
                            sleep(PAUSE).await;
                        }
                        continue;
                    }
                };
                let open = Arc::clone(&open);
                of_streams.spawn_until_stopped(async move {
                    open.serve(socket).await;
                    drop(place);
                });
            }
        });
    }
}

/// All doors of an agent.
pub(crate) struct Doors {
    /// What is told of them when a link is live.
    live: Vec<AgentEvent>,
    /// What they begin streams on.
    way: watch::Sender<Option<Way>>,
    /// Their open connections.
    open: TaskTracker,
}

/// A live link, and what it is kept for.
#[derive(Clone)]
struct Way {
    link: Forwards,
    streams: TaskTracker,
}

/// What all doors share.
#[derive(Clone)]
pub(crate) struct With {
    pub(crate) identity: Arc<Identity>,
    pub(crate) teller: Arc<Teller>,
    pub(crate) stopping: CancellationToken,
}

impl Doors {
    pub(crate) fn new() -> Self {
        Self {
            live: Vec::new(),
            way: watch::Sender::new(None),
            open: TaskTracker::new(),
        }
    }

    /// Serves these until the tasks are stopped.
    pub(crate) fn serve(&mut self, doors: Vec<Door>, with: &With, tasks: &Tasks) {
        for door in doors {
            self.live.push(door.live());
            door.serve(self, with, tasks);
        }
    }

    /// A link is live, whose `streams` it waits for before it ends.
    pub(crate) fn lead(&self, link: Forwards, streams: TaskTracker, teller: &Teller) {
        self.way.send_replace(Some(Way { link, streams }));
        for event in &self.live {
            teller.tell(event.clone());
        }
    }

    /// There is no link.
    pub(crate) fn wait(&self) {
        self.way.send_replace(None);
    }

    /// How many connections go through them.
    pub(crate) fn open_streams(&self) -> usize {
        self.open.len()
    }
}

/// Kept while a connection is open: nobody ends it who can wait.
struct Kept {
    _place: adit_link::Place,
    _of_link: TaskTrackerToken,
    _of_agent: TaskTrackerToken,
}

struct Open {
    settings: ForwardSettings,
    with: With,
    way: watch::Receiver<Option<Way>>,
    all: TaskTracker,
    next: AtomicU64,
    reported: Mutex<Option<(Instant, Code)>>,
}

/// Why a connection did not come through, for people.
struct Failed(Code, String);

impl Open {
    async fn serve(&self, socket: TcpStream) {
        // Best effort: it only makes small answers faster.
        let _ = socket.set_nodelay(true);
        // Reset when it is dropped before its end.
        let local = Local::from(socket);
        match self.connect().await {
            Ok((stream, _kept)) => {
                let (carried, _) = pump(stream, local, |_, _| {}).await;
                let name = &self.settings.name;
                match carried.broken {
                    // Its agent could not lead it to its service.
                    Some(Broken::Visitor(error)) if carried.to_visitor == 0 => {
                        self.report(self.failed(&error.into()));
                    }
                    Some(broken) => {
                        tracing::debug!(%name, ?broken, "a forwarded connection broke off");
                    }
                    None => {}
                }
            }
            Err(failed) => self.report(failed),
        }
    }

    async fn connect(&self) -> Result<(PeerStream, Kept), Failed> {
        let mut links = self.way.clone();
        let link = timeout(WAIT_TIME, links.wait_for(Option::is_some)).await;
        let link = link.ok().and_then(Result::ok).and_then(|link| link.clone());
        let Way { link, streams } = link.ok_or_else(|| {
            let why = "there is no link to the edge now";
            Failed(Code::LINK_LOST, why.to_owned())
        })?;
        let (of_link, of_agent) = (streams.token(), self.all.token());
        let wish = Forward {
            name: self.settings.name.clone(),
            conn: ConnId(self.next.fetch_add(1, Ordering::Relaxed)),
        };
        let opened = link.open(&wish).await.map_err(|error| match error {
            ForwardError::Gone => Failed(Code::LINK_LOST, error.to_string()),
            other => Failed(Code::FORWARD_REFUSED, other.to_string()),
        })?;
        let handshake = self.handshake().map_err(|error| {
            let why = format!("no handshake could begin: {error}");
            Failed(Code::RUNTIME_FAILED, why)
        })?;
        let met = PeerStream::connect(opened.stream, handshake).await;
        let stream = met.map_err(|failure| self.failed(&failure))?;
        let kept = Kept {
            _place: opened.place,
            _of_link: of_link,
            _of_agent: of_agent,
        };
        Ok((stream, kept))
    }

    fn handshake(&self) -> std::io::Result<PeerForwarder> {
        let fresh = random::peer()?;
        let ForwardSettings { name, peer, .. } = &self.settings;
        let identity = Arc::clone(&self.with.identity);
        let started = PeerForwarder::start(name.clone(), *peer, identity, fresh, suites());
        started.map_err(std::io::Error::other)
    }

    fn failed(&self, failure: &PeerFailure) -> Failed {
        let name = &self.settings.name;
        let own = self.with.identity.public();
        match failure {
            PeerFailure::Proof(wrong @ PeerError::WrongPeer { .. }) => Failed(
                Code::WRONG_PEER,
                format!("{wrong}: ask the owner of {name} for its key (adit key show)"),
            ),
            PeerFailure::Refused => Failed(
                Code::PEER_REFUSED,
                format!("the agent of {name} does not let this one in: it needs --peer {own}"),
            ),
            PeerFailure::Stream(StreamError::Reset { reason, .. }) => {
                let why = match reason {
                    ResetReason::NoSuchTunnel => format!(
                        "the edge has no private tunnel {name} for this agent: \
                         is its agent running, and of the same owner?"
                    ),
                    ResetReason::TargetUnreachable => {
                        format!("no agent of {name} took the connection")
                    }
                    ResetReason::TargetRefused => format!("the service behind {name} refused"),
                    ResetReason::TooMany => {
                        format!("{name} has as many visitors as its edge allows")
                    }
                    ResetReason::Draining => format!("the agent of {name} is stopping"),
                    other => format!("{name} gave up: {other}"),
                };
                Failed(Code::FORWARD_REFUSED, why)
            }
            other => Failed(Code::FORWARD_REFUSED, format!("{name}: {other}")),
        }
    }

    fn report(&self, Failed(code, text): Failed) {
        let now = Instant::now();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reported
            .is_some_and(|(at, known)| known == code && now.duration_since(at) < REPORT_EVERY);
        if known {
            return;
        }
        *reported = Some((now, code));
        drop(reported);
        self.with.teller.tell(AgentEvent::TunnelTrouble {
            tunnel: self.settings.name.clone(),
            code: code.number,
            text,
        });
    }
}
