//! The map: door -> stage -> stage. The only file that wires.
//!
//! ```text
//! link door  -> link::serve      -> admission -> registry
//! QUIC door  -> quic, link       -> admission -> registry
//! HTTP door  -> http::serve     -> routes -> registry -> backend stream
//! HTTPS door -> https            -> http::serve, or as the TLS door
//! TLS door   -> sni, tcp         -> routes -> registry -> backend stream
//! TCP ports  -> tcp              -> registry -> backend stream
//! UDP ports  -> udp              -> registry -> flow of datagrams
//! API door   -> api::serve       -> metrics
//! control    -> control::serve   -> admission, registry
//! ```
//!
//! Each door has a listener on each worker; what looks after the whole process
//! (API, control socket, clocks, pools) runs on the caller's runtime.

use std::io;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_link::quic::QuicError;
use adit_link::tasks::Tasks;
use adit_link::workers::{Workers, default_count};
use adit_model::{Code, JoinString, Pin, PublicKey};
use adit_routing::TableError;
use adit_wire::{Drain, Message};
use tokio::net::TcpStream;

use crate::admission::Admission;
use crate::assemble::{self, Ground, Parts};
use crate::bound::{Bound, Listeners};
use crate::config::EdgeConfig;
use crate::http::serve_connection;
use crate::link::LinkDoor;
use crate::listen::Counted;
use crate::metrics::kinds::Label;
use crate::metrics::{Door, Metrics, Phase};
use crate::registry::Registry;
use crate::state::{StateError, Store};
use crate::tcp::To;
use crate::tls::GenerateError;
use crate::websocket::ByWebSocket;
use crate::{api, control, keep, link, listen, quic};

/// After the drain what is still open is cut; this long for that.
const CUT_TIME: Duration = Duration::from_secs(2);

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A door's address cannot be bound.
    #[error("the {door} door cannot listen on {address}: {error}")]
    Bind {
        /// Which door.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The data folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Threads, event queues or random bytes.
    #[error("the system gave no worker: {0}")]
    Worker(io::Error),
    /// The control socket.
    #[error("the control socket in the data folder cannot be opened: {0}")]
    Control(io::Error),
    /// QUIC.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// A route's password cannot be hashed.
    #[error("a route's password cannot be hashed")]
    Password,
    /// The HTTPS door has no keys.
    #[error("the HTTPS door cannot be opened: {0}")]
    Tls(#[from] rustls::Error),
    /// The edge's own certificate.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The routes contradict each other.
    #[error(transparent)]
    Routes(#[from] TableError),
}

impl StartError {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Bind { error, .. } => match error.kind() {
                io::ErrorKind::AddrInUse => Code::PORT_IN_USE,
                io::ErrorKind::PermissionDenied => Code::PORT_FORBIDDEN,
                io::ErrorKind::AddrNotAvailable => Code::ADDRESS_ABSENT,
                _ => Code::DOOR_FAILED,
            },
            Self::State(error) => error.code(),
            Self::Generate(GenerateError::State(error)) => error.code(),
            Self::Worker(_) | Self::Tls(_) | Self::Quic(_) | Self::Generate(_) => {
                Code::RUNTIME_FAILED
            }
            Self::Control(_) => Code::DATA_UNREADABLE,
            Self::Password => Code::BAD_AUTH,
            Self::Routes(_) => Code::CONFIG_DUPLICATE,
        }
    }
}

/// What an edge says about itself when its doors are open.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The HTTP door.
    pub http: SocketAddr,
    /// The TLS door, unless it is switched off.
    pub tls: Option<SocketAddr>,
    /// The HTTPS door, unless it is switched off.
    pub https: Option<SocketAddr>,
    /// The SHA-256 of the certificate that the edge has made for that door.
    pub certificate: Option<String>,
    /// The link door.
    pub link: SocketAddr,
    /// The QUIC door, unless it is switched off.
    pub quic: Option<SocketAddr>,
    /// The API door, unless it is switched off.
    pub api: Option<SocketAddr>,
    /// The edge's identity.
    pub fingerprint: PublicKey,
    /// What lets an agent join.
    pub join: JoinString,
    /// What a new agent must give besides, where policy wants one.
    pub pin: Option<Pin>,
    /// Where visitors find a tunnel, `{name}` in it.
    pub url_pattern: String,
}

