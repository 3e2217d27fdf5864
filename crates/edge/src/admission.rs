//! Who may come in: from a stranger's first message to a live link.
//!
//! [`Admission::prove`] finds the secret that a first message names and checks
//! it (one look-up, one MAC, replay window); after the handshake proved the
//! agent's identity, [`Admission::needs_pin`] and [`Admission::check_pin`] deal
//! with the PIN, and [`Admission::admit`] gives the verdict by the pure rules
//! of `policy`.
//!
//! Invariants: the agent learns nothing but yes or no; the exact cause stands
//! in the audit log and in a counter. What an agent is promised is on disk
//! before it is told. A revoked agent's secret admits nobody from that moment
//! on, and its [`Seat`] tells its links to end.

mod audit;
mod clock;
mod manage;
mod pin;
mod policy;
mod seats;
mod secrets;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use adit_link_proto::{
    First, Knock, Owner, PinLimits, PinProof, ProvedLink, PskKeys, REPLAY_WINDOW, ReplayCache,
    ReplayError, SecretId, WallClock,
};
use adit_model::{Identity, InstanceId, Psk, PublicKey, TunnelName};

use self::audit::{Audit, Entry};
pub use self::clock::{SystemClock, TimeSource};
pub(crate) use self::manage::make_token;
pub use self::manage::{ManageError, TOKEN_LIFE, TokenWish};
use self::pin::PinDesk;
use self::policy::Facts;
pub use self::policy::{Cause, KeyPolicy, PinCheck, PinPolicy, Policy, Way};
pub use self::seats::Seat;
use self::seats::Seats;
use self::secrets::SecretMap;
use crate::limits::{Limits, Strike};
use crate::metrics::{AdmissionOutcome, Metrics, ProofFailure};
use crate::state::{AdmittedBy, Agent, Books, Keep, Seen, SeenProof, StateError, Store};
use adit_link::entropy::random;

/// Proofs remembered; an entry lives for twice the window at most.
const PROOFS: usize = 65_536;
/// Of these, by one secret.
const PROOFS_OF_ONE: usize = 32_768;

/// Under which signed requests stand among the seen proofs; the ids of secrets
/// are random.
const SIGNED_REQUESTS: SecretId = SecretId(*b"requests");

/// A proved pre-shared secret: where the handshake starts from.
pub struct Candidate {
    keys: PskKeys,
    psk: Psk,
    way: Way,
}

impl Candidate {
    /// The keys of the secret.
    #[must_use]
    pub fn keys(&self) -> &PskKeys {
        &self.keys
    }

    /// Which secret it is.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidate({:?})", self.way)
    }
}

/// An agent whose identity is proved.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// Its identity.
    pub identity: PublicKey,
    /// Which process of it.
    pub instance: InstanceId,
    /// What it says its version is.
    pub version: String,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// What an admitted agent gets.
#[derive(Debug)]
pub struct Admitted {
    /// Whose agent it is; agents of one owner share names.
    pub owner: Owner,
    /// Its own secret, which it is to use from now on; `None` when it did.
    pub agent_secret: Option<Psk>,
    /// The only tunnel it may open; `None` = any.
    pub scope: Option<TunnelName>,
    /// To be kept as long as the link lives.
    pub seat: Seat,
}

/// The rules and numbers of one edge.
#[derive(Clone, Debug, Default)]
pub struct AdmissionSettings {
    /// The rules.
    pub policy: Policy,
    /// The PIN's limits; 0 wrong PINs = no ban of an address.
    pub pin_limits: PinLimits,
}

struct Time {
    clock: WallClock,
    tidied: Option<Instant>,
}

/// The edge's admission.
pub struct Admission {
    settings: AdmissionSettings,
    store: Arc<Store>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    source: Arc<dyn TimeSource>,
    time: Mutex<Time>,
    secrets: Mutex<SecretMap>,
    replay: Mutex<ReplayCache>,
    pin: Mutex<PinDesk>,
    seats: Arc<Seats>,
    audit: Audit,
}

