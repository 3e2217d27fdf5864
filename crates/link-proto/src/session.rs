//! What the two sides of a live link share: the exporter of the current key
//! epoch and everything that data channels draw from it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_model::PublicKey;
use aws_lc_rs::hmac;

use crate::datagram::DatagramKeys;
use crate::first::{Body, FIRST_LEN, First, Parts, ProvedChannel, Purpose, SecretId};
use crate::keys::{KeyError, Secret, expand, extract, ids_around};
use crate::seal::{Opener, Sealer, Suite};
use crate::window::NumberWindow;

/// How long headers of the last epoch still work after a new one began:
/// channels that were being dialled.
pub const EPOCH_GRACE: Duration = Duration::from_secs(35);

/// Which side of the link somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Dials.
    Agent,
    /// Listens.
    Edge,
}

/// The labels of a pair of directions.
pub(crate) struct Labels {
    pub(crate) agent_to_edge: &'static str,
    pub(crate) edge_to_agent: &'static str,
}

pub(crate) const CONTROL: Labels = Labels {
    agent_to_edge: "adit/1 control agent to edge",
    edge_to_agent: "adit/1 control edge to agent",
};
const CHANNEL: Labels = Labels {
    agent_to_edge: "adit/1 channel agent to edge",
    edge_to_agent: "adit/1 channel edge to agent",
};
const LINE: Labels = Labels {
    agent_to_edge: "adit/1 line agent to edge",
    edge_to_agent: "adit/1 line edge to agent",
};
const DATAGRAM: Labels = Labels {
    agent_to_edge: "adit/1 datagram agent to edge",
    edge_to_agent: "adit/1 datagram edge to agent",
};

/// Both directions of a channel, from the side of `role`.
pub(crate) fn directions(
    suite: Suite,
    prk: &Secret,
    labels: &Labels,
    context: &[&[u8]],
    role: Role,
) -> Result<(Sealer, Opener), KeyError> {
    let to_edge = expand(prk, labels.agent_to_edge, context);
    let to_agent = expand(prk, labels.edge_to_agent, context);
    let (ours, theirs) = match role {
        Role::Agent => (to_edge, to_agent),
        Role::Edge => (to_agent, to_edge),
    };
    Ok((Sealer::new(suite, *ours)?, Opener::new(suite, *theirs)?))
}

struct Epoch {
    number: u32,
    exporter: Secret,
}

impl Epoch {
    fn header_key(&self) -> hmac::Key {
        let key = expand(&self.exporter, "adit/1 channel header", &[]);
        hmac::Key::new(hmac::HMAC_SHA256, key.as_slice())
    }
}

struct Epochs {
    current: Epoch,
    /// The one before, until it is erased.
    last: Option<(Epoch, Instant)>,
    numbers: NumberWindow,
}

impl Epochs {
    fn find(&self, number: u32) -> Option<&Epoch> {
        if self.current.number == number {
            return Some(&self.current);
        }
        let (last, _) = self.last.as_ref()?;
        (last.number == number).then_some(last)
    }
}

/// The session's keys, shared by its control channel and its data channels.
pub struct SessionKeys {
    suite: Suite,
    edge: PublicKey,
    id_key: Secret,
    epochs: Mutex<Epochs>,
}

impl SessionKeys {
    pub(crate) fn new(suite: Suite, edge: PublicKey, prk: &Secret) -> Self {
        Self {
            suite,
            edge,
            id_key: expand(prk, "adit/1 session id", &[]),
            epochs: Mutex::new(Epochs {
                current: Epoch {
                    number: 0,
                    exporter: expand(prk, "adit/1 exporter", &[]),
                },
                last: None,
                numbers: NumberWindow::default(),
            }),
        }
    }

