//! How a QUIC door tells agents from strangers before it answers.
//!
//! The client of a QUIC connection chooses the first destination connection id
//! (RFC 9000 §7.2): 20 bytes, which an agent makes
//!
//! ```text
//! id of the secret 8 | nonce 4 | first 8 bytes of
//!     HMAC(first_key, "adit quic knock" ‖ id ‖ nonce ‖ edge key)
//! ```
//!
//! To whoever cannot make one the door is silent. A knock can be heard and
//! repeated while its id lives, so each opens one connection and is remembered
//! for as long ([`SeenKnocks`]).

use std::collections::{HashMap, HashSet, VecDeque};

use adit_model::PublicKey;

use crate::first::SecretId;
use crate::keys::{ID_EPOCH, PskKeys, mac_with, same};

/// Bytes of a knock: the longest connection id that QUIC has.
pub const KNOCK_LEN: usize = 20;
const COVERED: usize = 12;
const LABEL: &[u8] = b"adit quic knock";

/// A connection id that may prove a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Knock([u8; KNOCK_LEN]);

impl Knock {
    /// Takes the bytes; all of them are something.
    #[must_use]
    pub fn parse(bytes: &[u8; KNOCK_LEN]) -> Self {
        Self(*bytes)
    }

    /// The knock of a holder of `keys` at `edge`, at a unix time; `nonce` is
    /// random, so that two agents with one secret differ.
    #[must_use]
    pub fn make(keys: &PskKeys, edge: &PublicKey, unix: u64, nonce: [u8; 4]) -> Self {
        let mut bytes = [0; KNOCK_LEN];
        bytes[..8].copy_from_slice(&keys.id_at(unix).0);
        bytes[8..COVERED].copy_from_slice(&nonce);
        let mac = mac_with(keys.first_key(), &[LABEL, &bytes[..COVERED], &edge.0]);
        bytes[COVERED..].copy_from_slice(&mac[..KNOCK_LEN - COVERED]);
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KNOCK_LEN] {
        &self.0
    }

    /// Which secret it names.
    #[must_use]
    pub fn id(&self) -> SecretId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[..8]);
        SecretId(id)
    }

    /// Whether a holder of `keys` made it for `edge`.
    #[must_use]
    pub fn fits(&self, keys: &PskKeys, edge: &PublicKey) -> bool {
        let mac = mac_with(keys.first_key(), &[LABEL, &self.0[..COVERED], &edge.0]);
        same(&mac[..KNOCK_LEN - COVERED], &self.0[COVERED..])
    }
}

/// How a QUIC datagram begins (RFC 8999 §5, RFC 9000 §17.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuicStart<'a> {
    /// A short header: of a connection that is there, or of none.
    Short,
    /// Version 1, with its destination connection id.
    Long(&'a [u8]),
    /// Another version, or not QUIC.
    Foreign,
}

impl<'a> QuicStart<'a> {
    /// Looks at the first bytes.
    #[must_use]
    pub fn of(datagram: &'a [u8]) -> Self {
        match datagram {
            [first, ..] if first & 0x80 == 0 => Self::Short,
            [_, 0, 0, 0, 1, length, rest @ ..] if usize::from(*length) <= KNOCK_LEN => rest
                .get(..usize::from(*length))
                .map_or(Self::Foreign, Self::Long),
            _ => Self::Foreign,
        }
    }
}

/// Seconds for which an id can be used: the epochs before, at and after the
/// edge's own time.
const ID_LIFE: u64 = 3 * ID_EPOCH;

/// Knocks that have opened a connection: each does so once.
///
/// One is forgotten when its id has died; until then a full memory refuses new
/// ones, and no secret has more than its share of it.
#[derive(Debug)]
pub struct SeenKnocks {
    seen: HashSet<Knock>,
    by_time: VecDeque<(u64, Knock)>,
    per_id: HashMap<SecretId, usize>,
    capacity: usize,
    quota: usize,
}

