//! The link door: sockets of strangers become links and data channels.
//!
//! Everything before a proof is bounded: one fixed-size message, one look-up,
//! one MAC, no public-key operation, not one byte sent. Every failure before
//! it ends in the same silence (`adit_link::accept`); every refusal after it
//! is the same answer after the same time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_link::accept::{answer_channel, next_event, read_first, send_all, silence_deadline, stay_silent};
use adit_link::control::{ControlEnd, run_control};
use adit_link::edge::{EdgeLink, LinkFacts};
use adit_link::socket::{prepare, suites};
use adit_link::{Counters, entropy};
use adit_link_proto::{EdgeEvent, EdgeFresh, EdgeHandshake, First, ProvedLink, Session, Timing};
use adit_model::{InstanceId, LinkId, PublicKey};
use adit_wire::AuthOk;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::admission::{Admission, Admitted, Candidate, PinCheck};
use crate::limits::{Limits, Strike, UnprovedSockets};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::tunnels;

/// When a refusal is sent, counted from the agent's last proof: longer than
/// any of the checks takes.
const REFUSE_AFTER: Duration = Duration::from_millis(500);
/// How long a person may take to type the PIN.
const PIN_TIME: Duration = Duration::from_secs(90);

/// What every link is told when it is admitted.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Where visitors find a tunnel: `http://{name}.example.test`.
    pub url_pattern: String,
    /// How often each side asks the other for a sign of life.
    pub heartbeat: Duration,
    /// Silence for this long ends a link.
    pub dead_after: Duration,
    /// Idle data channels wanted at the start.
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
    /// Bans and proof failures.
    pub limits: Arc<Limits>,
    /// The cap of sockets that have proved nothing.
    pub unproved: Arc<UnprovedSockets>,
    /// Counters of the process.
    pub metrics: Arc<Metrics>,
    /// Counters of the driver.
    pub counters: Arc<Counters>,
    /// What links are told.
    pub settings: LinkSettings,
    /// The next link's id.
    pub next_link: AtomicU64,
}

/// What a first message turned out to be.
enum Proof {
    Link(ProvedLink, Candidate),
    Channel(Arc<EdgeLink>, adit_link_proto::ProvedChannel),
    Nothing,
}

/// Serves one socket of the link door.
pub async fn serve(door: Arc<LinkDoor>, mut socket: TcpStream, peer: SocketAddr) {
    let Ok(deadline) = silence_deadline() else { return };
    let permit = door.unproved.enter();
    let first = tokio::select! {
        first = read_first(&mut socket, deadline) => first,
        () = permit.pushed_out() => return,
    };
    let proof = first.map_or(Proof::Nothing, |bytes| door.prove(&First::parse(&bytes), peer));
    match proof {
        Proof::Nothing => {
            tokio::select! {
                () = stay_silent(socket, deadline) => {}
                () = permit.pushed_out() => {}
            }
        }
        Proof::Channel(link, proved) => {
            drop(permit);
            Box::pin(door.take_channel(socket, &link, &proved)).await;
        }
        Proof::Link(proved, candidate) => {
            drop(permit);
            // Boxed, so that ten thousand silent sockets do not pay for it.
            Box::pin(door.take_link(socket, peer, &proved, candidate)).await;
        }
    }
}

impl LinkDoor {
    /// One look-up, one MAC. A banned address gets no further than a stranger.
    fn prove(&self, first: &First, peer: SocketAddr) -> Proof {
        if let Some(link) = self.registry.session(first.id()) {
            return match link.keys().prove_channel(first) {
                Some(proved) if link.keys().burn(proved.number) => Proof::Channel(link, proved),
                _ => self.failed(peer, Strike::Proof),
            };
        }
        if self.limits.banned(peer.ip(), Instant::now()).is_some() {
            return Proof::Nothing;
        }
        let Some(candidate) = self.admission.candidate(first.id()) else {
            return self.failed(peer, Strike::Proof);
        };
        let Some(proved) = first.prove_link(candidate.keys(), &self.admission.identity().public()) else {
            return self.failed(peer, Strike::Proof);
        };
        match self.admission.check_replay(first) {
            Ok(()) => Proof::Link(proved, candidate),
            Err(why) => {
                tracing::info!(%peer, %why, "first message refused");
                self.failed(peer, Strike::Proof)
            }
        }
    }

    fn failed(&self, peer: SocketAddr, strike: Strike) -> Proof {
        self.metrics.link.proof_failures.add(1);
        self.limits.strike(peer.ip(), strike, Instant::now());
        Proof::Nothing
    }

