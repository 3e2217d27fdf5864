//! The edge's side of the handshake.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_model::{Identity, InstanceId, Pin, PublicKey};
use adit_wire::{AuthOk, FrameKind, Verdict};

use super::{HandshakeError, Input, Session, WORDS};
use crate::control::{Control, Timing};
use crate::first::{ProvedLink, VERSIONS};
use crate::keys::{PskKeys, Secret, mac, same, shared};
use crate::seal::Suites;
use crate::session::{CONTROL, Role, SessionKeys, directions};
use crate::stage::{MAX_HANDSHAKE_PAYLOAD, Stage, answer};
use crate::transcript::Transcript;

/// Until when the agent must have proved itself.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Until when a person must have typed the PIN.
const PIN_WITHIN: Duration = Duration::from_secs(180);
/// Most bytes that wait for being looked at: one frame.
const MAX_INPUT: usize = MAX_HANDSHAKE_PAYLOAD + adit_wire::FRAME_OVERHEAD;

/// Fresh random bytes of one handshake.
pub struct EdgeFresh {
    /// X25519 private key.
    pub ephemeral: [u8; 32],
    /// Nonce of the answer.
    pub nonce: [u8; 16],
}

/// What the agent did.
#[derive(Debug)]
pub enum EdgeEvent {
    /// It proved its identity: now ask for the PIN, refuse or admit.
    AgentProved {
        /// Who it is.
        identity: PublicKey,
        /// Which process of it.
        instance: InstanceId,
        /// Its program's version; no part of any decision.
        version: String,
    },
    /// It offered a PIN: now refuse or admit.
    PinOffered(PinProof),
}

/// An agent's proof that it knows a PIN, bound to this handshake.
pub struct PinProof {
    key: Secret,
    offered: [u8; 32],
}

impl PinProof {
    /// Whether it was made from `pin`; in constant time.
    #[must_use]
    pub fn matches(&self, pin: &Pin) -> bool {
        let expected = mac(self.key.as_slice(), &[pin.bytes()]);
        same(&expected, &self.offered)
    }
}

impl std::fmt::Debug for PinProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinProof(hidden)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitHello,
    /// The agent proved itself; the edge decides.
    Decide,
    AwaitPin,
    /// A PIN was offered; the edge decides.
    DecidePin,
    Refused,
    Failed,
}

/// The edge's side, begun by a proved first message.
pub struct EdgeHandshake {
    stage: Stage,
    state: State,
    input: Input,
    output: Vec<u8>,
    events: VecDeque<EdgeEvent>,
    edge: PublicKey,
    started: Instant,
}

impl EdgeHandshake {
    /// Answers a proved first message.
    ///
    /// # Errors
    /// [`HandshakeError::NoCommonVersion`], [`HandshakeError::NoCommonSuite`],
    /// [`HandshakeError::Key`] for a weak share.
    #[expect(clippy::needless_pass_by_value, reason = "fresh bytes are used once")]
    pub fn start(
        proved: &ProvedLink,
        keys: &PskKeys,
        identity: &Identity,
        fresh: EdgeFresh,
        suites: Suites,
        now: Instant,
    ) -> Result<Self, HandshakeError> {
        let first = proved.first();
        if first.versions() & VERSIONS == 0 {
            return Err(HandshakeError::NoCommonVersion);
        }
        let suite = suites
            .pick(first.suites())
            .ok_or(HandshakeError::NoCommonSuite)?;
        let EdgeFresh { ephemeral, nonce } = fresh;
        let ephemeral = Secret::new(ephemeral);
        let dh = shared(&ephemeral, &first.share())?;
        let mut output = answer(&ephemeral, &nonce, suite)?;
        let mut transcript = Transcript::link();
        transcript.add(&[first.bytes()]);
        transcript.add(&[&output]);
        let secrets: [&[u8]; 2] = [dh.as_slice(), keys.psk().bytes()];
        let mut stage = Stage::new(&WORDS, transcript, suite, &secrets, Role::Edge)?;
        stage.send_hello(Role::Edge, identity, None, &mut output)?;
        Ok(Self {
            stage,
            state: State::AwaitHello,
            input: Input::new(MAX_INPUT),
            output,
            events: VecDeque::new(),
            edge: identity.public(),
            started: now,
        })
    }

