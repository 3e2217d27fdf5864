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
//! `{}` is sealed under the handshake keys, `[]` under the session keys. Each
//! side signs its label, the transcript and its own key, and sends a MAC over
//! everything before it. The session keys come from the transcript through the
//! agent's last proof.
//!
//! Invariants: any error is final; an identity is told only to a peer whose
//! MAC (agent) or signature (edge) was checked; input is bounded.

mod agent;
mod edge;

use std::sync::Arc;

use adit_model::PublicKey;
use adit_wire::{DecodeError, EncodeError, FINISHED_FIELD, FrameKind, HEAD, Hello, LENGTH, TAG};

use crate::control::{Control, ControlError};
use crate::keys::{KeyError, Secret, expand, extract, mac, same};
use crate::seal::{OpenError, Opener, SealError, Sealer, Suite};
use crate::session::{HANDSHAKE, Role, SessionKeys, directions};
use crate::transcript::Transcript;

pub use agent::{AgentEvent, AgentFresh, AgentHandshake};
pub use edge::{EdgeEvent, EdgeFresh, EdgeHandshake, PinProof};

/// Bytes of the edge's answer: share 32, nonce 16, version, suite.
pub const ANSWER_LEN: usize = 50;
/// The one version spoken here.
pub(crate) const VERSION: u8 = 1;
/// Most bytes of payload of a handshake frame.
const MAX_HANDSHAKE_PAYLOAD: usize = 1024;

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

/// What both sides have after the answer.
struct Stage {
    transcript: Transcript,
    suite: Suite,
    sealer: Sealer,
    opener: Opener,
    master: Secret,
    edge_finished: Secret,
    agent_finished: Secret,
}

impl Stage {
    /// `transcript` holds the first message and the answer.
    fn new(
        transcript: Transcript,
        suite: Suite,
        dh: &Secret,
        psk: &[u8],
        role: Role,
    ) -> Result<Self, KeyError> {
        let prk = extract(transcript.hash(), &[dh.as_slice(), psk]);
        let (sealer, opener) = directions(suite, &prk, &HANDSHAKE, &[], role)?;
        Ok(Self {
            transcript,
            suite,
            sealer,
            opener,
            master: expand(&prk, "adit/1 master", &[]),
            edge_finished: expand(&prk, "adit/1 edge finished", &[]),
            agent_finished: expand(&prk, "adit/1 agent finished", &[]),
        })
    }

    /// What a side signs.
    fn signed(&self, signer: Role, identity: &PublicKey) -> Vec<u8> {
        let label: &[u8] = match signer {
            Role::Edge => b"adit/1 edge signature\0",
            Role::Agent => b"adit/1 agent signature\0",
        };
        [label, self.transcript.hash(), &identity.0].concat()
    }

    fn finished(&self, sender: Role, unfinished: &[u8]) -> [u8; 32] {
        let key = match sender {
            Role::Edge => &self.edge_finished,
            Role::Agent => &self.agent_finished,
        };
        mac(key.as_slice(), &[self.transcript.hash(), unfinished])
    }

    /// Writes a `HELLO` (its MAC is made here) and appends it sealed.
    fn send_hello(
        &mut self,
        sender: Role,
        mut hello: Hello,
        out: &mut Vec<u8>,
    ) -> Result<(), HandshakeError> {
        let mut body = Vec::with_capacity(256);
        hello.encode_unfinished(&mut body)?;
        hello.finished = self.finished(sender, &body);
        Hello::encode_finished(hello.finished, &mut body);
        self.send(FrameKind::HELLO, &body, out)
    }

    /// Checks a `HELLO` of `sender` against the transcript before it; the
    /// caller judges the identity, [`Stage::check_proof`] the proof.
    fn check_proof(&self, sender: Role, hello: &Hello, body: &[u8]) -> Result<(), HandshakeError> {
        let (unfinished, _) = body
            .split_at_checked(body.len().saturating_sub(FINISHED_FIELD))
            .ok_or(HandshakeError::BadFinished)?;
        if !same(&self.finished(sender, unfinished), &hello.finished) {
            return Err(HandshakeError::BadFinished);
        }
        hello
            .identity
            .verify(&self.signed(sender, &hello.identity), &hello.signature)
            .map_err(|_| HandshakeError::BadSignature)
    }

    /// Appends a sealed frame and adds it to the transcript.
    fn send(
        &mut self,
        kind: FrameKind,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), HandshakeError> {
        self.sealer.append(kind, 0, body, out)?;
        self.transcript.add(&[&[kind.0], body]);
        Ok(())
    }

    /// The key of the PIN's proof; `PIN_WANTED` is in the transcript.
    fn pin_key(&self) -> Secret {
        let prk = extract(self.transcript.hash(), &[self.master.as_slice()]);
        expand(&prk, "adit/1 pin", &[])
    }

    /// The session's first key; the agent's last proof is in the transcript.
    fn session_prk(&self) -> Secret {
        extract(self.transcript.hash(), &[self.master.as_slice()])
    }
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
        let Some(head) = self.bytes.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = Opener::frame_len(head)?;
        if length > HEAD + max_payload + TAG {
            return Err(HandshakeError::TooMuch);
        }
        if self.bytes.len() < length {
            return Ok(None);
        }
        let mut frame: Vec<u8> = self.bytes.drain(..length).collect();
        let opened = opener.open(&mut frame)?;
        if opened.flags != 0 || opened.stream != 0 {
            return Err(HandshakeError::Unexpected(opened.kind));
        }
        Ok(Some((opened.kind, frame[opened.payload].to_vec())))
    }
}

#[cfg(test)]
mod tests;