    async fn take_channel(&self, socket: TcpStream, link: &Arc<EdgeLink>, proved: &adit_link_proto::ProvedChannel) {
        if prepare(&socket).is_err() {
            return;
        }
        let counters = Arc::clone(&self.counters);
        match answer_channel(socket, proved, link.keys(), counters).await {
            Ok(channel) => link.add_channel(channel),
            Err(error) => tracing::debug!(%error, link = %link.facts().id, "data channel was not set up"),
        }
    }

    async fn take_link(self: &Arc<Self>, mut socket: TcpStream, peer: SocketAddr, proved: &ProvedLink, candidate: Candidate) {
        match Box::pin(self.admit(&mut socket, peer, proved, candidate)).await {
            Ok((facts, admitted, session)) => self.run_link(socket, facts, &admitted, session).await,
            Err(why) => {
                tracing::info!(%peer, %why, "link was not admitted");
                self.metrics.link.refused.add(1);
            }
        }
    }

    async fn admit(&self, socket: &mut TcpStream, peer: SocketAddr, proved: &ProvedLink, candidate: Candidate) -> Result<(LinkFacts, Admitted, Session), String> {
        prepare(socket).map_err(text)?;
        let fresh = EdgeFresh { ephemeral: entropy::random().map_err(text)?, nonce: entropy::random().map_err(text)? };
        let identity = self.admission.identity();
        let mut handshake = EdgeHandshake::start(proved, candidate.keys(), identity, fresh, suites()).map_err(text)?;
        let patience = self.settings.dead_after;
        let event = tokio::time::timeout(patience, next_event(socket, &mut handshake)).await;
        let EdgeEvent::AgentProved { identity: agent, instance, version } = event.map_err(text)?.map_err(text)? else {
            return Err("agent sent a PIN before it was asked".into());
        };
        let mut proved_at = tokio::time::Instant::now();
        let mut verdict = Ok(());
        if self.admission.needs_pin(&agent, &candidate) {
            handshake.ask_pin();
            let event = tokio::time::timeout(PIN_TIME, next_event(socket, &mut handshake)).await;
            let EdgeEvent::PinOffered(proof) = event.map_err(text)?.map_err(text)? else {
                return Err("agent answered something else than a PIN".into());
            };
            proved_at = tokio::time::Instant::now();
            verdict = match self.admission.check_pin(peer.ip(), &proof, Instant::now()) {
                PinCheck::Right => Ok(()),
                PinCheck::Wrong => Err("wrong PIN".to_owned()),
                PinCheck::Later => Err("too many PIN attempts".to_owned()),
            };
        }
        let others = self.registry.other_agents(&agent);
        let admitted = match verdict {
            Ok(()) => self.admission.admit(&agent, &candidate, others, &version).map_err(text),
            Err(why) => Err(why),
        };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(why) => {
                tokio::time::sleep_until(proved_at + REFUSE_AFTER).await;
                handshake.refuse();
                send_all(socket, &mut handshake).await.map_err(text)?;
                self.limits.strike(peer.ip(), Strike::Proof, Instant::now());
                return Err(why);
            }
        };
        let facts = self.facts(agent, instance, peer);
        let auth = self.auth_ok(&facts, &admitted);
        let timing = Timing { heartbeat: self.settings.heartbeat, dead: self.settings.dead_after };
        let (bytes, session) = handshake.admit(&auth, timing, now()).map_err(text)?;
        socket.write_all(&bytes).await.map_err(text)?;
        Ok((facts, admitted, session))
    }

    fn facts(&self, identity: PublicKey, instance: InstanceId, peer: SocketAddr) -> LinkFacts {
        LinkFacts {
            id: LinkId(self.next_link.fetch_add(1, Ordering::Relaxed)),
            identity,
            instance,
            peer,
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
            idle_channels: self.settings.idle_channels,
            max_channels: self.settings.max_channels,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    async fn run_link(self: &Arc<Self>, socket: TcpStream, facts: LinkFacts, admitted: &Admitted, session: Session) {
        let (id, identity, peer) = (facts.id, facts.identity, facts.peer);
        let link = EdgeLink::new(facts, session.keys, Arc::clone(&self.counters));
        self.registry.add_link(Arc::clone(&link), admitted.owner.clone(), self.admission.unix_now());
        self.metrics.link.live.up();
        tracing::info!(link = %id, agent = %identity, %peer, "link is live");
        // Revoked between its proof and now.
        if !self.admission.still_admitted(&identity) {
            link.cut();
        }
        let context = tunnels::Context { registry: &self.registry, link: &link, admitted, settings: &self.settings };
        let end = run_control(socket, session.control, link.outbox(), link.ended(), |event| context.on_event(event)).await;
        self.registry.remove_link(id, now());
        self.metrics.link.live.down();
        if end == ControlEnd::Protocol {
            self.metrics.link.protocol_errors.add(1);
        }
        tracing::info!(link = %id, agent = %identity, why = end.why(), "link ended");
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