    /// Takes bytes of the agent, any number of them.
    ///
    /// # Errors
    /// See [`HandshakeError`]; every error is final.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let handled = self.try_input(bytes);
        if handled.is_err() {
            self.state = State::Failed;
        }
        handled
    }

    fn try_input(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        if matches!(self.state, State::Failed | State::Refused) {
            return Err(HandshakeError::BadState);
        }
        self.input.push(bytes)?;
        let opener = &mut self.stage.opener;
        let Some((kind, body)) = self.input.frame(opener, MAX_HANDSHAKE_PAYLOAD)? else {
            return Ok(());
        };
        match (self.state, kind) {
            (State::AwaitHello, FrameKind::HELLO) => self.on_hello(&body)?,
            (State::AwaitPin, FrameKind::PIN_PROOF) => self.on_pin(&body)?,
            _ => return Err(HandshakeError::Unexpected(kind)),
        }
        // An agent has nothing to say until it is answered.
        if self.input.bytes.is_empty() {
            Ok(())
        } else {
            Err(HandshakeError::TooMuch)
        }
    }

    fn on_hello(&mut self, body: &[u8]) -> Result<(), HandshakeError> {
        let hello = self.stage.take_hello(Role::Agent, body)?;
        let missing = adit_wire::DecodeError::Missing;
        let instance = hello.instance.ok_or(missing(3))?;
        let version = hello.version.ok_or(missing(4))?;
        self.state = State::Decide;
        self.events.push_back(EdgeEvent::AgentProved {
            identity: hello.identity,
            instance,
            version,
        });
        Ok(())
    }

    fn on_pin(&mut self, body: &[u8]) -> Result<(), HandshakeError> {
        let offered = body
            .try_into()
            .map_err(|_| adit_wire::DecodeError::Malformed(0))?;
        let key = self.stage.pin_key();
        self.stage
            .transcript
            .add(&[&[FrameKind::PIN_PROOF.0], body]);
        self.state = State::DecidePin;
        self.events
            .push_back(EdgeEvent::PinOffered(PinProof { key, offered }));
        Ok(())
    }

    /// Bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<EdgeEvent> {
        self.events.pop_front()
    }

    /// When the agent has run out of time.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::AwaitPin | State::DecidePin => self.started + PIN_WITHIN,
            _ => self.started + HELLO_WITHIN,
        }
    }

    /// Asks for the PIN, before any verdict, so that an unlisted identity and
    /// a wrong PIN look alike.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] unless the agent has just proved itself.
    pub fn ask_pin(&mut self) -> Result<(), HandshakeError> {
        if self.state != State::Decide {
            return Err(HandshakeError::BadState);
        }
        self.stage
            .send(FrameKind::PIN_WANTED, &[], &mut self.output)?;
        self.state = State::AwaitPin;
        Ok(())
    }

    /// Refuses the agent; there is one refusal for every cause.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] before the agent has proved itself.
    pub fn refuse(&mut self) -> Result<(), HandshakeError> {
        self.turn_away(Verdict::Refused)
    }

    /// Refuses an agent whom nothing keeps out but that there are as many as may
    /// be. The caller closes once everything is sent.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] before the agent has proved itself.
    pub fn refuse_full(&mut self) -> Result<(), HandshakeError> {
        self.turn_away(Verdict::Full)
    }

    fn turn_away(&mut self, verdict: Verdict) -> Result<(), HandshakeError> {
        if !matches!(
            self.state,
            State::Decide | State::AwaitPin | State::DecidePin
        ) {
            return Err(HandshakeError::BadState);
        }
        let body = verdict.to_bytes();
        self.stage
            .send(FrameKind::VERDICT, &body, &mut self.output)?;
        self.state = State::Refused;
        Ok(())
    }

    /// Admits the agent: the last bytes to send, and the live link.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] unless a decision is due.
    pub fn admit(
        mut self,
        welcome: &AuthOk,
        timing: Timing,
        now: Instant,
    ) -> Result<(Vec<u8>, Session), HandshakeError> {
        if !matches!(self.state, State::Decide | State::DecidePin) {
            return Err(HandshakeError::BadState);
        }
        let prk = self.stage.session_prk();
        let mut output = std::mem::take(&mut self.output);
        let body = Verdict::Accepted.to_bytes();
        self.stage.send(FrameKind::VERDICT, &body, &mut output)?;
        let (mut sealer, opener) = directions(self.stage.suite, &prk, &CONTROL, &[], Role::Edge)?;
        let mut body = Vec::with_capacity(256);
        welcome.encode(&mut body)?;
        sealer.append(FrameKind::AUTH_OK, 0, &body, &mut output)?;
        let keys = Arc::new(SessionKeys::new(self.stage.suite, self.edge, &prk));
        let pair = (sealer, opener);
        let control = Control::new(Role::Edge, pair, Arc::clone(&keys), timing, now);
        Ok((output, Session { control, keys }))
    }
}

impl std::fmt::Debug for EdgeHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EdgeHandshake({:?})", self.state)
    }
}
