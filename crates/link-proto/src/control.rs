//! The control channel of a live link: messages, heartbeats, key epochs.
//!
//! Life is measured both ways by one rule: each side asks a question every
//! `heartbeat`, and a question that stays unanswered for `dead - heartbeat`
//! ends the link. A cut therefore shows within `dead` in either direction, a
//! peer that never reads shows like a cut, and a process that was stopped for
//! a while is not taken for a dead network when it wakes, because it is not
//! the past silence that counts but the answer to a question.
//!
//! Key epochs: the agent sends `REKEY`, the edge answers `REKEY_ACK` and seals
//! under the new keys from its next frame on; the agent sends `REKEY_DONE` and
//! does the same. Data channels name the epoch that they draw on; the last one
//! works for [`crate::EPOCH_GRACE`] more and is erased.
//!
//! Invariants: an error is final; at most [`MAX_QUEUED`] bytes wait to be
//! sent; input is held for one unfinished frame at most; only the agent begins
//! an epoch and epochs go up by one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_wire::{DecodeError, EncodeError, FrameKind, Heartbeat, LENGTH, MAX_PAYLOAD, Message};

use crate::keys::{KeyError, Secret, share_of, shared};
use crate::seal::{OpenError, Opener, SealError, Sealer};
use crate::session::{Role, SessionKeys};

/// Most bytes that wait to be sent; above, a message is refused.
pub const MAX_QUEUED: usize = 1 << 20;
/// How often an agent begins a new key epoch.
pub const REKEY_EVERY: Duration = Duration::from_secs(3600);

/// When a link is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two questions.
    pub heartbeat: Duration,
    /// Until a cut is noticed; above `heartbeat`.
    pub dead: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            dead: Duration::from_secs(20),
        }
    }
}

/// Why the control channel ended or refused a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A frame did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A frame could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A message was malformed or of an unknown kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A message does not fit its limits; the channel goes on.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A message that this side never receives, or not now.
    #[error("unexpected message {0:?}")]
    Unexpected(FrameKind),
    /// The other side does not read: [`MAX_QUEUED`] bytes wait. The channel
    /// goes on.
    #[error("the other side of the link does not read")]
    Full,
    /// The channel ended before.
    #[error("the link is over")]
    Over,
}

/// What happened on the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// A message for the owner of the link.
    Message(Message),
    /// A question came back after this time.
    Rtt(Duration),
    /// A question did not come back: the link is over.
    Dead,
    /// Call [`Control::rekey`] with fresh random bytes.
    WantEphemeral,
    /// A new key epoch holds.
    Rekeyed(u32),
}

/// Where a side is in the change of key epochs.
enum Rekey {
    Idle,
    /// Agent: `REKEY` is sent.
    Asked {
        ephemeral: Secret,
        share: [u8; 32],
    },
    /// Edge: `REKEY` came, its own ephemeral is wanted.
    WantShare([u8; 32]),
    /// Edge: `REKEY_ACK` is sent; this opens what comes after `REKEY_DONE`.
    Answered(Box<Opener>),
}

/// A question on its way.
#[derive(Clone, Copy)]
struct Question {
    sequence: u64,
    asked: Instant,
}

/// One side of the control channel.
pub struct Control {
    role: Role,
    sealer: Sealer,
    opener: Opener,
    keys: Arc<SessionKeys>,
    timing: Timing,
    input: Vec<u8>,
    output: Vec<u8>,
    events: VecDeque<ControlEvent>,
    sequence: u64,
    question: Option<Question>,
    ask_at: Instant,
    rekey: Rekey,
    rekey_every: Duration,
    rekey_at: Option<Instant>,
    over: bool,
}

impl Control {
    pub(crate) fn new(
        role: Role,
        (sealer, opener): (Sealer, Opener),
        keys: Arc<SessionKeys>,
        timing: Timing,
        now: Instant,
    ) -> Self {
        Self {
            role,
            sealer,
            opener,
            keys,
            timing,
            input: Vec::new(),
            output: Vec::new(),
            events: VecDeque::new(),
            sequence: 0,
            question: None,
            // At once: who is near is treated as such.
            ask_at: now,
            rekey: Rekey::Idle,
            rekey_every: REKEY_EVERY,
            rekey_at: (role == Role::Agent).then(|| now + REKEY_EVERY),
            over: false,
        }
    }

    /// Agent: sets another time between key epochs, counted from `now`.
    pub fn rekey_every(&mut self, every: Duration, now: Instant) {
        self.rekey_every = every;
        if self.role == Role::Agent {
            self.rekey_at = Some(now + every);
        }
    }

    /// Takes bytes of the other side, any number of them.
    ///
    /// # Errors
    /// See [`ControlError`]; every error here ends the link.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) -> Result<(), ControlError> {
        if self.over {
            return Err(ControlError::Over);
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let handled = self.take_frames(&mut input, now);
        match handled {
            Ok(taken) if taken == input.len() => {}
            Ok(taken) => {
                input.drain(..taken);
                self.input = input;
            }
            Err(_) => self.over = true,
        }
        handled.map(|_| ())
    }