impl Admission {
    /// Takes up the work on a store. `seen` is what its log held.
    ///
    /// # Errors
    /// When the audit log cannot be opened.
    pub fn new(
        settings: AdmissionSettings,
        store: Arc<Store>,
        seen: &Seen,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        source: Arc<dyn TimeSource>,
    ) -> Result<Self, StateError> {
        let (boot, wall) = (source.since_boot(), source.wall());
        let clock = if seen.rebooted {
            WallClock::after_reboot(boot, wall)
        } else {
            WallClock::new(boot, wall)
        };
        let mut replay = ReplayCache::new(PROOFS, PROOFS_OF_ONE);
        replay.not_before(clock.not_before());
        replay.restore(seen.proofs.iter().map(|proof| adit_link_proto::Seen {
            id: SecretId(proof.id),
            nonce: proof.nonce,
            stamp: proof.stamp,
        }));
        let mut secrets = SecretMap::new(wall);
        secrets.insert(Way::SharedSecret, &store.shared_secret());
        store.read(|books| {
            for token in books.tokens() {
                secrets.insert(Way::Token(token.id), &token.secret);
            }
            for agent in books.agents() {
                secrets.insert(Way::AgentSecret(agent.key), &agent.secret);
            }
        });
        let is_pin_on = settings.policy.pin != PinPolicy::Off;
        Ok(Self {
            pin: Mutex::new(PinDesk::new(settings.pin_limits, is_pin_on)),
            settings,
            audit: Audit::open(Arc::clone(store.folder()))?,
            store,
            limits,
            metrics,
            source,
            time: Mutex::new(Time {
                clock,
                tidied: None,
            }),
            secrets: Mutex::new(secrets),
            replay: Mutex::new(replay),
            seats: Arc::default(),
        })
    }

