//! Sealing and opening frames in place.
//!
//! One direction of one channel has one secret; its key and nonce base come
//! from it, and at each period of frames the secret is replaced by its own
//! ratchet step and forgotten, so that a key found later opens nothing that
//! was sent before. The counter runs on through every step. Per frame nothing
//! is allocated and no key schedule is computed.

use std::ops::Range;

use adit_wire::{FrameKind, HEAD, Header, INNER, LENGTH, MAX_PAYLOAD, TAG};
use aws_lc_rs::aead::{
    AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use zeroize::Zeroize;

use crate::keys::{KeyError, Secret, expand};

/// Frames of one direction after which its key is replaced.
pub const RATCHET_PERIOD: u64 = 1 << 20;

/// How frames are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439), which every implementation has.
    ChaCha20Poly1305,
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm,
}

impl Suite {
    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 1,
            Self::Aes256Gcm => 2,
        }
    }

    /// The suite of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::ChaCha20Poly1305, Self::Aes256Gcm]
            .into_iter()
            .find(|suite| suite.number() == number)
    }
}

/// Which suites one side can use; ChaCha20-Poly1305 always is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites {
    /// AES-256-GCM too: the processor has instructions for it.
    pub aes: bool,
}

impl Suites {
    /// The byte of the first message: bit `number - 1` of each suite.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        1 | u8::from(self.aes) << 1
    }

    /// The suite that an edge with these suites picks from an offer.
    #[must_use]
    pub fn pick(self, offer: u8) -> Option<Suite> {
        if self.aes && offer & 2 != 0 {
            Some(Suite::Aes256Gcm)
        } else {
            (offer & 1 != 0).then_some(Suite::ChaCha20Poly1305)
        }
    }

    /// Whether an agent with these suites offered `suite`.
    #[must_use]
    pub fn has(self, suite: Suite) -> bool {
        suite == Suite::ChaCha20Poly1305 || self.aes
    }
}

/// Why a frame could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The buffer is shorter than an empty frame or longer than a full one.
    #[error("frame has a length that frames do not have")]
    BadLength,
    /// The direction's counter is at its end, or it failed before.
    #[error("channel direction is at its end")]
    Exhausted,
    /// The cipher refused.
    #[error("cipher failed")]
    Cipher,
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its length is one that frames do not have.
    #[error("frame has a length that frames do not have")]
    BadLength,
    /// It was altered, repeated, reordered, or sealed for another place.
    #[error("frame does not open")]
    NotAuthentic,
    /// The direction's counter is at its end, or it failed before.
    #[error("channel direction is at its end")]
    Exhausted,
}

/// One direction's key.
struct Direction {
    suite: Suite,
    secret: Secret,
    key: LessSafeKey,
    base: [u8; 4],
    counter: u64,
    /// Frames until the key is replaced.
    left: u64,
    period: u64,
    /// Set at the first failure, for good.
    ended: bool,
}

impl Direction {
    fn new(suite: Suite, secret: Secret, period: u64) -> Result<Self, KeyError> {
        let period = period.max(1);
        let (key, base) = prepare(suite, &secret)?;
        Ok(Self {
            suite,
            secret,
            key,
            base,
            counter: 0,
            left: period,
            period,
            ended: false,
        })
    }

    /// The nonce of the next frame; the key is the one for it.
    #[inline]
    fn next(&mut self) -> Option<Nonce> {
        if self.ended || self.counter == u64::MAX {
            self.ended = true;
            return None;
        }
        if self.left == 0 && self.ratchet().is_err() {
            self.ended = true;
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.base);
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter += 1;
        self.left -= 1;
        Some(Nonce::assume_unique_for_key(nonce))
    }

    #[cold]
    fn ratchet(&mut self) -> Result<(), KeyError> {
        let next = expand(&self.secret, "adit/1 ratchet", &[]);
        self.secret.zeroize();
        self.secret = next;
        (self.key, self.base) = prepare(self.suite, &self.secret)?;
        self.left = self.period;
        Ok(())
    }
}

pub(crate) fn prepare(suite: Suite, secret: &Secret) -> Result<(LessSafeKey, [u8; 4]), KeyError> {
    let algorithm = match suite {
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Suite::Aes256Gcm => &AES_256_GCM,
    };
    let key = expand(secret, "adit/1 key", &[]);
    let key = UnboundKey::new(algorithm, key.as_slice()).map_err(|_| KeyError::BadKey)?;
    let nonce = expand(secret, "adit/1 nonce", &[]);
    let mut base = [0; 4];
    base.copy_from_slice(&nonce[..4]);
    Ok((LessSafeKey::new(key), base))
}

/// Seals the frames of one direction.
pub struct Sealer(Direction);

impl Sealer {
    /// A direction from its 32-byte secret.
    ///
    /// # Errors
    /// [`KeyError::BadKey`] when the library refuses the key.
    pub fn new(suite: Suite, secret: [u8; 32]) -> Result<Self, KeyError> {
        Self::with_period(suite, secret, RATCHET_PERIOD)
    }

    /// Like [`Sealer::new`] with another ratchet period, for tests: both
    /// sides must use the same.
    ///
    /// # Errors
    /// As [`Sealer::new`].
    pub fn with_period(suite: Suite, secret: [u8; 32], period: u64) -> Result<Self, KeyError> {
        Direction::new(suite, Secret::new(secret), period).map(Self)
    }

