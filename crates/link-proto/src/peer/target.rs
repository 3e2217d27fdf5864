//! The side that decides who may come in.

use std::sync::Arc;

use adit_model::{Identity, TunnelName};
use adit_wire::{FrameKind, Verdict};

use super::{
    FORWARDER, PEER_FIRST_LEN, PeerError, PeerEvent, PeerFresh, PeerHandshake, State, TARGET,
    WORDS, session,
};
use crate::handshake::HandshakeError;
use crate::keys::{Secret, shared};
use crate::seal::Suites;
use crate::stage::{MAX_HANDSHAKE_PAYLOAD, Stage, VERSION, answer, frame};

/// The target's side.
pub type PeerTarget = PeerHandshake<Target>;

/// What the target alone has.
pub struct Target {
    nonce: [u8; 16],
}

impl PeerTarget {
    /// Waits for a forwarder to the tunnel `name`.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "fresh bytes are used once")]
    pub fn start(
        name: TunnelName,
        identity: Arc<Identity>,
        fresh: PeerFresh,
        suites: Suites,
    ) -> Self {
        let PeerFresh { ephemeral, nonce } = fresh;
        Self {
            side: Target { nonce },
            state: State::Begun(Secret::new(ephemeral)),
            name,
            identity,
            suites,
            output: Vec::new(),
            event: None,
        }
    }

    /// As [`super::PeerForwarder::handle_input`].
    ///
    /// # Errors
    /// See [`PeerError`]; every error is final.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<usize, PeerError> {
        self.advance(bytes, Self::step)
    }

    fn step(&mut self, state: State, bytes: &[u8]) -> Result<(State, usize), PeerError> {
        match state {
            State::Begun(ephemeral) => match bytes.first_chunk::<PEER_FIRST_LEN>() {
                None => Ok((State::Begun(ephemeral), 0)),
                Some(first) => {
                    let stage = self.on_first(&ephemeral, first)?;
                    Ok((State::AwaitHello(Box::new(stage)), PEER_FIRST_LEN))
                }
            },
            State::AwaitHello(mut stage) => {
                match frame(bytes, &mut stage.opener, MAX_HANDSHAKE_PAYLOAD)? {
                    None => Ok((State::AwaitHello(stage), 0)),
                    Some((FrameKind::HELLO, body, count)) => {
                        let identity = stage.take_hello(FORWARDER, &body)?.identity;
                        self.event = Some(PeerEvent::Proved(identity));
                        Ok((State::AwaitVerdict(stage), count))
                    }
                    Some((kind, ..)) => Err(HandshakeError::Unexpected(kind).into()),
                }
            }
            other @ (State::AwaitVerdict(_) | State::Live(_) | State::Refused) => Ok((other, 0)),
            State::Failed => Err(HandshakeError::BadState.into()),
        }
    }

    fn on_first(
        &mut self,
        ephemeral: &Secret,
        first: &[u8; PEER_FIRST_LEN],
    ) -> Result<Stage, HandshakeError> {
        let (head, share) = first
            .split_last_chunk::<32>()
            .ok_or(HandshakeError::BadState)?;
        if head[0] & VERSION == 0 {
            return Err(HandshakeError::NoCommonVersion);
        }
        let suite = self.suites.pick(head[1]);
        let suite = suite.ok_or(HandshakeError::NoCommonSuite)?;
        let answer = answer(ephemeral, &self.side.nonce, suite)?;
        let dh = shared(ephemeral, share)?;
        let transcript = self.transcript(first, &answer);
        let secrets: [&[u8]; 1] = [dh.as_slice()];
        let mut stage = Stage::new(&WORDS, transcript, suite, &secrets, TARGET)?;
        self.output.extend_from_slice(&answer);
        stage.send_hello(TARGET, &self.identity, None, &mut self.output)?;
        Ok(stage)
    }

    /// Lets the forwarder in, or not; it is not told why.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] unless it has proved who it is.
    pub fn decide(&mut self, admitted: bool) -> Result<(), PeerError> {
        let State::AwaitVerdict(mut stage) = std::mem::replace(&mut self.state, State::Failed)
        else {
            return Err(HandshakeError::BadState.into());
        };
        let verdict = if admitted {
            Verdict::Accepted
        } else {
            Verdict::Refused
        };
        let live = admitted.then(|| session(&stage, TARGET)).transpose();
        let live = live.map_err(HandshakeError::from)?;
        stage.send(FrameKind::VERDICT, &verdict.to_bytes(), &mut self.output)?;
        self.state = match live {
            Some(session) => {
                self.event = Some(PeerEvent::Live);
                State::Live(Box::new(session))
            }
            None => State::Refused,
        };
        Ok(())
    }
}