    /// Handles every whole frame; the bytes that they took.
    fn take_frames(&mut self, input: &mut [u8], now: Instant) -> Result<usize, ControlError> {
        let mut taken = 0;
        while let Some(head) = input[taken..].first_chunk::<LENGTH>() {
            let length = Opener::frame_len(head)?;
            let Some(frame) = input.get_mut(taken..taken + length) else {
                break;
            };
            let opened = self.opener.open(frame)?;
            if opened.flags != 0 || opened.stream != 0 {
                return Err(ControlError::Unexpected(opened.kind));
            }
            let message = Message::decode(opened.kind, &frame[opened.payload])?;
            self.on_message(message, now)?;
            taken += length;
        }
        Ok(taken)
    }

    fn on_message(&mut self, message: Message, now: Instant) -> Result<(), ControlError> {
        if !may_send(other(self.role), &message) {
            return Err(ControlError::Unexpected(message.kind()));
        }
        match message {
            Message::Heartbeat(beat) => self.on_heartbeat(beat, now),
            Message::Rekey { epoch, share } => self.on_rekey(epoch, share),
            Message::RekeyAck { epoch, share } => self.on_rekey_ack(epoch, &share, now),
            Message::RekeyDone { epoch } => self.on_rekey_done(epoch),
            other => {
                self.events.push_back(ControlEvent::Message(other));
                Ok(())
            }
        }
    }

    fn on_heartbeat(&mut self, beat: Heartbeat, now: Instant) -> Result<(), ControlError> {
        let Some(echo) = beat.echo else {
            let answer = Heartbeat {
                sequence: self.sequence,
                echo: Some(beat.sequence),
            };
            return self.queue(&Message::Heartbeat(answer));
        };
        if let Some(question) = self.question.take_if(|q| q.sequence == echo) {
            let rtt = now.saturating_duration_since(question.asked);
            self.events.push_back(ControlEvent::Rtt(rtt));
        }
        Ok(())
    }

    fn on_rekey(&mut self, epoch: u32, share: [u8; 32]) -> Result<(), ControlError> {
        let expected = self.keys.epoch().checked_add(1);
        if expected != Some(epoch) || !matches!(self.rekey, Rekey::Idle) {
            return Err(ControlError::Unexpected(FrameKind::REKEY));
        }
        self.rekey = Rekey::WantShare(share);
        self.events.push_back(ControlEvent::WantEphemeral);
        Ok(())
    }

    fn on_rekey_ack(
        &mut self,
        epoch: u32,
        theirs: &[u8; 32],
        now: Instant,
    ) -> Result<(), ControlError> {
        let unexpected = ControlError::Unexpected(FrameKind::REKEY_ACK);
        let Rekey::Asked { ephemeral, share } = std::mem::replace(&mut self.rekey, Rekey::Idle)
        else {
            return Err(unexpected);
        };
        if self.keys.epoch().checked_add(1) != Some(epoch) {
            return Err(unexpected);
        }
        let dh = shared(&ephemeral, theirs)?;
        let (sealer, opener) = self
            .keys
            .advance(epoch, &dh, (&share, theirs), Role::Agent, now)?;
        self.queue(&Message::RekeyDone { epoch })?;
        (self.sealer, self.opener) = (sealer, opener);
        self.rekey_at = Some(now + self.rekey_every);
        self.events.push_back(ControlEvent::Rekeyed(epoch));
        Ok(())
    }

    fn on_rekey_done(&mut self, epoch: u32) -> Result<(), ControlError> {
        match std::mem::replace(&mut self.rekey, Rekey::Idle) {
            Rekey::Answered(opener) if self.keys.epoch() == epoch => {
                self.opener = *opener;
                self.events.push_back(ControlEvent::Rekeyed(epoch));
                Ok(())
            }
            _ => Err(ControlError::Unexpected(FrameKind::REKEY_DONE)),
        }
    }

    /// Goes on with a change of keys after [`ControlEvent::WantEphemeral`];
    /// `ephemeral` is an X25519 private key. Without such a wish it begins an
    /// epoch on the agent's side and does nothing on the edge's.
    ///
    /// # Errors
    /// See [`ControlError`]; every error here ends the link.
    pub fn rekey(&mut self, ephemeral: [u8; 32], now: Instant) -> Result<(), ControlError> {
        if self.over {
            return Err(ControlError::Over);
        }
        let done = match (self.role, std::mem::replace(&mut self.rekey, Rekey::Idle)) {
            (Role::Agent, Rekey::Idle) => self.begin_rekey(ephemeral),
            (Role::Edge, Rekey::WantShare(theirs)) => {
                self.answer_rekey(&Secret::new(ephemeral), &theirs, now)
            }
            (_, other) => {
                self.rekey = other;
                Ok(())
            }
        };
        self.over |= done.is_err();
        done
    }

