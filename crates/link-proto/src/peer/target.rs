//! The side that decides who may come in.

use std::sync::Arc;

use adit_model::{Identity, TunnelName};
use adit_wire::{FrameKind, Verdict};

use super::{
    FORWARDER, PEER_FIRST_LEN, PEER_STREAM, PeerError, PeerEvent, PeerFresh, PeerSession, Stage,
    TARGET, VERSION, frame, transcript,
};
use crate::handshake::HandshakeError;
use crate::keys::{Secret, share_of, shared};
use crate::seal::Suites;

enum State {
    AwaitFirst(Box<PeerFresh>),
    AwaitHello(Box<Stage>),
    /// The forwarder is known; the caller decides.
    Decide(Box<Stage>),
    Live(Box<PeerSession>),
    Refused,
    Failed,
}

/// The target's side.
pub struct PeerTarget {
    state: State,
    name: TunnelName,
    identity: Arc<Identity>,
    suites: Suites,
    output: Vec<u8>,
    event: Option<PeerEvent>,
}

impl PeerTarget {
    /// Waits for a forwarder to the tunnel `name`.
    #[must_use]
    pub fn start(
        name: TunnelName,
        identity: Arc<Identity>,
        fresh: PeerFresh,
        suites: Suites,
    ) -> Self {
        Self {
            state: State::AwaitFirst(Box::new(fresh)),
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

    fn step(&mut self, state: State, bytes: &[u8]) -> Result<(State, usize), PeerError> {
        match state {
            State::AwaitFirst(fresh) => match bytes.first_chunk::<PEER_FIRST_LEN>() {
                None => Ok((State::AwaitFirst(fresh), 0)),
                Some(first) => {
                    let stage = self.on_first(&fresh, first)?;
                    Ok((State::AwaitHello(Box::new(stage)), PEER_FIRST_LEN))
                }
            },
            State::AwaitHello(mut stage) => match frame(bytes, &mut stage.opener)? {
                None => Ok((State::AwaitHello(stage), 0)),
                Some((FrameKind::HELLO, body, count)) => {
                    let identity = stage.take_hello(FORWARDER, &body)?;
                    self.event = Some(PeerEvent::Proved(identity));
                    Ok((State::Decide(stage), count))
                }
                Some((kind, ..)) => Err(HandshakeError::Unexpected(kind).into()),
            },
            other @ (State::Decide(_) | State::Live(_) | State::Refused) => Ok((other, 0)),
            State::Failed => Err(HandshakeError::BadState.into()),
        }
    }

    fn on_first(
        &mut self,
        fresh: &PeerFresh,
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
        let ephemeral = Secret::new(fresh.ephemeral);
        let answer = [
            &share_of(&ephemeral)?[..],
            &fresh.nonce,
            &[VERSION, suite.number()],
        ]
        .concat();
        let dh = shared(&ephemeral, share)?;
        let mut transcript = transcript(&self.name, first);
        transcript.add(&[&answer]);
        let mut stage = Stage::new(transcript, suite, &dh, TARGET)?;
        self.output.extend_from_slice(&answer);
        stage.send_hello(TARGET, &self.identity, &mut self.output)?;
        Ok(stage)
    }

    /// Lets the forwarder in, or not; it is not told why.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] unless it has proved who it is.
    pub fn decide(&mut self, admitted: bool) -> Result<(), PeerError> {
        let State::Decide(mut stage) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(HandshakeError::BadState.into());
        };
        let verdict = if admitted {
            Verdict::Accepted
        } else {
            Verdict::Refused
        };
        let body = verdict.to_bytes();
        let sent = stage
            .sealer
            .append(FrameKind::VERDICT, PEER_STREAM, &body, &mut self.output);
        sent.map_err(HandshakeError::from)?;
        self.state = if admitted {
            self.event = Some(PeerEvent::Live);
            let session = stage.session(TARGET).map_err(HandshakeError::from)?;
            State::Live(Box::new(session))
        } else {
            State::Refused
        };
        Ok(())
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

impl std::fmt::Debug for PeerTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerTarget({})", self.name)
    }
}