    /// The edge's identity.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        self.store.identity()
    }

    /// The edge's data.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The time by which stamps are judged, unix seconds.
    #[must_use]
    pub fn unix_now(&self) -> u64 {
        lock(&self.time).clock.now(self.source.since_boot())
    }

    /// Judges a stranger's first message as the beginning of a link. Costs an
    /// unknown one a look-up. Counts and strikes by itself.
    ///
    /// # Errors
    /// Why it gets silence.
    pub fn prove(
        &self,
        first: &First,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(ProvedLink, Candidate), ProofFailure> {
        self.try_prove(first, peer, now)
            .inspect_err(|&failure| self.note_failure(failure, peer.ip(), now))
    }

    /// Whether a QUIC connection begins with a secret of this edge.
    pub(crate) fn knows(&self, knock: &Knock) -> bool {
        let way = lock(&self.secrets).find(knock.id());
        let psk = way.and_then(|way| self.psk_of(way));
        psk.is_some_and(|psk| knock.fits(&PskKeys::new(&psk), &self.identity().public()))
    }

    /// Whether an id names a secret of this edge now.
    pub(crate) fn names_secret(&self, id: SecretId) -> bool {
        lock(&self.secrets).find(id).is_some()
    }

    /// Counts a failed proof that was found elsewhere: a channel header's, or a
    /// first message that never came.
    pub fn note_failure(&self, failure: ProofFailure, from: IpAddr, now: Instant) {
        self.metrics.link.proof_failures.of(failure).add(1);
        let is_strike = match failure {
            ProofFailure::Unknown | ProofFailure::Mac | ProofFailure::Replayed => true,
            // A wrong clock, a full table, a slow network: no guess at a secret.
            ProofFailure::Stale
            | ProofFailure::Busy
            | ProofFailure::Incomplete
            | ProofFailure::Banned => false,
        };
        if is_strike && self.limits.strike(from, Strike::Proof, now) {
            let entry = Entry::new(self.unix_now(), "ban", "banned");
            let peer = SocketAddr::new(from, 0);
            self.audit.write(&entry.peer(peer).because("failed proofs"));
        }
    }

    fn try_prove(
        &self,
        first: &First,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(ProvedLink, Candidate), ProofFailure> {
        if self.limits.banned(peer.ip(), now).is_some() {
            return Err(ProofFailure::Banned);
        }
        let way = lock(&self.secrets).find(first.id());
        let way = way.ok_or(ProofFailure::Unknown)?;
        let psk = self.psk_of(way).ok_or(ProofFailure::Unknown)?;
        let keys = PskKeys::new(&psk);
        let edge = self.identity().public();
        let proved = first.prove_link(&keys, &edge).ok_or(ProofFailure::Mac)?;
        self.use_up(first.id(), first.nonce(), first.unix())
            .map_err(|(failure, cause)| {
                let entry = Entry::new(self.unix_now(), "first message", "ignored");
                self.audit.write(&entry.peer(peer).way(way).because(&cause));
                failure
            })?;
        Ok((proved, Candidate { keys, psk, way }))
    }

    /// Uses a signed request up, like a first message: `None` when its stamp is
    /// outside the window or its nonce was used. To be called when its
    /// signature was checked.
    pub(crate) fn use_request(&self, nonce: [u8; 16], stamp: u64) -> Option<()> {
        self.use_up(SIGNED_REQUESTS, nonce, stamp).ok()
    }

    /// Uses a proof up, in memory and on disk.
    fn use_up(
        &self,
        id: SecretId,
        nonce: [u8; 16],
        stamp: u64,
    ) -> Result<(), (ProofFailure, String)> {
        let unix = self.unix_now();
        let checked = lock(&self.replay).check(id, nonce, stamp, unix);
        checked.map_err(|error| {
            let failure = match error {
                ReplayError::Skewed(_) | ReplayError::TooEarly => ProofFailure::Stale,
                ReplayError::Replayed => ProofFailure::Replayed,
                ReplayError::TryLater => ProofFailure::Busy,
            };
            (failure, error.to_string())
        })?;
        let proof = SeenProof {
            id: id.0,
            nonce,
            stamp,
        };
        let oldest = unix.saturating_sub(REPLAY_WINDOW);
        self.store
            .remember_proof(&proof, oldest)
            .map_err(|error| (ProofFailure::Busy, error.to_string()))
    }

    fn psk_of(&self, way: Way) -> Option<Psk> {
        match way {
            Way::SharedSecret => Some(self.store.shared_secret()),
            Way::Token(id) => self
                .store
                .read(|books| books.token(id).map(|t| t.secret.clone())),
            Way::AgentSecret(key) => self
                .store
                .read(|books| books.agent(&key).map(|a| a.secret.clone())),
        }
    }

    /// Whether the PIN is to be asked for.
    #[must_use]
    pub fn needs_pin(&self, identity: &PublicKey, candidate: &Candidate) -> bool {
        let is_enrolled = self.store.read(|books| books.agent(identity).is_some());
        let before = lock(&self.pin).has_proved(identity);
        let pin = self.settings.policy.pin;
        policy::needs_pin(pin, candidate.way, is_enrolled, before)
    }

    /// Judges a PIN that was asked for. The answer goes to
    /// [`Admission::admit`], which speaks the verdict.
    #[must_use]
    pub fn check_pin(&self, applicant: &Applicant, proof: &PinProof, now: Instant) -> PinCheck {
        let identity = &applicant.identity;
        let enrols = self.store.read(|books| books.agent(identity).is_none());
        let from = applicant.peer.ip();
        let is_exempt = self.limits.is_exempt(from);
        let tried = lock(&self.pin).try_pin(|pin| proof.matches(pin), enrols, from, is_exempt, now);
        if tried.ban && self.limits.ban(from, self.limits.ban_length(), now) {
            let entry = Entry::new(self.unix_now(), "ban", "banned");
            self.audit
                .write(&entry.peer(applicant.peer).because("wrong PINs"));
        }
        tried.check
    }

    /// Admits an agent or refuses it; either is audited and counted. When this
    /// returns, what it grants is on disk.
    ///
    /// # Errors
    /// The cause, for the log; the agent is to get the one refusal.
    pub async fn admit(
        &self,
        applicant: &Applicant,
        candidate: &Candidate,
        pin: Option<PinCheck>,
    ) -> Result<Admitted, Cause> {
        let admitted = self.try_admit(applicant, candidate, pin).await;
        let (outcome, word) = match &admitted {
            Ok(_) => (AdmissionOutcome::Admitted, "admitted"),
            Err(cause) => (cause.outcome(), "refused"),
        };
        self.metrics.link.admissions.of(outcome).add(1);
        let mut entry = Entry::new(self.unix_now(), "admission", word)
            .agent(&applicant.identity)
            .peer(applicant.peer)
            .way(candidate.way)
            .version(&applicant.version);
        if let Err(cause) = &admitted {
            entry = entry.because(cause);
        }
        self.audit.write(&entry);
        admitted
    }

    async fn try_admit(
        &self,
        applicant: &Applicant,
        candidate: &Candidate,
        pin: Option<PinCheck>,
    ) -> Result<Admitted, Cause> {
        let (agent, seat) = self.judge(applicant.identity, candidate, pin)?;
        if let Err(error) = self.store.commit().await {
            tracing::error!(%error, "an admitted agent could not be saved");
            return Err(Cause::NotSaved);
        }
        if pin == Some(PinCheck::Right) {
            lock(&self.pin).note_proved(agent.key);
        }
        let way = Way::AgentSecret(agent.key);
        let is_known = candidate.way == way;
        if !is_known {
            lock(&self.secrets).insert(way, &agent.secret);
        }
        // Revoked while it was written.
        if seat.is_revoked() {
            lock(&self.secrets).remove(way);
            return Err(Cause::Revoked);
        }
        Ok(Admitted {
            owner: Owner::Shared,
            agent_secret: (!is_known).then_some(agent.secret),
            scope: agent.scope,
            seat,
        })
    }

    /// Decides, and enters the decision into the books, in one step.
    fn judge(
        &self,
        identity: PublicKey,
        candidate: &Candidate,
        pin: Option<PinCheck>,
    ) -> Result<(Agent, Seat), Cause> {
        let fresh = random().map_err(|_| Cause::NotSaved)?;
        let fresh = Psk::from_random(fresh);
        let now = self.unix_now();
        let way = candidate.way;
        let proved_pin_before = lock(&self.pin).has_proved(&identity);
        let is_shared_current = self.store.shared_secret() == candidate.psk;
        self.seats.take(identity, |others, own| {
            self.store.change(|books| {
                let is_current = match way {
                    Way::SharedSecret => is_shared_current,
                    Way::Token(_) => true,
                    Way::AgentSecret(key) => {
                        books.agent(&key).is_some_and(|a| a.secret == candidate.psk)
                    }
                };
                let facts = Facts {
                    identity,
                    way,
                    is_current,
                    is_enrolled: books.agent(&identity).is_some(),
                    proved_pin_before,
                    pin,
                    token: match way {
                        Way::Token(id) => books.check_token(id, &identity, now),
                        Way::SharedSecret | Way::AgentSecret(_) => Ok(()),
                    },
                    others,
                    own,
                };
                let entered = policy::decide(&self.settings.policy, &facts)
                    .and_then(|()| enter(books, identity, way, fresh, now));
                match entered {
                    Ok((keep, agent)) => (keep, Ok(agent)),
                    Err(cause) => (Keep::Nothing, Err(cause)),
                }
            })
        })
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admission")
    }
}

/// Enters an admission into the books.
fn enter(
    books: &mut Books,
    identity: PublicKey,
    way: Way,
    fresh: Psk,
    now: u64,
) -> Result<(Keep, Agent), Cause> {
    let by = match way {
        Way::SharedSecret => AdmittedBy::SharedSecret,
        Way::Token(id) => {
            let bound = books.bind_token(id, &identity, now);
            bound.map_err(|_| Cause::TokenTaken)?;
            AdmittedBy::Token(id)
        }
        Way::AgentSecret(_) => {
            let is_news = books.agent_came(&identity, now);
            let keep = if is_news { Keep::Now } else { Keep::Later };
            let agent = books.agent(&identity).ok_or(Cause::Revoked)?;
            return Ok((keep, agent.clone()));
        }
    };
    let enrolled = books.enrol(identity, by, fresh, now);
    let agent = enrolled.map_err(|_| Cause::BooksFull)?;
    Ok((Keep::Now, agent.clone()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
