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

use adit_model::{PublicKey, TunnelName};
use adit_wire::{FINISHED_FIELD, FrameKind, HEAD, Hello, LENGTH, TAG};

use crate::handshake::{HandshakeError, VERSION};
use crate::keys::{KeyError, Secret, expand, extract, mac, same};
use crate::seal::{Opener, Sealer, Suite};
use crate::session::{Labels, Role, directions};
use crate::transcript::Transcript;

pub use forwarder::PeerForwarder;
pub use target::PeerTarget;

/// Bytes of the forwarder's first message: versions 1, suites 1, zeros 2,
/// nonce 16, share 32.
pub const PEER_FIRST_LEN: usize = 52;
/// Most bytes of payload of a frame of this handshake.
const MAX_PAYLOAD: usize = 1024;
/// The stream number in every frame between two agents.
pub const PEER_STREAM: u32 = 0;

const HANDSHAKE: Labels = Labels {
    agent_to_edge: "adit/1 peer handshake forwarder to target",
    edge_to_agent: "adit/1 peer handshake target to forwarder",
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
    /// [`PeerTarget::decide`].
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

/// What both sides have after the answer.
struct Stage {
    transcript: Transcript,
    suite: Suite,
    sealer: Sealer,
    opener: Opener,
    master: Secret,
    forwarder_finished: Secret,
    target_finished: Secret,
}

impl Stage {
    fn new(
        transcript: Transcript,
        suite: Suite,
        dh: &Secret,
        role: Role,
    ) -> Result<Self, KeyError> {
        let prk = extract(transcript.hash(), &[dh.as_slice()]);
        let (sealer, opener) = directions(suite, &prk, &HANDSHAKE, &[], role)?;
        Ok(Self {
            transcript,
            suite,
            sealer,
            opener,
            master: expand(&prk, "adit/1 peer master", &[]),
            forwarder_finished: expand(&prk, "adit/1 peer forwarder finished", &[]),
            target_finished: expand(&prk, "adit/1 peer target finished", &[]),
        })
    }

    fn signed(&self, signer: Role, identity: &PublicKey) -> Vec<u8> {
        let label: &[u8] = match signer {
            FORWARDER => b"adit/1 peer forwarder signature\0",
            TARGET => b"adit/1 peer target signature\0",
        };
        [label, self.transcript.hash(), &identity.0].concat()
    }

    fn finished(&self, sender: Role, unfinished: &[u8]) -> [u8; 32] {
        let key = match sender {
            FORWARDER => &self.forwarder_finished,
            TARGET => &self.target_finished,
        };
        mac(key.as_slice(), &[self.transcript.hash(), unfinished])
    }

    /// Appends this side's sealed `HELLO`.
    fn send_hello(
        &mut self,
        sender: Role,
        identity: &adit_model::Identity,
        out: &mut Vec<u8>,
    ) -> Result<(), HandshakeError> {
        let public = identity.public();
        let hello = Hello {
            identity: public,
            signature: identity.sign(&self.signed(sender, &public)),
            instance: None,
            version: None,
            finished: [0; 32],
        };
        let mut body = Vec::with_capacity(256);
        hello.encode_unfinished(&mut body)?;
        Hello::encode_finished(self.finished(sender, &body), &mut body);
        self.sealer
            .append(FrameKind::HELLO, PEER_STREAM, &body, out)?;
        self.transcript.add(&[&[FrameKind::HELLO.0], &body]);
        Ok(())
    }

    /// Checks a `HELLO` of `sender`; its identity is the caller's to judge.
    fn take_hello(&mut self, sender: Role, body: &[u8]) -> Result<PublicKey, HandshakeError> {
        let hello = Hello::decode(body)?;
        let unfinished = body.len().saturating_sub(FINISHED_FIELD);
        let unfinished = body.get(..unfinished).unwrap_or_default();
        if !same(&self.finished(sender, unfinished), &hello.finished) {
            return Err(HandshakeError::BadFinished);
        }
        let signed = self.signed(sender, &hello.identity);
        let verified = hello.identity.verify(&signed, &hello.signature);
        verified.map_err(|_| HandshakeError::BadSignature)?;
        self.transcript.add(&[&[FrameKind::HELLO.0], body]);
        Ok(hello.identity)
    }

    /// The keys of the stream; the forwarder's `HELLO` is in the transcript.
    fn session(&self, role: Role) -> Result<PeerSession, KeyError> {
        let prk = extract(self.transcript.hash(), &[self.master.as_slice()]);
        let (sealer, opener) = directions(self.suite, &prk, &DATA, &[], role)?;
        Ok(PeerSession { sealer, opener })
    }
}

fn transcript(name: &TunnelName, first: &[u8; PEER_FIRST_LEN]) -> Transcript {
    let mut transcript = Transcript::peers();
    transcript.add(&[name.as_str().as_bytes()]);
    transcript.add(&[first]);
    transcript
}

/// The frame at the front of `bytes`, opened, and its length; `None` while it
/// is not whole.
fn frame(
    bytes: &[u8],
    opener: &mut Opener,
) -> Result<Option<(FrameKind, Vec<u8>, usize)>, HandshakeError> {
    let Some(head) = bytes.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = Opener::frame_len(head)?;
    if length > HEAD + MAX_PAYLOAD + TAG {
        return Err(HandshakeError::TooMuch);
    }
    let Some(frame) = bytes.get(..length) else {
        return Ok(None);
    };
    let mut frame = frame.to_vec();
    let opened = opener.open(&mut frame)?;
    if opened.flags != 0 || opened.stream != PEER_STREAM {
        return Err(HandshakeError::Unexpected(opened.kind));
    }
    let payload = frame.get(opened.payload).unwrap_or_default().to_vec();
    Ok(Some((opened.kind, payload, length)))
}

#[cfg(test)]
mod tests;
