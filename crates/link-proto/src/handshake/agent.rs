//! The agent's side of the handshake.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_model::{Identity, InstanceId, Pin, Psk, PublicKey};
use adit_wire::{AuthOk, FrameKind, MAX_PAYLOAD, Verdict};

use super::{HandshakeError, Input, Session, WORDS};
use crate::control::{Control, Timing};
use crate::first::{Body, First, Parts};
use crate::keys::{PskKeys, Secret, mac, share_of, shared};
use crate::seal::{Opener, Sealer, Suite, Suites};
use crate::session::{CONTROL, Role, SessionKeys, directions};
use crate::stage::{ANSWER_LEN, MAX_HANDSHAKE_PAYLOAD, Stage, read_answer};
use crate::transcript::Transcript;

/// Most bytes that wait: an edge may send frames right behind its welcome.
const MAX_INPUT: usize = 1 << 20;

/// Fresh random bytes of one handshake.
pub struct AgentFresh {
    /// X25519 private key.
    pub ephemeral: [u8; 32],
    /// Nonce of the first message.
    pub nonce: [u8; 16],
}

/// What the edge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// It wants the PIN: call [`AgentHandshake::offer_pin`].
    PinWanted,
    /// It refused this agent, for a cause that it does not tell.
    Refused,
    /// It refused this agent, only because it has as many as it may.
    Full,
    /// The link is live: call [`AgentHandshake::finish`].
    Live,
}

enum State {
    /// The first message is sent.
    AwaitAnswer(Secret),
    /// The answer is there.
    AwaitHello(Box<Stage>),
    /// The edge is authenticated; it decides.
    AwaitDecision(Box<Stage>),
    /// The PIN is asked for.
    PinWanted(Box<Stage>),
    /// The PIN is sent.
    AwaitVerdict(Box<Stage>),
    AwaitWelcome(Box<Ready>),
    Live(Box<Ready>, Box<AuthOk>),
    Refused,
    Failed,
}

/// The session's keys, before the welcome.
struct Ready {
    suite: Suite,
    prk: Secret,
    sealer: Sealer,
    opener: Opener,
}

/// The agent's side.
pub struct AgentHandshake {
    state: State,
    first: First,
    psk: Psk,
    edge: PublicKey,
    identity: Arc<Identity>,
    instance: InstanceId,
    version: String,
    suites: Suites,
    input: Input,
    output: Vec<u8>,
    events: VecDeque<AgentEvent>,
}

impl AgentHandshake {
    /// Begins a link to the edge whose key is `edge`. `unix` is the wall time
    /// in seconds, `version` is for people to read, at most 64 bytes.
    ///
    /// # Errors
    /// [`HandshakeError::Key`] when the ephemeral key is refused.
    #[expect(clippy::too_many_arguments, reason = "each is a fact of its own")]
    #[expect(clippy::needless_pass_by_value, reason = "fresh bytes are used once")]
    pub fn start(
        keys: &PskKeys,
        edge: PublicKey,
        identity: Arc<Identity>,
        instance: InstanceId,
        unix: u64,
        fresh: AgentFresh,
        suites: Suites,
        version: &str,
    ) -> Result<Self, HandshakeError> {
        let AgentFresh { ephemeral, nonce } = fresh;
        let ephemeral = Secret::new(ephemeral);
        let parts = Parts {
            id: keys.id_at(unix),
            unix,
            nonce,
            body: Body::Link(share_of(&ephemeral)?),
            suites: suites.to_byte(),
        };
        let first = First::make(&parts, keys.first_key(), &edge);
        Ok(Self {
            output: first.bytes().to_vec(),
            state: State::AwaitAnswer(ephemeral),
            first,
            psk: keys.psk().clone(),
            edge,
            identity,
            instance,
            version: version.to_owned(),
            suites,
            input: Input::new(MAX_INPUT),
            events: VecDeque::new(),
        })
    }