    fn epochs(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.id_key.as_slice())
    }

    /// How this session seals.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The current key epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epochs().current.number
    }

    /// The session's ids of the epochs before, at and after a unix time; an
    /// edge finds the session of a channel header by them.
    #[must_use]
    pub fn ids_around(&self, unix: u64) -> [SecretId; 3] {
        ids_around(&self.id_key(), unix)
    }

    /// Agent: the header of data connection `number`, and what
    /// [`SessionKeys::channel`] or [`SessionKeys::trunk`] wants for it. A
    /// number is used once.
    #[must_use]
    pub fn channel_header(
        &self,
        number: u64,
        random: [u8; 16],
        unix: u64,
        purpose: Purpose,
    ) -> ([u8; FIRST_LEN], ProvedChannel) {
        let epochs = self.epochs();
        let epoch = epochs.current.number;
        let key = epochs.current.header_key();
        drop(epochs);
        let [_, id, _] = self.ids_around(unix);
        let parts = Parts {
            id,
            unix,
            nonce: random,
            body: Body::Channel {
                number,
                epoch,
                purpose,
            },
            suites: 0,
        };
        let first = First::make(&parts, &key, &self.edge);
        let proved = ProvedChannel {
            number,
            epoch,
            random,
            purpose,
        };
        (*first.bytes(), proved)
    }

    /// Edge: checks a channel header. The number is not used up by it.
    #[must_use]
    pub fn prove_channel(&self, first: &First) -> Option<ProvedChannel> {
        let epochs = self.epochs();
        let key = epochs.find(first.channel_epoch())?.header_key();
        drop(epochs);
        first.prove_channel_with(&key, &self.edge)
    }

    /// Edge: uses a channel's number up, before the first byte is sent on it.
    /// False: it was used before, or is too old to know.
    #[must_use]
    pub fn burn(&self, number: u64) -> bool {
        self.epochs().numbers.burn(number)
    }

    /// The two directions of a data channel.
    ///
    /// # Errors
    /// [`KeyError::UnknownEpoch`] when its epoch was erased meanwhile.
    pub fn channel(
        &self,
        channel: &ProvedChannel,
        edge_random: [u8; 16],
        role: Role,
    ) -> Result<(Sealer, Opener), KeyError> {
        let prk = self.channel_prk(channel, edge_random)?;
        let number = channel.number.to_be_bytes();
        let epoch = channel.epoch.to_be_bytes();
        directions(self.suite, &prk, &CHANNEL, &[&number, &epoch], role)
    }

    /// The keys of a trunk's lines.
    ///
    /// # Errors
    /// As [`SessionKeys::channel`].
    pub fn trunk(
        &self,
        channel: &ProvedChannel,
        edge_random: [u8; 16],
    ) -> Result<TrunkKeys, KeyError> {
        let prk = self.channel_prk(channel, edge_random)?;
        let of = (channel.number, channel.epoch);
        Ok(TrunkKeys::new(self.suite, of, *prk))
    }

    /// The keys of a data channel's datagrams.
    ///
    /// # Errors
    /// As [`SessionKeys::channel`].
    pub fn datagrams(
        &self,
        channel: &ProvedChannel,
        edge_random: [u8; 16],
        role: Role,
    ) -> Result<DatagramKeys, KeyError> {
        let prk = self.channel_prk(channel, edge_random)?;
        let context: [&[u8]; 2] = [&channel.number.to_be_bytes(), &channel.epoch.to_be_bytes()];
        let to_edge = expand(&prk, DATAGRAM.agent_to_edge, &context);
        let to_agent = expand(&prk, DATAGRAM.edge_to_agent, &context);
        match role {
            Role::Agent => DatagramKeys::new(self.suite, &to_edge, &to_agent),
            Role::Edge => DatagramKeys::new(self.suite, &to_agent, &to_edge),
        }
    }

    fn channel_prk(
        &self,
        channel: &ProvedChannel,
        edge_random: [u8; 16],
    ) -> Result<Secret, KeyError> {
        let epochs = self.epochs();
        let epoch = epochs
            .find(channel.epoch)
            .ok_or(KeyError::UnknownEpoch(channel.epoch))?;
        let mut salt = [0; 32];
        salt[..16].copy_from_slice(&channel.random);
        salt[16..].copy_from_slice(&edge_random);
        Ok(extract(&salt, &[epoch.exporter.as_slice()]))
    }

    /// Begins the next epoch from a fresh X25519 result; gives the control
    /// channel's new directions.
    pub(crate) fn advance(
        &self,
        epoch: u32,
        dh: &Secret,
        shares: (&[u8; 32], &[u8; 32]),
        role: Role,
        now: Instant,
    ) -> Result<(Sealer, Opener), KeyError> {
        let mut epochs = self.epochs();
        let prk = extract(epochs.current.exporter.as_slice(), &[dh.as_slice()]);
        let number = epoch.to_be_bytes();
        let context: [&[u8]; 3] = [&number, shares.0, shares.1];
        let pair = directions(self.suite, &prk, &CONTROL, &context, role)?;
        let next = Epoch {
            number: epoch,
            exporter: expand(&prk, "adit/1 exporter", &context),
        };
        let last = std::mem::replace(&mut epochs.current, next);
        epochs.last = Some((last, now + EPOCH_GRACE));
        Ok(pair)
    }

    /// When the last epoch is to be erased.
    pub(crate) fn erase_at(&self) -> Option<Instant> {
        self.epochs().last.as_ref().map(|(_, until)| *until)
    }

    /// Erases the last epoch once its time has come.
    pub(crate) fn erase(&self, now: Instant) {
        self.epochs().last.take_if(|(_, until)| *until <= now);
    }
}

/// What the lines of one trunk draw their keys from, one after the other: what
/// is left after a line gives nothing away about it or those before.
pub struct TrunkKeys {
    suite: Suite,
    number: u64,
    epoch: u32,
    /// The line whose keys were drawn last.
    line: u32,
    prk: Secret,
}

impl TrunkKeys {
    /// Of the trunk with this number and key epoch, from a secret that both
    /// sides have.
    #[must_use]
    pub fn new(suite: Suite, (number, epoch): (u64, u32), secret: [u8; 32]) -> Self {
        Self {
            suite,
            number,
            epoch,
            line: 0,
            prk: secret.into(),
        }
    }

    /// The line whose keys were drawn last, counted from 1.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.line
    }

    /// The next line's number and two directions; they are drawn once.
    ///
    /// # Errors
    /// [`KeyError::UsedUp`] when there are no more numbers.
    pub fn next_line(&mut self, role: Role) -> Result<(u32, (Sealer, Opener)), KeyError> {
        let line = self.line.checked_add(1).ok_or(KeyError::UsedUp)?;
        let (number, epoch) = (self.number.to_be_bytes(), self.epoch.to_be_bytes());
        let context: [&[u8]; 3] = [&number, &epoch, &line.to_be_bytes()];
        let pair = directions(self.suite, &self.prk, &LINE, &context, role)?;
        self.prk = expand(&self.prk, "adit/1 next line", &context);
        self.line = line;
        Ok((line, pair))
    }
}

impl std::fmt::Debug for TrunkKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrunkKeys({})", self.number)
    }
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionKeys({:?}, epoch {})", self.suite, self.epoch())
    }
}