impl SeenKnocks {
    /// Room for `capacity` knocks, `quota` of them with one id.
    #[must_use]
    pub fn new(capacity: usize, quota: usize) -> Self {
        Self {
            seen: HashSet::new(),
            by_time: VecDeque::new(),
            per_id: HashMap::new(),
            capacity,
            quota,
        }
    }

    /// Uses a knock up that proves a secret; false when it was used before, or
    /// cannot be remembered. `now` is in seconds of a clock that never goes
    /// back.
    pub fn use_up(&mut self, knock: Knock, now: u64) -> bool {
        self.forget(now);
        let used = self.per_id.get(&knock.id()).copied().unwrap_or(0);
        let has_room = used < self.quota && self.seen.len() < self.capacity;
        if !has_room || !self.seen.insert(knock) {
            return false;
        }
        self.by_time.push_back((now, knock));
        self.per_id.insert(knock.id(), used + 1);
        true
    }

    fn forget(&mut self, now: u64) {
        while let Some((at, knock)) = self.by_time.front().copied() {
            if at.saturating_add(ID_LIFE) >= now {
                return;
            }
            self.by_time.pop_front();
            self.seen.remove(&knock);
            let left = self.per_id.get(&knock.id()).copied().unwrap_or(0);
            if left > 1 {
                self.per_id.insert(knock.id(), left - 1);
            } else {
                self.per_id.remove(&knock.id());
            }
        }
    }

    /// Knocks remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use adit_model::Psk;

    use super::*;

    #[test]
    fn only_a_holder_knocks() {
        let keys = PskKeys::new(&Psk::from_random([1; 32]));
        let edge = PublicKey([7; 32]);
        let knock = Knock::make(&keys, &edge, 1_000_000, [1, 2, 3, 4]);
        assert!(knock.fits(&keys, &edge));
        assert_eq!(knock.id(), keys.id_at(1_000_000));
        assert!(!knock.fits(&keys, &PublicKey([8; 32])), "another edge");
        assert!(!knock.fits(&PskKeys::new(&Psk::from_random([2; 32])), &edge));
        for bit in 0..KNOCK_LEN * 8 {
            let mut bytes = *knock.bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Knock::parse(&bytes).fits(&keys, &edge), "bit {bit}");
        }
    }

    fn knock(id: u8, number: u32) -> Knock {
        let mut bytes = [id; KNOCK_LEN];
        bytes[8..COVERED].copy_from_slice(&number.to_be_bytes());
        Knock(bytes)
    }

    #[test]
    fn a_knock_opens_once_while_its_id_lives() {
        let mut seen = SeenKnocks::new(10, 10);
        assert!(seen.use_up(knock(1, 0), 100));
        for now in [100, 101, 100 + ID_LIFE] {
            assert!(!seen.use_up(knock(1, 0), now), "{now}");
        }
        assert_eq!(seen.len(), 1);
        assert!(seen.use_up(knock(1, 1), 101 + ID_LIFE));
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_no_holder_takes_it_all() {
        let mut seen = SeenKnocks::new(1000, 600);
        let greedy = (0..5000).filter(|number| seen.use_up(knock(1, *number), 0));
        assert_eq!(greedy.count(), 600);
        let others = (0..5000).filter(|number| seen.use_up(knock(2, *number), 1));
        assert_eq!(others.count(), 400);
        assert!(!seen.use_up(knock(3, 0), ID_LIFE), "nothing goes early");
        assert!(!seen.use_up(knock(1, 0), ID_LIFE));
        assert!(seen.use_up(knock(3, 0), ID_LIFE + 1));
        assert_eq!((seen.len(), seen.per_id.len()), (401, 2));
        assert!(seen.use_up(knock(4, 0), 3 * ID_LIFE));
        assert_eq!(
            (seen.len(), seen.per_id.len(), seen.by_time.len()),
            (1, 1, 1)
        );
    }
}