    /// Takes bytes of the edge, any number of them.
    ///
    /// # Errors
    /// See [`HandshakeError`]; every error is final.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let handled = self.input.push(bytes).and_then(|()| self.advance());
        if handled.is_err() {
            self.state = State::Failed;
        }
        handled
    }

    /// Takes steps for as long as there is input for them.
    fn advance(&mut self) -> Result<(), HandshakeError> {
        loop {
            let before = std::mem::replace(&mut self.state, State::Failed);
            let (after, went_on) = self.step(before)?;
            self.state = after;
            if !went_on {
                return Ok(());
            }
        }
    }

    /// One step; false when it needs more input or waits for the caller.
    fn step(&mut self, state: State) -> Result<(State, bool), HandshakeError> {
        match state {
            State::AwaitAnswer(ephemeral) => self.on_answer(ephemeral),
            State::AwaitHello(mut stage) => match self.frame(&mut stage.opener)? {
                None => Ok((State::AwaitHello(stage), false)),
                Some((FrameKind::HELLO, body)) => {
                    self.on_hello(&mut stage, &body)?;
                    Ok((State::AwaitDecision(stage), true))
                }
                Some((kind, _)) => Err(HandshakeError::Unexpected(kind)),
            },
            State::AwaitDecision(mut stage) => match self.frame(&mut stage.opener)? {
                None => Ok((State::AwaitDecision(stage), false)),
                Some((FrameKind::PIN_WANTED, body)) => {
                    let entry: [&[u8]; 2] = [&[FrameKind::PIN_WANTED.0], &body];
                    stage.transcript.add(&entry);
                    self.events.push_back(AgentEvent::PinWanted);
                    Ok((State::PinWanted(stage), true))
                }
                Some((FrameKind::VERDICT, body)) => self.on_verdict(&stage, &body),
                Some((kind, _)) => Err(HandshakeError::Unexpected(kind)),
            },
            // The edge may run out of patience while a person looks for the PIN.
            State::PinWanted(mut stage) => match self.frame(&mut stage.opener)? {
                None => Ok((State::PinWanted(stage), false)),
                Some((FrameKind::VERDICT, body)) if body == Verdict::Refused.to_bytes() => {
                    self.on_verdict(&stage, &body)
                }
                Some((kind, _)) => Err(HandshakeError::Unexpected(kind)),
            },
            State::AwaitVerdict(mut stage) => match self.frame(&mut stage.opener)? {
                None => Ok((State::AwaitVerdict(stage), false)),
                Some((FrameKind::VERDICT, body)) => self.on_verdict(&stage, &body),
                Some((kind, _)) => Err(HandshakeError::Unexpected(kind)),
            },
            State::AwaitWelcome(mut ready) => {
                match self.input.frame(&mut ready.opener, MAX_PAYLOAD)? {
                    None => Ok((State::AwaitWelcome(ready), false)),
                    Some((FrameKind::AUTH_OK, body)) => {
                        let welcome = Box::new(AuthOk::decode(&body)?);
                        self.events.push_back(AgentEvent::Live);
                        Ok((State::Live(ready, welcome), false))
                    }
                    Some((kind, _)) => Err(HandshakeError::Unexpected(kind)),
                }
            }
            // What comes behind the welcome waits for the control channel.
            State::Live(ready, welcome) => Ok((State::Live(ready, welcome), false)),
            State::Refused | State::Failed => Err(HandshakeError::BadState),
        }
    }

    fn frame(
        &mut self,
        opener: &mut Opener,
    ) -> Result<Option<(FrameKind, Vec<u8>)>, HandshakeError> {
        self.input.frame(opener, MAX_HANDSHAKE_PAYLOAD)
    }

    fn on_answer(&mut self, ephemeral: Secret) -> Result<(State, bool), HandshakeError> {
        let Some(answer) = self.input.bytes.first_chunk::<ANSWER_LEN>() else {
            return Ok((State::AwaitAnswer(ephemeral), false));
        };
        let (share, suite) = read_answer(answer, self.suites)?;
        let dh = shared(&ephemeral, share)?;
        let mut transcript = Transcript::link();
        transcript.add(&[self.first.bytes()]);
        transcript.add(&[answer]);
        let secrets: [&[u8]; 2] = [dh.as_slice(), self.psk.bytes()];
        let stage = Stage::new(&WORDS, transcript, suite, &secrets, Role::Agent)?;
        self.input.bytes.drain(..ANSWER_LEN);
        Ok((State::AwaitHello(Box::new(stage)), true))
    }

    fn on_hello(&mut self, stage: &mut Stage, body: &[u8]) -> Result<(), HandshakeError> {
        let hello = stage.take_hello(Role::Edge, body)?;
        if hello.identity != self.edge {
            return Err(HandshakeError::WrongEdge {
                expected: self.edge,
                presented: hello.identity,
            });
        }
        let process = Some((self.instance, self.version.clone()));
        stage.send_hello(Role::Agent, &self.identity, process, &mut self.output)
    }

    fn on_verdict(&mut self, stage: &Stage, body: &[u8]) -> Result<(State, bool), HandshakeError> {
        let refused = match Verdict::decode(body)? {
            Verdict::Accepted => None,
            Verdict::Refused => Some(AgentEvent::Refused),
            Verdict::Full => Some(AgentEvent::Full),
        };
        if let Some(refused) = refused {
            self.events.push_back(refused);
            return Ok((State::Refused, false));
        }
        let prk = stage.session_prk();
        let (sealer, opener) = directions(stage.suite, &prk, &CONTROL, &[], Role::Agent)?;
        let ready = Ready {
            suite: stage.suite,
            prk,
            sealer,
            opener,
        };
        Ok((State::AwaitWelcome(Box::new(ready)), true))
    }

    /// Bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// Proves a PIN, to the edge that has proved itself.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] unless the edge has asked for it.
    pub fn offer_pin(&mut self, pin: &Pin) -> Result<(), HandshakeError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::PinWanted(mut stage) => {
                let proof = mac(stage.pin_key().as_slice(), &[pin.bytes()]);
                stage.send(FrameKind::PIN_PROOF, &proof, &mut self.output)?;
                self.state = State::AwaitVerdict(stage);
                Ok(())
            }
            other => {
                self.state = other;
                Err(HandshakeError::BadState)
            }
        }
    }

    /// The live link, with the edge's welcome.
    ///
    /// # Errors
    /// [`HandshakeError::BadState`] before [`AgentEvent::Live`], and
    /// [`HandshakeError::Control`] when bytes behind the welcome are refused.
    pub fn finish(self, now: Instant) -> Result<(AuthOk, Session), HandshakeError> {
        let State::Live(ready, welcome) = self.state else {
            return Err(HandshakeError::BadState);
        };
        let timing = Timing {
            heartbeat: Duration::from_millis(welcome.heartbeat_ms.into()),
            dead: Duration::from_millis(welcome.dead_ms.into()),
        };
        let keys = Arc::new(SessionKeys::new(ready.suite, self.edge, &ready.prk));
        let pair = (ready.sealer, ready.opener);
        let mut control = Control::new(Role::Agent, pair, Arc::clone(&keys), timing, now);
        control.handle_input(&self.input.bytes, now)?;
        Ok((*welcome, Session { control, keys }))
    }
}

impl std::fmt::Debug for AgentHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::AwaitAnswer(_) => "AgentHandshake(first message sent)",
            State::AwaitHello(_) => "AgentHandshake(answered)",
            State::AwaitDecision(_) => "AgentHandshake(edge authenticated)",
            State::PinWanted(_) => "AgentHandshake(PIN wanted)",
            State::AwaitVerdict(_) => "AgentHandshake(PIN offered)",
            State::AwaitWelcome(_) => "AgentHandshake(accepted)",
            State::Live(..) => "AgentHandshake(live)",
            State::Refused => "AgentHandshake(refused)",
            State::Failed => "AgentHandshake(failed)",
        })
    }
}
