//! The link door: sockets of strangers become links and data channels.
//!
//! Everything before a proof is bounded: one fixed-size message, one look-up,
//! one MAC, no public-key operation, not one byte sent. Every failure before
//! it ends in the same silence (`adit_link::accept`); every refusal after it
//! is the same answer after the same time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_link::accept::{
    HandshakeFailure, answer_channel, next_event, read_first, send_all, silence_deadline,
    stay_silent,
};
use adit_link::control::{ControlEnd, run_control};
use adit_link::edge::{EdgeLink, LinkFacts, first_idle};
use adit_link::socket::suites;
use adit_link::tasks::Tasks;
use adit_link::{Counters, Socket, entropy};
use adit_link_proto::{
    Control, EdgeEvent, EdgeFresh, EdgeHandshake, FIRST_LEN, First, HandshakeError, ProvedChannel,
    ProvedLink, Purpose, Timing,
};
use adit_model::{Carrier, CarrierDoor, Code, InstanceId, LinkId, PublicKey};
use adit_wire::{AuthOk, Message};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Admitted, Applicant, Candidate, Cause};
use crate::limits::{UnprovedPermit, UnprovedSockets};
use crate::metrics::{Metrics, ProofFailure};
use crate::ports::Ports;
use crate::private::PrivateDoor;
use crate::registry::Registry;
use crate::rules::Rules;
use crate::tunnels;

/// When a refusal is sent, counted from the agent's last proof: longer than
/// any of the checks takes.
const REFUSE_AFTER: Duration = Duration::from_millis(500);

/// What every link is told when it is admitted.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Doors for other carriers.
    pub doors: Vec<CarrierDoor>,
    /// Where visitors find a tunnel: `http://{name}.example.test`.
    pub url_pattern: String,
    /// How often each side asks the other for a sign of life.
    pub heartbeat: Duration,
    /// Silence for this long ends a link.
    pub dead_after: Duration,
    /// Most idle data channels of one link.
    pub idle_channels: u16,
    /// Most data channels of one link.
    pub max_channels: u16,
    /// Worker threads.
    pub workers: usize,
}

/// The link door.
pub struct LinkDoor {
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// Who is in.
    pub registry: Arc<Registry>,
    /// Public ports of TCP tunnels.
    pub(crate) ports: Arc<Ports>,
    /// Public ports of UDP tunnels.
    pub(crate) udp_ports: Arc<Ports>,
    /// The owner's rules.
    pub(crate) rules: Arc<Rules>,
    /// Streams that agents begin.
    pub(crate) private: Arc<PrivateDoor>,
    /// The cap of sockets that have proved nothing.
    pub unproved: Arc<UnprovedSockets>,
    /// Handshakes at a time: one costs a signature and two shares.
    pub handshakes: Semaphore,
    /// Counters of the process.
    pub metrics: Arc<Metrics>,
    /// Counters of the driver.
    pub counters: Arc<Counters>,
    /// What links are told.
    pub settings: LinkSettings,
    /// Where trunks run.
    pub(crate) trunks: Trunks,
    /// The next link's id.
    pub next_link: AtomicU64,
}

/// Where trunks run.
pub(crate) struct Trunks {
    /// Their owner.
    pub(crate) tasks: Tasks,
    /// One of them each.
    pub(crate) workers: Vec<Handle>,
}

impl Trunks {
    /// Runs a trunk on its worker until it ends or all have to.
    fn spawn(&self, worker: usize, run: impl Future<Output = ()> + Send + 'static) {
        let stop = self.tasks.stopping().clone();
        let run = async move {
            stop.run_until_cancelled(run).await;
        };
        match self.workers.get(worker) {
            Some(worker) => self.tasks.spawn_on(worker, run),
            None => self.tasks.spawn(run),
        }
    }
}

/// A first message that proves a secret, and which.
type Proved = (ProvedLink, Candidate);

/// What a link lives with once its handshake is done.
struct Live {
    link: Arc<EdgeLink>,
    admitted: Admitted,
    control: Box<Control>,
}

/// What a first message turned out to be.
enum Proof {
    Link(Box<Proved>),
    Channel(Arc<EdgeLink>, ProvedChannel),
    Nothing,
}

/// Who is at the other end of a socket.
enum Met {
    Agent(Box<Proved>, UnprovedPermit),
    Channel(Arc<EdgeLink>, ProvedChannel),
}

/// Serves one socket of the link door. `stop` ends whatever is no live link.
///
/// Each step is boxed, so that the next one does not pay for it: ten thousand
/// silent sockets hold no room for a link, and a link that lives for weeks none
/// for its handshake.
pub async fn serve(
    door: Arc<LinkDoor>,
    socket: impl Into<Socket>,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    let mut socket = socket.into();
    let met = Box::pin(stop.run_until_cancelled(door.meet(&mut socket, peer))).await;
    match met.flatten() {
        None => {}
        Some(Met::Channel(link, proved)) => {
            Box::pin(door.take_channel(socket, &link, &proved)).await;
        }
        Some(Met::Agent(proof, permit)) => {
            let admit = door.admit(&mut socket, peer, (proof, permit));
            match Box::pin(stop.run_until_cancelled(admit)).await {
                Some(Ok(live)) => Box::pin(door.run_link(socket, live)).await,
                Some(Err(why)) => tracing::debug!(%peer, %why, "no link"),
                None => {}
            }
        }
    }
}