    fn begin_rekey(&mut self, ephemeral: [u8; 32]) -> Result<(), ControlError> {
        let Some(epoch) = self.keys.epoch().checked_add(1) else {
            return Err(ControlError::Over);
        };
        let ephemeral = Secret::new(ephemeral);
        let share = share_of(&ephemeral)?;
        self.queue(&Message::Rekey { epoch, share })?;
        self.rekey_at = None;
        self.rekey = Rekey::Asked { ephemeral, share };
        Ok(())
    }

    fn answer_rekey(
        &mut self,
        ephemeral: &Secret,
        theirs: &[u8; 32],
        now: Instant,
    ) -> Result<(), ControlError> {
        let Some(epoch) = self.keys.epoch().checked_add(1) else {
            return Err(ControlError::Over);
        };
        let dh = shared(ephemeral, theirs)?;
        let share = share_of(ephemeral)?;
        self.queue(&Message::RekeyAck { epoch, share })?;
        let (sealer, opener) = self
            .keys
            .advance(epoch, &dh, (theirs, &share), Role::Edge, now)?;
        self.sealer = sealer;
        self.rekey = Rekey::Answered(Box::new(opener));
        Ok(())
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`ControlError::Encode`], [`ControlError::Full`] and
    /// [`ControlError::Unexpected`] (a message that this side does not send)
    /// leave the link alive.
    pub fn send(&mut self, message: &Message) -> Result<(), ControlError> {
        let ours = matches!(
            message,
            Message::Heartbeat(_)
                | Message::Rekey { .. }
                | Message::RekeyAck { .. }
                | Message::RekeyDone { .. }
        );
        if ours || !may_send(self.role, message) {
            return Err(ControlError::Unexpected(message.kind()));
        }
        self.queue(message)
    }

    fn queue(&mut self, message: &Message) -> Result<(), ControlError> {
        if self.over {
            return Err(ControlError::Over);
        }
        let mut body = Vec::with_capacity(64);
        message.encode(&mut body)?;
        debug_assert!(body.len() <= MAX_PAYLOAD);
        if self.output.len() + body.len() > MAX_QUEUED {
            return Err(ControlError::Full);
        }
        self.sealer
            .append(message.kind(), 0, &body, &mut self.output)?;
        Ok(())
    }

    /// Does what is due at `now`. Input that has arrived is to be handled
    /// first: it may hold the answer whose absence would end the link.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.keys.erase(now);
        if self.verdict_at().is_some_and(|at| at <= now) {
            self.over = true;
            self.events.push_back(ControlEvent::Dead);
            return;
        }
        if self.ask_at <= now {
            self.ask(now);
        }
        if self.rekey_at.is_some_and(|at| at <= now) {
            // Asked for again should the caller let it pass.
            self.rekey_at = Some(now + self.rekey_every);
            self.events.push_back(ControlEvent::WantEphemeral);
        }
    }

    fn ask(&mut self, now: Instant) {
        self.ask_at = now + self.timing.heartbeat;
        if self.question.is_some() {
            return;
        }
        self.sequence += 1;
        self.question = Some(Question {
            sequence: self.sequence,
            asked: now,
        });
        let question = Heartbeat {
            sequence: self.sequence,
            echo: None,
        };
        // A question that finds no room stays unanswered, which is the truth
        // about a peer that does not read.
        let _ = self.queue(&Message::Heartbeat(question));
    }

    fn verdict_at(&self) -> Option<Instant> {
        let patience = self.timing.dead.saturating_sub(self.timing.heartbeat);
        self.question.map(|q| q.asked + patience)
    }

    /// Bytes to send, all that wait.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output))
    }

    /// What happened. Take all events after each input and each timeout.
    pub fn poll_event(&mut self) -> Option<ControlEvent> {
        self.events.pop_front()
    }

    /// When [`Control::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let due = [self.verdict_at(), self.rekey_at, self.keys.erase_at()];
        due.into_iter().flatten().chain([self.ask_at]).min()
    }

    /// Whether the link ended: an error, or [`ControlEvent::Dead`].
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Agent => Role::Edge,
        Role::Edge => Role::Agent,
    }
}

/// Which side sends which message.
fn may_send(role: Role, message: &Message) -> bool {
    match message {
        Message::TunnelStatus(_)
        | Message::Heartbeat(_)
        | Message::Stats(_)
        | Message::StatsWanted
        | Message::Error { .. } => true,
        Message::OpenTunnel(_)
        | Message::CloseTunnel { .. }
        | Message::Rekey { .. }
        | Message::RekeyDone { .. } => role == Role::Agent,
        Message::IncomingConn { .. }
        | Message::ChannelsWanted { .. }
        | Message::Drain(_)
        | Message::Superseded
        | Message::RekeyAck { .. } => role == Role::Edge,
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({:?}, {:?}", self.role, self.keys)?;
        f.write_str(if self.over { ", over)" } else { ")" })
    }
}

#[cfg(test)]
mod tests;
