//! The side that asks to come in.

use std::sync::Arc;

use adit_model::{Identity, PublicKey, TunnelName};
use adit_wire::{FrameKind, Verdict};

use super::{
    FORWARDER, PEER_FIRST_LEN, PeerError, PeerEvent, PeerFresh, PeerSession, Stage, TARGET,
    VERSION, frame, transcript,
};
use crate::handshake::{ANSWER_LEN, HandshakeError};
use crate::keys::{Secret, share_of, shared};
use crate::seal::{Suite, Suites};

enum State {
    AwaitAnswer(Secret),
    AwaitHello(Box<Stage>),
    AwaitVerdict(Box<Stage>),
    Live(Box<PeerSession>),
    Refused,
    Failed,
}

/// The forwarder's side.
pub struct PeerForwarder {
    state: State,
    name: TunnelName,
    target: PublicKey,
    identity: Arc<Identity>,
    suites: Suites,
    first: [u8; PEER_FIRST_LEN],
    output: Vec<u8>,
    event: Option<PeerEvent>,
}

impl PeerForwarder {
    /// Begins a stream to the tunnel `name` of the agent whose key is `target`.
    ///
    /// # Errors
    /// [`HandshakeError::Key`] when the ephemeral key is refused.
    #[expect(clippy::needless_pass_by_value, reason = "fresh bytes are used once")]
    pub fn start(
        name: TunnelName,
        target: PublicKey,
        identity: Arc<Identity>,
        fresh: PeerFresh,
        suites: Suites,
    ) -> Result<Self, PeerError> {
        let ephemeral = Secret::new(fresh.ephemeral);
        let share = share_of(&ephemeral).map_err(HandshakeError::from)?;
        let mut first = [0; PEER_FIRST_LEN];
        first[..2].copy_from_slice(&[VERSION, suites.to_byte()]);
        first[4..20].copy_from_slice(&fresh.nonce);
        first[20..].copy_from_slice(&share);
        Ok(Self {
            state: State::AwaitAnswer(ephemeral),
            name,
            target,
            identity,
            suites,
            first,
            output: first.to_vec(),
            event: None,
        })
    }

    /// Takes what belongs to the handshake off the front of `bytes`; how many
    /// that were. The caller gives the rest again, with what came since.
    ///
    /// # Errors
    /// See [`PeerError`]; every error is final.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<usize, PeerError> {
        let mut taken = 0;
        loop {
            let before = std::mem::replace(&mut self.state, State::Failed);
            let rest = bytes.get(taken..).unwrap_or_default();
            let (after, count) = self.step(before, rest)?;
            self.state = after;
            taken += count;
            if count == 0 {
                return Ok(taken);
            }
        }
    }

    /// One step and the bytes that it took; 0 when it needs more of them.
    fn step(&mut self, state: State, bytes: &[u8]) -> Result<(State, usize), PeerError> {
        match state {
            State::AwaitAnswer(ephemeral) => match bytes.first_chunk::<ANSWER_LEN>() {
                None => Ok((State::AwaitAnswer(ephemeral), 0)),
                Some(answer) => {
                    let stage = self.on_answer(&ephemeral, answer)?;
                    Ok((State::AwaitHello(Box::new(stage)), ANSWER_LEN))
                }
            },
            State::AwaitHello(mut stage) => match frame(bytes, &mut stage.opener)? {
                None => Ok((State::AwaitHello(stage), 0)),
                Some((FrameKind::HELLO, body, count)) => {
                    let presented = stage.take_hello(TARGET, &body)?;
                    if presented != self.target {
                        let expected = self.target;
                        return Err(PeerError::WrongPeer {
                            expected,
                            presented,
                        });
                    }
                    stage.send_hello(FORWARDER, &self.identity, &mut self.output)?;
                    Ok((State::AwaitVerdict(stage), count))
                }
                Some((kind, ..)) => Err(HandshakeError::Unexpected(kind).into()),
            },
            State::AwaitVerdict(mut stage) => match frame(bytes, &mut stage.opener)? {
                None => Ok((State::AwaitVerdict(stage), 0)),
                Some((FrameKind::VERDICT, body, count)) => {
                    Ok((self.on_verdict(&stage, &body)?, count))
                }
                Some((kind, ..)) => Err(HandshakeError::Unexpected(kind).into()),
            },
            over @ (State::Live(_) | State::Refused) => Ok((over, 0)),
            State::Failed => Err(HandshakeError::BadState.into()),
        }
    }

    fn on_answer(
        &self,
        ephemeral: &Secret,
        answer: &[u8; ANSWER_LEN],
    ) -> Result<Stage, HandshakeError> {
        let (share, tail) = answer
            .split_first_chunk::<32>()
            .ok_or(HandshakeError::BadState)?;
        let (version, suite) = (tail[16], tail[17]);
        if version != VERSION {
            return Err(HandshakeError::NoCommonVersion);
        }
        let suite = Suite::from_number(suite)
            .filter(|suite| self.suites.has(*suite))
            .ok_or(HandshakeError::NoCommonSuite)?;
        let dh = shared(ephemeral, share)?;
        let mut transcript = transcript(&self.name, &self.first);
        transcript.add(&[answer]);
        Ok(Stage::new(transcript, suite, &dh, FORWARDER)?)
    }

    fn on_verdict(&mut self, stage: &Stage, body: &[u8]) -> Result<State, HandshakeError> {
        if Verdict::decode(body)? == Verdict::Refused {
            self.event = Some(PeerEvent::Refused);
            return Ok(State::Refused);
        }
        self.event = Some(PeerEvent::Live);
        Ok(State::Live(Box::new(stage.session(FORWARDER)?)))
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

impl std::fmt::Debug for PeerForwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerForwarder({})", self.name)
    }
}
