//! Connection ids that nobody but their door can make, and that every process
//! with this door knows.

use std::io;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;

use crate::entropy::random;

/// Bytes that tell ids apart, those of processes before included: an id is
/// never to be made twice, for whoever has seen its reset has its token.
const NONCE: usize = 6;
/// Bytes of an id: a nonce and its MAC.
pub(super) const LENGTH: usize = NONCE + 6;

/// What ids are made with.
pub(super) struct Ids {
    /// Of a door: that of its ids.
    mac: hmac::Key,
    /// Of this process.
    nonces: hmac::Key,
    /// Ids of connections that are not there are answered.
    is_door: bool,
}

fn fresh() -> io::Result<hmac::Key> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?))
}

impl Ids {
    /// Those of a door, which has this key.
    pub(super) fn of_door(mac: hmac::Key) -> io::Result<Self> {
        Ok(Self {
            mac,
            nonces: fresh()?,
            is_door: true,
        })
    }

    /// Those of an agent: nobody is to know them later.
    pub(super) fn of_agent() -> io::Result<Self> {
        Ok(Self {
            mac: fresh()?,
            nonces: fresh()?,
            is_door: false,
        })
    }

    /// The id of a number, which tells nothing of it.
    fn of(&self, number: u64) -> [u8; LENGTH] {
        let mut id = [0; LENGTH];
        let nonce = hmac::sign(&self.nonces, &number.to_be_bytes());
        id[..NONCE].copy_from_slice(&nonce.as_ref()[..NONCE]);
        let mac = hmac::sign(&self.mac, &id[..NONCE]);
        id[NONCE..].copy_from_slice(&mac.as_ref()[..LENGTH - NONCE]);
        id
    }

    /// Whether a process with this key made the id.
    pub(super) fn made(&self, id: &[u8]) -> bool {
        let Some((nonce, mac)) = id.split_first_chunk::<NONCE>() else {
            return false;
        };
        let wanted = hmac::sign(&self.mac, nonce);
        let wanted = &wanted.as_ref()[..LENGTH - NONCE];
        constant_time::verify_slices_are_equal(wanted, mac).is_ok()
    }
}

/// Makes the ids of an endpoint for the QUIC library.
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

    /// The library asks about short headers whose connection it does not have,
    /// to answer with a stateless reset (RFC 9000 §10.3).
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if self.ids.is_door && self.ids.made(id) {
            return Ok(());
        }
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

    fn door(key: u8) -> Arc<Ids> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]);
        Arc::new(Ids::of_door(key).unwrap())
    }

    #[test]
    fn only_the_door_makes_its_ids_and_knows_those_of_processes_before() {
        let (ids, later, other) = (door(1), door(1), door(2));
        let mut makers = [&ids, &later].map(|ids| Maker::new(Arc::clone(ids)));
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            for maker in &mut makers {
                let id = maker.generate_cid();
                assert_eq!(id.len(), maker.cid_len());
                assert!(ids.made(&id) && later.made(&id) && !other.made(&id));
                assert!(maker.validate(&id).is_ok());
                assert!(seen.insert(id), "an id twice");
            }
        }
        let id = makers[0].generate_cid();
        for bit in 0..LENGTH * 8 {
            let mut forged = id.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!ids.made(&forged), "bit {bit}");
            assert!(makers[0].validate(&ConnectionId::new(&forged)).is_err());
        }
        for length in 0..LENGTH {
            assert!(!ids.made(&id[..length]), "{length}");
        }
        assert!(!ids.made(&[&id[..], &[0]].concat()));
    }

    #[test]
    fn an_agent_answers_for_no_id_of_its_own() {
        let ids = Arc::new(Ids::of_agent().unwrap());
        let mut maker = Maker::new(Arc::clone(&ids));
        let id = maker.generate_cid();
        assert!(ids.made(&id) && maker.validate(&id).is_err());
    }
}