/// Why a proved first message did not become a link.
#[derive(Debug, thiserror::Error)]
enum NotAdmitted {
    #[error("socket failed: {0}")]
    Io(#[from] io::Error),
    #[error("handshake failed: {0}")]
    Failure(#[from] HandshakeFailure),
    #[error("handshake failed: {0}")]
    Proof(#[from] HandshakeError),
    #[error("agent took too long")]
    Slow,
    #[error("agent sent something else than was its turn")]
    OutOfTurn,
    #[error("{0}")]
    Refused(Cause),
}

impl LinkDoor {
    /// One look-up, one MAC.
    fn prove(&self, first: Option<[u8; FIRST_LEN]>, peer: SocketAddr) -> Proof {
        let Some(bytes) = first else {
            self.admission
                .note_failure(ProofFailure::Incomplete, peer.ip(), now());
            return Proof::Nothing;
        };
        let first = First::parse(&bytes);
        if let Some(link) = self.registry.session(first.id()) {
            return self.prove_channel(link, &first, peer);
        }
        match self.admission.prove(&first, peer, now()) {
            Ok(proved) => Proof::Link(Box::new(proved)),
            Err(_) => Proof::Nothing,
        }
    }

    fn prove_channel(&self, link: Arc<EdgeLink>, first: &First, peer: SocketAddr) -> Proof {
        let failure = match link.keys().prove_channel(first) {
            Some(proved) if link.keys().burn(proved.number) => return Proof::Channel(link, proved),
            Some(_) => ProofFailure::Replayed,
            None => ProofFailure::Mac,
        };
        self.admission.note_failure(failure, peer.ip(), now());
        Proof::Nothing
    }

    async fn take_channel(&self, socket: Socket, link: &Arc<EdgeLink>, proved: &ProvedChannel) {
        if socket.prepare().is_err() {
            return;
        }
        if proved.purpose == Purpose::Trunk {
            return self.take_trunk(socket, link, proved).await;
        }
        let counters = Arc::clone(&self.counters);
        match answer_channel(socket, proved, link.keys(), counters).await {
            Ok(channel) if proved.purpose == Purpose::Forward => self.private.serve(link, channel),
            Ok(channel) => link.add_channel(channel),
            Err(error) => {
                tracing::debug!(%error, link = %link.facts().id, "data channel was not set up");
            }
        }
    }

    async fn take_trunk(&self, socket: Socket, link: &Arc<EdgeLink>, proved: &ProvedChannel) {
        match link.take_trunk(socket, proved).await {
            Ok(Some((worker, run))) => self.trunks.spawn(worker, run),
            // The agent was asked for no more than there are workers.
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, link = %link.facts().id, "trunk was not set up");
            }
        }
    }

    /// Waits for a first message. Who proves nothing meets silence.
    async fn meet(&self, socket: &mut Socket, peer: SocketAddr) -> Option<Met> {
        let deadline = silence_deadline().ok()?;
        let permit = self.unproved.enter();
        let first = tokio::select! {
            first = read_first(socket, deadline) => first,
            () = permit.pushed_out() => return None,
        };
        match self.prove(first, peer) {
            Proof::Link(proof) => Some(Met::Agent(proof, permit)),
            Proof::Channel(link, proved) => Some(Met::Channel(link, proved)),
            Proof::Nothing => {
                tokio::select! {
                    () = stay_silent(socket, deadline) => {}
                    () = permit.pushed_out() => {}
                }
                None
            }
        }
    }

    fn answer(&self, (proved, candidate): &Proved) -> Result<EdgeHandshake, NotAdmitted> {
        let fresh = EdgeFresh {
            ephemeral: entropy::random()?,
            nonce: entropy::random()?,
        };
        let identity = self.admission.identity();
        let (keys, now) = (candidate.keys(), now());
        let started = EdgeHandshake::start(proved, keys, identity, fresh, suites(), now)?;
        Ok(started)
    }

    async fn admit(
        &self,
        socket: &mut Socket,
        peer: SocketAddr,
        (proof, permit): (Box<Proved>, UnprovedPermit),
    ) -> Result<Box<Live>, NotAdmitted> {
        let _handshake = tokio::select! {
            place = self.handshakes.acquire() => place,
            () = permit.pushed_out() => return Err(NotAdmitted::Slow),
        };
        drop(permit);
        let (_, candidate) = &*proof;
        socket.prepare()?;
        let mut handshake = self.answer(&proof)?;
        let EdgeEvent::AgentProved {
            identity,
            instance,
            version,
        } = step(socket, &mut handshake).await?
        else {
            return Err(NotAdmitted::OutOfTurn);
        };
        let applicant = Applicant {
            identity,
            instance,
            version,
            peer,
        };
        let mut pin = None;
        if self.admission.needs_pin(&identity, candidate) {
            handshake.ask_pin()?;
            let EdgeEvent::PinOffered(proof) = step(socket, &mut handshake).await? else {
                return Err(NotAdmitted::OutOfTurn);
            };
            pin = Some(self.admission.check_pin(&applicant, &proof, now()));
        }
        let proved_at = tokio::time::Instant::now();
        let admitted = match self.admission.admit(&applicant, candidate, pin).await {
            Ok(admitted) => admitted,
            Err(cause) => {
                tokio::time::sleep_until(proved_at + REFUSE_AFTER).await;
                match cause {
                    Cause::TooManyAgents | Cause::TooManyLinks => handshake.refuse_full()?,
                    _ => handshake.refuse()?,
                }
                send_all(socket, &mut handshake).await?;
                return Err(NotAdmitted::Refused(cause));
            }
        };
        let facts = self.facts((identity, instance), (peer, socket.carrier()));
        let auth = self.auth_ok(&facts, &admitted);
        let timing = Timing {
            heartbeat: self.settings.heartbeat,
            dead: self.settings.dead_after,
        };
        let (bytes, session) = handshake.admit(&auth, timing, now())?;
        socket.write_all(&bytes).await?;
        socket.flush().await?;
        Ok(Box::new(Live {
            link: EdgeLink::new(facts, session.keys, Arc::clone(&self.counters)),
            admitted,
            control: Box::new(session.control),
        }))
    }

    fn facts(
        &self,
        (identity, instance): (PublicKey, InstanceId),
        (peer, carrier): (SocketAddr, Carrier),
    ) -> LinkFacts {
        LinkFacts {
            id: LinkId(self.next_link.fetch_add(1, Ordering::Relaxed)),
            identity,
            instance,
            peer,
            carrier,
            max_channels: self.settings.max_channels,
            idle_channels: self.settings.idle_channels,
            workers: self.settings.workers,
        }
    }

    fn auth_ok(&self, facts: &LinkFacts, admitted: &Admitted) -> AuthOk {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        AuthOk {
            link: facts.id,
            agent_secret: admitted.agent_secret.clone(),
            url_pattern: self.settings.url_pattern.clone(),
            heartbeat_ms: millis(self.settings.heartbeat),
            dead_ms: millis(self.settings.dead_after),
            idle_channels: first_idle(self.settings.idle_channels),
            max_channels: self.settings.max_channels,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            doors: self.settings.doors.clone(),
        }
    }

    async fn run_link(&self, socket: Socket, live: Box<Live>) {
        let Live {
            link,
            admitted,
            control,
        } = *live;
        let facts = link.facts();
        let id = facts.id;
        self.registry
            .add_link(Arc::clone(&link), admitted.owner, self.admission.unix_now());
        let _live = self.metrics.link.links.hold();
        self.metrics.link.opened.add(1);
        tracing::info!(link = %id, agent = %facts.identity, peer = %facts.peer, carrier = %facts.carrier, "link is live");
        let context = tunnels::Context {
            registry: &self.registry,
            ports: &self.ports,
            udp_ports: &self.udp_ports,
            rules: &self.rules,
            link: &link,
            admitted: &admitted,
            settings: &self.settings,
        };
        let control = run_control(socket, control, link.outbox(), link.ended(), |event| {
            context.on_event(event)
        });
        let revoked = async {
            admitted.seat.revoked().await;
            let text = Code::REVOKED.title.to_owned();
            link.send(Message::Error {
                code: Code::REVOKED.number,
                text,
            });
            link.cut();
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = control => end,
            () = revoked => ControlEnd::Stopped,
        };
        self.registry.remove_link(id, now());
        match end {
            ControlEnd::Dead => self.metrics.link.dead.add(1),
            ControlEnd::Protocol => {
                self.counters.bad_frames.fetch_add(1, Ordering::Relaxed);
            }
            ControlEnd::Closed | ControlEnd::Stopped => {}
        }
        let why = if admitted.seat.is_revoked() {
            "the agent is revoked"
        } else {
            end.why()
        };
        tracing::info!(link = %id, agent = %facts.identity, why, "link ended");
    }
}

/// One step of the handshake, within its own deadline.
async fn step(
    socket: &mut Socket,
    handshake: &mut EdgeHandshake,
) -> Result<EdgeEvent, NotAdmitted> {
    let deadline = handshake.deadline().into();
    let event = tokio::time::timeout_at(deadline, next_event(socket, handshake)).await;
    Ok(event.map_err(|_| NotAdmitted::Slow)??)
}

/// The runtime's clock, so that a paused one drives this too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
