//! Connection ids that nobody but their door can make.

use std::io;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;

use crate::entropy::random;

/// Bytes that tell ids apart.
const NONCE: usize = 4;
/// Bytes of an id: a nonce and its MAC.
pub(super) const LENGTH: usize = NONCE + 6;

/// What the ids of one door are made with.
pub(super) struct Ids(hmac::Key);

impl Ids {
    /// A key of its own.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let key: [u8; 32] = random()?;
        Ok(Arc::new(Self(hmac::Key::new(hmac::HMAC_SHA256, &key))))
    }

    /// The id of a number, which tells nothing of it.
    fn of(&self, number: u64) -> [u8; LENGTH] {
        let mut id = [0; LENGTH];
        let nonce = hmac::sign(&self.0, &number.to_be_bytes());
        id[..NONCE].copy_from_slice(&nonce.as_ref()[..NONCE]);
        let mac = hmac::sign(&self.0, &id[..NONCE]);
        id[NONCE..].copy_from_slice(&mac.as_ref()[..LENGTH - NONCE]);
        id
    }

    /// Whether this door made the id.
    pub(super) fn made(&self, id: &[u8]) -> bool {
        let Some((nonce, mac)) = id.split_first_chunk::<NONCE>() else {
            return false;
        };
        let wanted = hmac::sign(&self.0, nonce);
        let wanted = &wanted.as_ref()[..LENGTH - NONCE];
        constant_time::verify_slices_are_equal(wanted, mac).is_ok()
    }
}

/// Makes the ids of a door for the QUIC library.
pub(super) struct Maker {
    ids: Arc<Ids>,
    next: u64,
}

impl Maker {
    pub(super) fn new(ids: Arc<Ids>) -> Self {
        Self { ids, next: 0 }
    }
}

impl ConnectionIdGenerator for Maker {
    fn generate_cid(&mut self) -> ConnectionId {
        let id = self.ids.of(self.next);
        self.next = self.next.wrapping_add(1);
        ConnectionId::new(&id)
    }

    /// Never: the library asks about ids of connections that are over, to
    /// answer with a stateless reset, and whoever has seen one could draw it.
    fn validate(&self, _: &ConnectionId) -> Result<(), InvalidCid> {
        Err(InvalidCid)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn only_the_door_makes_its_ids() {
        let (ids, other) = (Ids::new().unwrap(), Ids::new().unwrap());
        let mut maker = Maker::new(Arc::clone(&ids));
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let id = maker.generate_cid();
            assert_eq!(id.len(), maker.cid_len());
            assert!(ids.made(&id) && !other.made(&id));
            seen.insert(id);
        }
        // Four bytes tell them apart; the library asks again for a free one.
        assert!(seen.len() >= 998, "{}", seen.len());
        let id = maker.generate_cid();
        for bit in 0..LENGTH * 8 {
            let mut forged = id.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!ids.made(&forged), "bit {bit}");
        }
        for length in 0..LENGTH {
            assert!(!ids.made(&id[..length]), "{length}");
        }
        assert!(!ids.made(&[&id[..], &[0]].concat()));
    }
}