/// A running edge.
pub struct Edge {
    facts: Facts,
    drain: Duration,
    doors: Tasks,
    streams: Tasks,
    links: Tasks,
    keepers: Tasks,
    registry: Arc<Registry>,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    /// Dropped last: it ends the threads.
    workers: Workers,
}

impl Edge {
    /// Opens the data folder and every door.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left open or half-written.
    pub async fn start(config: EdgeConfig) -> Result<Self, StartError> {
        let count = config
            .server
            .workers
            .map_or_else(default_count, usize::from);
        let (store, seen) = Store::open(&config.server.data, config.admission.secret.clone())?;
        let bound = Bound::open(&config, count)?;
        let at = bound.at(&config)?;
        let workers = Workers::start("adit", count).map_err(StartError::Worker)?;
        let ground = Ground {
            workers: workers.handles().to_vec(),
            metrics: Arc::default(),
            counters: Arc::default(),
            seldom: Arc::default(),
            doors: Tasks::new(),
            streams: Tasks::new(),
            links: Tasks::new(),
        };
        let parts = assemble::parts(&config, (Arc::new(store), seen), &at, &ground)?;
        let edge = Self {
            facts: parts.facts(&at),
            drain: config.server.drain,
            doors: ground.doors.clone(),
            streams: ground.streams.clone(),
            links: ground.links.clone(),
            keepers: Tasks::new(),
            registry: Arc::clone(&parts.registry),
            admission: Arc::clone(&parts.admission),
            metrics: Arc::clone(&parts.metrics),
            workers,
        };
        edge.open_doors(bound, parts, &ground)?;
        edge.metrics.set_phase(Phase::Ready);
        Ok(edge)
    }

