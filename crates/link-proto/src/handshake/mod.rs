//! The link handshake: SIGMA-I with a pre-shared secret.
//!
//! ```text
//! agent                                              edge
//!   first message (128 bytes)            ->
//!                                        <-   answer (50 bytes)
//!                                        <-   {HELLO}
//!   {HELLO}                              ->
//!                                        <-   {PIN_WANTED}      where policy asks
//!   {PIN_PROOF}                          ->
//!                                        <-   {VERDICT}
//!                                        <-   [AUTH_OK]
//! ```
//!
//! `{}` is sealed under the handshake keys, `[]` under the session keys, which
//! come from the transcript through the agent's last proof. What happens from
//! the answer on is in [`crate::stage`].
//!
//! Invariants: any error is final; an identity is told only to a peer whose
//! MAC (agent) or signature (edge) was checked; input is bounded.

mod agent;
mod edge;

use std::sync::Arc;

use adit_model::PublicKey;
use adit_wire::{DecodeError, EncodeError, FrameKind};

use crate::control::{Control, ControlError};
use crate::keys::KeyError;
use crate::seal::{OpenError, Opener, SealError};
use crate::session::{Labels, SessionKeys};
use crate::stage::{Words, frame};

pub use agent::{AgentEvent, AgentFresh, AgentHandshake};
pub use edge::{EdgeEvent, EdgeFresh, EdgeHandshake, PinProof};

const WORDS: Words = Words {
    directions: Labels {
        agent_to_edge: "adit/1 handshake agent to edge",
        edge_to_agent: "adit/1 handshake edge to agent",
    },
    master: "adit/1 master",
    finished: ["adit/1 agent finished", "adit/1 edge finished"],
    signatures: [b"adit/1 agent signature\0", b"adit/1 edge signature\0"],
};

/// Why a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The other side speaks no version that this one does.
    #[error("no common protocol version: one side must be updated")]
    NoCommonVersion,
    /// The other side chose or offered no usable cipher suite.
    #[error("no common cipher suite")]
    NoCommonSuite,
    /// Somebody else than the pinned edge answered.
    #[error("the edge has another key: expected {expected}, it presented {presented}")]
    WrongEdge {
        /// The key of the join string or of an earlier session.
        expected: PublicKey,
        /// The key that was presented.
        presented: PublicKey,
    },
    /// The signature does not fit the transcript and the identity.
    #[error("the other side's signature does not verify")]
    BadSignature,
    /// The finished MAC does not fit.
    #[error("the handshake was altered on its way")]
    BadFinished,
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A frame did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A frame could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A body was malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A body could not be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A frame that has no place here.
    #[error("unexpected frame {0:?}")]
    Unexpected(FrameKind),
    /// More bytes than a handshake has.
    #[error("too many bytes before the handshake was done")]
    TooMuch,
    /// The state does not allow this call, or the handshake failed before.
    #[error("handshake is not in a state for this")]
    BadState,
    /// Bytes behind the handshake were refused by the control channel.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// A live link.
#[derive(Debug)]
pub struct Session {
    /// Its control channel; bytes that came behind the handshake are in it.
    pub control: Control,
    /// What its data channels draw on.
    pub keys: Arc<SessionKeys>,
}

/// Input that is not whole yet.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    max: usize,
}

impl Input {
    fn new(max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            max,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        if self.bytes.len() + bytes.len() > self.max {
            return Err(HandshakeError::TooMuch);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes a whole frame off the front and opens it.
    fn frame(
        &mut self,
        opener: &mut Opener,
        max_payload: usize,
    ) -> Result<Option<(FrameKind, Vec<u8>)>, HandshakeError> {
        let Some((kind, payload, length)) = frame(&self.bytes, opener, max_payload)? else {
            return Ok(None);
        };
        self.bytes.drain(..length);
        Ok(Some((kind, payload)))
    }
}

#[cfg(test)]
mod tests;
