//! The first message of a connection: 128 bytes, one form for links and for
//! data channels, frozen for all versions.
//!
//! ```text
//!  0  secret id  8      32  share 32   (link: X25519 public share;
//!  8  unix u64   8                      channel: number u64, epoch u32, zeros)
//! 16  nonce     16      64  kind u8, versions u8, suites u8, zeros 29
//!                       96  MAC 32
//! ```
//!
//! The MAC covers a label, the 96 bytes before it and the key of the edge that
//! the sender means, so that nothing captured at one edge works at another.

use std::fmt;

use adit_model::PublicKey;
use aws_lc_rs::hmac;

use crate::keys::{PskKeys, mac_with, same};

/// Bytes of the first message.
pub const FIRST_LEN: usize = 128;
const COVERED: usize = 96;
const LABEL: &[u8] = b"adit first message";
const KIND_LINK: u8 = 1;
const KIND_CHANNEL: u8 = 2;
const KIND_FORWARD: u8 = 3;
const KIND_TRUNK: u8 = 4;
/// Bit 0: version 1.
pub(crate) const VERSIONS: u8 = 1;

/// The changing id of a pre-shared secret or of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretId(pub [u8; 8]);

impl fmt::Debug for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// A first message as received: nothing in it is proved yet.
#[derive(Clone)]
pub struct First([u8; FIRST_LEN]);

/// A link's first message whose MAC fits.
#[derive(Clone)]
pub struct ProvedLink(First);

/// A data channel's header: proved on the edge, made on the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvedChannel {
    /// The channel's number within its session, used once.
    pub number: u64,
    /// The key epoch that it draws on.
    pub epoch: u32,
    /// The agent's random bytes for its keys.
    pub random: [u8; 16],
    /// What it is for.
    pub purpose: Purpose,
}

/// What a data connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Streams that the edge begins, one after the other.
    Streams,
    /// One stream that the agent begins, with `FORWARD`.
    Forward,
    /// Many lines, each for streams that the edge begins.
    Trunk,
}

impl Purpose {
    fn kind(self) -> u8 {
        match self {
            Self::Streams => KIND_CHANNEL,
            Self::Forward => KIND_FORWARD,
            Self::Trunk => KIND_TRUNK,
        }
    }

    fn of(kind: u8) -> Option<Self> {
        let all = [Self::Streams, Self::Forward, Self::Trunk];
        all.into_iter().find(|purpose| purpose.kind() == kind)
    }
}

/// What a sender puts into a first message.
pub(crate) struct Parts {
    pub(crate) id: SecretId,
    pub(crate) unix: u64,
    pub(crate) nonce: [u8; 16],
    pub(crate) body: Body,
    pub(crate) suites: u8,
}

pub(crate) enum Body {
    Link([u8; 32]),
    Channel {
        number: u64,
        epoch: u32,
        purpose: Purpose,
    },
}

impl First {
    /// Takes the bytes; all of them are something.
    #[must_use]
    pub fn parse(bytes: &[u8; FIRST_LEN]) -> Self {
        Self(*bytes)
    }

    pub(crate) fn make(parts: &Parts, key: &hmac::Key, edge: &PublicKey) -> Self {
        let mut bytes = [0; FIRST_LEN];
        bytes[..8].copy_from_slice(&parts.id.0);
        bytes[8..16].copy_from_slice(&parts.unix.to_be_bytes());
        bytes[16..32].copy_from_slice(&parts.nonce);
        bytes[64] = match parts.body {
            Body::Link(share) => {
                bytes[32..64].copy_from_slice(&share);
                KIND_LINK
            }
            Body::Channel {
                number,
                epoch,
                purpose,
            } => {
                bytes[32..40].copy_from_slice(&number.to_be_bytes());
                bytes[40..44].copy_from_slice(&epoch.to_be_bytes());
                purpose.kind()
            }
        };
        bytes[65] = VERSIONS;
        bytes[66] = parts.suites;
        let mac = mac_with(key, &[LABEL, &bytes[..COVERED], &edge.0]);
        bytes[COVERED..].copy_from_slice(&mac);
        Self(bytes)
    }

    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; FIRST_LEN] {
        &self.0
    }

    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&self.0[at..at + N]);
        part
    }

    /// Which secret the sender names.
    #[must_use]
    pub fn id(&self) -> SecretId {
        SecretId(self.part(0))
    }

    /// The sender's clock, unix seconds.
    #[must_use]
    pub fn unix(&self) -> u64 {
        u64::from_be_bytes(self.part(8))
    }

    /// The sender's single-use number.
    #[must_use]
    pub fn nonce(&self) -> [u8; 16] {
        self.part(16)
    }

    fn fits(&self, key: &hmac::Key, edge: &PublicKey) -> bool {
        let mac = mac_with(key, &[LABEL, &self.0[..COVERED], &edge.0]);
        same(&mac, &self.0[COVERED..])
    }

    /// Checks it as the beginning of a link to `edge` by a holder of `keys`.
    #[must_use]
    pub fn prove_link(&self, keys: &PskKeys, edge: &PublicKey) -> Option<ProvedLink> {
        let fits = self.fits(keys.first_key(), edge);
        (fits && self.0[64] == KIND_LINK).then(|| ProvedLink(self.clone()))
    }

    pub(crate) fn prove_channel_with(
        &self,
        key: &hmac::Key,
        edge: &PublicKey,
    ) -> Option<ProvedChannel> {
        let fits = self.fits(key, edge);
        let purpose = Purpose::of(self.0[64])?;
        fits.then(|| ProvedChannel {
            number: u64::from_be_bytes(self.part(32)),
            epoch: self.channel_epoch(),
            random: self.nonce(),
            purpose,
        })
    }

    pub(crate) fn channel_epoch(&self) -> u32 {
        u32::from_be_bytes(self.part(40))
    }

    pub(crate) fn share(&self) -> [u8; 32] {
        self.part(32)
    }

    pub(crate) fn versions(&self) -> u8 {
        self.0[65]
    }

    pub(crate) fn suites(&self) -> u8 {
        self.0[66]
    }
}

impl ProvedLink {
    /// The message.
    #[must_use]
    pub fn first(&self) -> &First {
        &self.0
    }
}