    /// A door, with a listener on each worker; what it accepts belongs to `owner`.
    fn open<S, F>(&self, listeners: Listeners, counted: &Counted, owner: &Tasks, serve: S)
    where
        S: Fn(TcpStream, SocketAddr) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        for (listener, worker) in listeners.into_iter().zip(self.workers.handles()) {
            let (doors, owner) = (self.doors.clone(), owner.clone());
            let (counted, serve) = (counted.clone(), serve.clone());
            self.doors.spawn_on(worker, async move {
                let door = counted.door.text();
                let accept = listen::accept(listener, counted, doors.stopping(), &owner, serve);
                if let Err(error) = accept.await {
                    tracing::error!(code = %Code::DOOR_LOST, %error, door, "a door has closed");
                }
            });
        }
    }

    /// The doors of visitors.
    fn open_public(&self, bound: &mut Bound, parts: &Parts, ground: &Ground) {
        let (streams, stop) = (&self.streams, self.streams.stopping());
        let (door, stopped) = (Arc::clone(&parts.http), stop.clone());
        let serve =
            move |socket, peer| serve_connection(socket, peer, Arc::clone(&door), stopped.clone());
        let listeners = take(&mut bound.http);
        self.open(listeners, &ground.counted(Door::Http), streams, serve);
        let (door, names) = parts.tls.clone();
        let serve = move |socket, peer| {
            Arc::clone(&door).serve(socket, peer, To::ByName(Arc::clone(&names)))
        };
        let listeners = take(&mut bound.tls);
        self.open(listeners, &ground.counted(Door::Tls), streams, serve);
        let Some(https) = &parts.https else { return };
        let (door, stopped) = (Arc::clone(https), stop.clone());
        let serve = move |socket, peer| Arc::clone(&door).serve(socket, peer, stopped.clone());
        let listeners = take(&mut bound.https);
        self.open(listeners, &ground.counted(Door::Https), streams, serve);
    }

    /// The door of agents.
    fn open_link(&self, listeners: Listeners, parts: &Parts, ground: &Ground) {
        let (door, stop) = (Arc::clone(&parts.link), self.links.stopping().clone());
        let serve = move |socket: TcpStream, peer| {
            link::serve(Arc::clone(&door), socket, peer, stop.clone())
        };
        self.open(listeners, &ground.counted(Door::Link), &self.links, serve);
    }

    fn open_quic(
        &self,
        socket: std::net::UdpSocket,
        link: &Arc<LinkDoor>,
    ) -> Result<(), StartError> {
        let channels = link.settings.max_channels;
        let workers = self.workers.handles();
        let Some(first) = workers.first() else {
            return Ok(());
        };
        // With its socket, its timers and its connections on one worker, a
        // datagram for a visitor of that worker wakes no other thread.
        let _there = first.enter();
        let door = quic::open(socket, link, channels, &self.keepers)?;
        let (doors, links) = (self.doors.clone(), self.links.clone());
        let run = quic::run(door, Arc::clone(link), doors, links, workers.to_vec());
        self.keepers.spawn_on(first, run);
        Ok(())
    }

    fn open_doors(
        &self,
        mut bound: Bound,
        parts: Parts,
        ground: &Ground,
    ) -> Result<(), StartError> {
        let stop = || self.keepers.stopping().clone();
        // Fails while nothing is open yet.
        control::listen(&self.keepers, Arc::clone(&parts.control)).map_err(StartError::Control)?;
        let by_web = ByWebSocket {
            door: Arc::clone(&parts.link),
            links: self.links.clone(),
        };
        parts.http.set_link_upgrade(Arc::new(by_web));
        self.open_public(&mut bound, &parts, ground);
        self.open_link(take(&mut bound.link), &parts, ground);
        for worker in self.workers.handles() {
            self.keepers
                .spawn_on(worker, keep::pools(Arc::clone(&parts.registry), stop()));
        }
        if let Some(socket) = bound.quic {
            self.open_quic(socket, &parts.link)?;
        }
        if let Some(listener) = bound.api {
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(StartError::Worker)?;
            let serve = api::serve(listener, parts.api, stop());
            self.keepers.spawn(async move {
                if let Err(error) = serve.await {
                    tracing::error!(code = %Code::DOOR_LOST, %error, "the API door has closed");
                }
            });
        }
        self.keepers.spawn(keep::house(
            parts.registry,
            parts.admission,
            parts.ports,
            stop(),
        ));
        if let Some(watch) = parts.watch {
            self.keepers.spawn(keep::certificates(watch, stop()));
        }
        let registry = Arc::clone(&self.registry);
        self.keepers.spawn(keep::counters(
            parts.metrics,
            parts.counters,
            registry,
            stop(),
        ));
        Ok(())
    }

    /// What the edge says about itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The PIN of this moment, where policy wants one.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        self.admission.current_pin()
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Who is connected.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Tasks that are alive, for tests that count them.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.doors.len() + self.streams.len() + self.links.len() + self.keepers.len()
    }

    /// Closes the doors, lets requests end within the drain time, tells the
    /// agents, and stops everything. False when streams had to be cut.
    pub async fn stop(self) -> bool {
        self.metrics.set_phase(Phase::Draining);
        self.doors.close(CUT_TIME).await;
        let seconds = u32::try_from(self.drain.as_secs()).unwrap_or(u32::MAX);
        for link in self.registry.links() {
            link.send(Message::Drain(Drain {
                seconds,
                addresses: Vec::new(),
            }));
        }
        // The stop signal ends idle visitors; a request that is under way
        // ends by itself.
        let clean = self.streams.close(self.drain).await;
        for link in self.registry.links() {
            link.ended().cancel();
        }
        let links = self.links.close(CUT_TIME).await;
        let keepers = self.keepers.close(CUT_TIME).await;
        if !(links && keepers) {
            tracing::warn!("some tasks did not stop in time and were cut");
        }
        clean
    }
}
