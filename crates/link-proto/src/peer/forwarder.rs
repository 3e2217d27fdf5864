//! The side that asks to come in.

use std::sync::Arc;

use adit_model::{Identity, PublicKey, TunnelName};
use adit_wire::{FrameKind, Verdict};

use super::{
    FORWARDER, PEER_FIRST_LEN, PeerError, PeerEvent, PeerFresh, PeerHandshake, State, TARGET,
    WORDS, session,
};
use crate::handshake::HandshakeError;
use crate::keys::{Secret, share_of, shared};
use crate::seal::Suites;
use crate::stage::{ANSWER_LEN, MAX_HANDSHAKE_PAYLOAD, Stage, VERSION, frame, read_answer};

/// The forwarder's side.
pub type PeerForwarder = PeerHandshake<Forwarder>;

/// What the forwarder alone has.
pub struct Forwarder {
    target: PublicKey,
    first: [u8; PEER_FIRST_LEN],
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
            side: Forwarder { target, first },
            state: State::Begun(ephemeral),
            name,
            identity,
            suites,
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
        self.advance(bytes, Self::step)
    }

    /// One step and the bytes that it took; 0 when it needs more of them.
    fn step(&mut self, state: State, bytes: &[u8]) -> Result<(State, usize), PeerError> {
        match state {
            State::Begun(ephemeral) => match bytes.first_chunk::<ANSWER_LEN>() {
                None => Ok((State::Begun(ephemeral), 0)),
                Some(answer) => {
                    let stage = self.on_answer(&ephemeral, answer)?;
                    Ok((State::AwaitHello(Box::new(stage)), ANSWER_LEN))
                }
            },
            State::AwaitHello(mut stage) => {
                match frame(bytes, &mut stage.opener, MAX_HANDSHAKE_PAYLOAD)? {
                    None => Ok((State::AwaitHello(stage), 0)),
                    Some((FrameKind::HELLO, body, count)) => {
                        self.on_hello(&mut stage, &body)?;
                        Ok((State::AwaitVerdict(stage), count))
                    }
                    Some((kind, ..)) => Err(HandshakeError::Unexpected(kind).into()),
                }
            }
            State::AwaitVerdict(mut stage) => {
                match frame(bytes, &mut stage.opener, MAX_HANDSHAKE_PAYLOAD)? {
                    None => Ok((State::AwaitVerdict(stage), 0)),
                    Some((FrameKind::VERDICT, body, count)) => {
                        Ok((self.on_verdict(&stage, &body)?, count))
                    }
                    Some((kind, ..)) => Err(HandshakeError::Unexpected(kind).into()),
                }
            }
            over @ (State::Live(_) | State::Refused) => Ok((over, 0)),
            State::Failed => Err(HandshakeError::BadState.into()),
        }
    }

    fn on_answer(
        &self,
        ephemeral: &Secret,
        answer: &[u8; ANSWER_LEN],
    ) -> Result<Stage, HandshakeError> {
        let (share, suite) = read_answer(answer, self.suites)?;
        let dh = shared(ephemeral, share)?;
        let transcript = self.transcript(&self.side.first, answer);
        let secrets: [&[u8]; 1] = [dh.as_slice()];
        Ok(Stage::new(&WORDS, transcript, suite, &secrets, FORWARDER)?)
    }

    fn on_hello(&mut self, stage: &mut Stage, body: &[u8]) -> Result<(), PeerError> {
        let expected = self.side.target;
        let presented = stage.take_hello(TARGET, body)?.identity;
        if presented != expected {
            return Err(PeerError::WrongPeer {
                expected,
                presented,
            });
        }
        stage.send_hello(FORWARDER, &self.identity, None, &mut self.output)?;
        Ok(())
    }

    fn on_verdict(&mut self, stage: &Stage, body: &[u8]) -> Result<State, HandshakeError> {
        match Verdict::decode(body)? {
            Verdict::Accepted => {}
            Verdict::Refused | Verdict::Full => {
                self.event = Some(PeerEvent::Refused);
                return Ok(State::Refused);
            }
        }
        self.event = Some(PeerEvent::Live);
        Ok(State::Live(Box::new(session(stage, FORWARDER)?)))
    }
}
