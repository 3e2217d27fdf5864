//! The handshake between two agents inside a private tunnel: SIGMA-I between
//! the forwarder, which knows whom it wants, and the target, which decides who
//! may come in. The edge carries its bytes and can read, alter or repeat none
//! of them.
//!
//! ```text
//! forwarder                                          target
//!   first (52 bytes)                     ->
//!                                        <-   answer (50 bytes)
//!                                        <-   {HELLO}
//!   {HELLO}                              ->
//!                                        <-   {VERDICT}
//!   [DATA, FIN]                         <->   [DATA, FIN]
//! ```
//!
//! `{}` is sealed under the handshake keys, `[]` under the session keys. Both
//! sides add the tunnel's name to the transcript first, so that bytes meant for
//! one tunnel are worth nothing on another.
//!
//! Invariants: any error is final; the forwarder tells who it is only to the
//! identity that it has pinned; input is bounded; what comes behind the
//! handshake is left alone.

mod forwarder;
mod target;

use std::sync::Arc;

use adit_model::{Identity, PublicKey, TunnelName};

use crate::handshake::HandshakeError;
use crate::keys::{KeyError, Secret};
use crate::seal::{Opener, Sealer, Suites};
use crate::session::{Labels, Role, directions};
use crate::stage::{Stage, Words};
use crate::transcript::Transcript;

pub use forwarder::PeerForwarder;
pub use target::PeerTarget;

/// Bytes of the forwarder's first message: versions 1, suites 1, zeros 2,
/// nonce 16, share 32.
pub const PEER_FIRST_LEN: usize = 52;
/// The stream number in every frame between two agents.
pub const PEER_STREAM: u32 = 0;

const WORDS: Words = Words {
    directions: Labels {
        agent_to_edge: "adit/1 peer handshake forwarder to target",
        edge_to_agent: "adit/1 peer handshake target to forwarder",
    },
    master: "adit/1 peer master",
    finished: [
        "adit/1 peer forwarder finished",
        "adit/1 peer target finished",
    ],
    signatures: [
        b"adit/1 peer forwarder signature\0",
        b"adit/1 peer target signature\0",
    ],
};
const DATA: Labels = Labels {
    agent_to_edge: "adit/1 peer forwarder to target",
    edge_to_agent: "adit/1 peer target to forwarder",
};
/// The forwarder's place in pairs of directions: it begins, as an agent does.
const FORWARDER: Role = Role::Agent;
const TARGET: Role = Role::Edge;

/// Fresh random bytes of one side of one handshake.
pub struct PeerFresh {
    /// X25519 private key.
    pub ephemeral: [u8; 32],
    /// Nonce.
    pub nonce: [u8; 16],
}

/// Why two agents did not come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Somebody else than the pinned agent answered.
    #[error("another agent answered: expected {expected}, it presented {presented}")]
    WrongPeer {
        /// The pinned key.
        expected: PublicKey,
        /// The key that was presented.
        presented: PublicKey,
    },
    /// The other side broke the handshake, or bytes were altered on their way.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// What happened in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// At the target: the forwarder has proved this identity; call
    /// `PeerTarget::decide`.
    Proved(PublicKey),
    /// At the forwarder: the target lets nobody in with this identity.
    Refused,
    /// Both sides know each other: call `finish`.
    Live,
}

/// The two directions of a live stream between agents.
#[derive(Debug)]
pub struct PeerSession {
    /// Seals what this side sends.
    pub sealer: Sealer,
    /// Opens what comes.
    pub opener: Opener,
}

enum State {
    /// The other side's first words are due.
    Begun(Secret),
    AwaitHello(Box<Stage>),
    /// Both are known: the target decides.
    AwaitVerdict(Box<Stage>),
    Live(Box<PeerSession>),
    Refused,
    Failed,
}

/// One side of the handshake; `S` is what it alone has.
pub struct PeerHandshake<S> {
    side: S,
    state: State,
    name: TunnelName,
    identity: Arc<Identity>,
    suites: Suites,
    output: Vec<u8>,
    event: Option<PeerEvent>,
}

impl<S> PeerHandshake<S> {
    /// Takes as many steps as there are bytes for; how many they took.
    fn advance(
        &mut self,
        bytes: &[u8],
        step: impl Fn(&mut Self, State, &[u8]) -> Result<(State, usize), PeerError>,
    ) -> Result<usize, PeerError> {
        let mut taken = 0;
        loop {
            let before = std::mem::replace(&mut self.state, State::Failed);
            let rest = bytes.get(taken..).unwrap_or_default();
            let (after, count) = step(self, before, rest)?;
            self.state = after;
            taken += count;
            if count == 0 {
                return Ok(taken);
            }
        }
    }

    /// What both sides have seen of a handshake that began with `first`.
    fn transcript(&self, first: &[u8; PEER_FIRST_LEN], answer: &[u8]) -> Transcript {
        let mut transcript = Transcript::peers();
        transcript.add(&[self.name.as_str().as_bytes()]);
        transcript.add(&[first]);
        transcript.add(&[answer]);
        transcript
    }

    /// Bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.event.take()
    }

    /// The stream's keys.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] before [`PeerEvent::Live`].
    pub fn finish(self) -> Result<PeerSession, PeerError> {
        match self.state {
            State::Live(session) => Ok(*session),
            _ => Err(HandshakeError::BadState.into()),
        }
    }
}

impl<S> std::fmt::Debug for PeerHandshake<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerHandshake({})", self.name)
    }
}

/// The keys of the stream; the forwarder's `HELLO` is in the transcript, the
/// verdict is not.
fn session(stage: &Stage, role: Role) -> Result<PeerSession, KeyError> {
    let (sealer, opener) = directions(stage.suite, &stage.session_prk(), &DATA, &[], role)?;
    Ok(PeerSession { sealer, opener })
}

#[cfg(test)]
mod tests;