    /// Seals a frame in place. `frame` is `HEAD` bytes of room, the payload,
    /// `TAG` bytes of room; afterwards it is what goes on the wire.
    ///
    /// # Errors
    /// See [`SealError`]; after one the direction seals no more.
    #[inline]
    pub fn seal(
        &mut self,
        kind: FrameKind,
        flags: u8,
        stream: u32,
        frame: &mut [u8],
    ) -> Result<(), SealError> {
        let sealed = frame.len().wrapping_sub(LENGTH);
        if frame.len() < HEAD + TAG || sealed > INNER + MAX_PAYLOAD + TAG {
            return Err(SealError::BadLength);
        }
        let nonce = self.0.next().ok_or(SealError::Exhausted)?;
        let (length, rest) = frame
            .split_first_chunk_mut::<LENGTH>()
            .ok_or(SealError::BadLength)?;
        *length = u32::try_from(sealed)
            .map_err(|_| SealError::BadLength)?
            .to_be_bytes();
        let (plain, tag_room) = rest
            .split_last_chunk_mut::<TAG>()
            .ok_or(SealError::BadLength)?;
        let header = Header {
            kind,
            flags,
            stream,
        };
        plain[..INNER].copy_from_slice(&header.to_bytes());
        match self
            .0
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(*length), plain)
        {
            Ok(tag) => {
                tag_room.copy_from_slice(tag.as_ref());
                Ok(())
            }
            Err(_) => {
                self.0.ended = true;
                Err(SealError::Cipher)
            }
        }
    }

    /// Appends a sealed frame to `out`: for frames that are made, not
    /// relayed.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn append(
        &mut self,
        kind: FrameKind,
        stream: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(SealError::BadLength);
        }
        let start = out.len();
        out.resize(start + HEAD, 0);
        out.extend_from_slice(payload);
        out.resize(out.len() + TAG, 0);
        let sealed = self.seal(kind, 0, stream, &mut out[start..]);
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    /// Frames sealed so far.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.0.counter
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({:?}, frame {})", self.0.suite, self.0.counter)
    }
}

/// An opened frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What the frame is.
    pub kind: FrameKind,
    /// Its flag bits.
    pub flags: u8,
    /// Its stream of the channel.
    pub stream: u32,
    /// Where the payload lies within the frame's buffer.
    pub payload: Range<usize>,
}

/// Opens the frames of one direction.
pub struct Opener(Direction);

impl Opener {
    /// A direction from its 32-byte secret.
    ///
    /// # Errors
    /// [`KeyError::BadKey`] when the library refuses the key.
    pub fn new(suite: Suite, secret: [u8; 32]) -> Result<Self, KeyError> {
        Self::with_period(suite, secret, RATCHET_PERIOD)
    }

    /// Like [`Opener::new`] with another ratchet period, for tests.
    ///
    /// # Errors
    /// As [`Opener::new`].
    pub fn with_period(suite: Suite, secret: [u8; 32], period: u64) -> Result<Self, KeyError> {
        Direction::new(suite, Secret::new(secret), period).map(Self)
    }

    /// The length of the whole frame that begins with these bytes, themselves
    /// included. Known before any memory is taken for it.
    ///
    /// # Errors
    /// [`OpenError::BadLength`].
    #[inline]
    pub fn frame_len(head: &[u8; LENGTH]) -> Result<usize, OpenError> {
        let sealed = u32::from_be_bytes(*head) as usize;
        if !(INNER + TAG..=INNER + MAX_PAYLOAD + TAG).contains(&sealed) {
            return Err(OpenError::BadLength);
        }
        Ok(LENGTH + sealed)
    }

    /// Opens a whole frame in place.
    ///
    /// # Errors
    /// See [`OpenError`]; after one the direction opens no more, and what is
    /// in `frame` is not to be used.
    #[inline]
    pub fn open(&mut self, frame: &mut [u8]) -> Result<Opened, OpenError> {
        let opened = self.try_open(frame);
        if opened.is_err() {
            self.0.ended = true;
        }
        opened
    }

    #[inline]
    fn try_open(&mut self, frame: &mut [u8]) -> Result<Opened, OpenError> {
        let whole = frame.len();
        let (length, sealed) = frame
            .split_first_chunk_mut::<LENGTH>()
            .ok_or(OpenError::BadLength)?;
        if Self::frame_len(length)? != whole {
            return Err(OpenError::BadLength);
        }
        let nonce = self.0.next().ok_or(OpenError::Exhausted)?;
        let plain = self
            .0
            .key
            .open_in_place(nonce, Aad::from(*length), sealed)
            .map_err(|_| OpenError::NotAuthentic)?;
        let inner = plain.first_chunk::<INNER>().ok_or(OpenError::BadLength)?;
        let header = Header::from_bytes(*inner);
        Ok(Opened {
            kind: header.kind,
            flags: header.flags,
            stream: header.stream,
            payload: HEAD..whole - TAG,
        })
    }

    /// Frames opened so far.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.0.counter
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener({:?}, frame {})", self.0.suite, self.0.counter)
    }
}
