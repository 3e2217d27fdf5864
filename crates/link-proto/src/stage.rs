//! SIGMA-I from the answer on, for whoever speaks it: an agent and an edge, and
//! two agents inside a private tunnel. They differ in the words that keys and
//! signatures are made with, in what is exchanged before, and in what is
//! decided with it.
//!
//! Each side signs its label, the transcript and its own key, and sends a MAC
//! over everything before it.

use adit_model::{Identity, InstanceId, PublicKey};
use adit_wire::{FINISHED_FIELD, FrameKind, HEAD, Hello, LENGTH, TAG};

use crate::handshake::HandshakeError;
use crate::keys::{KeyError, Secret, expand, extract, mac, same, share_of};
use crate::seal::{Opener, Sealer, Suite, Suites};
use crate::session::{Labels, Role, directions};
use crate::transcript::Transcript;

/// Bytes of an answer: share 32, nonce 16, version, suite.
pub const ANSWER_LEN: usize = 50;
/// The one version spoken here.
pub(crate) const VERSION: u8 = 1;
/// Most bytes of payload of a handshake frame.
pub(crate) const MAX_HANDSHAKE_PAYLOAD: usize = 1024;
/// The stream number in every frame of a handshake.
const STREAM: u32 = 0;

/// What keys and signatures of one handshake are made with; where there are
/// two, the first is of the side that begins.
pub(crate) struct Words {
    pub(crate) directions: Labels,
    pub(crate) master: &'static str,
    pub(crate) finished: [&'static str; 2],
    pub(crate) signatures: [&'static [u8]; 2],
}

/// What both sides have after the answer.
pub(crate) struct Stage {
    pub(crate) transcript: Transcript,
    pub(crate) suite: Suite,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    master: Secret,
    finished: [Secret; 2],
    signatures: [&'static [u8]; 2],
}

impl Stage {
    /// `transcript` holds everything through the answer, `shared` is what both
    /// sides alone know.
    pub(crate) fn new(
        words: &Words,
        transcript: Transcript,
        suite: Suite,
        shared: &[&[u8]],
        role: Role,
    ) -> Result<Self, KeyError> {
        let prk = extract(transcript.hash(), shared);
        let (sealer, opener) = directions(suite, &prk, &words.directions, &[], role)?;
        Ok(Self {
            transcript,
            suite,
            sealer,
            opener,
            master: expand(&prk, words.master, &[]),
            finished: words.finished.map(|word| expand(&prk, word, &[])),
            signatures: words.signatures,
        })
    }

    /// What a side signs.
    pub(crate) fn signed(&self, signer: Role, identity: &PublicKey) -> Vec<u8> {
        let [agent, edge] = self.signatures;
        let label = match signer {
            Role::Agent => agent,
            Role::Edge => edge,
        };
        [label, self.transcript.hash(), &identity.0].concat()
    }

    pub(crate) fn finished(&self, sender: Role, unfinished: &[u8]) -> [u8; 32] {
        let [agent, edge] = &self.finished;
        let key = match sender {
            Role::Agent => agent,
            Role::Edge => edge,
        };
        mac(key.as_slice(), &[self.transcript.hash(), unfinished])
    }

    /// Appends the sealed `HELLO` of `sender`, which is this side; `process`
    /// is what only a link's agent tells: its instance and version.
    pub(crate) fn send_hello(
        &mut self,
        sender: Role,
        identity: &Identity,
        process: Option<(InstanceId, String)>,
        out: &mut Vec<u8>,
    ) -> Result<(), HandshakeError> {
        let (instance, version) = process.unzip();
        let public = identity.public();
        let hello = Hello {
            identity: public,
            signature: identity.sign(&self.signed(sender, &public)),
            instance,
            version,
            // Written below: it covers the rest of the body.
            finished: [0; 32],
        };
        let mut body = Vec::with_capacity(256);
        hello.encode_unfinished(&mut body)?;
        Hello::encode_finished(self.finished(sender, &body), &mut body);
        self.send(FrameKind::HELLO, &body, out)
    }

    /// Checks a `HELLO` of `sender` against the transcript before it and adds
    /// it; the caller judges the identity.
    pub(crate) fn take_hello(
        &mut self,
        sender: Role,
        body: &[u8],
    ) -> Result<Hello, HandshakeError> {
        let hello = Hello::decode(body)?;
        let (unfinished, _) = body
            .split_at_checked(body.len().saturating_sub(FINISHED_FIELD))
            .ok_or(HandshakeError::BadFinished)?;
        if !same(&self.finished(sender, unfinished), &hello.finished) {
            return Err(HandshakeError::BadFinished);
        }
        let signed = self.signed(sender, &hello.identity);
        let verified = hello.identity.verify(&signed, &hello.signature);
        verified.map_err(|_| HandshakeError::BadSignature)?;
        self.transcript.add(&[&[FrameKind::HELLO.0], body]);
        Ok(hello)
    }

    /// Appends a sealed frame and adds it to the transcript.
    pub(crate) fn send(
        &mut self,
        kind: FrameKind,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), HandshakeError> {
        self.sealer.append(kind, STREAM, body, out)?;
        self.transcript.add(&[&[kind.0], body]);
        Ok(())
    }

    /// The key of the PIN's proof; `PIN_WANTED` is in the transcript.
    pub(crate) fn pin_key(&self) -> Secret {
        expand(&self.session_prk(), "adit/1 pin", &[])
    }

    /// The session's first key; the last proof of the side that begins is in
    /// the transcript, the verdict is not.
    pub(crate) fn session_prk(&self) -> Secret {
        extract(self.transcript.hash(), &[self.master.as_slice()])
    }
}

/// The answer to a first message.
pub(crate) fn answer(
    ephemeral: &Secret,
    nonce: &[u8; 16],
    suite: Suite,
) -> Result<Vec<u8>, KeyError> {
    let share = share_of(ephemeral)?;
    Ok([&share[..], nonce, &[VERSION, suite.number()]].concat())
}

/// The share and the suite of an answer, to an offer of `suites`.
pub(crate) fn read_answer(
    answer: &[u8; ANSWER_LEN],
    suites: Suites,
) -> Result<(&[u8; 32], Suite), HandshakeError> {
    let (share, tail) = answer
        .split_first_chunk::<32>()
        .ok_or(HandshakeError::BadState)?;
    let (version, suite) = (tail[16], tail[17]);
    if version != VERSION {
        return Err(HandshakeError::NoCommonVersion);
    }
    let suite = Suite::from_number(suite)
        .filter(|suite| suites.has(*suite))
        .ok_or(HandshakeError::NoCommonSuite)?;
    Ok((share, suite))
}

/// The frame at the front of `bytes`: its kind, its opened payload and its
/// length; `None` while it is not whole.
pub(crate) fn frame(
    bytes: &[u8],
    opener: &mut Opener,
    max_payload: usize,
) -> Result<Option<(FrameKind, Vec<u8>, usize)>, HandshakeError> {
    let Some(head) = bytes.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = Opener::frame_len(head)?;
    if length > HEAD + max_payload + TAG {
        return Err(HandshakeError::TooMuch);
    }
    let Some(frame) = bytes.get(..length) else {
        return Ok(None);
    };
    let mut frame = frame.to_vec();
    let opened = opener.open(&mut frame)?;
    if opened.flags != 0 || opened.stream != STREAM {
        return Err(HandshakeError::Unexpected(opened.kind));
    }
    let payload = frame.get(opened.payload).unwrap_or_default().to_vec();
    Ok(Some((opened.kind, payload, length)))
}
